//! The agent's end by itself: what it answers, when it waits and what it leaves.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::world::identity;
use super::{check, report, welcome};
use crate::command::{Answer, Command, Layer, Order, Scope};
use crate::self_test::{SelfTest, SelfTestOutcome};
use crate::session::agent::{self, AgentSession, CloseReason, Input, JournalState, Now, Output};
use crate::session::frame::{AgentFrame, Counted, HubFrame};

fn now(seconds: u64) -> Now {
    Now { monotonic: Duration::from_secs(seconds), wall: Timestamp::UNIX_EPOCH }
}

fn greeted() -> AgentSession {
    let journal = JournalState { oldest_seq: 1, next_seq: 1, backlog: 0, dropped: 0 };
    let mut session = AgentSession::new(identity(0), journal);
    assert_eq!(session.handle(now(0), Input::Connected), []);
    assert!(matches!(session.next_frame(now(0)).0, Some(AgentFrame::Hello(_))));
    session
}

#[test]
fn failures_in_a_row_wait_longer_and_a_session_that_lasted_ends_the_row() {
    let mut session = greeted();
    let wait = |session: &mut AgentSession, at, jitter| match session.handle(now(at), Input::Disconnected { jitter })[..]
    {
        [Output::DialAt(until)] => until - now(at).monotonic,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(wait(&mut session, 0, 0.0), Duration::from_millis(250));
    assert_eq!(wait(&mut session, 0, 1.0), Duration::from_millis(1000));
    for _ in 0..100 {
        wait(&mut session, 0, 1.0);
    }
    assert_eq!(wait(&mut session, 0, f64::NAN), Duration::from_secs(30));
    session.handle(now(100), Input::Connected);
    session.next_frame(now(100));
    session.handle(now(100), Input::Frame(HubFrame::Welcome(welcome(1))));
    assert_eq!(wait(&mut session, 116, 1.0), Duration::from_millis(500));
}

#[test]
fn an_agent_that_does_not_know_its_checks_yet_says_only_that_it_lives() {
    let mut session = greeted();
    session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
    session.handle(now(0), Input::Journal(JournalState { oldest_seq: 1, next_seq: 2, backlog: 1, dropped: 0 }));
    session.handle(now(0), Input::Loaded(vec![report(1)]));
    session.handle(now(0), Input::CheckChanged(Arc::new(check("a", 1))));
    assert!(!session.wants_to_send(now(0)));
    assert!(matches!(session.next_frame(now(6)).0, Some(AgentFrame::Heartbeat(_))));
    assert_eq!(session.next_frame(now(6)).0, None);
    session.handle(now(6), Input::ChecksKnown);
    let snapshot = AgentFrame::Snapshot { checks: vec![check("a", 1)], last: true };
    assert_eq!(session.next_frame(now(6)).0, Some(snapshot));
    assert_eq!(session.next_frame(now(6)).0, Some(AgentFrame::reports(vec![report(1)])));
}

#[test]
fn a_go_away_says_how_long_to_stay_away() {
    let mut session = greeted();
    let go_away = HubFrame::GoAway { reason: "moving".into(), retry_after_ms: 10_000 };
    let outputs = session.handle(now(0), Input::Frame(go_away));
    assert_eq!(outputs, [Output::Close(CloseReason::GoAway("moving".into()))]);
    let outputs = session.handle(now(0), Input::Disconnected { jitter: 0.0 });
    assert_eq!(outputs, [Output::DialAt(Duration::from_secs(10))]);
}

#[test]
fn a_hub_that_breaks_the_order_is_left() {
    assert_eq!(greeted().handle(now(10), Input::Tick), [Output::Close(CloseReason::NoWelcome)]);
    let close = greeted().handle(now(0), Input::Frame(HubFrame::Ack(1)));
    assert_eq!(close, [Output::Close(CloseReason::OutOfOrder("Ack"))]);
    let mut session = greeted();
    assert_eq!(session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1)))), []);
    let close = session.handle(now(0), Input::Frame(HubFrame::Ack(1)));
    assert_eq!(close, [Output::Close(CloseReason::AckBeyondSent { acked: 1, sent: 0 })]);
    assert_eq!(session.handle(now(0), Input::Frame(HubFrame::Ack(1))), []);
}

#[test]
fn a_hub_that_takes_no_frame_is_left_after_half_a_minute_and_nobody_wakes_in_vain_meanwhile() {
    let at = |monotonic| Now { monotonic, wall: Timestamp::UNIX_EPOCH };
    let mut session = greeted();
    session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
    let half_a_minute = Duration::from_secs(30);
    let mut due = Duration::ZERO;
    // There is room again, once: the time begins anew.
    for _ in 0..2 {
        due = session.deadline().unwrap();
        assert_eq!(session.handle(at(due), Input::Tick), []);
        assert_eq!(session.deadline(), Some(due + half_a_minute), "not at once again");
        let late = at(due + half_a_minute - Duration::from_millis(1));
        assert_eq!(session.handle(late, Input::Tick), []);
        if due < half_a_minute {
            assert!(matches!(session.next_frame(late).0, Some(AgentFrame::Heartbeat(_))));
        }
    }
    let close = session.handle(at(due + half_a_minute), Input::Tick);
    assert_eq!(close, [Output::Close(CloseReason::Unread)]);
}

#[test]
fn a_command_is_obeyed_once_and_too_many_are_refused() {
    let command = |id: usize| Command { id: id.to_string(), scope: Scope::default(), order: Order::RunNow };
    let answer = |id: usize| Answer { id: id.to_string(), verdict: Ok(String::new()) };
    let close = greeted().handle(now(0), Input::Frame(HubFrame::Command(command(0))));
    assert_eq!(close, [Output::Close(CloseReason::OutOfOrder("Command"))]);
    let mut session = greeted();
    session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
    for id in 0..agent::MAX_COMMANDS {
        let outputs = session.handle(now(0), Input::Frame(HubFrame::Command(command(id))));
        assert_eq!(outputs, [Output::Obey(command(id))]);
    }
    assert_eq!(session.handle(now(0), Input::Frame(HubFrame::Command(command(0)))), [], "the same one again");
    assert_eq!(session.handle(now(0), Input::Frame(HubFrame::Command(command(99)))), [], "one too many");
    let Some(AgentFrame::CommandAnswer(refused)) = session.next_frame(now(0)).0 else { panic!("no refusal") };
    assert_eq!((refused.id.as_str(), refused.verdict.unwrap_err().layer), ("99", Layer::Agent));
    session.handle(now(0), Input::Obeyed(answer(3)));
    session.handle(now(0), Input::Obeyed(answer(3)));
    assert_eq!(session.next_frame(now(0)).0, Some(AgentFrame::CommandAnswer(answer(3))));
    assert!(!session.wants_to_send(now(0)));
    session.handle(now(0), Input::Disconnected { jitter: 0.0 });
    session.handle(now(0), Input::Connected);
    session.next_frame(now(0));
    session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
    session.handle(now(0), Input::Obeyed(answer(4)));
    assert!(!session.wants_to_send(now(0)), "the hub of the next session does not wait for it");
}

#[test]
fn the_hubs_latest_mark_is_kept_and_said_in_the_next_hello() {
    let mark = |text: &str| Input::Frame(HubFrame::Mark(text.into()));
    let mut session = greeted();
    assert!(matches!(session.handle(now(0), mark("early"))[..], [Output::Close(_)]), "before Welcome");
    let mut session = greeted();
    session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
    for text in ["one", "two"] {
        assert_eq!(session.handle(now(0), mark(text)), [Output::Remember(text.into())]);
    }
    session.handle(now(0), Input::Disconnected { jitter: 0.0 });
    session.handle(now(1), Input::Connected);
    let (hello, _) = session.next_frame(now(1));
    assert!(matches!(hello, Some(AgentFrame::Hello(hello)) if hello.hub_mark == "two"));
}

#[test]
fn what_came_of_a_self_test_outlives_the_session_that_asked_for_it() {
    let ended = SelfTest::new(SelfTestOutcome::Succeeded, "done", now(0).wall);
    let mut session = greeted();
    session.handle(now(0), Input::SelfTested(ended.clone()));
    assert!(!session.wants_to_send(now(0)), "not before the hub has welcomed it");
    session.handle(now(0), Input::Disconnected { jitter: 0.0 });
    session.handle(now(0), Input::Connected);
    session.next_frame(now(0));
    session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
    assert_eq!(session.next_frame(now(0)).0, Some(AgentFrame::SelfTest(ended)));
    assert!(!session.wants_to_send(now(0)), "once");
}

#[test]
fn what_the_journal_lacks_is_said_in_each_session_before_the_reports_until_one_of_these_is_acked() {
    let lacking = vec![Counted { check_uid: "a".into(), mark: now(0).wall }];
    let journal = JournalState { oldest_seq: 1, next_seq: 3, backlog: 2, dropped: 0 };
    let mut session = AgentSession::new(identity(0), journal);
    session.handle(now(0), Input::Lacking(lacking.clone()));
    session.handle(now(0), Input::ChecksKnown);
    let mut open = |ack: Option<u64>| {
        session.handle(now(0), Input::Connected);
        session.next_frame(now(0));
        session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(8))));
        session.handle(now(0), Input::Loaded(vec![report(1), report(2)]));
        let frames: Vec<_> = std::iter::from_fn(|| {
            let is_due = session.wants_to_send(now(0));
            is_due.then(|| session.next_frame(now(0)).0.unwrap())
        })
        .collect();
        let outputs = ack.map(|seq| session.handle(now(0), Input::Frame(HubFrame::Ack(seq))));
        session.handle(now(0), Input::Disconnected { jitter: 0.0 });
        (frames, outputs.unwrap_or_default())
    };
    for ack in [None, Some(0), Some(1)] {
        let (frames, outputs) = open(ack);
        let [AgentFrame::Snapshot { .. }, AgentFrame::Lacking(said), AgentFrame::Reports { .. }] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!(*said, lacking);
        let is_known = outputs.contains(&Output::LackingKnown(lacking.clone()));
        assert_eq!(is_known, ack == Some(1), "an ack of what came behind it");
    }
    let (frames, _) = open(None);
    assert!(matches!(frames[..], [AgentFrame::Snapshot { .. }, AgentFrame::Reports { .. }]), "{frames:?}");
}

#[test]
fn an_answer_of_an_old_session_is_not_given_to_a_new_one() {
    let definitions = HubFrame::Definitions { nonce: 1, definitions: vec![] };
    let mut session = greeted();
    session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
    session.next_frame(now(0));
    let first = session.handle(now(0), Input::Frame(definitions.clone()));
    assert_eq!(first, [Output::ApplyDefinitions { nonce: 1, definitions: vec![] }]);
    session.handle(now(0), Input::Disconnected { jitter: 0.0 });
    session.handle(now(1), Input::Connected);
    session.next_frame(now(1));
    session.handle(now(1), Input::Frame(HubFrame::Welcome(welcome(1))));
    session.next_frame(now(1));
    session.handle(now(1), Input::Frame(definitions));
    session.handle(now(1), Input::DefinitionsDone { nonce: 1, statuses: vec![] });
    assert!(!session.wants_to_send(now(1)));
    session.handle(now(1), Input::DefinitionsDone { nonce: 2, statuses: vec![] });
    let answer = AgentFrame::DefinitionsStatus { nonce: 1, statuses: vec![] };
    assert_eq!(session.next_frame(now(1)).0, Some(answer));
}
