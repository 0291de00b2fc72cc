//! The last saved states of checks.

use std::collections::BTreeMap;

use active_monitor_core::health::Health;
use active_monitor_core::state::CheckState;
use sqlx::postgres::PgPool;

use crate::store::StoreError;
use crate::store::queries::kept;
use crate::store::rows::{json, parse};

pub(super) async fn of(pool: &PgPool, cluster: &str) -> Result<Vec<(CheckState, Health)>, StoreError> {
    let rows =
        sqlx::query_as::<_, (String, String)>("SELECT state, health FROM check_states WHERE cluster = $1 ORDER BY uid");
    let rows = rows.bind(kept(cluster)).fetch_all(pool).await?;
    let read = |(state, health): &(String, String)| Ok((parse("check state", state)?, parse("check health", health)?));
    rows.iter().map(read).collect()
}

pub(super) async fn save(
    pool: &PgPool,
    cluster: &str,
    states: &[(CheckState, Health)],
    removed: &[String],
) -> Result<(), StoreError> {
    // One INSERT takes each uid once; the order keeps two that save at once from waiting for each other.
    let mut rows = BTreeMap::new();
    for (state, health) in states {
        rows.insert(kept(&state.uid), (json(state)?, json(health)?));
    }
    let mut transaction = pool.begin().await?;
    // A cluster that was removed meanwhile must not leave ghosts for a later namesake.
    let known = sqlx::query("SELECT 1 FROM clusters WHERE name = $1 FOR SHARE").bind(kept(cluster));
    if known.fetch_optional(&mut *transaction).await?.is_none() {
        return Ok(());
    }
    let delete = sqlx::query("DELETE FROM check_states WHERE cluster = $1 AND uid = ANY($2)");
    let removed: Vec<String> = removed.iter().map(|uid| kept(uid)).collect();
    delete.bind(kept(cluster)).bind(removed).execute(&mut *transaction).await?;
    let (mut uids, mut states, mut healths) = (Vec::new(), Vec::new(), Vec::new());
    for (uid, (state, health)) in rows {
        uids.push(uid);
        states.push(state);
        healths.push(health);
    }
    sqlx::query(
        "INSERT INTO check_states (cluster, uid, state, health) \
         SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[]) \
         ON CONFLICT (cluster, uid) DO UPDATE SET state = excluded.state, health = excluded.health",
    )
    .bind(kept(cluster))
    .bind(uids)
    .bind(states)
    .bind(healths)
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}
