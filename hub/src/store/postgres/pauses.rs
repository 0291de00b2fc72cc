//! The pauses that agents have taken.

use active_monitor_core::command::{Pause, Scope, Subject};
use jiff::Timestamp;
use sqlx::postgres::PgPool;

use crate::store::StoreError;
use crate::store::queries::kept;
use crate::store::rows::{self, micros};

pub(super) async fn of(pool: &PgPool, cluster: &str, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
    let rows = sqlx::query(
        "SELECT subject, namespace, name, id, until, reason, who FROM pauses WHERE cluster = $1 AND until > $2 \
         ORDER BY subject, namespace, name",
    );
    rows.bind(kept(cluster)).bind(micros(now)).fetch_all(pool).await?.iter().map(rows::pause).collect()
}

pub(super) async fn put(pool: &PgPool, cluster: &str, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
    let Pause { id, subject, scope: Scope { namespace, name }, until, reason, by } = pause;
    let mut transaction = pool.begin().await?;
    let ended = sqlx::query("DELETE FROM pauses WHERE until <= $1").bind(micros(now));
    ended.execute(&mut *transaction).await?;
    sqlx::query(
        "INSERT INTO pauses (cluster, subject, namespace, name, id, until, reason, who) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (cluster, subject, namespace, name) \
         DO UPDATE SET id = excluded.id, until = excluded.until, reason = excluded.reason, who = excluded.who",
    )
    .bind(kept(cluster))
    .bind(subject.as_str())
    .bind(kept(namespace.as_deref().unwrap_or_default()))
    .bind(kept(name.as_deref().unwrap_or_default()))
    .bind(kept(id))
    .bind(micros(*until))
    .bind(kept(reason))
    .bind(kept(by))
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn end(pool: &PgPool, cluster: &str, subject: Subject, scope: &Scope) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM pauses WHERE cluster = $1 AND subject = $2 AND ($3::text IS NULL OR namespace = $3) \
         AND ($4::text IS NULL OR name = $4)",
    )
    .bind(kept(cluster))
    .bind(subject.as_str())
    .bind(scope.namespace.as_deref().map(kept))
    .bind(scope.name.as_deref().map(kept))
    .execute(pool)
    .await?;
    Ok(())
}
