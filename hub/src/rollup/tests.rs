use std::sync::Arc;

use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{CheckStatus, ClusterStatus};

use super::*;
use crate::metrics::tests::{check, cluster, fleet};
use crate::store::Expired;
use crate::store::rollups::Rollups;
use crate::store::sqlite::SqliteStore;

/// A second of a day of these tests.
fn at(day: i64, second: i64) -> Timestamp {
    Day(20_000 + day).start() + SignedDuration::from_secs(second)
}

fn key(name: &str) -> CheckKey {
    CheckKey { cluster: "east".into(), namespace: "health".into(), name: name.into() }
}

/// With a check of every minute, whose runs may take 30 s.
fn view() -> FleetView {
    let mut dns = check("east", "dns", CheckStatus::Succeeded, vec![]);
    Arc::make_mut(&mut dns).state.schedule = "@every 60s".into();
    fleet(vec![cluster("east", ClusterStatus::Connected, vec![dns])])
}

/// Three days: `dns` is cut off from the middle of the second one to the first hour of the third.
async fn three_days(store: &dyn Store) {
    let step = |name, day, second, status| {
        (key(name), Transition { at: at(day, second), status: Some(status), maintenance: false })
    };
    let steps = vec![
        step("dns", 0, 1000, CheckStatus::Succeeded),
        step("web", 0, 2000, CheckStatus::Failed),
        step("dns", 1, 43_200, CheckStatus::Stale),
        step("web", 1, 100, CheckStatus::Succeeded),
        step("dns", 2, 3600, CheckStatus::Succeeded),
    ];
    store.record_transitions(Life { from: at(0, 0), to: at(3, 0) }, steps).await.unwrap();
}

/// What `dns` did in the cut, a minute each, as it comes afterwards; one run failed.
fn reports(numbers: std::ops::Range<i64>) -> Vec<Run> {
    let run = |number| {
        let slot = at(1, 43_260 + 60 * number);
        Run {
            key: RunKey { check_uid: "uid-dns".into(), kind: RunKind::HealthCheck, slot },
            namespace: "health".into(),
            name: "dns".into(),
            workflow: None,
            outcome: if number == 50 { Outcome::Failed } else { Outcome::Succeeded },
            reason: None,
            message: String::new(),
            started_at: slot,
            finished_at: slot + SignedDuration::from_secs(5),
            warning: String::new(),
            log_tail: String::new(),
        }
    };
    numbers.map(run).collect()
}

/// Up, down and unknown seconds of `dns` in the three days.
async fn sums(store: &dyn Store) -> (f64, f64, f64) {
    let lives = store.lives().await.unwrap();
    let all = uptime::checks(store, &CheckFilter::default(), &lives, at(0, 0), at(3, 0)).await.unwrap();
    let Uptime { up_seconds, down_seconds, unknown_seconds, .. } = all[&key("dns")];
    let clusters = uptime::clusters(store, None, &lives, at(0, 0), at(3, 0)).await.unwrap();
    let mut sum = Uptime::default();
    all.values().for_each(|time| sum.add(time));
    assert_eq!(clusters["east"], (2, sum));
    (up_seconds, down_seconds, unknown_seconds)
}

/// The cut is 46,800 s; of 100 runs of it the first ended 65 s after it began, the last holds until 6,100 s after that,
/// and one that failed holds for a minute.
const CUT: (f64, f64, f64) = (211_400.0, 0.0, 46_800.0);
const FILLED: (f64, f64, f64) = (211_400.0 + 5_975.0, 60.0, 46_800.0 - 6_035.0);

#[tokio::test]
async fn days_say_the_same_as_the_transitions_that_they_are_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    three_days(&store).await;
    assert_eq!(sums(&store).await, CUT, "without any day");
    pass(&store, &view(), at(2, 60)).await.unwrap();
    assert_eq!(store.rolled_up().await.unwrap().days, Some(Day(20_000)), "the second day may not be settled yet");
    assert_eq!(sums(&store).await, CUT);
    pass(&store, &view(), at(3, 3600)).await.unwrap();
    assert_eq!(store.rolled_up().await.unwrap().days, Some(Day(20_002)));
    assert_eq!(sums(&store).await, CUT);
    // The transitions are needed no more.
    let rows = store.sizes().await.unwrap().rows;
    assert!(rows.contains(&("check_days", 6)), "{rows:?}");
}

#[tokio::test]
async fn what_is_reported_after_a_cut_fills_it_whenever_it_comes_and_however_often_it_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    three_days(&store).await;
    pass(&store, &view(), at(3, 3600)).await.unwrap();
    // The days are closed; half of the reports come, and later the other half.
    store.record_runs("east", reports(0..50), at(3, 3700)).await.unwrap();
    pass(&store, &view(), at(3, 3800)).await.unwrap();
    assert_eq!(sums(&store).await, CUT, "they may not all be here");
    pass(&store, &view(), at(3, 7200)).await.unwrap();
    let (up, down, unknown) = sums(&store).await;
    assert_eq!((up, down, unknown), (211_400.0 + 2_940.0 + 95.0, 0.0, 46_800.0 - 3_035.0));
    store.record_runs("east", reports(0..100), at(3, 8000)).await.unwrap();
    pass(&store, &view(), at(3, 9000)).await.unwrap();
    assert_eq!(sums(&store).await, FILLED);

    // The hub died before it said what it had done, at any place: it does it again.
    for (run, day) in [(0, 19_999), (30, 20_000), (50, 20_002)] {
        store.looked_at(run).await.unwrap();
        store.close_day(Day(day)).await.unwrap();
        pass(&store, &view(), at(3, 9600)).await.unwrap();
        assert_eq!(sums(&store).await, FILLED, "from run {run} and day {day} on");
    }
    // Without the runs, as after their time, it stays so.
    while store.prune(Expired::Runs, at(4, 0), 500).await.unwrap() > 0 {}
    store
        .put_late(vec![(key("web"), Late { from: at(1, 0), until: at(1, 1), outcome: Outcome::Failed })])
        .await
        .unwrap();
    pass(&store, &view(), at(3, 9700)).await.unwrap();
    assert_eq!(sums(&store).await, FILLED);
}

#[tokio::test]
async fn of_a_check_that_is_gone_nothing_is_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    three_days(&store).await;
    store.record_runs("east", reports(0..100), at(2, 3700)).await.unwrap();
    pass(&store, &fleet(vec![]), at(3, 3600)).await.unwrap();
    assert_eq!(sums(&store).await, CUT);
}

#[tokio::test]
async fn what_an_agent_says_of_times_stops_neither_the_sums_nor_the_hub() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    three_days(&store).await;
    let mut endless = check("east", "dns", CheckStatus::Succeeded, vec![]);
    let state = &mut Arc::make_mut(&mut endless).state;
    (state.schedule, state.timeout_seconds) = ("@every 60s".into(), u64::MAX);
    let view = fleet(vec![cluster("east", ClusterStatus::Connected, vec![endless])]);
    let mut runs = reports(0..3);
    runs[1].finished_at = Timestamp::MIN;
    store.record_runs("east", runs, at(2, 0)).await.unwrap();
    pass(&store, &view, at(3, 600)).await.unwrap();
    // The same again, from an agent that is honest of its timeouts.
    let mut runs = reports(3..6);
    runs[1].finished_at = Timestamp::MIN;
    runs[2].finished_at = runs[0].finished_at;
    store.record_runs("east", runs, at(2, 0)).await.unwrap();
    pass(&store, &self::view(), at(3, 1200)).await.unwrap();
    assert_eq!(store.rolled_up().await.unwrap().runs, store.newest_run(at(3, 900)).await.unwrap());
}
