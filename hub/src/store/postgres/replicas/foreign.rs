//! Agents of other clusters that a replica refused under a cluster's identity: each replica shows them.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::PgPool;

use super::changes::micros;
use crate::store::StoreError;
use crate::store::queries::kept;

/// The same is noted again after so long at the earliest.
const AGAIN: Duration = Duration::from_secs(10);
/// What is older is not told any more.
const TOLD: Duration = Duration::from_secs(600);

pub(super) async fn note(pool: &PgPool, cluster: &str, cluster_uid: &str) -> Result<(), StoreError> {
    // Nothing of a cluster that was removed.
    let note = "INSERT INTO replica_foreign AS old (cluster, cluster_uid) SELECT name, $2 FROM clusters WHERE name = $1 \
                ON CONFLICT (cluster) DO UPDATE SET cluster_uid = excluded.cluster_uid, at = excluded.at \
                WHERE old.at < excluded.at - $3";
    sqlx::query(note).bind(kept(cluster)).bind(kept(cluster_uid)).bind(micros(AGAIN)).execute(pool).await?;
    Ok(())
}

/// Of these clusters, or of all: each with the uid that was refused last, and how long ago.
pub(super) async fn told(
    pool: &PgPool,
    clusters: Option<&BTreeSet<String>>,
) -> Result<Vec<(String, String, Duration)>, StoreError> {
    let named = clusters.map(|names| names.iter().map(|name| kept(name)).collect::<Vec<_>>());
    let told = "SELECT cluster, cluster_uid, greatest(replica_now() - at, 0) FROM replica_foreign \
                WHERE at > replica_now() - $1 AND ($2::text[] IS NULL OR cluster = ANY($2))";
    let told = sqlx::query_as::<_, (String, String, i64)>(told).bind(micros(TOLD)).bind(named);
    let read = |(cluster, uid, ago): (String, String, i64)| (cluster, uid, Duration::from_micros(ago.unsigned_abs()));
    Ok(told.fetch_all(pool).await?.into_iter().map(read).collect())
}
