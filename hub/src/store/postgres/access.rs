//! API tokens, ended sessions and the audit log.

use jiff::Timestamp;
use sqlx::postgres::PgPool;

use crate::store::queries::kept;
use crate::store::rows::{self, micros};
use crate::store::{ApiToken, AuditEntry, StoreError};

pub(super) async fn tokens(pool: &PgPool) -> Result<Vec<ApiToken>, StoreError> {
    let rows = sqlx::query("SELECT name, role, hash, created_at FROM api_tokens ORDER BY name");
    rows.fetch_all(pool).await?.iter().map(rows::api_token).collect()
}

pub(super) async fn put_token(pool: &PgPool, token: &ApiToken) -> Result<(), StoreError> {
    let ApiToken { name, role, hash, created_at } = token;
    sqlx::query(
        "INSERT INTO api_tokens (name, role, hash, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) \
         DO UPDATE SET role = excluded.role, hash = excluded.hash, created_at = excluded.created_at",
    )
    .bind(kept(name))
    .bind(role.as_str())
    .bind(hash.to_vec())
    .bind(micros(*created_at))
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn delete_token(pool: &PgPool, name: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM api_tokens WHERE name = $1").bind(kept(name)).execute(pool).await?;
    Ok(())
}

pub(super) async fn ended_sessions(pool: &PgPool) -> Result<Vec<(String, Timestamp)>, StoreError> {
    let rows = sqlx::query("SELECT subject, at FROM ended_sessions ORDER BY subject");
    rows.fetch_all(pool).await?.iter().map(rows::ended_session).collect()
}

pub(super) async fn end_sessions(
    pool: &PgPool,
    subject: &str,
    at: Timestamp,
    over: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM ended_sessions WHERE at < $1").bind(micros(over)).execute(pool).await?;
    sqlx::query(
        "INSERT INTO ended_sessions (subject, at) VALUES ($1, $2) ON CONFLICT (subject) \
         DO UPDATE SET at = greatest(ended_sessions.at, excluded.at)",
    )
    .bind(kept(subject))
    .bind(micros(at))
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn audit(pool: &PgPool, entry: &AuditEntry) -> Result<(), StoreError> {
    let AuditEntry { at, who, action, object } = entry;
    sqlx::query("INSERT INTO audit (at, who, action, object) VALUES ($1, $2, $3, $4)")
        .bind(micros(*at))
        .bind(kept(who))
        .bind(kept(action))
        .bind(kept(object))
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn audit_log(pool: &PgPool, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let rows = sqlx::query("SELECT at, who, action, object FROM audit ORDER BY id DESC LIMIT $1");
    rows.bind(i64::from(limit)).fetch_all(pool).await?.iter().map(rows::audit).collect()
}
