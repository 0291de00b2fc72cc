//! What only SQLite does; what every store does is in `hub/tests/store`.

use std::sync::Arc;

use active_monitor_core::run::{Outcome, Reason, RunKey, RunKind};
use tempfile::TempDir;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn run(check: &str, slot: i64) -> Run {
    Run {
        key: RunKey { check_uid: format!("uid-{check}"), kind: RunKind::HealthCheck, slot: at(slot) },
        namespace: "health".into(),
        name: check.into(),
        workflow: Some(format!("health/{check}-{slot}")),
        outcome: if slot % 2 == 0 { Outcome::Succeeded } else { Outcome::Failed },
        reason: (slot % 2 != 0).then_some(Reason::WorkflowFailed),
        message: String::new(),
        started_at: at(slot),
        finished_at: at(slot + 1),
        warning: String::new(),
        log_tail: String::new(),
    }
}

async fn store() -> (TempDir, SqliteStore) {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    (dir, store)
}

#[tokio::test]
async fn concurrent_writers_share_commits() {
    let (_dir, store) = store().await;
    let store = Arc::new(store);
    let before = store.writer.metrics().commits.get_sample_count();
    let tasks: Vec<_> = (0..400)
        .map(|slot| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.record_runs("a", vec![run("dns", slot)], at(0)).await.unwrap().new })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!(new, 400);
    let used = store.writer.metrics().commits.get_sample_count() - before;
    assert!(used < 200, "{used} commits for 400 writers");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_the_store_goes_on_afterwards() {
    let (_dir, store) = store().await;
    let limit = |pages: &'static str| {
        store.write(move |db| async move { sqlx::query(pages).execute(db).await.map(drop) }.boxed())
    };
    limit("PRAGMA max_page_count = 40").await.unwrap();
    let big = |slot| Run { message: "x".repeat(1000), ..run("dns", slot) };
    let full = store.record_runs("a", (0..400).map(big).collect(), at(0)).await;
    assert!(full.is_err(), "{full:?}");
    let page = store.runs(&RunQuery { limit: 10, ..RunQuery::default() }).await.unwrap();
    assert!(page.items.is_empty(), "nothing of a failed write stays");
    limit("PRAGMA max_page_count = 1000000").await.unwrap();
    assert_eq!(store.record_runs("a", (0..400).map(big).collect(), at(0)).await.unwrap().new, 400);
}

#[tokio::test]
async fn one_failing_write_does_not_undo_its_neighbours() {
    let (_dir, store) = store().await;
    let broken = store
        .write(|db| async move { sqlx::query("INSERT INTO nowhere VALUES (1)").execute(db).await.map(drop) }.boxed());
    let (broken, good) = tokio::join!(broken, store.record_runs("a", vec![run("dns", 0)], at(0)));
    assert!(broken.is_err());
    assert_eq!(good.unwrap().new, 1);
}
