//! What the replica that keeps the fleet as Git's folder says shows of that.

use sqlx::postgres::PgPool;

use super::{Lease, fence};
use crate::store::StoreError;
use crate::store::queries::kept;

/// The replica, and JSON.
pub(super) async fn told(pool: &PgPool) -> Result<Option<(String, String)>, StoreError> {
    Ok(sqlx::query_as("SELECT replica, view FROM replica_sources").fetch_optional(pool).await?)
}

pub(super) async fn tell(pool: &PgPool, lease: &Lease, view: &str) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    fence(&mut transaction, Some(lease)).await?;
    let put = "INSERT INTO replica_sources (id, replica, view) VALUES (0, $1, $2) \
               ON CONFLICT (id) DO UPDATE SET replica = excluded.replica, view = excluded.view";
    sqlx::query(put).bind(&lease.holder).bind(kept(view)).execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}
