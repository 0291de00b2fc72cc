//! Two replicas of which one leads, as `agent/src/leader.rs` does it: `core::lease` decides, the Lease is stored in the API
//! server, and looks and writes get lost, come late, or come from a process that was stopped meanwhile.

use std::time::Duration;

use active_monitor_core::check::Check;
use active_monitor_core::decide::counted_before;
use active_monitor_core::lease::{Election, Record, Turn};
use active_monitor_core::run::Run;

use super::agent::{Agent, Me};
use super::server::{Millis, Refusal, elapsed};
use super::world::World;

const DURATION: Duration = Duration::from_secs(15);

/// How many replicas there are, and what keeps them from acting both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replicas {
    /// There is one.
    One,
    /// Nothing does.
    Rivals,
    /// A lease.
    Elected,
}

/// A process that leads or waits to.
pub(crate) struct Candidate {
    life: u64,
    election: Election,
    /// The Lease as last read or written; `None` to be read again.
    known: Option<Record>,
    /// When it looks or renews next.
    next: Millis,
}

impl World {
    pub(crate) fn stand(&mut self, replica: usize) {
        if self.candidates[replica].is_some() {
            return;
        }
        self.lose_disk_perhaps(replica);
        self.lives += 1;
        self.note("stands", (replica, self.lives));
        let election = Election::new(format!("{replica}-{}", self.lives), DURATION);
        self.candidates[replica] = Some(Candidate { life: self.lives, election, known: None, next: self.t });
    }

    /// Whether writes of this replica pass its fence.
    pub(crate) fn may_write(&self, replica: usize) -> bool {
        if self.replicas != Replicas::Elected {
            return true;
        }
        let until = self.candidates[replica].as_ref().and_then(|candidate| candidate.election.may_write());
        until.is_some_and(|until| elapsed(self.t) < until)
    }

    /// The replica whose turn it is before that time, and when.
    pub(crate) fn next_turn(&self, before: Millis) -> Option<(Millis, usize)> {
        let turns = self.candidates.iter().enumerate().filter_map(|(replica, candidate)| {
            let at = candidate.as_ref()?.next.max(self.stopped_until[replica]).max(self.t);
            Some((at, replica))
        });
        turns.min().filter(|(at, _)| *at < before)
    }

    /// One look or renewal.
    pub(crate) fn take_turn(&mut self, replica: usize) {
        let Some(mut candidate) = self.candidates[replica].take() else { return };
        let led = candidate.election.may_write().is_some();
        let turn = self.look_and_write(&mut candidate, led);
        let until = candidate.election.may_write();
        let left = until.map(|until| until.saturating_sub(elapsed(self.t)));
        let pause = candidate.election.pause().min(left.unwrap_or(DURATION));
        candidate.next = self.t + pause.as_millis() as Millis;
        let life = candidate.life;
        self.candidates[replica] = Some(candidate);
        match (led, left) {
            (true, _) if turn == Ok(Turn::Lost) => self.crash(replica),
            (true, Some(left)) if left.is_zero() => self.crash(replica),
            (false, Some(_)) => self.lead(replica, life),
            _ => {}
        }
    }

    fn look_and_write(&mut self, candidate: &mut Candidate, leads: bool) -> Result<Turn, Refusal> {
        let is_lost = |world: &mut World| world.api_is_down || world.fault(20) == 0;
        if !leads || candidate.known.is_none() {
            if is_lost(self) {
                return Err(Refusal::Unknown);
            }
            candidate.known = self.lease.clone();
        }
        let sent_at = elapsed(self.t);
        let turn = candidate.election.turn(sent_at, candidate.known.as_ref());
        if turn != Turn::Take {
            return Ok(turn);
        }
        let over = candidate.known.take().map(|known| known.version);
        let holder = candidate.election.me().to_owned();
        let fault = if self.api_is_down { 0 } else { self.fault(30) };
        let written = match fault {
            0 => Err(Refusal::Unknown),
            1 => self.write_lease(over, holder).and(Err(Refusal::Unknown)),
            2 => {
                let lands = self.t + 1 + self.random.millis(20_000);
                self.late.push((lands, Box::new(move |world| drop(world.write_lease(over, holder)))));
                Err(Refusal::Unknown)
            }
            _ => self.write_lease(over, holder),
        };
        candidate.known = Some(written?);
        candidate.election.renewed(sent_at);
        Ok(turn)
    }

    /// Writes the Lease over that version of it, `None` where there was none.
    fn write_lease(&mut self, over: Option<String>, holder: String) -> Result<Record, Refusal> {
        if self.lease.as_ref().map(|lease| &lease.version) != over.as_ref() {
            return Err(Refusal::Conflict);
        }
        self.lease_version += 1;
        let lease = Record { holder, version: self.lease_version.to_string(), duration: DURATION };
        self.lease = Some(lease.clone());
        Ok(lease)
    }

    fn lead(&mut self, replica: usize, life: u64) {
        let other = self.agents.iter().enumerate().any(|(of, agent)| agent.is_some() && self.may_write(of));
        assert!(!other, "two replicas may write");
        self.note("leads", replica);
        self.began_to_lead(replica);
        self.agents[replica] = Some(Agent::new(life, self.limits));
        self.relist(replica);
        let me = Me { replica, life };
        for run in self.counted_elsewhere(me) {
            self.note("rebuilds", (replica, &run.key));
            if self.disks[replica].settle(run.clone()) {
                self.recorded(replica, run);
            }
        }
    }

    /// As `agent/src/rebuild.rs`: what the status has counted and this replica's journal may lack.
    fn counted_elsewhere(&mut self, me: Me) -> Vec<Run> {
        let checks: Vec<_> = self.server.checks.values().cloned().collect();
        let Ok(now) = self.now(me) else { return Vec::new() };
        let mut runs = Vec::new();
        for resource in checks {
            let Ok(check) = Check::parse(&resource) else { continue };
            let status = resource.status.clone().unwrap_or_default();
            if let Ok(observed) = self.observe(me, now, &resource, status) {
                runs.extend(counted_before(now, &check, &observed));
            }
        }
        runs
    }

    /// A process that is asked to end gives the lease back, if it is in the middle of nothing.
    pub(crate) fn resign(&mut self, replica: usize) {
        let Some(candidate) = &self.candidates[replica] else { return };
        let known = candidate.known.as_ref().filter(|_| self.may_write(replica)).map(|known| known.version.clone());
        self.note("resigns", replica);
        if known.is_some() && !self.api_is_down {
            self.write_lease(known, String::new()).ok();
        }
        self.crash(replica);
    }
}
