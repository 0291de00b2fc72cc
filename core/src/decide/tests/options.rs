//! The optional fields: suspend, delays, deadlines, thresholds, and runs out of schedule.

use super::*;

fn reason(world: &World, type_: &str) -> String {
    let conditions = world.observed.status.conditions.as_deref().unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == type_).map(|c| c.reason.clone()).unwrap_or_default()
}

fn run(world: &mut World, check: &Check, phase: WorkflowPhase, now: Timestamp) {
    let before = world.created.len();
    world.settle(check, now);
    assert_eq!(world.created.len(), before + 1, "a run at {now}");
    world.end(phase, now + Duration::from_secs(1));
    world.settle(check, now + Duration::from_secs(1));
}

fn said(world: &World) -> Option<&str> {
    world.observed.status.status.as_deref()
}

#[test]
fn a_suspended_check_lets_its_run_end_and_starts_nothing() {
    let suspended = check(json!({"repeatAfterSec": 60, "suspend": true}));
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    assert!(world.settle(&suspended, at(1)).is_some(), "waits for the run in flight");
    world.end(WorkflowPhase::Succeeded, at(2));
    assert_eq!(world.settle(&suspended, at(2)), None);
    assert_eq!((said(&world), world.observed.status.success_count), (Some("Stopped"), Some(1)));
    assert_eq!(world.observed.status.error_message.as_deref(), Some("suspended: spec.suspend is true"));
    world.settle(&suspended, at(10_000));
    let wake = world.settle(&check, at(10_001)).unwrap();
    assert!(world.created.len() == 1 && wake > at(10_001), "what passed meanwhile is used up");
}

#[test]
fn a_run_now_runs_once_for_each_value_also_when_paused_and_after_a_restart() {
    for spec in
        [json!({"repeatAfterSec": 3600}), json!({"repeatAfterSec": 0}), json!({"repeatAfterSec": 60, "suspend": true})]
    {
        let (check, mut world) = (super::check(spec), World::default());
        world.observed.has_conditions = true;
        world.settle(&check, at(0));
        if !world.created.is_empty() {
            world.end(WorkflowPhase::Succeeded, at(1));
        }
        world.settle(&check, at(1));
        let before = world.created.len();
        world.observed.run_now = Some("a".into());
        run(&mut world, &check, WorkflowPhase::Failed, at(2));
        let slot = world.created[before].slot;
        assert!(slot >= at(2) && slot <= at(3), "{slot}");
        assert_eq!(world.observed.status.last_run_now.as_deref(), Some("a"));
        assert_eq!(world.observed.status.failed_count, Some(1));
        world.settle(&check, at(4));
        // The journal is lost: the status knows.
        world.observed.ran_now = None;
        world.observed.workflows.clear();
        world.settle(&check, at(5));
        assert_eq!(world.created.len(), before + 1);
        world.observed.run_now = Some("b".into());
        run(&mut world, &check, WorkflowPhase::Succeeded, at(6));
        assert_eq!(world.observed.status.last_run_now.as_deref(), Some("b"));
    }
}

#[test]
fn a_run_now_that_a_crash_cut_short_takes_the_same_slot_again() {
    let (check, mut world) = (super::check(json!({"repeatAfterSec": 0})), World::default());
    world.settle(&check, at(0));
    world.observed.run_now = Some("a".into());
    world.settle(&check, at(2));
    world.observed.workflows.clear();
    world.observed.intents[0].created = false;
    world.settle(&check, at(9));
    assert_eq!(world.created.len(), 2);
    assert_eq!(world.created[0], world.created[1]);
    // A second request waits for the first to end.
    world.observed.run_now = Some("b".into());
    world.settle(&check, at(10));
    assert_eq!(world.created.len(), 2);
    world.end(WorkflowPhase::Succeeded, at(11));
    world.settle(&check, at(11));
    assert_eq!(world.created.len(), 3);
    assert!(world.created[2].slot > world.created[1].slot);
}

#[test]
fn a_run_now_of_another_agent_that_is_gone_is_not_repeated() {
    let (check, mut world) = (super::check(json!({"repeatAfterSec": 0})), World::default());
    world.settle(&check, at(0));
    world.observed.run_now = Some("a".into());
    world.settle(&check, at(2));
    world.observed.intents.clear();
    world.observed.ran_now = None;
    world.end(WorkflowPhase::Succeeded, at(3));
    world.settle(&check, at(4));
    assert_eq!((world.created.len(), world.observed.status.success_count), (1, Some(1)));
}

#[test]
fn annotations_ask_for_a_run_by_their_value() {
    let annotations = |value: &str| BTreeMap::from([(RUN_NOW_ANNOTATION.to_owned(), value.to_owned())]);
    assert_eq!(run_now(&annotations(" now\n")), Some("now".into()));
    assert_eq!(run_now(&annotations("  ")), None);
    assert_eq!(run_now(&annotations(&"ä".repeat(500))).map(|token| token.len()), Some(128));
}

#[test]
fn a_slot_past_its_starting_deadline_is_skipped_and_that_is_said_once() {
    let check = check(json!({"repeatAfterSec": 3600, "startingDeadlineSeconds": 60, "jitterSec": 0}));
    let mut world = World::default();
    world.observed.has_conditions = true;
    run(&mut world, &check, WorkflowPhase::Succeeded, at(0));
    let before = world.observed.status.clone();
    let wake = world.settle(&check, at(3661)).unwrap();
    assert_eq!((wake, world.created.len()), (at(7200), 1));
    assert_eq!((reason(&world, "Scheduled"), reason(&world, "Ready")), ("SlotMissed".into(), "Scheduled".into()));
    let notes = status::notes(&before, &world.observed.status);
    assert!(notes[0].reason == "SlotMissed" && notes[0].text.contains(&at(3600).to_string()), "{notes:?}");
    let said = world.observed.status.clone();
    world.settle(&check, at(3700));
    assert_eq!(world.observed.status, said);
    run(&mut world, &check, WorkflowPhase::Succeeded, at(7201));
    assert_eq!(reason(&world, "Scheduled"), "OnSchedule");
    assert!(world.observed.status.success_count == Some(2));
}

#[test]
fn a_slot_within_its_starting_deadline_runs() {
    let check = check(json!({"repeatAfterSec": 3600, "startingDeadlineSeconds": 60, "jitterSec": 0}));
    let mut world = World::default();
    run(&mut world, &check, WorkflowPhase::Succeeded, at(60));
    world.settle(&check, at(3660));
    assert_eq!(world.created.len(), 2);
}

#[test]
fn thresholds_delay_what_is_said_and_the_remedy_but_no_counter() {
    let spec = json!({"repeatAfterSec": 60, "jitterSec": 0, "failureThreshold": 3, "successThreshold": 2,
        "remedyworkflow": job("fixer")});
    let (check, mut world) = (check(spec), World::default());
    use WorkflowPhase::{Failed, Succeeded};
    let ends = [Succeeded, Succeeded, Failed, Failed, Failed, Succeeded, Failed, Succeeded, Succeeded];
    let expected = [
        (None, 0),
        (Some("Succeeded"), 0),
        (Some("Succeeded"), 0),
        (Some("Succeeded"), 0),
        (Some("Failed"), 1),
        (Some("Failed"), 1),
        (Some("Failed"), 1),
        (Some("Failed"), 1),
        (Some("Succeeded"), 1),
    ];
    for (minute, (phase, (status, remedies))) in ends.into_iter().zip(expected).enumerate() {
        let now = at(60 * i64::try_from(minute).unwrap());
        world.settle(&check, now);
        world.end(phase, now + Duration::from_secs(1));
        world.settle(&check, now + Duration::from_secs(1));
        let is_remedy = world.created.last().is_some_and(|key| key.kind == RunKind::Remedy);
        if is_remedy && world.recorded.len() < world.created.len() {
            world.end(Succeeded, now + Duration::from_secs(2));
            world.settle(&check, now + Duration::from_secs(2));
        }
        assert_eq!(said(&world), status, "minute {minute}");
        let ran = world.kinds().iter().filter(|kind| **kind == RunKind::Remedy).count();
        assert_eq!(ran, remedies, "minute {minute}");
    }
    let status = &world.observed.status;
    assert_eq!(
        (status.success_count, status.failed_count, status.total_health_check_runs),
        (Some(5), Some(4), Some(9))
    );
}

#[test]
fn a_refusal_of_rights_is_a_condition_until_a_run_has_them() {
    let (check, mut world) = (every_minute(), World::default());
    world.observed.has_conditions = true;
    world.settle(&check, at(0));
    let key = world.created[0].clone();
    world.observed = Observed { has_conditions: true, ..Observed::default() };
    let words = "needs get of pods; kubectl label clusterrole x";
    let refused = ended_without_workflow(at(1), &check, &key, None, Reason::RbacRefused, words.into());
    world.observed.settled = vec![refused];
    world.settle(&check, at(1));
    let conditions = world.observed.status.conditions.clone().unwrap();
    let said: Vec<_> = conditions.iter().map(|c| (c.status.as_str(), c.reason.as_str(), c.message.as_str())).collect();
    let expected = [("False", "RBACRefused", words), ("True", "OnSchedule", ""), ("False", "Refused", words)];
    assert_eq!(said[..3], expected);
    assert!(matches!(decide(at(2), &check, &world.observed), Step::Wait(Some(_))), "said once");
    world.settle(&check, at(200));
    world.end(WorkflowPhase::Failed, at(201));
    world.settle(&check, at(201));
    assert_eq!((reason(&world, "RBACReady"), reason(&world, "Ready")), ("Granted".into(), "Scheduled".into()));
}

#[test]
fn rights_are_unknown_before_the_first_run_and_stand_through_an_edit() {
    let (mut check, mut world) = (super::check(json!({"schedule": {"cron": "0 3 * * *"}})), World::default());
    world.observed.has_conditions = true;
    world.settle(&check, at(0));
    assert_eq!((reason(&world, "RBACReady"), reason(&world, "Ready")), ("NotAsked".into(), "Scheduled".into()));
    run(&mut world, &check, WorkflowPhase::Succeeded, at(86_400));
    check.generation = 2;
    world.settle(&check, at(86_500));
    let conditions = world.observed.status.conditions.clone().unwrap();
    let generations: Vec<_> = conditions.iter().map(|condition| condition.observed_generation).collect();
    let before = "the rights were asked for by the version before";
    assert_eq!(generations, [Some(2), Some(2), Some(1), Some(1)], "{before}");
    assert_eq!(world.observed.status.observed_generation, Some(2));
}

#[test]
fn a_new_version_of_a_check_is_noticed_while_its_run_is_in_flight() {
    let (check, mut world) = (every_minute(), World::default());
    world.observed.has_conditions = true;
    run(&mut world, &check, WorkflowPhase::Succeeded, at(0));
    let next = world.settle(&check, at(1)).unwrap();
    world.settle(&check, next);
    let before = world.observed.status.clone();
    let later = |seconds| next + Duration::from_secs(seconds);

    let suspended = Check { generation: 2, suspended: true, ..check.clone() };
    assert!(world.settle(&suspended, later(1)).is_some(), "waits for the run in flight");
    let after = &world.observed.status;
    assert_eq!((reason(&world, "Ready").as_str(), after.observed_generation), ("Stopped", Some(2)));
    let rest = HealthCheckStatus {
        conditions: before.conditions.clone(),
        observed_generation: before.observed_generation,
        ..after.clone()
    };
    assert_eq!(rest, before, "the run in flight is still to be counted");

    let invalid = Invalid { problems: Vec::new() };
    world.observed.status = status::invalid(&world.observed.status, &invalid);
    let mended = Check { generation: 4, ..check };
    world.settle(&mended, later(2));
    assert_eq!((reason(&world, "Ready").as_str(), said(&world)), ("Scheduled", None));
    world.end(WorkflowPhase::Succeeded, later(3));
    world.settle(&mended, later(3));
    assert_eq!((said(&world), world.observed.status.success_count), (Some("Succeeded"), Some(2)));
    assert_eq!(world.recorded.len(), 2);
}

#[test]
fn with_active_monitors_crd_a_mended_check_is_not_invalid_while_its_run_is_in_flight() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.observed.status = status::invalid(&world.observed.status, &Invalid { problems: Vec::new() });
    assert!(world.settle(&check, at(1)).is_some());
    assert_eq!((said(&world), world.created.len()), (None, 1));
}

#[test]
fn what_runs_say_of_argo_is_a_condition_and_no_write_of_its_own() {
    let (check, mut world) = (every_minute(), World::default());
    world.observed.has_conditions = true;
    world.settle(&check, at(0));
    // The shell knows it of the run that has just ended.
    world.observed.argo = Some(Argo::NotTakenUp);
    world.end(WorkflowPhase::Failed, at(30));
    let next = world.settle(&check, at(30)).unwrap();
    assert_eq!((reason(&world, "ArgoReady"), reason(&world, "Ready")), ("NotTakenUp".into(), "ArgoNotReady".into()));
    world.observed.argo = Some(Argo::Serves);
    assert!(matches!(decide(at(31), &check, &world.observed), Step::Wait(Some(_))), "told with the next run's end");
    world.settle(&check, next);
    world.end(WorkflowPhase::Succeeded, next);
    world.settle(&check, next);
    assert_eq!((reason(&world, "ArgoReady"), reason(&world, "Ready")), ("TakenUp".into(), "Scheduled".into()));
    world.observed.argo = None;
    assert!(matches!(decide(next, &check, &world.observed), Step::Wait(Some(_))), "after a restart it stands");
}
