//! Each rule of the fleet's state, with times of our own.

use jiff::SignedDuration;

use super::*;
use crate::session::hub::MAX_CHECKS;
use crate::state::{Phase, Totals};

mod care;
mod elsewhere;
mod enrolment;
mod steps;

const LEASE: Duration = Duration::from_secs(15);

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(super) fn known(name: &str, uid: Option<&str>) -> KnownCluster {
    KnownCluster { name: name.into(), cluster_uid: uid.map(str::to_owned), ..KnownCluster::default() }
}

pub(super) fn hello(name: &str, uid: &str, incarnation: &str, now: Timestamp) -> Hello {
    Hello {
        cluster: name.into(),
        cluster_uid: uid.into(),
        incarnation: incarnation.into(),
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.33.0".into(),
        oldest_seq: 1,
        next_seq: 4,
        sent_at: now,
        dropped_reports: 0,
        journal_id: "j".into(),
        hub_mark: String::new(),
        policy: Vec::new(),
    }
}

/// A check of 60 s that has succeeded and is due again at `next`.
pub(super) fn check(name: &str, next: Timestamp) -> CheckState {
    CheckState {
        uid: format!("uid-{name}"),
        namespace: "health".into(),
        name: name.into(),
        description: String::new(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: "@every 60s".into(),
        running: None,
        next_slot: Some(next),
        timeout_seconds: 30,
        check: Totals::default(),
        remedy: None,
        remedy_status: String::new(),
        samples: Vec::new(),
        refused_samples: 0,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
        definition: None,
    }
}

/// The same check as it was saved, flapping.
fn saved(name: &str) -> (CheckState, Health) {
    let recent = "SFSFSFS".to_owned().try_into().unwrap();
    (check(name, at(60)), Health { recent, flapping: true, ..Health::default() })
}

/// A fleet with one enrolled cluster `a`.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new(at(0), LEASE, "0.1.0");
    fleet.apply(at(0), Change::Cluster(known("a", Some("u"))));
    fleet
}

fn open(fleet: &mut Fleet, now: Timestamp, incarnation: &str) -> u64 {
    fleet.open(now, &hello("a", "u", incarnation, now)).0.unwrap()
}

fn say(fleet: &mut Fleet, now: Timestamp, epoch: u64, what: Said) -> Vec<Event> {
    fleet.apply(now, Change::Said { cluster: "a".into(), epoch, what })
}

fn snapshot(fleet: &mut Fleet, now: Timestamp, epoch: u64, checks: Vec<CheckState>) -> Vec<Event> {
    say(fleet, now, epoch, Said::Snapshot { checks, last: true })
}

fn status(fleet: &Fleet) -> ClusterStatus {
    fleet.view().clusters["a"].view.status
}

fn check_status(fleet: &Fleet, name: &str) -> Option<CheckStatus> {
    fleet.view().check("a", "health", name).map(|check| check.status)
}

/// Every number must equal what is counted anew.
pub(super) fn assert_counts(fleet: &Fleet) {
    let view = fleet.view();
    let mut all = empty_counts();
    for entry in view.clusters.values() {
        let mut own = empty_counts();
        for check in entry.checks.values() {
            *own.get_mut(check.status.as_str()).unwrap() += 1;
            *all.get_mut(check.status.as_str()).unwrap() += 1;
        }
        assert_eq!(entry.view.checks, own);
    }
    assert_eq!(view.summary.checks, all);
    for status in ClusterStatus::ALL {
        let clusters = view.clusters.values().filter(|entry| entry.view.status == status).count() as u64;
        assert_eq!(view.summary.clusters[status.as_str()], clusters, "{status:?}");
    }
}

#[test]
fn a_cluster_is_pending_until_its_agent_connects_and_reconnecting_for_a_lease_after_it_left() {
    let mut fleet = fleet();
    assert_eq!(status(&fleet), ClusterStatus::Pending);
    fleet.tick(at(3600));
    assert_eq!(status(&fleet), ClusterStatus::Pending);
    let epoch = open(&mut fleet, at(3600), "i1");
    assert_eq!((status(&fleet), fleet.view().clusters["a"].view.backlog), (ClusterStatus::Connected, 3));
    say(&mut fleet, at(3605), epoch, Said::Closed);
    assert_eq!(status(&fleet), ClusterStatus::Reconnecting);
    assert_eq!(fleet.next_wake(), Some(at(3615)), "the close is no word of the agent");
    fleet.tick(at(3615));
    assert_eq!(status(&fleet), ClusterStatus::Unreachable);
    assert_counts(&fleet);
}

#[test]
fn silence_on_an_open_connection_counts_as_silence() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(1), epoch, vec![check("dns", at(60))]);
    let events = fleet.tick(at(16));
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Unreachable, Some(CheckStatus::Stale)));
    assert!(events.iter().any(|event| matches!(event, Event::Check(check) if check.status == CheckStatus::Stale)));
    // The same stream speaks again: everything said on it still holds, in order.
    say(&mut fleet, at(20), epoch, Said::Heard);
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded));
    assert_counts(&fleet);
}

#[test]
fn within_the_lease_the_last_status_stays_and_beyond_it_nothing_is_green() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), epoch, vec![check("dns", at(60))]);
    say(&mut fleet, at(5), epoch, Said::Closed);
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded));
    let second = open(&mut fleet, at(10), "i1");
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded), "a short break shows nothing");
    say(&mut fleet, at(11), second, Said::Closed);
    fleet.tick(at(25));
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Stale));
    let third = open(&mut fleet, at(100), "i1");
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Stale), "stale until the agent speaks of it");
    snapshot(&mut fleet, at(101), third, vec![check("dns", at(160))]);
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded));
    assert_counts(&fleet);
}

#[test]
fn an_agent_that_connects_again_and_again_gets_one_deadline_for_its_snapshot() {
    let mut fleet = fleet();
    let first = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), first, vec![check("dns", at(600))]);
    for second in [10, 18, 24] {
        fleet.tick(at(second));
        let epoch = open(&mut fleet, at(second), "i1");
        let word = Change::Said { cluster: "a".into(), epoch, what: Said::Heard };
        fleet.apply(at(second), word);
        assert_eq!(fleet.view().check("a", "health", "dns").unwrap().status, CheckStatus::Succeeded, "at {second}");
    }
    fleet.tick(at(25));
    assert_eq!(fleet.view().check("a", "health", "dns").unwrap().status, CheckStatus::Stale);
    let epoch = open(&mut fleet, at(26), "i1");
    assert_eq!(fleet.view().check("a", "health", "dns").unwrap().status, CheckStatus::Stale);
    snapshot(&mut fleet, at(27), epoch, vec![check("dns", at(600))]);
    assert_eq!(fleet.view().check("a", "health", "dns").unwrap().status, CheckStatus::Succeeded);
}

#[test]
fn an_agent_that_lives_but_never_ends_its_snapshot_keeps_nothing_green() {
    let mut fleet = fleet();
    let first = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), first, vec![check("dns", at(600))]);
    let second = open(&mut fleet, at(5), "i2");
    for second_now in [10, 15, 19] {
        say(&mut fleet, at(second_now), second, Said::Heard);
    }
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded));
    fleet.tick(at(20));
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Connected, Some(CheckStatus::Stale)));
}

#[test]
fn a_check_is_overdue_when_slot_timeout_and_grace_have_passed() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), epoch, vec![check("dns", at(5)), check("web", at(500))]);
    let alive = |fleet: &mut Fleet, from: i64, to: i64| {
        for second in (from..=to).step_by(5) {
            say(fleet, at(second), epoch, Said::Heard);
            fleet.tick(at(second));
        }
    };
    alive(&mut fleet, 5, 40);
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded));
    assert!(fleet.next_wake().is_some_and(|wake| wake <= at(45)));
    alive(&mut fleet, 45, 75);
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Overdue));
    assert_eq!(check_status(&fleet, "web"), Some(CheckStatus::Succeeded));
    let shown = fleet.view().check("a", "health", "dns").unwrap();
    assert_eq!(overdue_seconds(shown, at(75)), 30);
    assert_eq!(overdue_seconds(fleet.view().check("a", "health", "web").unwrap(), at(75)), 0);
    say(&mut fleet, at(76), epoch, Said::Upsert(Box::new(check("dns", at(120)))));
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded));
    assert_counts(&fleet);
}

#[test]
fn what_cannot_run_is_never_overdue_and_a_late_failure_is() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(100), "i1");
    let stopped = CheckState { phase: Phase::Stopped, next_slot: None, ..check("stopped", at(0)) };
    let invalid = CheckState { phase: Phase::Invalid, ..check("invalid", at(0)) };
    let failed = CheckState { phase: Phase::Failed, ..check("failed", at(0)) };
    snapshot(&mut fleet, at(100), epoch, vec![stopped, invalid, failed]);
    assert_eq!(check_status(&fleet, "stopped"), Some(CheckStatus::Stopped));
    assert_eq!(check_status(&fleet, "invalid"), Some(CheckStatus::Invalid));
    assert_eq!(check_status(&fleet, "failed"), Some(CheckStatus::Overdue));
}

#[test]
fn a_late_word_of_an_old_session_changes_nothing() {
    let mut fleet = fleet();
    let first = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), first, vec![check("dns", at(60))]);
    let second = open(&mut fleet, at(1), "i2");
    assert!(second > first);
    snapshot(&mut fleet, at(2), second, vec![check("dns", at(60))]);
    let before = fleet.view().clone();
    assert!(say(&mut fleet, at(3), first, Said::Closed).is_empty());
    assert!(say(&mut fleet, at(3), first, Said::Removed("uid-dns".into())).is_empty());
    assert!(snapshot(&mut fleet, at(3), first, vec![]).is_empty());
    assert_eq!(*fleet.view(), before);
    say(&mut fleet, at(4), second, Said::Closed);
    assert!(say(&mut fleet, at(5), second, Said::Heard).is_empty(), "a closed session says nothing more");
    assert_eq!(status(&fleet), ClusterStatus::Reconnecting);
}

#[test]
fn epochs_grow_over_a_restart_of_the_hub() {
    let mut before = fleet();
    let first = open(&mut before, at(10), "i1");
    let same_moment = open(&mut before, at(10), "i1");
    assert!(same_moment > first);
    let mut after = Fleet::new(at(20), LEASE, "0.1.0");
    after.restore(at(20), known("a", Some("u")), vec![]);
    assert!(open(&mut after, at(20), "i1") > same_moment);
}

#[test]
fn after_a_restart_of_the_hub_checks_are_stale_until_their_agent_speaks() {
    let mut fleet = Fleet::new(at(0), LEASE, "0.1.0");
    fleet.restore(at(0), known("a", Some("u")), vec![saved("dns"), saved("old")]);
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Reconnecting, Some(CheckStatus::Stale)));
    assert_counts(&fleet);
    let epoch = open(&mut fleet, at(10), "i1");
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Connected, Some(CheckStatus::Stale)));
    let events = snapshot(&mut fleet, at(11), epoch, vec![check("dns", at(60))]);
    assert_eq!((check_status(&fleet, "dns"), check_status(&fleet, "old")), (Some(CheckStatus::Succeeded), None));
    assert!(events.iter().any(|event| matches!(event, Event::CheckRemoved { name, .. } if name == "old")));
    assert_counts(&fleet);
}

#[test]
fn results_are_remembered_over_a_restart_of_the_hub_and_the_age_of_a_status_is_not() {
    let mut fleet = Fleet::new(at(0), LEASE, "0.1.0");
    fleet.restore(at(0), known("a", Some("u")), vec![saved("dns")]);
    let health = |fleet: &Fleet| fleet.view().check("a", "health", "dns").unwrap().health.clone();
    assert_eq!((health(&fleet).flapping, health(&fleet).since), (true, Some(at(0))));
    let epoch = open(&mut fleet, at(10), "i1");
    let failed =
        CheckState { phase: Phase::Failed, check: Totals { failed: 1, ..Totals::default() }, ..saved("dns").0 };
    snapshot(&mut fleet, at(11), epoch, vec![failed.clone()]);
    assert_eq!((health(&fleet).recent.to_string().as_str(), health(&fleet).since), ("SFSFSFSF", Some(at(11))));
    // The same again is no new result.
    say(&mut fleet, at(12), epoch, Said::Upsert(Box::new(failed)));
    assert_eq!(health(&fleet).recent.to_string(), "SFSFSFSF");
    // Deleted and made again under the name: nothing of the old one is remembered.
    let other = CheckState { uid: "other".into(), ..saved("dns").0 };
    say(&mut fleet, at(13), epoch, Said::Upsert(Box::new(other)));
    assert_eq!(health(&fleet), Health { since: Some(at(13)), ..Health::default() });
}

#[test]
fn after_a_restart_of_the_hub_a_silent_cluster_has_one_lease_of_grace() {
    let mut fleet = Fleet::new(at(0), LEASE, "0.1.0");
    fleet.restore(at(0), known("a", Some("u")), vec![]);
    fleet.restore(at(0), known("new", None), vec![]);
    fleet.tick(at(14));
    assert_eq!(status(&fleet), ClusterStatus::Reconnecting);
    fleet.tick(at(15));
    assert_eq!(status(&fleet), ClusterStatus::Unreachable);
    assert_eq!(fleet.view().clusters["new"].view.status, ClusterStatus::Pending);
}

#[test]
fn another_cluster_under_this_identity_is_refused_and_shown() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    let (refused, events) = fleet.open(at(1), &hello("a", "other", "x", at(1)));
    assert!(matches!(refused, Err(Refusal::OtherUid { .. })));
    assert!(fleet.view().clusters["a"].view.message.contains("other"));
    assert_eq!(events.len(), 1);
    assert_eq!(fleet.open_epoch("a"), Some(epoch), "the rightful session goes on");
    for second in (5..700).step_by(5) {
        say(&mut fleet, at(second), epoch, Said::Heard);
        fleet.tick(at(second));
    }
    assert_eq!(fleet.view().clusters["a"].view.message, "", "it is shown for ten minutes");
}

#[test]
fn one_that_another_replica_refused_is_shown_for_as_long_unless_it_is_the_rightful_one_by_now() {
    let mut fleet = fleet();
    let foreign = |uid: &str| Change::Foreign { cluster: "a".into(), cluster_uid: uid.into(), at: at(0) };
    let bound = fleet.links["a"].uid.clone().unwrap();
    assert_eq!(fleet.apply(at(5), foreign(&bound)), []);
    assert_eq!(fleet.apply(at(5), foreign("other")).len(), 1);
    assert!(fleet.view().clusters["a"].view.message.contains("other"));
    fleet.apply(at(5), Change::Foreign { cluster: "gone".into(), cluster_uid: "x".into(), at: at(0) });
    let epoch = open(&mut fleet, at(6), "i1");
    for second in (10..605).step_by(5) {
        say(&mut fleet, at(second), epoch, Said::Heard);
    }
    assert_eq!(fleet.view().clusters["a"].view.message, "", "ten minutes after it was refused");
}

#[test]
fn unknown_and_unenrolled_clusters_are_refused() {
    let mut fleet = fleet();
    fleet.apply(at(0), Change::Cluster(known("b", None)));
    let refusal = |fleet: &mut Fleet, name: &str| fleet.open(at(0), &hello(name, "u", "i", at(0))).0.unwrap_err();
    assert!(matches!(refusal(&mut fleet, "b"), Refusal::NotEnrolled { .. }));
    assert!(matches!(refusal(&mut fleet, "c"), Refusal::UnknownCluster { .. }));
}

#[test]
fn a_restarted_agent_takes_over_and_two_that_take_turns_are_shown() {
    let mut fleet = fleet();
    open(&mut fleet, at(0), "i1");
    open(&mut fleet, at(1), "i2");
    assert_eq!(fleet.view().clusters["a"].view.message, "", "a restart is nothing odd");
    open(&mut fleet, at(2), "i1");
    assert!(fleet.view().clusters["a"].view.message.contains("take turns"));
}

#[test]
fn leaders_that_follow_each_other_in_order_are_nothing_odd() {
    let mut fleet = fleet();
    for (second, incarnation) in [(0, "i1"), (100, "i2"), (200, "i1")] {
        let epoch = open(&mut fleet, at(second), incarnation);
        say(&mut fleet, at(second + 10), epoch, Said::Closed);
    }
    assert_eq!(fleet.view().clusters["a"].view.message, "the connection is closed");
}

#[test]
fn a_heartbeat_that_tells_nothing_new_is_no_event() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    let beat = |second, backlog| Said::Heartbeat(Heartbeat { sent_at: at(second), backlog, dropped_reports: 0 });
    assert!(!say(&mut fleet, at(5), epoch, beat(5, 0)).is_empty());
    assert!(say(&mut fleet, at(10), epoch, beat(10, 0)).is_empty());
    assert_eq!(fleet.view().clusters["a"].view.last_heard_at, Some(at(10)));
    say(&mut fleet, at(15), epoch, beat(85, 0));
    let view = &fleet.view().clusters["a"].view;
    assert_eq!(view.clock_skew_ms, 70_000);
    assert_eq!(view.message, "the agent's clock is 70 s ahead of the hub's");
}

#[test]
fn a_clock_that_is_off_is_shown_and_decides_nothing() {
    let day = 24 * 3600;
    for skew in [-10 * day, -600, 600, 10 * day] {
        let mut fleet = fleet();
        let theirs = |second: i64| at(second + skew);
        let epoch = fleet.open(at(0), &hello("a", "u", "i1", theirs(0))).0.unwrap();
        snapshot(&mut fleet, at(0), epoch, vec![]);
        let message = || {
            format!("the agent's clock is {} s {} the hub's", skew.abs(), if skew > 0 { "ahead of" } else { "behind" })
        };
        assert_eq!(fleet.view().clusters["a"].view.message, message());
        for second in (5..60).step_by(5) {
            let beat = Heartbeat { sent_at: theirs(second), backlog: 0, dropped_reports: 0 };
            say(&mut fleet, at(second), epoch, Said::Heartbeat(beat));
            fleet.tick(at(second));
            assert_eq!(status(&fleet), ClusterStatus::Connected);
        }
        let view = &fleet.view().clusters["a"].view;
        assert_eq!((view.clock_skew_ms, view.last_heard_at), (skew * 1000, Some(at(55))));
        fleet.tick(at(55 + 14));
        assert_eq!(status(&fleet), ClusterStatus::Connected);
        fleet.tick(at(55 + 15));
        assert_eq!(status(&fleet), ClusterStatus::Unreachable, "by the hub's clock");
    }
}

#[test]
fn a_check_made_again_under_its_name_replaces_the_old_one() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), epoch, vec![check("dns", at(60))]);
    let again = CheckState { uid: "uid-2".into(), ..check("dns", at(90)) };
    say(&mut fleet, at(1), epoch, Said::Upsert(Box::new(again)));
    assert!(say(&mut fleet, at(2), epoch, Said::Removed("uid-dns".into())).is_empty());
    assert_eq!(fleet.view().check("a", "health", "dns").unwrap().state.uid, "uid-2");
    say(&mut fleet, at(3), epoch, Said::Removed("uid-2".into()));
    assert_eq!(check_status(&fleet, "dns"), None);
    assert_counts(&fleet);
}

#[test]
fn a_removed_cluster_leaves_no_number_and_no_deadline() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), epoch, vec![check("dns", at(60)), check("web", at(60))]);
    assert_eq!(
        fleet.apply(at(1), Change::ClusterRemoved { name: "a".into() }),
        [Event::ClusterRemoved { name: "a".into() }]
    );
    assert_counts(&fleet);
    assert_eq!(fleet.next_wake(), None);
    assert!(say(&mut fleet, at(2), epoch, Said::Heard).is_empty());
}

#[test]
fn a_publication_shares_what_did_not_change() {
    let mut fleet = fleet();
    fleet.apply(at(0), Change::Cluster(known("b", Some("v"))));
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), epoch, vec![check("dns", at(60)), check("web", at(60))]);
    let before = fleet.publish();
    say(&mut fleet, at(1), epoch, Said::Upsert(Box::new(check("dns", at(120)))));
    let after = fleet.publish();
    assert!(after.revision > before.revision);
    assert!(Arc::ptr_eq(&before.clusters["b"], &after.clusters["b"]));
    assert!(Arc::ptr_eq(before.check("a", "health", "web").unwrap(), after.check("a", "health", "web").unwrap()));
    assert_eq!(
        before.check("a", "health", "dns").unwrap().state.next_slot,
        Some(at(60)),
        "a reader's view stands still"
    );
    say(&mut fleet, at(2), epoch, Said::Heard);
    let heard = fleet.publish();
    assert!(Arc::ptr_eq(&heard.clusters["a"].checks, &after.clusters["a"].checks));
}

#[test]
fn deadlines_do_not_pile_up() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    for second in 0..1000 {
        let now = at(second);
        let next = now.checked_add(SignedDuration::from_secs(60)).unwrap();
        say(&mut fleet, now, epoch, Said::Upsert(Box::new(check("dns", next))));
        fleet.tick(now);
    }
    assert!(fleet.deadlines.len() <= 3, "{}", fleet.deadlines.len());
}

#[test]
fn checks_above_the_limit_are_refused_counted_and_shown_and_others_stay() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    let named = |n: usize| check(&format!("c{n}"), at(60));
    snapshot(&mut fleet, at(0), epoch, (0..MAX_CHECKS).map(named).collect());
    let refused = |fleet: &Fleet| fleet.view().clusters["a"].view.refused_checks;
    assert_eq!((refused(&fleet), fleet.view().clusters["a"].view.message.as_str()), (0, ""));
    for n in [MAX_CHECKS, MAX_CHECKS + 1, MAX_CHECKS, MAX_CHECKS] {
        say(&mut fleet, at(1), epoch, Said::Upsert(Box::new(named(n))));
    }
    assert_eq!(refused(&fleet), 2, "each once");
    let text = "2 checks are not shown: a cluster may have 50000";
    assert_eq!(fleet.view().clusters["a"].view.message, text);
    assert_eq!(fleet.view().clusters["a"].checks.len(), MAX_CHECKS);
    // There is room again for one.
    say(&mut fleet, at(2), epoch, Said::Removed("uid-c0".into()));
    say(&mut fleet, at(2), epoch, Said::Upsert(Box::new(named(MAX_CHECKS))));
    assert_eq!((refused(&fleet), check_status(&fleet, &format!("c{MAX_CHECKS}")).is_some()), (1, true));
    let events = say(&mut fleet, at(3), epoch, Said::Removed(format!("uid-c{}", MAX_CHECKS + 1)));
    assert!(events.iter().any(|event| matches!(event, Event::Cluster(view) if view.refused_checks == 0)));
    say(&mut fleet, at(4), epoch, Said::Heard);
    assert_eq!(fleet.view().clusters["a"].view.message, "");
    assert_counts(&fleet);
}
