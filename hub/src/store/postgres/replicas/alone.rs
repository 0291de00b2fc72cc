//! One replica at a time: who changes what all share reads it before, and nobody writes in between.

use std::time::Duration;

use sqlx::postgres::{PgPool, Postgres};
use sqlx::{AssertSqlSafe, Transaction};

use crate::store::StoreError;

/// No other replica changes what all of them share while this is not ended.
pub struct Alone(Transaction<'static, Postgres>);

impl Alone {
    /// Lets the others go on. They do so as well when the connection is lost.
    pub async fn end(self) {
        if let Err(error) = self.0.rollback().await {
            tracing::debug!(%error, "lock not given back cleanly");
        }
    }
}

/// What one replica at a time changes. `0040_replicas.sql` has another lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    lock: i32,
    what: &'static str,
}

/// What all replicas share.
pub(super) const CHANGES: Subject = Subject { lock: 41, what: "clusters or definitions" };
/// What may be Git's or a person's.
pub(super) const OWNERSHIP: Subject = Subject { lock: 42, what: "what may be Git's" };

/// So long the others are waited for.
const WAIT: Duration = Duration::from_secs(5);
/// What PostgreSQL calls it that the wait is over.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Waits for the others. The lock is held while they do the work, so this connection is idle for longer than the pool lets one
/// be.
pub(super) async fn alone(pool: &PgPool, Subject { lock, what }: Subject) -> Result<Alone, StoreError> {
    let mut transaction = pool.begin().await?;
    let timeout = AssertSqlSafe(format!("SET LOCAL lock_timeout = '{}ms'", WAIT.as_millis()));
    sqlx::query(timeout).execute(&mut *transaction).await?;
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = '60s'").execute(&mut *transaction).await?;
    let locked = sqlx::query("SELECT pg_advisory_xact_lock(24941, $1)").bind(lock).execute(&mut *transaction).await;
    locked.map_err(|error| refused(error, what))?;
    Ok(Alone(transaction))
}

fn refused(error: sqlx::Error, what: &'static str) -> StoreError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let is_busy = code.is_some_and(|code| code == LOCK_NOT_AVAILABLE);
    if is_busy { StoreError::Busy { what, waited: WAIT } } else { error.into() }
}
