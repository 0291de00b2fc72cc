//! Runs the session's state machine: one task, one connection at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::command::{Answer, Layer, Refusal};
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::session::agent::{
    AgentSession, CloseReason, Identity as SessionIdentity, Input, JournalState, Now, Output,
};
use active_monitor_core::session::frame::{
    Counted, DefinitionStatus, HubFrame, MAX_AGENT_FRAME_BYTES, MAX_HUB_FRAME_BYTES, Welcome,
};
use active_monitor_core::version;
use active_monitor_proto::{FleetClient, WireError, v1};
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use jiff::Timestamp;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::dial::{self, DialError, Line};
use super::failure::{self, Failures};
use super::mark;
use super::{Ends, LinkConfig, PushedDefinitions};
use crate::counters::{CERTIFICATE_EXPIRY, CONNECTED, SESSIONS, UNKNOWN_FRAMES, count, set};
use crate::enrol::{self, EnrolError, Identity};
use crate::journal::Journal;
use crate::states::{Change, Changes, States};

/// Frames between the state machine and the stream: enough to keep it busy, too few to grow old.
const FRAMES_QUEUED: usize = 4;
/// A check that cannot be looked at for so long does not keep the others from the hub.
const CHECKS_KNOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that a change of the clock on the wall can delay a renewal.
const RENEWAL_CHECK: Duration = Duration::from_secs(30);

/// Why a session ended or did not begin.
#[derive(Debug, Error)]
enum SessionFailure {
    #[error("no connection to the hub at {address}")]
    Dial {
        address: String,
        #[source]
        source: DialError,
    },
    #[error("the certificate has ended or is refused, and there is no other yet")]
    NoCertificate(#[source] EnrolError),
    #[error("the hub ended the session: {} ({})", .0.message(), .0.code())]
    Status(Box<Status>),
    #[error("the hub closed the stream")]
    Closed,
    #[error("the hub sent a frame that cannot be read")]
    Wire(#[source] WireError),
    #[error("the agent closed the stream")]
    Protocol(#[source] CloseReason),
}

/// Opens a connection to an address.
pub(super) type Dial =
    Arc<dyn Fn(String, Arc<ClientConfig>) -> BoxFuture<'static, Result<Line, DialError>> + Send + Sync>;

/// Over the network.
pub(super) fn dial_network() -> Dial {
    Arc::new(|address, tls| async move { dial::connect(&address, tls).await }.boxed())
}

pub(super) struct Driver {
    config: LinkConfig,
    dial: Dial,
    identity: Arc<ArcSwap<Identity>>,
    journal: Journal,
    changes: Changes,
    /// Ends when the states are complete; absent when that is over.
    checks_known: Option<BoxFuture<'static, ()>>,
    appended: watch::Receiver<u64>,
    lacking: watch::Receiver<Vec<Counted>>,
    ends: Ends,
    session: AgentSession,
    started: Instant,
    connection: Connection,
    renewal: Option<BoxFuture<'static, Result<Identity, EnrolError>>>,
    renew_not_before: Instant,
    /// The hub refused the certificate in the handshake: by its clock it may have expired.
    refused: bool,
    session_failures: Failures,
    renewal_failures: Failures,
}

enum Connection {
    Down { dial_at: Duration },
    Dialling(BoxFuture<'static, Result<Line, SessionFailure>>),
    Up(Box<Up>),
}

struct Up {
    outgoing: mpsc::Sender<v1::AgentFrame>,
    incoming: BoxStream<'static, Result<v1::HubFrame, Status>>,
    client: FleetClient<Channel>,
    /// Both end with the session.
    line: Line,
    _span: tracing::Span,
}

/// What the task woke up for.
enum Event {
    Changes(Vec<Change>),
    Appended,
    Lacking,
    Statuses(u64, Vec<DefinitionStatus>),
    Obeyed(Answer),
    SelfTested(SelfTest),
    Dialled(Result<Line, SessionFailure>),
    Incoming(Option<Result<v1::HubFrame, Status>>),
    Room(mpsc::OwnedPermit<v1::AgentFrame>),
    StreamGone,
    Renewed(Result<Identity, EnrolError>),
    ChecksKnown,
    Timer,
}

impl Driver {
    pub(super) fn new(
        config: LinkConfig,
        dial: Dial,
        identity: Arc<ArcSwap<Identity>>,
        journal: Journal,
        states: States,
        ends: Ends,
    ) -> Driver {
        let session_identity = SessionIdentity {
            cluster: identity.load().cluster().to_owned(),
            cluster_uid: config.cluster_uid.clone(),
            incarnation: uuid::Uuid::new_v4().to_string(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes_version: config.kubernetes_version.clone(),
            journal_id: journal.id().to_owned(),
            policy: config.policy.clone(),
        };
        set(&CERTIFICATE_EXPIRY, identity.load().not_after().as_second());
        let changes = states.changes();
        let all_states = states.clone();
        let checks_known = async move {
            // Without the list nothing may be told: what a snapshot leaves out is gone for the hub.
            all_states.listed().await;
            if tokio::time::timeout(CHECKS_KNOWN_TIMEOUT, all_states.completed()).await.is_err() {
                tracing::warn!("some checks have no state yet, the hub is told of the others");
            }
        };
        let appended = journal.appended();
        let mut lacking = journal.lacking();
        // What is there already is an event too.
        lacking.mark_changed();
        let mut driver = Driver {
            session: AgentSession::resumed(session_identity, journal_state(&journal), mark::read(&config.state_dir)),
            config,
            dial,
            identity,
            journal,
            changes,
            checks_known: Some(checks_known.boxed()),
            appended,
            lacking,
            ends,
            started: Instant::now(),
            connection: Connection::Down { dial_at: Duration::ZERO },
            renewal: None,
            renew_not_before: Instant::now(),
            refused: false,
            session_failures: Failures::new("session"),
            renewal_failures: Failures::new("renewal"),
        };
        for state in states.all() {
            driver.feed(Input::CheckChanged(state));
        }
        driver
    }

    /// Never returns. It may be dropped and called again.
    pub(super) async fn run(&mut self) -> Infallible {
        loop {
            let event = self.next_event().await;
            self.on_event(event);
            let is_live = self.session.is_live();
            if self.ends.connected.send_if_modified(|connected| std::mem::replace(connected, is_live) != is_live) {
                set(&CONNECTED, i64::from(is_live));
                tracing::info!(connected = is_live, hub = self.config.hub_address, "session");
            }
            if is_live {
                self.session_failures.over();
            }
        }
    }

    /// Ends the session without a word; gives back what the next driver needs.
    pub(super) fn end(self) -> Ends {
        self.ends
    }

    async fn next_event(&mut self) -> Event {
        let now = self.now();
        let wants_to_send = self.session.wants_to_send(now);
        let deadline = self.deadline();
        self.begin_renewal();
        let renewal = async {
            match &mut self.renewal {
                Some(renewal) => renewal.await,
                None => std::future::pending().await,
            }
        };
        let checks_known = async {
            match &mut self.checks_known {
                Some(checks_known) => checks_known.await,
                None => std::future::pending().await,
            }
        };
        let connection = async {
            match &mut self.connection {
                Connection::Down { .. } => std::future::pending().await,
                Connection::Dialling(dialling) => Event::Dialled(dialling.await),
                Connection::Up(up) => up.next_event(wants_to_send).await,
            }
        };
        tokio::select! {
            event = connection => event,
            changes = self.changes.next() => Event::Changes(changes),
            // The sender lives in the journal that this holds a handle of.
            Ok(()) = self.appended.changed() => Event::Appended,
            Ok(()) = self.lacking.changed() => Event::Lacking,
            Some((nonce, statuses)) = self.ends.statuses.recv() => Event::Statuses(nonce, statuses),
            Some(answer) = self.ends.answers.recv() => Event::Obeyed(answer),
            Some(ended) = self.ends.self_tests.recv() => Event::SelfTested(ended),
            result = renewal => Event::Renewed(result),
            () = checks_known => Event::ChecksKnown,
            () = tokio::time::sleep_until(deadline) => Event::Timer,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Changes(changes) => self.feed_changes(changes),
            Event::ChecksKnown => {
                self.checks_known = None;
                // What completed them may not have come as an event yet.
                let changes = self.changes.take();
                self.feed_changes(changes);
                self.feed(Input::ChecksKnown);
            }
            Event::Appended => self.feed(Input::Journal(journal_state(&self.journal))),
            Event::Lacking => {
                let lacking = self.lacking.borrow_and_update().clone();
                self.feed(Input::Lacking(lacking));
            }
            Event::Statuses(nonce, statuses) => self.feed(Input::DefinitionsDone { nonce, statuses }),
            Event::Obeyed(answer) => self.feed(Input::Obeyed(answer)),
            Event::SelfTested(ended) => self.feed(Input::SelfTested(ended)),
            Event::Dialled(Ok(line)) => self.open_stream(line),
            Event::Dialled(Err(failure)) => self.end_session(&failure),
            Event::Incoming(Some(Ok(frame))) => self.on_wire_frame(frame),
            Event::Incoming(Some(Err(status))) => self.end_session(&SessionFailure::Status(Box::new(status))),
            Event::Incoming(None) | Event::StreamGone => self.end_session(&SessionFailure::Closed),
            Event::Room(permit) => {
                let (frame, outputs) = self.session.next_frame(self.now());
                if let Some(frame) = frame {
                    permit.send(frame.into());
                }
                self.carry_out(outputs);
            }
            Event::Renewed(result) => self.end_renewal(result),
            Event::Timer => self.on_timer(),
        }
    }

    fn on_wire_frame(&mut self, frame: v1::HubFrame) {
        let command = match &frame.frame {
            Some(v1::hub_frame::Frame::Command(command)) => Some(command.id.clone()),
            Some(_) | None => None,
        };
        match (HubFrame::try_from(frame), command) {
            (Ok(frame), _) => {
                if let HubFrame::Welcome(welcome) = &frame {
                    greet(welcome);
                }
                self.feed(Input::Frame(frame));
            }
            (Err(error), Some(id)) if error.is_of_a_newer_version() => self.feed(Input::UnknownCommand(id)),
            (Err(WireError::UnknownFrame), _) => {
                count(&UNKNOWN_FRAMES);
                tracing::debug!("frame of a newer hub ignored");
            }
            (Err(error), _) => self.end_session(&SessionFailure::Wire(error)),
        }
    }

    fn on_timer(&mut self) {
        let now = self.now();
        match &mut self.connection {
            Connection::Down { dial_at } if *dial_at <= now.monotonic => self.dial(),
            Connection::Down { .. } | Connection::Dialling(_) => {}
            Connection::Up(up) => {
                if up.line.progress.moved() {
                    self.feed(Input::Taken);
                }
                self.feed(Input::Tick);
            }
        }
    }

    fn dial(&mut self) {
        let (identities, config, dial) = (Arc::clone(&self.identity), self.config.clone(), Arc::clone(&self.dial));
        let refused = std::mem::take(&mut self.refused);
        let dialling = async move {
            // Read for each dial, so that a renewed certificate is used from the next one on.
            let present = identities.load_full();
            if refused || present.not_after() <= Timestamp::now() {
                let dir = config.state_dir.join("identity");
                let recovered = enrol::recover(&config.enrolment_address, &present, &dir).await;
                let next = recovered.map_err(SessionFailure::NoCertificate)?;
                set(&CERTIFICATE_EXPIRY, next.not_after().as_second());
                identities.store(Arc::new(next));
            }
            let (identity, address) = (identities.load_full(), config.hub_address);
            let dialled = match identity.client_config() {
                Ok(tls) => dial(address.clone(), Arc::new(tls)).await,
                Err(error) => Err(error),
            };
            dialled.map_err(|source| SessionFailure::Dial { address, source })
        };
        self.connection = Connection::Dialling(dialling.boxed());
    }

    /// Hello is in the queue before the call is made: a hub may well wait for it before it answers.
    fn open_stream(&mut self, line: Line) {
        let client = FleetClient::new(line.channel.clone())
            .max_decoding_message_size(MAX_HUB_FRAME_BYTES)
            .max_encoding_message_size(MAX_AGENT_FRAME_BYTES);
        let (outgoing, frames) = mpsc::channel(FRAMES_QUEUED);
        let mut caller = client.clone();
        let call = async move { caller.session(ReceiverStream::new(frames)).await.map(tonic::Response::into_inner) };
        let incoming = futures::stream::once(call).try_flatten().boxed();
        self.feed(Input::Connected);
        let (hello, outputs) = self.session.next_frame(self.now());
        if let Some(hello) = hello {
            // There is room: the queue is new.
            outgoing.try_send(hello.into()).ok();
        }
        let span = tracing::info_span!("session", hub = self.config.hub_address);
        self.connection = Connection::Up(Box::new(Up { outgoing, incoming, client, line, _span: span }));
        self.carry_out(outputs);
    }

    fn end_session(&mut self, failure: &SessionFailure) {
        self.session_failures.failed(failure, next_step(failure));
        self.refused = matches!(failure, SessionFailure::Status(status) if is_handshake_alert(status));
        self.renewal = None;
        self.feed(Input::Disconnected { jitter: rand::random() });
    }

    fn feed_changes(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.feed(match change {
                Change::Upsert(state) => Input::CheckChanged(state),
                Change::Removed(uid) => Input::CheckRemoved(uid),
            });
        }
    }

    fn feed(&mut self, input: Input) {
        let outputs = self.session.handle(self.now(), input);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut outputs = VecDeque::from(outputs);
        while let Some(output) = outputs.pop_front() {
            let input = match output {
                Output::Load { after_seq, max } => Input::Loaded(self.journal.load(after_seq, max)),
                Output::Truncate(seq) => {
                    self.journal.ack(seq);
                    Input::Journal(journal_state(&self.journal))
                }
                Output::ApplyDefinitions { nonce, definitions } => {
                    self.ends.definitions.send_replace(Some(PushedDefinitions { nonce, definitions }));
                    continue;
                }
                Output::LackingKnown(runs) => {
                    self.journal.lacks_no_more(&runs);
                    continue;
                }
                Output::Remember(hub_mark) => {
                    mark::keep(&self.config.state_dir, &hub_mark);
                    continue;
                }
                Output::Obey(command) => match self.ends.commands.try_send(command) {
                    Ok(()) => continue,
                    // Commands of sessions that are over may still fill the queue.
                    Err(TrySendError::Full(command) | TrySendError::Closed(command)) => {
                        let refusal = Refusal::new(Layer::Agent, "too many commands wait in the agent");
                        Input::Obeyed(Answer { id: command.id, verdict: Err(refusal) })
                    }
                },
                Output::Close(reason) => {
                    let failure = SessionFailure::Protocol(reason);
                    self.session_failures.failed(&failure, next_step(&failure));
                    self.renewal = None;
                    Input::Disconnected { jitter: rand::random() }
                }
                Output::DialAt(dial_at) => {
                    self.connection = Connection::Down { dial_at };
                    continue;
                }
            };
            outputs.extend(self.session.handle(self.now(), input));
        }
    }

    /// Renews over the live session's connection, when it is time.
    fn begin_renewal(&mut self) {
        let Connection::Up(up) = &self.connection else { return };
        let identity = self.identity.load_full();
        let due = Timestamp::now() >= identity.renew_at() && Instant::now() >= self.renew_not_before;
        if due && self.renewal.is_none() && self.session.is_live() {
            let (client, dir) = (up.client.clone(), self.config.state_dir.join("identity"));
            self.renewal = Some(async move { enrol::renew(client, identity, &dir).await }.boxed());
        }
    }

    fn end_renewal(&mut self, result: Result<Identity, EnrolError>) {
        self.renewal = None;
        let identity = self.identity.load_full();
        match result {
            Ok(renewed) if renewed.cluster() == identity.cluster() => {
                tracing::info!(certificate_ends = %renewed.not_after(), "certificate renewed");
                set(&CERTIFICATE_EXPIRY, renewed.not_after().as_second());
                self.identity.store(Arc::new(renewed));
                self.renewal_failures.over();
            }
            Ok(renewed) => {
                tracing::error!(cluster = renewed.cluster(), "renewed certificate is of another cluster, not used");
            }
            Err(error) => self.renewal_failures.failed(&error, "see the hub's log; trying again until it ends"),
        }
        // Some tries fit into what is left, whatever the certificate's life. One that is due already as it comes, since the
        // clocks disagree, is no reason to ask without end.
        let pause = Duration::try_from(self.identity.load().life() / 30).unwrap_or(RENEWAL_CHECK);
        self.renew_not_before = Instant::now() + pause.clamp(Duration::from_secs(1), Duration::from_secs(600));
    }

    /// When to wake up for the state machine, the next dial or a renewal.
    fn deadline(&self) -> Instant {
        let by_session = match &self.connection {
            Connection::Down { dial_at } => Some(*dial_at),
            Connection::Dialling(_) => None,
            Connection::Up(_) => self.session.deadline(),
        };
        let until_renewal = self.identity.load().renew_at().duration_since(Timestamp::now());
        let until_renewal = Duration::try_from(until_renewal).unwrap_or(Duration::ZERO);
        let renewal = Instant::now() + until_renewal.clamp(Duration::from_secs(1), RENEWAL_CHECK);
        by_session.map_or(renewal, |at| renewal.min(self.started + at))
    }

    fn now(&self) -> Now {
        Now { monotonic: self.started.elapsed(), wall: Timestamp::now() }
    }
}

impl Up {
    async fn next_event(&mut self, wants_to_send: bool) -> Event {
        let Up { outgoing, incoming, client: _, line: _, _span } = self;
        let room = async {
            if wants_to_send {
                outgoing.clone().reserve_owned().await.map_or(Event::StreamGone, Event::Room)
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

/// The hub took the session in.
fn greet(welcome: &Welcome) {
    count(&SESSIONS);
    if let Some(warning) = version::warning(env!("CARGO_PKG_VERSION"), &welcome.hub_version) {
        tracing::warn!(hub_version = welcome.hub_version, warning, "versions are far apart");
    }
}

fn journal_state(journal: &Journal) -> JournalState {
    JournalState {
        oldest_seq: journal.oldest_seq(),
        next_seq: journal.next_seq(),
        backlog: journal.backlog(),
        dropped: journal.dropped(),
    }
}

fn next_step(failure: &SessionFailure) -> &'static str {
    match failure {
        SessionFailure::Dial { .. } => "check the hub's address and the network; dialling again",
        SessionFailure::NoCertificate(EnrolError::Refused(_)) => {
            "run `fleetcheck cluster token` and restart the agent with the token it prints"
        }
        SessionFailure::NoCertificate(_) => "check the enrolment address and the network; trying again",
        SessionFailure::Status(status) if is_about_identity(status) => {
            "the hub does not take this certificate: see its log, or enrol anew with `fleetcheck cluster token`"
        }
        SessionFailure::Status(_) | SessionFailure::Closed => "dialling again",
        SessionFailure::Protocol(CloseReason::Unread | CloseReason::NoWelcome) => {
            "see the hub's log and whether it has what it needs; dialling again"
        }
        SessionFailure::Wire(_) | SessionFailure::Protocol(_) => {
            "compare the versions of agent and hub; dialling again"
        }
    }
}

fn is_about_identity(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::PermissionDenied | tonic::Code::Unauthenticated) || is_handshake_alert(status)
}

/// A refused client certificate has no status of its own under TLS 1.3: the handshake was over when the hub refused.
fn is_handshake_alert(status: &Status) -> bool {
    failure::chain(status).contains("alert")
}
