//! What is revoked where a replica's clock was ahead when it was made.

use active_monitor_runtime::tasks::Tasks;
use jiff::SignedDuration;

use super::*;
use crate::owner;
use crate::revocations::{FILE_NAME, Revocations};
use crate::store::sqlite::SqliteStore;

/// A cluster that another replica added an hour ahead of the time, and gave a certificate to an hour later.
fn ahead() -> ClusterRecord {
    let created_at = clock::now() + SignedDuration::from_hours(1);
    let issued_at = created_at + SignedDuration::from_hours(1);
    let key = AgentKey { hash: [1; 32], issued_at, not_after: issued_at, bundle: None };
    let (cluster_uid, agent_keys) = (Some("uid".to_owned()), vec![key]);
    ClusterRecord { name: "a".into(), created_at, cluster_uid, agent_keys, ..ClusterRecord::default() }
}

/// What the deed gives, and what is left then of the cluster in a backup that is restored.
async fn after<T>(record: &ClusterRecord, deed: impl AsyncFnOnce(&FleetHandle) -> T) -> (T, Option<ClusterRecord>) {
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, backup) = (SqliteStore::open(data.path()).await.unwrap(), SqliteStore::open(elsewhere.path()).await);
    let backup = backup.unwrap();
    for store in [&store, &backup] {
        store.put_cluster(record).await.unwrap();
    }
    let tasks = Tasks::new();
    let fleet = owner::start(Arc::new(store), Terms::of_a_test(data.path()), &tasks).await.unwrap();
    let done = deed(&fleet).await;
    tasks.stop();
    Revocations::load(&data.path().join(FILE_NAME)).unwrap().enforce(&backup).await.unwrap();
    (done, backup.clusters().await.unwrap().pop())
}

#[tokio::test]
async fn a_cluster_that_a_clock_ahead_added_is_removed_for_good() {
    let record = ahead();
    let again = async |fleet: &FleetHandle| {
        fleet.remove_cluster("a").await.unwrap();
        fleet.add_cluster(ClusterAdd { name: "a".into(), ..ClusterAdd::default() }).await.unwrap();
        fleet.records()["a"].created_at
    };
    let (again, left) = after(&record, again).await;
    assert_eq!(left, None);
    assert!(again > record.agent_keys[0].issued_at, "no certificate of the removed one is later than its namesake");
}

#[tokio::test]
async fn what_a_clock_ahead_bound_is_unbound_for_good() {
    let rebind = async |fleet: &FleetHandle| fleet.new_token("a", true).await.map(drop);
    let (rebound, left) = after(&ahead(), rebind).await;
    rebound.unwrap();
    assert_eq!(left.map(|record| (record.cluster_uid, record.agent_keys)), Some((None, Vec::new())));
}
