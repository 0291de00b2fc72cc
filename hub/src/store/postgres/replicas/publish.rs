//! Which replica has the session of a cluster, and what it shows of it.

use std::collections::{BTreeMap, BTreeSet};

use active_monitor_core::session::frame::DefinitionStatus;
use sqlx::postgres::{PgConnection, PgPool};

use super::super::definitions::{statuses, write_statuses};
use super::{Publication, Shown, changes};
use crate::store::StoreError;
use crate::store::queries::kept;
use crate::store::rows::json;

pub(super) async fn open(
    pool: &PgPool,
    replica: &str,
    cluster: &str,
    cluster_uid: &str,
) -> Result<Option<u64>, StoreError> {
    let mut transaction = pool.begin().await?;
    changes::in_order(&mut transaction).await?;
    // The server's milliseconds: also larger than the epochs of a cluster of that name that was removed. Nothing is said of
    // the new session's link yet.
    let epoch: Option<i64> = sqlx::query_scalar(
        "INSERT INTO replica_sessions (cluster, replica, epoch) \
         SELECT name, $2, replica_now() / 1000 FROM clusters WHERE name = $1 AND cluster_uid = $3 \
         ON CONFLICT (cluster) DO UPDATE SET replica = excluded.replica, link = NULL, \
         epoch = greatest(replica_sessions.epoch + 1, excluded.epoch) RETURNING epoch",
    )
    .bind(kept(cluster))
    .bind(replica)
    .bind(kept(cluster_uid))
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(epoch.map(i64::unsigned_abs))
}

pub(super) async fn publish(pool: &PgPool, replica: &str, all: &[Publication]) -> Result<Vec<String>, StoreError> {
    let mut refused = Vec::new();
    let mut transaction = pool.begin().await?;
    if !all.is_empty() {
        changes::in_order(&mut transaction).await?;
    }
    for publication in all {
        if !publish_one(&mut transaction, replica, publication).await? {
            refused.push(publication.cluster.clone());
        }
    }
    // When this began: what was shown since, while it waited for others, is not in it.
    let alive = "INSERT INTO replicas (id, alive_at) VALUES ($1, (extract(epoch FROM now()) * 1000000)::bigint) \
                 ON CONFLICT (id) DO UPDATE SET alive_at = excluded.alive_at";
    sqlx::query(alive).bind(replica).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(refused)
}

/// Whether a session here is the newest of its cluster, for as long as this one has its place among the writers.
async fn is_newest(db: &mut PgConnection, replica: &str, cluster: &str, epoch: u64) -> Result<bool, StoreError> {
    let newest = "SELECT 1 FROM replica_sessions WHERE cluster = $1 AND replica = $2 AND epoch = $3";
    let newest = sqlx::query(newest).bind(kept(cluster)).bind(replica).bind(epoch.cast_signed());
    Ok(newest.fetch_optional(db).await?.is_some())
}

pub(super) async fn put_definition_statuses(
    pool: &PgPool,
    replica: &str,
    cluster: &str,
    epoch: u64,
    said: &[DefinitionStatus],
) -> Result<bool, StoreError> {
    // Without a place among the writers: since the session was opened nobody writes what an older one said.
    let there = statuses(pool, Some(&BTreeSet::from([cluster.to_owned()]))).await?;
    let there: BTreeMap<&String, &DefinitionStatus> = there.iter().map(|(_, status)| (&status.name, status)).collect();
    if there == said.iter().map(|status| (&status.name, status)).collect() {
        return Ok(true);
    }
    let mut transaction = pool.begin().await?;
    changes::in_order(&mut transaction).await?;
    if !is_newest(&mut transaction, replica, cluster, epoch).await? {
        return Ok(false);
    }
    write_statuses(&mut transaction, cluster, said).await?;
    transaction.commit().await?;
    Ok(true)
}

/// False where the session is no more the newest of its cluster.
async fn publish_one(db: &mut PgConnection, replica: &str, publication: &Publication) -> Result<bool, StoreError> {
    let Publication { cluster, epoch, link, checks, removed, is_whole } = publication;
    if !is_newest(db, replica, cluster, *epoch).await? {
        return Ok(false);
    }
    if let Some(link) = link {
        let update = "UPDATE replica_sessions SET link = $2 WHERE cluster = $1 AND link IS DISTINCT FROM $2";
        sqlx::query(update).bind(kept(cluster)).bind(kept(link)).execute(&mut *db).await?;
    }
    let mut written = delete(db, cluster, checks, removed, *is_whole).await?;
    written.extend(put(db, cluster, checks).await?);
    if *is_whole {
        // What others know of the replica before may not be what was written last: they begin anew.
        written = vec!["*".to_owned()];
    }
    if !written.is_empty() {
        changes::note_checks(db, cluster, &written).await?;
    }
    Ok(true)
}

/// Returns the uids of those that were there.
async fn delete(
    db: &mut PgConnection,
    cluster: &str,
    checks: &[Shown],
    removed: &[String],
    is_whole: bool,
) -> Result<Vec<String>, StoreError> {
    let removed: Vec<String> = removed.iter().map(|uid| kept(uid)).collect();
    let named: Vec<String> = checks.iter().map(|check| kept(&check.state.uid)).collect();
    let delete = sqlx::query_scalar(
        "DELETE FROM check_states WHERE cluster = $1 AND (uid = ANY($2) OR ($3 AND NOT uid = ANY($4))) RETURNING uid",
    );
    Ok(delete.bind(kept(cluster)).bind(removed).bind(is_whole).bind(named).fetch_all(db).await?)
}

/// Returns the uids of those that differ from what was there.
async fn put(db: &mut PgConnection, cluster: &str, checks: &[Shown]) -> Result<Vec<String>, StoreError> {
    // One INSERT takes each uid once.
    let mut rows = BTreeMap::new();
    for Shown { state, health, status } in checks {
        rows.insert(kept(&state.uid), (json(state)?, json(health)?, status.as_str()));
    }
    let (mut uids, mut states, mut healths, mut statuses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (uid, (state, health, status)) in rows {
        uids.push(uid);
        states.push(state);
        healths.push(health);
        statuses.push(status);
    }
    let put = sqlx::query_scalar(
        "INSERT INTO check_states AS old (cluster, uid, state, health, status) \
         SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) \
         ON CONFLICT (cluster, uid) DO UPDATE SET state = excluded.state, health = excluded.health, \
         status = excluded.status WHERE (old.state, old.health, old.status) \
         IS DISTINCT FROM (excluded.state, excluded.health, excluded.status) RETURNING uid",
    );
    Ok(put.bind(kept(cluster)).bind(uids).bind(states).bind(healths).bind(statuses).fetch_all(db).await?)
}
