//! The shell of one session: it carries frames between the stream, the session's state machine, the owner and the store.
//!
//! Nothing in it grows without bound: the machine limits the reports that are under way, the owner's queue and the
//! outgoing one make this task wait, and a waiting task does not read its stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::command::{Answer, Command, Order, Pause, Refusal, Scope};
use active_monitor_core::fleet::Refusal::Overtaken;
use active_monitor_core::fleet::Said;
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::session::frame::{AgentFrame, Counted, Hello, HubFrame, Report, Welcome};
use active_monitor_core::session::gaps::{Gap, Piece, Sequence};
use active_monitor_core::session::hub::{HubSession, Input, Output};
use active_monitor_core::session::pace;
use active_monitor_proto::{WireError, v1};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use jiff::Timestamp;
use tokio::sync::{RwLock, mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};
use tracing::Instrument;

use super::outgoing::{Outgoing, Queue, SEND_TIMEOUT, Unread};
use super::{Caller, Shared, violations};
use crate::ca::AgentIdentity;
use crate::clock;
use crate::desired::Tested;
use crate::owner::{ChangeError, DefinitionSet, Given, NotOpened, Opened};
use crate::refusals::Refused;
use crate::store::{Recorded, Store, StoreError};

/// Reports that may be under way without an ack.
pub(super) const MAX_UNACKED: u32 = 512;
/// Heartbeats in a lease.
const HEARTBEATS_PER_LEASE: u32 = 3;
/// Time for the first frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that the first frame is left unread because the cluster has sent more than its rate: an agent waits 10 s for
/// the answer, and must not be kept out for good.
const MAX_DOOR_WAIT: Duration = Duration::from_secs(5);
/// Wait before dialling again, by the reason to go.
const RETRY_SOON_MS: u32 = 1_000;
const RETRY_LATER_MS: u32 = 60_000;

type Commit = (u64, Result<Recorded, StoreError>);

/// Why the loop ends; what the agent must hear is sent already.
struct Ended;

struct Session {
    shared: Arc<Shared>,
    cluster: String,
    machine: HubSession,
    outgoing: Outgoing,
    /// Set while the owner has the session open.
    epoch: Option<u64>,
    cut: Option<oneshot::Receiver<&'static str>>,
    definitions: Option<watch::Receiver<Option<DefinitionSet>>>,
    commands: Option<mpsc::Receiver<Given>>,
    /// Who waits for the answer to a command, by its id.
    waiting: BTreeMap<String, oneshot::Sender<Answer>>,
    /// Pauses in force that an agent which took over may not know; one at a time is under way.
    repeats: VecDeque<Command>,
    repeating: Option<String>,
    /// The enrolment that this session goes by, by when it was.
    enrolled: Option<Timestamp>,
    /// The self-test that this session asked for by itself, until its command is answered.
    self_test: Option<String>,
    /// The journal that the agent reports from, and how far it has come.
    journal: Option<(String, Sequence)>,
    /// In the order of the reports: an ack covers everything before it.
    commits: FuturesOrdered<BoxFuture<'static, Commit>>,
    /// Batches are recorded side by side; a gap alone, since it lies behind the runs that came before it. Fair: whoever asked
    /// first is first.
    places: Arc<RwLock<()>>,
    /// Nothing is read before: the agent sends more than its rate.
    read_at: Instant,
}

/// Runs a session to its end, and then its connection.
pub(super) async fn run(
    shared: Arc<Shared>,
    Caller { identity, connection, .. }: Caller,
    frames: Streaming<v1::AgentFrame>,
    outgoing: Outgoing,
) {
    let stop = shared.stop.clone();
    let cluster = identity.cluster.clone();
    let mut session = Session {
        machine: HubSession::new(cluster.clone()),
        shared,
        cluster,
        outgoing,
        epoch: None,
        cut: None,
        definitions: None,
        commands: None,
        waiting: BTreeMap::new(),
        repeats: VecDeque::new(),
        repeating: None,
        enrolled: None,
        self_test: None,
        journal: None,
        commits: FuturesOrdered::new(),
        places: Arc::default(),
        read_at: Instant::now(),
    };
    let Ended = session.serve(identity, frames).await;
    if let Some(epoch) = session.epoch {
        // Err means that the hub stops: then nobody looks any more.
        let _ = session.shared.fleet.said(&session.cluster, epoch, Said::Closed).await;
    }
    session.shared.paces.forget_full(&session.cluster);
    tracing::info!(cluster = session.cluster, epoch = session.epoch, "session ended");
    drop(session);
    // An agent that hears the end closes the connection. One that does not read shall not keep what was queued for it. At the
    // hub's own end all connections are closed.
    tokio::select! {
        () = connection.cancelled() => {}
        () = stop.cancelled() => {}
        () = tokio::time::sleep(SEND_TIMEOUT) => connection.cancel(),
    }
}

impl Session {
    async fn serve(&mut self, identity: AgentIdentity, mut frames: Streaming<v1::AgentFrame>) -> Ended {
        let expires = tokio::time::sleep(clock::until(identity.not_after));
        let hello = tokio::time::sleep(HELLO_TIMEOUT);
        tokio::pin!(expires, hello);
        let (stop, queue) = (self.shared.stop.clone(), self.outgoing.queue());
        self.pay(pace::SESSION_COST);
        self.read_at = self.read_at.min(Instant::now() + MAX_DOOR_WAIT);
        loop {
            let input = tokio::select! {
                frame = paced(self.read_at, &mut frames) => match self.frame(frame).await {
                    Ok(Some(frame)) => Input::Frame(frame),
                    Ok(None) => continue,
                    Err(ended) => return ended,
                },
                Some((seq, result)) = self.commits.next() => match result {
                    Ok(recorded) => {
                        tracing::debug!(cluster = self.cluster, seq, new = recorded.new, known = recorded.known, "recorded");
                        Input::Committed { seq }
                    }
                    Err(error) => {
                        tracing::error!(cluster = self.cluster, %error, "reports not recorded");
                        go_away("the hub cannot store reports", RETRY_SOON_MS)
                    }
                },
                Some(set) = changed(&mut self.definitions, &queue) => match set {
                    Some(set) => Input::PushDefinitions(set.to_vec()),
                    None => continue,
                },
                Some(given) = given(&mut self.commands) => {
                    let Given { command, answer } = given;
                    self.waiting.insert(command.id.clone(), answer);
                    Input::Command(command)
                }
                () = std::future::ready(()), if self.repeating.is_none() && !self.repeats.is_empty() => {
                    let Some(command) = self.repeats.pop_front() else { continue };
                    self.repeating = Some(command.id.clone());
                    Input::Command(command)
                }
                reason = cut(&mut self.cut) => go_away(reason, RETRY_SOON_MS),
                () = &mut expires => match self.renewed_until() {
                    Some(later) => {
                        expires.as_mut().reset(Instant::now() + later);
                        continue;
                    }
                    None => go_away("the certificate has expired", RETRY_SOON_MS),
                },
                // Nothing is read while the first frame has to wait, not even that the agent has gone.
                () = queue.closed(), if self.epoch.is_none() => return Ended,
                () = self.outgoing.unread() => return self.unread(Unread),
                () = &mut hello, if self.epoch.is_none() => go_away("no Hello came", RETRY_SOON_MS),
                () = stop.cancelled() => go_away("the hub is stopping", RETRY_SOON_MS),
            };
            if let Err(ended) = self.take(input).await {
                return ended;
            }
        }
    }

    /// How long the newest certificate of the cluster still lasts: a session goes on under the next one.
    fn renewed_until(&self) -> Option<Duration> {
        let records = self.shared.fleet.records();
        let newest = records.get(&self.cluster)?.agent_keys.last()?;
        Some(clock::until(newest.not_after)).filter(|left| !left.is_zero())
    }

    /// Converts what came from the stream; `None` for what is to be ignored.
    async fn frame(&mut self, frame: Option<Result<v1::AgentFrame, Status>>) -> Result<Option<AgentFrame>, Ended> {
        match frame {
            None => Err(Ended),
            Some(Err(status)) if is_unreadable(&status) => {
                tracing::warn!(cluster = self.cluster, error = status.message(), "bad frame");
                self.shared.refusals.count(Refused::Frame);
                Err(self.end(status).await)
            }
            Some(Err(status)) => {
                tracing::debug!(cluster = self.cluster, code = ?status.code(), message = status.message(), "stream broke");
                Err(Ended)
            }
            Some(Ok(frame)) => match AgentFrame::try_from(frame) {
                Ok(frame) => {
                    self.pay(pace::cost(&frame));
                    Ok(Some(frame))
                }
                Err(WireError::UnknownFrame) => {
                    tracing::debug!(cluster = self.cluster, "frame of a newer agent ignored");
                    self.shared.refusals.count(Refused::UnknownFrame);
                    self.pay(1);
                    Ok(None)
                }
                Err(error) => {
                    tracing::warn!(cluster = self.cluster, %error, "bad frame");
                    self.shared.refusals.count(Refused::Frame);
                    Err(self.end(Status::invalid_argument(error.to_string())).await)
                }
            },
        }
    }

    /// Sets when the next frame is read.
    fn pay(&mut self, tokens: u64) {
        let wait = self.shared.paces.take(&self.cluster, tokens);
        let now = Instant::now();
        if !wait.is_zero() && self.read_at <= now {
            self.shared.refusals.count(Refused::Rate);
        }
        self.read_at = now + wait;
    }

    /// Feeds the machine and carries out what it says.
    async fn take(&mut self, input: Input) -> Result<(), Ended> {
        // The other frames reach the owner themselves.
        let heard = matches!(
            &input,
            Input::Frame(
                AgentFrame::Reports { .. }
                    | AgentFrame::DefinitionsStatus { .. }
                    | AgentFrame::Snapshot { .. }
                    | AgentFrame::Lacking(_)
            )
        );
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.machine.handle(input) {
                if let Some(next) = self.carry_out(output).await? {
                    inputs.push(next);
                }
            }
        }
        if heard { self.say(Said::Heard).await } else { Ok(()) }
    }

    async fn carry_out(&mut self, output: Output) -> Result<Option<Input>, Ended> {
        match output {
            Output::Send(frame) => {
                if matches!(frame, HubFrame::Definitions { .. }) {
                    self.mark().await?;
                }
                self.send(frame).await?;
            }
            Output::Register(hello) => return Ok(Some(self.register(hello).await?)),
            Output::Snapshot(checks) => self.say(Said::Snapshot { checks, last: true }).await?,
            Output::Upsert(state) => self.say(Said::Upsert(state)).await?,
            Output::Removed(uid) => self.say(Said::Removed(uid)).await?,
            Output::Heartbeat(beat) => self.say(Said::Heartbeat(beat)).await?,
            Output::Record { reports, through_seq } => self.record(reports, through_seq),
            Output::DefinitionsStatus(statuses) => {
                let Some(epoch) = self.epoch else { return Ok(None) };
                self.shared.fleet.definition_statuses(&self.cluster, epoch, statuses).await.map_err(|_| Ended)?;
            }
            Output::Answered(answer) => self.answered(answer).await?,
            Output::SelfTested(self_test) => self.tested(self_test).await?,
            Output::Lacking(runs) => self.lacks(runs),
            Output::DefinitionsTooLarge { bytes } => {
                tracing::error!(cluster = self.cluster, bytes, "definitions are too large to send");
            }
            Output::End(None) => return Err(Ended),
            Output::End(Some(error)) => {
                tracing::warn!(cluster = self.cluster, %error, "session refused");
                self.shared.refusals.count(violations::refused(&error));
                return Err(self.end(violations::status(&error)).await);
            }
        }
        Ok(None)
    }

    /// Has the owner open the session.
    async fn register(&mut self, hello: Hello) -> Result<Input, Ended> {
        let (incarnation, version) = (hello.incarnation.clone(), hello.agent_version.clone());
        let journal = hello.clone();
        let Opened { epoch, cut, commands } = match self.shared.fleet.open(hello).await {
            Ok(opened) => opened,
            Err(NotOpened::Stopping) => return Ok(go_away("the hub is stopping", RETRY_SOON_MS)),
            Err(NotOpened::Store(error)) => {
                tracing::error!(cluster = self.cluster, %error, "session not opened");
                return Ok(go_away("the hub cannot store that the session is here", RETRY_SOON_MS));
            }
            Err(NotOpened::Refused(refusal @ Overtaken { .. })) => {
                return Ok(go_away(&refusal.to_string(), RETRY_SOON_MS));
            }
            Err(NotOpened::Refused(refusal)) => {
                tracing::warn!(cluster = self.cluster, %refusal, "session refused");
                self.shared.refusals.count(Refused::Hello);
                return Ok(go_away(&refusal.to_string(), RETRY_LATER_MS));
            }
        };
        tracing::info!(cluster = self.cluster, epoch, incarnation, agent_version = version, "session opened");
        self.shared.figures.opened(&self.cluster);
        self.shared.show_certificate(&self.cluster);
        self.epoch = Some(epoch);
        self.cut = Some(cut);
        self.commands = Some(commands);
        let store = &*self.shared.store;
        match self.shared.marks.forgotten(store, &self.cluster, &journal.hub_mark).await {
            Ok(None) => {}
            Ok(Some(restore)) => self.shared.fleet.restored(restore).await.map_err(|_| Ended)?,
            Err(error) => {
                tracing::error!(cluster = self.cluster, %error, "mark not compared");
                return Ok(go_away("the hub cannot read its store", RETRY_SOON_MS));
            }
        }
        self.follow(&journal).await;
        self.repeats = pauses(&*self.shared.store, &self.cluster).await;
        self.ask_for_self_test();
        let mut definitions = self.shared.fleet.definition_set(&self.cluster).await.map_err(|_| Ended)?;
        // A new session gets the set as it is.
        definitions.mark_changed();
        self.definitions = Some(definitions);
        let lease_ms = u32::try_from(self.shared.lease.as_millis()).unwrap_or(u32::MAX);
        Ok(Input::Accepted(Welcome {
            session_epoch: epoch,
            heartbeat_ms: lease_ms / HEARTBEATS_PER_LEASE,
            lease_ms,
            max_unacked_reports: MAX_UNACKED,
            hub_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    /// Until its cluster has passed a self-test, each session begins with one.
    fn ask_for_self_test(&mut self) {
        let records = self.shared.fleet.records();
        let Some(record) = records.get(&self.cluster) else { return };
        self.enrolled = record.valid_from;
        if record.self_test.as_ref().is_some_and(SelfTest::passed) {
            return;
        }
        let id = format!("self-test-{}", self.epoch.unwrap_or_default());
        self.self_test = Some(id.clone());
        self.repeats.push_back(Command { id, scope: Scope::default(), order: Order::SelfTest });
    }

    async fn tested(&mut self, self_test: SelfTest) -> Result<(), Ended> {
        let tested = Tested { cluster: self.cluster.clone(), enrolled: self.enrolled, self_test };
        match self.shared.fleet.self_tested(tested).await {
            Ok(()) => Ok(()),
            Err(ChangeError::Stopping) => Err(Ended),
            Err(error) => {
                tracing::error!(cluster = self.cluster, %error, "self-test not kept");
                Ok(())
            }
        }
    }

    async fn answered(&mut self, answer: Answer) -> Result<(), Ended> {
        let is_ours = self.self_test.take_if(|id| *id == answer.id).is_some();
        if is_ours && let Err(refusal) = &answer.verdict {
            self.tested(SelfTest::refused(refusal, clock::now())).await?;
        } else if let Err(Refusal { layer, reason }) = &answer.verdict {
            tracing::warn!(cluster = self.cluster, id = answer.id, layer = layer.as_str(), reason, "command refused");
            self.shared.refusals.count(Refused::Command);
        }
        if self.repeating.as_ref() == Some(&answer.id) {
            self.repeating = None;
        } else if let Some(waiting) = self.waiting.remove(&answer.id) {
            // Err means that nobody waits any more.
            let _ = waiting.send(answer);
        }
        Ok(())
    }

    /// Takes up the journal where the store has it. An agent that does not name its journal has no gaps.
    async fn follow(&mut self, hello: &Hello) {
        let journal = hello.journal_id.clone();
        if journal.is_empty() {
            return;
        }
        match known(&*self.shared.store, &self.cluster, &journal, hello.next_seq).await {
            Ok(known) => {
                let (sequence, gap) = Sequence::new(hello, known);
                self.journal = Some((journal, sequence));
                gap.into_iter().for_each(|gap| self.note(gap));
            }
            Err(error) => tracing::error!(cluster = self.cluster, %error, "gaps of this session are not seen"),
        }
    }

    fn record(&mut self, reports: Vec<Report>, through_seq: u64) {
        let last_seq = reports.last().map(|report| report.seq);
        let pieces = match &mut self.journal {
            Some((_, sequence)) => sequence.take(reports, through_seq),
            None if reports.is_empty() => Vec::new(),
            None => vec![Piece::Reports(reports)],
        };
        for piece in pieces {
            match piece {
                Piece::Gap(gap) => self.note(gap),
                Piece::Reports(reports) => self.commit(reports, through_seq),
            }
        }
        // The agent waits for an ack of what cannot be read, which is in a gap that has none.
        if last_seq != Some(through_seq) {
            self.commit(Vec::new(), through_seq);
        }
    }

    /// Keeps a gap, before the reports that come behind it. It has no number to ack.
    fn note(&mut self, gap: Gap) {
        let Some((journal, _)) = self.journal.clone() else { return };
        tracing::warn!(cluster = self.cluster, reports = gap.reports, "reports are gone: a gap in the history");
        self.shared.figures.missing(&self.cluster, gap.reports);
        let (store, cluster) = (Arc::clone(&self.shared.store), self.cluster.clone());
        let places = Arc::clone(&self.places);
        self.commits.push_back(Box::pin(async move {
            let _alone = places.write().await;
            let result = store.record_gap(&cluster, &journal, gap, clock::now()).await;
            (0, result.map(|()| Recorded::default()))
        }));
    }

    /// Keeps a gap of unknown length where the history lacks what the journal does, before the reports that come behind it.
    fn lacks(&mut self, runs: Vec<Counted>) {
        let (store, cluster) = (Arc::clone(&self.shared.store), self.cluster.clone());
        let (places, figures) = (Arc::clone(&self.places), self.shared.figures.clone());
        self.commits.push_back(Box::pin(async move {
            let _alone = places.write().await;
            let noted = store.record_lacking(&cluster, &runs, clock::now()).await;
            if let Ok(true) = noted {
                // At least the run that was named.
                figures.missing(&cluster, 1);
                tracing::warn!(cluster, "runs are in no journal that is here: a gap of unknown length in the history");
            }
            (0, noted.map(|_| Recorded::default()))
        }));
    }

    fn commit(&mut self, reports: Vec<Report>, through_seq: u64) {
        let (store, cluster) = (Arc::clone(&self.shared.store), self.cluster.clone());
        let journal = self.journal.as_ref().map(|(journal, _)| journal.clone());
        let through_seq = reports.last().map_or(through_seq, |report| report.seq);
        let runs: Vec<_> = reports.into_iter().map(|report| report.run).collect();
        let (figures, ends) = (self.shared.figures.clone(), runs.iter().map(|run| run.finished_at).collect::<Vec<_>>());
        let span = tracing::info_span!("record reports", cluster, reports = runs.len(), through_seq);
        let places = Arc::clone(&self.places);
        let commit = async move {
            let _beside_others = places.read().await;
            let now = clock::now();
            let cursor = async {
                match &journal {
                    Some(journal) => store.put_report_cursor(&cluster, journal, through_seq, now).await,
                    None => Ok(()),
                }
            };
            // Both wait for the same commit of the disk.
            let result = futures::try_join!(store.record_runs(&cluster, runs, now), cursor);
            if result.is_ok() {
                let now = clock::now();
                ends.into_iter().for_each(|end| figures.recorded(end, now));
            }
            (through_seq, result.map(|(recorded, ())| recorded))
        };
        self.commits.push_back(Box::pin(commit.instrument(span)));
    }

    /// Gives the agent a mark, before the definitions that it is for.
    async fn mark(&mut self) -> Result<(), Ended> {
        match self.shared.marks.next(&*self.shared.store, &self.cluster).await {
            Ok(mark) => self.send(HubFrame::Mark(mark)).await,
            Err(error) => {
                tracing::error!(cluster = self.cluster, %error, "mark not stored");
                Err(self.end(Status::unavailable("the hub cannot store")).await)
            }
        }
    }

    async fn say(&mut self, what: Said) -> Result<(), Ended> {
        match self.epoch {
            Some(epoch) => self.shared.fleet.said(&self.cluster, epoch, what).await.map_err(|_| Ended),
            None => Ok(()),
        }
    }

    async fn send(&mut self, frame: HubFrame) -> Result<(), Ended> {
        let sent = self.outgoing.send(Ok(frame.into())).await;
        sent.map_err(|unread| self.unread(unread))
    }

    fn unread(&self, Unread: Unread) -> Ended {
        tracing::warn!(cluster = self.cluster, "the agent does not read");
        self.shared.refusals.count(Refused::SlowAgent);
        Ended
    }

    async fn end(&mut self, status: Status) -> Ended {
        // Err means that the agent is gone: then it needs no reason.
        let _ = self.outgoing.send(Err(status)).await;
        Ended
    }
}

/// How far a journal is known. One that has not come so far was put back: what was known of it is void.
async fn known(store: &dyn Store, cluster: &str, journal: &str, next_seq: u64) -> Result<Option<u64>, StoreError> {
    let known = store.report_cursor(cluster, journal).await?;
    if known.is_some_and(|known| known >= next_seq) {
        store.forget_report_cursor(cluster, journal).await?;
        return Ok(None);
    }
    Ok(known)
}

/// The next frame, read when it is time. May be dropped and asked again.
async fn paced(read_at: Instant, frames: &mut Streaming<v1::AgentFrame>) -> Option<Result<v1::AgentFrame, Status>> {
    if read_at > Instant::now() {
        tokio::time::sleep_until(read_at).await;
    }
    frames.next().await
}

/// Whether the bytes were no frame, or one that is too large; a connection that broke has its cause as a source.
fn is_unreadable(status: &Status) -> bool {
    let is_of_the_decoder = matches!(status.code(), Code::OutOfRange | Code::Internal | Code::Unimplemented);
    is_of_the_decoder && std::error::Error::source(status).is_none()
}

/// The pauses that a cluster's agent has taken and that have not ended.
async fn pauses(store: &dyn Store, cluster: &str) -> VecDeque<Command> {
    let now = clock::now();
    let pauses = store.pauses(cluster, now).await.unwrap_or_else(|error| {
        tracing::error!(cluster, %error, "pauses cannot be read; an agent that took over lacks them");
        Vec::new()
    });
    let command = |Pause { id, subject, scope, until, reason, by }: Pause| {
        let left = until.duration_since(now).as_secs();
        let seconds = u64::try_from(left).unwrap_or(0).max(1);
        Command { id, scope, order: Order::Pause { subject, seconds, reason, by } }
    };
    pauses.into_iter().map(command).collect()
}

fn go_away(reason: &str, retry_after_ms: u32) -> Input {
    Input::GoAway { reason: reason.to_owned(), retry_after_ms }
}

/// The next command; never, while no session is open.
async fn given(commands: &mut Option<mpsc::Receiver<Given>>) -> Option<Given> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}

/// The next set of definitions, nothing where it is held back; never, while there is none to follow. One that the agent has
/// not taken yet is enough: the next one is as it is by then.
async fn changed(
    definitions: &mut Option<watch::Receiver<Option<DefinitionSet>>>,
    queue: &Queue,
) -> Option<Option<DefinitionSet>> {
    let Some(receiver) = definitions else { return std::future::pending().await };
    match receiver.changed().await {
        Ok(()) => {
            // This may be dropped while it waits.
            receiver.mark_changed();
            queue.emptied().await;
            Some(receiver.borrow_and_update().clone())
        }
        // The cluster was removed: the session is cut elsewhere.
        Err(_) => std::future::pending().await,
    }
}

/// Why the owner ends the session; never, while it has none.
async fn cut(cut: &mut Option<oneshot::Receiver<&'static str>>) -> &'static str {
    match cut {
        Some(receiver) => receiver.await.unwrap_or("the hub is stopping"),
        None => std::future::pending().await,
    }
}
