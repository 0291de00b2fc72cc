//! The agent's process, its disk and its cluster; the hub's process and its disk; the connections between them. The agent's disk
//! may be lost with what no ack covers.
//!
//! Neither end knows at once that a connection is gone: for a while an agent may speak to nobody, and the hub may hear the
//! last words of a connection behind the first ones of the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{check, report, welcome};
use crate::command::{Answer, Command, Order, Scope};
use crate::fleet::{Change, Fleet, KnownCluster, Said};
use crate::random::Random;
use crate::run::RunKey;
use crate::session::agent::{self, AgentSession, CloseReason, Identity, JournalState, Now};
use crate::session::frame::{AgentFrame, Counted, Definition, DefinitionResult, DefinitionStatus, HubFrame, Report};
use crate::session::hub::{self, HubSession};
use crate::state::CheckState;

/// The cluster's name.
const CLUSTER: &str = "c1";
/// Connections that the hub may hold at a time.
const MAX_LINES: usize = 5;

pub(super) fn identity(incarnation: u64) -> Identity {
    Identity {
        cluster: CLUSTER.into(),
        cluster_uid: "uid".into(),
        incarnation: incarnation.to_string(),
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.33.0".into(),
        journal_id: "j".into(),
        policy: Vec::new(),
    }
}

/// What the hub is to have on its disk.
pub(super) enum Commit {
    Reports(Vec<Report>, u64),
    Lacking(Vec<Counted>),
}

/// A connection, and what the hub has of it.
#[derive(Default)]
pub(super) struct Line {
    /// Absent once the hub knows that it has ended.
    hub: Option<HubSession>,
    epoch: Option<u64>,
    /// The network holds back what was sent until a newer connection is there.
    held: bool,
    /// Recorded in turn; what is not on the disk when the hub dies is gone.
    pub(super) commits: VecDeque<Commit>,
    /// People who wait for what became of their command: they are answered, or told that the session ended.
    waiting: BTreeSet<String>,
    pub(super) to_hub: VecDeque<AgentFrame>,
    pub(super) to_agent: VecDeque<HubFrame>,
}

pub(super) struct World {
    random: Random,
    elapsed: Duration,

    pub(super) agent: AgentSession,
    incarnations: u64,
    dial_at: Option<Duration>,
    pub(super) journal: VecDeque<Report>,
    pub(super) next_seq: u64,
    /// What the agent's journal lacks and the hub may not have heard of.
    pub(super) lacking: Vec<Counted>,
    /// What was in a journal when that was lost; what was under way may come all the same.
    pub(super) lost: BTreeSet<RunKey>,
    pub(super) cluster: BTreeMap<String, Arc<CheckState>>,
    versions: u64,
    pub(super) applied: Vec<Definition>,
    obeying: VecDeque<Command>,
    obeyed: BTreeSet<String>,

    fleet: Fleet,
    pub(super) max_unacked: u32,
    pub(super) recorded: BTreeMap<RunKey, u64>,
    highest_recorded: u64,
    /// What the hub has compared with its history, and where it found a gap.
    compared: BTreeSet<Timestamp>,
    pub(super) gaps: BTreeSet<Timestamp>,
    pub(super) meant: Vec<Definition>,
    pub(super) statuses: Vec<DefinitionStatus>,
    /// Numbers the commands.
    asked: u64,
    pub(super) answered: u64,
    /// Words that came behind the first ones of a newer connection.
    pub(super) late: u64,

    /// By their order.
    lines: BTreeMap<u64, Line>,
    lines_made: u64,
    /// The one that the agent takes for its connection.
    line: Option<u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let max_unacked = 1 + u32::try_from(random.below(600)).unwrap();
        let journal_state = JournalState { oldest_seq: 1, next_seq: 1, backlog: 0, dropped: 0 };
        let mut fleet = Fleet::new(Timestamp::UNIX_EPOCH, Duration::from_secs(15), "0.1.0");
        let known = KnownCluster { name: CLUSTER.into(), cluster_uid: Some("uid".into()), ..KnownCluster::default() };
        fleet.apply(Timestamp::UNIX_EPOCH, Change::Cluster(known));
        let mut world = World {
            random,
            elapsed: Duration::ZERO,
            agent: AgentSession::new(identity(0), journal_state),
            incarnations: 1,
            dial_at: Some(Duration::ZERO),
            journal: VecDeque::new(),
            next_seq: 1,
            lacking: Vec::new(),
            lost: BTreeSet::new(),
            cluster: BTreeMap::new(),
            versions: 0,
            applied: Vec::new(),
            obeying: VecDeque::new(),
            obeyed: BTreeSet::new(),
            fleet,
            max_unacked,
            recorded: BTreeMap::new(),
            highest_recorded: 0,
            compared: BTreeSet::new(),
            gaps: BTreeSet::new(),
            meant: Vec::new(),
            statuses: Vec::new(),
            asked: 0,
            answered: 0,
            late: 0,
            lines: BTreeMap::new(),
            lines_made: 0,
            line: None,
        };
        world.tell_agent(agent::Input::ChecksKnown);
        world
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic: self.elapsed, wall: Timestamp::UNIX_EPOCH + self.elapsed }
    }

    pub(super) fn journal_state(&self) -> JournalState {
        let oldest_seq = self.journal.front().map_or(self.next_seq, |report| report.seq);
        JournalState { oldest_seq, next_seq: self.next_seq, backlog: self.journal.len() as u64, dropped: 0 }
    }

    /// The agent's connection.
    pub(super) fn connection(&mut self) -> &mut Line {
        let line = self.line.expect("the agent is connected");
        self.lines.get_mut(&line).expect("its connection")
    }

    /// What the hub shows of the cluster.
    pub(super) fn shown(&self) -> BTreeMap<String, CheckState> {
        let checks = &self.fleet.view().clusters[CLUSTER].checks;
        checks.values().map(|check| (check.state.uid.clone(), check.state.clone())).collect()
    }

    /// Runs that nobody will report any more.
    pub(super) fn missing(&self) -> impl Iterator<Item = &RunKey> {
        self.lost.iter().filter(|key| !self.recorded.contains_key(key))
    }

    /// People who have heard nothing of their command.
    pub(super) fn waiting(&self) -> usize {
        self.lines.values().map(|line| line.waiting.len()).sum()
    }

    pub(super) fn tell_agent(&mut self, input: agent::Input) {
        let outputs = self.agent.handle(self.now(), input);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<agent::Output>) {
        for output in outputs {
            match output {
                agent::Output::Load { after_seq, max } => {
                    let later = self.journal.iter().filter(|report| report.seq > after_seq);
                    let reports = later.take(max).cloned().collect();
                    self.tell_agent(agent::Input::Loaded(reports));
                }
                agent::Output::Truncate(seq) => {
                    while self.journal.front().is_some_and(|report| report.seq <= seq) {
                        let report = self.journal.pop_front().unwrap();
                        assert!(self.recorded.contains_key(&report.run.key), "{} acked, not recorded", report.seq);
                    }
                    self.tell_agent(agent::Input::Journal(self.journal_state()));
                }
                agent::Output::ApplyDefinitions { nonce, definitions } => {
                    let status = |definition: &Definition| DefinitionStatus {
                        name: definition.name.clone(),
                        generation: definition.generation,
                        result: DefinitionResult::Applied,
                        message: String::new(),
                    };
                    let statuses = definitions.iter().map(status).collect();
                    self.applied = definitions;
                    self.tell_agent(agent::Input::DefinitionsDone { nonce, statuses });
                }
                agent::Output::LackingKnown(runs) => {
                    assert!(
                        runs.iter().all(|run| self.compared.contains(&run.mark)),
                        "the hub has not heard of {runs:?}"
                    );
                    self.lacking.retain(|run| !runs.contains(run));
                }
                agent::Output::Obey(command) => self.obeying.push_back(command),
                agent::Output::Remember(_) => {}
                agent::Output::Close(CloseReason::NoWelcome | CloseReason::Unread | CloseReason::GoAway(_)) => {
                    self.agent_ends()
                }
                agent::Output::Close(reason) => panic!("the agent closed: {reason}"),
                agent::Output::DialAt(at) => self.dial_at = Some(at),
            }
        }
    }

    fn tell_hub(&mut self, id: u64, input: hub::Input) {
        let Some(session) = self.lines.get_mut(&id).and_then(|line| line.hub.as_mut()) else { return };
        for output in session.handle(input) {
            let Some(line) = self.lines.get_mut(&id) else { return };
            match output {
                hub::Output::Send(frame) => line.to_agent.push_back(frame),
                hub::Output::Register(hello) => {
                    let now = Timestamp::UNIX_EPOCH + self.elapsed;
                    line.epoch = self.fleet.open(now, &hello).0.ok();
                    self.tell_hub(id, hub::Input::Accepted(welcome(self.max_unacked)));
                }
                hub::Output::Snapshot(checks) => self.say(id, Said::Snapshot { checks, last: true }),
                hub::Output::Upsert(state) => self.say(id, Said::Upsert(state)),
                hub::Output::Removed(uid) => self.say(id, Said::Removed(uid)),
                hub::Output::Heartbeat(beat) => self.say(id, Said::Heartbeat(beat)),
                hub::Output::Record { reports, through_seq } => {
                    line.commits.push_back(Commit::Reports(reports, through_seq));
                }
                hub::Output::SelfTested(_) => {}
                hub::Output::Lacking(runs) => line.commits.push_back(Commit::Lacking(runs)),
                hub::Output::DefinitionsStatus(statuses) => self.keep(id, statuses),
                hub::Output::Answered(answer) => {
                    self.answered += u64::from(answer.verdict.is_ok());
                    assert!(line.waiting.remove(&answer.id), "nobody waits for {answer:?}");
                }
                hub::Output::DefinitionsTooLarge { .. } => panic!("the definitions of this test are small"),
                hub::Output::End(None) => self.hub_ends(id),
                hub::Output::End(Some(error)) => panic!("the hub ended the session: {error}"),
            }
        }
    }

    /// Whether the hub takes this connection for the cluster's.
    fn is_open(&self, id: u64) -> bool {
        let epoch = self.lines[&id].epoch;
        epoch.is_some() && self.fleet.open_epoch(CLUSTER) == epoch
    }

    fn keep(&mut self, id: u64, statuses: Vec<DefinitionStatus>) {
        if self.is_open(id) {
            self.statuses = statuses;
        } else {
            self.late += 1;
        }
    }

    fn say(&mut self, id: u64, what: Said) {
        self.late += u64::from(!self.is_open(id));
        let Some(epoch) = self.lines[&id].epoch else { return };
        let before = self.shown();
        self.fleet.apply(self.now().wall, Change::Said { cluster: CLUSTER.into(), epoch, what });
        for (uid, state) in self.shown() {
            let earlier = before.get(&uid).map_or(0, |before| before.check.succeeded);
            assert!(state.check.succeeded >= earlier, "{uid} went back from {earlier} to {}", state.check.succeeded);
        }
    }

    pub(super) fn dial(&mut self) {
        let is_time = self.dial_at.is_some_and(|at| at <= self.elapsed);
        if self.line.is_some() || !is_time || self.lines.len() >= MAX_LINES {
            return;
        }
        self.dial_at = None;
        let id = self.lines_made;
        self.lines_made += 1;
        self.line = Some(id);
        self.lines.insert(id, Line { hub: Some(HubSession::new(CLUSTER.into())), ..Line::default() });
        self.tell_hub(id, hub::Input::PushDefinitions(self.meant.clone()));
        self.tell_agent(agent::Input::Connected);
    }

    fn wait_and_dial(&mut self) {
        let wait = self.dial_at.map_or(Duration::ZERO, |at| at.saturating_sub(self.elapsed));
        self.pass(wait);
        self.dial();
    }

    /// The agent gives its connection up, or learns that it is gone. What it has sent is under way all the same.
    fn agent_ends(&mut self) {
        if self.line.take().is_some() {
            self.tell_agent(agent::Input::Disconnected { jitter: 0.5 });
        }
        self.sweep();
    }

    /// The hub's end of a connection is gone: who waits is told so, and what is not committed is nobody's to ack.
    fn hub_ends(&mut self, id: u64) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if line.hub.take().is_none() {
            return;
        }
        line.to_hub.clear();
        line.waiting.clear();
        if let Some(epoch) = line.epoch {
            let what = Said::Closed;
            self.fleet.apply(self.now().wall, Change::Said { cluster: CLUSTER.into(), epoch, what });
        }
        self.sweep();
    }

    /// What neither end knows of any more is forgotten.
    fn sweep(&mut self) {
        let current = self.line;
        self.lines.retain(|id, line| Some(*id) == current || line.hub.is_some());
    }

    /// Both ends learn at once that the connection is gone, and what is in the wire is lost.
    fn cut(&mut self) {
        if let Some(id) = self.line {
            self.hub_ends(id);
            self.agent_ends();
        }
    }

    /// The network begins to hold back what is on the agent's connection.
    fn hold(&mut self) {
        if self.line.is_some() {
            self.connection().held = true;
        }
    }

    /// The agent learns that the hub is no longer there, once it has read what came before.
    fn learn(&mut self) {
        let is_gone = |line: &Line| line.hub.is_none() && line.to_agent.is_empty();
        if self.line.is_some_and(|id| is_gone(&self.lines[&id])) {
            self.agent_ends();
        }
    }

    /// The hub has heard of a newer connection, and ends one that came before.
    fn evict(&mut self) {
        let Some(open) = self.fleet.open_epoch(CLUSTER) else { return };
        let is_replaced = |line: &Line| line.epoch.is_some_and(|epoch| epoch < open) && line.hub.is_some();
        if let Some(id) = self.lines.iter().find(|(_, line)| is_replaced(line)).map(|(id, _)| *id) {
            self.tell_hub(id, hub::Input::GoAway { reason: "replaced".into(), retry_after_ms: 1000 });
        }
    }

    pub(super) fn send(&mut self) {
        if self.line.is_some() && self.agent.wants_to_send(self.now()) {
            let (frame, outputs) = self.agent.next_frame(self.now());
            self.connection().to_hub.push_back(frame.unwrap());
            self.carry_out(outputs);
        }
    }

    /// One of the connections, and not always the newest.
    fn any_line(&mut self) -> Option<u64> {
        let nth = self.random.below(self.lines.len().max(1) as u64);
        self.lines.keys().nth(usize::try_from(nth).unwrap()).copied()
    }

    fn commit(&mut self, id: u64) {
        let seq = match self.lines.get_mut(&id).and_then(|line| line.commits.pop_front()) {
            None => return,
            Some(Commit::Reports(reports, seq)) => {
                self.record(reports);
                seq
            }
            Some(Commit::Lacking(runs)) => {
                self.compare(&runs);
                0
            }
        };
        self.tell_hub(id, hub::Input::Committed { seq });
    }

    fn record(&mut self, reports: Vec<Report>) {
        for report in reports {
            let is_late = self.lost.contains(&report.run.key);
            if let Some(first) = self.recorded.insert(report.run.key, report.seq) {
                assert_eq!(first, report.seq, "one run under two numbers");
            } else if !is_late {
                assert!(report.seq > self.highest_recorded, "{} after {}", report.seq, self.highest_recorded);
                self.highest_recorded = report.seq;
            }
        }
    }

    /// As the store does.
    fn compare(&mut self, runs: &[Counted]) {
        let last = self.recorded.keys().map(|key| key.slot).max();
        for Counted { mark, .. } in runs {
            self.compared.insert(*mark);
            if last.is_none_or(|last| last < *mark) {
                self.gaps.insert(*mark);
            }
        }
    }

    fn deliver_of(&mut self, id: u64) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let (frame, answer) = (line.to_hub.pop_front(), line.to_agent.pop_front());
        if let Some(frame) = frame {
            self.tell_hub(id, hub::Input::Frame(frame));
        }
        // What comes on a connection that the agent has given up is read by nobody.
        if let Some(frame) = answer.filter(|_| self.line == Some(id)) {
            self.tell_agent(agent::Input::Frame(frame));
        }
    }

    fn deliver_some(&mut self) {
        if let Some(id) = self.any_line()
            && !(self.lines[&id].held && self.is_open(id))
        {
            self.deliver_of(id);
        }
    }

    /// What is under way on the agent's connection goes on.
    pub(super) fn deliver(&mut self) {
        if let Some(id) = self.line {
            self.deliver_of(id);
        }
    }

    fn change_checks(&mut self) {
        let uid = format!("check-{}", self.random.below(250));
        if self.random.below(4) == 0 {
            if self.cluster.remove(&uid).is_some() {
                self.tell_agent(agent::Input::CheckRemoved(uid));
            }
        } else {
            self.versions += 1;
            let state = Arc::new(check(&uid, self.versions));
            self.cluster.insert(uid, Arc::clone(&state));
            self.tell_agent(agent::Input::CheckChanged(state));
        }
    }

    fn end_runs(&mut self) {
        for _ in 0..self.random.below(40) {
            self.journal.push_back(report(self.next_seq));
            self.next_seq += 1;
        }
        self.tell_agent(agent::Input::Journal(self.journal_state()));
    }

    fn push(&mut self) {
        let generation = self.elapsed.as_millis() as u64 + 1;
        let definition = |n| Definition { name: format!("d{n}"), generation, health_check: "{}".into() };
        self.meant = (0..self.random.below(4)).map(definition).collect();
        for id in self.lines.keys().copied().collect::<Vec<_>>() {
            self.tell_hub(id, hub::Input::PushDefinitions(self.meant.clone()));
        }
    }

    fn ask(&mut self) {
        self.asked += 1;
        let id = self.asked.to_string();
        let Some(open) = self.lines.keys().copied().find(|id| self.is_open(*id)) else { return };
        if let Some(line) = self.lines.get_mut(&open) {
            line.waiting.insert(id.clone());
        }
        self.tell_hub(open, hub::Input::Command(Command { id, scope: Scope::default(), order: Order::RunNow }));
    }

    fn obey(&mut self) {
        let Some(Command { id, .. }) = self.obeying.pop_front() else { return };
        assert!(self.obeyed.insert(id.clone()), "command {id} is obeyed twice");
        self.tell_agent(agent::Input::Obeyed(Answer { id, verdict: Ok(String::new()) }));
    }

    /// The hub learns of it at once, or later, when it has read what was under way.
    fn crash_agent(&mut self) {
        if self.random.below(2) == 0 {
            self.cut();
        } else {
            self.agent_ends();
        }
        self.obeying.clear();
        self.agent = AgentSession::new(identity(self.incarnations), self.journal_state());
        self.incarnations += 1;
        for state in self.cluster.clone().into_values() {
            self.tell_agent(agent::Input::CheckChanged(state));
        }
        self.tell_agent(agent::Input::Lacking(self.lacking.clone()));
        self.tell_agent(agent::Input::ChecksKnown);
        self.dial_at = Some(self.elapsed);
    }

    /// The statuses count what the journal had, and the next one lacks it.
    fn lose_journal(&mut self) {
        // Of all that ever ran, whether the hub has it or not.
        let ran = self.journal.iter().map(|report| &report.run.key).chain(&self.lost).chain(self.recorded.keys());
        let Some(last) = ran.max_by_key(|key| key.slot) else { return };
        self.lacking = vec![Counted { check_uid: last.check_uid.clone(), mark: last.slot }];
        self.lost.extend(self.journal.drain(..).map(|report| report.run.key));
        self.crash_agent();
    }

    /// The hub dies: what it had not committed is gone with it. The agent learns of it at once, or later.
    fn crash_hub(&mut self) {
        for id in self.lines.keys().copied().collect::<Vec<_>>() {
            self.hub_ends(id);
        }
        for line in self.lines.values_mut() {
            line.commits.clear();
        }
        if self.random.below(2) == 0 {
            self.agent_ends();
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.elapsed += time;
        if self.agent.deadline().is_some_and(|at| at <= self.elapsed) {
            self.tell_agent(agent::Input::Tick);
        }
    }

    pub(super) fn step(&mut self) {
        match self.random.below(100) {
            0..25 => self.send(),
            25..50 => self.deliver_some(),
            50..65 => drop(self.any_line().map(|id| self.commit(id))),
            65..80 => self.change_checks(),
            80..85 => self.end_runs(),
            85..87 => self.push(),
            87 => self.ask(),
            88 => self.obey(),
            89..91 => self.pass(Duration::from_millis(700)),
            91..94 => self.wait_and_dial(),
            94 => self.evict(),
            95 => self.learn(),
            96 if self.random.below(2) == 0 => self.hold(),
            96 => self.agent_ends(),
            97 => self.cut(),
            98 => drop(self.any_line().map(|id| self.hub_ends(id))),
            _ if self.random.below(2) == 0 => self.crash_hub(),
            _ if self.random.below(8) == 0 => self.lose_journal(),
            _ => self.crash_agent(),
        }
    }

    /// No faults any more: everything that can happen happens, in turns.
    pub(super) fn calm(&mut self) {
        for turn in 0..20_000 {
            if turn % 1000 == 500 {
                self.ask();
                self.end_runs();
            }
            self.evict();
            self.learn();
            self.dial();
            self.send();
            for id in self.lines.keys().copied().collect::<Vec<_>>() {
                self.deliver_of(id);
                self.commit(id);
            }
            self.obey();
            self.pass(Duration::from_millis(10));
        }
    }
}
