//! PostgreSQL: the store where one machine is outgrown.
//!
//! Each write is a transaction of its own on a connection of the pool; the server lets those that commit together share
//! the disk. What is asked of the store is in a file for each group of it.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::care::{Acknowledgement, WindowSpec};
use active_monitor_core::command::{Pause, Scope, Subject};
use active_monitor_core::gitops::plan::Ownership;
use active_monitor_core::health::Health;
use active_monitor_core::run::Run;
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::session::frame::Counted;
use active_monitor_core::session::frame::DefinitionStatus;
use active_monitor_core::session::gaps::Gap;
use active_monitor_core::state::CheckState;
use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{Incident, IncidentPage, PendingEnrolment, Placed, Restore, RunPage};
use async_trait::async_trait;
use futures::FutureExt;
use jiff::Timestamp;
use prometheus::core::Collector;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio_util::sync::DropGuard;

pub use claim::{Claim, Share};
use replicas::Lease;

use super::metrics::Metrics;
use super::{
    AgentKey, AgentVersions, ApiToken, AuditEntry, AuditQuery, ChangeQuery, CheckKey, ClusterRecord, DefinitionRecord,
    EnrolmentToken, Expired, IncidentQuery, Recorded, RunQuery, Sizes, Spend, Store, StoreError, TransitionQuery,
};

mod access;
mod care;
mod changes;
mod claim;
mod clusters;
mod definitions;
mod history;
mod incidents;
mod pauses;
mod prune;
pub mod replicas;
mod restore;
mod rollups;
mod source;
mod states;
mod transitions;

/// Connections of a hub, beside the one of its claim and those of the readers.
const CONNECTIONS: u32 = 16;
/// Connections for what people read, which can be much: however many ask, commits have their own.
const READERS: u32 = 4;
/// A caller that gets no connection for so long is told that the data base failed.
const ACQUIRE: Duration = Duration::from_secs(10);
/// A request that takes longer is given up: of a server that is cut off nothing is heard otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// The store in a data base of a PostgreSQL server. Clones are the same store.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    readers: PgPool,
    metrics: Metrics,
    /// What only one replica may write is written under it; none where the hub is alone.
    fence: Option<Lease>,
    /// The claim is not given up before the last write.
    _open: Arc<DropGuard>,
}

impl PostgresStore {
    /// Claims the data base, brings its tables up to date and opens it. The store is good for as long as the claim is.
    ///
    /// # Errors
    /// The server is not reached, another hub has the data base, or a migration fails.
    pub async fn open(options: PgConnectOptions, share: Share) -> Result<(PostgresStore, Claim), StoreError> {
        let claim = Claim::take(&options, share).await?;
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE);
        let pool = pool.after_connect(|connection, _| claim::keep_commits(connection).boxed());
        let pool = pool.connect_with(options.clone()).await?;
        let readers = PgPoolOptions::new().max_connections(READERS).acquire_timeout(ACQUIRE);
        let readers = readers.connect_lazy_with(options);
        let open = Arc::new(claim.closed().drop_guard());
        Ok((PostgresStore { pool, readers, metrics: Metrics::new()?, fence: None, _open: open }, claim))
    }

    /// What the store counts, to be registered where it shall be seen.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        self.metrics.collectors()
    }

    /// Forgets what was noted of changes for replicas, once everybody has had the time to follow. Changes are noted in a hub
    /// that is alone too.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn forget_changes(&self) -> Result<(), StoreError> {
        within(replicas::changes::forget(&self.pool)).await
    }

    /// The same store. What only one replica may write is refused once another has taken the lease over.
    fn fenced(&self, lease: &Lease) -> PostgresStore {
        PostgresStore { fence: Some(lease.clone()), ..self.clone() }
    }

    async fn write<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.metrics.writes.inc();
        let _timer = self.metrics.commits.start_timer();
        within(work).await
    }
}

/// Gives up at the deadline. A connection that was in the middle of something is not used again.
async fn within<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| StoreError::Late(DEADLINE))?
}

#[async_trait]
impl Store for PostgresStore {
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError> {
        within(clusters::all(&self.pool)).await
    }

    async fn put_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        self.write(clusters::put(&self.pool, cluster)).await
    }

    async fn remove_cluster(&self, name: &str) -> Result<(), StoreError> {
        self.write(clusters::remove(&self.pool, name)).await
    }

    async fn put_enrolment_token(&self, cluster: &str, token: &EnrolmentToken) -> Result<(), StoreError> {
        self.write(clusters::put_token(&self.pool, cluster, token)).await
    }

    async fn enrolment_token(&self, cluster: &str) -> Result<Option<EnrolmentToken>, StoreError> {
        within(clusters::token(&self.pool, cluster)).await
    }

    async fn spend_enrolment_token(
        &self,
        cluster: &str,
        hash: [u8; 32],
        key: &AgentKey,
        cluster_uid: &str,
    ) -> Result<Spend, StoreError> {
        self.write(clusters::spend_token(&self.pool, cluster, hash, key, cluster_uid)).await
    }

    async fn put_pending_enrolment(&self, cluster: &str, pending: &PendingEnrolment) -> Result<(), StoreError> {
        self.write(clusters::put_pending(&self.pool, cluster, pending)).await
    }

    async fn put_self_test(&self, cluster: &str, self_test: &SelfTest) -> Result<(), StoreError> {
        self.write(clusters::put_self_test(&self.pool, cluster, self_test)).await
    }

    async fn put_agent_keys(&self, cluster: &str, keys: &[AgentKey]) -> Result<(), StoreError> {
        self.write(clusters::put_keys(&self.pool, cluster, keys)).await
    }

    async fn unbind_cluster(&self, cluster: &str, valid_from: Timestamp) -> Result<(), StoreError> {
        self.write(clusters::unbind(&self.pool, cluster, valid_from)).await
    }

    async fn record_runs(&self, cluster: &str, runs: Vec<Run>, at: Timestamp) -> Result<Recorded, StoreError> {
        self.write(history::record(&self.pool, cluster, &runs, at)).await
    }

    async fn report_cursor(&self, cluster: &str, journal: &str) -> Result<Option<u64>, StoreError> {
        within(history::cursor(&self.pool, cluster, journal)).await
    }

    async fn put_report_cursor(&self, cluster: &str, journal: &str, seq: u64, at: Timestamp) -> Result<(), StoreError> {
        self.write(history::put_cursor(&self.pool, cluster, journal, seq, at)).await
    }

    async fn forget_report_cursor(&self, cluster: &str, journal: &str) -> Result<(), StoreError> {
        self.write(history::forget_cursor(&self.pool, cluster, journal)).await
    }

    async fn record_gap(&self, cluster: &str, journal: &str, gap: Gap, at: Timestamp) -> Result<(), StoreError> {
        self.write(history::record_gap(&self.pool, cluster, journal, gap, at)).await
    }

    async fn record_lacking(&self, cluster: &str, runs: &[Counted], at: Timestamp) -> Result<bool, StoreError> {
        self.write(history::record_lacking(&self.pool, cluster, runs, at)).await
    }

    async fn runs(&self, query: &RunQuery) -> Result<RunPage, StoreError> {
        within(history::runs(&self.readers, query)).await
    }

    async fn check_states(&self, cluster: &str) -> Result<Vec<(CheckState, Health)>, StoreError> {
        within(states::of(&self.pool, cluster)).await
    }

    async fn save_check_states(
        &self,
        cluster: &str,
        states: Vec<(CheckState, Health)>,
        removed: Vec<String>,
    ) -> Result<(), StoreError> {
        self.write(states::save(&self.pool, cluster, &states, &removed)).await
    }

    async fn definitions(&self) -> Result<Vec<DefinitionRecord>, StoreError> {
        within(definitions::all(&self.pool)).await
    }

    async fn put_definition(&self, name: &str, definition: &serde_json::Value) -> Result<u64, StoreError> {
        self.write(definitions::put(&self.pool, name, definition)).await
    }

    async fn delete_definition(&self, name: &str) -> Result<(), StoreError> {
        self.write(definitions::delete(&self.pool, name)).await
    }

    async fn definition_statuses(&self) -> Result<Vec<(String, DefinitionStatus)>, StoreError> {
        within(definitions::statuses(&self.pool, None)).await
    }

    async fn put_definition_statuses(&self, cluster: &str, statuses: Vec<DefinitionStatus>) -> Result<(), StoreError> {
        self.write(definitions::put_statuses(&self.pool, cluster, &statuses)).await
    }

    async fn pauses(&self, cluster: &str, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        within(pauses::of(&self.pool, cluster, now)).await
    }

    async fn put_pause(&self, cluster: &str, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        self.write(pauses::put(&self.pool, cluster, pause, now)).await
    }

    async fn end_pauses(&self, cluster: &str, subject: Subject, scope: &Scope) -> Result<(), StoreError> {
        self.write(pauses::end(&self.pool, cluster, subject, scope)).await
    }

    async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        within(access::tokens(&self.pool)).await
    }

    async fn put_api_token(&self, token: &ApiToken) -> Result<(), StoreError> {
        self.write(access::put_token(&self.pool, token)).await
    }

    async fn delete_api_token(&self, name: &str) -> Result<(), StoreError> {
        self.write(access::delete_token(&self.pool, name)).await
    }

    async fn ended_sessions(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        within(access::ended_sessions(&self.pool)).await
    }

    async fn end_sessions(&self, subject: &str, at: Timestamp, over: Timestamp) -> Result<(), StoreError> {
        self.write(access::end_sessions(&self.pool, subject, at, over)).await
    }

    async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.write(access::audit(&self.pool, entry)).await
    }

    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        within(access::audit_log(&self.pool, limit)).await
    }

    async fn prune(&self, what: Expired, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(prune::prune(&self.pool, self.fence.as_ref(), what, before, limit)).await
    }

    async fn sizes(&self) -> Result<Sizes, StoreError> {
        within(prune::sizes(&self.pool)).await
    }

    async fn windows(&self) -> Result<Vec<WindowSpec>, StoreError> {
        within(care::windows(&self.pool)).await
    }

    async fn put_window(&self, name: &str, spec: Option<&WindowSpec>) -> Result<(), StoreError> {
        self.write(care::put_window(&self.pool, name, spec)).await
    }

    async fn acknowledgements(&self) -> Result<Vec<(CheckKey, Acknowledgement)>, StoreError> {
        within(care::acknowledgements(&self.pool)).await
    }

    async fn put_acknowledgement(
        &self,
        key: &CheckKey,
        acknowledgement: Option<&Acknowledgement>,
    ) -> Result<(), StoreError> {
        self.write(care::put_acknowledgement(&self.pool, self.fence.as_ref(), key, acknowledgement)).await
    }

    async fn record_transitions(&self, life: Life, transitions: Vec<(CheckKey, Transition)>) -> Result<(), StoreError> {
        self.write(transitions::record(&self.pool, self.fence.as_ref(), life, &transitions)).await
    }

    async fn transitions(
        &self,
        query: &TransitionQuery,
        visit: &mut (dyn FnMut(CheckKey, Transition) + Send),
    ) -> Result<(), StoreError> {
        transitions::visit(&self.readers, query, visit).await
    }

    async fn lives(&self) -> Result<Vec<Life>, StoreError> {
        within(transitions::lives(&self.pool)).await
    }

    async fn forget_after(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(transitions::forget_after(&self.pool, self.fence.as_ref(), now)).await
    }

    async fn put_incidents(&self, incidents: &[Arc<Incident>]) -> Result<(), StoreError> {
        self.write(incidents::put(&self.pool, self.fence.as_ref(), super::incidents::rows(incidents)?)).await
    }

    async fn open_incidents(&self) -> Result<Vec<Incident>, StoreError> {
        within(incidents::open(&self.pool)).await
    }

    async fn incidents(&self, query: &IncidentQuery) -> Result<IncidentPage, StoreError> {
        within(incidents::page(&self.readers, query)).await
    }

    async fn audit_page(&self, query: &AuditQuery) -> Result<Vec<(i64, AuditEntry)>, StoreError> {
        within(changes::audit(&self.readers, query)).await
    }

    async fn changes(&self, query: &ChangeQuery) -> Result<Vec<Placed>, StoreError> {
        within(changes::read(&self.readers, query)).await
    }

    async fn note_versions(&self, at: Timestamp, versions: Vec<AgentVersions>) -> Result<(), StoreError> {
        self.write(changes::note_versions(&self.pool, self.fence.as_ref(), at, &versions)).await
    }

    async fn restore(&self) -> Result<Option<Restore>, StoreError> {
        within(restore::unconfirmed(&self.pool)).await
    }

    async fn put_restore(&self, restore: &Restore) -> Result<(), StoreError> {
        self.write(restore::note(&self.pool, restore)).await
    }

    async fn confirm_restore(&self, at: Timestamp) -> Result<(), StoreError> {
        self.write(restore::confirm(&self.pool, at)).await
    }

    async fn mark(&self, cluster: &str) -> Result<u64, StoreError> {
        within(restore::mark(&self.pool, cluster)).await
    }

    async fn put_mark(&self, cluster: &str, mark: u64) -> Result<(), StoreError> {
        self.write(restore::put_mark(&self.pool, cluster, mark)).await
    }

    async fn secret(&self, name: &str, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let secret = self.write(restore::secret(&self.pool, name, fresh)).await?;
        secret.try_into().map_err(|_| super::rows::corrupt("secret", &"it is not of 32 bytes"))
    }

    async fn ownership(&self) -> Result<Option<Ownership>, StoreError> {
        within(source::ownership(&self.pool)).await
    }

    async fn put_ownership(&self, ownership: Option<&Ownership>) -> Result<(), StoreError> {
        self.write(source::put_ownership(&self.pool, self.fence.as_ref(), ownership)).await
    }
}
