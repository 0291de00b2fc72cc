//! The frames of a session. The wire form and the order on the stream: `proto/activemonitor/fleet/v1/session.proto`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::command::{Answer, Command};
use crate::policy::PolicySetting;
use crate::run::Run;
use crate::self_test::SelfTest;
use crate::state::CheckState;

/// The largest frame that a hub takes, bytes on the wire.
pub const MAX_AGENT_FRAME_BYTES: usize = 1024 * 1024;
/// Of how many checks an agent says that its journal lacks their last run: those of the latest ones, as proof.
pub const MAX_LACKING: usize = 32;
/// How often an agent says so in one session. It has to once, and again where it finds that its journal lacks something else.
pub const MAX_LACKING_FRAMES: u32 = 8;
/// The largest frame that an agent takes, bytes on the wire: all definitions of a cluster have to fit.
pub const MAX_HUB_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// What an agent sends.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentFrame {
    /// First frame of a session.
    Hello(Hello),
    /// A chunk of the state of every check.
    Snapshot {
        /// The checks of this chunk.
        checks: Vec<CheckState>,
        /// Set on the last chunk: what the hub knew and no chunk named is gone.
        last: bool,
    },
    /// A check as it is now.
    CheckUpsert(Box<CheckState>),
    /// uid of a check that is gone.
    CheckRemoved(String),
    /// Runs from the journal, in order.
    Reports {
        /// Those that can be read.
        reports: Vec<Report>,
        /// The highest number in the frame, also of a report that only a newer version can read.
        through_seq: u64,
    },
    /// Sign of life.
    Heartbeat(Heartbeat),
    /// What became of the definitions with this nonce.
    DefinitionsStatus {
        /// Of the [`HubFrame::Definitions`] that this answers.
        nonce: u64,
        /// One for each definition of it.
        statuses: Vec<DefinitionStatus>,
    },
    /// What became of a command of this session.
    CommandAnswer(Answer),
    /// A self-test has ended, whichever session asked for it.
    SelfTest(SelfTest),
    /// What the statuses count and the journal lacks: nobody may ever report it.
    Lacking(Vec<Counted>),
}

impl AgentFrame {
    /// Reports of which each can be read.
    pub fn reports(reports: Vec<Report>) -> AgentFrame {
        let through_seq = reports.iter().map(|report| report.seq).max().unwrap_or_default();
        AgentFrame::Reports { reports, through_seq }
    }
}

/// What the hub sends.
#[derive(Clone, Debug, PartialEq)]
pub enum HubFrame {
    /// Answer to Hello.
    Welcome(Welcome),
    /// Every report up to this sequence number is on the hub's disk.
    Ack(u64),
    /// All definitions meant for this cluster.
    Definitions {
        /// Echoed in the answer.
        nonce: u64,
        /// The complete set: what is missing here and was made from a definition is withdrawn.
        definitions: Vec<Definition>,
    },
    /// What a person asks of this cluster. Answered once, with its id.
    Command(Command),
    /// To be kept and said in the next Hello: by it a hub that was restored from the past notices that it was.
    Mark(String),
    /// The hub ends the session.
    GoAway {
        /// For the agent's log.
        reason: String,
        /// Milliseconds to wait before dialling again.
        retry_after_ms: u32,
    },
}

/// Who the agent is and where its journal stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The name the agent believes it has.
    pub cluster: String,
    /// `metadata.uid` of the cluster's kube-system namespace.
    pub cluster_uid: String,
    /// A UUID drawn at each start of the agent.
    pub incarnation: String,
    /// Semantic version of the agent.
    pub agent_version: String,
    /// gitVersion of the API server.
    pub kubernetes_version: String,
    /// Oldest report still in the journal; `next_seq` when it is empty.
    pub oldest_seq: u64,
    /// Number that the next report will get; numbers start at 1 and survive restarts.
    pub next_seq: u64,
    /// The agent's clock.
    pub sent_at: Timestamp,
    /// Reports ever dropped unacked because the journal was full.
    pub dropped_reports: u64,
    /// Tells journals apart, whose numbers have nothing to do with each other; empty from an agent that does not say.
    pub journal_id: String,
    /// The latest [`HubFrame::Mark`] that the cluster was given; empty where there was none.
    pub hub_mark: String,
    /// What the cluster lets the hub do, for people; empty from an agent that does not say.
    pub policy: Vec<PolicySetting>,
}

/// The hub's terms for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Grows with each session of this cluster.
    pub session_epoch: u64,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u32,
    /// Milliseconds of silence after which the cluster is Unreachable.
    pub lease_ms: u32,
    /// Reports that may be under way without an ack.
    pub max_unacked_reports: u32,
    /// Semantic version of the hub.
    pub hub_version: String,
}

/// A run and its place in the agent's journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Position in the journal.
    pub seq: u64,
    /// The run.
    pub run: Run,
}

/// The last run that the status of a check counts, where the agent's journal does not know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// `metadata.uid` of the HealthCheck.
    pub check_uid: String,
    /// What the run left in the status ([`crate::status::mark`]).
    pub mark: Timestamp,
}

/// Sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The agent's clock.
    pub sent_at: Timestamp,
    /// Reports that no ack covers.
    pub backlog: u64,
    /// Reports ever dropped unacked because the journal was full.
    pub dropped_reports: u64,
}

/// A definition rendered for one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Name of the FleetHealthCheck.
    pub name: String,
    /// Its generation.
    pub generation: u64,
    /// The HealthCheck as JSON: apiVersion, kind, metadata (namespace, name, labels, annotations) and spec. Empty where
    /// the hub cannot fill it in for this cluster: what the cluster has stays.
    pub health_check: String,
}

impl Definition {
    /// An upper bound of its size on the wire.
    pub fn size_bytes(&self) -> usize {
        self.name.len() + self.health_check.len() + 32
    }
}

/// What an agent did with a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum DefinitionResult {
    /// The cluster has it.
    Applied,
    /// The agent's local policy forbids it.
    Refused,
    /// A HealthCheck of that name exists that no definition made; it is left alone.
    Conflict,
    /// The API server did not take it; the agent tries again.
    Failed,
}

/// What became of one definition in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionStatus {
    /// Name of the FleetHealthCheck.
    pub name: String,
    /// The generation that this speaks of.
    pub generation: u64,
    /// What the agent did with it.
    pub result: DefinitionResult,
    /// For people: why it was not applied.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
