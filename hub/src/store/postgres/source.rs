//! What Git owns.

use active_monitor_core::gitops::plan::Ownership;
use sqlx::postgres::PgPool;

use super::replicas::{Lease, fence};
use crate::store::StoreError;
use crate::store::rows::{json, parse};

pub(super) async fn ownership(pool: &PgPool) -> Result<Option<Ownership>, StoreError> {
    let text = sqlx::query_scalar::<_, String>("SELECT ownership FROM source").fetch_optional(pool).await?;
    text.map(|text| parse("ownership of Git", &text)).transpose()
}

pub(super) async fn put_ownership(
    pool: &PgPool,
    lease: Option<&Lease>,
    ownership: Option<&Ownership>,
) -> Result<(), StoreError> {
    let change = match ownership {
        Some(ownership) => sqlx::query(
            "INSERT INTO source (id, ownership) VALUES (0, $1) ON CONFLICT (id) DO UPDATE SET ownership = excluded.ownership",
        )
        .bind(json(ownership)?),
        None => sqlx::query("DELETE FROM source"),
    };
    let mut transaction = pool.begin().await?;
    fence(&mut transaction, lease).await?;
    change.execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}
