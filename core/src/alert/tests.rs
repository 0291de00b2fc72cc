use crate::incident::tests::open_incident;
use crate::view::IncidentKind;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn incident(id: &str) -> Incident {
    Incident { id: id.into(), first_seen: at(0), ..open_incident() }
}

fn said(notices: &[Notice]) -> Vec<(&str, &str)> {
    notices.iter().map(|notice| (notice.incident.id.as_str(), notice.status.as_str())).collect()
}

/// What is due, and that it is delivered.
fn tell(teller: &mut Teller, second: i64, open: &[Incident]) -> Vec<(String, &'static str)> {
    let open: Vec<_> = open.iter().cloned().map(Arc::new).collect();
    let due = teller.due(at(second), &open, |_| true);
    teller.delivered(at(second), &due);
    due.iter().map(|notice| (notice.incident.id.clone(), notice.status.as_str())).collect()
}

fn teller() -> Teller {
    Teller::new(SignedDuration::from_secs(60))
}

#[test]
fn an_incident_is_told_once_it_has_settled_said_again_and_resolved_when_it_is_closed() {
    let mut teller = teller();
    let one = incident("a");
    assert!(tell(&mut teller, 9, std::slice::from_ref(&one)).is_empty());
    assert_eq!(tell(&mut teller, 10, std::slice::from_ref(&one)), [("a".into(), "firing")]);
    assert!(tell(&mut teller, 69, std::slice::from_ref(&one)).is_empty());
    // That nothing of it is wrong for some seconds is no end: it is still open.
    let quiet = Incident { recovered_at: Some(at(70)), ..one.clone() };
    assert_eq!(tell(&mut teller, 70, std::slice::from_ref(&quiet)), [("a".into(), "firing")]);
    assert_eq!(tell(&mut teller, 71, &[]), [("a".into(), "resolved")]);
    assert!(tell(&mut teller, 72, &[]).is_empty());
    // One that was over before anybody was told is told to nobody.
    assert!(tell(&mut teller, 80, &[quiet]).is_empty());
}

#[test]
fn what_is_told_goes_by_periods_whatever_the_clock_is_set_to() {
    const HOUR: i64 = 3600;
    for step in [HOUR, -HOUR] {
        let mut teller = teller();
        let one = [incident("a")];
        assert_eq!(tell(&mut teller, 10, &one), [("a".into(), "firing")]);
        teller.stepped(SignedDuration::from_secs(step));
        assert!(tell(&mut teller, 69 + step, &one).is_empty(), "{step}");
        assert_eq!(tell(&mut teller, 70 + step, &one), [("a".into(), "firing")], "{step}");
        // One that nobody was told of does not wait until the clock is where it was.
        let new = [Incident { first_seen: at(71), ..incident("b") }];
        let due = tell(&mut teller, 82 + step, &new);
        assert!(due.contains(&("b".into(), "firing")), "{step}: {due:?}");
    }
}

#[test]
fn what_was_not_delivered_is_due_again_as_it_is_then() {
    let teller = teller();
    let one = Arc::new(incident("a"));
    assert_eq!(said(&teller.due(at(10), std::slice::from_ref(&one), |_| true)), [("a", "firing")]);
    assert_eq!(said(&teller.due(at(11), std::slice::from_ref(&one), |_| true)), [("a", "firing")]);
    // It is over before the receiver is back: then there is nothing to say.
    assert!(teller.due(at(12), &[], |_| true).is_empty());
}

#[test]
fn who_knows_is_not_called_and_is_called_again_when_that_ends() {
    let mut teller = teller();
    let (loud, silent) = (incident("a"), Incident { silenced: true, ..incident("a") });
    assert!(tell(&mut teller, 20, std::slice::from_ref(&silent)).is_empty());
    assert_eq!(tell(&mut teller, 30, std::slice::from_ref(&loud)), [("a".into(), "firing")]);
    assert_eq!(tell(&mut teller, 31, std::slice::from_ref(&silent)), [("a".into(), "silenced")]);
    assert!(tell(&mut teller, 500, &[silent]).is_empty());
    assert_eq!(tell(&mut teller, 501, &[loud]), [("a".into(), "firing")]);
}

#[test]
fn what_is_refused_waits_longer_each_time_and_what_changes_of_it_does_not_wait() {
    let mut teller = teller();
    let one = Arc::new(incident("a"));
    let due =
        |teller: &Teller, second, one: &Arc<Incident>| teller.due(at(second), std::slice::from_ref(one), |_| true);
    let mut second = 10;
    for (times, pause) in [(1, 10), (2, 20), (3, 40)] {
        let notice = due(&teller, second, &one).remove(0);
        assert!(!teller.refused(at(second), &notice));
        assert_eq!(teller.refusals(&notice), times);
        assert!(due(&teller, second + pause - 1, &one).is_empty());
        second += pause;
    }
    // A clock that was set back holds nothing back.
    assert_eq!(due(&teller, 11, &one).len(), 1);
    let notice = due(&teller, second, &one).remove(0);
    teller.refused(at(second), &notice);
    assert!(due(&teller, second, &one).is_empty());
    let wide = Arc::new(Incident { widespread: true, ..incident("a") });
    assert_eq!(said(&due(&teller, second, &wide)), [("a", "firing")]);
    teller.delivered(at(second), &due(&teller, second, &wide));
    let notice = Notice { status: NoticeStatus::Firing, incident: wide };
    assert_eq!(teller.refusals(&notice), 0);
}

#[test]
fn an_end_that_is_refused_again_and_again_is_given_up() {
    let mut teller = teller();
    tell(&mut teller, 10, &[incident("a")]);
    let (mut second, mut times) = (11, 1);
    while !teller.refused(at(second), &teller.due(at(second), &[], |_| true)[0]) {
        (second, times) = (second + 3600, times + 1);
        assert!(times <= MAX_REFUSED_ENDS);
    }
    assert_eq!(times, MAX_REFUSED_ENDS);
    assert!(teller.due(at(second + 3600), &[], |_| true).is_empty());
}

#[test]
fn hundreds_that_are_refused_take_the_place_of_no_other_one() {
    let mut teller = teller();
    let all: Vec<_> = (0..=MAX_DUE).map(|n| Arc::new(incident(&format!("{n:03}")))).collect();
    for notice in teller.due(at(10), &all, |_| true) {
        teller.refused(at(10), &notice);
    }
    assert_eq!(said(&teller.due(at(11), &all, |_| true)), [("100", "firing")]);
    teller.forget_over(&[]);
    assert!(teller.refused.is_empty(), "what is over is forgotten");
}

#[test]
fn one_that_grows_is_told_at_once_under_its_new_severity() {
    let mut teller = teller();
    tell(&mut teller, 10, &[incident("a")]);
    let wide = Arc::new(Incident { widespread: true, ..incident("a") });
    let due = teller.due(at(11), std::slice::from_ref(&wide), |_| true);
    assert_eq!(said(&due), [("a", "firing")]);
    let before = teller.relabelled(&due[0]).unwrap();
    assert_eq!((labels(&before)["severity"].as_str(), labels(&wide)["severity"].as_str()), ("warning", "critical"));
    teller.delivered(at(11), &due);
    assert_eq!(teller.relabelled(&due[0]), None);
}

#[test]
fn the_end_of_what_was_closed_before_a_restart_is_told_again() {
    let mut teller = teller().closed_before([incident("a")], &[], |_| true);
    assert_eq!(tell(&mut teller, 20, &[incident("b")]), [("b".into(), "firing"), ("a".into(), "resolved")]);
}

#[test]
fn of_what_was_closed_before_a_restart_nothing_is_told_that_is_open_again_or_that_the_route_does_not_pick() {
    let other = |id: &str| Incident { kind: IncidentKind::Unreachable, ..incident(id) };
    let picks = |incident: &Incident| incident.kind == IncidentKind::Check;
    let open = [Arc::new(other("b"))];
    let teller = teller().closed_before([other("a"), incident("b")], &open, picks);
    assert!(teller.due(at(20), &open, picks).is_empty());
}

#[test]
fn of_several_closings_the_newest_is_how_an_incident_ended() {
    let closed = |second: i64| Incident { closed_at: Some(at(second)), ..incident("a") };
    let teller = teller().closed_before([closed(9), closed(5)], &[], |_| true);
    let due = teller.due(at(20), &[], |_| true);
    assert_eq!((said(&due), due[0].incident.closed_at), (vec![("a", "resolved")], Some(at(9))));
}

#[test]
fn a_route_picks_by_kind_check_and_the_labels_of_a_member() {
    let text = "routes:\n- name: a\n  webhook: http://x/y\n  match: {kind: Check, namespace: health, selector: 'env in (prod)'}\n";
    let routes = Routes::parse(text).unwrap();
    let labels = |env: &str| BTreeMap::from([("env".to_owned(), env.to_owned())]);
    let (prod, dev) = (labels("prod"), labels("dev"));
    let matches = &routes.routes[0].matches;
    assert!(matches.picks(&incident("a"), |_| Some(&prod)) && !matches.picks(&incident("a"), |_| Some(&dev)));
    assert!(!matches.picks(&Incident { kind: IncidentKind::Unreachable, ..incident("a") }, |_| Some(&prod)));
    assert!(!matches.picks(&Incident { namespace: Some("other".into()), ..incident("a") }, |_| Some(&prod)));
}

#[test]
fn a_bad_file_of_routes_is_one_error_that_names_its_field() {
    let route = |more: &str| format!("routes:\n- name: a\n  {more}\n");
    for (text, why) in [
        (route("webhook: http://x\n  foo: 1"), "unknown field `foo`"),
        (route("webhook: ftp://x"), "routes[0].webhook: must be http://HOST or https://HOST"),
        (route("webhook: http://user:pass@x"), "without user and password"),
        (route("alertmanager: http://x\n  secretFile: /s"), "routes[0].secretFile: only what a webhook gets is signed"),
        (route("watchdog: true"), "routes[0].alertmanager: give the address"),
        (route("webhook: http://x\n  alertmanager: http://y"), "one of them"),
        (route("webhook: http://x\n  match: {selector: 'a b'}"), "the key"),
        (route("webhook: http://x\n  match: {kind: Both}"), "unknown variant `Both`"),
        (route("webhook: http://x\n- name: a\n  webhook: http://y"), "routes[1].name: a is the name of another route"),
        ("routes:\n- {name: Bad, webhook: http://x}".to_owned(), "routes[0].name must be 1 to 63"),
        ("routes: {".to_owned(), "line 1"),
    ] {
        let said = Routes::parse(&text).unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
    }
    assert_eq!(Routes::parse("routes: []").unwrap(), Routes::default());
}
