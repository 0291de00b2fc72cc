//! Days in sums, and results that came late.

use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use active_monitor_core::uptime::{Class, Day, Late, Life, Transition, Uptime};
use active_monitor_core::view::CheckStatus;
use active_monitor_hub::store::rollups::{CheckDay, CheckFilter, RolledUp};
use active_monitor_hub::store::{CheckKey, Expired};

use crate::backends::Backend;
use crate::samples::{at, check, run};

fn late(from: i64, until: i64, outcome: Outcome) -> Late {
    Late { from: at(from), until: at(until), outcome }
}

fn of(cluster: &str, name: Option<&str>) -> CheckFilter {
    let namespace = name.map(|_| "health".to_owned());
    CheckFilter { cluster: Some(cluster.to_owned()), namespace, name: name.map(str::to_owned) }
}

pub(crate) async fn late_runs_are_found_by_their_numbers_and_their_results_are_kept_once(backend: Backend) {
    let open = backend.open().await;
    let store = open.store.as_ref();
    assert_eq!(store.rolled_up().await.unwrap(), RolledUp::default());
    assert_eq!(store.newest_run(at(100)).await.unwrap(), 0);
    store.record_runs("a", vec![run("dns", 0)], at(61)).await.unwrap();
    let remedy = run("dns", 3);
    let remedy = Run { key: RunKey { kind: RunKind::Remedy, ..remedy.key.clone() }, ..remedy };
    store.record_runs("a", vec![run("dns", 1), remedy, run("web", 2), run("web", 500)], at(502)).await.unwrap();
    assert_eq!([store.newest_run(at(61)).await.unwrap(), store.newest_run(at(62)).await.unwrap()], [0, 1]);
    let newest = store.newest_run(at(503)).await.unwrap();
    let found = store.late_runs(0, newest, 10).await.unwrap();
    let names: Vec<_> =
        found.iter().map(|run| (run.key.name.as_str(), run.slot, run.finished_at, run.outcome)).collect();
    let expected = [("dns", at(1), at(2), Outcome::Failed), ("web", at(2), at(3), Outcome::Succeeded)];
    assert_eq!(names, expected, "not the one in time, a minute after its end, and not the remedy");
    assert_eq!(store.late_runs(0, newest, 1).await.unwrap(), found[..1]);
    assert_eq!(store.late_runs(found[0].id, newest, 10).await.unwrap(), found[1..]);
    assert!(store.late_runs(found[0].id, found[0].id, 10).await.unwrap().is_empty());

    let (first, again) = (late(10, 20, Outcome::Failed), late(10, 30, Outcome::Succeeded));
    let other = late(86_400, 86_410, Outcome::Failed);
    store.put_late(vec![(check("dns"), first)]).await.unwrap();
    store.put_late(vec![(check("dns"), again), (check("web"), other)]).await.unwrap();
    store.looked_at(newest).await.unwrap();
    let results = async |filter: CheckFilter, from, to| store.late_results(&filter, at(from), at(to)).await.unwrap();
    assert_eq!(results(of("a", None), 0, 90_000).await, [(check("dns"), again), (check("web"), other)]);
    assert_eq!(results(of("a", Some("web")), 0, 90_000).await, [(check("web"), other)]);
    assert_eq!(results(of("a", None), 31, 86_401).await, [(check("web"), other)]);
    assert!(results(of("a", None), 0, 10).await.is_empty() && results(of("b", None), 0, 90_000).await.is_empty());
    let day = Day::of(at(0));
    assert_eq!(store.changed_days().await.unwrap(), [(day, "a".to_owned()), (day.next(), "a".to_owned())]);
    assert_eq!(store.rolled_up().await.unwrap(), RolledUp { runs: newest, days: None });
    assert_eq!(store.prune(Expired::LateResults, at(31), 10).await.unwrap(), 1);
    assert_eq!(results(CheckFilter::default(), 0, 90_000).await, [(check("web"), other)]);
    open.close().await;
}

pub(crate) async fn days_are_replaced_as_a_whole_and_added_up(backend: Backend) {
    let open = backend.open().await;
    let store = open.store.as_ref();
    let day = Day::of(at(0));
    let time = |up_seconds: f64, outages| Uptime { up_seconds, unknown_seconds: 0.25, outages, ..Uptime::default() };
    let of_check = |cluster: &str, name: &str, time: Uptime, ends| {
        let key = CheckKey { cluster: cluster.into(), ..check(name) };
        CheckDay { key, time, ends }
    };
    store.put_late(vec![(check("dns"), late(0, 1, Outcome::Failed))]).await.unwrap();
    let gone = of_check("a", "gone", time(9.0, 9), Class::Absent);
    store.put_days(day, "a", vec![gone, of_check("a", "dns", time(1.0, 0), Class::Up)]).await.unwrap();
    assert!(store.changed_days().await.unwrap().is_empty());
    let (dns, web) =
        (of_check("a", "dns", time(1.5, 1), Class::Down), of_check("a", "web", time(2.0, 0), Class::Unknown));
    store.put_days(day, "a", vec![dns, web]).await.unwrap();
    store.put_days(day, "b", vec![of_check("b", "dns", time(4.0, 0), Class::Maintenance)]).await.unwrap();
    store.put_days(day.next(), "a", vec![of_check("a", "dns", time(3.0, 2), Class::Stopped)]).await.unwrap();
    store.put_days(day.next(), "b", Vec::new()).await.unwrap();
    store.close_day(day).await.unwrap();
    store.close_day(day.next()).await.unwrap();
    assert_eq!(store.rolled_up().await.unwrap().days, Some(day.next()));

    let mut ends = store.ends(&of("a", None), day).await.unwrap();
    ends.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(ends, [(check("dns"), Class::Down), (check("web"), Class::Unknown)]);
    let sum = Uptime { unknown_seconds: 0.5, ..time(4.5, 3) };
    let dns = store.check_sums(&of("a", Some("dns")), day, day.next()).await.unwrap();
    assert_eq!(dns, [(check("dns"), sum)]);
    assert_eq!(store.check_sums(&CheckFilter::default(), day, day).await.unwrap().len(), 3);
    let mut clusters = store.cluster_sums(None, day, day.next()).await.unwrap();
    clusters.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let of_a = Uptime { unknown_seconds: 0.75, ..time(6.5, 3) };
    assert_eq!(clusters, [("a".to_owned(), 2, of_a), ("b".to_owned(), 1, time(4.0, 0))]);
    assert_eq!(store.cluster_sums(Some("b"), day.next(), day.next()).await.unwrap(), []);

    assert_eq!(store.prune(Expired::CheckDays, at(86_400), 2).await.unwrap(), 2);
    assert_eq!(store.prune(Expired::CheckDays, at(86_400), 2).await.unwrap(), 1);
    assert_eq!(store.prune(Expired::ClusterDays, at(86_400), 9).await.unwrap(), 2);
    assert_eq!(store.check_sums(&CheckFilter::default(), day, day.next()).await.unwrap().len(), 1);
    open.close().await;
}

pub(crate) async fn transitions_of_a_time_come_oldest_first(backend: Backend) {
    let open = backend.open().await;
    let store = open.store.as_ref();
    assert_eq!(store.first_transition().await.unwrap(), None);
    let step = |second| Transition { at: at(second), status: Some(CheckStatus::Failed), maintenance: second == 3 };
    let steps = [("web", 5), ("dns", 3), ("web", 1), ("dns", 7)].map(|(name, second)| (check(name), step(second)));
    store.record_transitions(Life { from: at(0), to: at(9) }, steps.to_vec()).await.unwrap();
    assert_eq!(store.first_transition().await.unwrap(), Some(at(1)));
    let mut found = Vec::new();
    let mut visit = |key: CheckKey, step| found.push((key.name, step));
    store.transitions_within(&CheckFilter::default(), at(1), at(7), &mut visit).await.unwrap();
    store.transitions_within(&of("a", Some("dns")), at(4), at(8), &mut visit).await.unwrap();
    let expected = [("web", 1), ("dns", 3), ("web", 5), ("dns", 7)];
    assert_eq!(found, expected.map(|(name, second)| (name.to_owned(), step(second))));
    open.close().await;
}
