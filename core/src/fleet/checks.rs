//! The checks of a cluster: what is shown of each, and when that changes by itself.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Deadline, Fleet, count, later};
use crate::health::Health;
use crate::state::{CheckState, Phase};
use crate::view::{CheckStatus, CheckView, ClusterStatus, Event};

/// What a result may be late beyond its slot and timeout before the check is Overdue: clocks, queues and the way here.
pub const OVERDUE_GRACE: Duration = Duration::from_secs(10);

/// Seconds by which a check is overdue when its cluster's clock says `theirs` ([`ClusterEntry::their_time`]); 0 unless it is
/// Overdue. A published [`CheckView`] carries the value of the moment it was made: whoever shows it asks again here.
///
/// [`ClusterEntry::their_time`]: super::ClusterEntry::their_time
pub fn overdue_seconds(check: &CheckView, theirs: Timestamp) -> u64 {
    match (check.status, due_at(&check.state)) {
        (CheckStatus::Overdue, Some(due)) => u64::try_from(theirs.as_second() - due.as_second()).unwrap_or(0).max(1),
        _ => 0,
    }
}

/// When the next result of a check must be here at the latest; absent where none is expected.
pub fn due_at(state: &CheckState) -> Option<Timestamp> {
    match state.phase {
        Phase::Pending | Phase::Succeeded | Phase::Failed => {
            let slot = state.next_slot?;
            Some(later(later(slot, Duration::from_secs(state.timeout_seconds)), OVERDUE_GRACE))
        }
        Phase::Stopped | Phase::Invalid => None,
    }
}

/// What the agent says is to be believed: the status at `now`.
fn status_of(state: &CheckState, now: Timestamp) -> CheckStatus {
    if due_at(state).is_some_and(|due| due <= now) {
        return CheckStatus::Overdue;
    }
    match state.phase {
        Phase::Pending => CheckStatus::Pending,
        Phase::Succeeded => CheckStatus::Succeeded,
        Phase::Failed => CheckStatus::Failed,
        Phase::Stopped => CheckStatus::Stopped,
        Phase::Invalid => CheckStatus::Invalid,
    }
}

/// Who says what a check is.
pub(super) enum Voice {
    /// The store, of an earlier life.
    Store,
    /// Its agent, in the session with this epoch.
    Agent(u64),
    /// Another replica, which shows it like this.
    Replica(CheckStatus, Health),
}

/// Bookkeeping of a check.
#[derive(Debug)]
pub(super) struct Known {
    /// Namespace and name.
    key: (String, String),
    /// Session in which the agent spoke of it last at this replica; absent when it did not.
    epoch: Option<u64>,
    /// What the replica that had the session says of it, if another one spoke of it last.
    said: Option<(CheckStatus, Health)>,
    /// When it may become overdue.
    pub(super) armed: Option<Timestamp>,
}

impl Fleet {
    /// Takes a check as the agent said it in the open session.
    pub(super) fn put_said(&mut self, now: Timestamp, cluster: &str, epoch: u64, state: CheckState) {
        let theirs = self.links.get(cluster).map_or(now, |link| link.their_time(now));
        let status = status_of(&state, theirs);
        self.put_check(now, cluster, state, status, Voice::Agent(epoch));
    }

    /// Puts a check into the view with the given status.
    pub(super) fn put_check(
        &mut self,
        now: Timestamp,
        cluster: &str,
        state: CheckState,
        status: CheckStatus,
        voice: Voice,
    ) {
        let (epoch, said) = match voice {
            Voice::Store => (None, None),
            Voice::Agent(epoch) => (Some(epoch), None),
            Voice::Replica(said, health) => (None, Some((said, health))),
        };
        let key = (state.namespace.clone(), state.name.clone());
        let uid = state.uid.clone();
        // The same name under another uid: the check was deleted and made again. A uid under another name cannot be.
        let entry = self.view.clusters.get(cluster);
        let shown = entry.and_then(|entry| entry.checks.get(&key)).map(|check| check.state.uid.clone());
        if let Some(other) = shown.filter(|shown| *shown != uid) {
            self.remove_check(cluster, &other);
        }
        if self.links.get(cluster).and_then(|link| link.checks.get(&uid)).is_some_and(|known| known.key != key) {
            self.remove_check(cluster, &uid);
        }
        let Some(link) = self.links.get_mut(cluster) else { return };
        // A cluster that names ever new checks fills its own share, not the hub.
        let is_full = link.is_full_for(&uid);
        let is_news = link.refuse(&uid, is_full);
        if is_news {
            self.recount_refused(cluster);
            self.refresh_cluster(now, cluster);
        }
        if is_full {
            return;
        }
        let Some(link) = self.links.get_mut(cluster) else { return };
        let armed = link.checks.get(&uid).and_then(|known| known.armed);
        let due = due_at(&state).map(|due| link.our_time(due)).filter(|due| *due > now && epoch.is_some());
        if armed != due {
            if let Some(at) = armed {
                self.deadlines.remove(&(at, Deadline::Check(cluster.to_owned(), uid.clone())));
            }
            if let Some(at) = due {
                self.deadlines.insert((at, Deadline::Check(cluster.to_owned(), uid.clone())));
            }
        }
        link.has_dependencies |= !state.depends_on.is_empty();
        link.checks.insert(uid, Known { key: key.clone(), epoch, said: said.clone(), armed: due });
        self.show(now, cluster, key, state, status, said);
    }

    /// Gives a check that is shown the memory of it that was saved.
    pub(super) fn remember(&mut self, cluster: &str, key: &(String, String), saved: Health) {
        let Some(entry) = self.view.clusters.get_mut(cluster).map(Arc::make_mut) else { return };
        if let Some(check) = Arc::make_mut(&mut entry.checks).get_mut(key) {
            let check = Arc::make_mut(check);
            check.health = saved.remembered(&check.health);
        }
    }

    /// Forgets a check by its uid.
    pub(super) fn remove_check(&mut self, cluster: &str, uid: &str) {
        if self.links.get_mut(cluster).is_some_and(|link| link.refuse(uid, false)) {
            self.recount_refused(cluster);
        }
        let Some(known) = self.links.get_mut(cluster).and_then(|link| link.checks.remove(uid)) else { return };
        let key = known.key.clone();
        if let Some(at) = known.armed {
            self.deadlines.remove(&(at, Deadline::Check(cluster.to_owned(), uid.to_owned())));
        }
        self.stir(cluster, &key);
        self.recounted.insert(cluster.to_owned());
        let Some(entry) = self.view.clusters.get_mut(cluster).map(Arc::make_mut) else { return };
        if let Some(old) = Arc::make_mut(&mut entry.checks).remove(&key) {
            count(&mut entry.view.checks, old.status.as_str(), -1);
            count(&mut self.view.summary.checks, old.status.as_str(), -1);
            let (namespace, name) = key;
            self.events.push(Event::CheckRemoved { cluster: cluster.to_owned(), namespace, name });
        }
    }

    /// The whole snapshot of a session is here: what it did not name is gone.
    pub(super) fn end_snapshot(&mut self, cluster: &str, epoch: u64) {
        let Some(link) = self.links.get_mut(cluster) else { return };
        link.snapshot_done();
        if let Some(entry) = self.view.clusters.get_mut(cluster)
            && let Some(own) = &mut Arc::make_mut(entry).own
        {
            own.snapshot_due = None;
        }
        let unnamed = |known: &Known| known.epoch != Some(epoch);
        let gone: Vec<String> =
            link.checks.iter().filter(|(_, known)| unnamed(known)).map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            self.remove_check(cluster, &uid);
        }
    }

    /// Derives the status of every check of a cluster again.
    pub(super) fn refresh_checks(&mut self, now: Timestamp, cluster: &str) {
        let Some(link) = self.links.get(cluster) else { return };
        let uids: Vec<String> = link.checks.keys().cloned().collect();
        for uid in uids {
            self.refresh_check(now, cluster, &uid);
        }
    }

    /// Sets the deadlines of a cluster's checks anew, after a clock was set.
    pub(super) fn arm_checks(&mut self, now: Timestamp, cluster: &str) {
        let Some(link) = self.links.get_mut(cluster) else { return };
        for (uid, known) in &mut link.checks {
            if let Some(at) = known.armed.take() {
                self.deadlines.remove(&(at, Deadline::Check(cluster.to_owned(), uid.clone())));
            }
        }
        self.refresh_checks(now, cluster);
    }

    /// Derives the status of a check again, after time passed or the link changed.
    pub(super) fn refresh_check(&mut self, now: Timestamp, cluster: &str, uid: &str) {
        let (Some(link), Some(entry)) = (self.links.get_mut(cluster), self.view.clusters.get(cluster)) else { return };
        let (open_epoch, late, theirs) = (link.open_epoch(), link.snapshot_late(now), link.their_time(now));
        let Some(key) = link.checks.get(uid).map(|known| known.key.clone()) else { return };
        let Some(old) = entry.checks.get(&key) else { return };
        let due = due_at(&old.state).map(|due| link.our_time(due)).filter(|due| *due > now);
        let Some(known) = link.checks.get_mut(uid) else { return };
        let spoken = known.epoch.is_some() && known.epoch == open_epoch;
        let said = known.said.clone().filter(|_| link.elsewhere.is_some());
        let status = match (entry.view.status, &said) {
            (ClusterStatus::Unreachable, _) => CheckStatus::Stale,
            (ClusterStatus::Connected | ClusterStatus::Reconnecting | ClusterStatus::Pending, Some((said, _))) => *said,
            (ClusterStatus::Connected, None) if spoken => status_of(&old.state, theirs),
            (ClusterStatus::Connected, None) if late => CheckStatus::Stale,
            // Nothing newer is known: what was shown stays, green only as long as the lease lasts.
            (ClusterStatus::Connected | ClusterStatus::Reconnecting | ClusterStatus::Pending, None) => old.status,
        };
        if let Some(due) = due.filter(|_| known.armed.is_none() && spoken) {
            known.armed = Some(due);
            self.deadlines.insert((due, Deadline::Check(cluster.to_owned(), uid.to_owned())));
        }
        if status != old.status {
            let state = old.state.clone();
            self.show(now, cluster, key, state, status, said);
        }
    }

    /// A status, or what a check depends on, has changed: what depends on it is looked at before the fleet is published.
    fn stir(&mut self, cluster: &str, key: &(String, String)) {
        if self.links.get(cluster).is_some_and(|link| link.has_dependencies) {
            self.stirred.entry(cluster.to_owned()).or_default().insert(key.clone());
        }
    }

    /// Puts a check into the view if it differs from what is there, and keeps the counts. What another replica said of it
    /// brings that one's memory with it.
    fn show(
        &mut self,
        now: Timestamp,
        cluster: &str,
        key: (String, String),
        state: CheckState,
        status: CheckStatus,
        said: Option<(CheckStatus, Health)>,
    ) {
        let Some(entry) = self.view.clusters.get(cluster) else { return };
        let shown = entry.checks.get(&key).map(|shown| &**shown);
        let same_status = shown.filter(|shown| shown.status == status);
        let health = said.map(|(said, health)| match said == status {
            true => health,
            false => Health { since: same_status.map_or(Some(now), |shown| shown.health.since), ..health },
        });
        let knows = |shown: &CheckView| health.as_ref().is_none_or(|health| shown.health == *health);
        if same_status.is_some_and(|shown| shown.state == state && knows(shown)) {
            return;
        }
        let is_stirring =
            shown.is_none_or(|shown| shown.status != status || shown.state.depends_on != state.depends_on);
        let health = health.unwrap_or_else(|| Health::next(now, shown, status, &state));
        let care = shown.map(|shown| shown.care.clone()).unwrap_or_default();
        let mut view = CheckView { cluster: cluster.to_owned(), status, overdue_seconds: 0, health, care, state };
        view.overdue_seconds = overdue_seconds(&view, entry.their_time(now));
        view.care = self.care(now, &view);
        if is_stirring {
            self.stir(cluster, &key);
        }
        self.recounted.insert(cluster.to_owned());
        self.events.push(Event::Check(Box::new(view.clone())));
        let Some(entry) = self.view.clusters.get_mut(cluster).map(Arc::make_mut) else { return };
        let old = Arc::make_mut(&mut entry.checks).insert(key, Arc::new(view));
        for counts in [&mut entry.view.checks, &mut self.view.summary.checks] {
            if let Some(old) = &old {
                count(counts, old.status.as_str(), -1);
            }
            count(counts, status.as_str(), 1);
        }
    }
}
