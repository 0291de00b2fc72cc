//! What the hub keeps: one small trait, and SQLite behind it. Everything that answers "yes" here is on the disk.
//!
//! Nobody above this module knows SQL, and nothing in it knows of sessions or HTTP.

use std::collections::BTreeMap;

use active_monitor_core::run::{Outcome, Run, RunKind};
use active_monitor_core::session::frame::DefinitionStatus;
use active_monitor_core::state::CheckState;
use active_monitor_core::view::{Role, RunPage};
use async_trait::async_trait;
use jiff::Timestamp;

pub mod sqlite;

/// Most runs in one page of the history.
pub const MAX_PAGE: u32 = 1000;

/// A failure of the store. What was asked for did not happen, or it is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data base refused or failed.
    #[error("the data base failed")]
    Database(#[from] sqlx::Error),
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
    /// What the store counts cannot be counted.
    #[error("the store's metrics cannot be made: {0}")]
    Metrics(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The hub's durable state. Every method that changes something returns after the commit.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Every cluster that was added and not removed.
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError>;
    /// Adds a cluster or replaces its labels and annotations; `created_at` and `cluster_uid` of an existing one stay.
    async fn put_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError>;
    /// Removes a cluster, its token, its checks' states and its definitions' statuses. Its history stays.
    async fn remove_cluster(&self, name: &str) -> Result<(), StoreError>;

    /// Replaces the token of a cluster.
    async fn put_enrolment_token(&self, cluster: &str, token: &EnrolmentToken) -> Result<(), StoreError>;
    /// The token of a cluster, spent or not.
    async fn enrolment_token(&self, cluster: &str) -> Result<Option<EnrolmentToken>, StoreError>;
    /// Spends the token with this hash for a public key and binds the cluster to its uid, both or neither.
    async fn spend_enrolment_token(
        &self,
        cluster: &str,
        hash: [u8; 32],
        key: [u8; 32],
        cluster_uid: &str,
    ) -> Result<Spend, StoreError>;

    /// Records runs; one that the history has already is left as it is.
    async fn record_runs(&self, cluster: &str, runs: Vec<Run>, at: Timestamp) -> Result<Recorded, StoreError>;
    /// A page of the history, newest first.
    async fn runs(&self, query: &RunQuery) -> Result<RunPage, StoreError>;

    /// The last saved state of every check of a cluster.
    async fn check_states(&self, cluster: &str) -> Result<Vec<CheckState>, StoreError>;
    /// Saves the states of checks, and forgets those whose uid is in `removed`. Nothing is saved of an unknown cluster.
    async fn save_check_states(
        &self,
        cluster: &str,
        states: Vec<CheckState>,
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

    /// Every API token.
    async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError>;
    /// Adds an API token or replaces the one of that name.
    async fn put_api_token(&self, token: &ApiToken) -> Result<(), StoreError>;
    /// Deletes an API token.
    async fn delete_api_token(&self, name: &str) -> Result<(), StoreError>;

    /// Appends to the audit log.
    async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError>;
    /// The newest lines of the audit log, newest first.
    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;
}
