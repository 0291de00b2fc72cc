//! What was shown of checks over time, and when a hub was there to see it.

use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::CheckStatus;
use futures::TryStreamExt;
use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::ROWS_PER_INSERT;
use super::rows::{self, micros};
use crate::store::{CheckKey, StoreError, TransitionQuery, queries};

pub(super) async fn record(
    db: &mut SqliteConnection,
    life: Life,
    transitions: &[(CheckKey, Transition)],
) -> Result<(), sqlx::Error> {
    for chunk in transitions.chunks(ROWS_PER_INSERT) {
        let mut sql =
            QueryBuilder::<Sqlite>::new("INSERT INTO transitions (cluster, namespace, name, at, status, maintenance) ");
        sql.push_values(
            chunk,
            |mut row, (CheckKey { cluster, namespace, name }, Transition { at, status, maintenance })| {
                row.push_bind(cluster.clone()).push_bind(namespace.clone()).push_bind(name.clone());
                row.push_bind(micros(*at)).push_bind(status.map_or("", CheckStatus::as_str)).push_bind(*maintenance);
            },
        );
        sql.build().execute(&mut *db).await?;
    }
    let alive = "INSERT INTO hub_lives (started_at, alive_at) VALUES (?, ?) \
                 ON CONFLICT (started_at) DO UPDATE SET alive_at = excluded.alive_at";
    sqlx::query(alive).bind(micros(life.from)).bind(micros(life.to)).execute(db).await.map(drop)
}

pub(super) async fn lives(readers: &SqlitePool) -> Result<Vec<Life>, StoreError> {
    let rows = sqlx::query("SELECT started_at, alive_at FROM hub_lives ORDER BY started_at").fetch_all(readers).await?;
    rows.iter().map(rows::life).collect()
}

pub(super) async fn forget_after(db: &mut SqliteConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM transitions WHERE at > ?",
        "DELETE FROM hub_lives WHERE started_at > ?",
        "UPDATE hub_lives SET alive_at = ?1 WHERE alive_at > ?1",
        // Days that had not begun, or were not over, are summed up again.
        "DELETE FROM check_days WHERE day >= ?1 / 86400000000",
        "DELETE FROM cluster_days WHERE day >= ?1 / 86400000000",
        "UPDATE rollups SET through = ?1 / 86400000000 - 1 WHERE name = 'days' AND through >= ?1 / 86400000000",
    ] {
        sqlx::query(statement).bind(micros(now)).execute(&mut *db).await?;
    }
    Ok(())
}

/// A row at a time: the whole fleet's are too many to hold.
pub(super) async fn visit(
    readers: &SqlitePool,
    query: &TransitionQuery,
    visit: &mut (dyn FnMut(CheckKey, Transition) + Send),
) -> Result<(), StoreError> {
    let mut sql = queries::transitions::<Sqlite>(query);
    let mut found = sql.build().fetch(readers);
    while let Some(row) = found.try_next().await? {
        let (key, transition) = rows::transition(&row)?;
        visit(key, transition);
    }
    Ok(())
}

/// The ids of the oldest transitions that say nothing of the time from `before` on: a later one does, or the check is gone.
pub(super) async fn spent(readers: &SqlitePool, before: Timestamp, limit: u32) -> Result<Vec<i64>, StoreError> {
    let ids = sqlx::query_scalar::<_, i64>(
        "SELECT id FROM transitions AS old WHERE at < ?1 AND (status = '' OR EXISTS (SELECT 1 FROM transitions AS new \
         WHERE new.cluster = old.cluster AND new.namespace = old.namespace AND new.name = old.name \
         AND new.at > old.at AND new.at < ?1)) ORDER BY at LIMIT ?2",
    );
    Ok(ids.bind(micros(before)).bind(i64::from(limit)).fetch_all(readers).await?)
}

/// Deletes transitions by their ids, and the lives of the hub that ended before them.
pub(super) async fn delete(db: &mut SqliteConnection, ids: &[i64], before: Timestamp) -> Result<u64, sqlx::Error> {
    sqlx::query("DELETE FROM hub_lives WHERE alive_at < ?").bind(micros(before)).execute(&mut *db).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM transitions WHERE id IN (");
    let mut list = sql.separated(", ");
    for id in ids {
        list.push_bind(*id);
    }
    sql.push(")");
    Ok(sql.build().execute(db).await?.rows_affected())
}
