//! SQLite: the default store, one file in the data directory.
//!
//! WAL and `synchronous=FULL`: what is committed survives a power loss. One task writes; the writes that wait while it
//! commits share the next commit, so the cost of the disk is paid once for many callers. Readers have a pool of their own.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use active_monitor_core::run::Run;
use active_monitor_core::session::frame::DefinitionStatus;
use active_monitor_core::state::CheckState;
use active_monitor_core::view::RunPage;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, QueryBuilder, Sqlite, SqliteConnection};

use super::{
    ApiToken, AuditEntry, ClusterRecord, DefinitionRecord, EnrolmentToken, MAX_PAGE, Recorded, RunQuery, Spend, Store,
    StoreError,
};
use rows::micros;
use writer::Writer;

mod rows;
#[cfg(test)]
mod tests;
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
        let lock = lock(&data_dir.join("hub.lock"))?;
        let options = SqliteConnectOptions::new()
            .filename(data_dir.join(FILE_NAME))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let mut connection = options.clone().connect().await?;
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        let writer = Writer::start(connection).map_err(|error| StoreError::Metrics(error.to_string()))?;
        Ok(SqliteStore { writer, readers, _lock: lock })
    }

    /// What the store counts, to be registered where it shall be seen.
    pub fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        let metrics = self.writer.metrics();
        vec![Box::new(metrics.writes.clone()), Box::new(metrics.commits.clone())]
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
        let rows = sqlx::query("SELECT name, labels, annotations, cluster_uid, created_at FROM clusters ORDER BY name");
        rows.fetch_all(&self.readers).await?.iter().map(rows::cluster).collect()
    }

    async fn put_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        let ClusterRecord { name, labels, annotations, cluster_uid, created_at } = cluster.clone();
        let (labels, annotations) = (rows::json(&labels)?, rows::json(&annotations)?);
        self.write(move |db| {
            async move {
                sqlx::query(
                    "INSERT INTO clusters (name, labels, annotations, cluster_uid, created_at) VALUES (?, ?, ?, ?, ?) \
                     ON CONFLICT (name) DO UPDATE SET labels = excluded.labels, annotations = excluded.annotations",
                )
                .bind(name)
                .bind(labels)
                .bind(annotations)
                .bind(cluster_uid)
                .bind(micros(created_at))
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
                    "UPDATE clusters SET token_hash = ?, token_expires_at = ?, token_spent_by = ? WHERE name = ?",
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
        key: [u8; 32],
        cluster_uid: &str,
    ) -> Result<Spend, StoreError> {
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
                    "UPDATE clusters SET token_spent_by = ?1, cluster_uid = ?2 \
                     WHERE name = ?3 AND token_hash = ?4 AND (token_spent_by IS NULL OR token_spent_by = ?1)",
                )
                .bind(key.to_vec())
                .bind(cluster_uid)
                .bind(cluster)
                .bind(hash.to_vec())
                .execute(db)
                .await?;
                Ok(if done.rows_affected() == 1 { Spend::Spent } else { Spend::Taken })
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

    async fn runs(&self, query: &RunQuery) -> Result<RunPage, StoreError> {
        let RunQuery { cluster, namespace, name, kind, outcome, before, limit } = query;
        let limit = (*limit).clamp(1, MAX_PAGE);
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT id, cluster, check_uid, kind, slot, namespace, name, workflow, outcome, reason, message, started_at, \
             finished_at, recorded_at FROM runs WHERE 1 = 1",
        );
        let texts = [
            (" AND cluster = ", cluster.as_deref()),
            (" AND namespace = ", namespace.as_deref()),
            (" AND name = ", name.as_deref()),
            (" AND kind = ", kind.map(|kind| kind.as_str())),
            (" AND outcome = ", outcome.map(|outcome| outcome.as_str())),
        ];
        for (condition, value) in texts {
            if let Some(value) = value {
                sql.push(condition).push_bind(value.to_owned());
            }
        }
        if let Some(before) = *before {
            sql.push(" AND id < ").push_bind(before);
        }
        // One more than asked for tells whether there is another page.
        sql.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit) + 1);
        let found = sql.build().fetch_all(&self.readers).await?;
        let mut items = found.iter().map(rows::run).collect::<Result<Vec<_>, _>>()?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = if more { items.last().map(|run| run.id) } else { None };
        Ok(RunPage { items, next })
    }

    async fn check_states(&self, cluster: &str) -> Result<Vec<CheckState>, StoreError> {
        let rows = sqlx::query_as::<_, (String,)>("SELECT state FROM check_states WHERE cluster = ? ORDER BY uid");
        let rows = rows.bind(cluster).fetch_all(&self.readers).await?;
        rows.iter().map(|(text,)| rows::parse("check state", text)).collect()
    }

    async fn save_check_states(
        &self,
        cluster: &str,
        states: Vec<CheckState>,
        removed: Vec<String>,
    ) -> Result<(), StoreError> {
        let cluster = cluster.to_owned();
        let states = states
            .iter()
            .map(|state| Ok((state.uid.clone(), rows::json(state)?)))
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
                    let mut sql = QueryBuilder::<Sqlite>::new("INSERT INTO check_states (cluster, uid, state) ");
                    sql.push_values(chunk, |mut row, (uid, state)| {
                        row.push_bind(cluster.clone()).push_bind(uid.clone()).push_bind(state.clone());
                    });
                    sql.push(" ON CONFLICT (cluster, uid) DO UPDATE SET state = excluded.state");
                    sql.build().execute(&mut *db).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn definitions(&self) -> Result<Vec<DefinitionRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT name, generation, definition FROM definitions WHERE definition IS NOT NULL ORDER BY name",
        );
        rows.fetch_all(&self.readers).await?.iter().map(rows::definition).collect()
    }

    async fn put_definition(&self, name: &str, definition: &serde_json::Value) -> Result<u64, StoreError> {
        let (name, definition) = (name.to_owned(), rows::json(definition)?);
        let generation: i64 = self
            .write(move |db| {
                async move {
                    sqlx::query_scalar(
                        "INSERT INTO definitions (name, generation, definition) VALUES (?, 1, ?) ON CONFLICT (name) \
                         DO UPDATE SET generation = generation + 1, definition = excluded.definition \
                         RETURNING generation",
                    )
                    .bind(name)
                    .bind(definition)
                    .fetch_one(db)
                    .await
                }
                .boxed()
            })
            .await?;
        Ok(generation.unsigned_abs())
    }

    async fn delete_definition(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |db| {
            async move {
                let delete = sqlx::query("UPDATE definitions SET definition = NULL WHERE name = ?");
                delete.bind(&name).execute(&mut *db).await?;
                let statuses = sqlx::query("DELETE FROM definition_statuses WHERE name = ?");
                statuses.bind(&name).execute(&mut *db).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn definition_statuses(&self) -> Result<Vec<(String, DefinitionStatus)>, StoreError> {
        let rows = sqlx::query_as::<_, (String, String)>("SELECT cluster, status FROM definition_statuses");
        let rows = rows.fetch_all(&self.readers).await?;
        rows.into_iter().map(|(cluster, text)| Ok((cluster, rows::parse("definition status", &text)?))).collect()
    }

    async fn put_definition_statuses(&self, cluster: &str, statuses: Vec<DefinitionStatus>) -> Result<(), StoreError> {
        let cluster = cluster.to_owned();
        let statuses = statuses
            .iter()
            .map(|status| Ok((status.name.clone(), rows::json(status)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        self.write(move |db| {
            async move {
                let delete = sqlx::query("DELETE FROM definition_statuses WHERE cluster = ?");
                delete.bind(&cluster).execute(&mut *db).await?;
                for (name, status) in statuses {
                    let insert = sqlx::query(
                        "INSERT OR REPLACE INTO definition_statuses (cluster, name, status) VALUES (?, ?, ?)",
                    );
                    insert.bind(&cluster).bind(name).bind(status).execute(&mut *db).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        let rows = sqlx::query("SELECT name, role, hash, created_at FROM api_tokens ORDER BY name");
        rows.fetch_all(&self.readers).await?.iter().map(rows::api_token).collect()
    }

    async fn put_api_token(&self, token: &ApiToken) -> Result<(), StoreError> {
        let ApiToken { name, role, hash, created_at } = token.clone();
        self.write(move |db| {
            async move {
                sqlx::query("INSERT OR REPLACE INTO api_tokens (name, role, hash, created_at) VALUES (?, ?, ?, ?)")
                    .bind(name)
                    .bind(rows::role_text(role))
                    .bind(hash.to_vec())
                    .bind(micros(created_at))
                    .execute(db)
                    .await
                    .map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn delete_api_token(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |db| {
            async move { sqlx::query("DELETE FROM api_tokens WHERE name = ?").bind(name).execute(db).await.map(drop) }
                .boxed()
        })
        .await
    }

    async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let AuditEntry { at, who, action, object } = entry.clone();
        self.write(move |db| {
            async move {
                sqlx::query("INSERT INTO audit (at, who, action, object) VALUES (?, ?, ?, ?)")
                    .bind(micros(at))
                    .bind(who)
                    .bind(action)
                    .bind(object)
                    .execute(db)
                    .await
                    .map(drop)
            }
            .boxed()
        })
        .await
    }

    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query("SELECT at, who, action, object FROM audit ORDER BY id DESC LIMIT ?");
        rows.bind(i64::from(limit)).fetch_all(&self.readers).await?.iter().map(rows::audit).collect()
    }
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
         started_at, finished_at, recorded_at) ",
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
            .push_bind(micros(at));
    });
    sql.push(" ON CONFLICT (cluster, check_uid, kind, slot) DO NOTHING");
    let done = sql.build().execute(db).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}
