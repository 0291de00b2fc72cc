//! What a replica reads of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use active_monitor_core::view::CheckStatus;
use sqlx::postgres::{PgConnection, PgPool};

use super::Shown;
use super::changes::{Topic, micros};
use crate::store::StoreError;
use crate::store::rows::{check_status, parse};

/// Replicas that have said nothing for so long are not told of.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What was written after a revision, as it was in one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Followed {
    /// Ask for what comes after it next.
    pub revision: u64,
    /// What came after the revision that was asked for is forgotten already: everything is here, as if all had changed.
    pub is_gap: bool,
    /// Replicas, this one among them, and how long ago they said that they are alive, by the data base's clock.
    pub replicas: Vec<(String, Duration)>,
    /// Clusters that have, or had, a session, as far as something of it changed. None whose session is at the replica that
    /// asks: what it published it knows. That it took a session over it may not: it can have failed then.
    pub clusters: Vec<FollowedCluster>,
    /// What else was written, and of which cluster; the name is empty where it is of none.
    pub topics: BTreeSet<(Topic, String)>,
}

/// What changed of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct FollowedCluster {
    /// Name of the cluster.
    pub cluster: String,
    /// The replica that has its newest session, or had it.
    pub replica: String,
    /// Of that session.
    pub epoch: u64,
    /// What is shown of the link, as JSON; absent until that is published.
    pub link: Option<String>,
    /// Checks that changed.
    pub checks: Vec<Shown>,
    /// uids of checks that are gone.
    pub removed: Vec<String>,
    /// Whether these are all checks of the cluster.
    pub is_whole: bool,
}

type State = (String, String, String, String, String);

pub(super) async fn follow(pool: &PgPool, own: &str, after: u64) -> Result<Followed, StoreError> {
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let db = &mut *transaction;
    let bounds = "SELECT coalesce(min(revision), 2), coalesce(max(revision), 1) FROM replica_changes";
    let (oldest, newest): (i64, i64) = sqlx::query_as(bounds).fetch_one(&mut *db).await?;
    let is_gap = after > 0 && after.saturating_add(1) < oldest.unsigned_abs();
    let is_whole = is_gap || after == 0;
    let mut followed = Followed { revision: newest.unsigned_abs(), is_gap, ..Followed::default() };
    followed.replicas = replicas(db).await?;
    // The uids of the checks that changed, by cluster.
    let mut checks = BTreeMap::<String, BTreeSet<String>>::new();
    if !is_whole {
        let changes = "SELECT DISTINCT topic, cluster, uids FROM replica_changes WHERE revision > $1";
        let changes = sqlx::query_as::<_, (String, String, String)>(changes).bind(after.cast_signed());
        for (table, cluster, uids) in changes.fetch_all(&mut *db).await? {
            if let Some(topic) = Topic::of_table(&table) {
                followed.topics.insert((topic, cluster));
            } else if matches!(table.as_str(), "replica_sessions" | "check_states") {
                checks.entry(cluster).or_default().extend(parse::<Vec<String>>("uids of checks", &uids)?);
            }
        }
    }
    followed.clusters = clusters(db, own, (!is_whole).then_some(&checks)).await?;
    transaction.commit().await?;
    Ok(followed)
}

async fn replicas(db: &mut PgConnection) -> Result<Vec<(String, Duration)>, StoreError> {
    let alive = "SELECT id, greatest(replica_now() - alive_at, 0) FROM replicas WHERE alive_at > replica_now() - $1 ORDER BY id";
    let alive = sqlx::query_as::<_, (String, i64)>(alive).bind(micros(FORGOTTEN));
    let read = |(id, silent): (String, i64)| (id, Duration::from_micros(silent.unsigned_abs()));
    Ok(alive.fetch_all(db).await?.into_iter().map(read).collect())
}

/// Sessions and checks of these clusters, or of all, but for what this replica published itself.
async fn clusters(
    db: &mut PgConnection,
    own: &str,
    changed: Option<&BTreeMap<String, BTreeSet<String>>>,
) -> Result<Vec<FollowedCluster>, StoreError> {
    let names = changed.map(|changed| changed.keys().cloned().collect::<Vec<_>>());
    let sessions = sqlx::query_as::<_, (String, String, i64, Option<String>)>(
        "SELECT cluster, replica, epoch, link FROM replica_sessions WHERE ($1::text[] IS NULL OR cluster = ANY($1)) \
         AND (replica <> $2 OR link IS NULL) ORDER BY cluster",
    );
    let sessions = sessions.bind(names).bind(own).fetch_all(&mut *db).await?;
    let is_whole = |cluster: &str| changed.and_then(|all| all.get(cluster)).is_none_or(|uids| uids.contains("*"));
    let (mut whole, mut some) = (Vec::new(), (Vec::new(), Vec::new()));
    for (cluster, ..) in &sessions {
        if is_whole(cluster) {
            whole.push(cluster.clone());
        } else {
            for uid in changed.and_then(|all| all.get(cluster)).into_iter().flatten() {
                some.0.push(cluster.clone());
                some.1.push(uid.clone());
            }
        }
    }
    let states = sqlx::query_as::<_, State>(
        "SELECT cluster, uid, state, health, status FROM check_states WHERE cluster = ANY($1) \
         UNION ALL SELECT cluster, uid, state, health, status FROM check_states \
         JOIN unnest($2::text[], $3::text[]) AS named (cluster, uid) USING (cluster, uid)",
    );
    let mut shown = BTreeMap::<String, Vec<Shown>>::new();
    for (cluster, _, state, health, status) in states.bind(whole).bind(some.0).bind(some.1).fetch_all(db).await? {
        shown.entry(cluster).or_default().push(check(&state, &health, &status)?);
    }
    let cluster = |(cluster, replica, epoch, link): (String, String, i64, Option<String>)| {
        let checks = shown.remove(&cluster).unwrap_or_default();
        let is_whole = is_whole(&cluster);
        let named = changed.and_then(|all| all.get(&cluster)).filter(|_| !is_whole).into_iter().flatten();
        let is_gone = |uid: &&String| !checks.iter().any(|check| &check.state.uid == *uid);
        let removed = named.filter(is_gone).cloned().collect();
        FollowedCluster { cluster, replica, epoch: epoch.unsigned_abs(), link, checks, removed, is_whole }
    };
    Ok(sessions.into_iter().map(cluster).collect())
}

/// What no replica has shown yet is of a hub that was alone, and nobody has said since that it is still so.
fn check(state: &str, health: &str, status: &str) -> Result<Shown, StoreError> {
    let status = check_status(status)?.unwrap_or(CheckStatus::Stale);
    Ok(Shown { state: parse("check state", state)?, health: parse("check health", health)?, status })
}
