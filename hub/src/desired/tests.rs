//! What is revoked where a replica's clock was ahead when it was made, and who may still say what became of definitions.

use active_monitor_core::definition::{API_VERSION, KIND};
use active_monitor_core::session::frame::{DefinitionResult, Hello};
use active_monitor_runtime::tasks::Tasks;
use jiff::SignedDuration;

use super::*;
use crate::clock;
use crate::owner::{self, Opened};
use crate::revocations::{FILE_NAME, Revocations};
use crate::store::ClusterRecord;
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

/// The rebinding is noted for a time that has not come yet.
#[tokio::test]
async fn a_namesake_of_what_a_clock_ahead_rebound_stays_bound_over_a_start() {
    let data = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    store.put_cluster(&ahead()).await.unwrap();
    let tasks = Tasks::new();
    let fleet = owner::start(Arc::clone(&store), Terms::of_a_test(data.path()), &tasks).await.unwrap();
    fleet.new_token("a", true).await.unwrap();
    fleet.remove_cluster("a").await.unwrap();
    fleet.add_cluster(ClusterAdd { name: "a".into(), ..ClusterAdd::default() }).await.unwrap();
    let (now, token) = (clock::now(), store.enrolment_token("a").await.unwrap().unwrap());
    let key = AgentKey { hash: [2; 32], issued_at: now, not_after: now, bundle: None };
    store.spend_enrolment_token("a", token.hash, &key, "another").await.unwrap();
    tasks.stop();
    Revocations::load(&data.path().join(FILE_NAME)).unwrap().enforce(&*store).await.unwrap();
    assert_eq!(store.clusters().await.unwrap()[0].cluster_uid.as_deref(), Some("another"));
}

/// The agent of a cluster has enrolled, and opens a session.
pub(crate) async fn session(fleet: &FleetHandle, cluster: &str) -> Opened {
    let now = clock::now();
    let key = AgentKey { hash: [1; 32], issued_at: now, not_after: now, bundle: None };
    fleet.bound(cluster, "uid", key).await.unwrap();
    let hello = Hello {
        cluster: cluster.to_owned(),
        cluster_uid: "uid".to_owned(),
        incarnation: "i".to_owned(),
        agent_version: String::new(),
        kubernetes_version: String::new(),
        oldest_seq: 1,
        next_seq: 1,
        sent_at: now,
        dropped_reports: 0,
        journal_id: String::new(),
        hub_mark: String::new(),
        policy: Vec::new(),
    };
    fleet.open(hello).await.unwrap()
}

#[tokio::test]
async fn what_a_replaced_session_says_of_definitions_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    let tasks = Tasks::new();
    let fleet = owner::start(Arc::clone(&store), Terms::of_a_test(data.path()), &tasks).await.unwrap();
    let add = async || drop(fleet.add_cluster(ClusterAdd { name: "a".into(), ..ClusterAdd::default() }).await.unwrap());
    add().await;
    let definition = serde_json::json!({
        "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "dns"},
        "spec": {
            "clusterSelector": {},
            "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": 60}},
        },
    });
    fleet.put_definition(parse::from_value(definition).unwrap()).await.unwrap();
    let result = || fleet.definitions()["dns"].clusters[0].result;
    let say = async |epoch, result| {
        let status = DefinitionStatus { name: "dns".into(), generation: 1, result, message: String::new() };
        fleet.definition_statuses("a", epoch, vec![status]).await.unwrap();
        // It is stored and published before what is asked for after the next answer.
        drop(fleet.definition_set("a").await.unwrap());
        drop(fleet.definition_set("a").await.unwrap());
    };

    let before = session(&fleet, "a").await;
    say(before.epoch, DefinitionResult::Applied).await;
    assert_eq!(result(), Some(DefinitionResult::Applied));
    let newest = session(&fleet, "a").await;
    say(newest.epoch, DefinitionResult::Refused).await;
    say(before.epoch, DefinitionResult::Applied).await;
    assert_eq!(result(), Some(DefinitionResult::Refused));
    let stored = store.definition_statuses().await.unwrap();
    assert_eq!(stored.iter().map(|(_, status)| status.result).collect::<Vec<_>>(), [DefinitionResult::Refused]);

    fleet.remove_cluster("a").await.unwrap();
    add().await;
    say(newest.epoch, DefinitionResult::Applied).await;
    assert_eq!(result(), None, "of a cluster that was removed, not of its namesake");
    tasks.stop();
}
