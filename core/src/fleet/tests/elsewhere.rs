//! Clusters at other replicas.

use super::*;
use crate::policy::PolicySetting;

fn shown(status: ClusterStatus) -> ShownLink {
    ShownLink {
        status,
        message: String::new(),
        last_heard_at: Some(at(0)),
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.33.0".into(),
        backlog: 7,
        dropped_reports: 0,
        refused_checks: 0,
        clock_skew_ms: 0,
        policy: vec![PolicySetting::new("remedies", "false")],
        incarnation: "i1".into(),
        snapshot_due: None,
    }
}

fn succeeded(name: &str) -> ShownCheck {
    let health = Health { since: Some(at(-500)), ..saved(name).1 };
    ShownCheck { state: check(name, at(3600)), health, status: CheckStatus::Succeeded }
}

/// Cluster `a` at the replica `r2`.
fn elsewhere(epoch: u64, status: ClusterStatus, checks: Vec<ShownCheck>) -> Elsewhere {
    Elsewhere {
        cluster: "a".into(),
        replica: "r2".into(),
        epoch,
        link: Some(shown(status)),
        checks,
        removed: vec![],
        is_whole: true,
    }
}

/// Follows `r2`, which was heard at `beat`.
fn follow_at(fleet: &mut Fleet, now: Timestamp, beat: Timestamp, clusters: Vec<Elsewhere>) -> Vec<Event> {
    fleet.apply(now, Change::Followed(Box::new(Followed { beats: vec![("r2".into(), beat)], clusters })))
}

fn follow(fleet: &mut Fleet, now: Timestamp, elsewhere: Elsewhere) -> Vec<Event> {
    follow_at(fleet, now, now, vec![elsewhere])
}

fn beat(fleet: &mut Fleet, now: Timestamp) -> Vec<Event> {
    follow_at(fleet, now, now, vec![])
}

/// A fleet that has heard of `a` at `r2` in the second 0.
fn followed() -> Fleet {
    let mut fleet = fleet();
    follow(&mut fleet, at(0), elsewhere(100, ClusterStatus::Connected, vec![succeeded("dns"), succeeded("web")]));
    fleet
}

#[test]
fn what_is_shown_elsewhere_is_shown_here_word_by_word() {
    let mut fleet = followed();
    let view = fleet.view();
    assert_eq!((status(&fleet), view.clusters["a"].view.backlog), (ClusterStatus::Connected, 7));
    assert_eq!(view.check("a", "health", "dns").unwrap().health, succeeded("dns").health);
    assert_eq!(view.clusters["a"].own, None);
    // Overdue by this replica's clock, and not by that of the one with the session.
    beat(&mut fleet, at(9000));
    fleet.tick(at(9000));
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded));
    let overdue = ShownCheck { status: CheckStatus::Overdue, ..succeeded("dns") };
    let change = Elsewhere { is_whole: false, ..elsewhere(100, ClusterStatus::Connected, vec![overdue]) };
    let events = follow(&mut fleet, at(9000), change);
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Overdue));
    assert!(events.iter().any(|event| matches!(event, Event::Check(check) if check.status == CheckStatus::Overdue)));
    let gone = Elsewhere {
        removed: vec!["uid-dns".into()],
        is_whole: false,
        ..elsewhere(100, ClusterStatus::Connected, vec![])
    };
    follow(&mut fleet, at(9000), gone);
    assert_eq!((check_status(&fleet, "dns"), check_status(&fleet, "web")), (None, Some(CheckStatus::Succeeded)));
    follow(&mut fleet, at(9000), elsewhere(100, ClusterStatus::Connected, vec![succeeded("dns")]));
    assert_eq!((check_status(&fleet, "dns"), check_status(&fleet, "web")), (Some(CheckStatus::Succeeded), None));
    assert_counts(&fleet);
}

#[test]
fn clusters_of_a_replica_without_a_beat_are_reconnecting_then_unreachable_and_back_with_it() {
    let mut fleet = followed();
    assert_eq!(fleet.next_wake(), Some(at(5)), "a third of the lease");
    fleet.tick(at(5));
    assert_eq!(
        (status(&fleet), check_status(&fleet, "dns")),
        (ClusterStatus::Reconnecting, Some(CheckStatus::Succeeded))
    );
    fleet.tick(at(15));
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Unreachable, Some(CheckStatus::Stale)));
    assert_counts(&fleet);
    let events = beat(&mut fleet, at(20));
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Connected, Some(CheckStatus::Succeeded)));
    assert_eq!(fleet.view().check("a", "health", "dns").unwrap().health, succeeded("dns").health);
    assert!(events.iter().any(|event| matches!(event, Event::Check(_))));
    // It is no more told of.
    fleet.apply(at(21), Change::Followed(Box::default()));
    assert_eq!(status(&fleet), ClusterStatus::Unreachable);
    assert_eq!(fleet.next_wake(), None);
    assert_counts(&fleet);
}

#[test]
fn a_session_that_opens_here_counts_from_then_on_and_one_that_opens_elsewhere_ends_it() {
    let mut fleet = followed();
    let hello = |incarnation: &str| hello("a", "u", incarnation, at(1));
    let late = fleet.open_as(at(1), &hello("i1"), 100).0;
    assert_eq!(late, Err(Refusal::Overtaken { name: "a".into() }));
    assert_eq!(fleet.open_as(at(1), &hello("i1"), 101).0, Ok(101));
    let own = Own { epoch: 101, incarnation: "i1".into(), snapshot_due: Some(at(16)) };
    assert_eq!(fleet.view().clusters["a"].own, Some(own));
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Succeeded), "a move shows nothing");
    let late = follow(&mut fleet, at(2), elsewhere(100, ClusterStatus::Unreachable, vec![]));
    assert!(late.is_empty() && fleet.open_epoch("a") == Some(101), "a late word of the replica before");
    snapshot(&mut fleet, at(3), 101, vec![check("dns", at(3600))]);
    assert_eq!(check_status(&fleet, "web"), None);
    // It moves on, and nothing was said there yet.
    let opened = Elsewhere { link: None, ..elsewhere(102, ClusterStatus::Connected, vec![]) };
    follow(&mut fleet, at(4), opened);
    assert_eq!((fleet.open_epoch("a"), &fleet.view().clusters["a"].own), (None, &None));
    assert_eq!(
        (status(&fleet), check_status(&fleet, "dns")),
        (ClusterStatus::Reconnecting, Some(CheckStatus::Succeeded))
    );
    assert!(say(&mut fleet, at(5), 101, Said::Closed).is_empty());
    follow(&mut fleet, at(5), elsewhere(102, ClusterStatus::Connected, vec![succeeded("web")]));
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Connected, None));
    assert_counts(&fleet);
}

#[test]
fn a_move_to_a_replica_that_is_heard_makes_nothing_green_that_was_stale() {
    let mut fleet = followed();
    fleet.tick(at(15));
    assert_eq!(check_status(&fleet, "dns"), Some(CheckStatus::Stale));
    // Also where the replica that had it is heard again meanwhile.
    let opened = Elsewhere { replica: "r3".into(), link: None, ..elsewhere(101, ClusterStatus::Connected, vec![]) };
    follow(&mut fleet, at(16), opened);
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Unreachable, Some(CheckStatus::Stale)));
}

#[test]
fn an_agent_that_goes_from_replica_to_replica_gets_one_deadline_for_its_snapshot() {
    let mut fleet = followed();
    let due = ShownLink { snapshot_due: Some(at(10)), ..shown(ClusterStatus::Connected) };
    let opened = Elsewhere { link: Some(due), ..elsewhere(101, ClusterStatus::Connected, vec![succeeded("dns")]) };
    follow(&mut fleet, at(1), opened);
    fleet.open_as(at(8), &hello("a", "u", "i1", at(8)), 102).0.unwrap();
    fleet.tick(at(10));
    assert_eq!((status(&fleet), check_status(&fleet, "dns")), (ClusterStatus::Connected, Some(CheckStatus::Stale)));
}

#[test]
fn two_that_take_turns_at_two_replicas_are_shown() {
    let mut fleet = followed();
    let open = |fleet: &mut Fleet, epoch, incarnation: &str| {
        fleet.open_as(at(1), &hello("a", "u", incarnation, at(1)), epoch).0.unwrap();
    };
    open(&mut fleet, 101, "i2");
    assert_eq!(fleet.view().clusters["a"].view.message, "", "a restart is nothing odd");
    follow(&mut fleet, at(1), elsewhere(102, ClusterStatus::Connected, vec![]));
    open(&mut fleet, 103, "i2");
    assert!(fleet.view().clusters["a"].view.message.contains("take turns"));
}

#[test]
fn of_a_cluster_that_is_not_known_nothing_is_shown() {
    let mut fleet = fleet();
    let unknown = Elsewhere { cluster: "b".into(), ..elsewhere(1, ClusterStatus::Connected, vec![succeeded("dns")]) };
    assert!(follow(&mut fleet, at(0), unknown).is_empty());
    assert_counts(&fleet);
}

#[test]
fn only_what_changed_of_own_clusters_is_published_and_a_cluster_that_came_here_as_a_whole() {
    let mut fleet = followed();
    let mut publisher = Publisher::default();
    let mut round = |fleet: &mut Fleet, refused: &[String]| {
        let view = fleet.publish();
        let due = publisher.due(&view);
        publisher.published(&view, due.clone(), refused);
        due
    };
    assert_eq!(round(&mut fleet, &[]), [], "another replica's");
    fleet.open_as(at(1), &hello("a", "u", "i1", at(1)), 101).0.unwrap();
    let whole = round(&mut fleet, &["a".into()]);
    assert!(whole[0].is_whole && whole[0].link.is_some() && whole[0].checks.len() == 2, "{whole:?}");
    assert_eq!(round(&mut fleet, &[]), whole, "it was refused");
    assert_eq!(round(&mut fleet, &[]), []);
    snapshot(&mut fleet, at(2), 101, vec![check("dns", at(3600))]);
    let changed = round(&mut fleet, &[]);
    assert_eq!((changed[0].is_whole, changed[0].removed.as_slice()), (false, ["uid-web".to_owned()].as_slice()));
    assert_eq!(changed[0].link.as_ref().unwrap().snapshot_due, None);
    say(&mut fleet, at(4), 101, Said::Heard);
    assert_eq!(round(&mut fleet, &[]), [], "that it was heard is no news each time");
    say(&mut fleet, at(8), 101, Said::Heard);
    assert_eq!(round(&mut fleet, &[])[0].link.as_ref().unwrap().last_heard_at, Some(at(8)));
}

#[test]
fn the_link_of_a_replica_of_an_earlier_version_says_nothing_of_the_policy() {
    let link = shown(ClusterStatus::Connected);
    let mut json = serde_json::to_value(&link).unwrap();
    assert!(json.as_object_mut().unwrap().remove("policy").is_some());
    let earlier: ShownLink = serde_json::from_value(json).unwrap();
    assert_eq!(earlier, ShownLink { policy: Vec::new(), ..link });
    let mut fleet = fleet();
    let said =
        Elsewhere { link: Some(shown(ClusterStatus::Connected)), ..elsewhere(1, ClusterStatus::Connected, vec![]) };
    follow(&mut fleet, at(0), said);
    assert_eq!(fleet.view().clusters["a"].view.policy, [PolicySetting::new("remedies", "false")]);
}
