//! The hub's end of one session. Pure: the shell feeds it frames and the owner's answers, and carries out its outputs in
//! order; after [`Output::End`] it closes the stream.
//!
//! | the shell sees | it feeds |
//! |---|---|
//! | a frame from the stream | [`Input::Frame`] |
//! | the owner took the cluster in (answer to [`Output::Register`]) | [`Input::Accepted`] |
//! | runs up to a number are on disk (answer to [`Output::Record`]) | [`Input::Committed`] |
//! | the definitions meant for the cluster changed | [`Input::PushDefinitions`] |
//! | a person asks something of the cluster | [`Input::Command`], once the owner took it in |
//! | the session must go elsewhere or end | [`Input::GoAway`] |

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;

use super::frame::{
    AgentFrame, Counted, Definition, DefinitionStatus, Heartbeat, Hello, HubFrame, MAX_HUB_FRAME_BYTES, MAX_LACKING,
    MAX_LACKING_FRAMES, Report, Welcome,
};
use crate::command::{Answer, Command, Layer, Order, Refusal};
use crate::self_test::SelfTest;
use crate::state::CheckState;

/// Commands that may be under way to one agent.
pub const MAX_COMMANDS: usize = 64;
/// The most checks that the hub takes from one cluster.
pub const MAX_CHECKS: usize = 50_000;

/// The highest number of a report. No journal comes so far, and beyond it JSON's readers lose digits.
pub const MAX_SEQ: u64 = 1 << 53;

/// The state machine.
#[derive(Debug)]
pub struct HubSession {
    /// The name in the agent's certificate.
    cluster: String,
    stage: Stage,
    /// The latest set pushed before there was a Welcome.
    early_definitions: Option<Vec<Definition>>,
    /// Of the latest Definitions; 0 before the first.
    nonce: u64,
    /// Commands without an answer, by id.
    commands: BTreeSet<String>,
    /// Self-tests that may still come: those that were asked for, and one that a session before asked for.
    self_tests: usize,
    /// How often the agent may still say what its journal lacks.
    lacking: u32,
}

#[derive(Debug)]
enum Stage {
    AwaitingHello,
    /// Registered, the owner has not answered.
    AwaitingWelcome {
        oldest_seq: u64,
    },
    /// Collecting the snapshot.
    Snapshot {
        cursor: Cursor,
        checks: BTreeMap<String, CheckState>,
    },
    Live {
        cursor: Cursor,
    },
    Ended,
}

/// Where the reports of this session stand.
#[derive(Debug, Default)]
struct Cursor {
    max_unacked: usize,
    received_seq: u64,
    /// Numbers received and not covered by an ack: bounds what the hub holds for this session.
    unacked: VecDeque<u64>,
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A frame from the agent.
    Frame(AgentFrame),
    /// The owner opened a session for the cluster.
    Accepted(Welcome),
    /// Every report received up to this number is on disk.
    Committed {
        /// The `through_seq` of an [`Output::Record`].
        seq: u64,
    },
    /// The complete set of definitions for this cluster.
    PushDefinitions(Vec<Definition>),
    /// Something that a person asks; the answer is [`Output::Answered`], unless the session ends before.
    Command(Command),
    /// The hub ends the session on its own account.
    GoAway {
        /// For the agent's log.
        reason: String,
        /// Milliseconds before the agent dials again.
        retry_after_ms: u32,
    },
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Sends a frame.
    Send(HubFrame),
    /// Asks the owner to open a session; the answer is [`Input::Accepted`] or [`Input::GoAway`].
    Register(Hello),
    /// Replaces every check known of the cluster.
    Snapshot(Vec<CheckState>),
    /// Sets one check.
    Upsert(Box<CheckState>),
    /// Forgets one check, by uid.
    Removed(String),
    /// Records runs; when they are on disk, [`Input::Committed`] with `through_seq`.
    Record {
        /// The runs, in order; none where the hub can read none of them.
        reports: Vec<Report>,
        /// The number of the last one, also of one that cannot be read.
        through_seq: u64,
    },
    /// The agent lives. Every other frame says so too.
    Heartbeat(Heartbeat),
    /// What became of the latest definitions; may come again for the same set, and replaces what came before.
    DefinitionsStatus(Vec<DefinitionStatus>),
    /// What became of an [`Input::Command`].
    Answered(Answer),
    /// A self-test of the cluster has ended.
    SelfTested(SelfTest),
    /// Notes a gap, before what is recorded next, where the history lacks one of these runs too.
    Lacking(Vec<Counted>),
    /// A set of definitions is larger than a frame may be; it was not sent.
    DefinitionsTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Closes the stream: normally after `GoAway`, else with this error. Nothing follows.
    End(Option<SessionError>),
}

/// What an agent did that ends its session. gRPC: `WrongCluster` is PERMISSION_DENIED, `TooManyChecks` and
/// `TooManyUnacked` are RESOURCE_EXHAUSTED, `BadHello` is INVALID_ARGUMENT, the others FAILED_PRECONDITION.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The name in Hello is not the certificate's.
    #[error("Hello names cluster {claimed:?}, the certificate names {certified:?}")]
    WrongCluster {
        /// In Hello.
        claimed: String,
        /// In the certificate.
        certified: String,
    },
    /// Hello contradicts itself, or has numbers that no journal has.
    #[error(
        "Hello has oldest_seq {oldest_seq} and next_seq {next_seq}: 1 <= oldest_seq <= next_seq <= {MAX_SEQ} is allowed"
    )]
    BadHello {
        /// As sent.
        oldest_seq: u64,
        /// As sent.
        next_seq: u64,
    },
    /// A frame at a point of the session where it has no place.
    #[error("{frame} came while {stage}")]
    OutOfOrder {
        /// The frame's kind.
        frame: &'static str,
        /// What the session was at.
        stage: &'static str,
    },
    /// Report numbers must grow.
    #[error("report {seq} came after report {after}")]
    SeqNotGrowing {
        /// Its number.
        seq: u64,
        /// The highest number before it.
        after: u64,
    },
    /// A report number that no journal has.
    #[error("report {seq} is beyond {MAX_SEQ}, the highest number of a report")]
    SeqTooHigh {
        /// Its number.
        seq: u64,
    },
    /// More reports under way than Welcome allows.
    #[error("{unacked} reports are under way, the limit is {limit}")]
    TooManyUnacked {
        /// With those that came last.
        unacked: usize,
        /// `Welcome.max_unacked_reports`.
        limit: usize,
    },
    /// More checks than the hub takes.
    #[error("the snapshot has more than {MAX_CHECKS} checks")]
    TooManyChecks,
    /// A status for definitions that were never sent.
    #[error("a status for definitions {nonce}, the latest are {latest}")]
    UnknownNonce {
        /// As sent.
        nonce: u64,
        /// The latest that the hub sent.
        latest: u64,
    },
    /// An answer to a command that was not sent in this session, or that has one.
    #[error("an answer to the command {id:?}, which waits for none")]
    UnknownCommand {
        /// As sent.
        id: String,
    },
    /// More self-tests than were asked for.
    #[error("a self-test that nobody asked for")]
    SelfTestNotAsked,
    /// What the journal lacks, again and again.
    #[error("said more than {MAX_LACKING_FRAMES} times in one session what the journal lacks")]
    LackingTooOften,
}

impl HubSession {
    /// A session whose stream was opened with a certificate for `cluster`.
    pub fn new(cluster: String) -> HubSession {
        HubSession {
            cluster,
            stage: Stage::AwaitingHello,
            early_definitions: None,
            nonce: 0,
            commands: BTreeSet::new(),
            self_tests: 1,
            lacking: MAX_LACKING_FRAMES,
        }
    }

    /// Takes one input; the outputs are to be carried out in order.
    pub fn handle(&mut self, input: Input) -> Vec<Output> {
        let outputs = match input {
            Input::Frame(frame) => self.on_frame(frame),
            Input::Accepted(welcome) => Ok(self.on_accepted(welcome)),
            Input::Committed { seq } => Ok(self.on_committed(seq)),
            Input::PushDefinitions(definitions) => Ok(self.push(definitions)),
            Input::Command(command) => Ok(self.command(command)),
            Input::GoAway { reason, retry_after_ms } => Ok(self.go_away(reason, retry_after_ms)),
        };
        outputs.unwrap_or_else(|error| {
            self.stage = Stage::Ended;
            vec![Output::End(Some(error))]
        })
    }

    fn on_frame(&mut self, frame: AgentFrame) -> Result<Vec<Output>, SessionError> {
        if matches!(self.stage, Stage::Ended) {
            return Ok(Vec::new());
        }
        match frame {
            AgentFrame::Hello(hello) => self.on_hello(hello),
            AgentFrame::Snapshot { checks, last } => self.on_snapshot(checks, last),
            AgentFrame::CheckUpsert(state) => {
                self.live("CheckUpdate")?;
                Ok(vec![Output::Upsert(state)])
            }
            AgentFrame::CheckRemoved(uid) => {
                self.live("CheckUpdate")?;
                Ok(vec![Output::Removed(uid)])
            }
            AgentFrame::Reports { reports, through_seq } => self.on_reports(reports, through_seq),
            AgentFrame::Heartbeat(heartbeat) => {
                self.welcomed("Heartbeat")?;
                Ok(vec![Output::Heartbeat(heartbeat)])
            }
            AgentFrame::DefinitionsStatus { nonce, statuses } => {
                self.welcomed("DefinitionsStatus")?;
                if nonce == 0 || nonce > self.nonce {
                    return Err(SessionError::UnknownNonce { nonce, latest: self.nonce });
                }
                // An answer to a set that another one has replaced says nothing of interest.
                Ok(if nonce == self.nonce { vec![Output::DefinitionsStatus(statuses)] } else { Vec::new() })
            }
            AgentFrame::CommandAnswer(answer) => {
                self.welcomed("CommandAnswer")?;
                if !self.commands.remove(&answer.id) {
                    return Err(SessionError::UnknownCommand { id: answer.id });
                }
                Ok(vec![Output::Answered(answer)])
            }
            AgentFrame::SelfTest(self_test) => {
                self.welcomed("SelfTest")?;
                self.self_tests = self.self_tests.checked_sub(1).ok_or(SessionError::SelfTestNotAsked)?;
                Ok(vec![Output::SelfTested(self_test)])
            }
            AgentFrame::Lacking(mut runs) => {
                self.live("Lacking")?;
                self.lacking = self.lacking.checked_sub(1).ok_or(SessionError::LackingTooOften)?;
                runs.truncate(MAX_LACKING);
                Ok(vec![Output::Lacking(runs)])
            }
        }
    }

    fn on_hello(&mut self, hello: Hello) -> Result<Vec<Output>, SessionError> {
        if !matches!(self.stage, Stage::AwaitingHello) {
            return Err(self.out_of_order("Hello"));
        }
        if hello.cluster != self.cluster {
            return Err(SessionError::WrongCluster { claimed: hello.cluster, certified: self.cluster.clone() });
        }
        let Hello { oldest_seq, next_seq, .. } = hello;
        if oldest_seq == 0 || oldest_seq > next_seq || next_seq > MAX_SEQ {
            return Err(SessionError::BadHello { oldest_seq, next_seq });
        }
        self.stage = Stage::AwaitingWelcome { oldest_seq };
        Ok(vec![Output::Register(hello)])
    }

    fn on_accepted(&mut self, welcome: Welcome) -> Vec<Output> {
        let Stage::AwaitingWelcome { oldest_seq } = self.stage else { return Vec::new() };
        let max_unacked = usize::try_from(welcome.max_unacked_reports).unwrap_or(usize::MAX);
        // What lies before was said to be acked or gone.
        let cursor = Cursor { max_unacked, received_seq: oldest_seq - 1, unacked: VecDeque::new() };
        self.stage = Stage::Snapshot { cursor, checks: BTreeMap::new() };
        let mut outputs = vec![Output::Send(HubFrame::Welcome(welcome))];
        if let Some(definitions) = self.early_definitions.take() {
            outputs.extend(self.push(definitions));
        }
        outputs
    }

    fn on_snapshot(&mut self, chunk: Vec<CheckState>, last: bool) -> Result<Vec<Output>, SessionError> {
        let Stage::Snapshot { cursor, checks } = &mut self.stage else {
            return Err(self.out_of_order("Snapshot"));
        };
        if checks.len() + chunk.len() > MAX_CHECKS {
            return Err(SessionError::TooManyChecks);
        }
        checks.extend(chunk.into_iter().map(|state| (state.uid.clone(), state)));
        if !last {
            return Ok(Vec::new());
        }
        let complete = std::mem::take(checks).into_values().collect();
        self.stage = Stage::Live { cursor: std::mem::take(cursor) };
        Ok(vec![Output::Snapshot(complete)])
    }

    fn on_reports(&mut self, reports: Vec<Report>, through_seq: u64) -> Result<Vec<Output>, SessionError> {
        let cursor = self.live("Reports")?;
        let highest = reports.iter().map(|report| report.seq).max().unwrap_or_default().max(through_seq);
        if highest > MAX_SEQ {
            return Err(SessionError::SeqTooHigh { seq: highest });
        }
        for report in &reports {
            if report.seq <= cursor.received_seq {
                return Err(SessionError::SeqNotGrowing { seq: report.seq, after: cursor.received_seq });
            }
            cursor.received_seq = report.seq;
            cursor.unacked.push_back(report.seq);
        }
        // Reports that cannot be read will not come again in a form that can: they are acked like the others.
        let is_cut = through_seq > cursor.received_seq;
        if is_cut {
            cursor.received_seq = through_seq;
            cursor.unacked.push_back(through_seq);
        }
        let (unacked, limit) = (cursor.unacked.len(), cursor.max_unacked);
        if unacked > limit {
            return Err(SessionError::TooManyUnacked { unacked, limit });
        }
        let through_seq = cursor.received_seq;
        let is_empty = reports.is_empty() && !is_cut;
        Ok(if is_empty { Vec::new() } else { vec![Output::Record { reports, through_seq }] })
    }

    fn on_committed(&mut self, seq: u64) -> Vec<Output> {
        let Stage::Live { cursor } = &mut self.stage else { return Vec::new() };
        let covered = cursor.unacked.partition_point(|&received| received <= seq);
        let through = cursor.unacked.drain(..covered).next_back();
        through.map(|seq| Output::Send(HubFrame::Ack(seq))).into_iter().collect()
    }

    fn push(&mut self, definitions: Vec<Definition>) -> Vec<Output> {
        match self.stage {
            Stage::AwaitingHello | Stage::AwaitingWelcome { .. } => {
                self.early_definitions = Some(definitions);
                Vec::new()
            }
            Stage::Snapshot { .. } | Stage::Live { .. } => {
                let bytes = definitions.iter().map(Definition::size_bytes).sum();
                if bytes > MAX_HUB_FRAME_BYTES {
                    return vec![Output::DefinitionsTooLarge { bytes }];
                }
                self.nonce += 1;
                vec![Output::Send(HubFrame::Definitions { nonce: self.nonce, definitions })]
            }
            Stage::Ended => Vec::new(),
        }
    }

    fn command(&mut self, command: Command) -> Vec<Output> {
        let refused =
            |id, reason| vec![Output::Answered(Answer { id, verdict: Err(Refusal::new(Layer::Hub, reason)) })];
        match self.stage {
            Stage::Snapshot { .. } | Stage::Live { .. } if self.commands.len() >= MAX_COMMANDS => {
                refused(command.id, format!("{MAX_COMMANDS} commands are under way to its agent, which is the most"))
            }
            Stage::Snapshot { .. } | Stage::Live { .. } => {
                self.commands.insert(command.id.clone());
                self.self_tests += usize::from(command.order == Order::SelfTest);
                vec![Output::Send(HubFrame::Command(command))]
            }
            Stage::AwaitingHello | Stage::AwaitingWelcome { .. } | Stage::Ended => {
                refused(command.id, "there is no session with its agent".to_owned())
            }
        }
    }

    fn go_away(&mut self, reason: String, retry_after_ms: u32) -> Vec<Output> {
        if matches!(self.stage, Stage::Ended) {
            return Vec::new();
        }
        self.stage = Stage::Ended;
        vec![Output::Send(HubFrame::GoAway { reason, retry_after_ms }), Output::End(None)]
    }

    fn live(&mut self, frame: &'static str) -> Result<&mut Cursor, SessionError> {
        let error = self.out_of_order(frame);
        match &mut self.stage {
            Stage::Live { cursor } => Ok(cursor),
            Stage::AwaitingHello | Stage::AwaitingWelcome { .. } | Stage::Snapshot { .. } | Stage::Ended => Err(error),
        }
    }

    fn welcomed(&self, frame: &'static str) -> Result<(), SessionError> {
        match self.stage {
            Stage::Snapshot { .. } | Stage::Live { .. } => Ok(()),
            Stage::AwaitingHello | Stage::AwaitingWelcome { .. } | Stage::Ended => Err(self.out_of_order(frame)),
        }
    }

    fn out_of_order(&self, frame: &'static str) -> SessionError {
        let stage = match self.stage {
            Stage::AwaitingHello => "the session waited for Hello",
            Stage::AwaitingWelcome { .. } => "Hello had no answer yet",
            Stage::Snapshot { .. } => "the snapshot was not complete",
            Stage::Live { .. } => "the session was live",
            Stage::Ended => "the session was over",
        };
        SessionError::OutOfOrder { frame, stage }
    }
}
