//! What changed before an incident began, as far as it may have to do with it.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::fleet::ClusterEntry;
use crate::view::{CheckView, Incident, IncidentKind, Prior, PriorKind};

/// How far back it is looked.
pub const LOOK_BACK: SignedDuration = SignedDuration::from_hours(1);
/// Most changes of an incident.
const MAX_CHANGES: usize = 20;
/// Most changes that are remembered.
const MAX_REMEMBERED: usize = 2000;

/// Changes that nobody made by a call of the API: the published view tells them.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Prior>);

impl Recent {
    /// Notes what is another version in a cluster.
    pub(super) fn cluster(&mut self, at: Timestamp, before: &ClusterEntry, after: &ClusterEntry) {
        let versions = [
            (PriorKind::AgentVersion, &before.view.agent_version, &after.view.agent_version),
            (PriorKind::KubernetesVersion, &before.view.kubernetes_version, &after.view.kubernetes_version),
        ];
        for (kind, old, new) in versions.into_iter().filter(|(_, old, new)| old != new && !old.is_empty()) {
            let (what, object) = (format!("{old} -> {new}"), after.view.name.clone());
            self.note(Prior { at, kind, who: String::new(), what, object });
        }
    }

    /// Notes a remedy that ended.
    pub(super) fn check(&mut self, at: Timestamp, before: &CheckView, after: &CheckView) {
        let ended = |check: &CheckView| check.state.remedy.as_ref().and_then(|totals| totals.finished_at);
        if ended(after).is_some() && ended(before) != ended(after) {
            let object = format!("{}/{}/{}", after.cluster, after.state.namespace, after.state.name);
            let what = format!("remedy {}", after.state.remedy_status);
            self.note(Prior { at, kind: PriorKind::Remedy, who: String::new(), what, object });
        }
    }

    fn note(&mut self, prior: Prior) {
        if self.0.len() == MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(prior);
    }
}

/// The changes of the hour before an incident that concern it, newest first. `told` are those that people made.
pub(super) fn of(incident: &Incident, recent: &Recent, told: &[Prior]) -> Vec<Prior> {
    let since = incident.first_seen.saturating_sub(LOOK_BACK).unwrap_or(incident.first_seen);
    let in_time = |prior: &&Prior| prior.at >= since && prior.at <= incident.first_seen;
    let all = recent.0.iter().chain(told).filter(in_time);
    let mut changes: Vec<Prior> = all.filter(|prior| concerns(incident, prior)).cloned().collect();
    changes.sort_by_key(|prior| std::cmp::Reverse(prior.at));
    changes.truncate(MAX_CHANGES);
    changes
}

/// Whether a change touched a failing cluster or what fails there.
fn concerns(incident: &Incident, prior: &Prior) -> bool {
    let mut parts = prior.object.split(['/', ':']);
    let is_member = parts.next().is_some_and(|cluster| incident.members.iter().any(|member| member.cluster == cluster));
    match prior.kind {
        PriorKind::Definition => {
            incident.kind == IncidentKind::Check && incident.definition.as_ref() == Some(&prior.object)
        }
        PriorKind::Window => true,
        PriorKind::Command
        | PriorKind::Cluster
        | PriorKind::AgentVersion
        | PriorKind::KubernetesVersion
        | PriorKind::Remedy => is_member,
    }
}
