//! Who may do what only one may do.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};

use super::changes::micros;
use crate::store::StoreError;

/// That a replica may do what only one may do, until another takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// For what.
    pub name: &'static str,
    /// Who has it.
    pub holder: String,
    /// Grows with each new holder: a write that carries an older one is refused.
    pub fence: u64,
}

pub(super) async fn take(
    pool: &PgPool,
    name: &'static str,
    holder: &str,
    life: Duration,
) -> Result<Option<Lease>, StoreError> {
    let fence: Option<i64> = sqlx::query_scalar(
        "INSERT INTO replica_leases (name, holder, fence, until) VALUES ($1, $2, 1, replica_now() + $3) \
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until, \
         fence = replica_leases.fence + (replica_leases.holder <> excluded.holder)::int \
         WHERE replica_leases.holder = excluded.holder OR replica_leases.until < replica_now() RETURNING fence",
    )
    .bind(name)
    .bind(holder)
    .bind(micros(life))
    .fetch_optional(pool)
    .await?;
    Ok(fence.map(|fence| Lease { name, holder: holder.to_owned(), fence: fence.unsigned_abs() }))
}

pub(super) async fn end(pool: &PgPool, lease: &Lease) -> Result<(), StoreError> {
    let end = sqlx::query("UPDATE replica_leases SET until = 0 WHERE name = $1 AND holder = $2 AND fence = $3");
    end.bind(lease.name).bind(&lease.holder).bind(lease.fence.cast_signed()).execute(pool).await?;
    Ok(())
}

/// Until this transaction ends nobody takes the lease over. Without one the hub is alone.
///
/// # Errors
/// Somebody has taken it over.
pub(in crate::store::postgres) async fn fence(db: &mut PgConnection, lease: Option<&Lease>) -> Result<(), StoreError> {
    let Some(Lease { name, holder, fence }) = lease else { return Ok(()) };
    let held = "SELECT 1 FROM replica_leases WHERE name = $1 AND holder = $2 AND fence = $3 FOR SHARE";
    let held = sqlx::query(held).bind(*name).bind(holder).bind(fence.cast_signed());
    held.fetch_optional(db).await?.map(drop).ok_or(StoreError::Fenced(name))
}
