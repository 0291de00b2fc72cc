//! The state of a check.

use active_monitor_core::state::{CheckState, DefinitionRef, Phase, RemedyBudget, Running, Sample, Totals};

use super::run::run_kind;
use super::{
    MAX_DEPENDENCIES, MAX_MESSAGE_BYTES, MAX_PAUSES, MAX_SAMPLES, MAX_TEXT_BYTES, WireError, cut, identity, known,
    list, message, optional_time, text, time, to_wire_time,
};
use crate::v1;

impl From<Phase> for v1::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Pending => v1::Phase::Pending,
            Phase::Succeeded => v1::Phase::Succeeded,
            Phase::Failed => v1::Phase::Failed,
            Phase::Stopped => v1::Phase::Stopped,
            Phase::Invalid => v1::Phase::Invalid,
        }
    }
}

fn phase(field: &'static str, value: i32) -> Result<Phase, WireError> {
    match v1::Phase::try_from(value) {
        Ok(v1::Phase::Pending) => Ok(Phase::Pending),
        Ok(v1::Phase::Succeeded) => Ok(Phase::Succeeded),
        Ok(v1::Phase::Failed) => Ok(Phase::Failed),
        Ok(v1::Phase::Stopped) => Ok(Phase::Stopped),
        Ok(v1::Phase::Invalid) => Ok(Phase::Invalid),
        Ok(v1::Phase::Unspecified) | Err(_) => Err(WireError::Unknown { field, value }),
    }
}

impl From<Running> for v1::Running {
    fn from(running: Running) -> Self {
        let Running { kind, slot, workflow } = running;
        v1::Running { kind: v1::RunKind::from(kind).into(), slot: Some(to_wire_time(slot)), workflow }
    }
}

impl TryFrom<v1::Running> for Running {
    type Error = WireError;

    fn try_from(running: v1::Running) -> Result<Self, WireError> {
        Ok(Running {
            kind: run_kind("Running.kind", running.kind)?,
            slot: time("Running.slot", running.slot)?,
            workflow: text("Running.workflow", running.workflow)?,
        })
    }
}

impl From<Totals> for v1::Totals {
    fn from(totals: Totals) -> Self {
        let Totals { succeeded, failed, started_at, finished_at } = totals;
        v1::Totals {
            succeeded,
            failed,
            started_at: started_at.map(to_wire_time),
            finished_at: finished_at.map(to_wire_time),
        }
    }
}

impl TryFrom<v1::Totals> for Totals {
    type Error = WireError;

    fn try_from(totals: v1::Totals) -> Result<Self, WireError> {
        Ok(Totals {
            succeeded: totals.succeeded,
            failed: totals.failed,
            started_at: optional_time("Totals.started_at", totals.started_at)?,
            finished_at: optional_time("Totals.finished_at", totals.finished_at)?,
        })
    }
}

impl From<RemedyBudget> for v1::RemedyBudget {
    fn from(budget: RemedyBudget) -> Self {
        let RemedyBudget { limit, left, resets_at } = budget;
        v1::RemedyBudget { limit, left, resets_at: resets_at.map(to_wire_time) }
    }
}

impl TryFrom<v1::RemedyBudget> for RemedyBudget {
    type Error = WireError;

    fn try_from(budget: v1::RemedyBudget) -> Result<Self, WireError> {
        let v1::RemedyBudget { limit, left, resets_at } = budget;
        Ok(RemedyBudget { limit, left, resets_at: optional_time("RemedyBudget.resets_at", resets_at)? })
    }
}

impl From<Sample> for v1::Sample {
    fn from(sample: Sample) -> Self {
        let Sample { metric, help, value } = sample;
        v1::Sample { metric, help: cut(help, MAX_MESSAGE_BYTES), value }
    }
}

impl TryFrom<v1::Sample> for Sample {
    type Error = WireError;

    fn try_from(sample: v1::Sample) -> Result<Self, WireError> {
        if !sample.value.is_finite() {
            return Err(WireError::OutOfRange { field: "Sample.value" });
        }
        Ok(Sample {
            metric: identity("Sample.metric", sample.metric)?,
            help: message("Sample.help", sample.help)?,
            value: sample.value,
        })
    }
}

impl From<DefinitionRef> for v1::DefinitionRef {
    fn from(definition: DefinitionRef) -> Self {
        let DefinitionRef { name, generation } = definition;
        v1::DefinitionRef { name, generation }
    }
}

impl TryFrom<v1::DefinitionRef> for DefinitionRef {
    type Error = WireError;

    fn try_from(definition: v1::DefinitionRef) -> Result<Self, WireError> {
        Ok(DefinitionRef { name: identity("DefinitionRef.name", definition.name)?, generation: definition.generation })
    }
}

/// What a newer agent calls a check's state is not known to be good.
fn unknown_phase(value: i32) -> String {
    format!("its agent is newer than the hub, which does not know the state {value}: upgrade the hub")
}

/// Texts that a HealthCheck's author may make as long as he likes are cut, and samples that the hub would refuse (not
/// finite, no name, beyond the limit) stay behind.
impl From<CheckState> for v1::CheckState {
    fn from(state: CheckState) -> Self {
        let CheckState {
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
            pauses,
            remedy_budget,
            depends_on,
            definition,
        } = state;
        let sendable = |sample: &Sample| {
            sample.value.is_finite() && !sample.metric.is_empty() && sample.metric.len() <= MAX_TEXT_BYTES
        };
        v1::CheckState {
            uid,
            namespace,
            name,
            description: cut(description, MAX_TEXT_BYTES),
            phase: v1::Phase::from(phase).into(),
            message: cut(message, MAX_MESSAGE_BYTES),
            schedule: cut(schedule, MAX_TEXT_BYTES),
            running: running.map(Into::into),
            next_slot: next_slot.map(to_wire_time),
            timeout_seconds,
            check: Some(check.into()),
            remedy: remedy.map(Into::into),
            remedy_status,
            samples: samples.into_iter().filter(sendable).take(MAX_SAMPLES).map(Into::into).collect(),
            definition: definition.map(Into::into),
            refused_samples,
            pauses: pauses.into_iter().take(MAX_PAUSES).map(Into::into).collect(),
            remedy_budget: remedy_budget.map(Into::into),
            depends_on: depends_on
                .into_iter()
                .take(MAX_DEPENDENCIES)
                .map(|parent| cut(parent, MAX_TEXT_BYTES))
                .collect(),
        }
    }
}

impl TryFrom<v1::CheckState> for CheckState {
    type Error = WireError;

    fn try_from(state: v1::CheckState) -> Result<Self, WireError> {
        if state.samples.len() > MAX_SAMPLES {
            let count = state.samples.len();
            return Err(WireError::TooMany { field: "CheckState.samples", count, limit: MAX_SAMPLES });
        }
        if state.pauses.len() > MAX_PAUSES {
            let count = state.pauses.len();
            return Err(WireError::TooMany { field: "CheckState.pauses", count, limit: MAX_PAUSES });
        }
        if state.depends_on.len() > MAX_DEPENDENCIES {
            let count = state.depends_on.len();
            return Err(WireError::TooMany { field: "CheckState.depends_on", count, limit: MAX_DEPENDENCIES });
        }
        let parent = |parent| text("CheckState.depends_on", parent);
        let (phase, said) = match phase("CheckState.phase", state.phase) {
            Err(error) if error.is_of_a_newer_version() => (Phase::Pending, unknown_phase(state.phase)),
            phase => (phase?, message("CheckState.message", state.message)?),
        };
        let running = match state.running.map(Running::try_from).transpose() {
            Err(error) if error.is_of_a_newer_version() => None,
            running => running?,
        };
        Ok(CheckState {
            uid: identity("CheckState.uid", state.uid)?,
            namespace: identity("CheckState.namespace", state.namespace)?,
            name: identity("CheckState.name", state.name)?,
            description: text("CheckState.description", state.description)?,
            phase,
            message: said,
            schedule: text("CheckState.schedule", state.schedule)?,
            running,
            next_slot: optional_time("CheckState.next_slot", state.next_slot)?,
            timeout_seconds: state.timeout_seconds,
            check: state.check.ok_or(WireError::Missing { field: "CheckState.check" })?.try_into()?,
            remedy: state.remedy.map(Totals::try_from).transpose()?,
            remedy_status: text("CheckState.remedy_status", state.remedy_status)?,
            samples: list(state.samples)?,
            definition: state.definition.map(DefinitionRef::try_from).transpose()?,
            refused_samples: state.refused_samples,
            pauses: known(state.pauses)?,
            remedy_budget: state.remedy_budget.map(RemedyBudget::try_from).transpose()?,
            depends_on: state.depends_on.into_iter().map(parent).collect::<Result<_, _>>()?,
        })
    }
}
