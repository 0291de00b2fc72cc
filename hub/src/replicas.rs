//! This hub as one of several on one data base: what it shows of its own clusters goes to the others, and what they show,
//! change and ask comes here.
//!
//! The tables are the store's (`store::postgres::replicas`), what is shown of a cluster elsewhere is `core::fleet`'s to say.
//! Nothing of it runs in a hub that is alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::fleet::{Elsewhere, Publication, ShownCheck};
use active_monitor_runtime::tasks::Tasks;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::owner::FleetHandle;
use crate::store::postgres::replicas::{self as store, FollowedCluster, Replicas, Shown, Topic};
use crate::store::{Store, StoreError};
use commands::Asked;

mod commands;
mod follower;
mod publisher;

/// The replicas that this hub is one of.
#[derive(Debug)]
pub struct Peers {
    pub(crate) store: Arc<Replicas>,
    asked: Asked,
    changed: Mutex<BTreeMap<Topic, watch::Sender<()>>>,
}

impl Peers {
    pub(crate) fn new(store: Arc<Replicas>) -> Peers {
        Peers { store, asked: Asked::default(), changed: Mutex::default() }
    }

    /// Wakes when a replica, which may be this one, wrote something of a topic.
    pub fn changed(&self, topic: Topic) -> watch::Receiver<()> {
        self.changed.lock().entry(topic).or_default().subscribe()
    }

    fn tell(&self, topic: Topic) {
        if let Some(sender) = self.changed.lock().get(&topic) {
            sender.send_replace(());
        }
    }

    /// What changed is not known any more.
    fn tell_all(&self) {
        for sender in self.changed.lock().values() {
            sender.send_replace(());
        }
    }
}

/// The longest time between two beats, and between two looks at those of the others.
const BEAT: Duration = Duration::from_secs(1);
/// Beats in a lease. Of a third of it, without which a replica is silent, a beat and a look take two fifths.
const BEATS_PER_LEASE: u32 = 15;

/// Reads what the others show, and goes on doing so; publishes what this replica shows.
///
/// # Errors
/// The data base fails.
pub(crate) async fn start(
    peers: &Arc<Peers>,
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    lease: Duration,
    tasks: &Tasks,
) -> Result<(), StoreError> {
    let beat = BEAT.min(lease / BEATS_PER_LEASE);
    let mut follower = follower::Follower::new(Arc::clone(peers), store, fleet.clone());
    follower.round().await?;
    tasks.supervise("follower", follower.run(beat, tasks.stop_token()));
    tasks.supervise("publisher", publisher::run(Arc::clone(&peers.store), fleet.watch(), beat, tasks.stop_token()));
    Ok(())
}

/// As the store takes it.
fn stored(publication: &Publication) -> store::Publication {
    let Publication { cluster, epoch, link, checks, removed, is_whole } = publication.clone();
    // Every type in a link can be written as JSON.
    let link = link.map(|link| serde_json::to_string(&link).unwrap_or_default());
    let shown = |ShownCheck { state, health, status }| Shown { state, health, status };
    store::Publication { cluster, epoch, link, checks: checks.into_iter().map(shown).collect(), removed, is_whole }
}

/// As the fleet takes it. A link that cannot be read is one of which nothing was said.
fn elsewhere(cluster: FollowedCluster) -> Elsewhere {
    let FollowedCluster { cluster, replica, epoch, link, checks, removed, is_whole } = cluster;
    let link = link.and_then(|text| {
        let read = serde_json::from_str(&text);
        read.inspect_err(|error| tracing::error!(cluster, %error, "the link of a cluster elsewhere is not read")).ok()
    });
    let shown = |Shown { state, health, status }| ShownCheck { state, health, status };
    Elsewhere { cluster, replica, epoch, link, checks: checks.into_iter().map(shown).collect(), removed, is_whole }
}
