//! API tokens, ended sessions and the audit log.

use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::rows::{self, micros};
use crate::store::{ApiToken, AuditEntry, StoreError};

pub(super) async fn tokens(readers: &SqlitePool) -> Result<Vec<ApiToken>, StoreError> {
    let rows = sqlx::query("SELECT name, role, hash, created_at FROM api_tokens ORDER BY name");
    rows.fetch_all(readers).await?.iter().map(rows::api_token).collect()
}

pub(super) async fn put_token(db: &mut SqliteConnection, token: ApiToken) -> Result<(), sqlx::Error> {
    let ApiToken { name, role, hash, created_at } = token;
    sqlx::query("INSERT OR REPLACE INTO api_tokens (name, role, hash, created_at) VALUES (?, ?, ?, ?)")
        .bind(name)
        .bind(role.as_str())
        .bind(hash.to_vec())
        .bind(micros(created_at))
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn delete_token(db: &mut SqliteConnection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM api_tokens WHERE name = ?").bind(name).execute(db).await.map(drop)
}

pub(super) async fn ended_sessions(readers: &SqlitePool) -> Result<Vec<(String, Timestamp)>, StoreError> {
    let rows = sqlx::query("SELECT subject, at FROM ended_sessions ORDER BY subject");
    rows.fetch_all(readers).await?.iter().map(rows::ended_session).collect()
}

pub(super) async fn end_sessions(
    db: &mut SqliteConnection,
    subject: &str,
    at: Timestamp,
    over: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM ended_sessions WHERE at < ?").bind(micros(over)).execute(&mut *db).await?;
    sqlx::query(
        "INSERT INTO ended_sessions (subject, at) VALUES (?, ?) ON CONFLICT (subject) \
         DO UPDATE SET at = max(at, excluded.at)",
    )
    .bind(subject)
    .bind(micros(at))
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn audit(db: &mut SqliteConnection, entry: AuditEntry) -> Result<(), sqlx::Error> {
    let AuditEntry { at, who, action, object } = entry;
    sqlx::query("INSERT INTO audit (at, who, action, object) VALUES (?, ?, ?, ?)")
        .bind(micros(at))
        .bind(who)
        .bind(action)
        .bind(object)
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn audit_log(readers: &SqlitePool, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let rows = sqlx::query("SELECT at, who, action, object FROM audit ORDER BY id DESC LIMIT ?");
    rows.bind(i64::from(limit)).fetch_all(readers).await?.iter().map(rows::audit).collect()
}
