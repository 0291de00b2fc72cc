//! The loop by hand: each test is a cluster, a journal and a clock of its own.

use serde_json::json;

use super::*;
use crate::healthcheck::HealthCheck;
use crate::manifest::workflow_name;
use crate::workflow::WorkflowStatus;

const CREATED: i64 = 1_800_000_000;
const SOURCE: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: a}";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(CREATED + second).unwrap()
}

fn job(account: &str) -> serde_json::Value {
    json!({"resource": {"namespace": "health", "serviceAccount": account, "source": {"inline": SOURCE}}})
}

fn check(spec: serde_json::Value) -> Check {
    let mut spec = spec;
    spec["workflow"] = job("sa");
    let resource: HealthCheck = serde_json::from_value(json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": "dns", "namespace": "health", "uid": "u1", "generation": 1,
            "creationTimestamp": at(0).to_string()},
        "spec": spec,
    }))
    .unwrap();
    Check::parse(&resource).unwrap()
}

fn every_minute() -> Check {
    check(json!({"repeatAfterSec": 60}))
}

fn remedied(limit: serde_json::Value, reset: serde_json::Value) -> Check {
    let spec = json!({"repeatAfterSec": 60, "remedyworkflow": job("fixer"), "remedyRunsLimit": limit,
        "remedyResetInterval": reset});
    check(spec)
}

/// A cluster with its journal: takes the steps that are decided, as the shell would.
#[derive(Default)]
struct World {
    observed: Observed,
    recorded: Vec<Run>,
    created: Vec<RunKey>,
}

impl World {
    /// Takes steps until there is nothing to do but wait; gives the instant to wake at.
    fn settle(&mut self, check: &Check, now: Timestamp) -> Option<Timestamp> {
        for _ in 0..20 {
            match decide(now, check, &self.observed) {
                Step::Wait(until) => return until,
                Step::WriteStatus(next) => self.observed.status = *next,
                Step::Record { run, .. } => {
                    self.observed.intents.retain(|intent| intent.key != run.key);
                    self.observed.settled.retain(|known| known.key.kind != run.key.kind);
                    self.observed.settled.push((*run).clone());
                    self.recorded.push(*run);
                }
                Step::Start(key) => self.start(check, key, None, now),
                Step::RunNow { key, token } => {
                    self.observed.ran_now = Some(token.clone());
                    self.start(check, key, Some(token), now);
                }
                Step::Abandon(key) => self.observed.intents.retain(|intent| intent.key != key),
                Step::Confirm(workflow) => {
                    if self.observed.workflows.iter().any(|seen| seen.workflow == workflow) {
                        self.observed.asked.insert(workflow, now);
                    } else {
                        self.observed.gone.insert(workflow);
                    }
                }
            }
        }
        panic!("no rest after 20 steps");
    }

    fn start(&mut self, check: &Check, key: RunKey, run_now: Option<String>, now: Timestamp) {
        let job = check.job(key.kind).unwrap();
        let workflow = format!("health/{}", workflow_name(&job.prefix, &key));
        self.observed.gone.remove(&workflow);
        self.observed.intents.retain(|intent| intent.key != key);
        let intent = Intent { key: key.clone(), workflow: workflow.clone(), created: true, run_now: run_now.clone() };
        self.observed.intents.push(intent);
        let status = WorkflowStatus::default();
        let created = crate::healthcheck::whole_seconds(now);
        self.observed.workflows.push(Seen {
            key: key.clone(),
            workflow,
            created,
            run_now,
            deadline_seconds: Some(60),
            warning: "from a copy".into(),
            status,
        });
        self.created.push(key);
    }

    fn end(&mut self, phase: WorkflowPhase, now: Timestamp) {
        let seen = self.observed.workflows.last_mut().unwrap();
        seen.status.phase = phase;
        seen.status.finished_at = Some(crate::healthcheck::time(now));
    }

    fn kinds(&self) -> Vec<RunKind> {
        self.created.iter().map(|key| key.kind).collect()
    }
}

#[test]
fn an_interval_runs_at_once_and_then_on_its_grid() {
    let (check, mut world) = (every_minute(), World::default());
    assert_eq!(world.settle(&check, at(1)), Some(at(1) + Duration::from_secs(70)));
    world.end(WorkflowPhase::Succeeded, at(3));
    let next = world.settle(&check, at(3)).unwrap();
    assert_eq!(world.observed.status.success_count, Some(1));
    assert_eq!(world.observed.status.started_at.as_ref().unwrap().0, at(1));
    assert_eq!(world.created.len(), 1);
    let second = whole_seconds(next);
    assert_eq!(check.slots().unwrap().start(second), next, "within the second");
    world.settle(&check, next);
    assert_eq!(world.created[1].slot, second);
}

#[test]
fn missed_slots_run_once() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.end(WorkflowPhase::Succeeded, at(2));
    world.settle(&check, at(36_000));
    assert_eq!(world.created.len(), 2);
    world.end(WorkflowPhase::Succeeded, at(36_001));
    assert!(world.settle(&check, at(36_001)).unwrap() > at(36_001));
    assert_eq!(world.created.len(), 2);
}

#[test]
fn error_is_an_end_and_says_why() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.end(WorkflowPhase::Error, at(2));
    world.settle(&check, at(2));
    assert_eq!(world.recorded[0].reason, Some(Reason::WorkflowError));
    assert_eq!(world.observed.status.status.as_deref(), Some("Failed"));
    assert_eq!(world.observed.status.error_message.as_deref(), Some("WorkflowError"));
}

#[test]
fn a_workflow_past_its_deadline_is_failed_and_terminated() {
    let (check, mut world) = (every_minute(), World::default());
    let deadline = world.settle(&check, at(0)).unwrap();
    assert_eq!(deadline, at(70));
    let Step::Confirm(asked) = decide(deadline, &check, &world.observed) else { panic!("the watch alone is believed") };
    world.observed.asked.insert(asked, deadline);
    let step = decide(deadline, &check, &world.observed);
    let Step::Record { run, terminate } = step else { panic!("{step:?}") };
    assert_eq!(run.reason, Some(Reason::DeadlineExceeded));
    assert_eq!(terminate.as_deref(), run.workflow.as_deref());
}

#[test]
fn a_longer_deadline_in_the_source_wins() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.observed.workflows[0].deadline_seconds = Some(600);
    assert_eq!(world.settle(&check, at(100)), Some(at(610)));
}

#[test]
fn a_run_whose_workflow_vanished_is_failed_once() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.observed.workflows.clear();
    world.settle(&check, at(5));
    assert_eq!(world.recorded.len(), 1);
    assert_eq!(world.recorded[0].reason, Some(Reason::WorkflowVanished));
    assert_eq!(world.created.len(), 1, "the slot does not run again");
}

#[test]
fn an_intent_that_came_to_nothing_is_started_again_or_withdrawn() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.observed.workflows.clear();
    world.observed.intents[0].created = false;
    world.settle(&check, at(1));
    assert_eq!((world.created.len(), world.recorded.len()), (2, 0));
    assert_eq!(world.created[0], world.created[1], "the same name");

    world.observed.workflows.clear();
    world.observed.intents[0].created = false;
    world.settle(&check, at(36_000));
    assert!(world.created[2].slot > world.created[1].slot, "a newer slot is due");
}

#[test]
fn a_stale_status_does_not_count_or_run_anything_twice() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.end(WorkflowPhase::Succeeded, at(2));
    let stale = world.observed.status.clone();
    world.settle(&check, at(2));
    let counted = world.observed.status.clone();
    world.observed.status = stale;
    world.observed.workflows.clear();
    world.settle(&check, at(3));
    assert_eq!((world.created.len(), world.recorded.len()), (1, 1));
    assert_eq!(world.observed.status, counted);
}

#[test]
fn a_remedy_runs_once_for_each_failure_until_its_limit() {
    let (check, mut world) = (remedied(json!(2), json!(null)), World::default());
    let mut now = at(0);
    for _ in 0..4 {
        world.settle(&check, now);
        while world.created.last().is_some() && world.recorded.len() < world.created.len() {
            let failed = world.created.last().unwrap().kind == RunKind::HealthCheck;
            world.end(if failed { WorkflowPhase::Failed } else { WorkflowPhase::Succeeded }, now);
            now += Duration::from_secs(1);
            world.settle(&check, now);
        }
        now += Duration::from_secs(90);
    }
    use RunKind::{HealthCheck, Remedy};
    assert_eq!(world.kinds()[..6], [HealthCheck, Remedy, HealthCheck, Remedy, HealthCheck, HealthCheck]);
    assert_eq!(world.observed.status.remedy_total_runs, Some(2));
}

#[test]
fn the_reset_interval_opens_the_gate_again_and_a_success_resets_the_counters() {
    let check = remedied(json!(1), json!(100));
    let remedy = check.remedy.as_ref().unwrap();
    let mut status = HealthCheckStatus {
        status: Some("Failed".into()),
        finished_at: Some(crate::healthcheck::time(at(50))),
        remedy_finished_at: Some(crate::healthcheck::time(at(0))),
        remedy_total_runs: Some(1),
        ..HealthCheckStatus::default()
    };
    assert_eq!(status::gate(&status, remedy), status::Gate::Closed);
    status.finished_at = Some(crate::healthcheck::time(at(100)));
    assert_eq!(status::gate(&status, remedy), status::Gate::OpenAfterReset);
    let never = remedied(json!(0), json!(100));
    assert_eq!(status::gate(&status, never.remedy.as_ref().unwrap()), status::Gate::Closed);
    let unlimited = remedied(json!(null), json!(null));
    assert_eq!(status::gate(&status, unlimited.remedy.as_ref().unwrap()), status::Gate::Open);
}

#[test]
fn a_failure_is_remedied_even_when_the_next_slot_is_already_due() {
    let (check, mut world) = (remedied(json!(null), json!(null)), World::default());
    world.settle(&check, at(0));
    world.settle(&check, at(71));
    assert_eq!(world.kinds(), [RunKind::HealthCheck, RunKind::Remedy]);
}

#[test]
fn an_old_failure_is_not_remedied_before_the_check_has_spoken() {
    let (check, mut world) = (remedied(json!(null), json!(null)), World::default());
    world.observed.status = HealthCheckStatus {
        status: Some("Failed".into()),
        started_at: Some(crate::healthcheck::time(at(0))),
        finished_at: Some(crate::healthcheck::time(at(5))),
        last_failed_workflow: Some("dns-1".into()),
        ..HealthCheckStatus::default()
    };
    world.settle(&check, at(36_000));
    assert_eq!(world.kinds(), [RunKind::HealthCheck]);
}

#[test]
fn a_run_that_no_workflow_spoke_for_is_not_remedied() {
    let (check, mut world) = (remedied(json!(null), json!(null)), World::default());
    let key = RunKey { check_uid: "u1".into(), kind: RunKind::HealthCheck, slot: at(0) };
    world.observed.settled =
        vec![ended_without_workflow(at(1), &check, &key, None, Reason::RbacRefused, "refused".into())];
    world.settle(&check, at(2));
    assert_eq!(world.observed.status.failed_count, Some(1));
    assert!(world.created.is_empty());
}

#[test]
fn a_paused_check_is_stopped_and_what_it_missed_does_not_run() {
    let (stopped, mut world) = (check(json!({"repeatAfterSec": 0})), World::default());
    assert_eq!(world.settle(&stopped, at(1_000)), None);
    assert_eq!(world.observed.status.status.as_deref(), Some("Stopped"));
    assert!(world.observed.status.error_message.as_deref().unwrap().contains("spec.repeatAfterSec"));
    let resumed = check(json!({"schedule": {"cron": "0 3 * * *"}}));
    let wake = world.settle(&resumed, at(1_001)).unwrap();
    assert!(world.created.is_empty() && wake > at(1_001));
}

#[test]
fn what_passed_during_a_long_pause_does_not_run_either() {
    let (stopped, mut world) = (check(json!({"repeatAfterSec": 0})), World::default());
    world.settle(&stopped, at(0));
    let resumed = check(json!({"schedule": {"cron": "0 3 * * *"}}));
    let wake = world.settle(&resumed, at(7 * 86_400)).unwrap();
    assert!(world.created.is_empty() && wake > at(7 * 86_400));
    assert_eq!(world.observed.status.status, None, "it is not Stopped any more");
}

#[test]
fn a_workflow_of_another_name_speaks_for_nobody() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.end(WorkflowPhase::Succeeded, at(2));
    world.settle(&check, at(2));
    for (workflow, slot) in [("evil/dns-1", at(61)), ("health/dns-forged", at(61)), ("health/dns-x", at(9_999_999))] {
        let mut forged = world.observed.workflows[0].clone();
        forged.key.slot = slot;
        forged.workflow = workflow.into();
        world.observed.workflows.push(forged);
    }
    world.settle(&check, at(3));
    assert_eq!((world.recorded.len(), world.observed.status.success_count), (1, Some(1)));
}

#[test]
fn an_agent_whose_clock_is_ahead_gives_its_runs_their_time() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(600));
    let seen = world.observed.workflows.last_mut().unwrap();
    seen.created = at(0);
    assert!(matches!(decide(at(601), &check, &world.observed), Step::Wait(Some(_))));
}

#[test]
fn counters_that_active_monitor_left_go_on() {
    let (check, mut world) = (every_minute(), World::default());
    world.observed.status.success_count = Some(41);
    world.observed.status.failed_count = Some(1);
    world.settle(&check, at(0));
    world.end(WorkflowPhase::Succeeded, at(2));
    world.settle(&check, at(2));
    let status = &world.observed.status;
    assert_eq!((status.success_count, status.total_health_check_runs), (Some(42), Some(43)));
}

#[test]
fn conditions_are_written_once_where_the_crd_knows_them() {
    let (check, mut world) = (every_minute(), World::default());
    world.observed.has_conditions = true;
    world.settle(&check, at(0));
    world.end(WorkflowPhase::Succeeded, at(2));
    world.settle(&check, at(2));
    let conditions = world.observed.status.conditions.clone().unwrap();
    let said: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect();
    let expected = [
        ("Ready", "True", "Scheduled"),
        ("Scheduled", "True", "OnSchedule"),
        ("RBACReady", "True", "Granted"),
        ("ArgoReady", "Unknown", "NotAsked"),
    ];
    assert_eq!(said, expected);
    assert!(conditions.iter().all(|condition| condition.observed_generation == Some(1)));
    assert!(matches!(decide(at(3), &check, &world.observed), Step::Wait(Some(_))));
}

#[test]
fn who_takes_over_without_the_journal_counts_nothing_twice_and_gets_back_what_it_lacks() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(1));
    world.end(WorkflowPhase::Succeeded, at(3));
    let next = world.settle(&check, at(3)).unwrap();
    world.settle(&check, next);
    world.end(WorkflowPhase::Failed, next + Duration::from_secs(2));
    let third = world.settle(&check, next + Duration::from_secs(2)).unwrap();
    world.settle(&check, third);

    let observed = Observed { intents: vec![], settled: vec![], ..world.observed.clone() };
    let mut other = World { observed, ..World::default() };
    let lacks = counted_before(third, &check, &other.observed);
    let slots: Vec<_> = lacks.iter().map(|run| (run.key.slot, run.outcome)).collect();
    let second = whole_seconds(next);
    assert_eq!(slots, [(at(0), Outcome::Succeeded), (second, Outcome::Failed)], "not the one in flight");
    assert_eq!(lacks, world.recorded);
    other.observed.settled = vec![lacks[1].clone()];
    other.settle(&check, third + Duration::from_secs(1));
    assert_eq!((other.recorded.len(), other.created.len()), (0, 0), "it waits for the run in flight");
    other.end(WorkflowPhase::Succeeded, third + Duration::from_secs(2));
    other.settle(&check, third + Duration::from_secs(2));
    let status = &other.observed.status;
    assert_eq!((other.recorded.len(), status.success_count, status.failed_count), (1, Some(2), Some(1)));
}

#[test]
fn a_workflow_that_no_argo_controller_takes_up_fails_and_says_so() {
    let (check, mut world) = (every_minute(), World::default());
    let deadline = world.settle(&check, at(1)).unwrap();
    world.settle(&check, deadline);
    let message = &world.recorded[0].message;
    assert_eq!(message, "not done after 60 s: no Argo controller has taken it up");
}

#[test]
fn a_run_in_flight_of_a_check_that_is_paused_ends_by_its_own_deadline() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(1));
    let paused = self::check(json!({"repeatAfterSec": 0}));
    let deadline = world.settle(&paused, at(5)).unwrap();
    assert_eq!(deadline, at(1) + Duration::from_secs(70));
    world.settle(&paused, deadline);
    assert_eq!(world.recorded[0].reason, Some(Reason::DeadlineExceeded));
    assert_eq!(world.observed.status.status.as_deref(), Some("Stopped"));
}

mod found;
mod options;
mod pauses;
mod unusual;
