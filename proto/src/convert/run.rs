//! Runs and reports.

use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::session::frame::Report;

use super::{
    MAX_LOG_TAIL_BYTES, MAX_MESSAGE_BYTES, WireError, bounded, cut, identity, message, text, time, to_wire_time,
};
use crate::v1;

impl From<RunKind> for v1::RunKind {
    fn from(kind: RunKind) -> Self {
        match kind {
            RunKind::HealthCheck => v1::RunKind::HealthCheck,
            RunKind::Remedy => v1::RunKind::Remedy,
        }
    }
}

pub(super) fn run_kind(field: &'static str, value: i32) -> Result<RunKind, WireError> {
    match v1::RunKind::try_from(value) {
        Ok(v1::RunKind::HealthCheck) => Ok(RunKind::HealthCheck),
        Ok(v1::RunKind::Remedy) => Ok(RunKind::Remedy),
        Ok(v1::RunKind::Unspecified) | Err(_) => Err(WireError::Unknown { field, value }),
    }
}

impl From<Outcome> for v1::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => v1::Outcome::Succeeded,
            Outcome::Failed => v1::Outcome::Failed,
        }
    }
}

fn outcome(field: &'static str, value: i32) -> Result<Outcome, WireError> {
    match v1::Outcome::try_from(value) {
        Ok(v1::Outcome::Succeeded) => Ok(Outcome::Succeeded),
        Ok(v1::Outcome::Failed) => Ok(Outcome::Failed),
        Ok(v1::Outcome::Unspecified) | Err(_) => Err(WireError::Unknown { field, value }),
    }
}

impl From<Reason> for v1::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::WorkflowFailed => v1::Reason::WorkflowFailed,
            Reason::WorkflowError => v1::Reason::WorkflowError,
            Reason::DeadlineExceeded => v1::Reason::DeadlineExceeded,
            Reason::WorkflowVanished => v1::Reason::WorkflowVanished,
            Reason::SourceUnavailable => v1::Reason::SourceUnavailable,
            Reason::SourceInvalid => v1::Reason::SourceInvalid,
            Reason::CreateRefused => v1::Reason::CreateRefused,
            Reason::RbacRefused => v1::Reason::RbacRefused,
        }
    }
}

/// A number that only a newer agent knows is no reason to lose the run: the outcome is kept, the reason is not.
fn reason(value: i32) -> Option<Reason> {
    match v1::Reason::try_from(value).ok()? {
        v1::Reason::Unspecified => None,
        v1::Reason::WorkflowFailed => Some(Reason::WorkflowFailed),
        v1::Reason::WorkflowError => Some(Reason::WorkflowError),
        v1::Reason::DeadlineExceeded => Some(Reason::DeadlineExceeded),
        v1::Reason::WorkflowVanished => Some(Reason::WorkflowVanished),
        v1::Reason::SourceUnavailable => Some(Reason::SourceUnavailable),
        v1::Reason::SourceInvalid => Some(Reason::SourceInvalid),
        v1::Reason::CreateRefused => Some(Reason::CreateRefused),
        v1::Reason::RbacRefused => Some(Reason::RbacRefused),
    }
}

impl From<Run> for v1::Run {
    fn from(run: Run) -> Self {
        let Run {
            key,
            namespace,
            name,
            workflow,
            outcome,
            reason,
            message,
            started_at,
            finished_at,
            warning,
            log_tail,
        } = run;
        let RunKey { check_uid, kind, slot } = key;
        v1::Run {
            check_uid,
            kind: v1::RunKind::from(kind).into(),
            slot: Some(to_wire_time(slot)),
            namespace,
            name,
            workflow: workflow.unwrap_or_default(),
            outcome: v1::Outcome::from(outcome).into(),
            reason: reason.map_or(v1::Reason::Unspecified, v1::Reason::from).into(),
            message: cut(message, MAX_MESSAGE_BYTES),
            started_at: Some(to_wire_time(started_at)),
            finished_at: Some(to_wire_time(finished_at)),
            warning: cut(warning, MAX_MESSAGE_BYTES),
            log_tail: cut(log_tail, MAX_LOG_TAIL_BYTES),
        }
    }
}

impl TryFrom<v1::Run> for Run {
    type Error = WireError;

    fn try_from(run: v1::Run) -> Result<Self, WireError> {
        Ok(Run {
            key: RunKey {
                check_uid: identity("Run.check_uid", run.check_uid)?,
                kind: run_kind("Run.kind", run.kind)?,
                slot: time("Run.slot", run.slot)?,
            },
            namespace: identity("Run.namespace", run.namespace)?,
            name: identity("Run.name", run.name)?,
            workflow: Some(text("Run.workflow", run.workflow)?).filter(|workflow| !workflow.is_empty()),
            outcome: outcome("Run.outcome", run.outcome)?,
            reason: reason(run.reason),
            message: message("Run.message", run.message)?,
            started_at: time("Run.started_at", run.started_at)?,
            finished_at: time("Run.finished_at", run.finished_at)?,
            warning: message("Run.warning", run.warning)?,
            log_tail: bounded("Run.log_tail", run.log_tail, MAX_LOG_TAIL_BYTES)?,
        })
    }
}

impl From<Report> for v1::Report {
    fn from(report: Report) -> Self {
        let Report { seq, run } = report;
        v1::Report { seq, run: Some(run.into()) }
    }
}

impl TryFrom<v1::Report> for Report {
    type Error = WireError;

    fn try_from(report: v1::Report) -> Result<Self, WireError> {
        let run = report.run.ok_or(WireError::Missing { field: "Report.run" })?;
        Ok(Report { seq: report.seq, run: run.try_into()? })
    }
}
