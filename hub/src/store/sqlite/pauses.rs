//! The pauses that agents have taken.

use active_monitor_core::command::{Pause, Scope, Subject};
use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::rows::{self, micros};
use crate::store::StoreError;

pub(super) async fn of(readers: &SqlitePool, cluster: &str, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
    let rows = sqlx::query(
        "SELECT subject, namespace, name, id, until, reason, who FROM pauses WHERE cluster = ? AND until > ? \
         ORDER BY subject, namespace, name",
    );
    rows.bind(cluster).bind(micros(now)).fetch_all(readers).await?.iter().map(rows::pause).collect()
}

pub(super) async fn put(
    db: &mut SqliteConnection,
    cluster: &str,
    pause: Pause,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let Pause { id, subject, scope: Scope { namespace, name }, until, reason, by } = pause;
    sqlx::query("DELETE FROM pauses WHERE until <= ?").bind(micros(now)).execute(&mut *db).await?;
    sqlx::query(
        "INSERT OR REPLACE INTO pauses (cluster, subject, namespace, name, id, until, reason, who) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(cluster)
    .bind(subject.as_str())
    .bind(namespace.unwrap_or_default())
    .bind(name.unwrap_or_default())
    .bind(id)
    .bind(micros(until))
    .bind(reason)
    .bind(by)
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn end(
    db: &mut SqliteConnection,
    cluster: &str,
    subject: Subject,
    scope: Scope,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM pauses WHERE cluster = ?1 AND subject = ?2 AND (?3 IS NULL OR namespace = ?3) \
         AND (?4 IS NULL OR name = ?4)",
    )
    .bind(cluster)
    .bind(subject.as_str())
    .bind(scope.namespace)
    .bind(scope.name)
    .execute(db)
    .await
    .map(drop)
}
