//! The link to a cluster: who is connected, when it was heard, and what is odd about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::checks::Known;
use super::elsewhere::{Own, Place};
use super::{ClusterEntry, Deadline, Fleet, Refusal, count, later};
use crate::policy::PolicySetting;
use crate::self_test::SelfTest;
use crate::session::frame::{Heartbeat, Hello};
use crate::session::hub::MAX_CHECKS;
use crate::version;
use crate::view::{ClusterStatus, ClusterView, Event, PendingEnrolment};

/// How long something odd stays in a cluster's message after it was seen last.
const ODDITY_SHOWN: Duration = Duration::from_secs(10 * 60);
/// A clock that is off by more is worth a message: slots are counted by it.
const CLOCK_TOLERANCE_MS: i64 = 5_000;
const TOLERANCE: Duration = Duration::from_millis(CLOCK_TOLERANCE_MS.unsigned_abs());
/// Incarnations that are remembered as replaced.
const MAX_REPLACED: usize = 8;

/// A cluster's link and the bookkeeping of its checks.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// uid of the kube-system namespace that enrolled.
    pub(super) uid: Option<String>,
    /// Known from an earlier life of the hub: it has a lease of grace instead of being Pending.
    pub(super) restored: bool,
    /// Something that a person should look at, and when it was seen last.
    pub(super) oddity: Option<(String, Timestamp)>,
    /// When the cluster's next deadline is. An earlier one than needed is harmless.
    pub(super) armed: Option<Timestamp>,
    /// Checks by uid.
    pub(super) checks: BTreeMap<String, Known>,
    /// Some check of it depends, or depended, on another.
    pub(super) has_dependencies: bool,
    /// Hashes of the uids of checks that were refused since the session began: there are too many. Bounded by as many as
    /// are taken.
    refused: BTreeSet<u64>,
    /// Epoch of the newest session, open or not.
    epoch: u64,
    session: Option<Session>,
    /// The newest session is, or was, at this replica of the hub.
    is_here: bool,
    /// What is shown is the word of another replica.
    pub(super) elsewhere: Option<Place>,
    /// When the last chunk of a snapshot must be here, absent once it is. A session takes over the deadline of the one
    /// before: an agent that connects again and again must not keep old statuses alive.
    snapshot_due: Option<Timestamp>,
    /// The checks have been told that the snapshot is late.
    lateness_shown: bool,
    heard_at: Option<Timestamp>,
    /// The cluster's clock minus the hub's, where the hub's was set and the cluster's goes on as before: the hub's is the wrong
    /// one then, and slots are judged by the cluster's.
    offset: SignedDuration,
    /// Incarnations whose session another one took over while it was alive.
    replaced: VecDeque<String>,
}

#[derive(Debug)]
struct Session {
    incarnation: String,
}

impl Link {
    /// Epoch of the open session.
    pub(super) fn open_epoch(&self) -> Option<u64> {
        self.session.as_ref().map(|_| self.epoch)
    }

    /// Takes note that the newest session has this epoch and is at another replica: one that was here is over. False where
    /// a newer one is known.
    pub(super) fn moves(&mut self, epoch: u64) -> bool {
        if epoch < self.epoch || (epoch == self.epoch && self.is_here) {
            return false;
        }
        if std::mem::take(&mut self.is_here) {
            self.session = None;
            self.refused.clear();
        }
        self.epoch = epoch;
        true
    }

    /// The incarnation whose session is alive, here or elsewhere.
    pub(super) fn live_incarnation(&self, now: Timestamp, lease: Duration) -> Option<String> {
        let is_alive = self.heard_at.is_some_and(|heard| later(heard, lease) > now);
        let here = self.session.as_ref().filter(|_| is_alive).map(|session| session.incarnation.clone());
        here.or_else(|| self.elsewhere.as_ref().and_then(Place::live_incarnation))
    }

    /// The session of `old`, which was alive, is over by that of `new`. Says whether the two take turns.
    pub(super) fn replace(&mut self, old: Option<String>, new: &str) -> bool {
        let Some(old) = old.filter(|old| old != new) else { return false };
        let takes_turns = self.replaced.iter().any(|replaced| replaced == new);
        self.replaced.push_back(old);
        if self.replaced.len() > MAX_REPLACED {
            self.replaced.pop_front();
        }
        takes_turns
    }

    /// When the snapshot of the session at another replica must be complete.
    pub(super) fn expect_snapshot(&mut self, due: Option<Timestamp>) {
        self.snapshot_due = due;
    }

    /// Whether this check is one too many.
    pub(super) fn is_full_for(&self, uid: &str) -> bool {
        self.checks.len() >= MAX_CHECKS && !self.checks.contains_key(uid)
    }

    /// Notes whether a check is refused; says whether that is news.
    pub(super) fn refuse(&mut self, uid: &str, is_refused: bool) -> bool {
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        match is_refused {
            true => self.refused.len() < MAX_CHECKS && self.refused.insert(hasher.finish()),
            false => self.refused.remove(&hasher.finish()),
        }
    }

    /// Whether the snapshot of the open session is late: what it did not name says nothing about now.
    pub(super) fn snapshot_late(&self, now: Timestamp) -> bool {
        self.session.is_some() && self.snapshot_due.is_some_and(|due| due <= now)
    }

    /// The whole snapshot is here.
    pub(super) fn snapshot_done(&mut self) {
        self.snapshot_due = None;
        self.lateness_shown = false;
    }

    /// What the cluster's clock says at `now`, as far as that is to be believed.
    pub(super) fn their_time(&self, now: Timestamp) -> Timestamp {
        moved(now, self.offset)
    }

    /// When the cluster's clock will say this.
    pub(super) fn our_time(&self, theirs: Timestamp) -> Timestamp {
        moved(theirs, -self.offset)
    }

    /// The hub's clock was set by `by` while the cluster's was `skew` ahead of it.
    fn stepped(&mut self, by: SignedDuration, skew: SignedDuration) {
        let agreed = (skew - self.offset).unsigned_abs() <= TOLERANCE;
        self.offset = if agreed { self.offset - by } else { SignedDuration::ZERO };
        if self.offset.unsigned_abs() <= TOLERANCE {
            self.offset = SignedDuration::ZERO;
        }
        self.heard_at = self.heard_at.map(|at| moved(at, by));
        if let Some(place) = &mut self.elsewhere {
            place.stepped(by);
        }
        self.snapshot_due = self.snapshot_due.map(|at| moved(at, by));
        if let Some((_, seen)) = &mut self.oddity {
            *seen = moved(*seen, by);
        }
    }

    /// The cluster's clock is `skew` ahead of the hub's. True where it no longer goes on as it did when the hub's was set.
    fn contradicts(&mut self, skew: SignedDuration) -> bool {
        let is_other = !self.offset.is_zero() && (skew - self.offset).unsigned_abs() > TOLERANCE;
        if is_other {
            self.offset = SignedDuration::ZERO;
        }
        is_other
    }

    /// When silence becomes Unreachable, as far as it is not so already.
    fn lease_end(&self, started_at: Timestamp, lease: Duration) -> Option<Timestamp> {
        match self.heard_at {
            Some(heard) => Some(later(heard, lease)),
            None => self.restored.then(|| later(started_at, lease)),
        }
    }

    fn status(&self, now: Timestamp, started_at: Timestamp, lease: Duration) -> ClusterStatus {
        match self.lease_end(started_at, lease) {
            None => ClusterStatus::Pending,
            Some(end) if end <= now => ClusterStatus::Unreachable,
            Some(_) if self.session.is_some() => ClusterStatus::Connected,
            Some(_) => ClusterStatus::Reconnecting,
        }
    }

    fn message(&self, status: ClusterStatus, view: &ClusterView, hub_version: &str) -> String {
        let clock_skew_ms = view.clock_skew_ms;
        if let Some((text, _)) = &self.oddity {
            return text.clone();
        }
        if let Some(waits) = view.pending_enrolment.as_ref().filter(|waits| waits.is_undecided()) {
            let PendingEnrolment { key_fingerprint, .. } = waits;
            return format!("an agent waits for approval; the fingerprint of its key is {key_fingerprint}");
        }
        match status {
            ClusterStatus::Pending if self.uid.is_some() => "enrolled; its agent has not connected yet".to_owned(),
            ClusterStatus::Pending => "waiting for its agent to enrol".to_owned(),
            ClusterStatus::Reconnecting if self.heard_at.is_none() => "the hub has just started".to_owned(),
            ClusterStatus::Reconnecting => "the connection is closed".to_owned(),
            ClusterStatus::Unreachable if self.heard_at.is_none() => "not heard since the hub started".to_owned(),
            ClusterStatus::Unreachable => "silent for longer than the lease".to_owned(),
            ClusterStatus::Connected if !self.refused.is_empty() => {
                format!("{} checks are not shown: a cluster may have {MAX_CHECKS}", self.refused.len())
            }
            ClusterStatus::Connected if clock_skew_ms.abs() > CLOCK_TOLERANCE_MS => {
                let side = if clock_skew_ms > 0 { "ahead of" } else { "behind" };
                format!("the agent's clock is {} s {side} the hub's", clock_skew_ms.abs() / 1000)
            }
            ClusterStatus::Connected if view.self_test.as_ref().is_some_and(SelfTest::failed) => {
                let why = view.self_test.as_ref().map(|test| test.message.as_str()).unwrap_or_default();
                format!("enrolled, and its self-test failed: {why}")
            }
            ClusterStatus::Connected => version::warning(&view.agent_version, hub_version).unwrap_or_default(),
        }
    }
}

impl Fleet {
    pub(super) fn open_link(&mut self, now: Timestamp, hello: &Hello, epoch: Option<u64>) -> Result<u64, Refusal> {
        let name = hello.cluster.clone();
        let lease = self.lease;
        let Some(link) = self.links.get_mut(&name) else { return Err(Refusal::UnknownCluster { name }) };
        let Some(bound) = link.uid.clone() else { return Err(Refusal::NotEnrolled { name }) };
        if bound != hello.cluster_uid {
            let given = hello.cluster_uid.clone();
            self.note_foreign(now, &name, &given, now);
            return Err(Refusal::OtherUid { name, bound, given });
        }
        // Larger than any epoch before it, also than those of an earlier life of the hub.
        let clock = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let epoch = epoch.unwrap_or_else(|| clock.max(link.epoch + 1));
        let is_said = link.is_here || link.elsewhere.as_ref().is_some_and(Place::is_current);
        if epoch < link.epoch || (epoch == link.epoch && is_said) {
            return Err(Refusal::Overtaken { name });
        }
        if link.replace(link.live_incarnation(now, lease), &hello.incarnation) {
            let text = "two live agents take turns under this identity: is the cluster cloned?";
            link.oddity = Some((text.to_owned(), now));
        }
        link.epoch = epoch;
        link.is_here = true;
        link.elsewhere = None;
        link.session = Some(Session { incarnation: hello.incarnation.clone() });
        link.snapshot_due.get_or_insert(later(now, lease));
        link.lateness_shown = false;
        link.heard_at = Some(now);
        link.refused.clear();
        let own = Own { epoch, incarnation: hello.incarnation.clone(), snapshot_due: link.snapshot_due };
        self.own(&name, Some(own));
        self.edit_cluster(&name, |view| {
            view.last_heard_at = Some(now);
            view.agent_version = crate::run::clean_message(&hello.agent_version);
            view.kubernetes_version = crate::run::clean_message(&hello.kubernetes_version);
            view.policy = hello.policy.iter().map(PolicySetting::clean).collect();
            view.backlog = hello.next_seq.saturating_sub(hello.oldest_seq);
            view.dropped_reports = hello.dropped_reports;
            view.refused_checks = 0;
            view.clock_skew_ms = millis_between(now, hello.sent_at);
        });
        self.announce(&name);
        self.refresh_cluster(now, &name);
        self.compare_clocks(now, &name);
        Ok(epoch)
    }

    /// An agent of another cluster was refused under this identity.
    pub(super) fn note_foreign(&mut self, now: Timestamp, name: &str, cluster_uid: &str, at: Timestamp) {
        let Some(link) = self.links.get_mut(name).filter(|link| link.uid.as_deref() != Some(cluster_uid)) else {
            return;
        };
        let text = format!("refused an agent of another cluster (kube-system uid {cluster_uid}) under this identity");
        link.oddity = Some((crate::run::clean_message(&text), at));
        self.refresh_cluster(now, name);
    }

    /// The hub's clock was set by `by` and says `now`: what is counted from a moment of the hub's own moves along.
    pub(super) fn move_link(&mut self, now: Timestamp, name: &str, by: SignedDuration) {
        let Some(link) = self.links.get_mut(name) else { return };
        let skew_ms = self.view.clusters.get(name).map_or(0, |entry| entry.view.clock_skew_ms);
        link.stepped(by, SignedDuration::from_millis(skew_ms));
        let heard_at = link.heard_at;
        if let Some(armed) = link.armed.take() {
            self.deadlines.remove(&(armed, Deadline::Cluster(name.to_owned())));
        }
        self.show_offset(name);
        self.edit_cluster(name, |view| {
            view.last_heard_at = heard_at;
            view.clock_skew_ms = skew_ms.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(0));
        });
        self.refresh_cluster(now, name);
        self.arm_checks(now, name);
        self.recounted.insert(name.to_owned());
    }

    fn compare_clocks(&mut self, now: Timestamp, name: &str) {
        let Some(skew_ms) = self.view.clusters.get(name).map(|entry| entry.view.clock_skew_ms) else { return };
        let skew = SignedDuration::from_millis(skew_ms);
        if self.links.get_mut(name).is_some_and(|link| link.contradicts(skew)) {
            self.show_offset(name);
            self.arm_checks(now, name);
        }
    }

    /// By which clock the cluster's slots are judged.
    fn show_offset(&mut self, name: &str) {
        let Some(offset) = self.links.get(name).map(|link| link.offset) else { return };
        if let Some(entry) = self.view.clusters.get_mut(name).filter(|entry| entry.clock_offset != offset) {
            Arc::make_mut(entry).clock_offset = offset;
        }
    }

    pub(super) fn heard(&mut self, now: Timestamp, name: &str) {
        if let Some(link) = self.links.get_mut(name) {
            link.heard_at = Some(now);
        }
        self.edit_cluster(name, |view| view.last_heard_at = Some(now));
        self.refresh_cluster(now, name);
    }

    /// Keeps what a heartbeat says. That the cluster was heard is no event: it would be one every few seconds.
    pub(super) fn heartbeat(&mut self, now: Timestamp, name: &str, beat: &Heartbeat) {
        let skew = millis_between(now, beat.sent_at);
        let mut changed = false;
        self.edit_cluster(name, |view| {
            changed = view.backlog != beat.backlog
                || view.dropped_reports != beat.dropped_reports
                || view.clock_skew_ms.abs_diff(skew) > 1000;
            view.backlog = beat.backlog;
            view.dropped_reports = beat.dropped_reports;
            view.clock_skew_ms = skew;
        });
        if changed {
            self.announce(name);
        }
        self.refresh_cluster(now, name);
        self.compare_clocks(now, name);
    }

    pub(super) fn close_link(&mut self, now: Timestamp, name: &str) {
        if let Some(link) = self.links.get_mut(name) {
            link.session = None;
        }
        self.refresh_cluster(now, name);
    }

    /// Shows how many checks are refused.
    pub(super) fn recount_refused(&mut self, name: &str) {
        let refused = self.links.get(name).map_or(0, |link| link.refused.len() as u64);
        self.edit_cluster(name, |view| view.refused_checks = refused);
        self.recounted.insert(name.to_owned());
    }

    /// Derives a cluster's status and message again; where the status changed, those of its checks too.
    pub(super) fn refresh_cluster(&mut self, now: Timestamp, name: &str) {
        let (started_at, lease) = (self.started_at, self.lease);
        let Some(link) = self.links.get_mut(name) else { return };
        let Some(entry) = self.view.clusters.get_mut(name) else { return };
        if link.oddity.as_ref().is_some_and(|(_, seen)| later(*seen, ODDITY_SHOWN) <= now) {
            link.oddity = None;
        }
        let expired = entry.view.pending_enrolment.as_ref().is_some_and(|waits| waits.expires_at <= now);
        if expired {
            Arc::make_mut(entry).view.pending_enrolment = None;
        }
        let (status, message) = match &link.elsewhere {
            Some(place) => {
                let (status, said) = self.replicas.show(place, now, lease);
                (status, link.oddity.as_ref().map_or(said, |(text, _)| text.clone()))
            }
            None => {
                let status = link.status(now, started_at, lease);
                (status, link.message(status, &entry.view, &self.view.summary.hub_version))
            }
        };
        let old = entry.view.status;
        if expired || old != status || entry.view.message != message {
            let view = &mut Arc::make_mut(entry).view;
            view.status = status;
            view.message = message;
            count(&mut self.view.summary.clusters, old.as_str(), -1);
            count(&mut self.view.summary.clusters, status.as_str(), 1);
            self.events.push(Event::Cluster(Box::new(view.clone())));
        }
        let newly_late = link.snapshot_late(now) && !std::mem::replace(&mut link.lateness_shown, true);
        self.arm_cluster(now, name);
        if old != status || newly_late {
            self.refresh_checks(now, name);
        }
    }

    /// Sets the cluster's next deadline. One that is set and earlier stays: it looks again when it comes, which spares
    /// a move for each heartbeat.
    fn arm_cluster(&mut self, now: Timestamp, name: &str) {
        let (started_at, lease) = (self.started_at, self.lease);
        let Some(link) = self.links.get_mut(name) else { return };
        let waits = self.view.clusters.get(name).and_then(|entry| entry.view.pending_enrolment.as_ref());
        let [silent, gone] = link.elsewhere.as_ref().map_or([None; 2], |place| place.ends(lease));
        let ends = [
            waits.map(|waits| waits.expires_at),
            silent,
            gone,
            link.lease_end(started_at, lease).filter(|_| link.elsewhere.is_none()),
            link.oddity.as_ref().map(|(_, seen)| later(*seen, ODDITY_SHOWN)),
            link.session.as_ref().and(link.snapshot_due),
        ];
        let Some(next) = ends.into_iter().flatten().filter(|end| *end > now).min() else { return };
        if link.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        if let Some(armed) = link.armed.replace(next) {
            self.deadlines.remove(&(armed, Deadline::Cluster(name.to_owned())));
        }
        self.deadlines.insert((next, Deadline::Cluster(name.to_owned())));
    }

    /// Says whether the cluster is this replica's own, and by which session.
    pub(super) fn own(&mut self, name: &str, own: Option<Own>) {
        if let Some(entry) = self.view.clusters.get_mut(name).filter(|entry| entry.own != own) {
            Arc::make_mut(entry).own = own;
        }
    }

    pub(super) fn edit_cluster(&mut self, name: &str, edit: impl FnOnce(&mut ClusterView)) {
        if let Some(entry) = self.view.clusters.get_mut(name) {
            let ClusterEntry { view, checks: _, own: _, clock_offset: _ } = Arc::make_mut(entry);
            edit(view);
        }
    }

    pub(super) fn announce(&mut self, name: &str) {
        if let Some(entry) = self.view.clusters.get(name) {
            self.events.push(Event::Cluster(Box::new(entry.view.clone())));
        }
    }
}

/// `at + by`, or the end of time.
pub(super) fn moved(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

/// Milliseconds by which `theirs` is ahead of `ours`.
fn millis_between(ours: Timestamp, theirs: Timestamp) -> i64 {
    theirs.as_millisecond().saturating_sub(ours.as_millisecond())
}
