//! What was shown of checks over time, and when a hub was there to see it.

use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::CheckStatus;
use futures::TryStreamExt;
use jiff::Timestamp;
use sqlx::Postgres;
use sqlx::postgres::PgPool;

use super::replicas::{Lease, fence};
use super::within;
use crate::store::queries::{self, kept};
use crate::store::rows::{self, micros};
use crate::store::{CheckKey, StoreError, TransitionQuery};

pub(super) async fn record(
    pool: &PgPool,
    lease: Option<&Lease>,
    life: Life,
    transitions: &[(CheckKey, Transition)],
) -> Result<(), StoreError> {
    fn column<'t, T>(
        transitions: &'t [(CheckKey, Transition)],
        value: impl Fn(&'t CheckKey, &'t Transition) -> T,
    ) -> Vec<T> {
        transitions.iter().map(|(key, transition)| value(key, transition)).collect()
    }
    let mut transaction = pool.begin().await?;
    fence(&mut transaction, lease).await?;
    // The ids are given in the order of the list: of two at one time the later counts.
    sqlx::query(
        "INSERT INTO transitions (cluster, namespace, name, at, status, maintenance) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[])",
    )
    .bind(column(transitions, |key, _| kept(&key.cluster)))
    .bind(column(transitions, |key, _| kept(&key.namespace)))
    .bind(column(transitions, |key, _| kept(&key.name)))
    .bind(column(transitions, |_, transition| micros(transition.at)))
    .bind(column(transitions, |_, transition| transition.status.map_or("", CheckStatus::as_str)))
    .bind(column(transitions, |_, transition| i64::from(transition.maintenance)))
    .execute(&mut *transaction)
    .await?;
    let alive = "INSERT INTO hub_lives (started_at, alive_at) VALUES ($1, $2) \
                 ON CONFLICT (started_at) DO UPDATE SET alive_at = excluded.alive_at";
    sqlx::query(alive).bind(micros(life.from)).bind(micros(life.to)).execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn lives(pool: &PgPool) -> Result<Vec<Life>, StoreError> {
    let rows = sqlx::query("SELECT started_at, alive_at FROM hub_lives ORDER BY started_at").fetch_all(pool).await?;
    rows.iter().map(rows::life).collect()
}

pub(super) async fn forget_after(pool: &PgPool, lease: Option<&Lease>, now: Timestamp) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    fence(&mut transaction, lease).await?;
    for statement in [
        "DELETE FROM transitions WHERE at > $1",
        "DELETE FROM hub_lives WHERE started_at > $1",
        "UPDATE hub_lives SET alive_at = $1 WHERE alive_at > $1",
        // Days that had not begun, or were not over, are summed up again.
        "DELETE FROM check_days WHERE day >= $1 / 86400000000",
        "DELETE FROM cluster_days WHERE day >= $1 / 86400000000",
        "UPDATE rollups SET through = $1 / 86400000000 - 1 WHERE name = 'days' AND through >= $1 / 86400000000",
    ] {
        sqlx::query(statement).bind(micros(now)).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

/// A row at a time: the whole fleet's are too many to hold.
pub(super) async fn visit(
    pool: &PgPool,
    query: &TransitionQuery,
    visit: &mut (dyn FnMut(CheckKey, Transition) + Send),
) -> Result<(), StoreError> {
    let mut sql = queries::transitions::<Postgres>(query);
    let mut found = sql.build().fetch(pool);
    while let Some(row) = within(async { Ok(found.try_next().await?) }).await? {
        let (key, transition) = rows::transition(&row)?;
        visit(key, transition);
    }
    Ok(())
}
