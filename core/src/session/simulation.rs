//! Both ends of the session against each other, with every fault that a network and two processes have, in an order that
//! a seed decides. What must hold is checked at each step, and after the faults the hub must know everything.

mod agent_alone;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use self::world::{Commit, World};
use super::agent;
use super::frame::{AgentFrame, Hello, Report, Welcome};
use crate::run::{Outcome, Run, RunKey, RunKind};
use crate::state::{CheckState, Phase, Totals};

pub(crate) fn check(uid: &str, version: u64) -> CheckState {
    CheckState {
        uid: uid.into(),
        namespace: "health".into(),
        name: uid.into(),
        description: String::new(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: "@every 60s".into(),
        running: None,
        next_slot: None,
        timeout_seconds: 60,
        check: Totals { succeeded: version, ..Totals::default() },
        remedy: None,
        remedy_status: String::new(),
        samples: Vec::new(),
        refused_samples: 0,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
        definition: None,
    }
}

pub(super) fn hello(cluster: &str) -> Hello {
    Hello {
        cluster: cluster.into(),
        cluster_uid: "uid".into(),
        incarnation: "i".into(),
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.33.0".into(),
        oldest_seq: 1,
        next_seq: 1,
        sent_at: Timestamp::UNIX_EPOCH,
        dropped_reports: 0,
        journal_id: "j".into(),
        hub_mark: String::new(),
        policy: Vec::new(),
    }
}

pub(super) fn welcome(max_unacked_reports: u32) -> Welcome {
    Welcome { session_epoch: 1, heartbeat_ms: 5000, lease_ms: 15_000, max_unacked_reports, hub_version: "0.1.0".into() }
}

pub(super) fn report(seq: u64) -> Report {
    let slot = Timestamp::from_second(i64::try_from(seq).unwrap()).unwrap();
    let run = Run {
        key: RunKey { check_uid: "a".into(), kind: RunKind::HealthCheck, slot },
        namespace: "health".into(),
        name: "a".into(),
        workflow: None,
        outcome: Outcome::Succeeded,
        reason: None,
        message: String::new(),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    };
    Report { seq, run }
}

#[test]
fn whatever_happens_the_hub_knows_everything_once_it_ends() {
    let (mut answered, mut late, mut lost) = (0, 0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
        }
        world.calm();
        let missing = world.missing().count();
        assert_eq!((world.recorded.len() + missing) as u64, world.next_seq - 1, "seed {seed}");
        assert!(world.journal.is_empty() && world.lacking.is_empty(), "seed {seed}");
        let last = world.missing().map(|key| key.slot).max();
        assert!(last.is_none_or(|last| world.gaps.contains(&last)), "seed {seed}: nothing says that runs are missing");
        let made_up = world.gaps.iter().find(|mark| !world.lost.iter().any(|key| key.slot == **mark));
        assert_eq!(made_up, None, "seed {seed}: a gap where nothing was lost");
        lost += missing;
        let truth: BTreeMap<_, _> = world.cluster.iter().map(|(uid, state)| (uid.clone(), (**state).clone())).collect();
        assert_eq!(world.shown(), truth, "seed {seed}");
        assert_eq!(world.applied, world.meant, "seed {seed}");
        let answers: Vec<_> = world.statuses.iter().map(|status| (&status.name, status.generation)).collect();
        let asked: Vec<_> = world.meant.iter().map(|definition| (&definition.name, definition.generation)).collect();
        assert_eq!(answers, asked, "seed {seed}");
        assert_eq!(world.waiting(), 0, "seed {seed}: people who were never told");
        answered += world.answered;
        late += world.late;
    }
    assert!(answered > 60 * 18, "{answered} commands were answered");
    assert!(late > 20, "{late} words came late");
    assert!(lost > 60, "{lost} reports were lost with their journal");
}

#[test]
fn a_backlog_does_not_hide_what_happens() {
    let mut world = World::new(1);
    world.max_unacked = 4096;
    world.next_seq = 5001;
    world.journal = (1..=5000).map(report).collect();
    world.tell_agent(agent::Input::Journal(world.journal_state()));
    world.dial();
    while !world.connection().to_hub.iter().any(|frame| matches!(frame, AgentFrame::Reports { .. })) {
        world.send();
        if !world.agent.is_live() {
            world.deliver();
        }
    }
    world.connection().to_hub.clear();
    world.tell_agent(agent::Input::CheckChanged(Arc::new(check("late", 1))));
    world.pass(Duration::from_secs(6));
    for _ in 0..3 {
        world.send();
    }
    assert!(matches!(world.connection().to_hub[0], AgentFrame::Heartbeat(_)));
    assert!(matches!(world.connection().to_hub[1], AgentFrame::CheckUpsert(_)));
    assert!(matches!(world.connection().to_hub[2], AgentFrame::Reports { .. }));
}

#[test]
fn the_agent_stays_within_what_the_hub_allows() {
    let mut world = World::new(1);
    world.max_unacked = 300;
    world.next_seq = 1001;
    world.journal = (1..=1000).map(report).collect();
    world.tell_agent(agent::Input::Journal(world.journal_state()));
    for _ in 0..100 {
        world.dial();
        world.send();
        world.deliver();
    }
    let reports = |commit: &Commit| match commit {
        Commit::Reports(reports, _) => reports.len(),
        Commit::Lacking(_) => 0,
    };
    let under_way: usize = world.connection().commits.iter().map(reports).sum();
    assert_eq!(under_way, 300);
}

#[test]
fn a_check_that_changes_often_is_sent_as_it_is_by_then() {
    let mut world = World::new(1);
    for _ in 0..10 {
        world.dial();
        world.send();
        world.deliver();
    }
    for version in 0..1000 {
        world.tell_agent(agent::Input::CheckChanged(Arc::new(check("busy", version))));
    }
    world.send();
    assert_eq!(world.connection().to_hub, [AgentFrame::CheckUpsert(Box::new(check("busy", 999)))]);
    assert!(!world.agent.wants_to_send(world.now()));
}
