//! Places for open incidents. There is a limit, and no cluster takes all that is below it: neither from the incidents of
//! other clusters, nor from those that say that a cluster cannot be reached.

use std::collections::BTreeMap;

use crate::view::{Incident, IncidentKind, Member};

/// Most incidents that are open at once; what is beyond is counted.
pub const MAX_OPEN: usize = 1000;
/// How many of the places only those of unreachable clusters get.
pub const KEPT_FOR_REACH: usize = 100;
/// Most open incidents about checks that fail in the same one cluster and nowhere else.
pub const MAX_OF_ONE_CLUSTER: usize = 100;

/// Who has which places.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Incidents of one cluster alone, by subject. One that has recovered stays the cluster's until it is closed.
    alone: BTreeMap<String, String>,
    /// How many of these each cluster has.
    taken: BTreeMap<String, usize>,
    is_freed: bool,
}

impl Places {
    /// Whether there is a place for one more, besides so many that are open.
    pub(super) fn is_free(&self, open: usize, kind: IncidentKind, members: &[Member]) -> bool {
        match (kind, members) {
            (IncidentKind::Unreachable, _) => open < MAX_OPEN,
            (IncidentKind::Check, [only]) => {
                let own = self.taken.get(&only.cluster).copied().unwrap_or_default();
                own < MAX_OF_ONE_CLUSTER && open < MAX_OPEN - KEPT_FOR_REACH
            }
            (IncidentKind::Check, _) => open < MAX_OPEN - KEPT_FOR_REACH,
        }
    }

    /// Notes what an incident has become.
    pub(super) fn note(&mut self, incident: &Incident) {
        let is_closed = incident.closed_at.is_some();
        let cluster = match (incident.kind, incident.members.as_slice()) {
            (IncidentKind::Check, [only]) if !is_closed => Some(&only.cluster),
            (IncidentKind::Check, []) if !is_closed => return,
            (IncidentKind::Check | IncidentKind::Unreachable, _) => None,
        };
        self.is_freed |= is_closed;
        if let Some(former) = self.alone.remove(&incident.subject)
            && let Some(own) = self.taken.get_mut(&former)
        {
            self.is_freed |= cluster != Some(&former);
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.taken.remove(&former);
            }
        }
        if let Some(cluster) = cluster {
            *self.taken.entry(cluster.clone()).or_default() += 1;
            self.alone.insert(incident.subject.clone(), cluster.clone());
        }
    }

    /// Whether a place became free since this was asked last.
    pub(super) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.is_freed)
    }
}
