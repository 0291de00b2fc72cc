//! The one task that writes. Writes that arrive while it commits are done together in the next transaction.

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::store::StoreError;
use crate::store::metrics::Metrics;

/// Writes that may wait; callers beyond that wait for a place.
const QUEUE: usize = 1024;
/// Writes in one transaction at most, so that the first of them does not wait for ever.
const MAX_GROUP: usize = 256;

/// Tells the caller of a write, once it is known, whether the commit succeeded.
type Finish = Box<dyn FnOnce(Result<(), String>) + Send>;
/// A write: does its statements and says whether they succeeded.
type Job = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, (bool, Finish)> + Send>;

/// Hands writes to the task.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    task: JoinHandle<()>,
    metrics: Metrics,
}

impl Writer {
    /// Starts the task. `options` open the same data base again.
    ///
    /// # Errors
    /// The metrics cannot be made: one of their names is wrong.
    pub(super) fn start(connection: SqliteConnection, options: SqliteConnectOptions) -> Result<Writer, StoreError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let metrics = Metrics::new()?;
        let task = tokio::spawn(write_all(connection, options, queue, metrics.clone()));
        Ok(Writer { jobs, task, metrics })
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Does a write and returns after the commit that holds it.
    pub(super) async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            async move {
                let result = job(connection).await;
                let succeeded = result.is_ok();
                let finish: Finish = Box::new(move |committed| {
                    let result = match (result, committed) {
                        (Ok(value), Ok(())) => Ok(value),
                        (Err(error), _) => Err(error.into()),
                        (Ok(_), Err(why)) => Err(StoreError::Commit(why)),
                    };
                    // A caller that went away does not need the answer; the write is done all the same.
                    let _ = answer.send(result);
                });
                (succeeded, finish)
            }
            .boxed()
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Commit("it was not begun".to_owned()))?
    }

    pub(super) async fn close(self) {
        drop(self.jobs);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "store writer ended badly");
        }
    }
}

async fn write_all(
    mut connection: SqliteConnection,
    options: SqliteConnectOptions,
    mut queue: mpsc::Receiver<Job>,
    metrics: Metrics,
) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    while queue.recv_many(&mut group, MAX_GROUP).await > 0 {
        let mut finishes = Vec::with_capacity(group.len());
        metrics.writes.inc_by(group.len() as u64);
        let timer = metrics.commits.start_timer();
        let committed = transact(&mut connection, &mut group, &mut finishes).await.map_err(|error| error.to_string());
        timer.observe_duration();
        // Jobs that were not begun because the transaction could not start: their callers see a closed channel.
        group.clear();
        if let Err(error) = &committed {
            tracing::error!(%error, writes = finishes.len(), "commit failed");
            // On a full disk SQLite ends a transaction by itself, and this connection would count it as open for ever.
            match options.connect().await {
                Ok(fresh) => drop(std::mem::replace(&mut connection, fresh)),
                Err(error) => tracing::error!(%error, "data base not opened again"),
            }
        }
        for finish in finishes {
            finish(committed.clone());
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "data base not closed cleanly");
    }
}

/// Does a group of writes in one transaction. A write that fails is undone alone.
async fn transact(
    connection: &mut SqliteConnection,
    group: &mut Vec<Job>,
    finishes: &mut Vec<Finish>,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for job in group.drain(..) {
        sqlx::query("SAVEPOINT job").execute(&mut *transaction).await?;
        let (succeeded, finish) = job(&mut transaction).await;
        finishes.push(finish);
        let end = if succeeded { "RELEASE job" } else { "ROLLBACK TO job" };
        sqlx::query(end).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}
