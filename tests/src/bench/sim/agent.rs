//! The shell of one simulated agent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use active_monitor_core::command::Answer;
use active_monitor_core::policy::Policy;
use active_monitor_core::session::agent::{AgentSession, Identity, Input, JournalState, Now, Output};
use active_monitor_core::session::frame::{
    Definition, DefinitionResult, DefinitionStatus, HubFrame, MAX_HUB_FRAME_BYTES,
};
use active_monitor_core::state::{CheckState, Phase};
use active_monitor_proto::{FleetClient, WireError, v1};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{CONNECT_TIMEOUT, Orders, Seen, numbers, uid};

const FRAMES_QUEUED: usize = 4;
/// The first connections are spread over this, as those of a fleet that grew.
const FIRST_DIALS: Duration = Duration::from_secs(5);
/// From one run to the next, where there are any.
const RUN_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Agent {
    session: AgentSession,
    endpoint: Endpoint,
    connection: Connection,
    checks: Arc<Vec<Arc<CheckState>>>,
    orders: watch::Receiver<Orders>,
    seen: Arc<Seen>,
    started: Instant,
    acked: u64,
    /// Reports that the journal has had.
    reports: u64,
    /// The orders that were obeyed.
    obeyed: Orders,
    /// When a run ends, while there are any.
    next_run: Option<Duration>,
    /// Reports of runs without an ack, and when the runs ended.
    ended: VecDeque<(u64, Instant)>,
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
    RunEnds,
    Timer,
}

impl Agent {
    pub(super) fn new(
        cluster: String,
        endpoint: Endpoint,
        checks: Arc<Vec<Arc<CheckState>>>,
        orders: watch::Receiver<Orders>,
        seen: Arc<Seen>,
    ) -> Agent {
        let identity = Identity {
            cluster_uid: uid(&cluster),
            cluster,
            incarnation: hex::encode(rand::random::<[u8; 16]>()),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes_version: "v1.36.3".to_owned(),
            journal_id: hex::encode(rand::random::<[u8; 16]>()),
            policy: Policy::default().settings(),
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
            obeyed: Orders::default(),
            next_run: None,
            ended: VecDeque::new(),
        };
        for check in Arc::clone(&agent.checks).iter() {
            agent.feed(Input::CheckChanged(Arc::clone(check)));
        }
        agent.feed(Input::ChecksKnown);
        agent
    }

    pub(super) async fn run(mut self) {
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
        let due = async |at: Option<Duration>| match at {
            Some(at) => tokio::time::sleep_until(started + at).await,
            None => std::future::pending().await,
        };
        let (timer, run_ends) = (due(deadline), due(self.next_run));
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
            () = run_ends => Event::RunEnds,
            () = timer => Event::Timer,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Orders => self.obey(),
            Event::RunEnds => self.end_run(),
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
        let orders = *self.orders.borrow_and_update();
        let Orders { failing, reports, running } = std::mem::replace(&mut self.obeyed, orders);
        if let Some(first) = self.checks.first().filter(|_| failing != orders.failing) {
            let phase = if orders.failing { Phase::Failed } else { Phase::Succeeded };
            let changed = CheckState { phase, ..CheckState::clone(first) };
            self.feed(Input::CheckChanged(Arc::new(changed)));
        }
        if reports != orders.reports {
            self.reports += orders.reports - reports;
            self.feed(Input::Journal(self.journal()));
        }
        if running != orders.running {
            // Not all in the same moment.
            let first = self.started.elapsed() + RUN_EVERY.mul_f64(rand::random());
            self.next_run = orders.running.then_some(first);
        }
    }

    /// The checks take turns, as in [`numbers::report`].
    fn end_run(&mut self) {
        // By the clock and not by how long this took: what comes late shows in the figures.
        self.next_run = self.next_run.map(|at| at + RUN_EVERY);
        self.reports += 1;
        self.seen.runs.fetch_add(1, Ordering::Relaxed);
        self.ended.push_back((self.reports, Instant::now()));
        if let Some(changed) = numbers::after_run(self.reports, &self.checks, Timestamp::now()) {
            self.feed(Input::CheckChanged(Arc::new(changed)));
        }
        self.feed(Input::Journal(self.journal()));
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
                    Input::Loaded(numbers.take(max).filter_map(|seq| numbers::report(seq, &self.checks)).collect())
                }
                Output::Truncate(seq) => {
                    self.seen.acked.fetch_add(seq.saturating_sub(self.acked), Ordering::Relaxed);
                    self.acked = self.acked.max(seq);
                    let covered = self.ended.partition_point(|(ended, _)| *ended <= seq);
                    let times = self.ended.drain(..covered).map(|(_, at)| at.elapsed());
                    self.seen.ack_times.lock().extend(times);
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
                Output::Obey(command) => Input::Obeyed(Answer { id: command.id, verdict: Ok("obeyed".to_owned()) }),
                Output::Remember(_) | Output::LackingKnown(_) => continue,
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
