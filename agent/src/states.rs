//! The state of every check of this cluster, as it is at this moment: written by the controller, read by the link and by
//! the metrics.
//!
//! A watcher that is slow misses steps, never the last state: what waits for it is one entry a check, however often the
//! check changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use active_monitor_core::state::CheckState;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// A handle on the states; clones share them.
#[derive(Clone)]
pub struct States {
    inner: Arc<Mutex<Inner>>,
    listed: Arc<watch::Sender<bool>>,
    complete: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct Inner {
    checks: BTreeMap<String, Arc<CheckState>>,
    /// Of the checks expected, those never heard of.
    missing: BTreeSet<String>,
    watchers: Vec<Weak<Watcher>>,
}

#[derive(Default)]
struct Watcher {
    changed_uids: Mutex<BTreeSet<String>>,
    wake: Notify,
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is like this.
    Upsert(Arc<CheckState>),
    /// uid of a check that is gone.
    Removed(String),
}

/// A watcher's view of the changes since [`States::changes`].
pub struct Changes {
    states: States,
    watcher: Arc<Watcher>,
}

impl States {
    /// No checks, and complete as it is.
    pub fn new() -> States {
        States {
            inner: Arc::default(),
            listed: Arc::new(watch::Sender::new(true)),
            complete: Arc::new(watch::Sender::new(true)),
        }
    }

    /// No checks, and incomplete until [`States::expect`] has said which there are and each of them was heard of.
    pub fn incomplete() -> States {
        States {
            inner: Arc::default(),
            listed: Arc::new(watch::Sender::new(false)),
            complete: Arc::new(watch::Sender::new(false)),
        }
    }

    /// These are the uids of the checks in the cluster: the states are complete once each was set or removed.
    pub fn expect(&self, uids: impl IntoIterator<Item = String>) {
        let mut inner = self.inner.lock();
        let missing = uids.into_iter().filter(|uid| !inner.checks.contains_key(uid)).collect();
        inner.missing = missing;
        self.complete.send_replace(inner.missing.is_empty());
        self.listed.send_replace(true);
    }

    /// Waits until [`States::expect`] has said which checks there are.
    pub async fn listed(&self) {
        self.listed.subscribe().wait_for(|listed| *listed).await.ok();
    }

    /// Waits until the states are complete.
    pub async fn completed(&self) {
        // The sender is in `self`: it cannot be gone.
        self.complete.subscribe().wait_for(|complete| *complete).await.ok();
    }

    /// Sets a check's state. Nothing happens where it is equal to the one known.
    pub fn upsert(&self, state: CheckState) {
        let mut inner = self.inner.lock();
        self.heard_of(&mut inner, &state.uid);
        if inner.checks.get(&state.uid).is_some_and(|known| **known == state) {
            return;
        }
        inner.announce(&state.uid);
        inner.checks.insert(state.uid.clone(), Arc::new(state));
    }

    /// Forgets a check.
    pub fn remove(&self, uid: &str) {
        let mut inner = self.inner.lock();
        self.heard_of(&mut inner, uid);
        if inner.checks.remove(uid).is_some() {
            inner.announce(uid);
        }
    }

    /// A check's state.
    pub fn get(&self, uid: &str) -> Option<Arc<CheckState>> {
        self.inner.lock().checks.get(uid).cloned()
    }

    /// Every check, by uid.
    pub fn all(&self) -> Vec<Arc<CheckState>> {
        self.inner.lock().checks.values().cloned().collect()
    }

    /// Watches from here on; [`States::all`] called after this misses nothing.
    pub fn changes(&self) -> Changes {
        let watcher = Arc::new(Watcher::default());
        self.inner.lock().watchers.push(Arc::downgrade(&watcher));
        Changes { states: self.clone(), watcher }
    }

    /// The last one completes the states only when it is in them: who waits reads them under the same lock.
    fn heard_of(&self, inner: &mut Inner, uid: &str) {
        if inner.missing.remove(uid) && inner.missing.is_empty() {
            self.complete.send_replace(true);
        }
    }
}

impl Default for States {
    fn default() -> States {
        States::new()
    }
}

impl Inner {
    /// Called with the lock held, so that a watcher that wakes sees the change that follows.
    fn announce(&mut self, uid: &str) {
        self.watchers.retain(|watcher| {
            let Some(watcher) = watcher.upgrade() else { return false };
            watcher.changed_uids.lock().insert(uid.to_owned());
            watcher.wake.notify_one();
            true
        });
    }
}

impl Changes {
    /// Waits for changes: one entry for each check that changed since the last call, as it is by then. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            let changes = self.take();
            if !changes.is_empty() {
                return changes;
            }
            self.watcher.wake.notified().await;
        }
    }

    /// The changes there are, without waiting.
    pub(crate) fn take(&self) -> Vec<Change> {
        let inner = self.states.inner.lock();
        let uids = std::mem::take(&mut *self.watcher.changed_uids.lock());
        let change = |uid: String| inner.checks.get(&uid).cloned().map_or(Change::Removed(uid), Change::Upsert);
        uids.into_iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use active_monitor_core::state::{Phase, Totals};

    use super::*;

    fn check(uid: &str, message: &str) -> CheckState {
        CheckState {
            uid: uid.into(),
            namespace: "health".into(),
            name: uid.into(),
            description: String::new(),
            phase: Phase::Pending,
            message: message.into(),
            schedule: String::new(),
            running: None,
            next_slot: None,
            timeout_seconds: 60,
            check: Totals::default(),
            remedy: None,
            remedy_status: String::new(),
            samples: Vec::new(),
            refused_samples: 0,
            pauses: Vec::new(),
            remedy_budget: None,
            depends_on: Vec::new(),
            definition: None,
        }
    }

    #[tokio::test]
    async fn changes_are_one_a_check_and_show_the_last_state() {
        let states = States::new();
        states.upsert(check("old", ""));
        let mut changes = states.changes();
        states.upsert(check("old", ""));
        states.upsert(check("a", "1"));
        states.upsert(check("a", "2"));
        states.upsert(check("b", "1"));
        states.remove("b");
        states.remove("never known");
        let expected = [Change::Upsert(Arc::new(check("a", "2"))), Change::Removed("b".into())];
        assert_eq!(changes.next().await, expected);
        states.remove("old");
        assert_eq!(changes.next().await, [Change::Removed("old".into())]);
        assert_eq!(states.all(), [states.get("a").unwrap()]);
    }

    #[tokio::test]
    async fn states_are_complete_when_every_expected_check_was_heard_of() {
        use futures::FutureExt;
        let states = States::incomplete();
        states.upsert(check("early", ""));
        assert!(states.completed().now_or_never().is_none());
        states.expect(["early".into(), "a".into(), "b".into()]);
        states.upsert(check("a", ""));
        assert!(states.completed().now_or_never().is_none());
        states.remove("b");
        assert!(states.completed().now_or_never().is_some());
        let states = States::incomplete();
        states.expect([]);
        assert!(states.completed().now_or_never().is_some());
        assert!(States::new().completed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_waiting_watcher_wakes_and_a_dropped_one_is_forgotten() {
        let states = States::new();
        let mut changes = states.changes();
        let waiter = tokio::spawn(async move { changes.next().await });
        states.upsert(check("a", ""));
        assert_eq!(waiter.await.unwrap().len(), 1);
        states.upsert(check("a", "again"));
        assert!(states.inner.lock().watchers.is_empty());
    }
}
