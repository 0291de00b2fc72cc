//! Round trips through the wire's bytes, and what the conversions refuse.

#![allow(clippy::unwrap_used)]

use active_monitor_core::command::{Answer, Command, Layer, Order, Pause, Refusal, Scope, Subject};
use active_monitor_core::policy::{MAX_SETTINGS, PolicySetting};
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::session::frame::{
    AgentFrame, Counted, Definition, DefinitionResult, DefinitionStatus, Heartbeat, Hello, HubFrame, Report, Welcome,
};
use active_monitor_core::state::{CheckState, DefinitionRef, Phase, RemedyBudget, Running, Sample, Totals};
use active_monitor_proto::convert::{MAX_MESSAGE_BYTES, MAX_SAMPLES, MAX_TEXT_BYTES, from_wire_time, to_wire_time};
use active_monitor_proto::{WireError, v1};
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

fn time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.as_second()..Timestamp::MAX.as_second(), 0..1_000_000_000)
        .prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).unwrap())
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn id() -> impl Strategy<Value = String> {
    "[a-z0-9-]{1,40}"
}

fn kind() -> impl Strategy<Value = RunKind> {
    prop_oneof![Just(RunKind::HealthCheck), Just(RunKind::Remedy)]
}

fn run() -> impl Strategy<Value = Run> {
    let outcome = prop_oneof![Just(Outcome::Succeeded), Just(Outcome::Failed)];
    let reason = option::of(proptest::sample::select(Reason::ALL.to_vec()));
    let key = (id(), kind(), time()).prop_map(|(check_uid, kind, slot)| RunKey { check_uid, kind, slot });
    let texts = (text(), text(), text());
    (key, id(), id(), option::of(id()), outcome, reason, texts, time(), time()).prop_map(
        |(key, namespace, name, workflow, outcome, reason, (message, warning, log_tail), started_at, finished_at)| {
            Run { key, namespace, name, workflow, outcome, reason, message, started_at, finished_at, warning, log_tail }
        },
    )
}

fn totals() -> impl Strategy<Value = Totals> {
    (any::<u64>(), any::<u64>(), option::of(time()), option::of(time()))
        .prop_map(|(succeeded, failed, started_at, finished_at)| Totals { succeeded, failed, started_at, finished_at })
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![Just(Subject::Checks), Just(Subject::Remedies)]
}

fn scope() -> impl Strategy<Value = Scope> {
    option::of((id(), option::of(id()))).prop_map(|scope| match scope {
        None => Scope::default(),
        Some((namespace, name)) => Scope { namespace: Some(namespace), name },
    })
}

fn pause() -> impl Strategy<Value = Pause> {
    (id(), subject(), scope(), time(), text(), text()).prop_map(|(id, subject, scope, until, reason, by)| Pause {
        id,
        subject,
        scope,
        until,
        reason,
        by,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let pause = (subject(), any::<u64>(), text(), text()).prop_map(|(subject, seconds, reason, by)| Order::Pause {
        subject,
        seconds,
        reason,
        by,
    });
    let resume = subject().prop_map(|subject| Order::Resume { subject });
    let order = prop_oneof![Just(Order::RunNow), Just(Order::SelfTest), pause, resume];
    (id(), scope(), order).prop_map(|(id, scope, order)| Command { id, scope, order })
}

fn answer() -> impl Strategy<Value = Answer> {
    let refusal = (proptest::sample::select(Layer::ALL.to_vec()), text())
        .prop_map(|(layer, reason)| Err(Refusal { layer, reason }));
    (id(), prop_oneof![text().prop_map(Ok), refusal]).prop_map(|(id, verdict)| Answer { id, verdict })
}

/// One that was run: what was not is the answer to a command.
fn self_test() -> impl Strategy<Value = SelfTest> {
    let ended =
        [SelfTestOutcome::Succeeded, SelfTestOutcome::Failed, SelfTestOutcome::TimedOut, SelfTestOutcome::Unknown];
    (proptest::sample::select(ended.to_vec()), text(), time()).prop_map(|(outcome, message, at)| SelfTest {
        outcome,
        message,
        at,
    })
}

fn check() -> impl Strategy<Value = CheckState> {
    let running = (kind(), time(), id()).prop_map(|(kind, slot, workflow)| Running { kind, slot, workflow });
    let sample = (id(), text(), -1e300..1e300).prop_map(|(metric, help, value)| Sample { metric, help, value });
    let definition = (id(), any::<u64>()).prop_map(|(name, generation)| DefinitionRef { name, generation });
    let phase = proptest::sample::select(Phase::ALL.to_vec());
    let budget = (any::<u32>(), any::<u32>(), option::of(time())).prop_map(|(limit, left, resets_at)| RemedyBudget {
        limit,
        left,
        resets_at,
    });
    (
        (id(), id(), id(), text(), phase, text(), text(), option::of(running)),
        (option::of(time()), any::<u64>(), totals(), option::of(totals()), text(), vec(sample, 0..5)),
        (option::of(definition), any::<u64>(), vec(pause(), 0..3), option::of(budget), vec(text(), 0..3)),
    )
        .prop_map(|(a, b, (definition, refused_samples, pauses, remedy_budget, depends_on))| {
            let (uid, namespace, name, description, phase, message, schedule, running) = a;
            let (next_slot, timeout_seconds, check, remedy, remedy_status, samples) = b;
            CheckState {
                uid,
                namespace,
                name,
                description,
                phase,
                message,
                schedule,
                running,
                next_slot,
                timeout_seconds,
                check,
                remedy,
                remedy_status,
                samples,
                refused_samples,
                depends_on,
                pauses,
                remedy_budget,
                definition,
            }
        })
}

fn hello() -> impl Strategy<Value = Hello> {
    (id(), id(), id(), text(), text(), any::<u64>(), any::<u64>(), time(), (any::<u64>(), text())).prop_map(
        |(
            cluster,
            cluster_uid,
            incarnation,
            agent_version,
            kubernetes_version,
            oldest_seq,
            next_seq,
            sent_at,
            rest,
        )| {
            let (n, journal_id) = rest;
            let hub_mark = format!("mark of {journal_id}");
            let policy = vec![PolicySetting::new("namespaces", agent_version.clone())];
            Hello {
                cluster,
                cluster_uid,
                incarnation,
                agent_version,
                kubernetes_version,
                oldest_seq,
                next_seq,
                sent_at,
                dropped_reports: n,
                journal_id,
                hub_mark,
                policy,
            }
        },
    )
}

fn status() -> impl Strategy<Value = DefinitionStatus> {
    let result = proptest::sample::select(vec![
        DefinitionResult::Applied,
        DefinitionResult::Refused,
        DefinitionResult::Conflict,
        DefinitionResult::Failed,
    ]);
    (id(), any::<u64>(), result, text()).prop_map(|(name, generation, result, message)| DefinitionStatus {
        name,
        generation,
        result,
        message,
    })
}

fn agent_frame() -> impl Strategy<Value = AgentFrame> {
    let report = (any::<u64>(), run()).prop_map(|(seq, run)| Report { seq, run });
    let heartbeat = (time(), any::<u64>(), any::<u64>()).prop_map(|(sent_at, backlog, dropped_reports)| Heartbeat {
        sent_at,
        backlog,
        dropped_reports,
    });
    prop_oneof![
        hello().prop_map(AgentFrame::Hello),
        (vec(check(), 0..4), any::<bool>()).prop_map(|(checks, last)| AgentFrame::Snapshot { checks, last }),
        check().prop_map(|check| AgentFrame::CheckUpsert(Box::new(check))),
        id().prop_map(AgentFrame::CheckRemoved),
        vec(report, 0..4).prop_map(AgentFrame::reports),
        heartbeat.prop_map(AgentFrame::Heartbeat),
        (any::<u64>(), vec(status(), 0..4))
            .prop_map(|(nonce, statuses)| AgentFrame::DefinitionsStatus { nonce, statuses }),
        answer().prop_map(AgentFrame::CommandAnswer),
        self_test().prop_map(AgentFrame::SelfTest),
        vec((id(), time()).prop_map(|(check_uid, mark)| Counted { check_uid, mark }), 0..4)
            .prop_map(AgentFrame::Lacking),
    ]
}

fn hub_frame() -> impl Strategy<Value = HubFrame> {
    let welcome = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), text()).prop_map(
        |(session_epoch, heartbeat_ms, lease_ms, max_unacked_reports, hub_version)| Welcome {
            session_epoch,
            heartbeat_ms,
            lease_ms,
            max_unacked_reports,
            hub_version,
        },
    );
    let definition = (id(), any::<u64>(), text()).prop_map(|(name, generation, health_check)| Definition {
        name,
        generation,
        health_check,
    });
    prop_oneof![
        welcome.prop_map(HubFrame::Welcome),
        any::<u64>().prop_map(HubFrame::Ack),
        (any::<u64>(), vec(definition, 0..4))
            .prop_map(|(nonce, definitions)| HubFrame::Definitions { nonce, definitions }),
        command().prop_map(HubFrame::Command),
        id().prop_map(HubFrame::Mark),
        (text(), any::<u32>()).prop_map(|(reason, retry_after_ms)| HubFrame::GoAway { reason, retry_after_ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn agent_frames_round_trip(frame in agent_frame()) {
        let bytes = v1::AgentFrame::from(frame.clone()).encode_to_vec();
        let back = AgentFrame::try_from(v1::AgentFrame::decode(bytes.as_slice()).unwrap());
        prop_assert_eq!(back, Ok(frame));
    }

    #[test]
    fn hub_frames_round_trip(frame in hub_frame()) {
        let bytes = v1::HubFrame::from(frame.clone()).encode_to_vec();
        let back = HubFrame::try_from(v1::HubFrame::decode(bytes.as_slice()).unwrap());
        prop_assert_eq!(back, Ok(frame));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(frame) = v1::AgentFrame::decode(bytes.as_slice()) {
            let _ = AgentFrame::try_from(frame);
        }
        if let Ok(frame) = v1::HubFrame::decode(bytes.as_slice()) {
            let _ = HubFrame::try_from(frame);
        }
    }

    #[test]
    fn times_round_trip(time in time()) {
        prop_assert_eq!(from_wire_time(to_wire_time(time)), Some(time));
    }
}

fn a_run() -> Run {
    Run {
        key: RunKey { check_uid: "u".into(), kind: RunKind::HealthCheck, slot: Timestamp::UNIX_EPOCH },
        namespace: "health".into(),
        name: "dns".into(),
        workflow: None,
        outcome: Outcome::Failed,
        reason: Some(Reason::RbacRefused),
        message: String::new(),
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        warning: String::new(),
        log_tail: String::new(),
    }
}

fn a_hello() -> Hello {
    Hello {
        cluster: "c1".into(),
        cluster_uid: "kube-1".into(),
        incarnation: "i1".into(),
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.33.0".into(),
        oldest_seq: 1,
        next_seq: 1,
        sent_at: Timestamp::UNIX_EPOCH,
        dropped_reports: 0,
        journal_id: "j1".into(),
        hub_mark: String::new(),
        policy: Vec::new(),
    }
}

fn a_check() -> CheckState {
    CheckState {
        uid: "u".into(),
        namespace: "health".into(),
        name: "dns".into(),
        description: String::new(),
        phase: Phase::Pending,
        message: String::new(),
        schedule: String::new(),
        running: None,
        next_slot: None,
        timeout_seconds: 1,
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

#[test]
fn a_reason_of_a_newer_agent_is_dropped_and_the_outcome_kept() {
    let wire = v1::Run { reason: 999, ..a_run().into() };
    let run = Run::try_from(wire).unwrap();
    assert_eq!((run.outcome, run.reason), (Outcome::Failed, None));
}

#[test]
fn the_error_names_the_field() {
    let wire = v1::Run { slot: None, ..a_run().into() };
    assert_eq!(Run::try_from(wire), Err(WireError::Missing { field: "Run.slot" }));
    let wire = v1::Run { outcome: 0, ..a_run().into() };
    assert_eq!(Run::try_from(wire), Err(WireError::Unknown { field: "Run.outcome", value: 0 }));
    let wire = v1::Run { kind: 7, ..a_run().into() };
    assert_eq!(Run::try_from(wire), Err(WireError::Unknown { field: "Run.kind", value: 7 }));
    let wire = v1::Run { message: "m".repeat(1025), ..a_run().into() };
    assert_eq!(Run::try_from(wire), Err(WireError::TooLong { field: "Run.message", bytes: 1025, limit: 1024 }));
    let wire = v1::Run { log_tail: "m".repeat(4097), ..a_run().into() };
    assert_eq!(Run::try_from(wire), Err(WireError::TooLong { field: "Run.log_tail", bytes: 4097, limit: 4096 }));
    let wire = v1::Run { check_uid: String::new(), ..a_run().into() };
    assert_eq!(Run::try_from(wire), Err(WireError::Missing { field: "Run.check_uid" }));
    let wire = v1::Run { started_at: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), ..a_run().into() };
    assert_eq!(Run::try_from(wire), Err(WireError::OutOfRange { field: "Run.started_at" }));
    let sample = v1::Sample { metric: "m".into(), help: String::new(), value: 1.0 };
    let wire = v1::CheckState { samples: vec![sample; MAX_SAMPLES + 1], ..a_check().into() };
    let error = WireError::TooMany { field: "CheckState.samples", count: 51, limit: 50 };
    assert_eq!(CheckState::try_from(wire), Err(error));
    let setting = |value: &str| v1::PolicySetting { name: "rules".into(), value: value.into() };
    let hello = |policy| Hello::try_from(v1::Hello { policy, ..a_hello().into() });
    assert_eq!(hello(vec![]).unwrap().policy, [], "as an older agent");
    let error = WireError::TooMany { field: "Hello.policy", count: 17, limit: 16 };
    assert_eq!(hello(vec![setting("x"); MAX_SETTINGS + 1]), Err(error));
    let error = WireError::TooLong { field: "PolicySetting.value", bytes: 1025, limit: 1024 };
    assert_eq!(hello(vec![setting(&"v".repeat(1025))]), Err(error));
    let unnamed = v1::PolicySetting { name: String::new(), ..setting("x") };
    assert_eq!(hello(vec![unnamed]), Err(WireError::Missing { field: "PolicySetting.name" }));
    assert_eq!(HubFrame::try_from(v1::HubFrame { frame: None }), Err(WireError::UnknownFrame));
    let order = Some(v1::command::Order::RunNow(v1::RunNow {}));
    let command = v1::Command { id: "1".into(), namespace: String::new(), name: "dns".into(), order };
    assert_eq!(Command::try_from(command.clone()), Err(WireError::Missing { field: "Command.namespace" }));
    let newer = v1::Command { order: None, ..command };
    assert_eq!(Command::try_from(newer), Err(WireError::UnknownFrame), "a newer hub's order is ignored");
}

#[test]
fn what_an_author_can_write_never_makes_a_frame_that_the_hub_refuses() {
    let sample = |value| Sample { metric: "m".into(), help: "h".repeat(9000), value };
    let mut samples = vec![sample(f64::NAN), Sample { metric: String::new(), help: String::new(), value: 1.0 }];
    samples.extend((0..60).map(|value| sample(f64::from(value))));
    let state = CheckState {
        description: "ä".repeat(5000),
        message: "m".repeat(5000),
        schedule: "s".repeat(5000),
        samples,
        ..a_check()
    };
    let back = CheckState::try_from(v1::CheckState::from(state)).unwrap();
    assert_eq!(back.description.len(), MAX_TEXT_BYTES);
    assert_eq!(back.message.len(), MAX_MESSAGE_BYTES);
    assert_eq!(back.samples.len(), MAX_SAMPLES);
    let policy = vec![PolicySetting::new("namespaces", "ä".repeat(5000)); 40];
    let back = Hello::try_from(v1::Hello::from(Hello { policy, ..a_hello() })).unwrap();
    assert_eq!((back.policy.len(), back.policy[0].value.len()), (MAX_SETTINGS, MAX_MESSAGE_BYTES));
}
