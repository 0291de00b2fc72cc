//! One process of the agent, step for step as its controller takes them: observe, decide, one step, again. Whatever
//! happens in the world may happen between any two actions; a process that died meanwhile does nothing more.

#[path = "runs.rs"]
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::capacity::Limits;
use active_monitor_core::check::{Check, Invalid};
use active_monitor_core::clock::Clock;
use active_monitor_core::decide::{Intent, Observed, Step, decide, ended_without_workflow, follow, run_now};
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::manifest::Manifest;
use active_monitor_core::ownership::Remedies;
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::workflow::{Seen, WorkflowStatus, key_of_labels};
use active_monitor_core::{check::Source, invariants};
use jiff::Timestamp;

use super::capacity::Book;
use super::server::{Change, Millis, Refusal, Workflow, elapsed, instant, whole};
use super::world::World;

const MAX_STEPS: usize = 16;
const WATCH_LAG: Duration = Duration::from_secs(30);
const RBAC_PATIENCE_SECONDS: i64 = 15;
const SWEEP_AGAIN: Millis = 60_000;
/// What was looked at when it was to be forgotten is forgotten after this time.
const SWEEP_SOON: Millis = 1_000;
/// Who finds no place asks again after this time.
pub(crate) const ASK_AGAIN: Millis = 10_000;

/// The process has ended.
#[derive(Debug)]
pub(crate) struct Dead;

/// A process: the replica it is of, and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Me {
    pub(crate) replica: usize,
    pub(crate) life: u64,
}

/// Why a look at a check ended early.
#[derive(Debug)]
enum StepError {
    Dead,
    /// A request, the journal, or a run that cannot be started yet.
    Again,
}

impl From<Dead> for StepError {
    fn from(Dead: Dead) -> StepError {
        StepError::Dead
    }
}

enum Refused {
    Run(Reason),
    Later,
}

/// What became of a run that was to start.
enum Begun {
    /// It is in flight, or has failed.
    Yes,
    /// As many as allowed are in flight: it waits.
    NoRoom,
}

impl Memory {
    fn forget(&mut self, workflow: &str) {
        self.gone.remove(workflow);
        self.unclear.remove(workflow);
        self.asked.remove(workflow);
    }
}

#[derive(Default)]
struct Memory {
    parsed: Option<(i64, Arc<Result<Check, Invalid>>)>,
    last_valid: Option<Arc<Result<Check, Invalid>>>,
    written: Option<(u64, HealthCheckStatus)>,
    gone: BTreeSet<String>,
    unclear: BTreeSet<String>,
    asked: BTreeMap<String, Timestamp>,
    created: BTreeMap<String, (Seen, Timestamp)>,
    trying: Option<(RunKey, Timestamp)>,
    failures: u32,
}

/// What one process knows; all of it goes when it dies.
#[derive(Default)]
pub(crate) struct Agent {
    pub(crate) life: u64,
    clock: Clock,
    pub(crate) checks: BTreeMap<String, Arc<HealthCheck>>,
    workflows: BTreeMap<String, BTreeMap<String, Seen>>,
    checks_at: usize,
    workflows_at: usize,
    memory: BTreeMap<String, Memory>,
    /// When each check is looked at next.
    pub(crate) wakes: BTreeMap<String, Millis>,
    /// The checks that are looked at, by name, with their uids.
    busy: BTreeMap<String, String>,
    pub(crate) book: Book,
    sweep_at: Millis,
    sweeping: bool,
}

impl Agent {
    pub(crate) fn new(life: u64, limits: Limits) -> Agent {
        Agent { life, book: Book::new(limits), ..Agent::default() }
    }

    fn remember(&mut self, uid: &str) -> &mut Memory {
        self.memory.entry(uid.to_owned()).or_default()
    }

    pub(crate) fn wake(&mut self, name: &str, at: Millis) {
        let known = self.wakes.entry(name.to_owned()).or_insert(at);
        *known = at.min(*known);
    }

    pub(crate) fn is_due(&self, t: Millis) -> bool {
        self.sweep_at <= t || self.wakes.values().any(|at| *at <= t)
    }

    /// Workflows that it has notes of, beside those that its watch has.
    pub(crate) fn remembered(&self) -> usize {
        self.memory.values().map(|known| known.gone.len() + known.asked.len() + known.created.len()).sum()
    }

    /// Checks that it has notes of.
    pub(crate) fn known(&self) -> usize {
        self.memory.len()
    }

    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.memory.contains_key(uid)
    }
}

impl World {
    /// Lists everything, as at the start and after a watch was lost.
    pub(crate) fn relist(&mut self, replica: usize) {
        let (t, log) = (self.t, self.server.log.len());
        let Some(agent) = &mut self.agents[replica] else { return };
        agent.checks = self.server.checks.clone();
        agent.workflows.clear();
        for (name, workflow) in self.server.workflows.iter().filter(|(_, workflow)| workflow.key.is_some()) {
            let of_check = agent.workflows.entry(workflow.seen.key.check_uid.clone()).or_default();
            of_check.insert(name.clone(), workflow.seen.clone());
        }
        (agent.checks_at, agent.workflows_at) = (log, log);
        agent.sweep_at = t;
        let names: Vec<String> = self.server.checks.keys().cloned().collect();
        names.iter().for_each(|name| agent.wake(name, t));
        let server = whole(t);
        let wall = self.wall(replica);
        self.agents[replica].as_mut().unwrap().clock.heard(elapsed(t), wall, server);
    }

    /// Lets a process see some of what its watches have for it.
    pub(crate) fn deliver(&mut self, replica: usize, checks: usize, workflows: usize) {
        let t = self.t;
        let Some(agent) = &mut self.agents[replica] else { return };
        let mut left = checks;
        while left > 0 && agent.checks_at < self.server.log.len() {
            if let Change::Check { name, object } = &self.server.log[agent.checks_at] {
                match object {
                    Some(object) => drop(agent.checks.insert(name.clone(), Arc::clone(object))),
                    None => {
                        agent.checks.remove(name);
                        agent.sweep_at = t;
                    }
                }
                agent.wake(name, t);
                left -= 1;
            }
            agent.checks_at += 1;
        }
        let mut left = workflows;
        while left > 0 && agent.workflows_at < self.server.log.len() {
            if let Change::Workflow { name, seen, check, exists } = &self.server.log[agent.workflows_at] {
                let of_check = agent.workflows.entry(seen.key.check_uid.clone()).or_default();
                if *exists {
                    of_check.insert(name.clone(), (**seen).clone());
                } else {
                    of_check.remove(name);
                }
                agent.wake(check, t);
                left -= 1;
            }
            agent.workflows_at += 1;
        }
    }

    /// Looks at one check that is due, or sweeps.
    pub(crate) fn run_one(&mut self, replica: usize) {
        let t = self.t;
        let Some(agent) = self.agents[replica].as_mut().filter(|_| self.stopped_until[replica] <= t) else { return };
        let me = Me { replica, life: agent.life };
        if agent.sweep_at <= t && !agent.sweeping {
            agent.sweeping = true;
            agent.sweep_at = t + SWEEP_AGAIN;
            if self.sweep(me).is_ok() {
                self.agent(me).unwrap().sweeping = false;
            }
            return;
        }
        let due = agent.wakes.iter().filter(|(name, at)| **at <= t && !agent.busy.contains_key(*name));
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        if due.is_empty() {
            return;
        }
        let name = due[self.random.below(due.len() as u64) as usize].clone();
        agent.wakes.remove(&name);
        let uid = agent.checks.get(&name).and_then(|check| check.metadata.uid.clone()).unwrap_or_default();
        agent.busy.insert(name.clone(), uid);
        if self.reconcile(me, &name).is_ok() {
            self.agent(me).unwrap().busy.remove(&name);
        }
    }

    pub(crate) fn agent(&mut self, me: Me) -> Result<&mut Agent, Dead> {
        self.agents[me.replica].as_mut().filter(|agent| agent.life == me.life).ok_or(Dead)
    }

    pub(crate) fn now(&mut self, me: Me) -> Result<Timestamp, Dead> {
        let (monotonic, wall) = (elapsed(self.t), self.wall(me.replica));
        Ok(self.agent(me)?.clock.now(monotonic, wall))
    }

    /// A write, which a process sends only as long as it leads.
    fn write<T>(
        &mut self,
        me: Me,
        effect: impl FnOnce(&mut World) -> Result<T, Refusal> + 'static,
    ) -> Result<Result<T, Refusal>, Dead> {
        self.pause(me)?;
        if !self.may_write(me.replica) {
            self.note("fenced", me.replica);
            return Ok(Err(Refusal::NotSent));
        }
        self.send(me, effect)
    }

    fn read<T>(
        &mut self,
        me: Me,
        effect: impl FnOnce(&mut World) -> Result<T, Refusal> + 'static,
    ) -> Result<Result<T, Refusal>, Dead> {
        self.pause(me)?;
        self.send(me, effect)
    }

    /// A request to the API server: lost on the way there or back, late, or answered.
    fn send<T>(
        &mut self,
        me: Me,
        effect: impl FnOnce(&mut World) -> Result<T, Refusal> + 'static,
    ) -> Result<Result<T, Refusal>, Dead> {
        let fault = if self.api_is_down { 0 } else { self.fault(50) };
        let answer = match fault {
            0 => Err(Refusal::Unknown),
            1 => effect(self).and(Err(Refusal::Unknown)),
            2 => {
                let lands = self.t + 1 + self.random.millis(20_000);
                self.late.push((lands, Box::new(move |world| drop(effect(world)))));
                Err(Refusal::Unknown)
            }
            _ => effect(self),
        };
        self.pause(me)?;
        if !matches!(answer, Err(Refusal::Unknown)) {
            let (t, wall) = (self.t, self.wall(me.replica));
            self.agent(me)?.clock.heard(elapsed(t), wall, whole(t));
        }
        Ok(answer)
    }

    fn reconcile(&mut self, me: Me, name: &str) -> Result<(), Dead> {
        let agent = self.agent(me)?;
        let Some(resource) = agent.checks.get(name).cloned() else { return Ok(()) };
        let uid = resource.metadata.uid.clone().unwrap();
        let generation = resource.metadata.generation.unwrap();
        let memory = agent.remember(&uid);
        let known = memory.parsed.as_ref().filter(|(of, _)| *of == generation);
        let parsed = known.map_or_else(|| Arc::new(Check::parse(&resource)), |(_, parsed)| Arc::clone(parsed));
        memory.parsed = Some((generation, Arc::clone(&parsed)));
        if parsed.is_ok() {
            memory.last_valid = Some(Arc::clone(&parsed));
        }
        let last = memory.last_valid.clone();
        let result = match (parsed.as_ref(), last.as_deref()) {
            (Ok(check), _) => self.run_check(me, &resource, check, None),
            (Err(invalid), Some(Ok(last))) => self.run_check(me, &resource, last, Some(invalid)),
            (Err(invalid), _) => self.run_check(me, &resource, &Check::unrunnable(&resource), Some(invalid)),
        };
        let t = self.t;
        let agent = self.agent(me)?;
        match result {
            Ok(None) => agent.remember(&uid).failures = 0,
            Ok(Some(wait)) => {
                agent.remember(&uid).failures = 0;
                agent.wake(name, t + wait);
            }
            Err(StepError::Dead) => return Err(Dead),
            Err(StepError::Again) => {
                let failures = &mut agent.remember(&uid).failures;
                *failures += 1;
                let wait = 500 << (*failures).min(10).saturating_sub(1);
                agent.wake(name, t + Millis::from(wait).min(60_000));
            }
        }
        Ok(())
    }

    fn status(&mut self, me: Me, resource: &HealthCheck) -> Result<HealthCheckStatus, Dead> {
        let cached = version(resource);
        let memory = self.agent(me)?.remember(resource.metadata.uid.as_deref().unwrap());
        memory.written.take_if(|(version, _)| *version <= cached);
        let written = memory.written.as_ref().map(|(_, status)| status.clone());
        Ok(written.or_else(|| resource.status.clone()).unwrap_or_default())
    }

    fn run_check(
        &mut self,
        me: Me,
        resource: &HealthCheck,
        check: &Check,
        invalid: Option<&Invalid>,
    ) -> Result<Option<Millis>, StepError> {
        let mut status = self.status(me, resource)?;
        for _ in 0..MAX_STEPS {
            self.pause(me)?;
            let now = self.now(me)?;
            let observed = self.observe(me, now, resource, status.clone())?;
            let step = match invalid {
                Some(invalid) => follow(now, check, invalid, &observed),
                None => decide(now, check, &observed),
            };
            self.decisions += 1;
            if let Err(broken) = invariants::of_step(now, check, &observed, &step) {
                panic!("{broken}");
            }
            match step {
                Step::Wait(until) => {
                    self.note("wait", (me.replica, &check.name, until));
                    self.agent(me)?.remember(&check.uid).trying = None;
                    return Ok(until.map(|until| until.duration_since(now).as_millis().max(0) as Millis));
                }
                Step::WriteStatus(next) => status = self.write_status(me, resource, &status, *next)?,
                Step::Record { run, terminate } => {
                    self.settle(me, *run)?;
                    if let Some(workflow) = terminate {
                        self.terminate(me, workflow)?;
                    }
                }
                Step::Start(key) => {
                    if let Begun::NoRoom = self.start_run(me, check, &key, None)? {
                        return Ok(Some(ASK_AGAIN));
                    }
                }
                Step::RunNow { key, token } => {
                    if let Begun::NoRoom = self.start_run(me, check, &key, Some(token))? {
                        return Ok(Some(ASK_AGAIN));
                    }
                }
                Step::Abandon(key) => {
                    self.note("abandon", (me.replica, &key));
                    let open = self.disks[me.replica].intents(&check.uid).into_iter().find(|open| open.key == key);
                    self.disks[me.replica].abandon(&key);
                    if let Some(open) = open {
                        self.agent(me)?.remember(&check.uid).forget(&open.workflow);
                    }
                }
                Step::Confirm(workflow) => self.confirm(me, &check.uid, &workflow)?,
            }
        }
        panic!("no rest after {MAX_STEPS} steps: {}", check.name);
    }

    pub(crate) fn observe(
        &mut self,
        me: Me,
        now: Timestamp,
        resource: &HealthCheck,
        status: HealthCheckStatus,
    ) -> Result<Observed, Dead> {
        let uid = resource.metadata.uid.as_deref().unwrap();
        let has_conditions = self.has_conditions;
        let intents = self.disks[me.replica].intents(uid);
        let kinds = [RunKind::HealthCheck, RunKind::Remedy];
        let settled = kinds.into_iter().filter_map(|kind| self.disks[me.replica].last_run(uid, kind)).collect();
        let agent = self.agent(me)?;
        let mut workflows: Vec<Seen> =
            agent.workflows.get(uid).map(|known| known.values().cloned().collect()).unwrap_or_default();
        let memory = agent.remember(uid);
        memory.created.retain(|name, (_, since)| {
            let lagging = now.duration_since(*since).unsigned_abs() < WATCH_LAG;
            lagging && !workflows.iter().any(|seen| seen.workflow == *name)
        });
        workflows.extend(memory.created.values().map(|(seen, _)| seen.clone()));
        let (gone, asked) = (memory.gone.clone(), memory.asked.clone());
        let (waits_since, hold, remedies) = (agent.book.waits_since(uid), None, Remedies::On);
        Ok(Observed {
            status,
            workflows,
            intents,
            settled,
            gone,
            asked,
            has_conditions,
            argo: None,
            waits_since,
            hold,
            remedies,
            run_now: resource.metadata.annotations.as_ref().and_then(run_now),
            ran_now: self.disks[me.replica].ran_now(uid),
            pauses: Vec::new(),
        })
    }

    fn write_status(
        &mut self,
        me: Me,
        resource: &HealthCheck,
        before: &HealthCheckStatus,
        next: HealthCheckStatus,
    ) -> Result<HealthCheckStatus, StepError> {
        let kept = self.kept(&next);
        if self.kept(before) == kept {
            return Ok(next);
        }
        let (name, uid) = (resource.metadata.name.clone().unwrap(), resource.metadata.uid.clone().unwrap());
        let written = self.agent(me)?.remember(&uid).written.as_ref().map(|(version, _)| *version);
        let base = written.unwrap_or_else(|| version(resource));
        let of = uid.clone();
        let answer = self.write(me, move |world| world.store_status(&name, &of, base, kept))?;
        let memory = self.agent(me)?.remember(&uid);
        match answer {
            Ok(version) => {
                memory.written = Some((version, next.clone()));
                Ok(next)
            }
            Err(_) => {
                memory.written = None;
                Err(StepError::Again)
            }
        }
    }

    fn kept(&self, status: &HealthCheckStatus) -> HealthCheckStatus {
        let mut status = status.clone();
        if !self.has_conditions {
            (status.conditions, status.observed_generation, status.last_run_now) = (None, None, None);
            (status.consecutive_failures, status.consecutive_successes) = (None, None);
        }
        status
    }

    fn sweep(&mut self, me: Me) -> Result<(), Dead> {
        let agent = self.agent(me)?;
        let live: BTreeSet<String> = agent.checks.values().filter_map(|check| check.metadata.uid.clone()).collect();
        let mut known: BTreeSet<String> = agent.memory.keys().cloned().collect();
        known.extend(self.disks[me.replica].check_uids());
        for uid in known.difference(&live) {
            let (t, agent) = (self.t, self.agent(me)?);
            if agent.busy.values().any(|busy| busy == uid) {
                agent.sweep_at = t + SWEEP_SOON;
                continue;
            }
            match self.forget(me, uid) {
                Ok(()) | Err(StepError::Again) => {}
                Err(StepError::Dead) => return Err(Dead),
            }
        }
        Ok(())
    }

    fn forget(&mut self, me: Me, uid: &str) -> Result<(), StepError> {
        for intent in self.disks[me.replica].intents(uid) {
            if !intent.created {
                let name = intent.workflow.clone();
                match self.read(me, move |world| world.get(&name))? {
                    Ok((_, Some(key))) if key == intent.key => {}
                    Err(Refusal::Unknown) => return Err(StepError::Again),
                    Ok(_) | Err(_) => {
                        self.disks[me.replica].abandon(&intent.key);
                        continue;
                    }
                }
            }
            self.terminate(me, intent.workflow.clone())?;
            let (now, slot) = (self.now(me)?, intent.key.slot);
            let run = Run {
                key: intent.key,
                namespace: "health".into(),
                name: "deleted".into(),
                workflow: Some(intent.workflow),
                outcome: Outcome::Failed,
                reason: Some(Reason::WorkflowVanished),
                message: String::new(),
                started_at: slot,
                finished_at: now.max(slot),
                warning: String::new(),
                log_tail: String::new(),
            };
            self.pause(me)?;
            if self.disks[me.replica].settle(run.clone()) {
                self.recorded(me.replica, run);
            }
        }
        self.note("forget", (me.replica, uid));
        self.disks[me.replica].forget(uid);
        self.agent(me)?.memory.remove(uid);
        Ok(())
    }
}

fn version(resource: &HealthCheck) -> u64 {
    resource.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl World {
    fn wall(&self, replica: usize) -> Timestamp {
        instant(self.t + self.wall_offset[replica])
    }
}
