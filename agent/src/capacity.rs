//! Keeps runs in flight within the limits. Who is in flight is what the journal says, so nothing can leak; who waits asks
//! again from time to time, and is woken when a run ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::capacity::{Limits, Waiter, admit};
use active_monitor_core::check::Check;
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::run::{RunKey, RunKind};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};
use tokio::sync::mpsc;

use crate::journal::Journal;

/// Who waits asks again after about this time.
pub(crate) const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Who has not asked for so long does not want to start any more.
const GIVEN_UP: Duration = Duration::from_secs(35);

/// The places for runs in flight; clones share them.
#[derive(Clone)]
pub struct Capacity {
    limits: Limits,
    journal: Journal,
    wake: mpsc::Sender<ObjectRef<HealthCheck>>,
    book: Arc<Mutex<Book>>,
    waiting: IntGauge,
}

#[derive(Default)]
struct Book {
    waiting: HashMap<(String, RunKind), Waiting>,
    /// Places given to runs that are not in the journal yet.
    granted: BTreeMap<RunKey, String>,
}

struct Waiting {
    waiter: Waiter,
    name: String,
    asked: Timestamp,
}

/// A place, from the permission to start until the run is in the journal or was given up.
pub(crate) struct Grant {
    key: RunKey,
    book: Arc<Mutex<Book>>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.book.lock().granted.remove(&self.key);
    }
}

impl Capacity {
    /// Places within these limits, beside the runs that the journal has in flight; who gets one is told over `wake`.
    ///
    /// # Errors
    /// When the registry has its gauge already.
    pub fn new(
        limits: Limits,
        journal: Journal,
        wake: mpsc::Sender<ObjectRef<HealthCheck>>,
        registry: &Registry,
    ) -> Result<Capacity, prometheus::Error> {
        let help = "Runs that are due and wait because as many as allowed are in flight.";
        let waiting = IntGauge::new("activemonitor_agent_runs_waiting_for_capacity", help)?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Capacity { limits, journal, wake, book: Arc::default(), waiting })
    }

    /// Asks for a place for a run; `None` where it must wait. A run that the journal has in flight has its place.
    pub(crate) fn ask(&self, now: Timestamp, check: &Check, key: &RunKey) -> Option<Grant> {
        let mut book = self.book.lock();
        let asker = (key.check_uid.clone(), key.kind);
        if !self.journal.intents(&key.check_uid).iter().any(|open| open.intent.key == *key) {
            let (uid, namespace, name) = (key.check_uid.clone(), check.namespace.clone(), check.name.clone());
            let waiting = book.waiting.entry(asker.clone()).or_insert_with(|| Waiting {
                waiter: Waiter { since: now, uid, kind: key.kind, namespace },
                name,
                asked: now,
            });
            waiting.asked = now;
            let waiter = waiting.waiter.clone();
            let may_start = self.admitted(now, &mut book).contains(&waiter);
            if !may_start {
                return None;
            }
        }
        book.waiting.remove(&asker);
        book.granted.insert(key.clone(), check.namespace.clone());
        self.waiting.set(i64::try_from(book.waiting.len()).unwrap_or(i64::MAX));
        Some(Grant { key: key.clone(), book: Arc::clone(&self.book) })
    }

    /// Since when a check waits for a place.
    pub(crate) fn waits_since(&self, uid: &str) -> Option<Timestamp> {
        let book = self.book.lock();
        let waiting = |kind| book.waiting.get(&(uid.to_owned(), kind)).map(|waiting| waiting.waiter.since);
        waiting(RunKind::HealthCheck).or_else(|| waiting(RunKind::Remedy))
    }

    /// A run has ended: whoever may start now is woken.
    pub(crate) fn freed(&self, now: Timestamp) {
        let mut book = self.book.lock();
        for next in self.admitted(now, &mut book) {
            if let Some(waiting) = book.waiting.get(&(next.uid, next.kind)) {
                // Where there is no room it asks again by itself.
                self.wake.try_send(ObjectRef::new(&waiting.name).within(&next.namespace)).ok();
            }
        }
    }

    fn admitted(&self, now: Timestamp, book: &mut Book) -> Vec<Waiter> {
        book.waiting.retain(|_, waiting| now.duration_since(waiting.asked).unsigned_abs() < GIVEN_UP);
        self.waiting.set(i64::try_from(book.waiting.len()).unwrap_or(i64::MAX));
        if book.waiting.is_empty() {
            return Vec::new();
        }
        let in_flight = self.journal.in_flight(&book.granted);
        let waiting: Vec<Waiter> = book.waiting.values().map(|waiting| waiting.waiter.clone()).collect();
        admit(self.limits, &in_flight, &waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{DEFAULT_MAX_BYTES, Intent};

    fn check(namespace: &str, name: &str) -> Check {
        let text = format!(
            "apiVersion: activemonitor.keikoproj.io/v1alpha1\nkind: HealthCheck\n\
             metadata: {{name: {name}, namespace: {namespace}, uid: {namespace}-{name}}}\n\
             spec: {{repeatAfterSec: 60, workflow: {{resource: {{namespace: {namespace}, serviceAccount: probe, \
             source: {{inline: '{{apiVersion: argoproj.io/v1alpha1, kind: Workflow, spec: {{entrypoint: x}}}}'}}}}}}}}\n"
        );
        Check::parse(&serde_saphyr::from_str(&text).unwrap()).unwrap()
    }

    fn key(check: &Check) -> RunKey {
        RunKey { check_uid: check.uid.clone(), kind: RunKind::HealthCheck, slot: Timestamp::UNIX_EPOCH }
    }

    fn intent(check: &Check) -> Intent {
        let workflow = format!("{}/{}-1", check.namespace, check.name);
        Intent {
            key: key(check),
            namespace: check.namespace.clone(),
            name: check.name.clone(),
            workflow,
            run_now: None,
        }
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_shows_since_when_and_is_woken_when_a_run_ends() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), DEFAULT_MAX_BYTES).await.unwrap();
        let (wake, mut woken) = mpsc::channel(8);
        let limits = Limits { cluster: Some(1), namespace: None };
        let capacity = Capacity::new(limits, journal.clone(), wake, &Registry::new()).unwrap();
        let (first, second, other) = (check("a", "first"), check("a", "second"), check("b", "other"));
        let at = |seconds: i64| Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(seconds);

        let grant = capacity.ask(at(0), &first, &key(&first)).expect("there is room");
        assert!(capacity.ask(at(1), &second, &key(&second)).is_none(), "a place is taken before it is in the journal");
        journal.intend(intent(&first)).await.unwrap();
        drop(grant);
        assert!(capacity.ask(at(2), &second, &key(&second)).is_none(), "and when it is");
        assert!(capacity.ask(at(3), &first, &key(&first)).is_some(), "who is in flight goes on");
        assert!(capacity.ask(at(4), &other, &key(&other)).is_none());
        assert_eq!((capacity.waits_since("a-second"), capacity.waiting.get()), (Some(at(1)), 2));

        journal.abandon(&key(&first)).await.unwrap();
        capacity.freed(at(5));
        assert_eq!(woken.try_recv().unwrap().name, "second");
        assert!(woken.try_recv().is_err(), "there is one place");
        assert!(capacity.ask(at(6), &other, &key(&other)).is_none(), "it is not his turn");
        // The one whose turn it is was deleted meanwhile, and never asks again.
        assert!(capacity.ask(at(40), &other, &key(&other)).is_some());
        assert_eq!((capacity.waits_since("a-second"), capacity.waiting.get()), (None, 0));
    }
}
