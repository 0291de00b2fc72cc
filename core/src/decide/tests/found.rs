//! What the simulation found (`core/tests/simulation.rs`): each of these once broke an invariant in some seed.

use super::*;
use crate::check::Job;

/// Seed 9: the watch still showed what was deleted, and the API server was asked again and again.
#[test]
fn a_workflow_that_the_api_server_has_not_is_gone_whatever_the_watch_shows() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.observed.gone.insert(world.observed.workflows[0].workflow.clone());
    world.settle(&check, at(71));
    assert_eq!(world.recorded[0].reason, Some(Reason::WorkflowVanished));
}

/// Seeds 45 and 164: a workflow with the labels of a run, made by somebody else, stood in for the real one, and the
/// run's intent stayed open beside the next run's.
#[test]
fn a_forged_workflow_does_not_keep_an_intent_open() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    let name = world.observed.workflows[0].workflow.clone();
    world.observed.workflows[0].workflow = "health/forged".into();
    assert_eq!(decide(at(5), &check, &world.observed), Step::Confirm(name));
}

/// What another replica has counted, while this one was away.
fn overtaken() -> (Check, World) {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    let observed = Observed { intents: Vec::new(), ..world.observed.clone() };
    let mut other = World { observed, ..World::default() };
    other.end(WorkflowPhase::Succeeded, at(2));
    other.settle(&check, at(2));
    world.observed.status = other.observed.status;
    (check, world)
}

/// Seed 19: the intent of a run that another replica had counted stayed open beside the next run's.
#[test]
fn a_run_that_another_replica_has_counted_is_waited_for_as_long_as_its_workflow_lives() {
    let (check, mut world) = overtaken();
    assert_eq!(decide(at(65), &check, &world.observed), Step::Wait(Some(at(70))));
    // Also under the name that an edit of generateName took from it.
    world.observed.intents[0].workflow = "health/earlier-1".into();
    assert_eq!(decide(at(65), &check, &world.observed), Step::Wait(Some(at(70))));
    world.end(WorkflowPhase::Succeeded, at(66));
    world.settle(&check, at(66));
    let recorded: Vec<_> = world.recorded.iter().map(|run| (run.key.slot, run.outcome)).collect();
    assert_eq!(recorded, [(at(0), Outcome::Succeeded)], "the hub counts a run once, whoever tells of it");
    assert_eq!(world.observed.status.success_count, Some(1));
}

/// Seed 19 too: that its workflow is gone says nothing of how it ended.
#[test]
fn a_run_that_another_replica_has_counted_did_not_vanish() {
    let (check, mut world) = overtaken();
    world.observed.workflows.clear();
    let key = world.observed.intents[0].key.clone();
    world.observed.gone.insert(world.observed.intents[0].workflow.clone());
    assert_eq!(decide(at(65), &check, &world.observed), Step::Abandon(key));
    world.settle(&check, at(65));
    assert_eq!((world.recorded.len(), world.observed.status.failed_count), (0, None));
}

/// Another replica takes over without the journal, after an edit of generateName: a run in flight was unknown to it.
#[test]
fn a_run_in_flight_is_known_by_its_hash_after_an_edit_of_its_prefix() {
    let (check, mut world) = (every_minute(), World::default());
    world.settle(&check, at(0));
    world.observed.intents.clear();
    let workflow = Job { prefix: "other-".into(), ..check.workflow.clone() };
    let edited = Check { workflow, ..check };
    assert_eq!(decide(at(5), &edited, &world.observed), Step::Wait(Some(at(70))));
    world.end(WorkflowPhase::Succeeded, at(6));
    world.settle(&edited, at(6));
    assert_eq!((world.observed.status.success_count, world.created.len()), (Some(1), 1));
}

/// Seed 5412 of a lease that moves: the agent's request for an earlier slot landed after the run that followed it, and who
/// took over counted the earlier one, whose start used up the slot of the later.
#[test]
fn a_workflow_that_came_after_a_later_run_s_was_given_up_and_says_nothing() {
    let (check, mut first) = (every_minute(), World::default());
    let next = first.settle(&check, at(1)).unwrap();
    let mut late = first.observed.workflows.pop().unwrap();
    first.observed = Observed::default();
    first.start(&check, RunKey { slot: next, ..late.key.clone() }, None, next);
    late.created = next + Duration::from_secs(2);
    let then = next + Duration::from_secs(5);
    first.end(WorkflowPhase::Succeeded, then);

    let workflows = vec![late, first.observed.workflows.remove(0)];
    let mut second = World { observed: Observed { workflows, ..Observed::default() }, ..World::default() };
    second.settle(&check, then);
    let recorded: Vec<Timestamp> = second.recorded.iter().map(|run| run.key.slot).collect();
    assert_eq!(recorded, [next]);
    assert_eq!(second.observed.status.success_count, Some(1));
}

/// Who takes over without the journal of the one before.
fn taken_over(world: &World) -> World {
    let observed = Observed { intents: Vec::new(), ran_now: None, ..world.observed.clone() };
    World { observed, ..World::default() }
}

/// A check without a schedule whose run on request is in flight.
fn asked() -> (Check, World) {
    let (check, mut world) = (check(json!({"repeatAfterSec": 0})), World::default());
    world.observed.has_conditions = true;
    world.settle(&check, at(0));
    world.observed.run_now = Some("a".into());
    world.settle(&check, at(2));
    assert_eq!(world.created.len(), 1);
    (check, world)
}

/// Seed 9315 of a lease that moves: a workflow that somebody had copied, with the request on it, stood for the run, whose
/// own workflow was deleted.
#[test]
fn a_forged_workflow_does_not_obey_a_request() {
    let (check, world) = asked();
    let mut second = taken_over(&world);
    second.observed.workflows[0].workflow = "health/forged".into();
    second.settle(&check, at(5));
    assert_eq!((second.created.len(), second.observed.status.last_run_now.as_deref()), (1, None));
    second.end(WorkflowPhase::Succeeded, at(6));
    second.settle(&check, at(6));
    assert_eq!(second.recorded.len(), 1);
    assert_eq!(second.observed.status.last_run_now.as_deref(), Some("a"));
}

/// What led to seed 9315 too: the status said that a request was obeyed whose run could still be lost.
#[test]
fn a_request_whose_run_is_lost_with_the_journal_of_who_made_it_is_obeyed_anew() {
    let (check, mut world) = asked();
    // An edit has the status written while the run is in flight, by the one who made it and by another.
    let edited = Check { generation: 2, ..check };
    world.settle(&edited, at(3));
    assert_eq!(
        (world.observed.status.observed_generation, world.observed.status.last_run_now.as_deref()),
        (Some(2), None)
    );
    let edited = Check { generation: 3, ..edited };
    let mut second = taken_over(&world);
    second.settle(&edited, at(4));
    assert_eq!(second.observed.status.observed_generation, Some(3));
    assert_eq!((second.created.len(), second.observed.status.last_run_now.as_deref()), (0, None));
    second.observed.workflows.clear();
    second.settle(&edited, at(5));
    second.end(WorkflowPhase::Succeeded, at(6));
    second.settle(&edited, at(6));
    assert_eq!((second.created.len(), second.recorded.len()), (1, 1));
    assert_eq!(second.observed.status.last_run_now.as_deref(), Some("a"));
}

/// Seed 16500, of two agents side by side: a request's workflow was seen when a later slot had been used up, so nobody
/// recorded its run, and yet it stood for the request.
#[test]
fn a_request_whose_workflow_came_too_late_to_count_is_obeyed_anew_where_the_status_can_tell() {
    let (check, mut world) = asked();
    world.end(WorkflowPhase::Succeeded, at(4));
    let mut second = taken_over(&world);
    second.observed.status.started_at = Some(crate::healthcheck::time(at(9)));
    assert!(matches!(decide(at(12), &check, &second.observed), Step::RunNow { token, .. } if token == "a"));
    second.observed.has_conditions = false;
    second.settle(&check, at(12));
    assert_eq!(second.created.len(), 0, "it may have been counted");
}
