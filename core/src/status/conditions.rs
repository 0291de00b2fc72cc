//! The conditions of a HealthCheck: what `kubectl wait --for=condition=Ready` waits for. Only a CRD of ours keeps them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{INVALID, STOPPED};
use crate::healthcheck::{HealthCheckStatus, time};

/// The check can be run: it is scheduled, no right is missing that is known of, and Argo takes up its workflows.
pub const READY: &str = "Ready";
/// The check runs when its schedule says.
pub const SCHEDULED: &str = "Scheduled";
/// The accounts of the check and its remedy have the rights that it asks for.
pub const RBAC_READY: &str = "RBACReady";
/// An Argo controller takes up the check's workflows.
pub const ARGO_READY: &str = "ArgoReady";

const SLOT_MISSED: &str = "SlotMissed";

/// How a check that is neither paused nor invalid keeps its schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// It runs at its times.
    OnTime,
    /// This time has passed by more than so many seconds, its startingDeadlineSeconds: it is skipped.
    Missed(Timestamp, u32),
    /// Slots that are yet to come are used up: a clock was ahead. It runs at its times all the same.
    Ahead,
    /// A command of the hub keeps it from starting until then.
    Paused(Timestamp),
}

/// What the last runs say of the accounts' rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// They are there.
    Granted,
    /// The API server's words, and what lifts the refusal.
    Refused(String),
}

/// What the last run says of Argo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argo {
    /// It has taken up the run's workflow.
    Serves,
    /// The cluster has no kind Workflow.
    NotInstalled,
    /// The workflow was there for as long as the run might take, and nobody took it up.
    NotTakenUp,
}

impl Argo {
    fn says(self) -> Says {
        match self {
            Argo::Serves => Says::new("True", "TakenUp", ""),
            Argo::NotInstalled => {
                let message =
                    "Argo Workflows is not installed: the cluster has no kind Workflow in argoproj.io/v1alpha1";
                Says::new("False", "NotInstalled", message)
            }
            Argo::NotTakenUp => {
                let message = "no Argo controller has taken up the last run's workflow: none runs, or none for its \
                    instance id";
                Says::new("False", "NotTakenUp", message)
            }
        }
    }
}

/// What one condition says.
struct Says {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Says {
    fn new(status: &'static str, reason: &'static str, message: impl Into<String>) -> Says {
        Says { status, reason, message: message.into() }
    }
}

/// The status with its conditions. Those of others stay. Without `rights` or `argo`, what was known of them stands, with
/// the generation that it was known of.
pub fn with(
    status: HealthCheckStatus,
    generation: i64,
    now: Timestamp,
    scheduled: Scheduled,
    rights: Option<Rights>,
    argo: Option<Argo>,
) -> HealthCheckStatus {
    let known = status.conditions.clone().unwrap_or_default();
    let set = |type_: &str, says: Says| condition(&known, type_, says, generation, now);
    let stands = |type_: &str, not_asked: &str| {
        let unknown = || set(type_, Says::new("Unknown", "NotAsked", not_asked));
        find(&known, type_).cloned().unwrap_or_else(unknown)
    };
    let of_rights = match rights {
        Some(Rights::Granted) => set(RBAC_READY, Says::new("True", "Granted", "")),
        Some(Rights::Refused(message)) => set(RBAC_READY, Says::new("False", "Refused", message)),
        None => stands(RBAC_READY, "the rights are asked for with the first run"),
    };
    let of_argo = match argo {
        Some(argo) => set(ARGO_READY, argo.says()),
        None => stands(ARGO_READY, "the first run will tell"),
    };
    let of_schedule = set(SCHEDULED, schedule(&status, scheduled));
    let ready = if of_schedule.status != "True" {
        Says { status: "False", reason: stop(&status).unwrap_or(SCHEDULED), message: of_schedule.message.clone() }
    } else if of_rights.status == "False" {
        Says::new("False", "RBACRefused", of_rights.message.clone())
    } else if of_argo.status == "False" {
        Says::new("False", "ArgoNotReady", of_argo.message.clone())
    } else {
        Says::new("True", SCHEDULED, "")
    };
    let ours = [set(READY, ready), of_schedule, of_rights, of_argo];
    let others = known.iter().filter(|known| ours.iter().all(|ours| ours.type_ != known.type_)).cloned();
    let conditions: Vec<Condition> = ours.iter().cloned().chain(others).collect();
    HealthCheckStatus { observed_generation: Some(generation), conditions: Some(conditions), ..status }
}

/// Whether a run has ever told what this condition says.
pub fn speaks_of(status: &HealthCheckStatus, type_: &str) -> bool {
    find(status.conditions.as_deref().unwrap_or_default(), type_).is_some_and(|known| known.status != "Unknown")
}

/// What is said of a slot that is skipped.
pub fn missed(status: &HealthCheckStatus) -> Option<&str> {
    let scheduled = find(status.conditions.as_deref().unwrap_or_default(), SCHEDULED)?;
    (scheduled.reason == SLOT_MISSED).then_some(&scheduled.message)
}

fn stop(status: &HealthCheckStatus) -> Option<&'static str> {
    match status.status.as_deref() {
        Some(INVALID) => Some("Invalid"),
        Some(STOPPED) => Some("Stopped"),
        Some(_) | None => None,
    }
}

fn schedule(status: &HealthCheckStatus, scheduled: Scheduled) -> Says {
    if let Some(reason) = stop(status) {
        return Says::new("False", reason, status.error_message.clone().unwrap_or_default());
    }
    match scheduled {
        Scheduled::OnTime => Says::new("True", "OnSchedule", ""),
        Scheduled::Missed(slot, deadline) => {
            let text =
                format!("the run of {slot} was not started within startingDeadlineSeconds, {deadline}, and is skipped");
            Says::new("True", SLOT_MISSED, text)
        }
        Scheduled::Paused(until) => {
            let text = format!("paused by a command of the hub until {until:.0}; fleetcheck resume ends it");
            Says::new("False", "Paused", text)
        }
        Scheduled::Ahead => {
            let text = "slots that are yet to come are used up: a clock was ahead. Runs go on at their times, and take the \
                slots that follow";
            Says::new("True", "ClockWasAhead", text)
        }
    }
}

fn find<'a>(known: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    known.iter().find(|condition| condition.type_ == type_)
}

fn condition(known: &[Condition], type_: &str, says: Says, generation: i64, now: Timestamp) -> Condition {
    let since = find(known, type_).filter(|known| known.status == says.status);
    Condition {
        type_: type_.into(),
        status: says.status.into(),
        reason: says.reason.into(),
        message: says.message,
        observed_generation: Some(generation),
        last_transition_time: since.map_or_else(|| time(now), |known| known.last_transition_time.clone()),
    }
}
