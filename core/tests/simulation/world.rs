//! Everything around the agent: time, users, Argo, the network, and the faults of all of them, in an order that a seed
//! decides.

#[path = "day.rs"]
pub(crate) mod day;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use active_monitor_core::capacity::Limits;
use active_monitor_core::decide::RUN_NOW_ANNOTATION;
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::lease::Record;
use active_monitor_core::manifest::workflow_name;
use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::workflow::{Seen, WorkflowPhase, WorkflowStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::agent::{Agent, Dead, Me};
use super::election::{Candidate, Replicas};
use super::journal::Journal;
use super::oracle::Ledger;
use super::server::{Fate, Millis, Refusal, Server, Workflow, whole};

const NAMES: [&str; 3] = ["a", "b", "c"];
const SOURCE: &str = "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, spec: {entrypoint: a}}";
/// How deep what happens may interrupt what happens.
const MAX_DEPTH: usize = 3;

/// splitmix64
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    pub(crate) fn millis(&mut self, limit: u64) -> Millis {
        self.below(limit).cast_signed()
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

/// Mostly none.
fn draw_limits(random: &mut Random) -> Limits {
    let limits = [None, None, Some(1), Some(2)];
    Limits { cluster: random.of(&limits), namespace: random.of(&limits) }
}

/// A request that lands after its caller has given it up.
type Late = (Millis, Box<dyn FnOnce(&mut World)>);

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) t: Millis,
    pub(crate) server: Server,
    pub(crate) agents: [Option<Agent>; 2],
    pub(crate) disks: [Journal; 2],
    pub(crate) wall_offset: [Millis; 2],
    pub(crate) late: Vec<Late>,
    /// Whether what is asked now was given up by who asked it.
    pub(crate) is_late: bool,
    pub(crate) api_is_down: bool,
    argo_is_down: bool,
    pub(crate) has_conditions: bool,
    /// Each with a disk of its own.
    pub(crate) replicas: Replicas,
    pub(crate) candidates: [Option<Candidate>; 2],
    pub(crate) lease: Option<Record>,
    pub(crate) lease_version: u64,
    /// Until when each replica's process does nothing, by a signal or a busy node.
    pub(crate) stopped_until: [Millis; 2],
    /// The agents' limits from their next start on.
    pub(crate) limits: Limits,
    /// Namespace of each check that there was, by uid.
    pub(crate) namespaces: BTreeMap<String, String>,
    faults: bool,
    depth: usize,
    pub(crate) lives: u64,
    uids: u64,
    pub(crate) ledger: Ledger,
    pub(crate) decisions: u64,
    trace: DefaultHasher,
    verbose: bool,
}

impl World {
    fn new(seed: u64, elected: bool, verbose: bool) -> World {
        let mut world = World::empty(seed, elected, verbose);
        let checks = 1 + world.random.below(3);
        for name in &NAMES[..checks as usize] {
            world.make_check(name);
        }
        world.start(0);
        world
    }

    fn empty(seed: u64, elected: bool, verbose: bool) -> World {
        let mut random = Random(seed);
        let alone_or_rivals = if random.one_in(4) { Replicas::Rivals } else { Replicas::One };
        World {
            replicas: if elected { Replicas::Elected } else { alone_or_rivals },
            candidates: [None, None],
            lease: None,
            lease_version: 0,
            stopped_until: [0, 0],
            has_conditions: !random.one_in(4),
            limits: draw_limits(&mut random),
            namespaces: BTreeMap::new(),
            random,
            t: 0,
            server: Server::default(),
            agents: [None, None],
            disks: [Journal::default(), Journal::default()],
            wall_offset: [0, 0],
            late: Vec::new(),
            is_late: false,
            api_is_down: false,
            argo_is_down: false,
            faults: true,
            depth: 0,
            lives: 0,
            uids: 0,
            ledger: Ledger::default(),
            decisions: 0,
            trace: DefaultHasher::new(),
            verbose,
        }
    }

    /// One world from its beginning to its end; gives the hash of all that happened.
    pub(crate) fn run(seed: u64, verbose: bool) -> u64 {
        World::new(seed, false, verbose).pass_by()
    }

    /// The same with two replicas between which a lease moves.
    pub(crate) fn run_elected(seed: u64, verbose: bool) -> u64 {
        World::new(seed, true, verbose).pass_by()
    }

    fn pass_by(mut self) -> u64 {
        for _ in 0..400 {
            self.happen();
        }
        self.calm();
        self.trace.finish()
    }

    pub(crate) fn note(&mut self, what: &'static str, about: impl Hash + Debug) {
        (what, self.t).hash(&mut self.trace);
        about.hash(&mut self.trace);
        if self.verbose {
            println!("{:>9} {what} {about:?}", self.t);
        }
    }

    /// Zero to `n - 1` for a fault, `n` or above for none.
    pub(crate) fn fault(&mut self, n: u64) -> u64 {
        if self.faults { self.random.below(n) } else { n }
    }

    /// Between two actions of a process: anything may happen.
    pub(crate) fn pause(&mut self, me: Me) -> Result<(), Dead> {
        if !self.faults {
            self.t += 10;
        } else if self.depth < MAX_DEPTH && self.random.one_in(3) {
            self.happen();
        }
        let stopped = self.stopped_until[me.replica] - self.t;
        if stopped > 0 {
            self.pass(stopped);
        }
        let alive = |world: &World| world.agents[me.replica].as_ref().is_some_and(|agent| agent.life == me.life);
        if self.faults && alive(self) && self.random.one_in(150) {
            self.crash(me.replica);
        }
        if alive(self) { Ok(()) } else { Err(Dead) }
    }

    /// Replicas may stand on nodes that are lost.
    pub(crate) fn lose_disk_perhaps(&mut self, replica: usize) {
        if self.replicas != Replicas::One && self.faults && self.random.one_in(10) {
            self.note("disk lost", replica);
            self.disks[replica] = Journal::default();
            self.disk_lost(replica);
        }
    }

    fn start(&mut self, replica: usize) {
        if self.replicas == Replicas::Elected {
            return self.stand(replica);
        }
        if self.agents[replica].is_some() {
            return;
        }
        self.lose_disk_perhaps(replica);
        if self.faults && self.random.one_in(6) {
            self.limits = draw_limits(&mut self.random);
        }
        self.lives += 1;
        self.note("start", (replica, self.lives, self.limits.cluster, self.limits.namespace));
        self.agents[replica] = Some(Agent::new(self.lives, self.limits));
        self.relist(replica);
    }

    pub(crate) fn crash(&mut self, replica: usize) {
        self.candidates[replica] = None;
        if self.agents[replica].take().is_some() {
            let unsynced = self.disks[replica].unsynced() as u64;
            let lost = self.random.below(unsynced + 1);
            self.disks[replica].crash(lost as usize);
            if lost > 0 {
                self.ledger.sure.clear();
            }
            self.note("crash", (replica, lost));
        }
    }

    fn pass(&mut self, millis: Millis) {
        let until = self.t + millis;
        while let Some((at, replica)) = self.next_turn(until) {
            self.arrive(at);
            self.take_turn(replica);
        }
        self.arrive(until);
    }

    fn arrive(&mut self, at: Millis) {
        self.t = self.t.max(at);
        while let Some(at) = self.late.iter().position(|(at, _)| *at <= self.t) {
            let (_, lands) = self.late.swap_remove(at);
            self.note("late request", at);
            self.is_late = true;
            lands(self);
            self.is_late = false;
        }
    }

    fn happen(&mut self) {
        self.depth += 1;
        let replica = if self.replicas == Replicas::One { 0 } else { self.random.below(2) as usize };
        let elected = self.replicas == Replicas::Elected;
        match self.random.below(200) {
            0..60 => {
                let millis = 20 + self.random.millis(3_000);
                self.pass(millis);
            }
            60..63 => {
                let millis = self.random.millis(150_000);
                self.pass(millis);
            }
            63..93 => {
                let (checks, workflows) = (self.random.below(4), self.random.below(6));
                self.deliver(replica, checks as usize, workflows as usize);
            }
            93..96 => self.relist(replica),
            96..116 if !self.argo_is_down => self.server.argo(self.t),
            116..170 => self.run_one(replica),
            170..173 => self.start(replica),
            173 => self.crash(replica),
            174 => self.api_is_down = !self.api_is_down && self.random.one_in(2),
            175 => self.argo_is_down = !self.argo_is_down,
            176..178 => self.server.collect(),
            178 => {
                let steps = [0, 3_600_000, -3_600_000, 86_400_000, -86_400_000];
                self.wall_offset[replica] = self.random.of(&steps);
                self.note("clock", (replica, self.wall_offset[replica]));
            }
            179..182 if self.agents.iter().all(Option::is_some) => self.crash(replica),
            182..186 => self.user(),
            186..188 if elected => {
                self.stopped_until[replica] = self.t + self.random.millis(60_000);
                self.note("stopped", (replica, self.stopped_until[replica]));
            }
            188 if elected && self.depth == 1 => self.resign(replica),
            189..194 if elected => self.start(replica),
            194..196 if elected => self.api_is_down = false,
            _ => {}
        }
        self.depth -= 1;
    }

    fn user(&mut self) {
        let name = self.random.of(&NAMES);
        match self.random.below(11) {
            0 => {
                self.note("user deletes", name);
                self.server.delete_check(name);
            }
            1 if !self.server.checks.contains_key(name) => self.make_check(name),
            2..4 => self.edit_check(name),
            4 => self.meddle(true),
            5 => self.meddle(false),
            6 => self.squat(name),
            7 => self.ask_for_a_run(name),
            8 => self.edit_option(name),
            _ => {}
        }
    }

    fn make_check(&mut self, name: &str) {
        let spec = self.draw_spec();
        self.put_new_check(name, spec);
    }

    fn put_new_check(&mut self, name: &str, spec: Value) {
        self.uids += 1;
        let uid = format!("u{}", self.uids);
        self.note("user makes", (name, &uid, spec.to_string()));
        let namespace = if name == "b" { "team" } else { "health" };
        self.namespaces.insert(uid.clone(), namespace.to_owned());
        let mut check: HealthCheck = serde_json::from_value(json!({
            "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "generation": 1}, "spec": spec,
        }))
        .unwrap();
        check.metadata.creation_timestamp = Some(Time(whole(self.t)));
        self.server.put_check(check);
    }

    fn edit_check(&mut self, name: &str) {
        let Some(check) = self.server.checks.get(name) else { return };
        let mut check = (**check).clone();
        let uid = check.metadata.uid.clone().unwrap();
        let spec = self.draw_spec();
        self.note("user edits", (name, spec.to_string()));
        check.spec = serde_json::from_value(spec).unwrap();
        check.metadata.generation = check.metadata.generation.map(|generation| generation + 1);
        self.ledger.edited.insert(uid);
        self.server.put_check(check);
    }

    /// Somebody wants a run out of schedule; each time by another value.
    fn ask_for_a_run(&mut self, name: &str) {
        let Some(check) = self.server.checks.get(name) else { return };
        let mut check = (**check).clone();
        let token = format!("at-{}", self.t);
        self.note("user asks for a run", (name, &token));
        check.metadata.annotations.get_or_insert_default().insert(RUN_NOW_ANNOTATION.to_owned(), token);
        self.server.put_check(check);
    }

    /// Somebody changes one of the optional fields, which only a CRD of ours keeps.
    fn edit_option(&mut self, name: &str) {
        let Some(check) = self.server.checks.get(name).filter(|_| self.has_conditions) else { return };
        let mut check = (**check).clone();
        match self.random.below(3) {
            0 => check.spec.suspend = Some(!check.spec.suspend.unwrap_or(false)),
            1 => check.spec.failure_threshold = self.random.of(&[None, Some(1), Some(2), Some(3)]),
            _ => check.spec.success_threshold = self.random.of(&[None, Some(1), Some(2), Some(3)]),
        }
        let spec = &check.spec;
        let options = (spec.suspend, spec.failure_threshold, spec.success_threshold);
        self.note("user edits an option", (name, options));
        check.metadata.generation = check.metadata.generation.map(|generation| generation + 1);
        self.server.put_check(check);
    }

    fn draw_spec(&mut self) -> Value {
        let has_options = self.has_conditions;
        let random = &mut self.random;
        let job = |account: &str, timeout: Option<u64>| {
            json!({"workflowtimeout": timeout,
                "resource": {"namespace": "health", "serviceAccount": account, "source": {"inline": SOURCE}}})
        };
        let timeouts = [None, Some(5), Some(20), Some(45)];
        let mut spec = json!({"workflow": job("probe", random.of(&timeouts))});
        match random.below(12) {
            0 => spec["repeatAfterSec"] = 0.into(),
            1 => spec["schedule"] = json!({"cron": "61 * * * *"}),
            2 => spec["schedule"] = json!({"cron": "* * * * *"}),
            3 => spec["schedule"] = json!({"cron": "CRON_TZ=Europe/Berlin */2 * * * *"}),
            _ => spec["repeatAfterSec"] = random.of(&[15, 30, 60]).into(),
        }
        if random.one_in(6) {
            spec["workflow"]["generateName"] = random.of(&["x-", "y-"]).into();
        }
        if random.one_in(2) {
            spec["remedyworkflow"] = job("mender", random.of(&timeouts));
            spec["remedyRunsLimit"] = random.of(&[json!(null), json!(0), json!(1), json!(2)]);
            spec["remedyResetInterval"] = random.of(&[json!(null), json!(30), json!(120)]);
        }
        if has_options && random.one_in(8) {
            spec["suspend"] = true.into();
        }
        if has_options && random.one_in(3) {
            spec["failureThreshold"] = random.of(&[1, 2, 3]).into();
            spec["successThreshold"] = random.of(&[1, 2, 3]).into();
        }
        spec
    }

    /// Somebody deletes a workflow, or makes one that looks like the agent's.
    fn meddle(&mut self, deletes: bool) {
        let names: Vec<String> = self.server.workflows.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = self.random.of(&names);
        self.note("user meddles", (deletes, &name));
        if deletes {
            self.server.delete(&name);
            return;
        }
        let mut forged = self.server.workflows[&name].clone();
        forged.seen.workflow = format!("health/forged-{}", self.t);
        forged.seen.status = WorkflowStatus {
            phase: WorkflowPhase::Succeeded,
            finished_at: Some(Time(whole(self.t))),
            ..WorkflowStatus::default()
        };
        (forged.by_agent, forged.owned, forged.done_at) = (false, false, Some(self.t));
        self.server.create(forged).ok();
    }

    /// Somebody takes the name that the check's next workflow would get.
    fn squat(&mut self, name: &str) {
        let Some(check) = self.server.checks.get(name) else { return };
        let Ok(check) = active_monitor_core::check::Check::parse(check) else { return };
        let active_monitor_core::check::Timing::Slots(slots) = &check.timing else { return };
        let Some(slot) = slots.next(whole(self.t)) else { return };
        let key = RunKey { check_uid: check.uid.clone(), kind: RunKind::HealthCheck, slot };
        let workflow = format!("health/{}", workflow_name(&check.workflow.prefix, &key));
        self.note("user squats", &workflow);
        let status = WorkflowStatus::default();
        let seen = Seen {
            key,
            workflow,
            created: whole(self.t),
            run_now: None,
            warning: String::new(),
            deadline_seconds: None,
            status,
        };
        let check = check.name;
        let done_at = Some(self.t);
        let (key, by_agent, owned, shutdown) = (None, false, false, false);
        let ends_at = self.t;
        let squatter = Workflow { seen, check, key, by_agent, owned, fate: Fate::Hangs, ends_at, done_at, shutdown };
        self.server.create(squatter).ok();
    }

    pub(crate) fn fate(&mut self) -> (Fate, Millis) {
        let ends_at = self.t + 300 + self.random.millis(15_000);
        let fate = match self.random.below(20) {
            0..11 => Fate::Succeeds,
            11..16 => Fate::Fails,
            16 => Fate::Errs,
            17..19 => Fate::Hangs,
            _ if self.faults => Fate::Waits,
            _ => Fate::Succeeds,
        };
        (fate, ends_at)
    }

    pub(crate) fn get(&mut self, name: &str) -> Result<(Seen, Option<RunKey>), Refusal> {
        let found = self.server.workflows.get(name).ok_or(Refusal::NotFound)?;
        Ok((found.seen.clone(), found.key.clone()))
    }

    pub(crate) fn store_workflow(&mut self, workflow: Workflow) -> Result<Seen, Refusal> {
        // An admission policy that refuses some.
        if self.fault(60) == 0 {
            return Err(Refusal::Forbidden);
        }
        let key = workflow.key.clone().unwrap();
        let (name, token) = (workflow.seen.workflow.clone(), workflow.seen.run_now.clone());
        self.note("create", (&name, &key, &token, workflow.fate));
        let seen = self.server.create(workflow)?;
        self.created(&key, &name, token.as_deref());
        Ok(seen)
    }

    pub(crate) fn store_status(
        &mut self,
        name: &str,
        uid: &str,
        version: u64,
        status: HealthCheckStatus,
    ) -> Result<u64, Refusal> {
        let before = self.server.checks.get(name).and_then(|check| check.status.clone()).unwrap_or_default();
        let counters = (status.success_count, status.failed_count, status.remedy_total_runs);
        let answer = self.server.patch_status(name, uid, version, status.clone());
        self.note("status", (name, uid, counters, status.status.clone(), answer));
        if answer.is_ok() {
            self.status_changed(uid, &before, &status);
        }
        answer
    }

    pub(crate) fn shut_down(&mut self, name: &str) -> Result<(), Refusal> {
        self.note("shut down", name);
        let workflow = self.server.workflows.get_mut(name).ok_or(Refusal::NotFound)?;
        assert!(workflow.by_agent, "{name} is not the agent's to stop");
        workflow.shutdown = true;
        Ok(())
    }

    /// No faults any more: everything works, and what must come, comes.
    fn calm(&mut self) {
        self.note("calm", 0);
        self.faults = false;
        (self.api_is_down, self.argo_is_down) = (false, false);
        self.wall_offset = [0, 0];
        for workflow in self.server.workflows.values_mut().filter(|workflow| workflow.fate == Fate::Waits) {
            workflow.fate = Fate::Succeeds;
        }
        if self.replicas == Replicas::Elected {
            self.stopped_until = [0, 0];
            self.start(0);
            self.start(1);
        } else if self.agents.iter().all(Option::is_some) {
            self.crash(1);
        } else if self.agents.iter().all(Option::is_none) {
            self.start(0);
        }
        self.calm_began();
        while self.someone_waits() {
            self.tick(1_000);
        }
        self.everything_ran();
        for name in NAMES {
            self.server.delete_check(name);
        }
        for _ in 0..80 {
            self.tick(10_000);
        }
        self.nothing_is_left();
    }

    fn tick(&mut self, millis: Millis) {
        self.pass(millis);
        self.server.argo(self.t);
        self.server.collect();
        for replica in [0, 1] {
            self.deliver(replica, usize::MAX, usize::MAX);
            for _ in 0..60 {
                if self.agents[replica].as_ref().is_none_or(|agent| !agent.is_due(self.t)) {
                    break;
                }
                self.run_one(replica);
                self.deliver(replica, usize::MAX, usize::MAX);
            }
        }
    }
}
