//! Agents without clusters, many in one process: real TLS, the real state machine of the session (`core::session::agent`),
//! real frames. Around it is the least of a shell: checks and reports come from numbers, nothing is written to disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use active_monitor_core::session::agent::{AgentSession, Identity, Input, JournalState, Now, Output};
use active_monitor_core::session::frame::{
    Definition, DefinitionResult, DefinitionStatus, HubFrame, MAX_HUB_FRAME_BYTES, Report,
};
use active_monitor_core::state::{CheckState, Phase, Sample, Totals};
use active_monitor_proto::{EnrolRequest, EnrolmentClient, FleetClient, WireError, v1};
use anyhow::Context as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

use crate::fleet::Hub;

/// As of the real agent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const FRAMES_QUEUED: usize = 4;
/// Agents that enrol at the same time.
const ENROLLING: usize = 8;
/// The first connections are spread over this, as those of a fleet that grew.
const FIRST_DIALS: Duration = Duration::from_secs(5);
const NAMESPACE: &str = "health";

/// What all agents are told.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// Whether each one's first check has failed.
    failing: bool,
    /// Reports that each one's journal has had.
    reports: u64,
}

/// What all agents have seen.
#[derive(Debug, Default)]
struct Seen {
    acked: AtomicU64,
}

/// The agents; they end when this is dropped.
pub struct Agents {
    count: usize,
    orders: watch::Sender<Orders>,
    seen: Arc<Seen>,
    _stop: DropGuard,
}

impl Agents {
    /// Adds so many clusters to a hub, enrols an agent in each, and lets them connect; each has so many checks.
    ///
    /// # Errors
    /// The hub refuses one.
    pub async fn join(hub: &Hub, ca: &str, count: usize, checks: usize) -> anyhow::Result<Agents> {
        Agents::join_from(0, hub, ca, count, checks).await
    }

    /// As [`Agents::join`], with numbers from `from` on.
    ///
    /// # Errors
    /// As [`Agents::join`].
    pub async fn join_from(from: usize, hub: &Hub, ca: &str, count: usize, checks: usize) -> anyhow::Result<Agents> {
        let first = hub.add_cluster(&name(from), &[]).await?;
        let enrolment = endpoint(&first.enrolment_address, ca, None)?.connect().await.context("no enrolment")?;
        let enrolment = EnrolmentClient::new(enrolment);
        let enrol = |number| enrol(hub, enrolment.clone(), number);
        let endpoints: Vec<(usize, Endpoint)> =
            stream::iter(from..from + count).map(enrol).buffer_unordered(ENROLLING).try_collect().await?;
        let checks: Arc<Vec<Arc<CheckState>>> = Arc::new((0..checks).map(|index| Arc::new(check(index))).collect());
        let (orders, followed) = watch::channel(Orders::default());
        let (seen, stop) = (Arc::<Seen>::default(), CancellationToken::new());
        for (number, endpoint) in endpoints {
            let (checks, seen) = (Arc::clone(&checks), Arc::clone(&seen));
            let agent = Agent::new(number, endpoint, checks, followed.clone(), seen);
            tokio::spawn(stop.clone().run_until_cancelled_owned(agent.run()));
        }
        Ok(Agents { count, orders, seen, _stop: stop.drop_guard() })
    }

    /// Each agent's first check has failed from now on, or has not; gives how many have.
    pub fn fail(&self, failing: bool) -> u64 {
        self.orders.send_modify(|orders| orders.failing = failing);
        if failing { self.count as u64 } else { 0 }
    }

    /// So many reports more in each agent's journal; gives what [`Agents::acked`] is when all have arrived.
    pub fn report(&self, more: u64) -> u64 {
        self.orders.send_modify(|orders| orders.reports += more);
        self.orders.borrow().reports * self.count as u64
    }

    /// Reports that the hub has acked, of all agents.
    pub fn acked(&self) -> u64 {
        self.seen.acked.load(Ordering::Relaxed)
    }
}

fn name(number: usize) -> String {
    format!("cluster-{number:04}")
}

fn endpoint(address: &str, ca: &str, identity: Option<TlsIdentity>) -> anyhow::Result<Endpoint> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
    Ok(endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE).keep_alive_while_idle(true))
}

async fn enrol(hub: &Hub, mut client: EnrolmentClient<Channel>, number: usize) -> anyhow::Result<(usize, Endpoint)> {
    let token = hub.add_cluster(&name(number), &[]).await?;
    let secret = token.token.split('.').nth(1).context("a token without a secret")?;
    let key = KeyPair::generate()?;
    let request = EnrolRequest {
        token: secret.to_owned(),
        cluster: name(number),
        cluster_uid: format!("uid-{number}"),
        csr: CertificateParams::default().serialize_request(&key)?.der().to_vec(),
    };
    let reply = client.enrol(request).await.with_context(|| name(number))?.into_inner();
    let identity = TlsIdentity::from_pem(reply.certificate, key.serialize_pem());
    Ok((number, endpoint(&token.agent_address, &reply.ca, Some(identity))?))
}

/// A check that is well, with one custom metric.
fn check(index: usize) -> CheckState {
    let now = Timestamp::now();
    let day = SignedDuration::from_hours(24);
    CheckState {
        uid: format!("8a1e6a6e-7f1e-4f5e-9c1b-{index:012}"),
        namespace: NAMESPACE.into(),
        name: format!("check-{index:03}"),
        description: "Resolves a name and opens a connection".into(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: "@every 60s".into(),
        running: None,
        // Not due while it is measured: what is overdue changes by itself.
        next_slot: now.checked_add(day).ok(),
        timeout_seconds: 60,
        check: Totals { succeeded: 1_000 + index as u64, failed: 7, started_at: Some(now), finished_at: Some(now) },
        remedy: None,
        remedy_status: String::new(),
        samples: vec![Sample { metric: "latency_ms".into(), help: "Time to connect.".into(), value: 12.5 }],
        refused_samples: 0,
        definition: None,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
    }
}

/// The report of this number: the checks take turns, a minute each.
fn report(seq: u64, checks: &[Arc<CheckState>]) -> Option<Report> {
    let count = checks.len() as u64;
    let check = checks.get(usize::try_from(seq % count).ok()?)?;
    let minute = i64::try_from(seq / count).ok()? * 60;
    // Of the last day, so that no retention drops them.
    let slot = check.check.started_at?.checked_add(SignedDuration::from_secs(minute - 80_000)).ok()?;
    let run = Run {
        key: RunKey { check_uid: check.uid.clone(), kind: RunKind::HealthCheck, slot },
        namespace: check.namespace.clone(),
        name: check.name.clone(),
        workflow: Some(format!("{NAMESPACE}/{}-0123456789ab", check.name)),
        outcome: Outcome::Succeeded,
        reason: None,
        message: String::new(),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    };
    Some(Report { seq, run })
}

struct Agent {
    session: AgentSession,
    endpoint: Endpoint,
    connection: Connection,
    checks: Arc<Vec<Arc<CheckState>>>,
    orders: watch::Receiver<Orders>,
    seen: Arc<Seen>,
    started: Instant,
    acked: u64,
    reports: u64,
    failing: bool,
}

enum Connection {
    Down { dial_at: Duration },
    Dialling(BoxFuture<'static, Option<Channel>>),
    Up { outgoing: mpsc::Sender<v1::AgentFrame>, incoming: BoxStream<'static, Result<v1::HubFrame, Status>> },
}

enum Event {
    Orders,
    Dialled(Option<Channel>),
    Incoming(Option<Result<v1::HubFrame, Status>>),
    Room(Option<mpsc::OwnedPermit<v1::AgentFrame>>),
    Timer,
}

impl Agent {
    fn new(
        number: usize,
        endpoint: Endpoint,
        checks: Arc<Vec<Arc<CheckState>>>,
        orders: watch::Receiver<Orders>,
        seen: Arc<Seen>,
    ) -> Agent {
        let identity = Identity {
            cluster: name(number),
            cluster_uid: format!("uid-{number}"),
            incarnation: hex::encode(rand::random::<[u8; 16]>()),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes_version: "v1.36.3".to_owned(),
            journal_id: hex::encode(rand::random::<[u8; 16]>()),
        };
        let mut agent = Agent {
            session: AgentSession::new(identity, JournalState { oldest_seq: 1, next_seq: 1, backlog: 0, dropped: 0 }),
            endpoint,
            connection: Connection::Down { dial_at: FIRST_DIALS.mul_f64(rand::random()) },
            checks,
            orders,
            seen,
            started: Instant::now(),
            acked: 0,
            reports: 0,
            failing: false,
        };
        for check in Arc::clone(&agent.checks).iter() {
            agent.feed(Input::CheckChanged(Arc::clone(check)));
        }
        agent.feed(Input::ChecksKnown);
        agent
    }

    async fn run(mut self) {
        loop {
            let event = self.next_event().await;
            self.on_event(event);
        }
    }

    async fn next_event(&mut self) -> Event {
        let wants_to_send = self.session.wants_to_send(self.now());
        let deadline = match &self.connection {
            Connection::Down { dial_at } => Some(*dial_at),
            Connection::Dialling(_) => None,
            Connection::Up { .. } => self.session.deadline(),
        };
        let started = self.started;
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(started + at).await,
                None => std::future::pending().await,
            }
        };
        let connection = async {
            match &mut self.connection {
                Connection::Down { .. } => std::future::pending().await,
                Connection::Dialling(dialling) => Event::Dialled(dialling.await),
                Connection::Up { outgoing, incoming } => {
                    let room = async {
                        if wants_to_send {
                            Event::Room(outgoing.clone().reserve_owned().await.ok())
                        } else {
                            std::future::pending().await
                        }
                    };
                    tokio::select! {
                        frame = incoming.next() => Event::Incoming(frame),
                        event = room => event,
                    }
                }
            }
        };
        tokio::select! {
            event = connection => event,
            Ok(()) = self.orders.changed() => Event::Orders,
            () = timer => Event::Timer,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Orders => self.obey(),
            Event::Dialled(Some(channel)) => self.open_stream(channel),
            Event::Incoming(Some(Ok(frame))) => match HubFrame::try_from(frame) {
                Ok(frame) => self.feed(Input::Frame(frame)),
                Err(WireError::UnknownFrame) => {}
                Err(_) => self.disconnected(),
            },
            Event::Dialled(None) | Event::Incoming(None | Some(Err(_))) | Event::Room(None) => self.disconnected(),
            Event::Room(Some(permit)) => {
                let (frame, outputs) = self.session.next_frame(self.now());
                if let Some(frame) = frame {
                    permit.send(frame.into());
                }
                self.carry_out(outputs);
            }
            Event::Timer => match self.connection {
                Connection::Down { .. } => self.dial(),
                Connection::Dialling(_) => {}
                Connection::Up { .. } => self.feed(Input::Tick),
            },
        }
    }

    fn obey(&mut self) {
        let Orders { failing, reports } = *self.orders.borrow_and_update();
        if let Some(first) = self.checks.first().filter(|_| failing != self.failing) {
            self.failing = failing;
            let phase = if failing { Phase::Failed } else { Phase::Succeeded };
            let changed = CheckState { phase, ..CheckState::clone(first) };
            self.feed(Input::CheckChanged(Arc::new(changed)));
        }
        if reports != self.reports {
            self.reports = reports;
            self.feed(Input::Journal(self.journal()));
        }
    }

    fn dial(&mut self) {
        let endpoint = self.endpoint.clone();
        let dialling = async move { tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await.ok()?.ok() };
        self.connection = Connection::Dialling(dialling.boxed());
    }

    fn open_stream(&mut self, channel: Channel) {
        let mut client = FleetClient::new(channel).max_decoding_message_size(MAX_HUB_FRAME_BYTES);
        let (outgoing, frames) = mpsc::channel(FRAMES_QUEUED);
        let call = async move { client.session(ReceiverStream::new(frames)).await.map(tonic::Response::into_inner) };
        let incoming = stream::once(call).try_flatten().boxed();
        self.feed(Input::Connected);
        let (hello, outputs) = self.session.next_frame(self.now());
        if let Some(hello) = hello {
            // There is room: the queue is new.
            outgoing.try_send(hello.into()).ok();
        }
        self.connection = Connection::Up { outgoing, incoming };
        self.carry_out(outputs);
    }

    fn disconnected(&mut self) {
        self.feed(Input::Disconnected { jitter: rand::random() });
    }

    fn feed(&mut self, input: Input) {
        let outputs = self.session.handle(self.now(), input);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            let input = match output {
                Output::Load { after_seq, max } => {
                    let numbers = after_seq.max(self.acked) + 1..=self.reports;
                    Input::Loaded(numbers.take(max).filter_map(|seq| report(seq, &self.checks)).collect())
                }
                Output::Truncate(seq) => {
                    self.seen.acked.fetch_add(seq.saturating_sub(self.acked), Ordering::Relaxed);
                    self.acked = self.acked.max(seq);
                    Input::Journal(self.journal())
                }
                Output::ApplyDefinitions { nonce, definitions } => {
                    Input::DefinitionsDone { nonce, statuses: definitions.into_iter().map(applied).collect() }
                }
                Output::Close(_) => Input::Disconnected { jitter: rand::random() },
                Output::DialAt(dial_at) => {
                    self.connection = Connection::Down { dial_at };
                    continue;
                }
                // No part of the bench gives commands.
                Output::Obey(_) | Output::Remember(_) => continue,
            };
            outputs.extend(self.session.handle(self.now(), input));
        }
    }

    fn journal(&self) -> JournalState {
        let (oldest_seq, next_seq) = (self.acked + 1, self.reports + 1);
        JournalState { oldest_seq, next_seq, backlog: self.reports - self.acked, dropped: 0 }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.started.elapsed(), wall: Timestamp::now() }
    }
}

fn applied(Definition { name, generation, .. }: Definition) -> DefinitionStatus {
    DefinitionStatus { name, generation, result: DefinitionResult::Applied, message: String::new() }
}
