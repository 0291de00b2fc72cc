//! SQLite: the default store, one file in the data directory.
//!
//! WAL and `synchronous=FULL`: what is committed survives a power loss. One task writes; the writes that wait while it
//! commits share the next commit, so the cost of the disk is paid once for many callers. Readers have a pool of their own.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::care::{Acknowledgement, WindowSpec};
use active_monitor_core::command::{Pause, Scope, Subject};
use active_monitor_core::gitops::plan::Ownership;
use active_monitor_core::health::Health;
use active_monitor_core::run::{Run, RunKind};
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::session::frame::{Counted, DefinitionStatus};
use active_monitor_core::session::gaps::Gap;
use active_monitor_core::state::CheckState;
use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{Incident, IncidentPage, PendingEnrolment, Placed, Restore, RunPage};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Sqlite, SqliteConnection};

use super::{
    AgentKey, AgentVersions, ApiToken, AuditEntry, AuditQuery, CURSOR_LIFE, ChangeQuery, CheckKey, ClusterRecord,
    DefinitionRecord, EnrolmentToken, Expired, IncidentQuery, Recorded, RunQuery, Sizes, Spend, Store, StoreError,
    TransitionQuery, queries, rows,
};
use rows::micros;
use writer::Writer;

mod access;
mod care;
mod changes;
mod definitions;
mod incidents;
mod pauses;
mod prune;
mod restore;
mod rollups;
mod source;
#[cfg(test)]
mod tests;
mod transitions;
mod writer;

/// Name of the data base in the data directory.
pub const FILE_NAME: &str = "hub.sqlite";
/// Connections for reading.
const READERS: u32 = 4;
/// Rows in one INSERT; well below SQLite's limit of 32766 values.
const ROWS_PER_INSERT: usize = 200;

/// The store in one SQLite file. Dropping it ends the writer after the writes that were accepted.
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    /// Held for as long as the store is open: two hubs on one file would each believe to be the only one.
    _lock: File,
}

impl SqliteStore {
    /// Opens or makes the data base in `data_dir` and brings its tables up to date.
    ///
    /// # Errors
    /// Another hub holds the directory, the file cannot be opened, or a migration fails.
    pub async fn open(data_dir: &Path) -> Result<SqliteStore, StoreError> {
        let (lock, options, connection) = claim(data_dir).await?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options.clone().read_only(true)).await?;
        let writer = Writer::start(connection, options)?;
        Ok(SqliteStore { writer, readers, _lock: lock })
    }

    /// Copies the data base in `data_dir` to a file that must not exist, as it is in one moment. A hub may have it open.
    ///
    /// # Errors
    /// There is no data base, or the copy cannot be written.
    pub async fn copy(data_dir: &Path, to: &Path) -> Result<(), StoreError> {
        let options = SqliteConnectOptions::new().filename(data_dir.join(FILE_NAME));
        let mut connection = options.busy_timeout(Duration::from_secs(10)).connect().await?;
        sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy().into_owned()).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// What the store counts, to be registered where it shall be seen.
    pub fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        self.writer.metrics().collectors()
    }

    /// Waits for the writes that were accepted and closes the file.
    pub async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    {
        self.writer.write(job).await
    }
}

/// Keeps other hubs away, opens or makes the data base and brings its tables up to date.
pub(super) async fn claim(data_dir: &Path) -> Result<(File, SqliteConnectOptions, SqliteConnection), StoreError> {
    let lock = lock(&data_dir.join("hub.lock"))?;
    let options = SqliteConnectOptions::new()
        .filename(data_dir.join(FILE_NAME))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10));
    let mut connection = options.clone().connect().await?;
    sqlx::migrate!("migrations/sqlite").run(&mut connection).await.map_err(migration)?;
    Ok((lock, options, connection))
}

/// A file that is damaged is said to be so, whatever met it first.
fn migration(error: MigrateError) -> StoreError {
    if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
        return error.into();
    }
    error.into()
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let locked = |source| StoreError::Locked { path: path.to_owned(), source };
    let file = File::options().create(true).write(true).truncate(false).open(path).map_err(locked)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(locked(std::io::ErrorKind::WouldBlock.into())),
        Err(TryLockError::Error(source)) => Err(locked(source)),
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT name, labels, annotations, cluster_uid, created_at, valid_from, agent_keys, self_test, token_pending \
             FROM clusters ORDER BY name",
        );
        rows.fetch_all(&self.readers).await?.iter().map(rows::cluster).collect()
    }

    async fn put_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        let ClusterRecord {
            name,
            labels,
            annotations,
            cluster_uid,
            created_at,
            valid_from,
            agent_keys,
            self_test: _,
            pending_enrolment: _,
        } = cluster.clone();
        let agent_keys = rows::json(&agent_keys)?;
        let (labels, annotations) = (rows::json(&labels)?, rows::json(&annotations)?);
        self.write(move |db| {
            async move {
                sqlx::query(
                    "INSERT INTO clusters (name, labels, annotations, cluster_uid, created_at, valid_from, agent_keys) \
                     VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET labels = excluded.labels, annotations = excluded.annotations",
                )
                .bind(name)
                .bind(labels)
                .bind(annotations)
                .bind(cluster_uid)
                .bind(micros(created_at))
                .bind(valid_from.map(micros))
                .bind(agent_keys)
                .execute(db)
                .await
                .map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn remove_cluster(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |db| {
            async move {
                for statement in [
                    "DELETE FROM clusters WHERE name = ?",
                    "DELETE FROM check_states WHERE cluster = ?",
                    "DELETE FROM definition_statuses WHERE cluster = ?",
                    "DELETE FROM pauses WHERE cluster = ?",
                    "DELETE FROM report_cursors WHERE cluster = ?",
                ] {
                    sqlx::query(statement).bind(&name).execute(&mut *db).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn put_enrolment_token(&self, cluster: &str, token: &EnrolmentToken) -> Result<(), StoreError> {
        let (cluster, token) = (cluster.to_owned(), token.clone());
        self.write(move |db| {
            async move {
                sqlx::query(
                    "UPDATE clusters SET token_hash = ?, token_expires_at = ?, token_spent_by = ?, token_pending = NULL \
                     WHERE name = ?",
                )
                .bind(token.hash.to_vec())
                .bind(micros(token.expires_at))
                .bind(token.spent_by.map(|key| key.to_vec()))
                .bind(cluster)
                .execute(db)
                .await
                .map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn enrolment_token(&self, cluster: &str) -> Result<Option<EnrolmentToken>, StoreError> {
        let row = sqlx::query(
            "SELECT token_hash, token_expires_at, token_spent_by FROM clusters \
             WHERE name = ? AND token_hash IS NOT NULL",
        );
        row.bind(cluster).fetch_optional(&self.readers).await?.map(|row| rows::enrolment_token(&row)).transpose()
    }

    async fn spend_enrolment_token(
        &self,
        cluster: &str,
        hash: [u8; 32],
        key: &AgentKey,
        cluster_uid: &str,
    ) -> Result<Spend, StoreError> {
        let (key, valid_from, keys) = (key.hash, micros(key.issued_at), rows::json(&[key])?);
        let (cluster, cluster_uid) = (cluster.to_owned(), cluster_uid.to_owned());
        self.write(move |db| {
            async move {
                let bound: Option<(Option<String>,)> =
                    sqlx::query_as("SELECT cluster_uid FROM clusters WHERE name = ? AND token_hash = ?")
                        .bind(&cluster)
                        .bind(hash.to_vec())
                        .fetch_optional(&mut *db)
                        .await?;
                match bound {
                    None => return Ok(Spend::Taken),
                    Some((Some(uid),)) if uid != cluster_uid => return Ok(Spend::OtherUid),
                    Some(_) => {}
                }
                let done = sqlx::query(
                    "UPDATE clusters SET token_spent_by = ?1, cluster_uid = ?2, \
                     valid_from = max(?5, coalesce(valid_from, ?5)), agent_keys = ?6, \
                     self_test = NULL, token_pending = NULL \
                     WHERE name = ?3 AND token_hash = ?4 AND (token_spent_by IS NULL OR token_spent_by = ?1)",
                )
                .bind(key.to_vec())
                .bind(cluster_uid)
                .bind(cluster)
                .bind(hash.to_vec())
                .bind(valid_from)
                .bind(keys)
                .execute(db)
                .await?;
                Ok(if done.rows_affected() == 1 { Spend::Spent } else { Spend::Taken })
            }
            .boxed()
        })
        .await
    }

    async fn put_pending_enrolment(&self, cluster: &str, pending: &PendingEnrolment) -> Result<(), StoreError> {
        let (cluster, ends, pending) = (cluster.to_owned(), micros(pending.expires_at), rows::json(pending)?);
        self.write(move |db| {
            async move {
                let update =
                    sqlx::query("UPDATE clusters SET token_pending = ? WHERE name = ? AND token_expires_at = ?");
                update.bind(pending).bind(cluster).bind(ends).execute(db).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn put_self_test(&self, cluster: &str, self_test: &SelfTest) -> Result<(), StoreError> {
        let (cluster, self_test) = (cluster.to_owned(), rows::json(self_test)?);
        self.write(move |db| {
            async move {
                let update = sqlx::query("UPDATE clusters SET self_test = ? WHERE name = ?");
                update.bind(self_test).bind(cluster).execute(db).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn put_agent_keys(&self, cluster: &str, keys: &[AgentKey]) -> Result<(), StoreError> {
        let (cluster, keys) = (cluster.to_owned(), rows::json(&keys)?);
        self.write(move |db| {
            async move {
                let update = sqlx::query("UPDATE clusters SET agent_keys = ? WHERE name = ?");
                update.bind(keys).bind(cluster).execute(db).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn unbind_cluster(&self, cluster: &str, valid_from: Timestamp) -> Result<(), StoreError> {
        let cluster = cluster.to_owned();
        self.write(move |db| {
            async move {
                let update = sqlx::query(
                    "UPDATE clusters SET cluster_uid = NULL, agent_keys = '[]', self_test = NULL, valid_from = ? \
                     WHERE name = ?",
                );
                update.bind(micros(valid_from)).bind(cluster).execute(db).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn record_runs(&self, cluster: &str, runs: Vec<Run>, at: Timestamp) -> Result<Recorded, StoreError> {
        let cluster = cluster.to_owned();
        self.write(move |db| {
            async move {
                let mut recorded = Recorded::default();
                for chunk in runs.chunks(ROWS_PER_INSERT) {
                    let new = insert_runs(db, &cluster, chunk, at).await?;
                    recorded.new += new;
                    recorded.known += chunk.len().saturating_sub(new);
                }
                Ok(recorded)
            }
            .boxed()
        })
        .await
    }

    async fn report_cursor(&self, cluster: &str, journal: &str) -> Result<Option<u64>, StoreError> {
        let seq = sqlx::query_scalar::<_, i64>("SELECT seq FROM report_cursors WHERE cluster = ? AND journal = ?");
        let seq = seq.bind(cluster).bind(journal).fetch_optional(&self.readers).await?;
        Ok(seq.map(i64::cast_unsigned))
    }

    async fn put_report_cursor(&self, cluster: &str, journal: &str, seq: u64, at: Timestamp) -> Result<(), StoreError> {
        let (cluster, journal) = (cluster.to_owned(), journal.to_owned());
        self.write(move |db| put_cursor(db, cluster, journal, seq, at).boxed()).await
    }

    async fn forget_report_cursor(&self, cluster: &str, journal: &str) -> Result<(), StoreError> {
        let (cluster, journal) = (cluster.to_owned(), journal.to_owned());
        self.write(move |db| {
            async move {
                let delete = sqlx::query("DELETE FROM report_cursors WHERE cluster = ? AND journal = ?");
                delete.bind(cluster).bind(journal).execute(db).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn record_gap(&self, cluster: &str, journal: &str, gap: Gap, at: Timestamp) -> Result<(), StoreError> {
        let (cluster, journal) = (cluster.to_owned(), journal.to_owned());
        self.write(move |db| {
            async move {
                sqlx::query(
                    "INSERT INTO gaps (cluster, after_run, reports, noticed_at) \
                     SELECT ?1, coalesce(max(id), 0), ?2, ?3 FROM runs WHERE cluster = ?1",
                )
                .bind(&cluster)
                .bind(i64::try_from(gap.reports).unwrap_or(i64::MAX))
                .bind(micros(at))
                .execute(&mut *db)
                .await?;
                put_cursor(db, cluster, journal, gap.through_seq, at).await
            }
            .boxed()
        })
        .await
    }

    async fn record_lacking(&self, cluster: &str, runs: &[Counted], at: Timestamp) -> Result<bool, StoreError> {
        let (cluster, runs) = (cluster.to_owned(), runs.to_vec());
        self.write(move |db| {
            async move {
                for Counted { check_uid, mark } in runs {
                    let insert = sqlx::query(queries::RECORD_LACKING).bind(&cluster).bind(check_uid).bind(micros(mark));
                    let insert = insert.bind(micros(at)).bind(RunKind::HealthCheck.as_str());
                    if insert.execute(&mut *db).await?.rows_affected() > 0 {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            .boxed()
        })
        .await
    }

    async fn runs(&self, query: &RunQuery) -> Result<RunPage, StoreError> {
        let found = queries::runs::<Sqlite>(query).build().fetch_all(&self.readers).await?;
        let (items, next) = queries::page(query, found.iter().map(rows::run).collect::<Result<_, _>>()?);
        let gaps = queries::gaps::<Sqlite>(query, next).build().fetch_all(&self.readers).await?;
        let gaps = gaps.iter().map(rows::gap).collect::<Result<_, _>>()?;
        Ok(RunPage { items, gaps, next })
    }

    async fn check_states(&self, cluster: &str) -> Result<Vec<(CheckState, Health)>, StoreError> {
        let rows = sqlx::query_as::<_, (String, String)>(
            "SELECT state, health FROM check_states WHERE cluster = ? ORDER BY uid",
        );
        let rows = rows.bind(cluster).fetch_all(&self.readers).await?;
        let parse = |(state, health): &(String, String)| {
            Ok((rows::parse("check state", state)?, rows::parse("check health", health)?))
        };
        rows.iter().map(parse).collect()
    }

    async fn save_check_states(
        &self,
        cluster: &str,
        states: Vec<(CheckState, Health)>,
        removed: Vec<String>,
    ) -> Result<(), StoreError> {
        let cluster = cluster.to_owned();
        let states = states
            .iter()
            .map(|(state, health)| Ok((state.uid.clone(), rows::json(state)?, rows::json(health)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        self.write(move |db| {
            async move {
                // A cluster that was removed meanwhile must not leave ghosts for a later namesake.
                let known = sqlx::query("SELECT 1 FROM clusters WHERE name = ?").bind(&cluster);
                if known.fetch_optional(&mut *db).await?.is_none() {
                    return Ok(());
                }
                for uid in removed {
                    let delete = sqlx::query("DELETE FROM check_states WHERE cluster = ? AND uid = ?");
                    delete.bind(&cluster).bind(uid).execute(&mut *db).await?;
                }
                for chunk in states.chunks(ROWS_PER_INSERT) {
                    let mut sql =
                        QueryBuilder::<Sqlite>::new("INSERT INTO check_states (cluster, uid, state, health) ");
                    sql.push_values(chunk, |mut row, (uid, state, health)| {
                        row.push_bind(cluster.clone()).push_bind(uid.clone());
                        row.push_bind(state.clone()).push_bind(health.clone());
                    });
                    sql.push(
                        " ON CONFLICT (cluster, uid) DO UPDATE SET state = excluded.state, health = excluded.health",
                    );
                    sql.build().execute(&mut *db).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn definitions(&self) -> Result<Vec<DefinitionRecord>, StoreError> {
        definitions::all(&self.readers).await
    }

    async fn put_definition(&self, name: &str, definition: &serde_json::Value) -> Result<u64, StoreError> {
        let (name, definition) = (name.to_owned(), rows::json(definition)?);
        self.write(move |db| async move { definitions::put(db, &name, &definition).await }.boxed()).await
    }

    async fn delete_definition(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |db| async move { definitions::delete(db, &name).await }.boxed()).await
    }

    async fn definition_statuses(&self) -> Result<Vec<(String, DefinitionStatus)>, StoreError> {
        definitions::statuses(&self.readers).await
    }

    async fn put_definition_statuses(&self, cluster: &str, statuses: Vec<DefinitionStatus>) -> Result<(), StoreError> {
        let cluster = cluster.to_owned();
        let texts = statuses.iter().map(|status| Ok((status.name.clone(), rows::json(status)?)));
        let texts = texts.collect::<Result<Vec<_>, StoreError>>()?;
        self.write(move |db| async move { definitions::put_statuses(db, &cluster, texts).await }.boxed()).await
    }

    async fn pauses(&self, cluster: &str, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        pauses::of(&self.readers, cluster, now).await
    }

    async fn put_pause(&self, cluster: &str, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        let (cluster, pause) = (cluster.to_owned(), pause.clone());
        self.write(move |db| async move { pauses::put(db, &cluster, pause, now).await }.boxed()).await
    }

    async fn end_pauses(&self, cluster: &str, subject: Subject, scope: &Scope) -> Result<(), StoreError> {
        let (cluster, scope) = (cluster.to_owned(), scope.clone());
        self.write(move |db| async move { pauses::end(db, &cluster, subject, scope).await }.boxed()).await
    }

    async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        access::tokens(&self.readers).await
    }

    async fn put_api_token(&self, token: &ApiToken) -> Result<(), StoreError> {
        let token = token.clone();
        self.write(move |db| async move { access::put_token(db, token).await }.boxed()).await
    }

    async fn delete_api_token(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |db| async move { access::delete_token(db, &name).await }.boxed()).await
    }

    async fn ended_sessions(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        access::ended_sessions(&self.readers).await
    }

    async fn end_sessions(&self, subject: &str, at: Timestamp, over: Timestamp) -> Result<(), StoreError> {
        let subject = subject.to_owned();
        self.write(move |db| async move { access::end_sessions(db, &subject, at, over).await }.boxed()).await
    }

    async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let entry = entry.clone();
        self.write(move |db| async move { access::audit(db, entry).await }.boxed()).await
    }

    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        access::audit_log(&self.readers, limit).await
    }

    async fn prune(&self, what: Expired, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        if what == Expired::Transitions {
            // Looking for them takes longer than deleting them, and a reader can do it.
            let ids = transitions::spent(&self.readers, before, limit).await?;
            return self.write(move |db| async move { transitions::delete(db, &ids, before).await }.boxed()).await;
        }
        self.write(move |db| prune::prune(db, what, before, limit).boxed()).await
    }

    async fn ownership(&self) -> Result<Option<Ownership>, StoreError> {
        source::ownership(&self.readers).await
    }

    async fn put_ownership(&self, ownership: Option<&Ownership>) -> Result<(), StoreError> {
        let ownership = ownership.map(rows::json).transpose()?;
        self.write(move |db| async move { source::put_ownership(db, ownership.as_deref()).await }.boxed()).await
    }

    async fn sizes(&self) -> Result<Sizes, StoreError> {
        prune::sizes(&self.readers).await
    }

    async fn restore(&self) -> Result<Option<Restore>, StoreError> {
        restore::unconfirmed(&self.readers).await
    }

    async fn put_restore(&self, restore: &Restore) -> Result<(), StoreError> {
        let restore = restore.clone();
        self.write(move |db| async move { restore::note(db, &restore).await }.boxed()).await
    }

    async fn confirm_restore(&self, at: Timestamp) -> Result<(), StoreError> {
        self.write(move |db| restore::confirm(db, at).boxed()).await
    }

    async fn mark(&self, cluster: &str) -> Result<u64, StoreError> {
        restore::mark(&self.readers, cluster).await
    }

    async fn put_mark(&self, cluster: &str, mark: u64) -> Result<(), StoreError> {
        let cluster = cluster.to_owned();
        self.write(move |db| async move { restore::put_mark(db, &cluster, mark).await }.boxed()).await
    }

    async fn secret(&self, name: &str, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let name = name.to_owned();
        let kept = self.write(move |db| async move { restore::secret(db, &name, fresh).await }.boxed()).await?;
        <[u8; 32]>::try_from(kept.as_slice()).map_err(|error| rows::corrupt("secret", &error))
    }

    async fn windows(&self) -> Result<Vec<WindowSpec>, StoreError> {
        care::windows(&self.readers).await
    }

    async fn put_window(&self, name: &str, spec: Option<&WindowSpec>) -> Result<(), StoreError> {
        let (name, spec) = (name.to_owned(), spec.map(rows::json).transpose()?);
        self.write(move |db| async move { care::put_window(db, &name, spec.as_deref()).await }.boxed()).await
    }

    async fn acknowledgements(&self) -> Result<Vec<(CheckKey, Acknowledgement)>, StoreError> {
        care::acknowledgements(&self.readers).await
    }

    async fn put_acknowledgement(
        &self,
        key: &CheckKey,
        acknowledgement: Option<&Acknowledgement>,
    ) -> Result<(), StoreError> {
        let (key, text) = (key.clone(), acknowledgement.map(rows::json).transpose()?);
        self.write(move |db| async move { care::put_acknowledgement(db, &key, text.as_deref()).await }.boxed()).await
    }

    async fn record_transitions(&self, life: Life, transitions: Vec<(CheckKey, Transition)>) -> Result<(), StoreError> {
        self.write(move |db| async move { transitions::record(db, life, &transitions).await }.boxed()).await
    }

    async fn transitions(
        &self,
        query: &TransitionQuery,
        visit: &mut (dyn FnMut(CheckKey, Transition) + Send),
    ) -> Result<(), StoreError> {
        transitions::visit(&self.readers, query, visit).await
    }

    async fn lives(&self) -> Result<Vec<Life>, StoreError> {
        transitions::lives(&self.readers).await
    }

    async fn forget_after(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |db| async move { transitions::forget_after(db, now).await }.boxed()).await
    }

    async fn put_incidents(&self, incidents: &[Arc<Incident>]) -> Result<(), StoreError> {
        let rows = super::incidents::rows(incidents)?;
        self.write(move |db| async move { incidents::put(db, rows).await }.boxed()).await
    }

    async fn open_incidents(&self) -> Result<Vec<Incident>, StoreError> {
        incidents::open(&self.readers).await
    }

    async fn incidents(&self, query: &IncidentQuery) -> Result<IncidentPage, StoreError> {
        incidents::page(&self.readers, query).await
    }

    async fn audit_page(&self, query: &AuditQuery) -> Result<Vec<(i64, AuditEntry)>, StoreError> {
        changes::audit(&self.readers, query).await
    }

    async fn changes(&self, query: &ChangeQuery) -> Result<Vec<Placed>, StoreError> {
        changes::read(&self.readers, query).await
    }

    async fn note_versions(&self, at: Timestamp, versions: Vec<AgentVersions>) -> Result<(), StoreError> {
        self.write(move |db| async move { changes::note_versions(db, at, &versions).await }.boxed()).await
    }
}

/// The cursor only grows. The largest numbers are kept as negative ones.
async fn put_cursor(
    db: &mut SqliteConnection,
    cluster: String,
    journal: String,
    seq: u64,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let forgotten = at.saturating_sub(CURSOR_LIFE).unwrap_or(Timestamp::MIN);
    let delete = sqlx::query("DELETE FROM report_cursors WHERE cluster = ? AND at < ?");
    delete.bind(&cluster).bind(micros(forgotten)).execute(&mut *db).await?;
    sqlx::query(
        "INSERT INTO report_cursors (cluster, journal, seq, at) VALUES (?, ?, ?, ?) ON CONFLICT (cluster, journal) \
         DO UPDATE SET at = excluded.at, \
         seq = CASE WHEN (report_cursors.seq < 0, report_cursors.seq) < (excluded.seq < 0, excluded.seq) \
         THEN excluded.seq ELSE report_cursors.seq END",
    )
    .bind(cluster)
    .bind(journal)
    .bind(seq.cast_signed())
    .bind(micros(at))
    .execute(db)
    .await
    .map(drop)
}

/// Inserts runs; returns how many of them the history did not have.
async fn insert_runs(
    db: &mut SqliteConnection,
    cluster: &str,
    runs: &[Run],
    at: Timestamp,
) -> Result<usize, sqlx::Error> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO runs (cluster, check_uid, kind, slot, namespace, name, workflow, outcome, reason, message, \
         started_at, finished_at, warning, log_tail, recorded_at) ",
    );
    sql.push_values(runs, |mut row, run| {
        row.push_bind(cluster.to_owned())
            .push_bind(run.key.check_uid.clone())
            .push_bind(run.key.kind.as_str())
            .push_bind(micros(run.key.slot))
            .push_bind(run.namespace.clone())
            .push_bind(run.name.clone())
            .push_bind(run.workflow.clone())
            .push_bind(run.outcome.as_str())
            .push_bind(run.reason.map(|reason| reason.as_str()))
            .push_bind(run.message.clone())
            .push_bind(micros(run.started_at))
            .push_bind(micros(run.finished_at))
            .push_bind(run.warning.clone())
            .push_bind(run.log_tail.clone())
            .push_bind(micros(at));
    });
    sql.push(" ON CONFLICT (cluster, check_uid, kind, slot) DO NOTHING");
    let done = sql.build().execute(db).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}
