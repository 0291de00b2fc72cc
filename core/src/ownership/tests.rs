use serde_json::json;

use super::*;
use crate::decide::{Intent, Step, decide};
use crate::workflow::{Seen, WorkflowPhase, WorkflowStatus};

const CREATED: i64 = 1_800_000_000;
const SOURCE: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: a}";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(CREATED + second).unwrap()
}

fn job(prefix: &str) -> serde_json::Value {
    json!({"generateName": prefix, "resource": {"namespace": "health", "serviceAccount": "sa", "source": {"inline": SOURCE}}})
}

fn resource(spec: serde_json::Value, status: serde_json::Value) -> HealthCheck {
    let mut spec = spec;
    spec["workflow"] = job("dns-");
    serde_json::from_value(json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": "dns", "namespace": "health", "uid": "u1", "generation": 1,
            "creationTimestamp": at(0).to_string()},
        "spec": spec, "status": status,
    }))
    .unwrap()
}

fn every_minute() -> Check {
    Check::parse(&resource(json!({"repeatAfterSec": 60}), json!({}))).unwrap()
}

fn written(by: &[(&str, i64)]) -> ObjectMeta {
    let entry = |(manager, second): &(&str, i64)| {
        json!({"manager": manager, "operation": "Update", "subresource": "status", "time": at(*second).to_string(),
            "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}})
    };
    let mut metadata: ObjectMeta =
        serde_json::from_value(json!({"managedFields": by.iter().map(entry).collect::<Vec<_>>()})).unwrap();
    keep_writers(&mut metadata);
    metadata
}

#[test]
fn of_the_managed_fields_only_the_writers_of_the_status_stay() {
    let mut metadata: ObjectMeta = serde_json::from_value(json!({"managedFields": [
        {"manager": "kubectl", "time": at(0).to_string(), "fieldsV1": {"f:spec": {}}},
        {"manager": "manager", "subresource": "status", "time": at(1).to_string(), "fieldsV1": {"f:status": {}}}]}))
    .unwrap();
    keep_writers(&mut metadata);
    let left = metadata.managed_fields.unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].manager.as_deref() == Some("manager") && left[0].fields_v1.is_none());
    let mut many = written(&(0..20).map(|second| ("manager", second)).collect::<Vec<_>>());
    assert_eq!(many.managed_fields.as_ref().map(Vec::len), Some(MAX_WRITERS));
    assert_eq!(many.managed_fields.take().unwrap()[0].time.as_ref().unwrap().0, at(19), "the newest stay");
}

#[test]
fn another_controller_holds_the_check_until_it_has_missed_two_slots() {
    let check = every_minute();
    let hold_at = |by: &[(&str, i64)], now| hold(at(now), &written(by), Some(&check), at(100));
    // What it wrote before the agent came, and what people write, is no rival.
    assert_eq!(hold_at(&[("active-monitor-controller", 99)], 101), None);
    assert_eq!(hold_at(&[("kubectl-patch", 150), ("unknown", 150)], 151), None);
    let found = hold_at(&[("active-monitor-controller", 150), ("kubectl-patch", 160)], 161).unwrap();
    assert_eq!((found.manager.as_str(), found.wrote), ("active-monitor-controller", at(150)));
    assert!(found.until > at(150 + 60 + 60) && found.until <= at(150 + 120 + 60 + 60), "{found}");
    assert_eq!(hold(found.until, &written(&[("manager", 150)]), Some(&check), at(100)), None, "it counts as gone");
    // The agent wrote later: the other is not heard of since.
    assert_eq!(hold_at(&[("manager", 150), (MANAGER, 170)], 171), None);
    assert!(hold_at(&[("manager", 180), (MANAGER, 170)], 181).is_some());
    // Without a schedule there is a limit too.
    let unknown = hold(at(160), &written(&[("manager", 150)]), None, at(100)).unwrap();
    assert_eq!(unknown.until, at(750));
}

#[test]
fn an_annotation_forgives_what_was_written_before_it() {
    let check = every_minute();
    let mut metadata = written(&[("manager", 150)]);
    let annotate = |metadata: &mut ObjectMeta, value: &str| {
        metadata.annotations = Some([(TAKE_OVER_ANNOTATION.to_owned(), value.to_owned())].into());
    };
    annotate(&mut metadata, &at(155).to_string());
    assert_eq!(hold(at(156), &metadata, Some(&check), at(100)), None);
    annotate(&mut metadata, &at(140).to_string());
    assert!(hold(at(156), &metadata, Some(&check), at(100)).is_some());
    annotate(&mut metadata, "true");
    assert!(hold(at(156), &metadata, Some(&check), at(100)).is_some(), "only a time ends");
}

#[test]
fn a_held_check_starts_and_writes_nothing_but_its_run_in_flight_is_recorded() {
    let check = every_minute();
    let until = at(400);
    let mut known = Observed {
        hold: Some(Hold { manager: "manager".into(), wrote: at(150), until }),
        // The other has counted a later run already.
        status: serde_json::from_value(json!({"startedAt": at(149).to_string(), "status": "Failed"})).unwrap(),
        ..Observed::default()
    };
    assert_eq!(decide(at(160), &check, &known), Step::Wait(Some(until)));
    let key = RunKey { check_uid: "u1".into(), kind: RunKind::HealthCheck, slot: at(120) };
    let workflow = "health/dns-abc".to_owned();
    known.intents.push(Intent { key: key.clone(), workflow: workflow.clone(), created: true, run_now: None });
    let status = WorkflowStatus { phase: WorkflowPhase::Succeeded, ..WorkflowStatus::default() };
    known.workflows.push(Seen {
        key: key.clone(),
        workflow,
        created: at(120),
        run_now: None,
        warning: String::new(),
        deadline_seconds: Some(20),
        status,
    });
    let Step::Record { run, .. } = decide(at(160), &check, &known) else { panic!("recorded") };
    assert_eq!(run.key, key);
    known.intents.clear();
    known.settled.push(*run);
    assert_eq!(decide(at(160), &check, &known), Step::Wait(Some(until)), "its count is not written");
    let parsed = Ok(check);
    let state = report::state(
        at(160),
        &resource(json!({"repeatAfterSec": 60}), json!({})),
        &parsed,
        &known,
        &Samples::default(),
        RemedyCounts::default(),
    );
    assert_eq!((state.phase, state.next_slot), (Phase::Stopped, None));
    assert!(state.message.starts_with("another controller writes this check: \"manager\""), "{}", state.message);
}

#[test]
fn a_remedy_that_may_not_run_is_owed_and_said_and_the_check_goes_on() {
    let spec = json!({"repeatAfterSec": 60, "remedyworkflow": job("fix-"), "remedyRunsLimit": 2});
    let check = Check::parse(&resource(spec, json!({}))).unwrap();
    let status = json!({"status": "Failed", "startedAt": at(60).to_string(), "finishedAt": at(61).to_string(),
        "lastFailedWorkflow": "dns-1", "errorMessage": "no"});
    let known = |remedies| Observed {
        remedies,
        status: serde_json::from_value(status.clone()).unwrap(),
        ..Observed::default()
    };
    let started = |remedies, now| {
        let step = decide(now, &check, &known(remedies));
        if let Step::Start(key) = step { Some(key.kind) } else { None }
    };
    assert_eq!(started(Remedies::On, at(62)), Some(RunKind::Remedy));
    for remedies in [Remedies::Off, Remedies::Observe] {
        assert_eq!(started(remedies, at(62)), None);
        assert_eq!(started(remedies, at(200)), Some(RunKind::HealthCheck));
    }
    assert_eq!(withheld(&check, &known(Remedies::On)), None);
    assert!(withheld(&check, &known(Remedies::Off)).unwrap().contains("owed and not started"));
    let told = withheld(&check, &known(Remedies::Observe)).unwrap();
    assert!(told.contains("fix-...") && told.contains("sa-remedy"), "{told}");
    let mut used_up = known(Remedies::Off);
    used_up.status.remedy_total_runs = Some(2);
    assert_eq!(withheld(&check, &used_up), None, "none is owed past the limit");
}

#[test]
fn a_workflow_of_active_monitors_is_told_by_its_owner_and_its_name() {
    let metadata = |name: &str, kind: &str| -> ObjectMeta {
        serde_json::from_value(json!({"name": name, "namespace": "health", "creationTimestamp": at(5).to_string(),
            "ownerReferences": [{"apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": kind, "name": "dns", "uid": "u1"}]}))
        .unwrap()
    };
    assert_eq!(foreign(&metadata("dns-1", "CronWorkflow")), None);
    let spec = json!({"repeatAfterSec": 60, "remedyworkflow": job("dns-fix-")});
    let check = Check::parse(&resource(spec, json!({}))).unwrap();
    for (name, kind) in [("dns-1", Some(RunKind::HealthCheck)), ("dns-fix-1", Some(RunKind::Remedy)), ("other-1", None)]
    {
        let found = foreign(&metadata(name, "HealthCheck")).unwrap();
        let key = adopted(&check, &found);
        assert_eq!(key.as_ref().map(|key| key.kind), kind, "{name}");
        assert!(key.is_none_or(|key| key.slot == at(5) && key.check_uid == "u1"));
    }
}

#[test]
fn an_observed_check_is_overdue_by_the_others_schedule() {
    let state = |spec, status| {
        let resource = resource(spec, status);
        observed(at(1000), &resource, &Check::parse(&resource))
    };
    let ended = json!({"status": "Succeeded", "startedAt": at(100).to_string(), "finishedAt": at(110).to_string(),
        "successCount": 7, "failedCount": 1});
    let run = state(json!({"repeatAfterSec": 60}), ended.clone());
    assert_eq!((run.phase, run.next_slot, run.check.succeeded), (Phase::Succeeded, Some(at(170)), 7));
    assert_eq!(run.check.finished_at, Some(at(110)));
    assert!(crate::fleet::due_at(&run).is_some_and(|due| due < at(1000)), "it stands still, and that shows");
    let never = state(json!({"repeatAfterSec": 60}), json!({}));
    assert_eq!((never.phase, never.next_slot), (Phase::Pending, Some(at(0))));
    let cron = state(json!({"schedule": {"cron": "@every 2m"}}), ended.clone());
    assert_eq!(cron.next_slot, Some(at(230)));
    assert_eq!(state(json!({}), ended.clone()).phase, Phase::Stopped);
    let odd = state(json!({"repeatAfterSec": 60, "level": "galaxy"}), ended);
    assert_eq!(odd.phase, Phase::Succeeded, "it may run there");
    assert!(odd.message.contains("would be Invalid") && odd.message.contains("spec.level"), "{}", odd.message);
}
