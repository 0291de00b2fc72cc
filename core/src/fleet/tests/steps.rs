//! The hub's clock is set while the hub runs.

use super::*;

const HOUR: i64 = 3600;

fn by(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn beat(fleet: &mut Fleet, now: Timestamp, epoch: u64, theirs: Timestamp) {
    say(fleet, now, epoch, Said::Heartbeat(Heartbeat { sent_at: theirs, backlog: 0, dropped_reports: 0 }));
}

#[test]
fn a_lease_is_as_long_whatever_the_clock_is_set_to() {
    for step in [HOUR, -HOUR, 24 * HOUR, -24 * HOUR] {
        let mut fleet = fleet();
        let epoch = open(&mut fleet, at(0), "i1");
        snapshot(&mut fleet, at(0), epoch, vec![check("dns", at(300))]);
        beat(&mut fleet, at(5), epoch, at(5));
        // 4 s later.
        fleet.stepped(at(9 + step), by(step));
        fleet.tick(at(9 + step));
        let view = &fleet.view().clusters["a"].view;
        assert_eq!((view.status, view.last_heard_at), (ClusterStatus::Connected, Some(at(5 + step))), "{step}");
        fleet.tick(at(19 + step));
        assert_eq!(status(&fleet), ClusterStatus::Connected, "{step}");
        assert_eq!(fleet.next_wake(), Some(at(20 + step)), "{step}");
        fleet.tick(at(20 + step));
        assert_eq!(
            (status(&fleet), check_status(&fleet, "dns")),
            (ClusterStatus::Unreachable, Some(CheckStatus::Stale))
        );
        assert_counts(&fleet);
    }
}

#[test]
fn a_grace_after_the_start_is_as_long_too() {
    let mut fleet = Fleet::new(at(0), LEASE, "0.1.0");
    fleet.restore(at(0), known("a", Some("u")), vec![]);
    fleet.stepped(at(5 - HOUR), by(-HOUR));
    fleet.tick(at(14 - HOUR));
    assert_eq!(status(&fleet), ClusterStatus::Reconnecting);
    fleet.tick(at(15 - HOUR));
    assert_eq!(status(&fleet), ClusterStatus::Unreachable);
}

#[test]
fn no_check_is_overdue_because_the_hub_s_clock_is_ahead_and_one_that_is_late_is_though_it_is_behind() {
    for step in [HOUR, -HOUR] {
        let mut fleet = fleet();
        let epoch = open(&mut fleet, at(0), "i1");
        // Due with its timeout and the grace at 100.
        snapshot(&mut fleet, at(0), epoch, vec![check("dns", at(60))]);
        fleet.stepped(at(5 + step), by(step));
        for second in (5..100).step_by(5) {
            beat(&mut fleet, at(second + step), epoch, at(second));
            fleet.tick(at(second + step));
            assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded), "{step} {second}");
        }
        assert_eq!(fleet.view().clusters["a"].view.clock_skew_ms, -step * 1000, "shown");
        fleet.tick(at(100 + step));
        assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Overdue), "{step}");
        let entry = &fleet.view().clusters["a"];
        let shown = fleet.view().check("a", "health", "dns").unwrap();
        assert_eq!(shown.overdue_seconds, 1, "{step}");
        assert_eq!(overdue_seconds(shown, entry.their_time(at(107 + step))), 7, "{step}");
        // Put right again.
        say(&mut fleet, at(101 + step), epoch, Said::Upsert(Box::new(check("dns", at(160)))));
        fleet.stepped(at(102), by(-step));
        beat(&mut fleet, at(103), epoch, at(103));
        fleet.tick(at(103));
        assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded), "{step}");
        assert_eq!(fleet.view().clusters["a"].view.message, "");
        assert_eq!(fleet.view().clusters["a"].their_time(at(103)), at(103), "{step}");
        assert!(fleet.deadlines.len() <= 3, "{}", fleet.deadlines.len());
    }
}

#[test]
fn a_cluster_whose_own_clock_was_the_wrong_one_is_judged_by_the_hub_s() {
    let mut fleet = fleet();
    // The hub's clock is an hour behind when it starts, and is put right.
    let epoch = fleet.open(at(-HOUR), &hello("a", "u", "i1", at(0))).0.unwrap();
    snapshot(&mut fleet, at(-HOUR), epoch, vec![check("dns", at(60))]);
    fleet.stepped(at(5), by(HOUR));
    for second in (5..100).step_by(5) {
        beat(&mut fleet, at(second), epoch, at(second));
        fleet.tick(at(second));
        assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded), "{second}");
    }
    assert_eq!(fleet.view().clusters["a"].view.message, "");
    fleet.tick(at(100));
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Overdue));
}

#[test]
fn a_cluster_whose_clock_no_longer_goes_on_is_judged_by_the_hub_s() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(0), epoch, vec![check("dns", at(60))]);
    fleet.stepped(at(5 + HOUR), by(HOUR));
    beat(&mut fleet, at(6 + HOUR), epoch, at(6));
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded));
    // It stands still.
    for second in (10..=15).step_by(5) {
        beat(&mut fleet, at(second + HOUR), epoch, at(6));
    }
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Overdue));
    assert_eq!(fleet.view().check("a", "health", "dns").unwrap().overdue_seconds, HOUR.unsigned_abs() + 15 - 100);
}
