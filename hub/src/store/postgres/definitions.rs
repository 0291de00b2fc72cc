//! Definitions, and what agents said of them.

use std::collections::{BTreeMap, BTreeSet};

use active_monitor_core::session::frame::DefinitionStatus;
use sqlx::postgres::{PgConnection, PgPool};

use crate::store::queries::kept;
use crate::store::rows::{self, json, parse};
use crate::store::{DefinitionRecord, StoreError};

pub(super) async fn all(pool: &PgPool) -> Result<Vec<DefinitionRecord>, StoreError> {
    let rows =
        sqlx::query("SELECT name, generation, definition FROM definitions WHERE definition IS NOT NULL ORDER BY name");
    rows.fetch_all(pool).await?.iter().map(rows::definition).collect()
}

pub(super) async fn put(pool: &PgPool, name: &str, definition: &serde_json::Value) -> Result<u64, StoreError> {
    let generation: i64 = sqlx::query_scalar(
        "INSERT INTO definitions (name, generation, definition) VALUES ($1, 1, $2) ON CONFLICT (name) \
         DO UPDATE SET generation = definitions.generation + 1, definition = excluded.definition RETURNING generation",
    )
    .bind(kept(name))
    .bind(json(definition)?)
    .fetch_one(pool)
    .await?;
    Ok(generation.unsigned_abs())
}

pub(super) async fn delete(pool: &PgPool, name: &str) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    let delete = sqlx::query("UPDATE definitions SET definition = NULL WHERE name = $1");
    delete.bind(kept(name)).execute(&mut *transaction).await?;
    let statuses = sqlx::query("DELETE FROM definition_statuses WHERE name = $1");
    statuses.bind(kept(name)).execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

/// Those of these clusters, or of all.
pub(super) async fn statuses(
    pool: &PgPool,
    clusters: Option<&BTreeSet<String>>,
) -> Result<Vec<(String, DefinitionStatus)>, StoreError> {
    let named = clusters.map(|names| names.iter().map(|name| kept(name)).collect::<Vec<_>>());
    let rows = sqlx::query_as::<_, (String, String)>(
        "SELECT cluster, status FROM definition_statuses WHERE $1::text[] IS NULL OR cluster = ANY($1)",
    );
    let rows = rows.bind(named).fetch_all(pool).await?;
    rows.into_iter().map(|(cluster, text)| Ok((cluster, parse("definition status", &text)?))).collect()
}

pub(super) async fn put_statuses(
    pool: &PgPool,
    cluster: &str,
    statuses: &[DefinitionStatus],
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    write_statuses(&mut transaction, cluster, statuses).await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn write_statuses(
    db: &mut PgConnection,
    cluster: &str,
    statuses: &[DefinitionStatus],
) -> Result<(), StoreError> {
    // One INSERT takes each name once.
    let mut rows = BTreeMap::new();
    for status in statuses {
        rows.insert(kept(&status.name), json(status)?);
    }
    let (names, texts): (Vec<String>, Vec<String>) = rows.into_iter().unzip();
    let delete = sqlx::query("DELETE FROM definition_statuses WHERE cluster = $1");
    delete.bind(kept(cluster)).execute(&mut *db).await?;
    let insert = sqlx::query(
        "INSERT INTO definition_statuses (cluster, name, status) SELECT $1, * FROM unnest($2::text[], $3::text[]) \
         ON CONFLICT (cluster, name) DO UPDATE SET status = excluded.status",
    );
    insert.bind(kept(cluster)).bind(names).bind(texts).execute(db).await?;
    Ok(())
}
