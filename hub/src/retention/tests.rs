use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::uptime::{Class, Day, Life, Transition, Uptime};
use active_monitor_core::view::CheckStatus;

use super::*;
use crate::store::rollups::{CheckDay, Rollups};
use crate::store::sqlite::SqliteStore;
use crate::store::{AuditEntry, CheckKey, RunQuery, TransitionQuery};

const DAY: i64 = 86_400;
const KEPT: Retention = Retention { run_days: 14, log_tail_days: 7, audit_days: 30 };

fn day(day: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + day * DAY).unwrap()
}

fn run(check: usize, slot: i64, log_tail: &str) -> Run {
    Run {
        key: RunKey {
            check_uid: format!("7d444840-9dc0-11d1-b245-{check:012}"),
            kind: RunKind::HealthCheck,
            slot: Timestamp::from_second(1_700_000_000 + slot * 60).unwrap(),
        },
        namespace: "health".to_owned(),
        name: format!("check-{check}"),
        workflow: Some(format!("health/check-{check}-0a1b2c3d4e")),
        outcome: if log_tail.is_empty() { Outcome::Succeeded } else { Outcome::Failed },
        reason: (!log_tail.is_empty()).then_some(Reason::WorkflowFailed),
        message: String::new(),
        started_at: day(0),
        finished_at: day(0),
        warning: String::new(),
        log_tail: log_tail.to_owned(),
    }
}

async fn all_runs(store: &SqliteStore) -> Vec<active_monitor_core::view::RunView> {
    store.runs(&RunQuery { limit: 1000, ..RunQuery::default() }).await.unwrap().items
}

#[tokio::test]
async fn what_is_too_old_goes_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    for (at, slots) in [(0, 0..700), (5, 700..702), (10, 702..704)] {
        let runs = slots.map(|slot| run(1, slot, "the last line")).collect();
        store.record_runs("east", runs, day(at)).await.unwrap();
    }
    for at in [0, 40] {
        let line = AuditEntry { at: day(at), who: "ops".into(), action: "x".into(), object: at.to_string() };
        store.audit(&line).await.unwrap();
    }
    let counts = Pruning::new().unwrap();
    let pruned = |what: Expired| counts.pruned.with_label_values(&[what.as_str()]).get();

    // Nothing is old enough yet.
    pass(&store, KEPT, day(6), &counts).await.unwrap();
    assert_eq!((pruned(Expired::Runs), pruned(Expired::LogTails), pruned(Expired::Audit)), (0, 0, 0));
    assert_eq!(counts.rows.with_label_values(&["runs"]).get(), 704);

    pass(&store, KEPT, day(15), &counts).await.unwrap();
    let left = all_runs(&store).await;
    let tails: Vec<_> = left.iter().map(|run| (run.recorded_at, run.run.log_tail.as_str())).collect();
    assert_eq!(tails, [(day(10), "the last line"), (day(10), "the last line"), (day(5), ""), (day(5), "")]);
    assert_eq!((pruned(Expired::Runs), pruned(Expired::LogTails), pruned(Expired::Audit)), (700, 2, 0));
    assert_eq!(counts.rows.with_label_values(&["runs"]).get(), 4);
    assert_eq!(counts.last.get() as i64, day(15).as_second());

    pass(&store, KEPT, day(41), &counts).await.unwrap();
    assert!(all_runs(&store).await.is_empty());
    let log = store.audit_log(10).await.unwrap();
    assert_eq!(log.iter().map(|line| line.object.as_str()).collect::<Vec<_>>(), ["40"]);
}

#[tokio::test]
async fn the_file_stops_growing_and_its_bytes_a_run_are_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    let counts = Pruning::new().unwrap();
    let empty = store.sizes().await.unwrap();
    let mut bytes = Vec::new();
    // A thousand runs a day for thrice as long as they are kept.
    for at in 0..42 {
        let runs = (0..1000).map(|n| run(n % 10, at * 100 + i64::try_from(n / 10).unwrap(), "")).collect();
        assert_eq!(store.record_runs("east", runs, day(at)).await.unwrap().new, 1000);
        pass(&store, KEPT, day(at), &counts).await.unwrap();
        bytes.push(counts.file_bytes.get());
    }
    assert_eq!(counts.rows.with_label_values(&["runs"]).get(), 15_000);
    let a_run = (bytes[14].unsigned_abs() - empty.file_bytes) / 15_000;
    println!("{a_run} bytes a run");
    assert!((200..400).contains(&a_run), "docs/hub.md says about 300 bytes a run: {a_run}");
    let (early, late) = (bytes[20], bytes[41]);
    assert!(late <= early + early / 10, "{early} grew to {late}");
}

#[tokio::test]
async fn a_pass_leaves_room_for_reports() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    store.record_runs("east", (0..5_000).map(|slot| run(1, slot, "")).collect(), day(0)).await.unwrap();
    let counts = Pruning::new().unwrap();
    let report = async {
        // Recorded while the pass is under way: after its first batch and before its last.
        while counts.pruned.with_label_values(&["runs"]).get() == 0 {
            tokio::task::yield_now().await;
        }
        let recorded = store.record_runs("east", vec![run(2, 0, "")], day(15)).await.unwrap();
        (recorded.new, counts.pruned.with_label_values(&["runs"]).get())
    };
    let (done, (new, at)) = tokio::join!(pass(&store, KEPT, day(15), &counts), report);
    done.unwrap();
    assert_eq!(new, 1);
    assert!(at < 5_000, "the report waited for the whole pass");
    assert_eq!((counts.pruned.with_label_values(&["runs"]).get(), all_runs(&store).await.len()), (5_000, 1));
}

#[tokio::test]
async fn the_last_word_on_a_check_is_kept_however_old_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    let key = |name: &str| CheckKey { cluster: "east".into(), namespace: "health".into(), name: name.into() };
    let (up, down) = (Some(CheckStatus::Succeeded), Some(CheckStatus::Failed));
    let steps = [
        ("calm", 0, up),
        ("busy", 0, up),
        ("busy", 1, down),
        ("busy", 2, up),
        ("busy", 390, down),
        ("gone", 3, up),
        ("gone", 4, None),
    ];
    let steps = steps.map(|(name, at, status)| (key(name), Transition { at: day(at), status, maintenance: false }));
    store.record_transitions(Life { from: day(0), to: day(5) }, steps.to_vec()).await.unwrap();
    store.record_transitions(Life { from: day(6), to: day(400) }, Vec::new()).await.unwrap();
    let counts = Pruning::new().unwrap();
    pass(&store, KEPT, day(400), &counts).await.unwrap();
    let query = TransitionQuery { cluster: None, namespace: None, name: None, from: day(0), to: day(500) };
    let mut left = Vec::new();
    store.transitions(&query, &mut |key, step| left.push((key.name, step.at))).await.unwrap();
    assert_eq!(left, [("busy".to_owned(), day(2)), ("busy".to_owned(), day(390)), ("calm".to_owned(), day(0))]);
    assert_eq!(store.lives().await.unwrap(), [Life { from: day(6), to: day(400) }]);
    assert_eq!(counts.pruned.with_label_values(&["transitions"]).get(), 4);
}

#[tokio::test]
async fn a_years_sums_of_a_check_take_the_bytes_that_the_docs_say() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    let empty = store.sizes().await.unwrap();
    let counts = Pruning::new().unwrap();
    for at in 0..400 {
        let checks = (0..20).map(|check| CheckDay {
            key: CheckKey { cluster: "prod-eu-1".into(), namespace: "health".into(), name: format!("check-{check}") },
            time: Uptime { up_seconds: 86_000.5, down_seconds: 399.5, outages: 2, ..Uptime::default() },
            ends: Class::Up,
        });
        store.put_days(Day::of(day(at)), "prod-eu-1", checks.collect()).await.unwrap();
    }
    pass(&store, KEPT, day(399), &counts).await.unwrap();
    let left = store.sizes().await.unwrap();
    assert!(left.rows.contains(&("check_days", 367 * 20)), "{left:?}");
    let a_year = (left.used_bytes - empty.used_bytes) / 20;
    println!("{a_year} bytes a check and year, {} a day", a_year / 367);
    assert!((20_000..40_000).contains(&a_year), "docs/hub.md says about 25 KB a check and year: {a_year}");
}
