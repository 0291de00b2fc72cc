//! Both ends of the session against each other, with every fault that a network and two processes have, in an order that
//! a seed decides. What must hold is checked at each step, and after the faults the hub must know everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::agent::{self, AgentSession, Identity, JournalState, Now};
use super::frame::{AgentFrame, Definition, DefinitionResult, DefinitionStatus, Hello, HubFrame, Report, Welcome};
use super::hub::{self, HubSession};
use crate::command::{Answer, Command, Order, Scope};
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

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn identity(incarnation: u64) -> Identity {
    Identity {
        cluster: "c1".into(),
        cluster_uid: "uid".into(),
        incarnation: incarnation.to_string(),
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.33.0".into(),
        journal_id: "j".into(),
    }
}

/// The agent's process, its disk and its cluster; the hub's process and its disk; the network between them.
struct World {
    random: Random,
    elapsed: Duration,

    agent: AgentSession,
    incarnations: u64,
    dial_at: Option<Duration>,
    journal: VecDeque<Report>,
    next_seq: u64,
    cluster: BTreeMap<String, Arc<CheckState>>,
    versions: u64,
    applied: Vec<Definition>,

    hub: Option<HubSession>,
    max_unacked: u32,
    commits: VecDeque<(Vec<Report>, u64)>,
    recorded: BTreeMap<RunKey, u64>,
    highest_recorded: u64,
    view: BTreeMap<String, CheckState>,
    meant: Vec<Definition>,
    statuses: Vec<DefinitionStatus>,
    /// Numbers the commands.
    asked: u64,
    /// People who wait for what became of their command: they are answered, or told that the session ended.
    waiting: BTreeSet<String>,
    obeying: VecDeque<Command>,
    obeyed: BTreeSet<String>,
    answered: u64,

    to_hub: VecDeque<AgentFrame>,
    to_agent: VecDeque<HubFrame>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let max_unacked = 1 + u32::try_from(random.below(600)).unwrap();
        let journal_state = JournalState { oldest_seq: 1, next_seq: 1, backlog: 0, dropped: 0 };
        let mut world = World {
            random,
            elapsed: Duration::ZERO,
            agent: AgentSession::new(identity(0), journal_state),
            incarnations: 1,
            dial_at: Some(Duration::ZERO),
            journal: VecDeque::new(),
            next_seq: 1,
            cluster: BTreeMap::new(),
            versions: 0,
            applied: Vec::new(),
            hub: None,
            max_unacked,
            commits: VecDeque::new(),
            recorded: BTreeMap::new(),
            highest_recorded: 0,
            view: BTreeMap::new(),
            meant: Vec::new(),
            statuses: Vec::new(),
            asked: 0,
            waiting: BTreeSet::new(),
            obeying: VecDeque::new(),
            obeyed: BTreeSet::new(),
            answered: 0,
            to_hub: VecDeque::new(),
            to_agent: VecDeque::new(),
        };
        world.tell_agent(agent::Input::ChecksKnown);
        world
    }

    fn now(&self) -> Now {
        Now { monotonic: self.elapsed, wall: Timestamp::UNIX_EPOCH + self.elapsed }
    }

    fn journal_state(&self) -> JournalState {
        let oldest_seq = self.journal.front().map_or(self.next_seq, |report| report.seq);
        JournalState { oldest_seq, next_seq: self.next_seq, backlog: self.journal.len() as u64, dropped: 0 }
    }

    fn tell_agent(&mut self, input: agent::Input) {
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
                agent::Output::Obey(command) => self.obeying.push_back(command),
                agent::Output::Remember(_) => {}
                agent::Output::Close(reason) => panic!("the agent closed: {reason}"),
                agent::Output::DialAt(at) => self.dial_at = Some(at),
            }
        }
    }

    fn tell_hub(&mut self, input: hub::Input) {
        let Some(session) = &mut self.hub else { return };
        for output in session.handle(input) {
            match output {
                hub::Output::Send(frame) => self.to_agent.push_back(frame),
                hub::Output::Register(_) => self.tell_hub(hub::Input::Accepted(welcome(self.max_unacked))),
                hub::Output::Snapshot(checks) => {
                    self.view = checks.into_iter().map(|state| (state.uid.clone(), state)).collect();
                }
                hub::Output::Upsert(state) => drop(self.view.insert(state.uid.clone(), *state)),
                hub::Output::Removed(uid) => drop(self.view.remove(&uid)),
                hub::Output::Record { reports, through_seq } => self.commits.push_back((reports, through_seq)),
                hub::Output::Heartbeat(_) | hub::Output::SelfTested(_) => {}
                hub::Output::DefinitionsStatus(statuses) => self.statuses = statuses,
                hub::Output::Answered(answer) => {
                    self.answered += u64::from(answer.verdict.is_ok());
                    assert!(self.waiting.remove(&answer.id), "nobody waits for {answer:?}");
                }
                hub::Output::DefinitionsTooLarge { .. } => panic!("the definitions of this test are small"),
                hub::Output::End(error) => panic!("the hub ended the session: {error:?}"),
            }
        }
    }

    fn dial(&mut self) {
        if self.hub.is_some() || self.dial_at.is_none_or(|at| at > self.elapsed) {
            return;
        }
        self.dial_at = None;
        self.hub = Some(HubSession::new("c1".into()));
        self.tell_hub(hub::Input::PushDefinitions(self.meant.clone()));
        self.tell_agent(agent::Input::Connected);
    }

    /// What is in the wires is lost, and what the hub has not yet committed is nobody's to ack.
    fn cut(&mut self) {
        self.to_hub.clear();
        self.to_agent.clear();
        self.waiting.clear();
        if self.hub.take().is_some() {
            self.tell_agent(agent::Input::Disconnected { jitter: 0.5 });
        }
    }

    fn send(&mut self) {
        if self.agent.wants_to_send(self.now()) {
            let (frame, outputs) = self.agent.next_frame(self.now());
            self.to_hub.push_back(frame.unwrap());
            self.carry_out(outputs);
        }
    }

    fn commit(&mut self) {
        let Some((reports, seq)) = self.commits.pop_front() else { return };
        for report in reports {
            if let Some(first) = self.recorded.insert(report.run.key, report.seq) {
                assert_eq!(first, report.seq, "one run under two numbers");
            } else {
                assert!(report.seq > self.highest_recorded, "{} after {}", report.seq, self.highest_recorded);
                self.highest_recorded = report.seq;
            }
        }
        self.tell_hub(hub::Input::Committed { seq });
    }

    fn deliver(&mut self) {
        if let Some(frame) = self.to_hub.pop_front() {
            self.tell_hub(hub::Input::Frame(frame));
        }
        if let Some(frame) = self.to_agent.pop_front() {
            self.tell_agent(agent::Input::Frame(frame));
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
        let definition = |n| Definition { name: format!("d{n}"), generation: 1, health_check: "{}".into() };
        self.meant = (0..self.random.below(4)).map(definition).collect();
        self.tell_hub(hub::Input::PushDefinitions(self.meant.clone()));
    }

    fn ask(&mut self) {
        self.asked += 1;
        let id = self.asked.to_string();
        if self.hub.is_some() {
            self.waiting.insert(id.clone());
        }
        self.tell_hub(hub::Input::Command(Command { id, scope: Scope::default(), order: Order::RunNow }));
    }

    fn obey(&mut self) {
        let Some(Command { id, .. }) = self.obeying.pop_front() else { return };
        assert!(self.obeyed.insert(id.clone()), "command {id} is obeyed twice");
        self.tell_agent(agent::Input::Obeyed(Answer { id, verdict: Ok(String::new()) }));
    }

    fn crash_agent(&mut self) {
        self.cut();
        self.obeying.clear();
        self.agent = AgentSession::new(identity(self.incarnations), self.journal_state());
        self.incarnations += 1;
        for state in self.cluster.clone().into_values() {
            self.tell_agent(agent::Input::CheckChanged(state));
        }
        self.tell_agent(agent::Input::ChecksKnown);
        self.dial_at = Some(self.elapsed);
    }

    fn pass(&mut self, time: Duration) {
        self.elapsed += time;
        if self.agent.deadline().is_some_and(|at| at <= self.elapsed) {
            self.tell_agent(agent::Input::Tick);
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..25 => self.send(),
            25..50 => self.deliver(),
            50..65 => self.commit(),
            65..80 => self.change_checks(),
            80..86 => self.end_runs(),
            86..88 => self.push(),
            88 => self.ask(),
            89 => self.obey(),
            90..92 => self.pass(Duration::from_millis(700)),
            92..97 => self.dial(),
            97 => self.cut(),
            98 => {
                // The hub dies: what it had not committed is gone with it.
                self.commits.clear();
                self.cut();
            }
            _ => self.crash_agent(),
        }
    }

    /// No faults any more: everything that can happen happens, in turns.
    fn calm(&mut self) {
        for turn in 0..20_000 {
            if turn % 1000 == 500 {
                self.ask();
            }
            self.dial();
            self.send();
            self.deliver();
            self.commit();
            self.obey();
            self.pass(Duration::from_millis(10));
        }
    }
}

#[test]
fn whatever_happens_the_hub_knows_everything_once_it_ends() {
    let mut answered = 0;
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
        }
        world.calm();
        assert_eq!(world.recorded.len() as u64, world.next_seq - 1, "seed {seed}");
        assert!(world.journal.is_empty(), "seed {seed}");
        let truth: BTreeMap<_, _> = world.cluster.iter().map(|(uid, state)| (uid.clone(), (**state).clone())).collect();
        assert_eq!(world.view, truth, "seed {seed}");
        assert_eq!(world.applied, world.meant, "seed {seed}");
        assert_eq!(world.statuses.len(), world.meant.len(), "seed {seed}");
        assert!(world.waiting.is_empty(), "seed {seed}: {:?} were never told", world.waiting);
        answered += world.answered;
    }
    assert!(answered > 60 * 18, "{answered} commands were answered");
}

#[test]
fn a_backlog_does_not_hide_what_happens() {
    let mut world = World::new(1);
    world.max_unacked = 4096;
    world.next_seq = 5001;
    world.journal = (1..=5000).map(report).collect();
    world.tell_agent(agent::Input::Journal(world.journal_state()));
    world.dial();
    while !world.to_hub.iter().any(|frame| matches!(frame, AgentFrame::Reports { .. })) {
        world.send();
        if !world.agent.is_live() {
            world.deliver();
        }
    }
    world.to_hub.clear();
    world.tell_agent(agent::Input::CheckChanged(Arc::new(check("late", 1))));
    world.pass(Duration::from_secs(6));
    for _ in 0..3 {
        world.send();
    }
    assert!(matches!(world.to_hub[0], AgentFrame::Heartbeat(_)));
    assert!(matches!(world.to_hub[1], AgentFrame::CheckUpsert(_)));
    assert!(matches!(world.to_hub[2], AgentFrame::Reports { .. }));
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
    let under_way: usize = world.commits.iter().map(|(reports, _)| reports.len()).sum();
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
    assert_eq!(world.to_hub, [AgentFrame::CheckUpsert(Box::new(check("busy", 999)))]);
    assert!(!world.agent.wants_to_send(world.now()));
}

mod agent_alone {
    use super::*;
    use crate::command::Layer;
    use crate::self_test::{SelfTest, SelfTestOutcome};
    use agent::{CloseReason, Input, Output};

    fn now(seconds: u64) -> Now {
        Now { monotonic: Duration::from_secs(seconds), wall: Timestamp::UNIX_EPOCH }
    }

    fn greeted() -> AgentSession {
        let journal = JournalState { oldest_seq: 1, next_seq: 1, backlog: 0, dropped: 0 };
        let mut session = AgentSession::new(identity(0), journal);
        assert_eq!(session.handle(now(0), Input::Connected), []);
        assert!(matches!(session.next_frame(now(0)).0, Some(AgentFrame::Hello(_))));
        session
    }

    #[test]
    fn failures_in_a_row_wait_longer_and_a_session_that_lasted_ends_the_row() {
        let mut session = greeted();
        let wait = |session: &mut AgentSession, at, jitter| match session
            .handle(now(at), Input::Disconnected { jitter })[..]
        {
            [Output::DialAt(until)] => until - now(at).monotonic,
            ref other => panic!("{other:?}"),
        };
        assert_eq!(wait(&mut session, 0, 0.0), Duration::from_millis(250));
        assert_eq!(wait(&mut session, 0, 1.0), Duration::from_millis(1000));
        for _ in 0..100 {
            wait(&mut session, 0, 1.0);
        }
        assert_eq!(wait(&mut session, 0, f64::NAN), Duration::from_secs(30));
        session.handle(now(100), Input::Connected);
        session.next_frame(now(100));
        session.handle(now(100), Input::Frame(HubFrame::Welcome(welcome(1))));
        assert_eq!(wait(&mut session, 116, 1.0), Duration::from_millis(500));
    }

    #[test]
    fn an_agent_that_does_not_know_its_checks_yet_says_only_that_it_lives() {
        let mut session = greeted();
        session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
        session.handle(now(0), Input::Journal(JournalState { oldest_seq: 1, next_seq: 2, backlog: 1, dropped: 0 }));
        session.handle(now(0), Input::Loaded(vec![report(1)]));
        session.handle(now(0), Input::CheckChanged(Arc::new(check("a", 1))));
        assert!(!session.wants_to_send(now(0)));
        assert!(matches!(session.next_frame(now(6)).0, Some(AgentFrame::Heartbeat(_))));
        assert_eq!(session.next_frame(now(6)).0, None);
        session.handle(now(6), Input::ChecksKnown);
        let snapshot = AgentFrame::Snapshot { checks: vec![check("a", 1)], last: true };
        assert_eq!(session.next_frame(now(6)).0, Some(snapshot));
        assert_eq!(session.next_frame(now(6)).0, Some(AgentFrame::reports(vec![report(1)])));
    }

    #[test]
    fn a_go_away_says_how_long_to_stay_away() {
        let mut session = greeted();
        let go_away = HubFrame::GoAway { reason: "moving".into(), retry_after_ms: 10_000 };
        let outputs = session.handle(now(0), Input::Frame(go_away));
        assert_eq!(outputs, [Output::Close(CloseReason::GoAway("moving".into()))]);
        let outputs = session.handle(now(0), Input::Disconnected { jitter: 0.0 });
        assert_eq!(outputs, [Output::DialAt(Duration::from_secs(10))]);
    }

    #[test]
    fn a_hub_that_breaks_the_order_is_left() {
        assert_eq!(greeted().handle(now(10), Input::Tick), [Output::Close(CloseReason::NoWelcome)]);
        let close = greeted().handle(now(0), Input::Frame(HubFrame::Ack(1)));
        assert_eq!(close, [Output::Close(CloseReason::OutOfOrder("Ack"))]);
        let mut session = greeted();
        assert_eq!(session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1)))), []);
        let close = session.handle(now(0), Input::Frame(HubFrame::Ack(1)));
        assert_eq!(close, [Output::Close(CloseReason::AckBeyondSent { acked: 1, sent: 0 })]);
        assert_eq!(session.handle(now(0), Input::Frame(HubFrame::Ack(1))), []);
    }

    #[test]
    fn a_hub_that_takes_no_frame_is_left_after_half_a_minute_and_nobody_wakes_in_vain_meanwhile() {
        let at = |monotonic| Now { monotonic, wall: Timestamp::UNIX_EPOCH };
        let mut session = greeted();
        session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
        let half_a_minute = Duration::from_secs(30);
        let mut due = Duration::ZERO;
        // There is room again, once: the time begins anew.
        for _ in 0..2 {
            due = session.deadline().unwrap();
            assert_eq!(session.handle(at(due), Input::Tick), []);
            assert_eq!(session.deadline(), Some(due + half_a_minute), "not at once again");
            let late = at(due + half_a_minute - Duration::from_millis(1));
            assert_eq!(session.handle(late, Input::Tick), []);
            if due < half_a_minute {
                assert!(matches!(session.next_frame(late).0, Some(AgentFrame::Heartbeat(_))));
            }
        }
        let close = session.handle(at(due + half_a_minute), Input::Tick);
        assert_eq!(close, [Output::Close(CloseReason::Unread)]);
    }

    #[test]
    fn a_command_is_obeyed_once_and_too_many_are_refused() {
        let command = |id: usize| Command { id: id.to_string(), scope: Scope::default(), order: Order::RunNow };
        let answer = |id: usize| Answer { id: id.to_string(), verdict: Ok(String::new()) };
        let close = greeted().handle(now(0), Input::Frame(HubFrame::Command(command(0))));
        assert_eq!(close, [Output::Close(CloseReason::OutOfOrder("Command"))]);
        let mut session = greeted();
        session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
        for id in 0..agent::MAX_COMMANDS {
            let outputs = session.handle(now(0), Input::Frame(HubFrame::Command(command(id))));
            assert_eq!(outputs, [Output::Obey(command(id))]);
        }
        assert_eq!(session.handle(now(0), Input::Frame(HubFrame::Command(command(0)))), [], "the same one again");
        assert_eq!(session.handle(now(0), Input::Frame(HubFrame::Command(command(99)))), [], "one too many");
        let Some(AgentFrame::CommandAnswer(refused)) = session.next_frame(now(0)).0 else { panic!("no refusal") };
        assert_eq!((refused.id.as_str(), refused.verdict.unwrap_err().layer), ("99", Layer::Agent));
        session.handle(now(0), Input::Obeyed(answer(3)));
        session.handle(now(0), Input::Obeyed(answer(3)));
        assert_eq!(session.next_frame(now(0)).0, Some(AgentFrame::CommandAnswer(answer(3))));
        assert!(!session.wants_to_send(now(0)));
        session.handle(now(0), Input::Disconnected { jitter: 0.0 });
        session.handle(now(0), Input::Connected);
        session.next_frame(now(0));
        session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
        session.handle(now(0), Input::Obeyed(answer(4)));
        assert!(!session.wants_to_send(now(0)), "the hub of the next session does not wait for it");
    }

    #[test]
    fn the_hubs_latest_mark_is_kept_and_said_in_the_next_hello() {
        let mark = |text: &str| Input::Frame(HubFrame::Mark(text.into()));
        let mut session = greeted();
        assert!(matches!(session.handle(now(0), mark("early"))[..], [Output::Close(_)]), "before Welcome");
        let mut session = greeted();
        session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
        for text in ["one", "two"] {
            assert_eq!(session.handle(now(0), mark(text)), [Output::Remember(text.into())]);
        }
        session.handle(now(0), Input::Disconnected { jitter: 0.0 });
        session.handle(now(1), Input::Connected);
        let (hello, _) = session.next_frame(now(1));
        assert!(matches!(hello, Some(AgentFrame::Hello(hello)) if hello.hub_mark == "two"));
    }

    #[test]
    fn what_came_of_a_self_test_outlives_the_session_that_asked_for_it() {
        let ended = SelfTest::new(SelfTestOutcome::Succeeded, "done", now(0).wall);
        let mut session = greeted();
        session.handle(now(0), Input::SelfTested(ended.clone()));
        assert!(!session.wants_to_send(now(0)), "not before the hub has welcomed it");
        session.handle(now(0), Input::Disconnected { jitter: 0.0 });
        session.handle(now(0), Input::Connected);
        session.next_frame(now(0));
        session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
        assert_eq!(session.next_frame(now(0)).0, Some(AgentFrame::SelfTest(ended)));
        assert!(!session.wants_to_send(now(0)), "once");
    }

    #[test]
    fn an_answer_of_an_old_session_is_not_given_to_a_new_one() {
        let definitions = HubFrame::Definitions { nonce: 1, definitions: vec![] };
        let mut session = greeted();
        session.handle(now(0), Input::Frame(HubFrame::Welcome(welcome(1))));
        session.next_frame(now(0));
        let first = session.handle(now(0), Input::Frame(definitions.clone()));
        assert_eq!(first, [Output::ApplyDefinitions { nonce: 1, definitions: vec![] }]);
        session.handle(now(0), Input::Disconnected { jitter: 0.0 });
        session.handle(now(1), Input::Connected);
        session.next_frame(now(1));
        session.handle(now(1), Input::Frame(HubFrame::Welcome(welcome(1))));
        session.next_frame(now(1));
        session.handle(now(1), Input::Frame(definitions));
        session.handle(now(1), Input::DefinitionsDone { nonce: 1, statuses: vec![] });
        assert!(!session.wants_to_send(now(1)));
        session.handle(now(1), Input::DefinitionsDone { nonce: 2, statuses: vec![] });
        let answer = AgentFrame::DefinitionsStatus { nonce: 1, statuses: vec![] };
        assert_eq!(session.next_frame(now(1)).0, Some(answer));
    }
}
