//! What the hub keeps: one small trait, and SQLite or PostgreSQL behind it. Everything that answers "yes" here is on the
//! disk.
//!
//! Nobody above this module knows SQL, and nothing in it knows of sessions or HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::care::{Acknowledgement, WindowSpec};
use active_monitor_core::command::{Pause, Scope, Subject};
use active_monitor_core::gitops::plan::Ownership;
use active_monitor_core::health::Health;
use active_monitor_core::run::{Outcome, Run, RunKind};
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::session::frame::Counted;
use active_monitor_core::session::frame::DefinitionStatus;
use active_monitor_core::session::gaps::Gap;
use active_monitor_core::state::CheckState;
use active_monitor_core::uptime::{Day, Life, Transition};
use active_monitor_core::view::{
    ChangeSource, Incident, IncidentKind, IncidentPage, PendingEnrolment, Placed, Restore, Role, RunPage,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteError;

mod changes;
#[cfg(test)]
pub(crate) mod frozen;
mod incidents;
pub mod location;
mod metrics;
pub mod postgres;
mod queries;
pub mod rollups;
mod rows;
pub mod sqlite;
pub mod transfer;

/// Most runs in one page of the history.
pub const MAX_PAGE: u32 = 1000;
/// What SQLite calls a page that it cannot have written, and a file that is none of its own; the higher bits say more.
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_NOTADB: u32 = 26;
const PRIMARY_CODE: u32 = 0xff;
/// Journals that a cluster has used no more for so long are forgotten.
const CURSOR_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// A failure of the store. What was asked for did not happen, or it is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data base refused or failed.
    #[error("the data base failed")]
    Database(#[source] sqlx::Error),
    /// SQLite met something that it cannot have written.
    #[error("hub.sqlite is damaged; put a backup in its place (docs/restore.md)")]
    Damaged(#[source] sqlx::Error),
    /// The migrations could not be applied: the file is newer than this hub, or damaged.
    #[error("the data base could not be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A stored value cannot be read.
    #[error("stored {what} cannot be read: {detail}")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The commit that this write shared with others failed, and says why: none of them was done.
    #[error("the commit failed: {0}")]
    Commit(String),
    /// The file that keeps a second hub away cannot be made or is held.
    #[error("{path} is in use by another hub, or cannot be opened")]
    Locked {
        /// The lock file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another hub has claimed the data base on its server.
    #[error("the data base is in use by another hub")]
    InUse,
    /// Replicas cannot share what is in a file.
    #[error("replicas of the hub share a data base on a PostgreSQL server, no other")]
    NotShared,
    /// Another replica does what this one did: the lease of this name is another's.
    #[error("another replica has taken over: {0}")]
    Fenced(&'static str),
    /// Another replica changes what nobody else may change meanwhile, for longer than is waited.
    #[error("another replica was changing {what} for {} s", .waited.as_secs())]
    Busy {
        /// What it changes.
        what: &'static str,
        /// How long this one waited.
        waited: Duration,
    },
    /// The data base did not answer in time; whether it did what was asked is not known.
    #[error("the data base did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// What the store counts cannot be counted.
    #[error("the store's metrics cannot be made: {0}")]
    Metrics(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether a write that ended so has certainly changed nothing. Of one whose connection broke that is not known.
    pub(crate) fn is_undone(&self) -> bool {
        match self {
            StoreError::Late(_) => false,
            StoreError::Database(error) => {
                !matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
            }
            StoreError::Migration(_)
            | StoreError::Damaged(_)
            | StoreError::Corrupt { .. }
            | StoreError::Commit(_)
            | StoreError::Locked { .. }
            | StoreError::InUse
            | StoreError::Fenced(_)
            | StoreError::Busy { .. }
            | StoreError::NotShared
            | StoreError::Metrics(_)
            | StoreError::Closed => true,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        let of_sqlite = error.as_database_error().filter(|error| error.try_downcast_ref::<SqliteError>().is_some());
        let code = of_sqlite.and_then(|error| error.code()?.parse::<u32>().ok());
        match code.map(|code| code & PRIMARY_CODE) {
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => StoreError::Damaged(error),
            Some(_) | None => StoreError::Database(error),
        }
    }
}

/// A cluster's durable half.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRecord {
    /// A DNS label.
    pub name: String,
    /// Labels, which selectors match.
    pub labels: BTreeMap<String, String>,
    /// Annotations, which definitions may take values from.
    pub annotations: BTreeMap<String, String>,
    /// uid of its kube-system namespace; absent until it enrolled.
    pub cluster_uid: Option<String>,
    /// When it was added. A certificate that is older belongs to a removed cluster of the same name.
    pub created_at: Timestamp,
    /// A certificate that was issued before is refused: another enrolment took its place.
    pub valid_from: Option<Timestamp>,
    /// The keys of the newest certificate, of the one before it and of the enrolment, the newest last.
    pub agent_keys: Vec<AgentKey>,
    /// The latest self-test since it enrolled.
    pub self_test: Option<SelfTest>,
    /// The agent that has shown the present token and takes a person's approval.
    pub pending_enrolment: Option<PendingEnrolment>,
}

/// A key that a certificate was issued for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentKey {
    /// SHA-256 of the public key.
    pub hash: [u8; 32],
    /// When.
    pub issued_at: Timestamp,
    /// End of the certificate.
    pub not_after: Timestamp,
    /// SHA-256 of the CAs (PEM) that the agent was told to trust with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<[u8; 32]>,
}

/// A one-time token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// When it ends.
    pub expires_at: Timestamp,
    /// SHA-256 of the public key that spent it; the same key may ask again, because an answer can be lost.
    pub spent_by: Option<[u8; 32]>,
}

/// What became of an attempt to spend a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spend {
    /// It is spent now, or was by the same key.
    Spent,
    /// Another key was faster, or the token was replaced meanwhile.
    Taken,
    /// The name is bound to another kube-system uid.
    OtherUid,
}

/// Which part of the history is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// Namespace of the check.
    pub namespace: Option<String>,
    /// Name of the check.
    pub name: Option<String>,
    /// Check or remedy.
    pub kind: Option<RunKind>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Only runs recorded before this id.
    pub before: Option<i64>,
    /// Runs in the page, 1 to [`MAX_PAGE`]; values outside are moved to the nearest.
    pub limit: u32,
}

/// A definition as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct DefinitionRecord {
    /// Its name.
    pub name: String,
    /// Grows with each change, also over a deletion.
    pub generation: u64,
    /// The FleetHealthCheck as written.
    pub definition: serde_json::Value,
}

/// An API token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Unique, for people and the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the text.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
}

/// A line of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Name of the API token.
    pub who: String,
    /// What was done: `cluster.add`, `definition.put`, ...
    pub action: String,
    /// To what: the name of the object.
    pub object: String,
}

/// What became of a batch of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Runs that the history did not have.
    pub new: usize,
    /// Runs that it had already.
    pub known: usize,
}

/// A check by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckKey {
    /// Name of the cluster.
    pub cluster: String,
    /// Namespace of the check.
    pub namespace: String,
    /// Name of the check.
    pub name: String,
}

/// Which transitions are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionQuery {
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// Namespace of the check.
    pub namespace: Option<String>,
    /// Name of the check.
    pub name: Option<String>,
    /// Those that say something of the time from here on.
    pub from: Timestamp,
    /// Only those before.
    pub to: Timestamp,
}

/// Which incidents are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IncidentQuery {
    /// Only of this kind.
    pub kind: Option<IncidentKind>,
    /// Only those that began before the one with this number.
    pub before: Option<i64>,
    /// Incidents in the page, 1 to [`MAX_PAGE`]; values outside are moved to the nearest.
    pub limit: u32,
}

/// Which changes are asked for, of one place that keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeQuery {
    /// The place.
    pub source: ChangeSource,
    /// Those from here on.
    pub from: Timestamp,
    /// Only those before.
    pub to: Timestamp,
    /// Only those whose microseconds and number are smaller than this.
    pub before: Option<(i64, i64)>,
    /// Name of the cluster. The audit log does not look at it: its lines do not all name one.
    pub cluster: Option<String>,
    /// How the action begins, of lines of the audit log.
    pub action_prefix: Option<&'static str>,
    /// Changes at most, 1 to [`MAX_PAGE`].
    pub limit: u32,
}

/// Which lines of the audit log are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditQuery {
    /// Those from here on.
    pub from: Timestamp,
    /// Only those before.
    pub to: Timestamp,
    /// Who did it.
    pub who: Option<String>,
    /// How the action begins.
    pub action: Option<String>,
    /// Only lines before the one with this number.
    pub before: Option<i64>,
    /// Lines at most.
    pub limit: u32,
}

/// The versions that the agent of a cluster said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentVersions {
    /// Name of the cluster.
    pub cluster: String,
    /// Version of the agent.
    pub agent: String,
    /// Version of Kubernetes.
    pub kubernetes: String,
}

/// What is deleted for its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Runs, by when they were recorded.
    Runs,
    /// The log tails of runs; the runs stay.
    LogTails,
    /// Transitions that say nothing of the time that is kept.
    Transitions,
    /// Lines of the audit log.
    Audit,
    /// Incidents, by when they were closed.
    Incidents,
    /// Late results.
    LateResults,
    /// Sums of the days of checks.
    CheckDays,
    /// Sums of the days of clusters.
    ClusterDays,
}

impl Expired {
    /// All of it, in the order in which it is deleted. Runs go first: then their log tails need no write of their own.
    pub const ALL: [Expired; 8] = [
        Expired::Runs,
        Expired::LogTails,
        Expired::Transitions,
        Expired::LateResults,
        Expired::CheckDays,
        Expired::ClusterDays,
        Expired::Incidents,
        Expired::Audit,
    ];

    /// The time as the table has it.
    pub(crate) fn key(self, before: Timestamp) -> i64 {
        match self {
            Expired::CheckDays | Expired::ClusterDays => Day::of(before).0,
            Expired::Runs
            | Expired::LogTails
            | Expired::Transitions
            | Expired::LateResults
            | Expired::Incidents
            | Expired::Audit => rows::micros(before),
        }
    }

    /// As a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Expired::Runs => "runs",
            Expired::LogTails => "log_tails",
            Expired::Transitions => "transitions",
            Expired::Audit => "audit",
            Expired::Incidents => "incidents",
            Expired::LateResults => "late_results",
            Expired::CheckDays => "check_days",
            Expired::ClusterDays => "cluster_days",
        }
    }
}

/// How much there is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Rows by table, of those that grow with time.
    pub rows: Vec<(&'static str, u64)>,
    /// Bytes of the data base's file.
    pub file_bytes: u64,
    /// Bytes of it that are in use; the rest is used again before the file grows. All of them where the data base does not
    /// tell.
    pub used_bytes: u64,
}

/// The hub's durable state. Every method that changes something returns after the commit.
#[async_trait]
pub trait Store: rollups::Rollups + Send + Sync + 'static {
    /// Every cluster that was added and not removed.
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError>;
    /// Adds a cluster or replaces its labels and annotations; the rest of an existing one stays.
    async fn put_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError>;
    /// Removes a cluster, its token, its checks' states, its pauses and its definitions' statuses. Its history stays.
    async fn remove_cluster(&self, name: &str) -> Result<(), StoreError>;

    /// Replaces the token of a cluster; who waited for approval with the one before waits no more.
    async fn put_enrolment_token(&self, cluster: &str, token: &EnrolmentToken) -> Result<(), StoreError>;
    /// The token of a cluster, spent or not.
    async fn enrolment_token(&self, cluster: &str) -> Result<Option<EnrolmentToken>, StoreError>;
    /// Spends the token with this hash for a public key and binds the cluster to its uid, both or neither. The key is
    /// then the only one of the cluster, and what was issued before is void, also by a clock that was ahead: `valid_from`
    /// never goes back. No self-test is known then, and nobody waits for approval.
    async fn spend_enrolment_token(
        &self,
        cluster: &str,
        hash: [u8; 32],
        key: &AgentKey,
        cluster_uid: &str,
    ) -> Result<Spend, StoreError>;
    /// Keeps who waits for approval, or what was decided, with the token that ends when this does; with another one nothing.
    async fn put_pending_enrolment(&self, cluster: &str, pending: &PendingEnrolment) -> Result<(), StoreError>;
    /// Keeps what came of the latest self-test of a cluster.
    async fn put_self_test(&self, cluster: &str, self_test: &SelfTest) -> Result<(), StoreError>;
    /// Replaces the keys of a cluster.
    async fn put_agent_keys(&self, cluster: &str, keys: &[AgentKey]) -> Result<(), StoreError>;
    /// Unbinds a cluster from its uid, its keys and its self-test; what was issued before `valid_from` is void.
    async fn unbind_cluster(&self, cluster: &str, valid_from: Timestamp) -> Result<(), StoreError>;

    /// Records runs; one that the history has already is left as it is.
    async fn record_runs(&self, cluster: &str, runs: Vec<Run>, at: Timestamp) -> Result<Recorded, StoreError>;
    /// How far the reports of one of a cluster's journals are on disk.
    async fn report_cursor(&self, cluster: &str, journal: &str) -> Result<Option<u64>, StoreError>;
    /// Notes that they are on disk up to this number; a higher one stays.
    async fn put_report_cursor(&self, cluster: &str, journal: &str, seq: u64, at: Timestamp) -> Result<(), StoreError>;
    /// Forgets how far they were: the journal was put back and begins anew.
    async fn forget_report_cursor(&self, cluster: &str, journal: &str) -> Result<(), StoreError>;
    /// Keeps a gap: it lies behind the newest run of the cluster; and moves the journal's cursor over it, both or neither.
    async fn record_gap(&self, cluster: &str, journal: &str, gap: Gap, at: Timestamp) -> Result<(), StoreError>;
    /// Keeps a gap of unknown length, of 0 reports, behind the newest run of the cluster, where the history has earlier runs of one
    /// of these checks and lacks the run that is named, and no such gap was noticed since that run, nor is one there. Whether there is a new one.
    async fn record_lacking(&self, cluster: &str, runs: &[Counted], at: Timestamp) -> Result<bool, StoreError>;
    /// A page of the history, newest first, with the gaps in it.
    async fn runs(&self, query: &RunQuery) -> Result<RunPage, StoreError>;

    /// The last saved state of every check of a cluster, and what is remembered of it.
    async fn check_states(&self, cluster: &str) -> Result<Vec<(CheckState, Health)>, StoreError>;
    /// Saves the states of checks and what is remembered of them, and forgets those whose uid is in `removed`. Nothing is saved of an unknown cluster.
    async fn save_check_states(
        &self,
        cluster: &str,
        states: Vec<(CheckState, Health)>,
        removed: Vec<String>,
    ) -> Result<(), StoreError>;

    /// Every definition.
    async fn definitions(&self) -> Result<Vec<DefinitionRecord>, StoreError>;
    /// Adds or replaces a definition; returns its new generation.
    async fn put_definition(&self, name: &str, definition: &serde_json::Value) -> Result<u64, StoreError>;
    /// Deletes a definition and its statuses.
    async fn delete_definition(&self, name: &str) -> Result<(), StoreError>;
    /// What agents said of definitions: cluster and status.
    async fn definition_statuses(&self) -> Result<Vec<(String, DefinitionStatus)>, StoreError>;
    /// Keeps what a cluster's agent said of its definitions: replaces all that the cluster had.
    async fn put_definition_statuses(&self, cluster: &str, statuses: Vec<DefinitionStatus>) -> Result<(), StoreError>;

    /// The pauses that a cluster's agent has taken and that go on.
    async fn pauses(&self, cluster: &str, now: Timestamp) -> Result<Vec<Pause>, StoreError>;
    /// Keeps a pause; one of the same subject and scope is replaced, and what ended before `now` is forgotten.
    async fn put_pause(&self, cluster: &str, pause: &Pause, now: Timestamp) -> Result<(), StoreError>;
    /// Forgets the pauses of a subject within a scope.
    async fn end_pauses(&self, cluster: &str, subject: Subject, scope: &Scope) -> Result<(), StoreError>;

    /// Every API token.
    async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError>;
    /// Adds an API token or replaces the one of that name.
    async fn put_api_token(&self, token: &ApiToken) -> Result<(), StoreError>;
    /// Deletes an API token.
    async fn delete_api_token(&self, name: &str) -> Result<(), StoreError>;

    /// Sessions that were ended before their time: the id of one, or the name of a person whose sessions until then all are.
    async fn ended_sessions(&self) -> Result<Vec<(String, Timestamp)>, StoreError>;
    /// Notes that they end at `at`, and forgets what was noted for times before `over`, when all of those are over.
    async fn end_sessions(&self, subject: &str, at: Timestamp, over: Timestamp) -> Result<(), StoreError>;

    /// Appends to the audit log.
    async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError>;
    /// The newest lines of the audit log, newest first.
    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;

    /// Deletes what is older than `before`, oldest first and at most `limit` rows; returns how many it were.
    async fn prune(&self, what: Expired, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    /// Every maintenance window, by name.
    async fn windows(&self) -> Result<Vec<WindowSpec>, StoreError>;
    /// Adds or replaces the maintenance window of this name, or deletes it where none is given.
    async fn put_window(&self, name: &str, spec: Option<&WindowSpec>) -> Result<(), StoreError>;
    /// Every acknowledgement.
    async fn acknowledgements(&self) -> Result<Vec<(CheckKey, Acknowledgement)>, StoreError>;
    /// Adds or replaces the acknowledgement of a check, or deletes it where none is given.
    async fn put_acknowledgement(
        &self,
        key: &CheckKey,
        acknowledgement: Option<&Acknowledgement>,
    ) -> Result<(), StoreError>;

    /// Keeps transitions, and that the hub is alive: the life is the row of this start of it.
    async fn record_transitions(&self, life: Life, transitions: Vec<(CheckKey, Transition)>) -> Result<(), StoreError>;
    /// Shows transitions one by one, check by check and the oldest first. What came long before the beginning may be
    /// among them.
    async fn transitions(
        &self,
        query: &TransitionQuery,
        visit: &mut (dyn FnMut(CheckKey, Transition) + Send),
    ) -> Result<(), StoreError>;
    /// When a hub was there, oldest first.
    async fn lives(&self) -> Result<Vec<Life>, StoreError>;

    /// Forgets transitions and lives that begin after `now`, and ends there a life that goes on over it: they were recorded
    /// by a clock that was ahead.
    async fn forget_after(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Keeps incidents as they are now; one with the same id and beginning is replaced.
    async fn put_incidents(&self, incidents: &[Arc<Incident>]) -> Result<(), StoreError>;
    /// The incidents that are not closed.
    async fn open_incidents(&self) -> Result<Vec<Incident>, StoreError>;
    /// A page of all incidents, newest first.
    async fn incidents(&self, query: &IncidentQuery) -> Result<IncidentPage, StoreError>;

    /// Lines of the audit log with their numbers, newest first.
    async fn audit_page(&self, query: &AuditQuery) -> Result<Vec<(i64, AuditEntry)>, StoreError>;
    /// What changed, newest first.
    async fn changes(&self, query: &ChangeQuery) -> Result<Vec<Placed>, StoreError>;
    /// Keeps the versions of agents that differ from what was noted last.
    async fn note_versions(&self, at: Timestamp, versions: Vec<AgentVersions>) -> Result<(), StoreError>;
    /// That the store came back from the past, where nobody has confirmed it.
    async fn restore(&self) -> Result<Option<Restore>, StoreError>;
    /// Notes that it did; what is noted and not confirmed stays as it is.
    async fn put_restore(&self, restore: &Restore) -> Result<(), StoreError>;
    /// A person knows of it.
    async fn confirm_restore(&self, at: Timestamp) -> Result<(), StoreError>;
    /// The latest mark (see `marks`) that a cluster may have without a doubt: the latest that it was given, or the time
    /// when the last restore was confirmed.
    async fn mark(&self, cluster: &str) -> Result<u64, StoreError>;
    /// Keeps a mark that a cluster is about to be given; a later one stays. Outlives the cluster.
    async fn put_mark(&self, cluster: &str, mark: u64) -> Result<(), StoreError>;
    /// The hub's random key of this name; `fresh` from now on where there is none.
    async fn secret(&self, name: &str, fresh: [u8; 32]) -> Result<[u8; 32], StoreError>;

    /// What Git owns; absent where it never owned anything.
    async fn ownership(&self) -> Result<Option<Ownership>, StoreError>;
    /// Replaces what Git owns.
    async fn put_ownership(&self, ownership: Option<&Ownership>) -> Result<(), StoreError>;

    /// How much there is. Reads whole tables' indexes: for now and then.
    async fn sizes(&self) -> Result<Sizes, StoreError>;
}
