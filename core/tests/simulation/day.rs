//! A day of checks in virtual time: what there is must follow from their number alone.

use active_monitor_core::capacity::Limits;
use serde_json::{Value, json};

use super::super::election::Replicas;
use super::super::server::Millis;
use super::{SOURCE, World};

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Objects in the cluster.
    pub(crate) workflows: usize,
    /// Runs that the journal knows.
    pub(crate) journaled: usize,
    /// Workflows that the agent keeps notes of.
    pub(crate) remembered: usize,
    /// Checks that the agent keeps notes of.
    pub(crate) known: usize,
}

impl Sizes {
    pub(crate) fn most(self, other: Sizes) -> Sizes {
        Sizes {
            workflows: self.workflows.max(other.workflows),
            journaled: self.journaled.max(other.journaled),
            remembered: self.remembered.max(other.remembered),
            known: self.known.max(other.known),
        }
    }
}

/// A check of so many seconds; with a remedy, which a failure calls for.
pub(crate) fn every(seconds: u64, has_remedy: bool) -> Value {
    let job = |account: &str| json!({"resource": {"namespace": "health", "serviceAccount": account, "source": {"inline": SOURCE}}});
    let mut spec = json!({"repeatAfterSec": seconds, "workflow": job("probe")});
    if has_remedy {
        spec["remedyworkflow"] = job("mender");
    }
    spec
}

impl World {
    /// A day of these checks, without a fault but those that workflows have; gives the most of each that was there at once
    /// in each hour.
    pub(crate) fn day(specs: impl IntoIterator<Item = Value>) -> Vec<Sizes> {
        let mut world = World::empty(1, false, false);
        (world.replicas, world.faults, world.limits) = (Replicas::One, false, Limits::default());
        for (i, spec) in specs.into_iter().enumerate() {
            world.put_new_check(&format!("check-{i}"), spec);
        }
        world.start(0);
        (1..=24).map(|hour| world.most_until(hour * 3_600_000)).collect()
    }

    fn most_until(&mut self, until: Millis) -> Sizes {
        let mut most = Sizes::default();
        while self.t < until {
            self.tick(10_000);
            most = most.most(self.sizes());
        }
        most
    }

    fn sizes(&self) -> Sizes {
        let [remembered, known] = self.agents[0].as_ref().map_or([0, 0], |agent| [agent.remembered(), agent.known()]);
        Sizes { workflows: self.server.workflows.len(), journaled: self.disks[0].len(), remembered, known }
    }
}
