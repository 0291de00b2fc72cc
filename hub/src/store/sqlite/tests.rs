use std::sync::Arc;

use active_monitor_core::run::{Outcome, Reason, RunKey, RunKind};
use active_monitor_core::session::frame::DefinitionResult;
use active_monitor_core::state::{Phase, Totals};
use active_monitor_core::view::Role;
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
    }
}

fn cluster(name: &str) -> ClusterRecord {
    ClusterRecord {
        name: name.into(),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        annotations: Default::default(),
        cluster_uid: None,
        created_at: at(0),
    }
}

fn state(uid: &str) -> CheckState {
    CheckState {
        uid: uid.into(),
        namespace: "health".into(),
        name: uid.into(),
        description: String::new(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: "@every 60s".into(),
        running: None,
        next_slot: Some(at(60)),
        timeout_seconds: 60,
        check: Totals::default(),
        remedy: None,
        remedy_status: String::new(),
        samples: Vec::new(),
        definition: None,
    }
}

async fn store() -> (TempDir, SqliteStore) {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    (dir, store)
}

#[tokio::test]
async fn a_run_is_recorded_once_and_survives_a_reopen() {
    let (dir, store) = store().await;
    let runs = vec![run("dns", 0), run("dns", 1)];
    assert_eq!(store.record_runs("a", runs.clone(), at(5)).await.unwrap(), Recorded { new: 2, known: 0 });
    assert_eq!(store.record_runs("a", runs.clone(), at(6)).await.unwrap(), Recorded { new: 0, known: 2 });
    assert_eq!(store.record_runs("b", runs.clone(), at(6)).await.unwrap(), Recorded { new: 2, known: 0 });
    store.close().await;

    let store = SqliteStore::open(dir.path()).await.unwrap();
    let query = RunQuery { cluster: Some("a".into()), limit: 10, ..RunQuery::default() };
    let page = store.runs(&query).await.unwrap();
    assert_eq!(page.items.iter().map(|item| item.run.clone()).collect::<Vec<_>>(), [run("dns", 1), run("dns", 0)]);
    assert_eq!(page.items[0].recorded_at, at(5));
    assert_eq!(store.record_runs("a", runs, at(7)).await.unwrap().new, 0);
}

#[tokio::test]
async fn pages_follow_each_other_without_holes_and_filters_hold() {
    let (_dir, store) = store().await;
    let runs: Vec<Run> = (0..25).flat_map(|slot| [run("dns", slot), run("http", slot)]).collect();
    store.record_runs("a", runs, at(100)).await.unwrap();
    let mut query = RunQuery { name: Some("dns".into()), limit: 10, ..RunQuery::default() };
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = store.runs(&query).await.unwrap();
        pages += 1;
        seen.extend(page.items.iter().map(|item| item.run.key.slot));
        match page.next {
            Some(next) => query.before = Some(next),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, (0..25).rev().map(at).collect::<Vec<_>>());
    let failed = RunQuery { outcome: Some(Outcome::Failed), limit: 0, ..RunQuery::default() };
    let page = store.runs(&failed).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].run.reason), (1, Some(Reason::WorkflowFailed)));
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

#[tokio::test]
async fn a_second_hub_is_kept_away() {
    let (dir, store) = store().await;
    assert!(matches!(SqliteStore::open(dir.path()).await, Err(StoreError::Locked { .. })));
    store.close().await;
    SqliteStore::open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_token_is_spent_by_one_key_and_binds_the_uid() {
    let (_dir, store) = store().await;
    store.put_cluster(&cluster("a")).await.unwrap();
    let token = EnrolmentToken { hash: [1; 32], expires_at: at(3600), spent_by: None };
    store.put_enrolment_token("a", &token).await.unwrap();
    assert_eq!(store.enrolment_token("a").await.unwrap(), Some(token));
    let spend = |hash, key, uid: &'static str| store.spend_enrolment_token("a", [hash; 32], [key; 32], uid);
    assert_eq!(spend(9, 1, "u").await.unwrap(), Spend::Taken);
    assert_eq!(spend(1, 1, "u").await.unwrap(), Spend::Spent);
    assert_eq!(spend(1, 1, "u").await.unwrap(), Spend::Spent);
    assert_eq!(spend(1, 2, "u").await.unwrap(), Spend::Taken);
    assert_eq!(spend(1, 1, "v").await.unwrap(), Spend::OtherUid);
    store.put_cluster(&cluster("a")).await.unwrap();
    assert_eq!(store.clusters().await.unwrap()[0].cluster_uid.as_deref(), Some("u"));
}

#[tokio::test]
async fn a_removed_cluster_leaves_only_its_history() {
    let (_dir, store) = store().await;
    store.put_cluster(&cluster("a")).await.unwrap();
    store.record_runs("a", vec![run("dns", 0)], at(0)).await.unwrap();
    store.save_check_states("a", vec![state("x"), state("y")], vec![]).await.unwrap();
    store.save_check_states("a", vec![], vec!["y".into()]).await.unwrap();
    assert_eq!(store.check_states("a").await.unwrap(), [state("x")]);
    store.remove_cluster("a").await.unwrap();
    store.save_check_states("a", vec![state("late")], vec![]).await.unwrap();
    assert!(store.clusters().await.unwrap().is_empty());
    assert!(store.check_states("a").await.unwrap().is_empty());
    assert_eq!(store.runs(&RunQuery { limit: 1, ..RunQuery::default() }).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn generations_grow_over_a_deletion() {
    let (_dir, store) = store().await;
    let body = serde_json::json!({"kind": "FleetHealthCheck"});
    assert_eq!(store.put_definition("d", &body).await.unwrap(), 1);
    assert_eq!(store.put_definition("d", &body).await.unwrap(), 2);
    let status =
        DefinitionStatus { name: "d".into(), generation: 2, result: DefinitionResult::Refused, message: "no".into() };
    store.put_definition_statuses("a", vec![status.clone()]).await.unwrap();
    assert_eq!(store.definition_statuses().await.unwrap(), [("a".to_owned(), status)]);
    store.delete_definition("d").await.unwrap();
    assert!(store.definitions().await.unwrap().is_empty() && store.definition_statuses().await.unwrap().is_empty());
    assert_eq!(store.put_definition("d", &body).await.unwrap(), 3);
}

#[tokio::test]
async fn tokens_and_the_audit_log_are_kept() {
    let (_dir, store) = store().await;
    let token = ApiToken { name: "ops".into(), role: Role::Operator, hash: [7; 32], created_at: at(0) };
    store.put_api_token(&token).await.unwrap();
    assert_eq!(store.api_tokens().await.unwrap(), [token]);
    store.delete_api_token("ops").await.unwrap();
    assert!(store.api_tokens().await.unwrap().is_empty());
    for object in ["a", "b"] {
        let line = AuditEntry { at: at(1), who: "ops".into(), action: "cluster.add".into(), object: object.into() };
        store.audit(&line).await.unwrap();
    }
    let log = store.audit_log(1).await.unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].object, "b");
}
