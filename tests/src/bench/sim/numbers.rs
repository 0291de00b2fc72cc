//! The checks and reports of simulated agents, made from numbers.

use std::sync::Arc;

use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use active_monitor_core::session::frame::Report;
use active_monitor_core::state::{CheckState, Phase, Sample, Totals};
use jiff::{SignedDuration, Timestamp};

const NAMESPACE: &str = "health";

/// A check that is well, with one custom metric.
pub(super) fn check(index: usize) -> CheckState {
    let now = Timestamp::now();
    let day = SignedDuration::from_hours(24);
    CheckState {
        uid: format!("8a1e6a6e-7f1e-4f5e-9c1b-{index:012}"),
        namespace: NAMESPACE.into(),
        name: format!("check-{index:03}"),
        description: "Resolves a name and opens a connection".into(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: "@every 60s".into(),
        running: None,
        // Not due while it is measured: what is overdue changes by itself.
        next_slot: now.checked_add(day).ok(),
        timeout_seconds: 60,
        check: Totals { succeeded: 1_000 + index as u64, failed: 7, started_at: Some(now), finished_at: Some(now) },
        remedy: None,
        remedy_status: String::new(),
        samples: vec![Sample { metric: "latency_ms".into(), help: "Time to connect.".into(), value: 12.5 }],
        refused_samples: 0,
        definition: None,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
    }
}

/// The check that the report of this number is of: they take turns.
fn turn(seq: u64, checks: &[Arc<CheckState>]) -> Option<&Arc<CheckState>> {
    checks.get(usize::try_from(seq).ok()?.checked_rem(checks.len())?)
}

/// The check that the report of this number is of, as it is when that run has ended.
pub(super) fn after_run(seq: u64, checks: &[Arc<CheckState>], ended: Timestamp) -> Option<CheckState> {
    let check = CheckState::clone(turn(seq, checks)?);
    let totals = Totals { succeeded: check.check.succeeded + seq, finished_at: Some(ended), ..check.check };
    Some(CheckState { check: totals, ..check })
}

/// The report of this number: a minute after the one of the same check before.
pub(super) fn report(seq: u64, checks: &[Arc<CheckState>]) -> Option<Report> {
    let check = turn(seq, checks)?;
    let minute = i64::try_from(seq / checks.len() as u64).ok()? * 60;
    // Of the last day, so that no retention drops them.
    let slot = check.check.started_at?.checked_add(SignedDuration::from_secs(minute - 80_000)).ok()?;
    let run = Run {
        key: RunKey { check_uid: check.uid.clone(), kind: RunKind::HealthCheck, slot },
        namespace: check.namespace.clone(),
        name: check.name.clone(),
        workflow: Some(format!("{NAMESPACE}/{}-0123456789ab", check.name)),
        outcome: Outcome::Succeeded,
        reason: None,
        message: String::new(),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    };
    Some(Report { seq, run })
}
