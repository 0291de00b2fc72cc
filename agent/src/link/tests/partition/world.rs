//! A network in memory that loses what it carries without a word, the hub behind it, and the agent's end of the link: the
//! whole shell but for TLS, in virtual time.

use std::io;

use active_monitor_runtime::cut::{Cuttable, Written};
use arc_swap::ArcSwap;
use futures::FutureExt;
use rcgen::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::super::*;
use crate::enrol::Identity;
use crate::link::drive::{Dial, Driver};

/// Virtual time in which the remote hub takes in a frame of reports.
pub(super) const TAKES: Duration = Duration::from_millis(50);
pub(super) const MAX_UNACKED: u32 = 64;
/// Of a certificate as it comes: its age, and what is left of it. It is renewed each second at most.
pub(super) const CERTIFICATE_AGE: Duration = Duration::from_secs(22);
pub(super) const CERTIFICATE_REST: Duration = Duration::from_secs(8);

/// What the hub heard, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// The messages of the checks.
    Snapshot(Vec<String>),
    Check(String),
    Reports(Vec<u64>),
}

/// The network, and the hub behind it.
pub(super) struct Far {
    pub(super) up: watch::Sender<bool>,
    pub(super) heard: Mutex<Vec<Heard>>,
    pub(super) recorded: Mutex<BTreeMap<RunKey, u32>>,
    /// Whether reports are acked, and the last one that is not.
    pub(super) acks: Mutex<bool>,
    unacked: Mutex<Option<u64>>,
    /// Whether frames are read, and how many bytes may be sent ahead of that.
    pub(super) reads: watch::Sender<bool>,
    window: Option<u32>,
    /// Bytes a second that the link carries each way; no limit where it is absent.
    rate: Option<u32>,
    max_unacked: u32,
    /// Of each connection, whether the hub's end is gone.
    pub(super) connections: Mutex<Vec<CancellationToken>>,
    /// Signs the next certificates; each is past two thirds of its life as it comes.
    pub(super) hub: Hub,
    pub(super) renewals_fail: Mutex<bool>,
    /// Said once, behind Welcome.
    pub(super) says: Mutex<Vec<v1::HubFrame>>,
    pub(super) answers: Mutex<Vec<Answer>>,
}

impl Far {
    pub(super) fn new() -> Arc<Far> {
        Far::with(None, Hub::with_certificates(CERTIFICATE_AGE, CERTIFICATE_REST))
    }

    pub(super) fn with(window: Option<u32>, hub: Hub) -> Arc<Far> {
        Arc::new(Far::made(window, hub))
    }

    pub(super) fn slow(rate: u32) -> Arc<Far> {
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

    pub(super) fn last_reported(&self) -> u64 {
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
            | Output::Lacking(_)
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
pub(super) struct Near {
    far: Arc<Far>,
    pub(super) journal: Journal,
    pub(super) states: States,
    pub(super) connected: watch::Receiver<bool>,
    pub(super) runs: i64,
    task: JoinHandle<()>,
    _definitions: watch::Receiver<Option<PushedDefinitions>>,
    _statuses: mpsc::Sender<(u64, Vec<DefinitionStatus>)>,
    _commands: mpsc::Receiver<Command>,
    _answers: mpsc::Sender<Answer>,
    _dir: tempfile::TempDir,
}

impl Near {
    pub(super) async fn start(far: &Arc<Far>) -> Near {
        Near::start_with(far, &Hub::with_certificates(Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600)))
            .await
    }

    /// With a first certificate by this hub.
    pub(super) async fn start_with(far: &Arc<Far>, hub: &Hub) -> Near {
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
    pub(super) async fn runs(&mut self, count: i64) {
        let settles = (self.runs..self.runs + count).map(|minute| self.journal.settle(run_at(minute)));
        frozen(futures::future::join_all(settles)).await.into_iter().for_each(|settled| assert!(settled.unwrap()));
        self.runs += count;
    }

    /// Failed runs end, with as much of their logs as is kept.
    pub(super) async fn fail(&mut self, count: i64) {
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

    pub(super) async fn until_connected(&mut self, connected: bool) -> Duration {
        let began = Instant::now();
        self.connected.wait_for(|now| *now == connected).await.unwrap();
        began.elapsed()
    }

    pub(super) async fn until_recorded(&self) {
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
