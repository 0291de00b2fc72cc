//! Whether the store came back from the past, and the marks by which that is noticed.

use active_monitor_core::view::Restore;
use jiff::Timestamp;
use sqlx::postgres::PgPool;

use crate::store::StoreError;
use crate::store::queries::kept;
use crate::store::rows::{micros, owned, time};

pub(super) async fn unconfirmed(pool: &PgPool) -> Result<Option<Restore>, StoreError> {
    let row = sqlx::query("SELECT noticed_at, reason FROM restores WHERE confirmed_at IS NULL");
    let row = row.fetch_optional(pool).await?;
    row.map(|row| Ok(Restore { noticed_at: time(&row, "noticed_at")?, reason: owned(&row, "reason")? })).transpose()
}

pub(super) async fn note(pool: &PgPool, restore: &Restore) -> Result<(), StoreError> {
    let note = sqlx::query(
        "INSERT INTO restores (id, noticed_at, reason) VALUES (1, $1, $2) ON CONFLICT (id) DO UPDATE SET \
         noticed_at = excluded.noticed_at, reason = excluded.reason, confirmed_at = NULL \
         WHERE restores.confirmed_at IS NOT NULL",
    );
    note.bind(micros(restore.noticed_at)).bind(kept(&restore.reason)).execute(pool).await?;
    Ok(())
}

pub(super) async fn confirm(pool: &PgPool, at: Timestamp) -> Result<(), StoreError> {
    let confirm = sqlx::query("UPDATE restores SET confirmed_at = $1 WHERE confirmed_at IS NULL");
    confirm.bind(micros(at)).execute(pool).await?;
    Ok(())
}

pub(super) async fn mark(pool: &PgPool, cluster: &str) -> Result<u64, StoreError> {
    let mark = sqlx::query_scalar::<_, i64>(
        "SELECT greatest((SELECT mark FROM marks WHERE cluster = $1), (SELECT confirmed_at / 1000 FROM restores), 0)",
    );
    Ok(mark.bind(kept(cluster)).fetch_one(pool).await?.cast_unsigned())
}

pub(super) async fn put_mark(pool: &PgPool, cluster: &str, mark: u64) -> Result<(), StoreError> {
    let put = sqlx::query(
        "INSERT INTO marks (cluster, mark) VALUES ($1, $2) ON CONFLICT (cluster) DO UPDATE SET \
         mark = greatest(marks.mark, excluded.mark)",
    );
    put.bind(kept(cluster)).bind(i64::try_from(mark).unwrap_or(i64::MAX)).execute(pool).await?;
    Ok(())
}

/// The one that is kept, or from now on `fresh`.
pub(super) async fn secret(pool: &PgPool, name: &str, fresh: [u8; 32]) -> Result<Vec<u8>, StoreError> {
    let keep = sqlx::query("INSERT INTO secrets (name, secret) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
    keep.bind(kept(name)).bind(fresh.to_vec()).execute(pool).await?;
    Ok(sqlx::query_scalar("SELECT secret FROM secrets WHERE name = $1").bind(kept(name)).fetch_one(pool).await?)
}
