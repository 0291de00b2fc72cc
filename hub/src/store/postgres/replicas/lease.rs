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

/// Prolonging waits for no write under the lease, not even its holder's own; taking it over waits for all of them.
pub(super) async fn take(
    pool: &PgPool,
    name: &'static str,
    holder: &str,
    life: Duration,
) -> Result<Option<Lease>, StoreError> {
    let prolong =
        "UPDATE replica_leases SET until = replica_now() + $3 WHERE name = $1 AND holder = $2 RETURNING fence";
    // A plain UPDATE locks no row that it does not change: those who only ask do not hold up its holder.
    let take_over = "UPDATE replica_leases SET holder = $2, fence = fence + 1, until = replica_now() + $3 \
                     WHERE name = $1 AND until < replica_now() RETURNING fence";
    let begin = "INSERT INTO replica_leases (name, holder, fence, until) VALUES ($1, $2, 1, replica_now() + $3) \
                 ON CONFLICT (name) DO NOTHING RETURNING fence";
    for statement in [prolong, take_over, begin] {
        let fence = sqlx::query_scalar::<_, i64>(statement).bind(name).bind(holder).bind(micros(life));
        if let Some(fence) = fence.fetch_optional(pool).await? {
            return Ok(Some(Lease { name, holder: holder.to_owned(), fence: fence.unsigned_abs() }));
        }
    }
    Ok(None)
}

pub(super) async fn end(pool: &PgPool, lease: &Lease) -> Result<(), StoreError> {
    let end = sqlx::query("UPDATE replica_leases SET until = 0 WHERE name = $1 AND holder = $2 AND fence = $3");
    end.bind(lease.name).bind(&lease.holder).bind(lease.fence.cast_signed()).execute(pool).await?;
    Ok(())
}

/// Until this transaction ends nobody takes the lease over; it can be prolonged. Without one the hub is alone.
///
/// # Errors
/// Somebody has taken it over.
pub(in crate::store::postgres) async fn fence(db: &mut PgConnection, lease: Option<&Lease>) -> Result<(), StoreError> {
    let Some(Lease { name, holder, fence }) = lease else { return Ok(()) };
    let held = "SELECT 1 FROM replica_leases WHERE name = $1 AND holder = $2 AND fence = $3 FOR KEY SHARE";
    let held = sqlx::query(held).bind(*name).bind(holder).bind(fence.cast_signed());
    held.fetch_optional(db).await?.map(drop).ok_or(StoreError::Fenced(name))
}
