//! What should not happen: checks that turn invalid in flight, clocks that were wrong.

use super::*;
use crate::check::{Invalid, Problem};

fn invalid() -> Invalid {
    Invalid { problems: vec![Problem { field: "spec.level".into(), message: "is wrong".into() }] }
}

/// As the shell would: until there is nothing to do but wait.
fn follow_on(world: &mut World, last: &Check, now: Timestamp) -> Option<Timestamp> {
    for _ in 0..20 {
        match follow(now, last, &invalid(), &world.observed) {
            Step::Wait(until) => return until,
            Step::WriteStatus(next) => world.observed.status = *next,
            Step::Record { run, .. } => {
                world.observed.intents.retain(|intent| intent.key != run.key);
                world.observed.settled = vec![(*run).clone()];
                world.recorded.push(*run);
            }
            Step::Abandon(key) => world.observed.intents.retain(|intent| intent.key != key),
            Step::Confirm(workflow) => {
                world.observed.gone.insert(workflow);
            }
            step @ (Step::Start(_) | Step::RunNow { .. }) => panic!("{step:?} of an invalid check"),
        }
    }
    panic!("no rest");
}

fn stand_in() -> Check {
    let resource: HealthCheck = serde_json::from_value(json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": "dns", "namespace": "health", "uid": "u1", "generation": 2}, "spec": {"workflow": {}},
    }))
    .unwrap();
    Check::unrunnable(&resource)
}

#[test]
fn a_check_that_turns_invalid_in_flight_says_so_at_once_and_its_run_is_followed_to_its_end() {
    for last in [every_minute(), stand_in()] {
        let (check, mut world) = (every_minute(), World::default());
        world.observed.has_conditions = true;
        world.settle(&check, at(0));
        assert_eq!(follow_on(&mut world, &last, at(1)), Some(at(70)));
        assert_eq!(world.observed.status.status.as_deref(), Some("Invalid"));
        world.end(WorkflowPhase::Failed, at(5));
        assert_eq!(follow_on(&mut world, &last, at(5)), None);
        let status = world.observed.status.clone();
        assert_eq!((status.status.as_deref(), status.failed_count), (Some("Invalid"), Some(1)));
        assert_eq!(status.error_message.as_deref(), Some("spec.level: is wrong"));
        assert_eq!(status.conditions.unwrap()[0].reason, "Invalid");
        // Valid again: it goes on at its slots, and nothing is remedied late.
        assert!(world.settle(&check, at(6)).unwrap() > at(6));
        assert_eq!((world.created.len(), world.recorded.len()), (1, 1));
    }
}

#[test]
fn an_invalid_check_starts_nothing_and_withdraws_what_was_not_created() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.observed.workflows.clear();
    world.observed.intents[0].created = false;
    world.observed.run_now = Some("a".into());
    assert_eq!(follow_on(&mut world, &stand_in(), at(9)), None);
    assert!(world.observed.intents.is_empty() && world.recorded.is_empty());
}

#[test]
fn after_a_clock_that_was_far_ahead_checks_run_at_their_times_and_no_slot_twice() {
    let year = 365 * 86_400;
    let check = check(json!({"repeatAfterSec": 60, "jitterSec": 0}));
    let mut world = World::default();
    world.observed.has_conditions = true;
    for minute in 0..20 {
        let now = at(year + 60 * minute);
        world.settle(&check, now);
        world.end(WorkflowPhase::Succeeded, now + Duration::from_secs(1));
        world.settle(&check, now + Duration::from_secs(1));
    }
    assert_eq!(world.created.len(), 20);
    // Put right. The workflows expire; nothing but the status and the journal's last run is left.
    world.observed.workflows.clear();
    let mut runs = Vec::new();
    for second in 600..1200 {
        let before = world.created.len();
        world.settle(&check, at(second));
        if world.created.len() > before {
            runs.push(second);
            world.end(WorkflowPhase::Succeeded, at(second + 1));
        }
        let state = crate::report::state(
            at(second),
            &HealthCheck::default(),
            &Ok(check.clone()),
            &world.observed,
            &crate::samples::Samples::default(),
            crate::report::RemedyCounts::default(),
        );
        assert!(state.next_slot.unwrap() <= at(second + 60), "what is overdue can be seen: {:?}", state.next_slot);
    }
    assert_eq!(runs, [600, 660, 720, 780, 840, 900, 960, 1020, 1080, 1140]);
    let conditions = world.observed.status.conditions.clone().unwrap();
    assert_eq!((conditions[1].status.as_str(), conditions[1].reason.as_str()), ("True", "ClockWasAhead"));
    // The journal is lost as well: the status alone keeps the slots apart.
    world.observed.settled.clear();
    world.observed.intents.clear();
    world.settle(&check, at(1260));
    let mut slots: Vec<Timestamp> = world.created.iter().map(|key| key.slot).collect();
    assert_eq!(slots.len(), 31);
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), 31, "no slot twice");
    // And when the time comes that the clock had shown, everything is as ever.
    world.end(WorkflowPhase::Succeeded, at(1261));
    world.settle(&check, at(1261));
    world.observed.workflows.clear();
    world.settle(&check, at(year + 86_400));
    assert_eq!(world.created.last().unwrap().slot, at(year + 86_400));
    world.end(WorkflowPhase::Succeeded, at(year + 86_401));
    world.settle(&check, at(year + 86_401));
    assert_eq!(world.observed.status.conditions.clone().unwrap()[1].reason, "OnSchedule");
}

#[test]
fn a_run_in_flight_when_the_clock_is_put_right_has_its_timeout_and_no_more() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(86_400));
    world.observed.workflows[0].created = at(0);
    assert_eq!(world.settle(&check, at(1)), Some(at(70)));
    world.observed.asked.clear();
    world.settle(&check, at(70));
    assert_eq!(world.recorded[0].reason, Some(Reason::DeadlineExceeded));
}

#[test]
fn what_cannot_be_started_after_a_clock_was_ahead_fails_once_for_each_time() {
    let check = check(json!({"repeatAfterSec": 60, "jitterSec": 0}));
    let mut world = World::default();
    world.observed.status.started_at = Some(crate::healthcheck::time(at(86_400)));
    let mut starts = 0;
    for second in 0..180 {
        for _ in 0..8 {
            match decide(at(second), &check, &world.observed) {
                Step::Start(key) => {
                    starts += 1;
                    let words = "refused".to_owned();
                    let run = ended_without_workflow(at(second), &check, &key, None, Reason::CreateRefused, words);
                    assert!(run.finished_at >= run.started_at);
                    world.observed.settled = vec![run];
                }
                Step::WriteStatus(next) => world.observed.status = *next,
                Step::Wait(until) => {
                    assert!(until.is_some());
                    break;
                }
                step @ (Step::Record { .. } | Step::RunNow { .. } | Step::Abandon(_) | Step::Confirm(_)) => {
                    panic!("{step:?}")
                }
            }
        }
    }
    assert_eq!(starts, 3);
}

#[test]
fn a_slot_at_the_end_of_time_blocks_without_a_panic() {
    let (check, mut world) = (every_minute(), World::default());
    world.observed.status.started_at = Some(crate::healthcheck::time(Timestamp::MAX));
    world.observed.run_now = Some("a".into());
    assert!(world.settle(&check, at(1)).is_some());
    assert!(world.created.is_empty());
}
