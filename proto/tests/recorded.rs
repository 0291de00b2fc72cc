//! What each version put on the wire, as it was recorded, and what this one reads in it.
//!
//! `recorded/VERSION.txt` holds a frame a line: `agent` or `hub`, a name, the bytes in hex. `RECORD=1` writes the file of the
//! present version; that of a version that is out is never written again.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::PathBuf;

use active_monitor_core::command::{Answer, Command, Layer, Order, Pause, Refusal, Scope, Subject};
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::session::frame::{
    AgentFrame, Definition, DefinitionResult, DefinitionStatus, Heartbeat, Hello, HubFrame, Report, Welcome,
};
use active_monitor_core::state::{CheckState, DefinitionRef, Phase, RemedyBudget, Running, Sample, Totals};
use active_monitor_proto::{WireError, v1};
use jiff::Timestamp;
use prost::Message;

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + second, 250_000_000).unwrap()
}

fn run() -> Run {
    Run {
        key: RunKey { check_uid: "uid-1".into(), kind: RunKind::Remedy, slot: at(0) },
        namespace: "health".into(),
        name: "dns".into(),
        workflow: Some("health/dns-abc".into()),
        outcome: Outcome::Failed,
        reason: Some(Reason::DeadlineExceeded),
        message: "spät".into(),
        started_at: at(1),
        finished_at: at(2),
        warning: "w".into(),
        log_tail: "t".into(),
    }
}

fn check() -> CheckState {
    let scope = Scope { namespace: Some("health".into()), name: None };
    let pause = |id: &str, subject| Pause {
        id: id.into(),
        subject,
        scope: scope.clone(),
        until: at(9),
        reason: "r".into(),
        by: "admin".into(),
    };
    CheckState {
        uid: "uid-1".into(),
        namespace: "health".into(),
        name: "dns".into(),
        description: "d".into(),
        phase: Phase::Failed,
        message: "m".into(),
        schedule: "@every 1m".into(),
        running: Some(Running { kind: RunKind::HealthCheck, slot: at(3), workflow: "health/dns-def".into() }),
        next_slot: Some(at(60)),
        timeout_seconds: 30,
        check: Totals { succeeded: 7, failed: 2, started_at: Some(at(1)), finished_at: Some(at(2)) },
        remedy: Some(Totals { succeeded: 1, failed: 0, started_at: None, finished_at: None }),
        remedy_status: "Succeeded".into(),
        samples: vec![Sample { metric: "latency".into(), help: "h".into(), value: 1.5 }],
        refused_samples: 3,
        pauses: vec![pause("p1", Subject::Checks), pause("p2", Subject::Remedies)],
        remedy_budget: Some(RemedyBudget { limit: 3, left: 1, resets_at: Some(at(100)) }),
        definition: Some(DefinitionRef { name: "dns-all".into(), generation: 4 }),
        depends_on: Vec::new(),
    }
}

/// What an agent of version 0.1.0 says.
fn agent_frames() -> Vec<(&'static str, AgentFrame)> {
    let hello = Hello {
        cluster: "c1".into(),
        cluster_uid: "kube-1".into(),
        incarnation: "i1".into(),
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.33.0".into(),
        oldest_seq: 3,
        next_seq: 9,
        sent_at: at(0),
        dropped_reports: 2,
        journal_id: "j1".into(),
        hub_mark: String::new(),
        policy: Vec::new(),
    };
    let statuses =
        [DefinitionResult::Applied, DefinitionResult::Refused, DefinitionResult::Conflict, DefinitionResult::Failed]
            .map(|result| DefinitionStatus { name: "dns-all".into(), generation: 4, result, message: "m".into() });
    let refused = Refusal { layer: Layer::Policy, reason: "no".into() };
    let succeeded = Run { outcome: Outcome::Succeeded, reason: None, workflow: None, ..run() };
    let reports = vec![Report { seq: 3, run: run() }, Report { seq: 4, run: succeeded }];
    vec![
        ("hello", AgentFrame::Hello(hello)),
        ("snapshot", AgentFrame::Snapshot { checks: vec![check()], last: true }),
        ("upsert", AgentFrame::CheckUpsert(Box::new(check()))),
        ("removed", AgentFrame::CheckRemoved("uid-1".into())),
        ("reports", AgentFrame::reports(reports)),
        ("heartbeat", AgentFrame::Heartbeat(Heartbeat { sent_at: at(5), backlog: 6, dropped_reports: 2 })),
        ("definitions_status", AgentFrame::DefinitionsStatus { nonce: 2, statuses: statuses.to_vec() }),
        ("done", AgentFrame::CommandAnswer(Answer { id: "1".into(), verdict: Ok("done".into()) })),
        ("refused", AgentFrame::CommandAnswer(Answer { id: "2".into(), verdict: Err(refused) })),
    ]
}

/// What a hub of version 0.1.0 says.
fn hub_frames() -> Vec<(&'static str, HubFrame)> {
    let welcome = Welcome {
        session_epoch: 1_800_000_000_000,
        heartbeat_ms: 5_000,
        lease_ms: 15_000,
        max_unacked_reports: 512,
        hub_version: "0.1.0".into(),
    };
    let definition = Definition { name: "dns-all".into(), generation: 4, health_check: "{}".into() };
    let command = |id: &str, order| {
        let scope = Scope { namespace: Some("health".into()), name: Some("dns".into()) };
        HubFrame::Command(Command { id: id.into(), scope, order })
    };
    let pause = Order::Pause { subject: Subject::Remedies, seconds: 60, reason: "r".into(), by: "admin".into() };
    vec![
        ("welcome", HubFrame::Welcome(welcome)),
        ("ack", HubFrame::Ack(4)),
        ("definitions", HubFrame::Definitions { nonce: 2, definitions: vec![definition] }),
        ("run_now", command("1", Order::RunNow)),
        ("pause", command("2", pause)),
        ("resume", command("3", Order::Resume { subject: Subject::Checks })),
        ("go_away", HubFrame::GoAway { reason: "moving".into(), retry_after_ms: 1_000 }),
    ]
}

fn recorded(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(format!("{version}.txt"))
}

fn record(path: &PathBuf) {
    let mut text = String::new();
    for (name, frame) in agent_frames() {
        writeln!(text, "agent {name} {}", hex(&v1::AgentFrame::from(frame).encode_to_vec())).unwrap();
    }
    for (name, frame) in hub_frames() {
        writeln!(text, "hub {name} {}", hex(&v1::HubFrame::from(frame).encode_to_vec())).unwrap();
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn the_frames_of_each_version_are_read_as_they_were_meant() {
    let path = recorded("0.1.0");
    if std::env::var_os("RECORD").is_some() {
        record(&path);
    }
    let (mut from_agent, mut from_hub) = (agent_frames().into_iter(), hub_frames().into_iter());
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let [side, name, bytes] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let bytes = unhex(bytes);
        if side == "agent" {
            let frame = AgentFrame::try_from(v1::AgentFrame::decode(bytes.as_slice()).unwrap()).unwrap();
            assert_eq!(from_agent.next().unwrap(), (name, frame));
        } else {
            let frame = HubFrame::try_from(v1::HubFrame::decode(bytes.as_slice()).unwrap()).unwrap();
            assert_eq!(from_hub.next().unwrap(), (name, frame));
        }
    }
    assert!(from_agent.next().is_none() && from_hub.next().is_none());
}

/// A field that no version has yet: number 1000, some bytes.
const FUTURE_FIELD: &[u8] = &[0xc2, 0x3e, 3, 1, 2, 3];

/// The bytes of a oneof's message, with a field that is not known here within it.
fn with_future_field(frame: &[u8]) -> Vec<u8> {
    let tag = frame[0];
    let mut rest = &frame[1..];
    let length = usize::try_from(prost::encoding::decode_varint(&mut rest).unwrap()).unwrap();
    let inner = [&rest[..length], FUTURE_FIELD].concat();
    let mut bytes = vec![tag];
    prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
    [bytes, inner, FUTURE_FIELD.to_vec()].concat()
}

#[test]
fn fields_of_a_newer_version_are_passed_over_in_every_frame() {
    for (name, frame) in agent_frames() {
        let bytes = with_future_field(&v1::AgentFrame::from(frame.clone()).encode_to_vec());
        assert_eq!(AgentFrame::try_from(v1::AgentFrame::decode(bytes.as_slice()).unwrap()), Ok(frame), "{name}");
    }
    for (name, frame) in hub_frames() {
        let bytes = with_future_field(&v1::HubFrame::from(frame.clone()).encode_to_vec());
        assert_eq!(HubFrame::try_from(v1::HubFrame::decode(bytes.as_slice()).unwrap()), Ok(frame), "{name}");
    }
}

#[test]
fn a_frame_of_an_unknown_kind_says_that_it_is_one() {
    let frame = v1::AgentFrame::decode(FUTURE_FIELD).unwrap();
    assert_eq!(AgentFrame::try_from(frame), Err(WireError::UnknownFrame));
    let frame = v1::HubFrame::decode(FUTURE_FIELD).unwrap();
    assert_eq!(HubFrame::try_from(frame), Err(WireError::UnknownFrame));
    assert!(WireError::UnknownFrame.is_of_a_newer_version());
}

#[test]
fn a_number_that_is_unknown_in_an_enum_costs_what_it_stands_in_and_no_more() {
    let state = v1::CheckState { phase: 99, ..check().into() };
    let read = CheckState::try_from(state).unwrap();
    assert_eq!(read.phase, Phase::Pending, "what is not known is not green");
    assert!(read.message.contains("does not know the state 99"), "{}", read.message);
    let mut state: v1::CheckState = check().into();
    state.running.as_mut().unwrap().kind = 99;
    state.pauses[0].subject = 99;
    let read = CheckState::try_from(state).unwrap();
    assert_eq!((read.running, read.pauses.len()), (None, 1));
    let passed = v1::SelfTest { outcome: 99, message: String::new(), at: Some(Default::default()) };
    assert_eq!(
        SelfTest::try_from(passed).unwrap().outcome,
        SelfTestOutcome::Unknown,
        "what is not known has not passed"
    );
    let status = v1::DefinitionStatus { name: "d".into(), generation: 1, result: 99, message: "m".into() };
    assert_eq!(DefinitionStatus::try_from(status).unwrap().result, DefinitionResult::Failed);
    let mut reports = vec![v1::Report::from(Report { seq: 1, run: run() }); 3];
    reports[0].run.as_mut().unwrap().kind = 99;
    reports[1].run.as_mut().unwrap().outcome = 99;
    reports[1].seq = 7;
    let frame = v1::agent_frame::Frame::Reports(v1::Reports { reports });
    let read = AgentFrame::try_from(v1::AgentFrame { frame: Some(frame) }).unwrap();
    assert_eq!(read, AgentFrame::Reports { reports: vec![Report { seq: 1, run: run() }], through_seq: 7 });
    // Nothing is no number of a newer version.
    let state = v1::CheckState { phase: 0, ..check().into() };
    assert_eq!(CheckState::try_from(state), Err(WireError::Unknown { field: "CheckState.phase", value: 0 }));
}
