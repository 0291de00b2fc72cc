//! Definitions, and what agents said of them.

use active_monitor_core::session::frame::DefinitionStatus;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::rows::{self, parse};
use crate::store::{DefinitionRecord, StoreError};

pub(super) async fn all(readers: &SqlitePool) -> Result<Vec<DefinitionRecord>, StoreError> {
    let rows =
        sqlx::query("SELECT name, generation, definition FROM definitions WHERE definition IS NOT NULL ORDER BY name");
    rows.fetch_all(readers).await?.iter().map(rows::definition).collect()
}

pub(super) async fn put(db: &mut SqliteConnection, name: &str, definition: &str) -> Result<u64, sqlx::Error> {
    let generation: i64 = sqlx::query_scalar(
        "INSERT INTO definitions (name, generation, definition) VALUES (?, 1, ?) ON CONFLICT (name) \
         DO UPDATE SET generation = generation + 1, definition = excluded.definition RETURNING generation",
    )
    .bind(name)
    .bind(definition)
    .fetch_one(db)
    .await?;
    Ok(generation.unsigned_abs())
}

pub(super) async fn delete(db: &mut SqliteConnection, name: &str) -> Result<(), sqlx::Error> {
    let delete = sqlx::query("UPDATE definitions SET definition = NULL WHERE name = ?");
    delete.bind(name).execute(&mut *db).await?;
    sqlx::query("DELETE FROM definition_statuses WHERE name = ?").bind(name).execute(db).await.map(drop)
}

pub(super) async fn statuses(readers: &SqlitePool) -> Result<Vec<(String, DefinitionStatus)>, StoreError> {
    let rows = sqlx::query_as::<_, (String, String)>("SELECT cluster, status FROM definition_statuses");
    let rows = rows.fetch_all(readers).await?;
    rows.into_iter().map(|(cluster, text)| Ok((cluster, parse("definition status", &text)?))).collect()
}

/// Replaces the statuses of a cluster by these: names and texts.
pub(super) async fn put_statuses(
    db: &mut SqliteConnection,
    cluster: &str,
    statuses: Vec<(String, String)>,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM definition_statuses WHERE cluster = ?").bind(cluster).execute(&mut *db).await?;
    for (name, status) in statuses {
        let insert = sqlx::query("INSERT OR REPLACE INTO definition_statuses (cluster, name, status) VALUES (?, ?, ?)");
        insert.bind(cluster).bind(name).bind(status).execute(&mut *db).await?;
    }
    Ok(())
}
