//! That a data base is one hub's, or that of its replicas: a lock that its server holds for as long as a connection lives.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::StoreError;

/// The lock's number within the data base: "amhub" in ASCII.
const LOCK: i64 = 0x61_6d_68_75_62;
/// Time between two looks at the connection.
const PERIOD: Duration = Duration::from_secs(2);
/// A server that says nothing for so long is not there.
const ANSWER: Duration = Duration::from_secs(10);
/// A lock that was lost with its connection is this hub's own for as long as the server does not see the cut.
const UNSEEN: Duration = Duration::from_secs(40);

/// Who may have the data base at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Nobody else.
    Alone,
    /// Whoever shares it too: the other replicas.
    Replicas,
}

/// Keeps a second hub away from the data base, or whoever is no replica.
pub struct Claim {
    share: Share,
    connection: PgConnection,
    options: PgConnectOptions,
    /// The store is dropped.
    closed: CancellationToken,
}

impl Claim {
    /// Takes the lock and brings the tables up to date.
    pub(in crate::store) async fn take(options: &PgConnectOptions, share: Share) -> Result<Claim, StoreError> {
        let mut connection = connect(options, share).await?.ok_or(StoreError::InUse)?;
        sqlx::migrate!("migrations/postgres").run(&mut connection).await?;
        let unsafe_server = "SELECT current_setting('fsync') = 'off'";
        if sqlx::query_scalar(unsafe_server).fetch_one(&mut connection).await? {
            tracing::warn!(
                "the PostgreSQL server runs with fsync=off: what it answers for can be lost with its machine"
            );
        }
        Ok(Claim { share, connection, options: options.clone(), closed: CancellationToken::new() })
    }

    /// Holds the claim until `stop`, and from then on until the store is dropped. A server that was away is waited for.
    ///
    /// # Errors
    /// Another hub took the data base while the server was away.
    pub async fn hold(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        loop {
            tokio::select! {
                () = sleep(PERIOD) => {}
                () = stop.cancelled() => {
                    // The others who stop write until their end, and this task must not wait for them.
                    tokio::spawn(async move {
                        self.closed.cancelled().await;
                        self.release().await;
                    });
                    return Ok(());
                }
            }
            let alive = timeout(ANSWER, self.connection.ping()).await;
            if !matches!(alive, Ok(Ok(()))) {
                tracing::warn!("the claim's connection to PostgreSQL is gone");
                tokio::select! {
                    again = retake(&self.options, self.share) => self.connection = again?,
                    () = stop.cancelled() => return Ok(()),
                }
                tracing::info!("the data base is claimed again");
            }
        }
    }

    /// Gives the data base free.
    pub async fn release(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "claim not closed cleanly");
        }
    }

    /// To be cancelled when the store is dropped.
    pub(super) fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// The connection that holds the lock.
    pub(in crate::store) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Connects and tries to lock; none where another has the lock.
async fn connect(options: &PgConnectOptions, share: Share) -> Result<Option<PgConnection>, StoreError> {
    let late = |_| StoreError::Late(ANSWER);
    let mut connection = timeout(ANSWER, options.connect()).await.map_err(late)??;
    // The server sees within 20 s that this hub is cut off, and not after the two hours of most systems.
    // A move between stores takes as long as it takes.
    let settings = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
                    SET statement_timeout = 0";
    sqlx::raw_sql(settings).execute(&mut connection).await?;
    let lock = match share {
        Share::Alone => "SELECT pg_try_advisory_lock($1)",
        Share::Replicas => "SELECT pg_try_advisory_lock_shared($1)",
    };
    let lock = sqlx::query_scalar(lock).bind(LOCK);
    let is_locked: bool = timeout(ANSWER, lock.fetch_one(&mut connection)).await.map_err(late)??;
    Ok(is_locked.then_some(connection))
}

async fn retake(options: &PgConnectOptions, share: Share) -> Result<PgConnection, StoreError> {
    let mut refused_since = None;
    loop {
        match connect(options, share).await {
            Ok(Some(connection)) => return Ok(connection),
            Ok(None) => {
                if refused_since.get_or_insert_with(Instant::now).elapsed() > UNSEEN {
                    return Err(StoreError::InUse);
                }
            }
            Err(error) => tracing::warn!(%error, "PostgreSQL is not reached"),
        }
        sleep(PERIOD).await;
    }
}

/// An answer means that the commit is on the disk, whatever the server's default.
pub(super) async fn keep_commits(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    )
    .execute(&mut *connection)
    .await?;
    // A machine that dies or stands still within a transaction must not keep its locks from the others.
    let ends = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
                SET idle_in_transaction_session_timeout = '10s'";
    sqlx::raw_sql(ends).execute(connection).await.map(drop)
}
