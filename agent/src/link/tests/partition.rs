//! The link cut for an hour, and on and off for days, in virtual time: the whole shell but for TLS, over a network in
//! memory that loses what it carries without a word.

use std::io;

use active_monitor_runtime::cut::{Cuttable, Written};
use arc_swap::ArcSwap;
use futures::FutureExt;
use rcgen::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::super::drive::{Dial, Driver};
use super::*;
use crate::enrol::Identity;

/// Virtual time in which the remote hub takes in a frame of reports.
const TAKES: Duration = Duration::from_millis(50);
const MAX_UNACKED: u32 = 64;
/// Of a certificate as it comes: its age, and what is left of it. It is renewed each second at most.
const CERTIFICATE_AGE: Duration = Duration::from_secs(22);
const CERTIFICATE_REST: Duration = Duration::from_secs(8);
/// The agent's keepalive, and its timeout.
const SILENCE_SEEN: Duration = Duration::from_secs(31);
/// How long a hub may take nothing, or leave Hello without an answer.
const UNREAD: Duration = Duration::from_secs(30);
const NO_WELCOME: Duration = Duration::from_secs(10);
/// What may be sent ahead of what a hub has read, where that is little: bytes.
const SMALL_WINDOW: u32 = 16 << 10;
/// The longest pause between dials, and what a dial may take.
const BACK_AFTER_HEALING: Duration = Duration::from_secs(36);

/// What the hub heard, in order.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    /// The messages of the checks.
    Snapshot(Vec<String>),
    Check(String),
    Reports(Vec<u64>),
}

/// The network, and the hub behind it.
struct Far {
    up: watch::Sender<bool>,
    heard: Mutex<Vec<Heard>>,
    recorded: Mutex<BTreeMap<RunKey, u32>>,
    /// Whether reports are acked, and the last one that is not.
    acks: Mutex<bool>,
    unacked: Mutex<Option<u64>>,
    /// Whether frames are read, and how many bytes may be sent ahead of that.
    reads: watch::Sender<bool>,
    window: Option<u32>,
    /// Bytes a second that the link carries each way; no limit where it is absent.
    rate: Option<u32>,
    max_unacked: u32,
    /// Of each connection, whether the hub's end is gone.
    connections: Mutex<Vec<CancellationToken>>,
    /// Signs the next certificates; each is past two thirds of its life as it comes.
    hub: Hub,
    renewals_fail: Mutex<bool>,
    /// Said once, behind Welcome.
    says: Mutex<Vec<v1::HubFrame>>,
    answers: Mutex<Vec<Answer>>,
}

impl Far {
    fn new() -> Arc<Far> {
        Far::with(None, Hub::with_certificates(CERTIFICATE_AGE, CERTIFICATE_REST))
    }

    fn with(window: Option<u32>, hub: Hub) -> Arc<Far> {
        Arc::new(Far::made(window, hub))
    }

    fn slow(rate: u32) -> Arc<Far> {
        let hub = Hub::with_certificates(CERTIFICATE_AGE, Duration::from_secs(6000));
        Arc::new(Far { rate: Some(rate), max_unacked: 512, ..Far::made(None, hub) })
    }

    fn made(window: Option<u32>, hub: Hub) -> Far {
        Far {
            reads: watch::channel(true).0,
            window,
            rate: None,
            max_unacked: MAX_UNACKED,
            connections: Mutex::default(),
            up: watch::channel(true).0,
            heard: Mutex::default(),
            recorded: Mutex::default(),
            acks: Mutex::new(true),
            unacked: Mutex::default(),
            hub,
            renewals_fail: Mutex::new(false),
            says: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    fn dial(self: &Arc<Far>) -> Dial {
        let far = Arc::clone(self);
        Arc::new(move |_, _| {
            let far = Arc::clone(&far);
            let dial = move || far.clone().connect();
            dial::over("http://hub".parse().unwrap(), dial).boxed()
        })
    }

    /// A connection; while the network is down it never comes.
    async fn connect(self: Arc<Far>) -> io::Result<DuplexStream> {
        self.up.subscribe().wait_for(|up| *up).await.map_err(io::Error::other)?;
        let (near, wire) = duplex(1 << 16);
        let (other, served) = duplex(1 << 16);
        let (near_read, near_write) = tokio::io::split(wire);
        let (far_read, far_write) = tokio::io::split(other);
        tokio::spawn(carry(near_read, far_write, self.rate, self.up.subscribe()));
        tokio::spawn(carry(far_read, near_write, self.rate, self.up.subscribe()));
        let silence = Duration::from_secs(10);
        let over = CancellationToken::new();
        self.connections.lock().push(over.clone());
        let served = Served(Cuttable::new(served, over, Written::default()));
        let accepted = futures::stream::once(async move { Ok::<_, io::Error>(served) });
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(silence))
            .http2_keepalive_timeout(Some(silence))
            .initial_stream_window_size(self.window)
            .add_service(FleetServer::new(Remote(self)))
            .serve_with_incoming(accepted.chain(futures::stream::pending()));
        tokio::spawn(server);
        Ok(near)
    }

    fn last_reported(&self) -> u64 {
        let heard = self.heard.lock();
        heard
            .iter()
            .rev()
            .find_map(|heard| if let Heard::Reports(seqs) = heard { seqs.last().copied() } else { None })
            .unwrap_or(0)
    }

    /// The ack, where the hub gives any.
    fn acks(&self) -> Vec<Input> {
        let acked = self.unacked.lock().take_if(|_| *self.acks.lock());
        acked.map(|seq| Input::Committed { seq }).into_iter().collect()
    }

    fn carry_out(&self, output: Output) -> Vec<Input> {
        match output {
            Output::Register(hello) => {
                let welcome = Welcome {
                    session_epoch: 1,
                    heartbeat_ms: 5_000,
                    lease_ms: 15_000,
                    max_unacked_reports: self.max_unacked,
                    hub_version: hello.agent_version,
                };
                return vec![Input::Accepted(welcome)];
            }
            Output::Snapshot(checks) => {
                let messages = checks.into_iter().map(|check| check.message).collect();
                self.heard.lock().push(Heard::Snapshot(messages));
            }
            Output::Upsert(check) => self.heard.lock().push(Heard::Check(check.message)),
            Output::Record { reports, through_seq } => {
                self.heard.lock().push(Heard::Reports(reports.iter().map(|report| report.seq).collect()));
                for report in reports {
                    *self.recorded.lock().entry(report.run.key).or_default() += 1;
                }
                *self.unacked.lock() = Some(through_seq);
                return self.acks();
            }
            Output::Heartbeat(_) => return self.acks(),
            Output::End(error) => panic!("the hub ended the session: {error:?}"),
            Output::Removed(_)
            | Output::DefinitionsStatus(_)
            | Output::Answered(_)
            | Output::SelfTested(_)
            | Output::Send(_)
            | Output::DefinitionsTooLarge { .. } => {}
        }
        Vec::new()
    }
}

/// Carries bytes as long as the network is up; what it has when it goes down is lost, and so is the connection.
async fn carry(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    rate: Option<u32>,
    mut up: watch::Receiver<bool>,
) {
    let pump = async {
        let mut bytes = vec![0; 4096];
        while let Ok(count) = from.read(&mut bytes).await {
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_secs_f64(count as f64 / f64::from(rate))).await;
            }
            if count == 0 || to.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
        to.shutdown().await.ok();
    };
    let down = async { drop(up.wait_for(|up| !*up).await) };
    tokio::select! {
        () = pump => return,
        () = down => {}
    }
    // Neither end hears of it: only silence tells them.
    std::future::pending().await
}

struct Served(Cuttable<DuplexStream>);

impl tonic::transport::server::Connected for Served {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Served {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Served {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(context)
    }
}

struct Remote(Arc<Far>);

#[tonic::async_trait]
impl Fleet for Remote {
    type SessionStream = BoxStream<'static, Result<v1::HubFrame, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let (far, mut frames) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            let mut session = HubSession::new("c1".into());
            let mut reads = far.reads.subscribe();
            while reads.wait_for(|reads| *reads).await.is_ok() {
                let Ok(Some(frame)) = frames.message().await else { return };
                let frame = AgentFrame::try_from(frame).unwrap();
                if let AgentFrame::CommandAnswer(answer) = frame {
                    far.answers.lock().push(answer);
                    continue;
                }
                if matches!(frame, AgentFrame::Reports { .. }) {
                    tokio::time::sleep(TAKES).await;
                }
                let mut inputs = VecDeque::from([Input::Frame(frame)]);
                while let Some(input) = inputs.pop_front() {
                    for output in session.handle(input) {
                        let Output::Send(frame) = output else {
                            inputs.extend(far.carry_out(output));
                            continue;
                        };
                        sender.send(Ok(frame.into())).await.ok();
                        let says = std::mem::take(&mut *far.says.lock());
                        for frame in says {
                            sender.send(Ok(frame)).await.ok();
                        }
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateReply>, Status> {
        self.0.hub.state.lock().renewals += 1;
        if *self.0.renewals_fail.lock() {
            return Err(Status::unavailable("not now"));
        }
        Ok(Response::new(self.0.hub.certificate(&request.into_inner().csr)))
    }
}

/// Waits for something of the real world, the journal's disk, while the clock stands still.
async fn frozen<T>(work: impl Future<Output = T>) -> T {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    // The clock does not go on by itself as long as a blocking task runs.
    let blocked = tokio::task::spawn_blocking(move || wait.recv().ok());
    let result = work.await;
    drop(done);
    blocked.await.unwrap();
    result
}

/// The agent's end.
struct Near {
    far: Arc<Far>,
    journal: Journal,
    states: States,
    connected: watch::Receiver<bool>,
    runs: i64,
    task: JoinHandle<()>,
    _definitions: watch::Receiver<Option<PushedDefinitions>>,
    _statuses: mpsc::Sender<(u64, Vec<DefinitionStatus>)>,
    _commands: mpsc::Receiver<Command>,
    _answers: mpsc::Sender<Answer>,
    _dir: tempfile::TempDir,
}

impl Near {
    async fn start(far: &Arc<Far>) -> Near {
        Near::start_with(far, &Hub::with_certificates(Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600)))
            .await
    }

    /// With a first certificate by this hub.
    async fn start_with(far: &Arc<Far>, hub: &Hub) -> Near {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity(hub, dir.path());
        let journal = frozen(Journal::open(&dir.path().join("journal"), 64 << 20)).await.unwrap();
        let states = States::new();
        let config = LinkConfig {
            hub_address: "hub:1".into(),
            enrolment_address: "hub:2".into(),
            token: None,
            state_dir: dir.path().to_owned(),
            cluster_uid: "uid".into(),
            kubernetes_version: "v1.33.0".into(),
            policy: Vec::new(),
        };
        let (definitions, _definitions) = watch::channel(None);
        let (_statuses, statuses) = mpsc::channel(1);
        let (commands, _commands) = mpsc::channel(1);
        let (_answers, answers) = mpsc::channel(1);
        let ((_, self_tests), (waiting, _)) = (mpsc::channel(1), watch::channel(None));
        let (connected, connected_rx) = watch::channel(false);
        let (cluster, _) = watch::channel(None);
        let ends = Ends { definitions, statuses, commands, answers, self_tests, waiting, connected, cluster };
        let identity = Arc::new(ArcSwap::from_pointee(identity));
        let mut driver = Driver::new(config, far.dial(), identity, journal.clone(), states.clone(), ends);
        let task = tokio::spawn(async move { match driver.run().await {} });
        Near {
            far: Arc::clone(far),
            journal,
            states,
            connected: connected_rx,
            runs: 0,
            task,
            _definitions,
            _statuses,
            _commands,
            _answers,
            _dir: dir,
        }
    }

    /// Runs end, at the same moment.
    async fn runs(&mut self, count: i64) {
        let settles = (self.runs..self.runs + count).map(|minute| self.journal.settle(run_at(minute)));
        frozen(futures::future::join_all(settles)).await.into_iter().for_each(|settled| assert!(settled.unwrap()));
        self.runs += count;
    }

    /// Failed runs end, with as much of their logs as is kept.
    async fn fail(&mut self, count: i64) {
        let failed = |minute| Run {
            outcome: Outcome::Failed,
            message: "m".repeat(1000),
            log_tail: "log\n".repeat(1000),
            ..run_at(minute)
        };
        let settles = (self.runs..self.runs + count).map(|minute| self.journal.settle(failed(minute)));
        frozen(futures::future::join_all(settles)).await.into_iter().for_each(|settled| assert!(settled.unwrap()));
        self.runs += count;
    }

    async fn until_connected(&mut self, connected: bool) -> Duration {
        let began = Instant::now();
        self.connected.wait_for(|now| *now == connected).await.unwrap();
        began.elapsed()
    }

    async fn until_recorded(&self) {
        let all = usize::try_from(self.runs).unwrap();
        let deadline = Instant::now() + Duration::from_secs(3600);
        while self.far.recorded.lock().len() < all || self.journal.backlog() > 0 {
            assert!(Instant::now() < deadline, "{} of {all}", self.far.recorded.lock().len());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn identity(hub: &Hub, dir: &Path) -> Identity {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let CertificateReply { certificate, ca } = hub.certificate(csr.der());
    let stored =
        serde_json::json!({"key": key.serialize_pem(), "certificate": certificate, "ca": ca, "tokenSha256": ""});
    std::fs::create_dir_all(dir).unwrap();
    Identity::parse(stored.to_string().as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn after_an_hour_without_the_hub_live_state_goes_first_and_the_backlog_follows_in_order() {
    let far = Far::new();
    let mut near = Near::start(&far).await;
    near.states.upsert(check("a", "before"));
    near.until_connected(true).await;
    near.runs(10).await;
    near.until_recorded().await;

    far.up.send_replace(false);
    let seen = near.until_connected(false).await;
    assert!(seen <= SILENCE_SEEN, "silence was seen after {seen:?}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3600) {
        near.runs(100).await;
        near.states.upsert(check("a", "meanwhile"));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let backlog = near.journal.backlog();
    assert!(backlog >= 6000, "{backlog}");
    let heard_before = far.heard.lock().len();

    far.up.send_replace(true);
    let back = near.until_connected(true).await;
    assert!(back <= BACK_AFTER_HEALING, "back after {back:?}");
    // In the middle of the replay something happens.
    while far.last_reported() < backlog / 2 {
        tokio::time::sleep(TAKES).await;
    }
    let asked_at = far.heard.lock().len();
    near.states.upsert(check("a", "now"));
    near.until_recorded().await;

    let heard = far.heard.lock().clone();
    let first = Heard::Snapshot(vec!["meanwhile".into()]);
    assert_eq!(heard[heard_before], first, "how it is comes before how it was");
    let arrived = heard.iter().position(|heard| *heard == Heard::Check("now".into())).unwrap();
    assert!(arrived - asked_at <= 4, "behind {} frames of the backlog", arrived - asked_at);
    let seqs: Vec<u64> = heard
        .iter()
        .flat_map(|heard| if let Heard::Reports(seqs) = heard { seqs.clone() } else { Vec::new() })
        .collect();
    assert!(seqs.is_sorted(), "in order");
    assert!(far.recorded.lock().values().all(|times| *times == 1), "nothing of it twice");
    let frames = heard[heard_before..].iter().filter(|heard| matches!(heard, Heard::Reports(_))).count() as u64;
    assert!(frames >= backlog / u64::from(MAX_UNACKED), "paced by what the hub allows: {frames} frames");
}

#[tokio::test(start_paused = true)]
async fn three_days_on_a_link_that_comes_and_goes_lose_nothing_and_the_last_word_is_the_hubs() {
    let far = Far::new();
    let mut near = Near::start(&far).await;
    let began = Instant::now();
    // A seeded sequence: up and down for some ten minutes each, or for hours.
    let mut state: u64 = 7;
    let mut tens_of_minutes = |most: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (state >> 33) % most
    };
    let mut cuts = 0;
    while began.elapsed() < Duration::from_secs(3 * 24 * 3600) {
        for (up, most) in [(true, 4), (false, 24)] {
            far.up.send_replace(up);
            for ten in 0..tens_of_minutes(most) {
                near.runs(20).await;
                near.states.upsert(check("a", &format!("{cuts}/{ten}")));
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
        }
        cuts += 1;
    }
    near.states.upsert(check("a", "at last"));
    far.up.send_replace(true);
    near.until_recorded().await;
    near.until_connected(true).await;
    assert!(cuts > 10, "{cuts}");
    assert_eq!((near.journal.dropped(), far.recorded.lock().len()), (0, usize::try_from(near.runs).unwrap()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let heard = far.heard.lock().clone();
    let said = heard.into_iter().rev().find_map(|heard| match heard {
        Heard::Snapshot(messages) => Some(messages),
        Heard::Check(message) => Some(vec![message]),
        Heard::Reports(_) => None,
    });
    assert_eq!(said, Some(vec!["at last".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_acks_nothing_gets_no_more_reports_than_it_allows_and_hears_what_happens_all_the_same() {
    let far = Far::new();
    let mut near = Near::start(&far).await;
    near.until_connected(true).await;
    *far.acks.lock() = false;
    near.runs(1000).await;
    for minute in 0..60 {
        let said = format!("minute {minute}");
        near.states.upsert(check("a", &said));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(far.last_reported(), u64::from(MAX_UNACKED), "{said}");
        let heard = far.heard.lock().clone();
        let is_it = |heard: &Heard| match heard {
            Heard::Check(message) => *message == said,
            Heard::Snapshot(messages) => messages.contains(&said),
            Heard::Reports(_) => false,
        };
        assert!(heard.iter().any(is_it), "{said}");
    }
    assert_eq!(near.journal.backlog(), 1000);
    *far.acks.lock() = true;
    near.until_recorded().await;
    assert_eq!((near.journal.backlog(), far.last_reported()), (0, 1000));
    assert!(far.recorded.lock().values().all(|times| *times == 1), "in one session nothing comes twice");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_a_hundred_times_under_load_and_never_in_a_storm() {
    let far = Far::new();
    let mut near = Near::start_with(&far, &far.hub).await;
    near.until_connected(true).await;
    let began = Instant::now();
    let mut done = 0;
    while done < 100 {
        near.runs(5).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        done = far.hub.state.lock().renewals;
        let most = began.elapsed().as_secs() + 2;
        assert!(u64::from(done) <= most, "{done} renewals after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(600), "{done} renewals");
    }
    near.until_recorded().await;
    assert!(*near.connected.borrow());
    assert_eq!(far.heard.lock().iter().filter(|heard| matches!(heard, Heard::Snapshot(_))).count(), 1, "one session");
    assert!(far.recorded.lock().values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn between_two_renewals_is_a_thirtieth_of_the_certificates_life_whether_they_go_well_or_not() {
    const MINUTE: Duration = Duration::from_secs(60);
    // As it comes it is past two thirds of its hour: it is due at once, always.
    let far = Far::with(None, Hub::with_certificates(41 * MINUTE, 19 * MINUTE));
    let mut near = Near::start_with(&far, &far.hub).await;
    near.until_connected(true).await;
    for fails in [false, true, false] {
        *far.renewals_fail.lock() = fails;
        let before = far.hub.state.lock().renewals;
        tokio::time::sleep(60 * MINUTE).await;
        let tries = far.hub.state.lock().renewals - before;
        assert!((29..=31).contains(&tries), "{tries} in an hour, fails: {fails}");
    }
    assert!(*near.connected.borrow());
    assert_eq!(far.connections.lock().len(), 1, "one session all the while");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_reads_nothing_is_left_its_connection_is_closed_and_nothing_is_lost() {
    let far = Far::with(Some(SMALL_WINDOW), Hub::with_certificates(CERTIFICATE_AGE, CERTIFICATE_REST));
    let mut near = Near::start(&far).await;
    near.until_connected(true).await;
    near.runs(10).await;
    near.until_recorded().await;
    let open = || far.connections.lock().iter().filter(|over| !over.is_cancelled()).count();
    assert_eq!(open(), 1);

    // It answers pings all the while.
    far.reads.send_replace(false);
    let began = Instant::now();
    near.runs(500).await;
    let mut said = 0;
    while *near.connected.borrow() {
        let waited = began.elapsed();
        assert!(waited <= UNREAD + Duration::from_secs(30), "a hub that reads nothing is kept for {waited:?}");
        said += 1;
        near.states.upsert(check("a", &format!("{said} {}", "x".repeat(1000))));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(began.elapsed() >= UNREAD, "left after {:?}", began.elapsed());
    let first = far.connections.lock()[0].clone();
    let closed = tokio::time::timeout(Duration::from_secs(5), first.cancelled()).await;
    closed.expect("the connection of the session that is over is closed");
    // Each next one ends by its Hello, and none is left behind.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let dialled = far.connections.lock().len();
    assert!(open() <= 1 && dialled >= 600 / (BACK_AFTER_HEALING + NO_WELCOME).as_secs() as usize, "{dialled}");

    far.reads.send_replace(true);
    near.until_recorded().await;
    near.until_connected(true).await;
    assert_eq!(far.recorded.lock().len(), usize::try_from(near.runs).unwrap());
    assert_eq!((near.journal.backlog(), near.journal.dropped()), (0, 0));
}

/// A frame of failed runs takes longer than a hub may leave a frame unread: it is taken bit by bit.
#[tokio::test(start_paused = true)]
async fn a_link_of_64_kbit_s_carries_the_logs_of_failed_runs_in_one_session() {
    let far = Far::slow(8_000);
    let mut near = Near::start(&far).await;
    near.until_connected(true).await;
    near.fail(600).await;
    let began = Instant::now();
    near.until_recorded().await;
    assert!(began.elapsed() >= 2 * UNREAD, "{:?} is no load", began.elapsed());
    assert!(*near.connected.borrow());
    assert_eq!(far.connections.lock().len(), 1, "one session all the while");
    assert_eq!((near.journal.backlog(), near.journal.dropped()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_only_a_newer_hub_knows_is_passed_over_or_refused_and_the_session_goes_on() {
    let far = Far::new();
    let command = |id: &str, order| {
        let command = v1::Command { id: id.into(), namespace: String::new(), name: String::new(), order };
        v1::HubFrame { frame: Some(v1::hub_frame::Frame::Command(command)) }
    };
    let resume = v1::command::Order::Resume(v1::Resume { subject: 99 });
    far.says.lock().extend([v1::HubFrame { frame: None }, command("1", None), command("2", Some(resume))]);
    let mut near = Near::start(&far).await;
    near.until_connected(true).await;
    near.runs(5).await;
    near.until_recorded().await;
    let answers = far.answers.lock().clone();
    assert_eq!(answers.iter().map(|answer| answer.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    for answer in answers {
        let refusal = answer.verdict.unwrap_err();
        assert_eq!(refusal.layer, Layer::Agent);
        assert!(refusal.reason.ends_with("does not know this command: upgrade the agent"), "{}", refusal.reason);
    }
    assert_eq!(far.heard.lock().iter().filter(|heard| matches!(heard, Heard::Snapshot(_))).count(), 1, "one session");
}
