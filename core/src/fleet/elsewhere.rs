//! Clusters whose session is at another replica of the hub: what that replica shows of them is shown here, word by word.
//!
//! A replica's beat says that everything it showed until then has been published. Without a beat its clusters are
//! Reconnecting after a third of the lease, and Unreachable a lease after the last one: long enough for their agents to
//! come to another replica, short enough that nothing stays green without a word for it. Which session counts is said by
//! the epoch, which the store gives out: the highest one, wherever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::checks::Voice;
use super::{Deadline, Fleet, later, moved};
use crate::health::Health;
use crate::policy::PolicySetting;
use crate::state::CheckState;
use crate::view::{CheckStatus, ClusterStatus, ClusterView};

/// A replica is silent after this part of the lease without a beat.
const SILENT_AFTER: u32 = 3;

/// The newest session of a cluster, where this replica has it, or had it and nobody took over: it says what is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its epoch.
    pub epoch: u64,
    /// The agent's incarnation.
    pub incarnation: String,
    /// When the snapshot must be complete; absent once it is.
    pub snapshot_due: Option<Timestamp>,
}

/// What a replica shows of the link to one of its own clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownLink {
    /// As in [`ClusterView`], and so are the others.
    pub status: ClusterStatus,
    /// For people.
    pub message: String,
    /// By the clock of the replica.
    pub last_heard_at: Option<Timestamp>,
    /// Semantic version of the agent.
    pub agent_version: String,
    /// Version of Kubernetes.
    pub kubernetes_version: String,
    /// Reports waiting at the agent.
    pub backlog: u64,
    /// Reports that the journal dropped.
    pub dropped_reports: u64,
    /// Checks that are one too many.
    pub refused_checks: u64,
    /// Milliseconds.
    pub clock_skew_ms: i64,
    /// What the cluster lets the hub do; empty from a replica of a version that does not show it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<PolicySetting>,
    /// As in [`Own`].
    pub incarnation: String,
    /// As in [`Own`].
    pub snapshot_due: Option<Timestamp>,
}

impl ShownLink {
    /// What is shown of a cluster of this replica's own.
    pub fn of(view: &ClusterView, own: &Own) -> ShownLink {
        ShownLink {
            status: view.status,
            message: view.message.clone(),
            last_heard_at: view.last_heard_at,
            agent_version: view.agent_version.clone(),
            kubernetes_version: view.kubernetes_version.clone(),
            backlog: view.backlog,
            dropped_reports: view.dropped_reports,
            refused_checks: view.refused_checks,
            clock_skew_ms: view.clock_skew_ms,
            policy: view.policy.clone(),
            incarnation: own.incarnation.clone(),
            snapshot_due: own.snapshot_due,
        }
    }
}

/// A check as a replica shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownCheck {
    /// What the agent said.
    pub state: CheckState,
    /// What the replica remembers of it.
    pub health: Health,
    /// What it says of it.
    pub status: CheckStatus,
}

/// What changed of a cluster at the replica that has, or had, its newest session. To be applied in the order in which it
/// was published.
#[derive(Clone, Debug, PartialEq)]
pub struct Elsewhere {
    /// Name of the cluster.
    pub cluster: String,
    /// The replica.
    pub replica: String,
    /// Epoch of the session; any but the newest is ignored.
    pub epoch: u64,
    /// The link as it is shown there; absent before anything is, and then nothing is said of the checks either.
    pub link: Option<ShownLink>,
    /// The checks that changed.
    pub checks: Vec<ShownCheck>,
    /// uids of checks that are gone.
    pub removed: Vec<String>,
    /// Whether these are all of its checks: the others are gone. So it is with the first word in a session.
    pub is_whole: bool,
}

/// What one look at the other replicas tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Followed {
    /// When each of them was heard last, by this replica's clock. One that is not among them is gone.
    pub beats: Vec<(String, Timestamp)>,
    /// What changed of their clusters.
    pub clusters: Vec<Elsewhere>,
}

/// The replica whose word is shown of a cluster, and what it says of the link.
#[derive(Debug)]
pub(super) struct Place {
    replica: String,
    status: ClusterStatus,
    message: String,
    incarnation: String,
    /// The last beat that counts: a newer session is open somewhere, and this replica speaks of the cluster no more.
    last_beat: Option<Timestamp>,
}

impl Place {
    /// The incarnation whose session is alive there.
    pub(super) fn live_incarnation(&self) -> Option<String> {
        (self.status == ClusterStatus::Connected).then(|| self.incarnation.clone())
    }

    /// Whether its replica has the newest session.
    pub(super) fn is_current(&self) -> bool {
        self.last_beat.is_none()
    }

    /// The clock by which its last beat is reckoned was set.
    pub(super) fn stepped(&mut self, by: SignedDuration) {
        self.last_beat = self.last_beat.map(|beat| moved(beat, by));
    }

    /// When the cluster may have to be shown otherwise, beside the deadlines of its replica.
    pub(super) fn ends(&self, lease: Duration) -> [Option<Timestamp>; 2] {
        ends(lease).map(|end| self.last_beat.map(|beat| later(beat, end)))
    }
}

/// After so long without a beat a replica is silent, and gone.
fn ends(lease: Duration) -> [Duration; 2] {
    [lease / SILENT_AFTER, lease]
}

fn presence(beat: Timestamp, now: Timestamp, lease: Duration) -> Presence {
    let [silent, gone] = ends(lease).map(|end| later(beat, end));
    if gone <= now {
        Presence::Gone
    } else if silent <= now {
        Presence::Silent
    } else {
        Presence::Here
    }
}

/// Whether a replica is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Here,
    Silent,
    Gone,
}

#[derive(Debug)]
struct Replica {
    beat_at: Timestamp,
    /// What its clusters were shown by.
    shown: Presence,
    armed: Option<Timestamp>,
}

/// The other replicas, by their ids.
#[derive(Debug, Default)]
pub(super) struct Replicas(BTreeMap<String, Replica>);

impl Replicas {
    fn beat(&self, id: &str) -> Option<Timestamp> {
        self.0.get(id).map(|replica| replica.beat_at)
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// This replica's clock was set.
    pub(super) fn stepped(&mut self, by: SignedDuration) {
        for replica in self.0.values_mut() {
            replica.beat_at = moved(replica.beat_at, by);
        }
    }

    /// The status of a cluster there, and what is said of it.
    pub(super) fn show(&self, place: &Place, now: Timestamp, lease: Duration) -> (ClusterStatus, String) {
        let said = || (place.status, place.message.clone());
        let beat = place.last_beat.or_else(|| self.beat(&place.replica));
        match (beat.map_or(Presence::Gone, |beat| presence(beat, now, lease)), place.status) {
            (Presence::Here, _) => said(),
            (Presence::Silent, ClusterStatus::Connected) => {
                (ClusterStatus::Reconnecting, "its replica of the hub is silent".to_owned())
            }
            (Presence::Silent, ClusterStatus::Reconnecting | ClusterStatus::Unreachable | ClusterStatus::Pending) => {
                said()
            }
            (Presence::Gone, ClusterStatus::Unreachable) => said(),
            (Presence::Gone, ClusterStatus::Connected | ClusterStatus::Reconnecting | ClusterStatus::Pending) => {
                (ClusterStatus::Unreachable, "its replica of the hub is gone, and it came to no other".to_owned())
            }
        }
    }
}

impl Fleet {
    pub(super) fn follow(&mut self, now: Timestamp, followed: Followed) {
        let Followed { beats, clusters } = followed;
        let (moved, shown): (Vec<_>, Vec<_>) = clusters.into_iter().partition(|there| there.link.is_none());
        // First: a later beat of the replica that had the session says nothing of the cluster any more.
        for there in moved {
            self.put_elsewhere(now, there);
        }
        self.put_beats(now, &beats);
        for there in shown {
            self.put_elsewhere(now, there);
        }
    }

    /// Takes the beats of all other replicas, by this replica's clock. One that is not among them is gone.
    fn put_beats(&mut self, now: Timestamp, beats: &[(String, Timestamp)]) {
        let told: BTreeMap<&String, Timestamp> = beats.iter().map(|(id, at)| (id, *at)).collect();
        let gone: Vec<String> = self.replicas.0.keys().filter(|id| !told.contains_key(id)).cloned().collect();
        for id in gone {
            if let Some(Replica { armed: Some(at), .. }) = self.replicas.0.remove(&id) {
                self.deadlines.remove(&(at, Deadline::Replica(id.clone())));
            }
            self.refresh_clusters_of(now, &id);
        }
        for (id, at) in told {
            let known = self.replicas.0.entry(id.clone());
            let replica = known.or_insert(Replica { beat_at: at, shown: Presence::Gone, armed: None });
            replica.beat_at = replica.beat_at.max(at);
            self.refresh_replica(now, id);
        }
    }

    /// A deadline of a replica has come.
    pub(super) fn replica_is_due(&mut self, now: Timestamp, id: &str) {
        if let Some(replica) = self.replicas.0.get_mut(id) {
            replica.armed = None;
        }
        self.refresh_replica(now, id);
    }

    /// Derives again whether a replica is heard; where that changed, its clusters too.
    pub(super) fn refresh_replica(&mut self, now: Timestamp, id: &str) {
        let lease = self.lease;
        let Some(replica) = self.replicas.0.get_mut(id) else { return };
        let presence = presence(replica.beat_at, now, lease);
        let ends = ends(lease).map(|end| later(replica.beat_at, end));
        // One that is set and earlier stays, as a cluster's does.
        if let Some(next) = ends.into_iter().find(|end| *end > now)
            && replica.armed.is_none_or(|armed| armed > next)
        {
            if let Some(armed) = replica.armed.replace(next) {
                self.deadlines.remove(&(armed, Deadline::Replica(id.to_owned())));
            }
            self.deadlines.insert((next, Deadline::Replica(id.to_owned())));
        }
        if std::mem::replace(&mut replica.shown, presence) != presence {
            self.refresh_clusters_of(now, id);
        }
    }

    fn refresh_clusters_of(&mut self, now: Timestamp, id: &str) {
        let is_there = |place: &Place| place.replica == id;
        let links = self.links.iter().filter(|(_, link)| link.elsewhere.as_ref().is_some_and(is_there));
        let names: Vec<String> = links.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.refresh_cluster(now, &name);
        }
    }

    /// Takes what another replica shows of a cluster; a session of this replica's own that is older is over.
    fn put_elsewhere(&mut self, now: Timestamp, elsewhere: Elsewhere) {
        let Elsewhere { cluster, replica, epoch, link: shown, checks, removed, is_whole } = elsewhere;
        let lease = self.lease;
        let Some(link) = self.links.get_mut(&cluster) else { return };
        let live = link.live_incarnation(now, lease);
        if !link.moves(epoch) {
            return;
        }
        self.own(&cluster, None);
        let Some(shown) = shown else { return self.await_word(now, &cluster) };
        if let Some(link) = self.links.get_mut(&cluster) {
            link.replace(live, &shown.incarnation);
            link.expect_snapshot(shown.snapshot_due);
            let (message, incarnation) = (shown.message.clone(), shown.incarnation.clone());
            link.elsewhere = Some(Place { replica, status: shown.status, message, incarnation, last_beat: None });
        }
        self.put_link(&cluster, shown);
        self.refresh_cluster(now, &cluster);
        self.put_checks(now, &cluster, checks, removed, is_whole);
    }

    /// A session is open of which nothing was said yet: the last word stays, for as long as it would have if its replica
    /// had said nothing more from now on.
    fn await_word(&mut self, now: Timestamp, cluster: &str) {
        let Some(link) = self.links.get_mut(cluster) else { return };
        if let Some(place) = &mut link.elsewhere {
            let beat = self.replicas.beat(&place.replica).unwrap_or(Timestamp::MIN);
            place.last_beat.get_or_insert(beat);
        }
        self.refresh_cluster(now, cluster);
    }

    fn put_link(&mut self, cluster: &str, shown: ShownLink) {
        // Status and message depend on whether the replica is heard.
        let ShownLink {
            status: _,
            message: _,
            last_heard_at,
            agent_version,
            kubernetes_version,
            backlog,
            dropped_reports,
            refused_checks,
            clock_skew_ms,
            policy,
            incarnation: _,
            snapshot_due: _,
        } = shown;
        let mut is_news = false;
        self.edit_cluster(cluster, |view| {
            let before = view.clone();
            (view.agent_version, view.kubernetes_version) = (agent_version, kubernetes_version);
            (view.backlog, view.dropped_reports, view.refused_checks) = (backlog, dropped_reports, refused_checks);
            (view.clock_skew_ms, view.policy) = (clock_skew_ms, policy);
            is_news = *view != before;
            view.last_heard_at = last_heard_at;
        });
        if is_news {
            self.recounted.insert(cluster.to_owned());
        }
    }

    fn put_checks(
        &mut self,
        now: Timestamp,
        cluster: &str,
        checks: Vec<ShownCheck>,
        removed: Vec<String>,
        is_whole: bool,
    ) {
        let named: BTreeSet<String> = checks.iter().map(|check| check.state.uid.clone()).collect();
        let unnamed = |uid: &&String| is_whole && !named.contains(*uid);
        let known = self.links.get(cluster).map(|link| link.checks.keys().filter(unnamed).cloned().collect::<Vec<_>>());
        for uid in removed.into_iter().chain(known.unwrap_or_default()) {
            self.remove_check(cluster, &uid);
        }
        let status = self.view.clusters.get(cluster).map(|entry| entry.view.status);
        for ShownCheck { state, health, status: said } in checks {
            let shown = if status == Some(ClusterStatus::Unreachable) { CheckStatus::Stale } else { said };
            self.put_check(now, cluster, state, shown, Voice::Replica(said, health));
        }
    }
}
