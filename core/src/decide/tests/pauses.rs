//! Pauses by a command of the hub.

use super::*;
use crate::command::{Pause, Scope, Subject};

fn paused(subject: Subject, until: i64) -> Vec<Pause> {
    let (reason, by) = ("release".into(), "ann".into());
    vec![Pause { id: "1".into(), subject, scope: Scope::default(), until: at(until), reason, by }]
}

#[test]
fn a_paused_check_lets_its_run_end_and_makes_up_one_run_when_the_pause_is_over() {
    let (check, mut world) = (every_minute(), World::default());
    world.observed.has_conditions = true;
    world.settle(&check, at(0));
    world.observed.pauses = paused(Subject::Checks, 600);
    assert!(world.settle(&check, at(1)).is_some(), "waits for the run in flight");
    world.end(WorkflowPhase::Succeeded, at(2));
    assert_eq!(world.settle(&check, at(2)), Some(at(600)), "looks again when the pause ends");
    let conditions = world.observed.status.conditions.clone().unwrap();
    let scheduled = conditions.iter().find(|condition| condition.type_ == "Scheduled").unwrap();
    assert_eq!((scheduled.status.as_str(), scheduled.reason.as_str()), ("False", "Paused"));
    assert_eq!(world.observed.status.status.as_deref(), Some("Succeeded"), "the last result stays");
    for second in [60, 300, 599] {
        assert_eq!(world.settle(&check, at(second)), Some(at(600)));
    }
    assert_eq!(world.created.len(), 1, "nothing runs while paused");
    world.observed.pauses = vec![];
    world.settle(&check, at(600));
    assert_eq!(world.created.len(), 2);
    world.end(WorkflowPhase::Succeeded, at(601));
    assert!(world.settle(&check, at(601)).unwrap() > at(601), "the others of that time are not made up");
    assert_eq!(world.created.len(), 2);
}

#[test]
fn a_run_now_waits_for_the_end_of_a_pause() {
    let (check, mut world) = (super::check(json!({"repeatAfterSec": 0})), World::default());
    world.settle(&check, at(0));
    world.observed.run_now = Some("a".into());
    world.observed.pauses = paused(Subject::Checks, 600);
    assert_eq!(world.settle(&check, at(1)), Some(at(600)));
    assert_eq!(world.created, []);
    world.observed.pauses = vec![];
    world.settle(&check, at(600));
    assert_eq!(world.created.len(), 1);
}

#[test]
fn an_intent_without_a_workflow_is_given_up_when_a_pause_comes() {
    for asked in [None, Some("a".to_owned())] {
        let (check, mut world) = (every_minute(), World::default());
        world.observed.run_now = asked;
        world.settle(&check, at(0));
        world.observed.workflows.clear();
        world.observed.intents[0].created = false;
        world.observed.pauses = paused(Subject::Checks, 600);
        assert_eq!(world.settle(&check, at(1)), Some(at(600)));
        assert!(world.observed.intents.is_empty() && world.created.len() == 1);
    }
}

#[test]
fn a_pause_of_remedies_starts_none_and_lets_the_check_go_on() {
    for subject in [Subject::Remedies, Subject::Checks] {
        let (check, mut world) = (remedied(json!(5), json!(3600)), World::default());
        world.settle(&check, at(0));
        world.observed.pauses = paused(subject, 45);
        world.end(WorkflowPhase::Failed, at(1));
        assert_eq!(world.settle(&check, at(1)), Some(at(45)));
        assert_eq!(world.created.len(), 1, "{subject:?}");
        world.observed.pauses = vec![];
        world.settle(&check, at(45));
        assert_eq!(world.created[1].kind, RunKind::Remedy, "{subject:?}: still owed");
    }
    let (check, mut world) = (remedied(json!(5), json!(3600)), World::default());
    world.observed.pauses = paused(Subject::Remedies, 100_000);
    for minute in 0..5 {
        world.settle(&check, at(100 * minute));
        world.end(WorkflowPhase::Failed, at(100 * minute + 1));
        world.settle(&check, at(100 * minute + 1));
    }
    assert!(world.created.len() == 5 && world.created.iter().all(|key| key.kind == RunKind::HealthCheck));
}
