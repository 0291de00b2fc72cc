//! Incidents of clusters that cannot be reached.
//!
//! A cluster gets an incident of its own, and gives it up for that of a label, or of the whole fleet, when so many with
//! it are gone that one reason is likelier than many. There it stays until it is heard again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::explain::{Fact, QUORUM_CLUSTERS, differences, is_widespread};
use super::{Finding, Incidents, in_scope, opened, place};
use crate::fleet::ClusterEntry;
use crate::view::{Closed, ClusterStatus, Incident, IncidentCounts, IncidentKind, LabelValue, Member, SilencedBy};

impl Incidents {
    pub(super) fn review_reach(&mut self, now: Timestamp) -> Vec<Arc<Incident>> {
        let unreachable = |entry: &ClusterEntry| entry.view.status == ClusterStatus::Unreachable;
        self.refused.retain(|subject| {
            let cluster = subject.strip_prefix("cluster/").map(|name| self.seen.get(name));
            cluster.is_none_or(|entry| entry.is_some_and(|entry| unreachable(entry)))
        });
        let is_quiet = !self.open.values().any(|incident| incident.kind == IncidentKind::Unreachable);
        if is_quiet && !self.seen.values().any(|entry| unreachable(entry)) {
            return Vec::new();
        }
        let mut groups = self.known_groups();
        let taken: BTreeSet<String> = groups.values().flatten().cloned().collect();
        let gone = self.seen.iter().filter(|(name, entry)| unreachable(entry) && !taken.contains(*name));
        let fresh: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in fresh {
            let home = groups.keys().find(|subject| self.fits(&name, subject)).cloned();
            groups.entry(home.unwrap_or_else(|| single(&name))).or_default().insert(name);
        }
        let mut changed = Vec::new();
        if let Some(subject) = self.common(&groups) {
            changed.extend(self.merge(now, &mut groups, &subject));
        }
        for (subject, clusters) in groups {
            changed.extend(self.review_group(now, &subject, &clusters));
        }
        changed
    }

    /// The clusters of each open incident.
    fn known_groups(&self) -> BTreeMap<String, BTreeSet<String>> {
        let known = self.open.iter().filter(|(_, incident)| incident.kind == IncidentKind::Unreachable);
        let clusters = |incident: &Incident| incident.members.iter().map(|member| member.cluster.clone()).collect();
        known.map(|(subject, incident)| (subject.clone(), clusters(incident))).collect()
    }

    /// Whether a cluster belongs to an incident by its label.
    fn fits(&self, cluster: &str, subject: &str) -> bool {
        match subject.strip_prefix("label/").and_then(|label| label.split_once('=')) {
            Some((label, value)) => {
                let entry = self.seen.get(cluster);
                entry.is_some_and(|entry| entry.view.labels.get(label).is_some_and(|own| own == value))
            }
            None => subject == "fleet" || subject == single(cluster),
        }
    }

    /// What the clusters with incidents of their own have in common, where they are many.
    fn common(&self, groups: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
        if groups.keys().filter(|subject| subject.starts_with("cluster/")).count() < QUORUM_CLUSTERS as usize {
            return None;
        }
        let grouped: BTreeSet<&String> = groups
            .iter()
            .filter(|(subject, _)| !subject.starts_with("cluster/"))
            .flat_map(|(_, names)| names)
            .collect();
        let telling = self.seen.iter().filter(|(name, _)| !grouped.contains(name));
        let facts: Vec<Fact<'_>> = telling.filter_map(|(_, entry)| fact(entry)).collect();
        let failing = facts.iter().filter(|fact| fact.is_failing).count();
        let (all, _) = differences(&facts);
        // A version is what an agent said last; a group is of what people said of their clusters.
        let own =
            all.iter().find(|difference| !difference.built_in && is_widespread(difference.failing, difference.of));
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        match own {
            Some(difference) => Some(format!("label/{}={}", difference.is.label, difference.is.value)),
            None => is_widespread(count(failing), count(facts.len())).then(|| "fleet".to_owned()),
        }
    }

    /// Moves the clusters that fit out of their own incidents, which are closed.
    fn merge(
        &mut self,
        now: Timestamp,
        groups: &mut BTreeMap<String, BTreeSet<String>>,
        subject: &str,
    ) -> Vec<Arc<Incident>> {
        let alone = groups.iter().filter(|(own, names)| {
            own.starts_with("cluster/") && names.len() == 1 && names.iter().all(|name| self.fits(name, subject))
        });
        let moved: Vec<(String, BTreeSet<String>)> = alone.map(|(own, names)| (own.clone(), names.clone())).collect();
        let mut group = self
            .open
            .get(subject)
            .map(|known| Incident::clone(known))
            .unwrap_or_else(|| opened(now, IncidentKind::Unreachable, subject));
        let mut changed = Vec::new();
        for (own, names) in moved {
            groups.remove(&own);
            groups.entry(subject.to_owned()).or_default().extend(names);
            if let Some(single) = self.open.remove(&own) {
                group.first_seen = group.first_seen.min(single.first_seen);
                let merged_into = Some(group.id.clone());
                let (closed_at, closed) = (Some(now), Some(Closed::Merged));
                let last_change = now;
                let closed = Incident { closed_at, closed, merged_into, last_change, ..Incident::clone(&single) };
                self.places.note(&closed);
                changed.push(Arc::new(closed));
            }
        }
        self.open.entry(subject.to_owned()).or_insert_with(|| Arc::new(group));
        changed
    }

    fn review_group(&mut self, now: Timestamp, subject: &str, clusters: &BTreeSet<String>) -> Option<Arc<Incident>> {
        let mut finding = Finding { members: Vec::new(), counts: IncidentCounts::default(), has_recovered: false };
        for (name, entry) in &self.seen {
            let is_member = clusters.contains(name);
            let counts = &mut finding.counts;
            match entry.view.status {
                // One of another incident is not counted here.
                ClusterStatus::Unreachable if is_member => counts.failing += 1,
                ClusterStatus::Unreachable | ClusterStatus::Pending => {}
                ClusterStatus::Reconnecting => counts.unknown += 1,
                ClusterStatus::Connected => {
                    counts.healthy += 1;
                    finding.has_recovered |= is_member;
                }
            }
            if is_member && entry.view.status != ClusterStatus::Connected {
                finding.members.push(member(entry));
            }
        }
        if !self.has_place(subject, IncidentKind::Unreachable, &finding) {
            return None;
        }
        let known = self.open.get(subject);
        let mut next = known
            .map(|known| Incident::clone(known))
            .unwrap_or_else(|| opened(now, IncidentKind::Unreachable, subject));
        if known.is_none_or(|known| finding.is_news(known)) {
            self.describe_group(&mut next, &finding);
        }
        self.settle(now, next, finding)
    }

    fn describe_group(&self, next: &mut Incident, finding: &Finding) {
        // Of a single cluster no label can be told apart from another.
        if !next.subject.starts_with("cluster/") {
            let facts: Vec<Fact<'_>> = self.seen.values().filter_map(|entry| fact(entry)).collect();
            next.differences = differences(&facts).0;
        }
        let label = next.subject.strip_prefix("label/").and_then(|label| label.split_once('='));
        next.scope = label.map(|(label, value)| LabelValue { label: label.to_owned(), value: value.to_owned() });
        if finding.counts.failing > 0 {
            next.counts = in_scope(finding.counts, next);
            let verb = if finding.members.len() == 1 && next.scope.is_none() { "is" } else { "are" };
            next.title = format!("{} {verb} unreachable", place(next, &finding.members));
        }
    }
}

fn single(cluster: &str) -> String {
    format!("cluster/{cluster}")
}

/// What a cluster tells, as far as it ever connected.
fn fact(entry: &ClusterEntry) -> Option<Fact<'_>> {
    let is_failing = match entry.view.status {
        ClusterStatus::Unreachable => true,
        ClusterStatus::Connected => false,
        ClusterStatus::Reconnecting | ClusterStatus::Pending => return None,
    };
    Some(Fact::new(entry, None, is_failing))
}

/// Nobody is called for a cluster whose checks are all in maintenance.
fn member(entry: &ClusterEntry) -> Member {
    let in_maintenance =
        !entry.checks.is_empty() && entry.checks.values().all(|check| check.care.maintenance.is_some());
    Member {
        cluster: entry.view.name.clone(),
        status: entry.view.status.as_str().to_owned(),
        since: entry.view.last_heard_at,
        message: entry.view.message.clone(),
        flapping: false,
        silenced_by: in_maintenance.then_some(SilencedBy::Maintenance),
    }
}
