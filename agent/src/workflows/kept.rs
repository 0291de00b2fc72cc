//! A workflow as the cache keeps it. Ended ones stay in the cluster for minutes, so there are many for each check: what
//! most of them have not takes no room, and what all of a check have in common is said once.

use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::workflow::{Node, Outputs, Seen, WorkflowPhase, WorkflowStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A [`Seen`] without the uid of its check.
pub(super) struct Kept {
    /// `namespace/name`.
    pub(super) workflow: Box<str>,
    pub(super) created: Timestamp,
    pub(super) started_at: Option<Time>,
    pub(super) phase: WorkflowPhase,
    finished_at: Option<Time>,
    kind: RunKind,
    slot: Timestamp,
    deadline_seconds: Option<u32>,
    rare: Option<Box<Rare>>,
}

/// What a scheduled run that goes well has not.
#[derive(Clone, Default, PartialEq)]
struct Rare {
    run_now: Option<String>,
    warning: String,
    message: Option<String>,
    outputs: Outputs,
    nodes: Vec<Node>,
}

impl Kept {
    /// Gives the uid of the check beside it.
    pub(super) fn of(seen: Seen) -> (String, Kept) {
        let Seen { key, workflow, created, run_now, deadline_seconds, warning, status } = seen;
        let RunKey { check_uid, kind, slot } = key;
        let WorkflowStatus { phase, message, started_at, finished_at, outputs, nodes } = status;
        let rare = Rare { run_now, warning, message, outputs, nodes };
        let rare = (rare != Rare::default()).then(|| Box::new(rare));
        let workflow = workflow.into_boxed_str();
        (check_uid, Kept { workflow, created, started_at, phase, finished_at, kind, slot, deadline_seconds, rare })
    }

    /// As the decision sees it.
    pub(super) fn seen(&self, check_uid: &str) -> Seen {
        let Kept { workflow, created, started_at, phase, finished_at, kind, slot, deadline_seconds, rare } = self;
        let Rare { run_now, warning, message, outputs, nodes } = rare.as_deref().cloned().unwrap_or_default();
        Seen {
            key: RunKey { check_uid: check_uid.to_owned(), kind: *kind, slot: *slot },
            workflow: workflow.to_string(),
            created: *created,
            run_now,
            deadline_seconds: *deadline_seconds,
            warning,
            status: WorkflowStatus {
                phase: *phase,
                message,
                started_at: started_at.clone(),
                finished_at: finished_at.clone(),
                outputs,
                nodes,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use active_monitor_core::workflow::Parameter;

    use super::*;

    #[test]
    fn nothing_of_a_workflow_is_lost_and_one_that_goes_well_is_small() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let plain = Seen {
            key: RunKey { check_uid: "u".into(), kind: RunKind::Remedy, slot: at(1) },
            workflow: "health/dns-1".into(),
            created: at(2),
            run_now: None,
            deadline_seconds: Some(60),
            warning: String::new(),
            status: WorkflowStatus {
                phase: WorkflowPhase::Succeeded,
                started_at: Some(Time(at(3))),
                finished_at: Some(Time(at(4))),
                ..WorkflowStatus::default()
            },
        };
        let full = Seen {
            run_now: Some("again".into()),
            warning: "old copy".into(),
            status: WorkflowStatus {
                message: Some("child failed".into()),
                outputs: Outputs { parameters: vec![Parameter { name: "metrics".into(), value: Some("1".into()) }] },
                nodes: vec![Node { message: "exit code 1".into(), ..Node::default() }],
                ..plain.status.clone()
            },
            ..plain.clone()
        };
        for seen in [&plain, &full] {
            let (uid, kept) = Kept::of(seen.clone());
            assert_eq!((uid.as_str(), kept.seen(&uid)), ("u", seen.clone()));
        }
        assert!(Kept::of(plain).1.rare.is_none() && size_of::<Kept>() <= 128, "{}", size_of::<Kept>());
    }
}
