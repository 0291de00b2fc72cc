//! Incidents: what is wrong in the fleet, said once however many clusters it is wrong in.
//!
//! A check that fails in many clusters is one incident: the checks of one definition, or of one namespace and name. An
//! unreachable cluster is one, and several with a label in common are one ([`reach`]). An incident has its subject for its
//! whole life, so its id stays though the clusters in it come and go; which label explains it best ([`explain`]) is said
//! of it and may change.
//!
//! It ends on evidence alone: a member leaves when it is seen to be well, or when nothing is left of it that could fail. What
//! is not known keeps it open. When the last member has left, the incident stays for [`CLOSE_AFTER`], and what fails again
//! meanwhile belongs to it.
//!
//! Pure, and cheap where nothing changed: [`Incidents::evaluate`] looks at clusters and checks whose published pointers
//! are others than last time, and reviews the subjects that those concern.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::fleet::{Checks, ClusterEntry, FleetView};
use crate::view::{
    CheckStatus, CheckView, Closed, Incident, IncidentCounts, IncidentKind, LabelValue, Member, Prior, SilencedBy,
};

mod explain;
mod places;
mod prior;
mod reach;
#[cfg(test)]
pub(crate) mod tests;

use explain::{Fact, differences, is_widespread};
use places::Places;
pub use places::{KEPT_FOR_REACH, MAX_OF_ONE_CLUSTER, MAX_OPEN};
pub use prior::LOOK_BACK;
use prior::Recent;

/// How long nothing of an incident is wrong before it is closed.
pub const CLOSE_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// The open incidents, and what they are made from.
#[derive(Debug, Default)]
pub struct Incidents {
    seen: BTreeMap<String, Arc<ClusterEntry>>,
    /// The checks of each subject.
    checks: BTreeMap<String, Subject>,
    open: BTreeMap<String, Arc<Incident>>,
    recent: Recent,
    places: Places,
    /// Subjects without a place.
    refused: BTreeSet<String>,
    refused_total: u64,
}

/// The checks of a subject, by (cluster, namespace, name): a definition that gives its check another name has two of them
/// in a cluster for a while.
type Subject = BTreeMap<(String, String, String), Arc<CheckView>>;

/// What is seen of an incident's subject now.
struct Finding {
    members: Vec<Member>,
    counts: IncidentCounts,
    /// Members of the last time that are now seen to be well.
    has_recovered: bool,
}

impl Finding {
    /// Whether it is something else than what is known.
    fn is_news(&self, known: &Incident) -> bool {
        let IncidentCounts { failing, healthy, unknown, failing_in_scope: _, in_scope: _ } = self.counts;
        (failing, healthy, unknown) != (known.counts.failing, known.counts.healthy, known.counts.unknown)
            || self.members != known.members
    }
}

/// What one check says. Of several in a cluster the last in this order speaks for all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Nothing is asked of it.
    Out,
    Healthy,
    Unknown,
    Failing,
}

impl Incidents {
    /// Goes on with incidents of an earlier life of the hub.
    pub fn restore(open: impl IntoIterator<Item = Incident>) -> Incidents {
        let open: BTreeMap<_, _> =
            open.into_iter().map(|incident| (incident.subject.clone(), Arc::new(incident))).collect();
        let mut places = Places::default();
        open.values().for_each(|incident| places.note(incident));
        Incidents { open, places, ..Incidents::default() }
    }

    /// Compares the fleet with what it was last time; returns each incident that is new, changed or closed.
    pub fn evaluate(&mut self, now: Timestamp, view: &FleetView) -> Vec<Arc<Incident>> {
        // What was restored may be about something that is gone; later ones are reviewed when that goes, and to be closed.
        let is_first = self.seen.is_empty();
        let mut dirty = self.take_up(now, view);
        let waiting = self.open.iter().filter(|(_, incident)| is_first || incident.recovered_at.is_some());
        dirty.extend(waiting.map(|(subject, _)| subject.clone()));
        let mut changed = self.review_reach(now);
        for subject in dirty {
            changed.extend(self.review(now, &subject));
        }
        if self.places.take_freed() {
            let waiting = self.refused.iter().filter(|subject| self.checks.contains_key(*subject));
            for subject in waiting.cloned().collect::<Vec<_>>() {
                changed.extend(self.review(now, &subject));
            }
        }
        changed
    }

    /// The hub's clock was set by `by`: what is well is well for as long as before. Dates that people see stay.
    pub fn stepped(&mut self, by: SignedDuration) {
        for incident in self.open.values_mut().filter(|incident| incident.recovered_at.is_some()) {
            let incident = Arc::make_mut(incident);
            incident.recovered_at = incident.recovered_at.map(|at| at.saturating_add(by).unwrap_or(at));
        }
    }

    /// The open incidents: widespread ones first, then those that call somebody, then the oldest.
    pub fn open(&self) -> Vec<Arc<Incident>> {
        let mut open: Vec<_> = self.open.values().cloned().collect();
        open.sort_by_key(|incident| (!incident.widespread, incident.silenced, incident.first_seen));
        open
    }

    /// Incidents that had to wait for a place, or did not get one: see [`MAX_OPEN`] and [`MAX_OF_ONE_CLUSTER`].
    pub fn refused_total(&self) -> u64 {
        self.refused_total
    }

    /// Says of an open incident what changed before it; `told` are changes that people made.
    pub fn explain(&mut self, subject: &str, told: &[Prior]) -> Option<Arc<Incident>> {
        let incident = Arc::make_mut(self.open.get_mut(subject)?);
        incident.changes = prior::of(incident, &self.recent, told);
        self.open.get(subject).cloned()
    }

    /// Takes up what changed in the view; returns the subjects that must be reviewed.
    fn take_up(&mut self, now: Timestamp, view: &FleetView) -> BTreeSet<String> {
        let mut dirty = BTreeSet::new();
        let nothing = Arc::<Checks>::default();
        for (name, entry) in &view.clusters {
            let before = self.seen.get(name).cloned();
            if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, entry)) {
                continue;
            }
            if let Some(before) = &before {
                self.recent.cluster(now, before, entry);
            }
            let old = before.as_ref().map_or(&nothing, |before| &before.checks);
            self.take_up_checks(now, old, &entry.checks, &mut dirty);
            self.seen.insert(name.clone(), entry.clone());
        }
        let gone: Vec<String> = self.seen.keys().filter(|name| !view.clusters.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(entry) = self.seen.remove(&name) {
                self.take_up_checks(now, &entry.checks, &nothing, &mut dirty);
            }
        }
        dirty
    }

    fn take_up_checks(&mut self, now: Timestamp, old: &Checks, new: &Checks, dirty: &mut BTreeSet<String>) {
        for (key, check) in new {
            let before = old.get(key);
            if before.is_some_and(|before| Arc::ptr_eq(before, check)) {
                continue;
            }
            let subject = subject_of(check);
            if let Some(before) = before {
                self.recent.check(now, before, check);
                let former = subject_of(before);
                if former != subject {
                    self.forget(&former, before, dirty);
                }
            }
            if verdict(check, false) == Verdict::Failing || self.is_known(&subject) {
                dirty.insert(subject.clone());
            }
            self.checks.entry(subject).or_default().insert(place_of(check), check.clone());
        }
        for (_, check) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            self.forget(&subject_of(check), check, dirty);
        }
    }

    fn forget(&mut self, subject: &str, check: &CheckView, dirty: &mut BTreeSet<String>) {
        if let Some(checks) = self.checks.get_mut(subject) {
            checks.remove(&place_of(check));
            if checks.is_empty() {
                self.checks.remove(subject);
            }
        }
        if self.is_known(subject) {
            dirty.insert(subject.to_owned());
        }
    }

    /// Whether it is open, or has no place.
    fn is_known(&self, subject: &str) -> bool {
        self.open.contains_key(subject) || self.refused.contains(subject)
    }

    /// Whether there is a place for what is found, if it needs one.
    fn has_place(&mut self, subject: &str, kind: IncidentKind, finding: &Finding) -> bool {
        let has_place = self.open.contains_key(subject) || self.places.is_free(self.open.len(), kind, &finding.members);
        if !has_place {
            self.refused_total += u64::from(self.refused.insert(subject.to_owned()));
        }
        has_place
    }

    /// Opens, changes or closes the incident of a subject that is about checks.
    fn review(&mut self, now: Timestamp, subject: &str) -> Option<Arc<Incident>> {
        let nothing = BTreeMap::new();
        let checks = self.checks.get(subject).unwrap_or(&nothing);
        let known = self.open.get(subject);
        if known.is_some_and(|known| known.kind != IncidentKind::Check) {
            return None;
        }
        let finding = look(checks, known.map(|known| &**known));
        if known.is_none() && finding.counts.failing == 0 {
            self.refused.remove(subject);
            return None;
        }
        if !self.has_place(subject, IncidentKind::Check, &finding) {
            return None;
        }
        let (checks, known) = (self.checks.get(subject).unwrap_or(&nothing), self.open.get(subject));
        let mut next =
            known.map(|known| Incident::clone(known)).unwrap_or_else(|| opened(now, IncidentKind::Check, subject));
        if known.is_none_or(|known| finding.is_news(known)) {
            self.describe(&mut next, checks, &finding);
        }
        self.settle(now, next, finding)
    }

    /// Where a check fails, and what explains it.
    fn describe(&self, next: &mut Incident, checks: &Subject, finding: &Finding) {
        let same = |of: fn(&CheckView) -> &str| {
            let mut values = checks.values().map(|check| of(check));
            let first = values.next()?;
            values.all(|value| value == first).then(|| first.to_owned())
        };
        next.namespace = same(|check| &check.state.namespace).or(next.namespace.take());
        next.name = same(|check| &check.state.name).or(next.name.take());
        next.definition = next.subject.strip_prefix("definition/").map(str::to_owned);
        let members: BTreeSet<&str> = finding.members.iter().map(|member| member.cluster.as_str()).collect();
        let telling = by_cluster(checks, &members).into_iter().filter_map(|(cluster, (verdict, check))| {
            let is_failing = match verdict {
                Verdict::Failing => true,
                Verdict::Healthy => false,
                Verdict::Unknown | Verdict::Out => return None,
            };
            Some(Fact::new(self.seen.get(cluster)?, Some(check), is_failing))
        });
        let facts: Vec<Fact<'_>> = telling.collect();
        (next.differences, next.scope) = differences(&facts);
        if finding.counts.failing > 0 {
            next.counts = in_scope(finding.counts, next);
            let subject = match (&next.namespace, &next.name) {
                (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
                (_, _) => next.subject.clone(),
            };
            next.title = format!("{subject} fails in {}", place(next, &finding.members));
        }
    }

    /// Keeps what an incident has become, if that is another thing than it was.
    fn settle(&mut self, now: Timestamp, mut next: Incident, finding: Finding) -> Option<Arc<Incident>> {
        let Finding { members, counts, has_recovered } = finding;
        let subject = next.subject.clone();
        let known = self.open.get(&subject);
        next.members = members;
        next.counts = in_scope(counts, &next);
        next.widespread |= is_widespread(next.counts.failing_in_scope, next.counts.in_scope);
        let failing = next.members.iter().filter(|member| is_bad(&member.status) || member.flapping);
        next.silenced = next.members.iter().all(|member| member.silenced_by.is_some()) && !next.members.is_empty()
            || known.is_some_and(|known| known.silenced) && next.members.is_empty();
        next.flapping = failing.into_iter().any(|member| member.flapping);
        if next.members.is_empty() {
            let ending = if has_recovered { Closed::Recovered } else { Closed::Withdrawn };
            next.recovered_at.get_or_insert(now);
            next.closed.get_or_insert(ending);
        } else {
            (next.recovered_at, next.closed) = (None, None);
        }
        if next.recovered_at.is_some_and(|at| now.duration_since(at) >= CLOSE_AFTER) {
            next.closed_at = Some(now);
        }
        self.keep(now, next)
    }

    fn keep(&mut self, now: Timestamp, mut next: Incident) -> Option<Arc<Incident>> {
        if self.open.get(&next.subject).is_some_and(|known| **known == next) {
            return None;
        }
        next.last_change = now;
        self.places.note(&next);
        let (subject, is_closed, next) = (next.subject.clone(), next.closed_at.is_some(), Arc::new(next));
        if is_closed {
            self.open.remove(&subject);
        } else {
            self.open.insert(subject.clone(), next.clone());
        }
        self.refused.remove(&subject);
        Some(next)
    }
}

fn opened(now: Timestamp, kind: IncidentKind, subject: &str) -> Incident {
    let digest = Sha256::digest(subject.as_bytes());
    Incident {
        id: hex::encode(&digest[..8]),
        kind,
        subject: subject.to_owned(),
        title: String::new(),
        namespace: None,
        name: None,
        definition: None,
        widespread: false,
        silenced: false,
        flapping: false,
        first_seen: now,
        last_change: now,
        recovered_at: None,
        closed_at: None,
        closed: None,
        merged_into: None,
        counts: IncidentCounts::default(),
        scope: None,
        differences: Vec::new(),
        changes: Vec::new(),
        members: Vec::new(),
    }
}

/// Checks of one definition belong together whatever they are called in a cluster, others by namespace and name.
fn subject_of(check: &CheckView) -> String {
    let state = &check.state;
    match &state.definition {
        Some(from) => format!("definition/{}", from.name),
        None => format!("check/{}/{}", state.namespace, state.name),
    }
}

/// A check that flaps is not well again because its last result was.
fn verdict(check: &CheckView, is_member: bool) -> Verdict {
    // Its parent has an incident of its own.
    if check.care.explained_by.is_some() {
        return Verdict::Unknown;
    }
    match check.status {
        CheckStatus::Failed | CheckStatus::Invalid | CheckStatus::Overdue => Verdict::Failing,
        CheckStatus::Succeeded if check.health.flapping && is_member => Verdict::Failing,
        CheckStatus::Succeeded => Verdict::Healthy,
        CheckStatus::Stale | CheckStatus::Pending => Verdict::Unknown,
        CheckStatus::Stopped => Verdict::Out,
    }
}

fn is_bad(status: &str) -> bool {
    [CheckStatus::Failed, CheckStatus::Invalid, CheckStatus::Overdue].iter().any(|bad| bad.as_str() == status)
}

fn place_of(check: &CheckView) -> (String, String, String) {
    (check.cluster.clone(), check.state.namespace.clone(), check.state.name.clone())
}

/// What the checks of a subject say of each cluster, and the one that says it.
fn by_cluster<'a>(checks: &'a Subject, members: &BTreeSet<&str>) -> BTreeMap<&'a str, (Verdict, &'a CheckView)> {
    let mut clusters: BTreeMap<&str, (Verdict, &CheckView)> = BTreeMap::new();
    for ((cluster, _, _), check) in checks {
        let verdict = verdict(check, members.contains(cluster.as_str()));
        let said = clusters.entry(cluster).or_insert((verdict, check));
        if verdict > said.0 {
            *said = (verdict, check);
        }
    }
    clusters
}

fn look(checks: &Subject, known: Option<&Incident>) -> Finding {
    let mut finding = Finding { members: Vec::new(), counts: IncidentCounts::default(), has_recovered: false };
    let was: BTreeSet<&str> =
        known.iter().flat_map(|known| &known.members).map(|member| member.cluster.as_str()).collect();
    for (cluster, (verdict, check)) in by_cluster(checks, &was) {
        let was_member = was.contains(cluster);
        match verdict {
            Verdict::Failing => {
                finding.counts.failing += 1;
                finding.members.push(member(check));
            }
            Verdict::Healthy => {
                finding.counts.healthy += 1;
                finding.has_recovered |= was_member;
            }
            Verdict::Unknown => {
                finding.counts.unknown += 1;
                if was_member {
                    finding.members.push(member(check));
                }
            }
            Verdict::Out => {}
        }
    }
    finding
}

fn member(check: &CheckView) -> Member {
    let silenced_by = if check.care.explained_by.is_some() {
        Some(SilencedBy::Dependency)
    } else if check.care.maintenance.is_some() {
        Some(SilencedBy::Maintenance)
    } else {
        check.care.acknowledgement.as_ref().map(|_| SilencedBy::Acknowledgement)
    };
    Member {
        cluster: check.cluster.clone(),
        status: check.status.as_str().to_owned(),
        since: check.health.since,
        message: check.state.message.clone(),
        flapping: check.health.flapping,
        silenced_by,
    }
}

/// The numbers of the scope, where there is one.
fn in_scope(counts: IncidentCounts, incident: &Incident) -> IncidentCounts {
    let scope = incident.scope.as_ref();
    let within = incident.differences.iter().find(|difference| Some(&difference.is) == scope);
    let (failing_in_scope, in_scope) =
        within.map_or((counts.failing, counts.failing + counts.healthy), |within| (within.failing, within.of));
    IncidentCounts { failing_in_scope, in_scope, ..counts }
}

/// `eu-1`, or `37 of 40 clusters with region=eu`.
fn place(incident: &Incident, members: &[Member]) -> String {
    let counts = incident.counts;
    match (&incident.scope, members) {
        (None, [only]) => only.cluster.clone(),
        (Some(LabelValue { label, value }), _) => {
            format!("{} of {} clusters with {label}={value}", counts.failing_in_scope, counts.in_scope)
        }
        (None, _) => format!("{} of {} clusters", counts.failing, counts.failing + counts.healthy),
    }
}
