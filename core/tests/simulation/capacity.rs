//! Places for runs in flight, as `agent/src/capacity.rs` gives them: who is in flight is what the journal says, who waits
//! asks again.

use std::collections::BTreeMap;

use active_monitor_core::capacity::{Limits, Waiter, admit};
use active_monitor_core::check::Check;
use active_monitor_core::run::{RunKey, RunKind};
use jiff::Timestamp;

use super::agent::{Dead, Me};
use super::world::World;

const GIVEN_UP_SECONDS: u64 = 35;

/// What one process knows of its places.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) limits: Limits,
    waiting: BTreeMap<(String, RunKind), Waiting>,
    granted: BTreeMap<RunKey, String>,
}

struct Waiting {
    waiter: Waiter,
    name: String,
    asked: Timestamp,
}

impl Book {
    pub(crate) fn new(limits: Limits) -> Book {
        Book { limits, ..Book::default() }
    }

    pub(crate) fn waits_since(&self, uid: &str) -> Option<Timestamp> {
        let waiting = |kind| self.waiting.get(&(uid.to_owned(), kind)).map(|waiting| waiting.waiter.since);
        waiting(RunKind::HealthCheck).or_else(|| waiting(RunKind::Remedy))
    }

    pub(crate) fn give_back(&mut self, key: &RunKey) {
        self.granted.remove(key);
    }

    fn admitted(&mut self, now: Timestamp, in_flight: &BTreeMap<String, usize>) -> Vec<Waiter> {
        let asks = |waiting: &Waiting| now.duration_since(waiting.asked).unsigned_abs().as_secs() < GIVEN_UP_SECONDS;
        self.waiting.retain(|_, waiting| asks(waiting));
        let waiting: Vec<Waiter> = self.waiting.values().map(|waiting| waiting.waiter.clone()).collect();
        admit(self.limits, in_flight, &waiting)
    }
}

impl World {
    /// Runs in flight by the namespaces of their checks: the journal's, and those that have a place and are not in it. Nobody
    /// counts them where they are not limited.
    pub(crate) fn in_flight(&self, replica: usize) -> BTreeMap<String, usize> {
        if self.agents[replica].as_ref().is_none_or(|agent| agent.book.limits == Limits::default()) {
            return BTreeMap::new();
        }
        let disk = &self.disks[replica];
        let granted = self.agents[replica].iter().flat_map(|agent| agent.book.granted.keys());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for key in disk.open().chain(granted.filter(|key| !disk.is_open(key))) {
            *counts.entry(&self.namespaces[&key.check_uid]).or_default() += 1;
        }
        counts.into_iter().map(|(namespace, count)| (namespace.to_owned(), count)).collect()
    }

    /// Whether there is a place for this run. One that the journal has in flight has its place.
    pub(crate) fn ask(&mut self, me: Me, now: Timestamp, check: &Check, key: &RunKey) -> Result<bool, Dead> {
        let asker = (key.check_uid.clone(), key.kind);
        let in_flight = self.in_flight(me.replica);
        let has_place = self.disks[me.replica].is_open(key);
        let book = &mut self.agent(me)?.book;
        if !has_place {
            let (uid, namespace, name) = (key.check_uid.clone(), check.namespace.clone(), check.name.clone());
            let waiting = book.waiting.entry(asker.clone()).or_insert_with(|| Waiting {
                waiter: Waiter { since: now, uid, kind: key.kind, namespace },
                name,
                asked: now,
            });
            waiting.asked = now;
            let waiter = waiting.waiter.clone();
            if !book.admitted(now, &in_flight).contains(&waiter) {
                return Ok(false);
            }
        }
        book.waiting.remove(&asker);
        book.granted.insert(key.clone(), check.namespace.clone());
        Ok(true)
    }

    /// A run has ended: whoever may start now is woken.
    pub(crate) fn freed(&mut self, me: Me, now: Timestamp) -> Result<(), Dead> {
        let (t, in_flight) = (self.t, self.in_flight(me.replica));
        let agent = self.agent(me)?;
        for next in agent.book.admitted(now, &in_flight) {
            if let Some(waiting) = agent.book.waiting.get(&(next.uid, next.kind)) {
                let name = waiting.name.clone();
                agent.wake(&name, t);
            }
        }
        Ok(())
    }
}
