//! Maintenance windows, acknowledgements and dependencies.

use super::*;
use crate::care::WindowSpec;

fn window(selector: &str, from: i64, to: i64) -> Window {
    let spec = WindowSpec {
        name: "patch-day".into(),
        selector: selector.into(),
        from: Some(at(from)),
        to: Some(at(to)),
        ..WindowSpec::default()
    };
    Window::parse(spec).unwrap()
}

fn maintenance(fleet: &Fleet, name: &str) -> Option<String> {
    fleet.view().check("a", "health", name).unwrap().care.maintenance.clone()
}

#[test]
fn a_window_begins_and_ends_by_itself_and_changes_no_status() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(1), epoch, vec![check("dns", at(600))]);
    let events = fleet.apply(at(2), Change::Windows(vec![window("", 10, 20)]));
    assert_eq!(events, [Event::Windows]);
    assert!(fleet.next_wake().unwrap() <= at(10));
    say(&mut fleet, at(9), epoch, Said::Heard);
    fleet.tick(at(9));
    assert_eq!(maintenance(&fleet, "dns"), None);
    let events = fleet.tick(at(10));
    assert!(events.iter().any(|event| matches!(event, Event::Check(check) if check.care.maintenance.is_some())));
    assert_eq!(maintenance(&fleet, "dns").as_deref(), Some("patch-day"));
    // What appears within it is in it, and what fails has failed.
    let failed = CheckState { phase: Phase::Failed, ..check("web", at(600)) };
    say(&mut fleet, at(11), epoch, Said::Upsert(Box::new(failed)));
    assert_eq!(maintenance(&fleet, "web").as_deref(), Some("patch-day"));
    assert_eq!(check_status(&fleet, "web"), Some(CheckStatus::Failed));
    fleet.tick(at(20));
    assert_eq!((maintenance(&fleet, "dns"), maintenance(&fleet, "web")), (None, None));
    assert_counts(&fleet);
}

#[test]
fn a_window_follows_the_labels_of_clusters_and_its_own_removal() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    snapshot(&mut fleet, at(1), epoch, vec![check("dns", at(600))]);
    fleet.apply(at(2), Change::Windows(vec![window("env=prod", 0, 100)]));
    assert_eq!(maintenance(&fleet, "dns"), None);
    let labelled = KnownCluster { labels: [("env".to_owned(), "prod".to_owned())].into(), ..known("a", Some("u")) };
    fleet.apply(at(3), Change::Cluster(labelled));
    assert_eq!(maintenance(&fleet, "dns").as_deref(), Some("patch-day"));
    fleet.apply(at(4), Change::Windows(Vec::new()));
    assert_eq!(maintenance(&fleet, "dns"), None);
}

fn acknowledge(fleet: &mut Fleet, now: i64, expires: i64) -> Vec<Event> {
    let acknowledgement =
        Acknowledgement { by: "night-shift".into(), comment: String::new(), at: at(now), expires_at: at(expires) };
    let (cluster, namespace, name) = ("a".to_owned(), "health".to_owned(), "dns".to_owned());
    let change = Change::Acknowledge { cluster, namespace, name, acknowledgement: Some(acknowledgement) };
    fleet.apply(at(now), change)
}

#[test]
fn an_acknowledgement_ends_with_a_success_or_its_time() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    let of = |phase: Phase| CheckState { phase, ..check("dns", at(600)) };
    let is_known = |fleet: &Fleet| fleet.view().check("a", "health", "dns").unwrap().care.acknowledgement.is_some();
    snapshot(&mut fleet, at(1), epoch, vec![of(Phase::Succeeded)]);
    assert!(acknowledge(&mut fleet, 2, 100).is_empty(), "nothing is wrong");
    say(&mut fleet, at(3), epoch, Said::Upsert(Box::new(of(Phase::Failed))));
    assert_eq!(acknowledge(&mut fleet, 4, 12).len(), 1);
    assert!(is_known(&fleet));
    // A later one takes its place.
    acknowledge(&mut fleet, 5, 14);
    fleet.tick(at(12));
    assert!(is_known(&fleet));
    let events = fleet.tick(at(14));
    assert!(!is_known(&fleet) && events.iter().any(|event| matches!(event, Event::Check(_))));

    acknowledge(&mut fleet, 14, 100);
    // Stale is no success.
    fleet.tick(at(40));
    assert_eq!((check_status(&fleet, "dns"), is_known(&fleet)), (Some(CheckStatus::Stale), true));
    let epoch = open(&mut fleet, at(50), "i1");
    snapshot(&mut fleet, at(51), epoch, vec![of(Phase::Succeeded)]);
    assert!(!is_known(&fleet));
    say(&mut fleet, at(52), epoch, Said::Upsert(Box::new(of(Phase::Failed))));
    assert!(!is_known(&fleet), "a new failure is not known yet");
}

#[test]
fn what_a_failing_parent_explains_is_said_as_soon_as_it_fails_and_no_longer() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    let of = |name: &str, phase, parents: &[&str]| {
        let depends_on = parents.iter().map(|name| format!("health/{name}")).collect();
        CheckState { phase, depends_on, ..check(name, at(600)) }
    };
    let (net, web) = (of("net", Phase::Succeeded, &[]), of("web", Phase::Failed, &["net"]));
    snapshot(&mut fleet, at(1), epoch, vec![web, net]);
    let by = |fleet: &Fleet| fleet.view().check("a", "health", "web").unwrap().care.explained_by.clone();
    assert_eq!(by(&fleet), None);
    say(&mut fleet, at(2), epoch, Said::Upsert(Box::new(of("net", Phase::Failed, &[]))));
    let events = fleet.tick(at(2));
    assert!(events.iter().any(|event| matches!(event, Event::Check(check) if check.care.explained_by.is_some())));
    assert_eq!(by(&fleet).as_deref(), Some("health/net"));
    assert_eq!(check_status(&fleet, "web"), Some(CheckStatus::Failed));
    say(&mut fleet, at(3), epoch, Said::Upsert(Box::new(of("net", Phase::Succeeded, &[]))));
    fleet.tick(at(3));
    assert_eq!(by(&fleet), None);
    say(&mut fleet, at(4), epoch, Said::Removed("uid-net".into()));
    fleet.tick(at(4));
    let gone = fleet.view().check("a", "health", "web").unwrap().care.clone();
    assert_eq!(gone.dependency_problem.as_deref(), Some("there is no check health/net, which it depends on"));
}

#[test]
fn a_parent_that_comes_to_depend_on_its_child_no_longer_explains_it() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    let of = |name: &str, parents: &[&str]| {
        let depends_on = parents.iter().map(|name| format!("health/{name}")).collect();
        CheckState { phase: Phase::Failed, depends_on, ..check(name, at(600)) }
    };
    snapshot(&mut fleet, at(1), epoch, vec![of("net", &[]), of("web", &["net"])]);
    fleet.tick(at(1));
    let by = |fleet: &Fleet| fleet.view().check("a", "health", "web").unwrap().care.explained_by.clone();
    assert_eq!(by(&fleet).as_deref(), Some("health/net"));
    say(&mut fleet, at(2), epoch, Said::Upsert(Box::new(of("net", &["web"]))));
    fleet.tick(at(2));
    assert_eq!(by(&fleet), None);
}

#[test]
fn dependants_are_looked_at_once_a_turn_however_many_changes_it_has() {
    let mut fleet = fleet();
    let epoch = open(&mut fleet, at(0), "i1");
    let of = |name: &str, phase, parents: &[&str]| {
        let depends_on = parents.iter().map(|name| format!("health/{name}")).collect();
        CheckState { phase, depends_on, ..check(name, at(600)) }
    };
    let children = (0..50).map(|n| of(&format!("web-{n}"), Phase::Failed, &["net"]));
    let all = children.chain([of("net", Phase::Succeeded, &[])]).collect();
    snapshot(&mut fleet, at(1), epoch, all);
    fleet.tick(at(1));
    let mut told = 0;
    for phase in [Phase::Failed, Phase::Succeeded, Phase::Failed] {
        told += say(&mut fleet, at(2), epoch, Said::Upsert(Box::new(of("net", phase, &[])))).len();
    }
    assert!(told < 10, "{told} events for three changes of one check");
    let explained = |event: &&Event| matches!(event, Event::Check(check) if check.care.explained_by.as_deref() == Some("health/net"));
    assert_eq!(fleet.tick(at(2)).iter().filter(explained).count(), 50);
    assert!(fleet.tick(at(2)).is_empty());
}
