//! The hub's end of a session, frame by frame.

use super::*;
use crate::command::Scope;
use crate::self_test::SelfTestOutcome;
use crate::session::simulation::{check, hello, report, welcome};

fn frame(session: &mut HubSession, frame: AgentFrame) -> Vec<Output> {
    session.handle(Input::Frame(frame))
}

fn accepted() -> HubSession {
    let mut session = HubSession::new("c1".into());
    assert_eq!(frame(&mut session, AgentFrame::Hello(hello("c1"))), [Output::Register(hello("c1"))]);
    let outputs = session.handle(Input::Accepted(welcome(4)));
    assert_eq!(outputs, [Output::Send(HubFrame::Welcome(welcome(4)))]);
    session
}

fn live() -> HubSession {
    let mut session = accepted();
    let last = AgentFrame::Snapshot { checks: vec![], last: true };
    assert_eq!(frame(&mut session, last), [Output::Snapshot(vec![])]);
    session
}

fn error(outputs: Vec<Output>) -> SessionError {
    match &outputs[..] {
        [Output::End(Some(error))] => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_name_is_the_certificates_and_no_other() {
    let mut session = HubSession::new("c1".into());
    let refused = error(frame(&mut session, AgentFrame::Hello(hello("c2"))));
    assert_eq!(refused, SessionError::WrongCluster { claimed: "c2".into(), certified: "c1".into() });
    assert_eq!(frame(&mut session, AgentFrame::Hello(hello("c1"))), []);
}

#[test]
fn frames_out_of_order_end_the_session() {
    let mut session = HubSession::new("c1".into());
    assert!(matches!(error(frame(&mut session, AgentFrame::reports(vec![]))), SessionError::OutOfOrder { .. }));
    let mut session = accepted();
    let early = AgentFrame::CheckUpsert(Box::new(check("a", 1)));
    let expected = SessionError::OutOfOrder { frame: "CheckUpdate", stage: "the snapshot was not complete" };
    assert_eq!(error(frame(&mut session, early)), expected);
    let again = AgentFrame::Snapshot { checks: vec![], last: true };
    assert!(matches!(error(frame(&mut live(), again)), SessionError::OutOfOrder { .. }));
    assert!(matches!(error(frame(&mut live(), AgentFrame::Hello(hello("c1")))), SessionError::OutOfOrder { .. }));
}

#[test]
fn a_snapshot_is_handed_on_when_it_is_complete() {
    let mut session = accepted();
    let chunk = |uid, last| AgentFrame::Snapshot { checks: vec![check(uid, 1)], last };
    assert_eq!(frame(&mut session, chunk("b", false)), []);
    assert_eq!(frame(&mut session, chunk("a", true)), [Output::Snapshot(vec![check("a", 1), check("b", 1)])]);
}

#[test]
fn an_ack_follows_the_commit_and_bounds_what_is_under_way() {
    let mut session = live();
    let reports = |seqs: &[u64]| AgentFrame::reports(seqs.iter().map(|&seq| report(seq)).collect());
    let record = |seqs: &[u64]| Output::Record {
        reports: seqs.iter().map(|&seq| report(seq)).collect(),
        through_seq: *seqs.last().unwrap(),
    };
    assert_eq!(frame(&mut session, reports(&[3, 4, 9])), [record(&[3, 4, 9])]);
    assert_eq!(session.handle(Input::Committed { seq: 9 }), [Output::Send(HubFrame::Ack(9))]);
    assert_eq!(session.handle(Input::Committed { seq: 4 }), []);
    assert_eq!(frame(&mut session, reports(&[10, 11, 12, 13])), [record(&[10, 11, 12, 13])]);
    let refused = error(frame(&mut session, reports(&[14])));
    assert_eq!(refused, SessionError::TooManyUnacked { unacked: 5, limit: 4 });
    let mut session = live();
    frame(&mut session, reports(&[5]));
    assert_eq!(error(frame(&mut session, reports(&[5]))), SessionError::SeqNotGrowing { seq: 5, after: 5 });
}

#[test]
fn reports_that_cannot_be_read_are_acked_too() {
    let mut session = live();
    let unread = |through_seq| AgentFrame::Reports { reports: Vec::new(), through_seq };
    for through_seq in [4, 8, 12] {
        let record = Output::Record { reports: Vec::new(), through_seq };
        assert_eq!(frame(&mut session, unread(through_seq)), [record]);
        let acked = session.handle(Input::Committed { seq: through_seq });
        assert_eq!(acked, [Output::Send(HubFrame::Ack(through_seq))]);
    }
    let tail = AgentFrame::Reports { reports: vec![report(13)], through_seq: 16 };
    assert_eq!(frame(&mut session, tail), [Output::Record { reports: vec![report(13)], through_seq: 16 }]);
    assert_eq!(session.handle(Input::Committed { seq: 13 }), [Output::Send(HubFrame::Ack(13))]);
    assert_eq!(session.handle(Input::Committed { seq: 16 }), [Output::Send(HubFrame::Ack(16))]);
    let again = AgentFrame::reports(vec![report(16)]);
    assert_eq!(error(frame(&mut session, again)), SessionError::SeqNotGrowing { seq: 16, after: 16 });
}

#[test]
fn definitions_wait_for_the_welcome_and_only_the_latest_answer_counts() {
    let definition = |name: &str| vec![Definition { name: name.into(), generation: 1, health_check: "{}".into() }];
    let mut session = HubSession::new("c1".into());
    assert_eq!(session.handle(Input::PushDefinitions(definition("a"))), []);
    frame(&mut session, AgentFrame::Hello(hello("c1")));
    assert_eq!(session.handle(Input::PushDefinitions(definition("b"))), []);
    let sent = |nonce, name| Output::Send(HubFrame::Definitions { nonce, definitions: definition(name) });
    let outputs = session.handle(Input::Accepted(welcome(4)));
    assert_eq!(outputs, [Output::Send(HubFrame::Welcome(welcome(4))), sent(1, "b")]);
    assert_eq!(session.handle(Input::PushDefinitions(definition("c"))), [sent(2, "c")]);
    let status = |nonce| AgentFrame::DefinitionsStatus { nonce, statuses: vec![] };
    assert_eq!(frame(&mut session, status(1)), []);
    assert_eq!(frame(&mut session, status(2)), [Output::DefinitionsStatus(vec![])]);
    assert_eq!(error(frame(&mut session, status(3))), SessionError::UnknownNonce { nonce: 3, latest: 2 });
    let huge = vec![Definition { name: "h".into(), generation: 1, health_check: "x".repeat(5 << 20) }];
    let outputs = live().handle(Input::PushDefinitions(huge));
    assert!(matches!(outputs[..], [Output::DefinitionsTooLarge { .. }]));
}

#[test]
fn a_command_is_answered_once_and_an_answer_to_nothing_ends_the_session() {
    let command = |id: &str| Command { id: id.into(), scope: Scope::default(), order: Order::RunNow };
    let answer = |id: &str| Answer { id: id.into(), verdict: Ok("done".into()) };
    let mut session = HubSession::new("c1".into());
    let early = session.handle(Input::Command(command("0")));
    assert!(
        matches!(&early[..], [Output::Answered(Answer { verdict: Err(refusal), .. })] if refusal.layer == Layer::Hub)
    );
    let mut session = live();
    let sent = session.handle(Input::Command(command("1")));
    assert_eq!(sent, [Output::Send(HubFrame::Command(command("1")))]);
    assert_eq!(frame(&mut session, AgentFrame::CommandAnswer(answer("1"))), [Output::Answered(answer("1"))]);
    let again = error(frame(&mut session, AgentFrame::CommandAnswer(answer("1"))));
    assert_eq!(again, SessionError::UnknownCommand { id: "1".into() });
    let mut session = live();
    for id in 0..MAX_COMMANDS {
        assert!(matches!(session.handle(Input::Command(command(&id.to_string())))[..], [Output::Send(_)]));
    }
    let refused = session.handle(Input::Command(command("more")));
    assert!(matches!(&refused[..], [Output::Answered(Answer { verdict: Err(_), .. })]));
}

#[test]
fn self_tests_come_as_often_as_they_were_asked_for_and_one_more_of_a_session_before() {
    let ended = SelfTest::new(SelfTestOutcome::Succeeded, "ran", jiff::Timestamp::UNIX_EPOCH);
    let said = || AgentFrame::SelfTest(ended.clone());
    let mut session = live();
    assert_eq!(frame(&mut session, said()), [Output::SelfTested(ended.clone())]);
    let asked = Command { id: "1".into(), scope: Scope::default(), order: Order::SelfTest };
    session.handle(Input::Command(asked));
    assert_eq!(frame(&mut session, said()), [Output::SelfTested(ended.clone())]);
    assert_eq!(error(frame(&mut session, said())), SessionError::SelfTestNotAsked);
}

#[test]
fn what_a_journal_lacks_is_heard_a_few_times_in_a_session_and_as_much_as_is_needed_as_proof() {
    let run = Counted { check_uid: "a".into(), mark: jiff::Timestamp::UNIX_EPOCH };
    let said = || AgentFrame::Lacking(vec![run.clone(); 2 * MAX_LACKING]);
    let mut session = live();
    for _ in 0..MAX_LACKING_FRAMES {
        assert_eq!(frame(&mut session, said()), [Output::Lacking(vec![run.clone(); MAX_LACKING])]);
    }
    assert_eq!(error(frame(&mut session, said())), SessionError::LackingTooOften);
}

#[test]
fn nothing_follows_a_go_away() {
    let mut session = live();
    let outputs = session.handle(Input::GoAway { reason: "moving".into(), retry_after_ms: 5 });
    let go_away = HubFrame::GoAway { reason: "moving".into(), retry_after_ms: 5 };
    assert_eq!(outputs, [Output::Send(go_away), Output::End(None)]);
    assert_eq!(frame(&mut session, AgentFrame::CheckRemoved("a".into())), []);
    assert_eq!(session.handle(Input::PushDefinitions(vec![])), []);
}
