//! Requests that are more than there is room for.

use std::time::Instant;

use active_monitor_core::view::{ClusterAdd, ClusterPatch};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::*;
use crate::store::sqlite::{FILE_NAME, SqliteStore};

/// Further ones than can be under way and in the queue, whichever came first.
const ASKED: usize = 2 * REQUESTS + 9;

#[tokio::test]
async fn requests_beyond_the_queue_wait_for_a_store_that_hangs_and_each_is_answered() {
    let data = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    let tasks = Tasks::new();
    let fleet = start(store, Terms::of_a_test(data.path()), &tasks).await.unwrap();
    fleet.add_cluster(ClusterAdd { name: "a".into(), ..ClusterAdd::default() }).await.unwrap();

    let mut holder = SqliteConnectOptions::new().filename(data.path().join(FILE_NAME)).connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let ask = |number: usize| {
        let fleet = fleet.clone();
        let labels = BTreeMap::from([(format!("l{number}"), Some("x".to_owned()))]);
        let patch = ClusterPatch { labels, ..ClusterPatch::default() };
        tokio::spawn(async move { fleet.patch_cluster("a", patch).await })
    };
    let asked: Vec<_> = (0..ASKED).map(ask).collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    while fleet.requests.capacity() > 0 {
        assert!(Instant::now() < deadline, "{} places are left", fleet.requests.capacity());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(asked.iter().all(|asked| !asked.is_finished()), "none is answered before it is stored");
    assert_eq!(fleet.requests.max_capacity(), REQUESTS);

    sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();
    holder.close().await.unwrap();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    assert_eq!(fleet.records()["a"].labels.len(), ASKED);
    assert_eq!(fleet.requests.capacity(), REQUESTS);
    tasks.stop();
}
