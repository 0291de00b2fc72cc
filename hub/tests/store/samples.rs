//! Things to keep.

use std::sync::Arc;

use active_monitor_core::care::{Acknowledgement, WindowSpec};
use active_monitor_core::command::{Pause, Scope, Subject};
use active_monitor_core::health::Health;
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::session::frame::{DefinitionResult, DefinitionStatus};
use active_monitor_core::session::gaps::Gap;
use active_monitor_core::state::{CheckState, Phase, Totals};
use active_monitor_core::uptime::{Class, Day, Late, Life, Transition, Uptime};
use active_monitor_core::view::{CheckStatus, Role};
use active_monitor_hub::store::rollups::CheckDay;
use active_monitor_hub::store::{AgentKey, ApiToken, AuditEntry, CheckKey, ClusterRecord, EnrolmentToken, Store};
use jiff::Timestamp;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn run(check: &str, slot: i64) -> Run {
    Run {
        key: RunKey { check_uid: format!("uid-{check}"), kind: RunKind::HealthCheck, slot: at(slot) },
        namespace: "health".into(),
        name: check.into(),
        workflow: Some(format!("health/{check}-{slot}")),
        outcome: if slot % 2 == 0 { Outcome::Succeeded } else { Outcome::Failed },
        reason: (slot % 2 != 0).then_some(Reason::WorkflowFailed),
        message: String::new(),
        started_at: at(slot),
        finished_at: at(slot + 1),
        warning: String::new(),
        log_tail: String::new(),
    }
}

pub(crate) fn cluster(name: &str) -> ClusterRecord {
    ClusterRecord {
        name: name.into(),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        created_at: at(0),
        ..ClusterRecord::default()
    }
}

pub(crate) fn saved(uid: &str) -> (CheckState, Health) {
    let state = CheckState {
        uid: uid.into(),
        namespace: "health".into(),
        name: uid.into(),
        description: String::new(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: "@every 60s".into(),
        running: None,
        next_slot: Some(at(60)),
        timeout_seconds: 60,
        check: Totals::default(),
        remedy: None,
        remedy_status: String::new(),
        samples: Vec::new(),
        refused_samples: 0,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
        definition: None,
    };
    (state, serde_json::from_str(r#"{"recent":"SFSFSFS","flapping":true,"changePercent":33.9}"#).unwrap())
}

pub(crate) fn key(id: u8) -> AgentKey {
    AgentKey { hash: [id; 32], issued_at: at(id.into()), not_after: at(1000), bundle: Some([9; 32]) }
}

pub(crate) fn status(name: &str) -> DefinitionStatus {
    DefinitionStatus { name: name.into(), generation: 2, result: DefinitionResult::Refused, message: "no".into() }
}

pub(crate) fn check(name: &str) -> CheckKey {
    CheckKey { cluster: "a".into(), namespace: "health".into(), name: name.into() }
}

pub(crate) fn pause(id: &str, subject: Subject, scope: Scope, until: Timestamp) -> Pause {
    Pause { id: id.into(), subject, scope, until, reason: "a change".into(), by: "ops".into() }
}

pub(crate) fn window(name: &str) -> WindowSpec {
    let text = format!(r#"{{"name": "{name}", "cron": "@daily", "durationSeconds": 60}}"#);
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn acknowledgement(comment: &str) -> Acknowledgement {
    Acknowledgement { by: "ops".into(), comment: comment.into(), at: at(1), expires_at: at(2) }
}

/// Something in every table, and runs of which the oldest are gone again.
pub(crate) async fn fill(store: &Arc<dyn Store>, runs: i64) {
    for name in ["a", "b", "ü\u{1f4a5}"] {
        store.put_cluster(&cluster(name)).await.unwrap();
        store.save_check_states(name, vec![saved("x"), saved("y")], vec![]).await.unwrap();
        store.put_definition_statuses(name, vec![status("d")]).await.unwrap();
    }
    store
        .put_enrolment_token("a", &EnrolmentToken { hash: [1; 32], expires_at: at(3600), spent_by: None })
        .await
        .unwrap();
    store.spend_enrolment_token("a", [1; 32], &key(1), "uid-a").await.unwrap();
    store.put_enrolment_token("b", &EnrolmentToken { hash: [2; 32], expires_at: at(9), spent_by: None }).await.unwrap();
    let told = Run { log_tail: "a\n\"b\"\\ \u{1f4a5}".into(), message: "ünïcode".into(), ..run("told", 1) };
    store.record_runs("b", vec![Run { workflow: None, ..told }], at(7)).await.unwrap();
    for first in (0..runs).step_by(500) {
        let batch = (first..(first + 500).min(runs)).map(|slot| run("dns", slot)).collect();
        store.record_runs("a", batch, at(first)).await.unwrap();
    }
    store.record_gap("a", "journal", Gap { reports: 3, through_seq: 9 }, at(5)).await.unwrap();
    store.put_report_cursor("b", "journal", u64::MAX, at(5)).await.unwrap();
    for name in ["d", "d", "gone"] {
        store.put_definition(name, &serde_json::json!({"kind": "FleetHealthCheck", "name": name})).await.unwrap();
    }
    store.delete_definition("gone").await.unwrap();
    store.put_definition_statuses("a", vec![status("d")]).await.unwrap();
    let everything = Scope { namespace: None, name: None };
    store.put_pause("a", &pause("p", Subject::Remedies, everything, at(500)), at(0)).await.unwrap();
    let token = ApiToken { name: "ops".into(), role: Role::Operator, hash: [7; 32], created_at: at(0) };
    store.put_api_token(&token).await.unwrap();
    store.end_sessions("oidc:ann", at(5), at(0)).await.unwrap();
    let line = AuditEntry { at: at(1), who: "ops".into(), action: "cluster.add".into(), object: "a".into() };
    store.audit(&line).await.unwrap();
    let step = |second, status, maintenance| (check("dns"), Transition { at: at(second), status, maintenance });
    let steps = vec![
        step(0, Some(CheckStatus::Succeeded), false),
        step(1, Some(CheckStatus::Failed), true),
        step(2, None, false),
    ];
    store.record_transitions(Life { from: at(0), to: at(3) }, steps).await.unwrap();
    let late = Late { from: at(5), until: at(9), outcome: Outcome::Failed };
    store.put_late(vec![(check("dns"), late)]).await.unwrap();
    store.looked_at(1).await.unwrap();
    let (key, time) = (check("dns"), Uptime { up_seconds: 1.5, ..Uptime::default() });
    store.put_days(Day(1), "a", vec![CheckDay { key, time, ends: Class::Unknown }]).await.unwrap();
    store.close_day(Day(1)).await.unwrap();
    store.put_window("night", Some(&window("night"))).await.unwrap();
    store.put_acknowledgement(&check("dns"), Some(&acknowledgement("seen"))).await.unwrap();
}
