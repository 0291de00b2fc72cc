//! The state of the fleet at the hub: clusters, their links, their checks, and what the hub says of them.
//!
//! Pure: every change comes in as (now, [`Change`]) or as a Hello, time passes by [`Fleet::tick`], and out come events. Each
//! change that a session makes carries that session's epoch, so a late word of an old connection changes nothing. Time
//! costs only where something is due: deadlines are kept in order, and [`Fleet::next_wake`] says when the next one is.
//!
//! What is shown of a check is what its agent said in the open session. A cluster silent for longer than the lease is
//! Unreachable and all its checks are Stale, also after the hub itself started: no green without a word for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::care::{Acknowledgement, Window};
use crate::health::Health;
use crate::self_test::SelfTest;
use crate::session::frame::{Heartbeat, Hello};
use crate::state::CheckState;
use crate::view::{CheckStatus, CheckView, ClusterStatus, ClusterView, Event, FleetSummary, PendingEnrolment, Restore};

mod care;
mod checks;
mod elsewhere;
mod link;
mod publication;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use care::Windows;
use checks::Voice;
pub use checks::{OVERDUE_GRACE, due_at, overdue_seconds};
use elsewhere::Replicas;
pub use elsewhere::{Elsewhere, Followed, Own, ShownCheck, ShownLink};
use link::{Link, moved};
pub use publication::{Publication, Publisher};

/// Checks of a cluster, by (namespace, name).
pub type Checks = BTreeMap<(String, String), Arc<CheckView>>;

/// The fleet as it is published: what did not change is shared with the view before.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetView {
    /// Grows with each publication.
    pub revision: u64,
    /// The numbers.
    pub summary: FleetSummary,
    /// Every cluster, by name.
    pub clusters: BTreeMap<String, Arc<ClusterEntry>>,
}

impl FleetView {
    /// A check by its cluster, namespace and name.
    pub fn check(&self, cluster: &str, namespace: &str, name: &str) -> Option<&Arc<CheckView>> {
        self.clusters.get(cluster)?.checks.get(&(namespace.to_owned(), name.to_owned()))
    }
}

/// A cluster and its checks.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterEntry {
    /// The cluster.
    pub view: ClusterView,
    /// Its checks.
    pub checks: Arc<Checks>,
    /// Its newest session, where this hub has it or had it; absent where another replica has.
    pub own: Option<Own>,
    /// What its clock, by which its slots are counted, is ahead of the hub's: other than nothing where the hub's was set and
    /// its own goes on as before.
    pub clock_offset: SignedDuration,
}

impl ClusterEntry {
    /// One that nothing more is known of.
    pub fn new(view: ClusterView, checks: Checks) -> ClusterEntry {
        ClusterEntry { view, checks: Arc::new(checks), own: None, clock_offset: SignedDuration::ZERO }
    }

    /// What its clock says when the hub's says `now`, as far as that is to be believed.
    pub fn their_time(&self, now: Timestamp) -> Timestamp {
        moved(now, self.clock_offset)
    }
}

/// What is known of a cluster without its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownCluster {
    /// A DNS label.
    pub name: String,
    /// Labels, which selectors match.
    pub labels: BTreeMap<String, String>,
    /// Annotations, which definitions may take values from.
    pub annotations: BTreeMap<String, String>,
    /// uid of its kube-system namespace; absent until it enrolled.
    pub cluster_uid: Option<String>,
    /// The latest self-test since it enrolled.
    pub self_test: Option<SelfTest>,
    /// An agent that waits for a person's approval.
    pub pending_enrolment: Option<PendingEnrolment>,
}

/// Something that changes the fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A cluster is new, or its labels, annotations or uid changed.
    Cluster(KnownCluster),
    /// A cluster was removed.
    ClusterRemoved {
        /// Its name.
        name: String,
    },
    /// How many definitions there are.
    Definitions(u64),
    /// The hub came back from the past, or a person has confirmed that.
    Restore(Option<Restore>),
    /// These are the maintenance windows from now on.
    Windows(Vec<Window>),
    /// Somebody acknowledged what is wrong with a check, or took that back. Nothing happens where nothing is wrong.
    Acknowledge {
        /// Name of the cluster.
        cluster: String,
        /// Namespace of the check.
        namespace: String,
        /// Name of the check.
        name: String,
        /// Absent to take it back.
        acknowledgement: Option<Acknowledgement>,
    },
    /// The agent of a cluster said something.
    Said {
        /// Name of the cluster.
        cluster: String,
        /// Epoch of the session in which it was said; any but the newest is ignored.
        epoch: u64,
        /// What it said.
        what: Said,
    },
    /// What other replicas of the hub show.
    Followed(Box<Followed>),
    /// A replica of the hub refused an agent of another cluster under this identity.
    Foreign {
        /// Name of the cluster whose identity it is.
        cluster: String,
        /// kube-system uid of the other one.
        cluster_uid: String,
        /// When.
        at: Timestamp,
    },
}

/// What an agent says in a session, as far as the fleet's state is concerned.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It is alive: any frame.
    Heard,
    /// It is alive, and how its journal stands.
    Heartbeat(Heartbeat),
    /// A chunk of the state of every check.
    Snapshot {
        /// The checks of this chunk.
        checks: Vec<CheckState>,
        /// Whether it is the last chunk: checks that none named are gone.
        last: bool,
    },
    /// A check as it is now.
    Upsert(Box<CheckState>),
    /// uid of a check that is gone.
    Removed(String),
    /// The connection ended.
    Closed,
}

/// Why a session is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name was never added, or was removed.
    #[error("the hub knows no cluster {name}")]
    UnknownCluster {
        /// The name.
        name: String,
    },
    /// The name was added, but no agent enrolled under it.
    #[error("the cluster {name} has not enrolled")]
    NotEnrolled {
        /// The name.
        name: String,
    },
    /// The identity is used in another cluster than the one that enrolled.
    #[error("the cluster {name} is bound to the kube-system uid {bound}, not to {given}")]
    OtherUid {
        /// The name.
        name: String,
        /// The uid that enrolled.
        bound: String,
        /// The uid of the caller.
        given: String,
    },
    /// A session with a higher epoch is open, at another replica.
    #[error("a newer session of the cluster {name} is open")]
    Overtaken {
        /// The name.
        name: String,
    },
}

/// Something that happens by itself when its time comes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deadline {
    /// The link of a cluster may have changed.
    Cluster(String),
    /// A check (cluster, uid) may be overdue.
    Check(String, String),
    /// An acknowledgement of a check (cluster, namespace, name) ends.
    Acknowledged(String, String, String),
    /// A maintenance window begins or ends.
    Windows,
    /// A replica may be silent or gone.
    Replica(String),
}

/// The fleet's state.
#[derive(Debug)]
pub struct Fleet {
    started_at: Timestamp,
    lease: Duration,
    links: BTreeMap<String, Link>,
    replicas: Replicas,
    view: FleetView,
    deadlines: BTreeSet<(Timestamp, Deadline)>,
    events: Vec<Event>,
    windows: Windows,
    /// Clusters whose numbers changed since the last [`Fleet::take_events`].
    recounted: BTreeSet<String>,
    /// Checks whose status changed since the last [`Fleet::tick`], of clusters with dependencies.
    stirred: BTreeMap<String, BTreeSet<(String, String)>>,
}

impl Fleet {
    /// An empty fleet of a hub that starts at `now`.
    pub fn new(now: Timestamp, lease: Duration, hub_version: &str) -> Fleet {
        let summary = FleetSummary {
            hub_version: hub_version.to_owned(),
            clusters: ClusterStatus::ALL.iter().map(|status| (status.as_str().to_owned(), 0)).collect(),
            checks: empty_counts(),
            definitions: 0,
            restore: None,
        };
        Fleet {
            started_at: now,
            lease,
            links: BTreeMap::new(),
            replicas: Replicas::default(),
            view: FleetView { revision: 0, summary, clusters: BTreeMap::new() },
            deadlines: BTreeSet::new(),
            events: Vec::new(),
            windows: Windows::default(),
            recounted: BTreeSet::new(),
            stirred: BTreeMap::new(),
        }
    }

    /// Takes up a cluster and its checks as they were stored by an earlier life of the hub. Its checks are Stale until
    /// its agent speaks of them; the cluster itself has one lease of grace.
    pub fn restore(&mut self, now: Timestamp, known: KnownCluster, checks: Vec<(CheckState, Health)>) {
        let name = known.name.clone();
        let enrolled = known.cluster_uid.is_some();
        self.put_cluster(now, known);
        if let Some(link) = self.links.get_mut(&name) {
            link.restored = enrolled;
        }
        self.refresh_cluster(now, &name);
        for (state, health) in checks {
            let key = (state.namespace.clone(), state.name.clone());
            self.put_check(now, &name, state, CheckStatus::Stale, Voice::Store);
            self.remember(&name, &key, health);
        }
        self.refresh_dependants(now);
        self.take_events();
    }

    /// Applies a change and says what people see of it. What it means for dependants is left to the next [`Fleet::tick`].
    pub fn apply(&mut self, now: Timestamp, change: Change) -> Vec<Event> {
        match change {
            Change::Cluster(known) => self.put_cluster(now, known),
            Change::ClusterRemoved { name } => self.remove_cluster(&name),
            Change::Definitions(count) => self.view.summary.definitions = count,
            Change::Restore(restore) => self.view.summary.restore = restore,
            Change::Windows(windows) => self.put_windows(now, windows),
            Change::Acknowledge { cluster, namespace, name, acknowledgement } => {
                self.acknowledge(now, &cluster, (namespace, name), acknowledgement);
            }
            Change::Said { cluster, epoch, what } => {
                if self.links.get(&cluster).is_some_and(|link| link.open_epoch() == Some(epoch)) {
                    self.said(now, &cluster, epoch, what);
                }
            }
            Change::Followed(followed) => self.follow(now, *followed),
            Change::Foreign { cluster, cluster_uid, at } => self.note_foreign(now, &cluster, &cluster_uid, at),
        }
        self.take_events()
    }

    /// Opens a session for the cluster of `hello`, ending the one before; returns the new session's epoch.
    ///
    /// # Errors
    /// [`Refusal`]; one for another uid is also shown in the cluster's message.
    pub fn open(&mut self, now: Timestamp, hello: &Hello) -> (Result<u64, Refusal>, Vec<Event>) {
        let opened = self.open_link(now, hello, None);
        (opened, self.take_events())
    }

    /// The same under an epoch that the store gave out, for all replicas.
    ///
    /// # Errors
    /// As [`Fleet::open`], and where a newer session is known.
    pub fn open_as(&mut self, now: Timestamp, hello: &Hello, epoch: u64) -> (Result<u64, Refusal>, Vec<Event>) {
        let opened = self.open_link(now, hello, Some(epoch));
        (opened, self.take_events())
    }

    /// Does what is due at `now`, and what the changes since the last time mean for the checks that depend on them: once
    /// for all of them, since there may be many changes and many dependants.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Event> {
        while let Some((at, _)) = self.deadlines.first() {
            if *at > now {
                break;
            }
            match self.deadlines.pop_first() {
                Some((_, Deadline::Cluster(name))) => {
                    if let Some(link) = self.links.get_mut(&name) {
                        link.armed = None;
                    }
                    self.refresh_cluster(now, &name);
                }
                Some((_, Deadline::Check(cluster, uid))) => {
                    if let Some(known) = self.links.get_mut(&cluster).and_then(|link| link.checks.get_mut(&uid)) {
                        known.armed = None;
                    }
                    self.refresh_check(now, &cluster, &uid);
                }
                Some((_, Deadline::Acknowledged(cluster, namespace, name))) => {
                    self.end_acknowledgement(now, &cluster, &(namespace, name));
                }
                Some((_, Deadline::Windows)) => self.refresh_windows(now),
                Some((_, Deadline::Replica(id))) => self.replica_is_due(now, &id),
                None => break,
            }
        }
        self.refresh_dependants(now);
        self.take_events()
    }

    /// The hub's clock was set by `by` and says `now`. Leases and whatever else is counted from a moment of the hub's own
    /// move along; windows and acknowledgements are told in dates and do not. A check is not overdue for it as long as the
    /// clock of its cluster, which agreed with the hub's, goes on as before.
    pub fn stepped(&mut self, now: Timestamp, by: SignedDuration) -> Vec<Event> {
        self.started_at = moved(self.started_at, by);
        self.replicas.stepped(by);
        let ids: Vec<String> = self.replicas.ids();
        for id in ids {
            self.refresh_replica(now, &id);
        }
        let names: Vec<String> = self.links.keys().cloned().collect();
        for name in names {
            self.move_link(now, &name, by);
        }
        self.refresh_windows(now);
        self.take_events()
    }

    /// When [`Fleet::tick`] has something to do next; never, while nothing is due.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The view as it is, under the next revision. Costs a pointer a cluster, whatever changed.
    pub fn publish(&mut self) -> Arc<FleetView> {
        self.view.revision += 1;
        Arc::new(self.view.clone())
    }

    /// The view that the next [`Fleet::publish`] gives out.
    pub fn view(&self) -> &FleetView {
        &self.view
    }

    /// Epoch of the open session of a cluster.
    pub fn open_epoch(&self, cluster: &str) -> Option<u64> {
        self.links.get(cluster)?.open_epoch()
    }

    fn take_events(&mut self) -> Vec<Event> {
        for name in std::mem::take(&mut self.recounted) {
            self.announce(&name);
        }
        std::mem::take(&mut self.events)
    }

    fn said(&mut self, now: Timestamp, cluster: &str, epoch: u64, what: Said) {
        if what != Said::Closed {
            self.heard(now, cluster);
        }
        match what {
            Said::Heard => {}
            Said::Heartbeat(beat) => self.heartbeat(now, cluster, &beat),
            Said::Upsert(state) => self.put_said(now, cluster, epoch, *state),
            Said::Removed(uid) => self.remove_check(cluster, &uid),
            Said::Snapshot { checks, last } => {
                for state in checks {
                    self.put_said(now, cluster, epoch, state);
                }
                if last {
                    self.end_snapshot(cluster, epoch);
                }
            }
            Said::Closed => self.close_link(now, cluster),
        }
    }

    fn put_cluster(&mut self, now: Timestamp, known: KnownCluster) {
        let KnownCluster { name, labels, annotations, cluster_uid, self_test, pending_enrolment } = known;
        let link = self.links.entry(name.clone()).or_default();
        let rebound = link.uid != cluster_uid;
        link.uid = cluster_uid;
        if rebound {
            link.oddity = None;
        }
        match self.view.clusters.get_mut(&name) {
            Some(entry) => {
                let view = &mut Arc::make_mut(entry).view;
                view.labels = labels;
                view.annotations = annotations;
                view.self_test = self_test;
                view.pending_enrolment = pending_enrolment;
                self.events.push(Event::Cluster(Box::new(view.clone())));
                // The windows pick clusters by their labels.
                self.reshow(now, &name);
            }
            None => {
                let view = ClusterView {
                    name: name.clone(),
                    labels,
                    annotations,
                    status: ClusterStatus::Pending,
                    message: String::new(),
                    last_heard_at: None,
                    agent_version: String::new(),
                    kubernetes_version: String::new(),
                    backlog: 0,
                    dropped_reports: 0,
                    refused_checks: 0,
                    clock_skew_ms: 0,
                    certificate_ends_at: None,
                    self_test,
                    pending_enrolment,
                    policy: Vec::new(),
                    checks: empty_counts(),
                };
                count(&mut self.view.summary.clusters, view.status.as_str(), 1);
                self.events.push(Event::Cluster(Box::new(view.clone())));
                self.view.clusters.insert(name.clone(), Arc::new(ClusterEntry::new(view, Checks::default())));
            }
        }
        self.refresh_cluster(now, &name);
    }

    fn remove_cluster(&mut self, name: &str) {
        let Some(link) = self.links.remove(name) else { return };
        if let Some(at) = link.armed {
            self.deadlines.remove(&(at, Deadline::Cluster(name.to_owned())));
        }
        for (uid, known) in link.checks {
            if let Some(at) = known.armed {
                self.deadlines.remove(&(at, Deadline::Check(name.to_owned(), uid)));
            }
        }
        if let Some(entry) = self.view.clusters.remove(name) {
            count(&mut self.view.summary.clusters, entry.view.status.as_str(), -1);
            for check in entry.checks.values() {
                count(&mut self.view.summary.checks, check.status.as_str(), -1);
            }
        }
        self.events.push(Event::ClusterRemoved { name: name.to_owned() });
    }
}

fn empty_counts() -> BTreeMap<String, u64> {
    CheckStatus::ALL.iter().map(|status| (status.as_str().to_owned(), 0)).collect()
}

/// Adds `by` to one of the numbers; they were made with every status in them.
fn count(counts: &mut BTreeMap<String, u64>, status: &str, by: i64) {
    if let Some(value) = counts.get_mut(status) {
        *value = value.saturating_add_signed(by);
    }
}

/// `at + by`, or the end of time.
fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
