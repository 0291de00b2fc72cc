//! The agent's end of the session, across connections. Pure: the shell feeds it what happened and carries out its
//! outputs; when the stream has room for a frame, it asks for one.
//!
//! Asking for frames one by one bounds what waits on a slow stream, and a check that changes while it waits is sent once,
//! as it is by then. The order: Hello, the answer Welcome, the snapshot, and from then on heartbeats first, answers to
//! commands and definitions, what the journal lacks, and changes of checks in turns with reports, so that a long backlog never
//! hides what happens.

mod checks;
mod lacking;
mod reports;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

use self::checks::Checks;
use self::lacking::Lacking;
use self::reports::Reports;
use super::frame::{
    AgentFrame, Counted, Definition, DefinitionStatus, Heartbeat, Hello, HubFrame, MAX_AGENT_FRAME_BYTES, Report,
    Welcome,
};
use crate::command::{Answer, Command, Layer, Refusal};
use crate::policy::PolicySetting;
use crate::self_test::SelfTest;
use crate::state::CheckState;

/// The hub answers Hello within this time.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// A hub that has had no room for a frame for so long, and has taken no part of one, is left: it may answer every ping and read
/// nothing.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The longest that a hub can send an agent away for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// A hub that asks for more heartbeats than this gets no more.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
/// Commands that may wait for their answer; what the hub asks beyond that is refused.
pub const MAX_COMMANDS: usize = 64;

/// What the agent is; the same for the life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name in its certificate.
    pub cluster: String,
    /// `metadata.uid` of the cluster's kube-system namespace.
    pub cluster_uid: String,
    /// A UUID drawn at the start of the process.
    pub incarnation: String,
    /// Semantic version of the agent.
    pub agent_version: String,
    /// gitVersion of the API server.
    pub kubernetes_version: String,
    /// Drawn when the journal was made.
    pub journal_id: String,
    /// What the cluster lets the hub do.
    pub policy: Vec<PolicySetting>,
}

/// The time of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed moment; never goes back. For intervals.
    pub monotonic: Duration,
    /// The clock on the wall. For the hub to see.
    pub wall: Timestamp,
}

/// Where the journal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalState {
    /// Oldest report without an ack; `next_seq` when there is none.
    pub oldest_seq: u64,
    /// Number that the next report will get.
    pub next_seq: u64,
    /// Reports without an ack.
    pub backlog: u64,
    /// Reports ever dropped without an ack.
    pub dropped: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The stream is open.
    Connected,
    /// The hub sent a frame.
    Frame(HubFrame),
    /// The stream ended, or could not be opened. `jitter` is random, 0 to 1.
    Disconnected {
        /// Spreads the agents of a fleet.
        jitter: f64,
    },
    /// A check is like this.
    CheckChanged(Arc<CheckState>),
    /// A check is gone, by uid.
    CheckRemoved(String),
    /// Every check of the cluster has been fed: a snapshot says the truth from here on.
    ChecksKnown,
    /// Where the journal stands; fed once at the start and whenever it changed.
    Journal(JournalState),
    /// What the journal had, answering [`Output::Load`].
    Loaded(Vec<Report>),
    /// What became of the definitions of [`Output::ApplyDefinitions`]; may come again when that changes.
    DefinitionsDone {
        /// As it came.
        nonce: u64,
        /// One for each definition.
        statuses: Vec<DefinitionStatus>,
    },
    /// What became of the command of [`Output::Obey`].
    Obeyed(Answer),
    /// A self-test has ended.
    SelfTested(SelfTest),
    /// What the journal lacks; all of it, whenever that changed.
    Lacking(Vec<Counted>),
    /// The hub sent a command that this version does not know, by id.
    UnknownCommand(String),
    /// The connection has taken a part of what was sent since the last time, though it may have no room for a frame.
    Taken,
    /// The time of [`AgentSession::deadline`] has come.
    Tick,
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Reads reports from the journal; the answer is [`Input::Loaded`].
    Load {
        /// Only later ones.
        after_seq: u64,
        /// At most this many.
        max: usize,
    },
    /// Tells the journal that everything up to this number is on the hub's disk.
    Truncate(u64),
    /// Makes these definitions true in the cluster.
    ApplyDefinitions {
        /// For [`Input::DefinitionsDone`]. Grows through the life of the process, whatever the hub numbers them.
        nonce: u64,
        /// The complete set.
        definitions: Vec<Definition>,
    },
    /// The hub knows what became of these: they are not said again.
    LackingKnown(Vec<Counted>),
    /// Keeps the hub's mark, before what comes after it is done.
    Remember(String),
    /// Does what the command says, as far as the cluster lets it; the answer is [`Input::Obeyed`].
    Obey(Command),
    /// Closes the stream, then feeds [`Input::Disconnected`].
    Close(CloseReason),
    /// Opens a stream when the monotonic clock shows this.
    DialAt(Duration),
}

/// Why the agent closes a stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// The hub said so.
    #[error("the hub ended the session: {0}")]
    GoAway(String),
    /// No Welcome came.
    #[error("the hub did not answer Hello within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
    /// The stream took no frame.
    #[error("the hub has read nothing for {} s", UNREAD_TIMEOUT.as_secs())]
    Unread,
    /// A frame at a point of the session where it has no place.
    #[error("the hub sent {0} out of order")]
    OutOfOrder(&'static str),
    /// An ack of what was not sent.
    #[error("the hub acked report {acked}, the last one sent was {sent}")]
    AckBeyondSent {
        /// As received.
        acked: u64,
        /// In this session; 0 for none.
        sent: u64,
    },
}

/// The state machine.
#[derive(Debug)]
pub struct AgentSession {
    identity: Identity,
    journal: JournalState,
    checks: Checks,
    reports: Reports,
    lacking: Lacking,
    stage: Stage,
    failures: u32,
    /// Asked by the last GoAway.
    retry_after: Duration,
    /// The hub's latest mark; empty before the first.
    hub_mark: String,
    /// Numbers the sets given to the controller.
    definitions_nonce: u64,
    /// The hub's number for the latest of them; absent where that session is over.
    hub_nonce: Option<u64>,
    definitions_status: Option<AgentFrame>,
    /// Commands of this session that have no answer yet, by id.
    commands: BTreeSet<String>,
    answers: VecDeque<Answer>,
    /// The latest self-test, until it is sent: it outlives the session that asked for it.
    self_test: Option<SelfTest>,
    /// Reports had the last turn.
    reports_last: bool,
}

#[derive(Debug)]
enum Stage {
    Down,
    /// Connected; Hello waits for room on the stream, or for its answer.
    Greeting {
        hello_sent: bool,
        give_up_at: Duration,
    },
    Live {
        since: Duration,
        lease: Duration,
        heartbeat: Duration,
        next_heartbeat: Duration,
        /// Since when a heartbeat waits for room on the stream.
        unread_since: Option<Duration>,
    },
    /// Asked the shell to close.
    Closing,
}

impl AgentSession {
    /// Not connected, no checks. The shell dials once by itself; the next times it is told. Nothing but signs of life
    /// is sent before [`Input::ChecksKnown`]: for the hub, what a snapshot does not name is gone.
    pub fn new(identity: Identity, journal: JournalState) -> AgentSession {
        AgentSession::resumed(identity, journal, String::new())
    }

    /// The same with the mark that an earlier life of the agent kept for [`Output::Remember`].
    pub fn resumed(identity: Identity, journal: JournalState, hub_mark: String) -> AgentSession {
        AgentSession {
            identity,
            journal,
            checks: Checks::default(),
            reports: Reports::default(),
            lacking: Lacking::default(),
            stage: Stage::Down,
            failures: 0,
            retry_after: Duration::ZERO,
            hub_mark,
            definitions_nonce: 0,
            hub_nonce: None,
            definitions_status: None,
            commands: BTreeSet::new(),
            answers: VecDeque::new(),
            self_test: None,
            reports_last: false,
        }
    }

    /// Takes one input; the outputs are to be carried out in order.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        match input {
            Input::Connected => self.on_connected(now),
            Input::Frame(frame) => return self.on_frame(now, frame),
            Input::Disconnected { jitter } => return vec![self.on_disconnected(now, jitter)],
            Input::CheckChanged(state) => self.checks.changed(state),
            Input::CheckRemoved(uid) => self.checks.removed(uid),
            Input::ChecksKnown => self.checks.set_known(),
            Input::Journal(journal) => {
                self.journal = journal;
                self.reports.appended(journal.next_seq);
            }
            Input::Loaded(reports) => self.reports.loaded(reports),
            Input::DefinitionsDone { nonce, statuses } => self.on_definitions_done(nonce, statuses),
            // An answer to a session that is over would be one to nothing in the next.
            Input::Obeyed(answer) if self.commands.remove(&answer.id) => self.answers.push_back(answer),
            Input::Obeyed(_) => {}
            Input::SelfTested(self_test) => self.self_test = Some(self_test),
            Input::Lacking(runs) => self.lacking.set(runs),
            Input::UnknownCommand(id) => self.refuse_unknown(id),
            Input::Taken => {
                if let Stage::Live { unread_since: Some(since), .. } = &mut self.stage {
                    *since = now.monotonic;
                }
            }
            Input::Tick => {
                if let Some(reason) = self.gives_up(now) {
                    return self.close(reason);
                }
            }
        }
        self.load()
    }

    /// Whether [`AgentSession::next_frame`] has one.
    pub fn wants_to_send(&self, now: Now) -> bool {
        match &self.stage {
            Stage::Down | Stage::Closing => false,
            Stage::Greeting { hello_sent, .. } => !hello_sent,
            Stage::Live { next_heartbeat, .. } => {
                now.monotonic >= *next_heartbeat
                    || !self.answers.is_empty()
                    || self.self_test.is_some()
                    || self.definitions_status.is_some()
                    || (self.checks.are_known()
                        && (self.checks.has_frame() || self.lacking.has_frame() || self.reports.has_frame()))
            }
        }
    }

    /// The next frame for the stream, which has room for it; it counts as sent. Outputs may follow from that.
    pub fn next_frame(&mut self, now: Now) -> (Option<AgentFrame>, Vec<Output>) {
        let frame = match &mut self.stage {
            Stage::Down | Stage::Closing => None,
            Stage::Greeting { hello_sent: true, .. } => None,
            Stage::Greeting { hello_sent, .. } => {
                *hello_sent = true;
                Some(AgentFrame::Hello(self.hello(now.wall)))
            }
            Stage::Live { heartbeat, next_heartbeat, unread_since, .. } if now.monotonic >= *next_heartbeat => {
                *next_heartbeat = now.monotonic + *heartbeat;
                *unread_since = None;
                let JournalState { backlog, dropped, .. } = self.journal;
                let heartbeat = Heartbeat { sent_at: now.wall, backlog, dropped_reports: dropped };
                Some(AgentFrame::Heartbeat(heartbeat))
            }
            Stage::Live { .. } => {
                let answer = self.answers.pop_front().map(AgentFrame::CommandAnswer);
                let answer = answer.or_else(|| self.self_test.take().map(AgentFrame::SelfTest));
                answer.or_else(|| self.definitions_status.take()).or_else(|| self.next_data())
            }
        };
        (frame, self.load())
    }

    /// When the shell must feed [`Input::Tick`] or ask for a frame, by the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        match self.stage {
            Stage::Down | Stage::Closing => None,
            Stage::Greeting { give_up_at, .. } => Some(give_up_at),
            Stage::Live { unread_since: Some(since), .. } => Some(since + UNREAD_TIMEOUT),
            Stage::Live { next_heartbeat, .. } => Some(next_heartbeat),
        }
    }

    /// Whether the hub has taken this session in.
    pub fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live { .. })
    }

    fn next_data(&mut self) -> Option<AgentFrame> {
        if !self.checks.are_known() {
            return None;
        }
        if let Some(chunk) = self.checks.next_snapshot_chunk() {
            return Some(chunk);
        }
        // Before the reports: in the history it lies before what this journal tells.
        if let Some(runs) = self.lacking.next(self.reports.sent_seq()) {
            return Some(AgentFrame::Lacking(runs));
        }
        let frame = if self.reports_last {
            self.checks.next_update().or_else(|| self.reports.next_frame())
        } else {
            self.reports.next_frame().or_else(|| self.checks.next_update())
        };
        self.reports_last = matches!(frame, Some(AgentFrame::Reports { .. }));
        frame
    }

    fn hello(&self, sent_at: Timestamp) -> Hello {
        let Identity { cluster, cluster_uid, incarnation, agent_version, kubernetes_version, journal_id, policy } =
            self.identity.clone();
        let JournalState { oldest_seq, next_seq, dropped: dropped_reports, backlog: _ } = self.journal;
        Hello {
            cluster,
            cluster_uid,
            incarnation,
            agent_version,
            kubernetes_version,
            oldest_seq,
            next_seq,
            sent_at,
            dropped_reports,
            journal_id,
            hub_mark: self.hub_mark.clone(),
            policy,
        }
    }

    fn on_connected(&mut self, now: Now) {
        self.stage = Stage::Greeting { hello_sent: false, give_up_at: now.monotonic + WELCOME_TIMEOUT };
        self.retry_after = Duration::ZERO;
    }

    fn on_disconnected(&mut self, now: Now, jitter: f64) -> Output {
        // Only a session that lasted ends a row of failures: a hub that welcomes and dies is failing too.
        if let Stage::Live { since, lease, .. } = self.stage
            && now.monotonic.saturating_sub(since) >= lease
        {
            self.failures = 0;
        }
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
        let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF);
        let wait = backoff.mul_f64(0.5 + 0.5 * jitter).max(self.retry_after.mul_f64(1.0 + 0.5 * jitter));
        self.failures = self.failures.saturating_add(1);
        self.stage = Stage::Down;
        self.hub_nonce = None;
        self.definitions_status = None;
        self.commands.clear();
        self.answers.clear();
        self.checks.stop();
        self.lacking.stop();
        self.reports.stop();
        Output::DialAt(now.monotonic + wait)
    }

    fn on_frame(&mut self, now: Now, frame: HubFrame) -> Vec<Output> {
        if matches!(self.stage, Stage::Down | Stage::Closing) {
            return Vec::new();
        }
        match frame {
            HubFrame::Welcome(welcome) => self.on_welcome(now, &welcome),
            HubFrame::GoAway { reason, retry_after_ms } => {
                self.retry_after = Duration::from_millis(retry_after_ms.into()).min(MAX_RETRY_AFTER);
                self.close(CloseReason::GoAway(reason))
            }
            HubFrame::Ack(_) if !self.is_live() => self.close(CloseReason::OutOfOrder("Ack")),
            HubFrame::Ack(seq) => match self.reports.acked(seq) {
                Ok(()) => {
                    let known = self.lacking.acked(seq).map(Output::LackingKnown);
                    [vec![Output::Truncate(seq)], known.into_iter().collect(), self.load()].concat()
                }
                Err(sent) => self.close(CloseReason::AckBeyondSent { acked: seq, sent }),
            },
            HubFrame::Definitions { .. } if !self.is_live() => self.close(CloseReason::OutOfOrder("Definitions")),
            HubFrame::Definitions { nonce, definitions } => {
                self.hub_nonce = Some(nonce);
                self.definitions_nonce += 1;
                self.definitions_status = None;
                vec![Output::ApplyDefinitions { nonce: self.definitions_nonce, definitions }]
            }
            HubFrame::Mark(_) if !self.is_live() => self.close(CloseReason::OutOfOrder("Mark")),
            HubFrame::Mark(mark) => {
                self.hub_mark.clone_from(&mark);
                vec![Output::Remember(mark)]
            }
            HubFrame::Command(_) if !self.is_live() => self.close(CloseReason::OutOfOrder("Command")),
            HubFrame::Command(command) => self.on_command(command),
        }
    }

    fn on_welcome(&mut self, now: Now, welcome: &Welcome) -> Vec<Output> {
        if !matches!(self.stage, Stage::Greeting { hello_sent: true, .. }) {
            return self.close(CloseReason::OutOfOrder("Welcome"));
        }
        let heartbeat = Duration::from_millis(welcome.heartbeat_ms.into()).max(MIN_HEARTBEAT);
        let lease = Duration::from_millis(welcome.lease_ms.into());
        let next_heartbeat = now.monotonic + heartbeat;
        self.stage = Stage::Live { since: now.monotonic, lease, heartbeat, next_heartbeat, unread_since: None };
        self.checks.start();
        self.reports.start(welcome.max_unacked_reports, self.journal.next_seq);
        self.load()
    }

    fn on_command(&mut self, command: Command) -> Vec<Output> {
        if self.commands.contains(&command.id) {
            return Vec::new();
        }
        if self.commands.len() + self.answers.len() >= MAX_COMMANDS {
            // One that is refused for being too many is answered at the cost of the oldest answer that nobody took.
            if self.answers.len() >= MAX_COMMANDS {
                self.answers.pop_front();
            }
            let reason = format!("{MAX_COMMANDS} commands wait for an answer, which is the most");
            self.answers.push_back(Answer { id: command.id, verdict: Err(Refusal::new(Layer::Agent, reason)) });
            return Vec::new();
        }
        self.commands.insert(command.id.clone());
        vec![Output::Obey(command)]
    }

    /// Nobody waits in vain for what only a newer agent can do.
    fn refuse_unknown(&mut self, id: String) {
        if self.is_live() && self.commands.len() + self.answers.len() < MAX_COMMANDS {
            let version = &self.identity.agent_version;
            let reason = format!("an agent of version {version} does not know this command: upgrade the agent");
            self.answers.push_back(Answer { id, verdict: Err(Refusal::new(Layer::Agent, reason)) });
        }
    }

    fn on_definitions_done(&mut self, nonce: u64, mut statuses: Vec<DefinitionStatus>) {
        if nonce != self.definitions_nonce {
            return;
        }
        let Some(nonce) = self.hub_nonce else { return };
        // Every definition is answered in one frame: where there are very many, their messages have to be short.
        let room = MAX_AGENT_FRAME_BYTES / 2 / statuses.len().max(1);
        for status in &mut statuses {
            status.message.truncate(status.message.floor_char_boundary(room));
        }
        self.definitions_status = Some(AgentFrame::DefinitionsStatus { nonce, statuses });
    }

    /// Why the hub is left, where it does not do its part in time.
    fn gives_up(&mut self, now: Now) -> Option<CloseReason> {
        let now = now.monotonic;
        match &mut self.stage {
            Stage::Greeting { give_up_at, .. } => (now >= *give_up_at).then_some(CloseReason::NoWelcome),
            Stage::Live { next_heartbeat, unread_since, .. } if now >= *next_heartbeat => {
                let since = *unread_since.get_or_insert(now);
                (now >= since + UNREAD_TIMEOUT).then_some(CloseReason::Unread)
            }
            Stage::Live { .. } | Stage::Down | Stage::Closing => None,
        }
    }

    fn close(&mut self, reason: CloseReason) -> Vec<Output> {
        self.stage = Stage::Closing;
        vec![Output::Close(reason)]
    }

    fn load(&mut self) -> Vec<Output> {
        self.reports.next_load().into_iter().collect()
    }
}
