//! `--mode observe`: reports what another controller writes into the checks' statuses. Reads HealthChecks; changes
//! nothing in the cluster, and says nothing of runs, since a status does not tell each of them.

use std::collections::BTreeSet;

use active_monitor_core::check::Check;
use active_monitor_core::ownership;
use active_monitor_core::scope::Scope;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::controller::Guarded;
use crate::states::States;
use crate::watches;

/// HealthChecks that a list page carries.
const PAGE: u32 = 50;

/// Follows the checks until the stream's end. `ready` is told when every check was heard of once.
pub async fn run(client: Client, scope: Scope, states: States, clock: Clock, ready: watch::Sender<bool>) {
    let checks = watches::watch(watches::apis(&scope, &client), &watcher::Config::default().page_size(PAGE));
    apply(checks, &states, &clock, &ready).await;
}

async fn apply(
    events: impl Stream<Item = watcher::Result<Event<Guarded>>>,
    states: &States,
    clock: &Clock,
    ready: &watch::Sender<bool>,
) {
    let mut events = std::pin::pin!(events);
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(check)) => {
                listed.extend(report(states, clock.now(), &check));
            }
            Ok(Event::InitDone) => {
                let known = states.all().into_iter().map(|state| state.uid.clone());
                known.filter(|uid| !listed.contains(uid)).for_each(|uid| states.remove(&uid));
                states.expect(std::mem::take(&mut listed));
                tracing::info!("observing the checks of another controller, running none");
                let _ = ready.send(true);
            }
            Ok(Event::Apply(check)) => {
                report(states, clock.now(), &check);
            }
            Ok(Event::Delete(check)) => check.uid().iter().for_each(|uid| states.remove(uid)),
            Err(error) => tracing::warn!(%error, "watch of HealthChecks failed, trying again"),
        }
    }
}

/// Tells the state of a check; gives its uid.
fn report(states: &States, now: Timestamp, check: &Guarded) -> Option<String> {
    match &check.0 {
        Ok(resource) => {
            states.upsert(ownership::observed(now, resource, &Check::parse(resource)));
            resource.uid()
        }
        Err(error) => {
            tracing::warn!(check = check.name_any(), %error, "object is no HealthCheck, left alone");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uid: &str, status: &str) -> Guarded {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": uid, "namespace": "health", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"repeatAfterSec": 60, "workflow": {"resource": {"namespace": "health", "source": {}}}},
            "status": {"status": status},
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_relist_forgets_what_is_gone_and_completes_the_states() {
        let states = States::incomplete();
        let (ready, is_ready) = watch::channel(false);
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(check("a", "Succeeded"))),
            Ok(Event::InitApply(check("b", "Failed"))),
            Ok(Event::InitDone),
            Ok(Event::Apply(check("c", "Succeeded"))),
            Ok(Event::Delete(check("b", "Failed"))),
            Ok(Event::Init),
            Ok(Event::InitApply(check("a", "Failed"))),
            Ok(Event::InitDone),
        ];
        let clock = Clock::new(&prometheus::Registry::new()).unwrap();
        apply(futures::stream::iter(events), &states, &clock, &ready).await;
        states.completed().await;
        let left: Vec<_> = states.all().iter().map(|state| (state.uid.clone(), state.phase.as_str())).collect();
        assert_eq!(left, [("a".to_owned(), "Failed")]);
        assert!(*is_ready.borrow());
    }
}
