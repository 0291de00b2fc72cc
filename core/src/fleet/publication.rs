//! What a replica of the hub has to tell the others: the difference between what it shows of its own clusters and what
//! it has published of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Checks, ClusterEntry, FleetView, Own, ShownCheck, ShownLink};
use crate::view::CheckView;

/// That a cluster was heard is news after so long: it would be written for each heartbeat otherwise.
const HEARD_STEP: Duration = Duration::from_secs(5);

/// What changed of a cluster whose newest session is this replica's.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Name of the cluster.
    pub cluster: String,
    /// Epoch of the session: nothing is to be written where another one is newer.
    pub epoch: u64,
    /// The link, where it changed.
    pub link: Option<ShownLink>,
    /// The checks that changed.
    pub checks: Vec<ShownCheck>,
    /// uids of checks that are gone.
    pub removed: Vec<String>,
    /// Whether these are all of its checks: what else is written of the cluster goes.
    pub is_whole: bool,
}

/// What was published of a cluster.
#[derive(Debug)]
struct Published {
    epoch: u64,
    link: ShownLink,
    checks: Arc<Checks>,
}

/// Remembers what was published.
#[derive(Debug, Default)]
pub struct Publisher(BTreeMap<String, Published>);

impl Publisher {
    /// What differs. A cluster that came here is published as a whole: what its last replica wrote may not be known here.
    pub fn due(&self, view: &FleetView) -> Vec<Publication> {
        let own = view.clusters.iter().filter_map(|(name, entry)| Some((name, entry, entry.own.as_ref()?)));
        own.filter_map(|(name, entry, own)| self.difference(name, entry, own)).collect()
    }

    fn difference(&self, name: &str, entry: &ClusterEntry, own: &Own) -> Option<Publication> {
        let before = self.0.get(name).filter(|before| before.epoch == own.epoch);
        let link = ShownLink::of(&entry.view, own);
        let is_same = |before: &Published| same_link(&before.link, &link);
        let (checks, removed) = match before {
            Some(before) if Arc::ptr_eq(&before.checks, &entry.checks) => (Vec::new(), Vec::new()),
            Some(before) => changes(&before.checks, &entry.checks),
            None => (entry.checks.values().map(|check| shown(check)).collect(), Vec::new()),
        };
        let link = (!before.is_some_and(is_same)).then_some(link);
        if link.is_none() && checks.is_empty() && removed.is_empty() {
            return None;
        }
        let (cluster, epoch, is_whole) = (name.to_owned(), own.epoch, before.is_none());
        Some(Publication { cluster, epoch, link, checks, removed, is_whole })
    }

    /// What was due of this view is written, except of the clusters that were refused.
    pub fn published(&mut self, view: &FleetView, due: Vec<Publication>, refused: &[String]) {
        self.0.retain(|name, _| view.clusters.get(name).is_some_and(|entry| entry.own.is_some()));
        for Publication { cluster, epoch, link, .. } in due {
            let Some(entry) = view.clusters.get(&cluster) else { continue };
            if refused.contains(&cluster) {
                self.0.remove(&cluster);
                continue;
            }
            let checks = Arc::clone(&entry.checks);
            match (self.0.get_mut(&cluster), link) {
                (_, Some(link)) => drop(self.0.insert(cluster, Published { epoch, link, checks })),
                (Some(known), None) => known.checks = checks,
                // A whole cluster has a link.
                (None, None) => {}
            }
        }
    }
}

/// Whether nothing changed that is worth a write.
fn same_link(before: &ShownLink, now: &ShownLink) -> bool {
    let ShownLink { last_heard_at, .. } = before;
    let heard = |at: &Option<Timestamp>| at.map_or(i64::MIN, Timestamp::as_millisecond);
    let step = i64::try_from(HEARD_STEP.as_millis()).unwrap_or(i64::MAX);
    let is_later = heard(&now.last_heard_at).saturating_sub(heard(last_heard_at)) >= step;
    !is_later && ShownLink { last_heard_at: *last_heard_at, ..now.clone() } == *before
}

fn shown(check: &CheckView) -> ShownCheck {
    ShownCheck { state: check.state.clone(), health: check.health.clone(), status: check.status }
}

/// The checks that changed, and the uids of those that are gone. What people say of a check is not the replica's.
fn changes(before: &Checks, after: &Checks) -> (Vec<ShownCheck>, Vec<String>) {
    let same = |old: &CheckView, new: &CheckView| {
        old.status == new.status && old.state == new.state && old.health == new.health
    };
    let changed = after
        .iter()
        .filter(|(key, check)| !before.get(*key).is_some_and(|old| Arc::ptr_eq(old, check) || same(old, check)));
    let changed = changed.map(|(_, check)| shown(check)).collect();
    let removed = before.iter().filter(|(key, old)| after.get(*key).is_none_or(|new| new.state.uid != old.state.uid));
    (changed, removed.map(|(_, old)| old.state.uid.clone()).collect())
}
