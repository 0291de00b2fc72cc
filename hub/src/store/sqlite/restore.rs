//! Whether the store came back from the past, and the marks by which that is noticed.

use active_monitor_core::view::Restore;
use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{Row, SqliteConnection};

use super::rows::{micros, time};
use crate::store::StoreError;

pub(super) async fn unconfirmed(readers: &SqlitePool) -> Result<Option<Restore>, StoreError> {
    let row = sqlx::query("SELECT noticed_at, reason FROM restores WHERE confirmed_at IS NULL");
    let row = row.fetch_optional(readers).await?;
    row.map(|row| Ok(Restore { noticed_at: time(&row, "noticed_at")?, reason: row.try_get("reason")? })).transpose()
}

pub(super) async fn note(db: &mut SqliteConnection, restore: &Restore) -> Result<(), sqlx::Error> {
    let note = sqlx::query(
        "INSERT INTO restores (id, noticed_at, reason) VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET \
         noticed_at = excluded.noticed_at, reason = excluded.reason, confirmed_at = NULL \
         WHERE confirmed_at IS NOT NULL",
    );
    note.bind(micros(restore.noticed_at)).bind(&restore.reason).execute(db).await.map(drop)
}

pub(super) async fn confirm(db: &mut SqliteConnection, at: Timestamp) -> Result<(), sqlx::Error> {
    let confirm = sqlx::query("UPDATE restores SET confirmed_at = ? WHERE confirmed_at IS NULL");
    confirm.bind(micros(at)).execute(db).await.map(drop)
}

pub(super) async fn mark(readers: &SqlitePool, cluster: &str) -> Result<u64, StoreError> {
    let mark = sqlx::query_scalar::<_, i64>(
        "SELECT max(coalesce((SELECT mark FROM marks WHERE cluster = ?), 0), \
         coalesce((SELECT confirmed_at / 1000 FROM restores), 0))",
    );
    Ok(mark.bind(cluster).fetch_one(readers).await?.cast_unsigned())
}

pub(super) async fn put_mark(db: &mut SqliteConnection, cluster: &str, mark: u64) -> Result<(), sqlx::Error> {
    let put = sqlx::query(
        "INSERT INTO marks (cluster, mark) VALUES (?, ?) ON CONFLICT (cluster) DO UPDATE SET \
         mark = max(mark, excluded.mark)",
    );
    put.bind(cluster).bind(i64::try_from(mark).unwrap_or(i64::MAX)).execute(db).await.map(drop)
}

/// The one that is kept, or from now on `fresh`.
pub(super) async fn secret(db: &mut SqliteConnection, name: &str, fresh: [u8; 32]) -> Result<Vec<u8>, sqlx::Error> {
    let keep = sqlx::query("INSERT OR IGNORE INTO secrets (name, secret) VALUES (?, ?)");
    keep.bind(name).bind(fresh.to_vec()).execute(&mut *db).await?;
    sqlx::query_scalar("SELECT secret FROM secrets WHERE name = ?").bind(name).fetch_one(db).await
}
