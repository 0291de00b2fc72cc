//! Several replicas of the hub on one data base: sessions that move, a data base that answers late, not at all or without
//! saying so, wake-ups that are lost, clocks that differ, replicas that die; in an order that a seed decides. What must
//! hold is looked at after each step, and once the faults are over all replicas must show the same.

use std::collections::BTreeMap;

use super::tests::{check, hello, known};
use super::*;
use crate::random::Random;
use crate::state::Phase;

mod db;

use db::{Db, Read};

const LEASE: Duration = Duration::from_secs(15);
const STEP_MS: i64 = 100;
const PUBLISH_MS: i64 = 300;
const POLL_MS: i64 = 1000;
const HEARTBEAT_MS: i64 = 5000;
/// The longest that a request of the data base takes.
const MAX_DELAY_MS: i64 = 1500;
/// What reaches a replica late beyond the lease: a heartbeat under way, a round, a request, a poll.
const SLACK_MS: i64 = 4 * MAX_DELAY_MS + PUBLISH_MS + POLL_MS;
const CLUSTERS: [&str; 3] = ["a", "b", "c"];

/// A request to the data base that is under way: it is answered at a time, or never.
enum Request {
    Publish { began: i64, view: Arc<FleetView>, due: Vec<Publication>, is_answered: bool },
    Follow { began: i64, followed: Option<Read> },
}

struct Replica {
    id: usize,
    fleet: Fleet,
    publisher: Publisher,
    revision: usize,
    /// Its clock minus the data base's.
    skew_ms: i64,
    publishing: Option<(i64, Request)>,
    following: Option<(i64, Request)>,
    publish_at: i64,
    follow_at: i64,
    /// Cut off from the data base until then.
    cut_until: i64,
}

/// The agent of a cluster.
#[derive(Default)]
struct Agent {
    incarnation: u64,
    /// Place of the replica in the list's numbering by id, and the epoch.
    session: Option<(usize, u64)>,
    /// A session that is being opened.
    opening: Option<(i64, usize, u64)>,
    checks: BTreeMap<String, CheckState>,
    heartbeat_at: i64,
    /// It says nothing until then.
    silent_until: i64,
}

struct World {
    random: Random,
    now_ms: i64,
    db: Db,
    replicas: BTreeMap<usize, Replica>,
    next_id: usize,
    agents: BTreeMap<&'static str, Agent>,
    /// When a replica that had the session showed the check as succeeded, last of all.
    green_at: BTreeMap<(&'static str, (String, String)), i64>,
    /// Since when two replicas hold a session as live.
    twice_since: BTreeMap<&'static str, i64>,
    faults: bool,
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
}

impl Replica {
    fn now(&self, now_ms: i64) -> Timestamp {
        time(now_ms + self.skew_ms)
    }

    fn take(&mut self, now_ms: i64, followed: Read, began: i64) -> Vec<String> {
        let now = self.now(now_ms);
        let others = followed.beats.iter().filter(|(id, _)| *id != self.id);
        let beats = others.map(|(id, age)| (id.to_string(), time(began + self.skew_ms - age))).collect();
        let own = |replica: usize, there: &Elsewhere| replica == self.id && there.link.is_some();
        let clusters = followed.clusters.into_iter().filter(|(replica, there)| !own(*replica, there));
        let clusters: Vec<Elsewhere> = clusters.map(|(_, there)| there).collect();
        let mut had: Vec<String> = clusters.iter().map(|there| there.cluster.clone()).collect();
        had.retain(|name| self.fleet.open_epoch(name).is_some());
        self.fleet.apply(now, Change::Followed(Box::new(Followed { beats, clusters })));
        self.revision = followed.revision;
        had.retain(|name| self.fleet.open_epoch(name).is_none());
        had
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            random: Random(seed),
            now_ms: 0,
            db: Db::default(),
            replicas: BTreeMap::new(),
            next_id: 0,
            agents: CLUSTERS.iter().map(|name| (*name, Agent::default())).collect(),
            green_at: BTreeMap::new(),
            twice_since: BTreeMap::new(),
            faults: true,
        };
        for agent in world.agents.values_mut() {
            agent.checks = ["dns", "web"].map(|name| (format!("uid-{name}"), check(name, time(3_600_000)))).into();
        }
        for _ in 0..3 {
            world.start();
        }
        world
    }

    /// A replica starts and reads everything.
    fn start(&mut self) {
        let (id, skew_ms) = (self.next_id, self.random.below(40_000).cast_signed() - 20_000);
        self.next_id += 1;
        let now = time(self.now_ms + skew_ms);
        let mut fleet = Fleet::new(now, LEASE, "0.1.0");
        for name in CLUSTERS {
            let rows = self.db.checks.iter().filter(|((cluster, _), _)| *cluster == name);
            let saved = rows.map(|(_, check)| (check.state.clone(), check.health.clone())).collect();
            fleet.restore(now, known(name, Some("u")), saved);
        }
        let mut replica = Replica {
            id,
            fleet,
            publisher: Publisher::default(),
            revision: 0,
            skew_ms,
            publishing: None,
            following: None,
            publish_at: self.now_ms,
            follow_at: self.now_ms,
            cut_until: 0,
        };
        replica.take(self.now_ms, self.db.follow(0, self.now_ms), self.now_ms);
        self.replicas.insert(id, replica);
    }

    fn kill(&mut self, id: usize) {
        self.replicas.remove(&id);
        for agent in self.agents.values_mut() {
            agent.session = agent.session.filter(|(at, _)| *at != id);
            agent.opening = agent.opening.filter(|(_, at, _)| *at != id);
        }
    }

    fn delay(&mut self) -> i64 {
        let limit = if self.faults && self.random.one_in(4) { MAX_DELAY_MS } else { 30 };
        self.now_ms + self.random.below(limit.unsigned_abs()).cast_signed()
    }

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        if self.faults {
            self.fault();
        }
        let ids: Vec<usize> = self.replicas.keys().copied().collect();
        for id in ids {
            self.publish(id);
            self.follow(id);
            let replica = self.replicas.get_mut(&id).unwrap();
            let now = replica.now(self.now_ms);
            replica.fleet.tick(now);
        }
        for name in CLUSTERS {
            self.live(name);
        }
        self.look();
    }

    fn fault(&mut self) {
        let ids: Vec<usize> = self.replicas.keys().copied().collect();
        let id = ids[self.random.pick(ids.len())];
        match self.random.below(400) {
            0 if ids.len() > 1 => self.kill(id),
            1 | 2 if ids.len() < 3 => self.start(),
            3 => self.replicas.get_mut(&id).unwrap().cut_until = self.now_ms + self.random.below(30_000).cast_signed(),
            4..8 => {
                let name = CLUSTERS[self.random.pick(CLUSTERS.len())];
                let silence = self.random.below(40_000).cast_signed();
                self.agents.get_mut(name).unwrap().silent_until = self.now_ms + silence;
            }
            _ => {}
        }
    }

    fn publish(&mut self, id: usize) {
        let at = self.delay();
        let (is_lost, is_unanswered) = (self.faults && self.random.one_in(20), self.faults && self.random.one_in(20));
        let replica = self.replicas.get_mut(&id).unwrap();
        match replica.publishing.take() {
            Some((at, request)) if at > self.now_ms => replica.publishing = Some((at, request)),
            Some((_, Request::Publish { began, view, due, is_answered })) if replica.cut_until <= self.now_ms => {
                let refused = self.db.publish(id, began, &due);
                if is_answered {
                    replica.publisher.published(&view, due, &refused);
                }
                // Wakes the others, or not.
                for other in self.replicas.values_mut().filter(|other| other.id != id) {
                    if !self.faults || !self.random.one_in(3) {
                        other.follow_at = self.now_ms;
                    }
                }
            }
            Some(_) => {}
            None if replica.publish_at <= self.now_ms => {
                replica.publish_at = self.now_ms + PUBLISH_MS;
                let view = replica.fleet.publish();
                let due = replica.publisher.due(&view);
                let request = Request::Publish { began: self.now_ms, view, due, is_answered: !is_unanswered };
                replica.publishing = (!is_lost).then_some((at, request));
            }
            None => {}
        }
    }

    fn follow(&mut self, id: usize) {
        let at = self.delay();
        let is_lost = self.faults && self.random.one_in(20);
        let replica = self.replicas.get_mut(&id).unwrap();
        match replica.following.take() {
            Some((at, request)) if at > self.now_ms => replica.following = Some((at, request)),
            Some((_, Request::Follow { began, followed: Some(followed) })) => {
                let cut = replica.take(self.now_ms, followed, began);
                for name in cut {
                    let agent = self.agents.get_mut(name.as_str()).unwrap();
                    agent.session = agent.session.filter(|(at, _)| *at != id);
                }
            }
            Some(_) => {}
            None if replica.follow_at <= self.now_ms => {
                replica.follow_at = self.now_ms + POLL_MS;
                let is_answered = !is_lost && replica.cut_until <= self.now_ms;
                let followed = is_answered.then(|| self.db.follow(replica.revision, self.now_ms));
                replica.following = Some((at, Request::Follow { began: self.now_ms, followed }));
            }
            None => {}
        }
    }

    /// What an agent does, and what happens to its connection.
    fn live(&mut self, name: &'static str) {
        let ids: Vec<usize> = self.replicas.keys().copied().collect();
        let to = ids[self.random.pick(ids.len())];
        let at = self.delay();
        let agent = self.agents.get_mut(name).unwrap();
        if agent.silent_until > self.now_ms {
            return;
        }
        if let Some((at, id, epoch)) = agent.opening {
            if at <= self.now_ms {
                agent.opening = None;
                self.opened(name, id, epoch);
            }
            return;
        }
        let breaks = self.faults && self.random.one_in(300);
        match agent.session {
            Some((id, epoch)) if breaks => {
                agent.session = None;
                // The replica sees the end, or hears nothing more.
                if self.random.one_in(2) {
                    self.say(name, id, epoch, Said::Closed);
                }
            }
            Some((id, epoch)) => self.talk(name, id, epoch),
            None => {
                if self.random.one_in(3) {
                    agent.incarnation += 1;
                }
                // The row is written before the session is open.
                if self.replicas[&to].cut_until <= self.now_ms {
                    agent.opening = Some((at, to, self.db.open(name, to)));
                }
            }
        }
    }

    fn opened(&mut self, name: &'static str, id: usize, epoch: u64) {
        let replica = self.replicas.get_mut(&id).unwrap();
        let now = replica.now(self.now_ms);
        let incarnation = self.agents[name].incarnation.to_string();
        if replica.fleet.open_as(now, &hello(name, "u", &incarnation, now), epoch).0.is_ok() {
            let agent = self.agents.get_mut(name).unwrap();
            (agent.session, agent.heartbeat_at) = (Some((id, epoch)), self.now_ms);
            let checks = agent.checks.values().cloned().collect();
            // A session may be too short for its snapshot.
            if !self.faults || !self.random.one_in(4) {
                self.say(name, id, epoch, Said::Snapshot { checks, last: true });
            } else {
                self.agents.get_mut(name).unwrap().session = None;
            }
        }
    }

    fn talk(&mut self, name: &'static str, id: usize, epoch: u64) {
        let changes = self.faults && self.random.one_in(20);
        let number = self.random.below(4);
        let agent = self.agents.get_mut(name).unwrap();
        if changes {
            let check_name = ["dns", "web", "api", "db"][number as usize];
            let said = match agent.checks.remove(&format!("uid-{check_name}")) {
                Some(state) if self.random.one_in(6) => Said::Removed(state.uid),
                known => {
                    let mut state = known.unwrap_or_else(|| check(check_name, time(3_600_000)));
                    let failed = self.random.one_in(2);
                    state.phase = if failed { Phase::Failed } else { Phase::Succeeded };
                    if failed {
                        state.check.failed += 1
                    } else {
                        state.check.succeeded += 1
                    }
                    agent.checks.insert(state.uid.clone(), state.clone());
                    Said::Upsert(Box::new(state))
                }
            };
            self.say(name, id, epoch, said);
        } else if agent.heartbeat_at + HEARTBEAT_MS <= self.now_ms {
            agent.heartbeat_at = self.now_ms;
            self.say(name, id, epoch, Said::Heard);
        }
    }

    fn say(&mut self, name: &'static str, id: usize, epoch: u64, what: Said) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            let now = replica.now(self.now_ms);
            replica.fleet.apply(now, Change::Said { cluster: name.to_owned(), epoch, what });
        }
    }

    /// What must hold at any time.
    fn look(&mut self) {
        for name in CLUSTERS {
            let entries = self.replicas.values().map(|replica| &replica.fleet.view().clusters[name]);
            let (own, others): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.own.is_some());
            let green = |entry: &&Arc<ClusterEntry>| {
                let green = entry.checks.iter().filter(|(_, check)| check.status == CheckStatus::Succeeded);
                green.map(|(key, _)| key.clone()).collect::<Vec<_>>()
            };
            for key in own.iter().flat_map(green) {
                self.green_at.insert((name, key), self.now_ms);
            }
            for key in others.iter().flat_map(green) {
                let ago = self.green_at.get(&(name, key.clone())).map(|at| self.now_ms - at);
                let limit = LEASE.as_millis() as i64 + SLACK_MS;
                assert!(
                    ago.is_some_and(|ago| ago <= limit),
                    "{name} {key:?} is shown green, its owner did so {ago:?} ms ago"
                );
            }
            let live = own.iter().filter(|entry| entry.view.status == ClusterStatus::Connected).count();
            if live < 2 {
                self.twice_since.remove(name);
            } else {
                let since = *self.twice_since.entry(name).or_insert(self.now_ms);
                assert!(self.now_ms - since <= LEASE.as_millis() as i64 + SLACK_MS, "{name} is live twice");
            }
        }
        for replica in self.replicas.values() {
            super::tests::assert_counts(&replica.fleet);
        }
    }

    /// Without faults every replica shows within a round and a poll what the replica with the session shows.
    fn settle(&mut self) {
        self.faults = false;
        for replica in self.replicas.values_mut() {
            replica.cut_until = 0;
        }
        for agent in self.agents.values_mut() {
            agent.silent_until = 0;
        }
        for _ in 0..(3 * LEASE.as_millis() as i64 / STEP_MS) {
            self.step();
        }
        for name in CLUSTERS {
            let agent = &self.agents[name];
            let (owner, _) = agent.session.expect("a session");
            for replica in self.replicas.values() {
                let view = replica.fleet.view();
                let entry = &view.clusters[name];
                assert_eq!(entry.own.is_some(), replica.id == owner, "{name} at {}", replica.id);
                let owners = &self.replicas[&owner].fleet.view().clusters[name];
                let links = [entry, owners].map(|entry| {
                    let view = ClusterView { last_heard_at: None, ..entry.view.clone() };
                    (view, entry.checks.clone())
                });
                assert_eq!(links[0], links[1], "{name} at {}, the session is at {owner}", replica.id);
                let states: BTreeMap<String, CheckState> =
                    entry.checks.values().map(|check| (check.state.uid.clone(), check.state.clone())).collect();
                assert_eq!(states, agent.checks, "{name} at {}", replica.id);
            }
        }
    }
}

#[test]
fn every_replica_shows_what_the_one_with_the_session_does() {
    let seeds = std::env::var("ACTIVE_MONITOR_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seeds.map_or(0..30, |seed| seed..seed + 1);
    for seed in seeds {
        let mut world = World::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                world.faults = true;
                for _ in 0..1200 {
                    world.step();
                }
                world.settle();
            }
        }));
        if let Err(problem) = result {
            eprintln!("ACTIVE_MONITOR_SEED={seed} at {} ms", world.now_ms);
            std::panic::resume_unwind(problem);
        }
    }
}

/// A world without faults in which every agent is connected.
fn calm() -> World {
    let mut world = World::new(1);
    world.settle();
    world
}

#[test]
fn without_faults_a_change_is_everywhere_within_a_second() {
    let mut world = calm();
    let (owner, epoch) = world.agents["a"].session.unwrap();
    let mut state = world.agents["a"].checks["uid-dns"].clone();
    state.phase = Phase::Failed;
    world.say("a", owner, epoch, Said::Upsert(Box::new(state)));
    for _ in 0..(1000 / STEP_MS) {
        world.step();
    }
    for replica in world.replicas.values() {
        assert_eq!(replica.fleet.view().check("a", "health", "dns").unwrap().status, CheckStatus::Failed);
    }
}

#[test]
fn clusters_of_a_dead_replica_are_reconnecting_until_the_lease_ends_and_unreachable_after() {
    let mut world = calm();
    let (owner, _) = world.agents["a"].session.unwrap();
    world.kill(owner);
    // Its agent finds no other.
    world.agents.get_mut("a").unwrap().silent_until = i64::MAX;
    let died = world.now_ms;
    let shown = |world: &World| {
        let views = world.replicas.values().map(|replica| replica.fleet.view());
        views
            .map(|view| (view.clusters["a"].view.status, view.check("a", "health", "dns").unwrap().status))
            .collect::<Vec<_>>()
    };
    let lease = LEASE.as_millis() as i64;
    // A beat may be a second older than the death, and is seen a second later.
    for (until, status, check) in [
        (lease / 3 - 1000, ClusterStatus::Connected, CheckStatus::Succeeded),
        (lease - 1000, ClusterStatus::Reconnecting, CheckStatus::Succeeded),
        (2 * lease, ClusterStatus::Unreachable, CheckStatus::Stale),
    ] {
        while world.now_ms < died + until {
            world.step();
        }
        assert_eq!(shown(&world), [(status, check); 2], "{until} ms after its death");
    }
}
