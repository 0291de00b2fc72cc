//! Which replica has the session of a cluster, and what it shows of it.

use std::collections::{BTreeMap, BTreeSet};

use active_monitor_core::session::frame::DefinitionStatus;
use sqlx::postgres::{PgConnection, PgPool};

use super::super::definitions::{statuses, write_statuses};
use super::{Publication, Shown, changes};
use crate::store::StoreError;
use crate::store::queries::kept;
use crate::store::rows::json;

/// Checks in one INSERT: enough that round trips do not count, and no text of a whole fleet at once.
const ROWS_PER_INSERT: usize = 1000;

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
        let newest = newest(&mut transaction, replica, all).await?;
        let (taken, late): (Vec<_>, Vec<_>) = all.iter().partition(|publication| is_among(&newest, publication));
        refused.extend(late.into_iter().map(|publication| publication.cluster.clone()));
        write(&mut transaction, &taken).await?;
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

/// Those sessions here that are the newest of their clusters, for as long as this one has its place among the writers.
async fn newest(
    db: &mut PgConnection,
    replica: &str,
    all: &[Publication],
) -> Result<BTreeSet<(String, i64)>, StoreError> {
    let (clusters, epochs): (Vec<_>, Vec<_>) = all.iter().map(session).unzip();
    let newest = "SELECT cluster, epoch FROM replica_sessions JOIN unnest($1::text[], $2::bigint[]) \
                  AS own (cluster, epoch) USING (cluster, epoch) WHERE replica = $3";
    let newest = sqlx::query_as(newest).bind(clusters).bind(epochs).bind(replica).fetch_all(db).await?;
    Ok(newest.into_iter().collect())
}

fn session(publication: &Publication) -> (String, i64) {
    (kept(&publication.cluster), publication.epoch.cast_signed())
}

fn is_among(sessions: &BTreeSet<(String, i64)>, publication: &Publication) -> bool {
    sessions.contains(&session(publication))
}

/// The uids of checks that were written, by cluster.
type Written = BTreeMap<String, Vec<String>>;

/// A few statements, however many clusters there are: others wait for the place among the writers meanwhile.
async fn write(db: &mut PgConnection, all: &[&Publication]) -> Result<(), StoreError> {
    let mut written = Written::new();
    put_links(db, all).await?;
    delete(db, all, &mut written).await?;
    put(db, all, &mut written).await?;
    for publication in all.iter().filter(|publication| publication.is_whole) {
        // What others know of the replica before may not be what was written last: they begin anew.
        written.insert(kept(&publication.cluster), vec!["*".to_owned()]);
    }
    changes::note_checks(db, &written).await
}

async fn put_links(db: &mut PgConnection, all: &[&Publication]) -> Result<(), StoreError> {
    let links =
        all.iter().filter_map(|publication| Some((kept(&publication.cluster), kept(publication.link.as_ref()?))));
    let (clusters, links): (Vec<_>, Vec<_>) = links.unzip();
    if clusters.is_empty() {
        return Ok(());
    }
    let update = "UPDATE replica_sessions AS old SET link = new.link FROM unnest($1::text[], $2::text[]) \
                  AS new (cluster, link) WHERE old.cluster = new.cluster AND old.link IS DISTINCT FROM new.link";
    sqlx::query(update).bind(clusters).bind(links).execute(db).await?;
    Ok(())
}

/// Takes the checks away that are gone, and notes those that were there.
async fn delete(db: &mut PgConnection, all: &[&Publication], written: &mut Written) -> Result<(), StoreError> {
    let mut gone = unnamed(db, all).await?;
    for Publication { cluster, removed, .. } in all {
        gone.extend(removed.iter().map(|uid| (kept(cluster), kept(uid))));
    }
    let (clusters, uids): (Vec<_>, Vec<_>) = gone.into_iter().unzip();
    if clusters.is_empty() {
        return Ok(());
    }
    let delete = sqlx::query_as(
        "DELETE FROM check_states AS old USING unnest($1::text[], $2::text[]) AS gone (cluster, uid) \
         WHERE old.cluster = gone.cluster AND old.uid = gone.uid RETURNING old.cluster, old.uid",
    );
    note(written, delete.bind(clusters).bind(uids).fetch_all(db).await?);
    Ok(())
}

/// The checks of clusters that are published as a whole, as far as they are not among those.
async fn unnamed(db: &mut PgConnection, all: &[&Publication]) -> Result<BTreeSet<(String, String)>, StoreError> {
    let whole: Vec<_> = all.iter().filter(|publication| publication.is_whole).collect();
    if whole.is_empty() {
        return Ok(BTreeSet::new());
    }
    let clusters: Vec<String> = whole.iter().map(|publication| kept(&publication.cluster)).collect();
    let there = sqlx::query_as("SELECT cluster, uid FROM check_states WHERE cluster = ANY($1)");
    let mut there: BTreeSet<(String, String)> = there.bind(clusters).fetch_all(db).await?.into_iter().collect();
    for Publication { cluster, checks, .. } in whole {
        for check in checks {
            there.remove(&(kept(cluster), kept(&check.state.uid)));
        }
    }
    Ok(there)
}

/// Writes the checks, and notes those that differ from what was there.
async fn put(db: &mut PgConnection, all: &[&Publication], written: &mut Written) -> Result<(), StoreError> {
    // One INSERT takes each check once.
    let mut checks = BTreeMap::new();
    for Publication { cluster, checks: shown, .. } in all {
        checks.extend(shown.iter().map(|check| ((kept(cluster), kept(&check.state.uid)), check)));
    }
    let put = "INSERT INTO check_states AS old (cluster, uid, state, health, status) \
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) \
               ON CONFLICT (cluster, uid) DO UPDATE SET state = excluded.state, health = excluded.health, \
               status = excluded.status WHERE (old.state, old.health, old.status) \
               IS DISTINCT FROM (excluded.state, excluded.health, excluded.status) RETURNING cluster, uid";
    let mut checks = checks.into_iter().peekable();
    while checks.peek().is_some() {
        let (mut clusters, mut uids) = (Vec::new(), Vec::new());
        let (mut states, mut healths, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
        for ((cluster, uid), Shown { state, health, status }) in checks.by_ref().take(ROWS_PER_INSERT) {
            clusters.push(cluster);
            uids.push(uid);
            states.push(json(state)?);
            healths.push(json(health)?);
            statuses.push(status.as_str());
        }
        let put = sqlx::query_as(put).bind(clusters).bind(uids).bind(states).bind(healths).bind(statuses);
        note(written, put.fetch_all(&mut *db).await?);
    }
    Ok(())
}

fn note(written: &mut Written, checks: Vec<(String, String)>) {
    for (cluster, uid) in checks {
        written.entry(cluster).or_default().push(uid);
    }
}
