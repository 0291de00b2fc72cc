//! One replica at a time: who changes what all share reads it before, and nobody writes in between.

use sqlx::Transaction;
use sqlx::postgres::{PgPool, Postgres};

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

/// The lock of who changes what all share, and of who changes what may be Git's or a person's: `0040_replicas.sql` has another.
pub(super) const CHANGES: i32 = 41;
pub(super) const OWNERSHIP: i32 = 42;

/// Waits for 5 s at most. The lock is held while others do the work, so this connection is idle for longer than the pool lets
/// one be.
pub(super) async fn alone(pool: &PgPool, lock: i32) -> Result<Alone, StoreError> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '5s'").execute(&mut *transaction).await?;
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = '60s'").execute(&mut *transaction).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(24941, $1)").bind(lock).execute(&mut *transaction).await?;
    Ok(Alone(transaction))
}
