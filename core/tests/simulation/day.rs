//! A day of checks of every minute in virtual time: what there is must follow from their number alone.

use active_monitor_core::capacity::Limits;
use serde_json::{Value, json};

use super::super::election::Replicas;
use super::{Agent, SOURCE, World};

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Objects in the cluster.
    pub(crate) workflows: usize,
    /// Runs that the journal knows.
    pub(crate) journaled: usize,
    /// Workflows that the agent keeps notes of.
    pub(crate) remembered: usize,
}

impl Sizes {
    fn most(self, other: Sizes) -> Sizes {
        Sizes {
            workflows: self.workflows.max(other.workflows),
            journaled: self.journaled.max(other.journaled),
            remembered: self.remembered.max(other.remembered),
        }
    }
}

impl World {
    /// A day of so many checks of every minute, without a fault but those that workflows have; gives the most of each that
    /// was there at once after the first hour, and by the end.
    pub(crate) fn day(checks: usize) -> [Sizes; 2] {
        let mut world = World::empty(1, false, false);
        (world.replicas, world.faults, world.limits) = (Replicas::One, false, Limits::default());
        for i in 0..checks {
            world.put_new_check(&format!("check-{i}"), world.every_minute());
        }
        world.start(0);
        let mut hours = [3_600_000, 86_400_000].map(|until| {
            let mut most = Sizes::default();
            while world.t < until {
                world.tick(10_000);
                most = most.most(world.sizes());
            }
            most
        });
        hours[1] = hours[1].most(hours[0]);
        hours
    }

    fn every_minute(&self) -> Value {
        json!({"repeatAfterSec": 60, "workflow": {"resource":
            {"namespace": "health", "serviceAccount": "probe", "source": {"inline": SOURCE}}}})
    }

    fn sizes(&self) -> Sizes {
        let remembered = self.agents[0].as_ref().map_or(0, Agent::remembered);
        Sizes { workflows: self.server.workflows.len(), journaled: self.disks[0].len(), remembered }
    }
}
