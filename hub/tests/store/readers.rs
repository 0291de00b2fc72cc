//! What people read from PostgreSQL, and what is written meanwhile.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_hub::store::TransitionQuery;
use jiff::Timestamp;
use sqlx::Connection;

use crate::backends::Backend;
use crate::postgres::Database;
use crate::samples::{at, run};

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_do_not_end_keep_no_commit_waiting() {
    let Some(database) = Database::create("reads_that_do_not_end_keep_no_commit_waiting").await else { return };
    let mut lock = database.connect().await;
    let mut watch = database.connect().await;
    let open = Backend::Postgres(database).open().await;
    let mut locked = lock.begin().await.unwrap();
    sqlx::query("LOCK TABLE transitions IN ACCESS EXCLUSIVE MODE").execute(&mut *locked).await.unwrap();
    let reads: Vec<_> = (0..40)
        .map(|_| {
            let store = Arc::clone(&open.store);
            tokio::spawn(async move {
                let (from, to) = (Timestamp::MIN, Timestamp::MAX);
                let query = TransitionQuery { cluster: None, namespace: None, name: None, from, to };
                store.transitions(&query, &mut |_, _| {}).await
            })
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
                   AND query LIKE '%transitions%'";
    let all_readers = async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watch).await.unwrap() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_readers).await.unwrap();
    assert_eq!(open.store.record_runs("a", vec![run("dns", 0)], at(0)).await.unwrap().new, 1);
    reads.iter().for_each(tokio::task::JoinHandle::abort);
    locked.rollback().await.unwrap();
    for read in reads {
        let _ = read.await;
    }
    open.close().await;
}
