//! Saves the checks' states now and then, so that a hub that starts again knows which checks there are.
//!
//! Lazily on purpose: the agents say it all again when they connect. What is unchanged is known by its pointer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::fleet::{Checks, FleetView};
use active_monitor_core::health::Health;
use active_monitor_core::state::CheckState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Time between two rounds.
const PERIOD: Duration = Duration::from_secs(5);

/// Saves what changed until `stop`, and once more then.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    view: watch::Receiver<Arc<FleetView>>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut saved = view.borrow().clone();
    while !stop.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => {}
        }
        let current = view.borrow().clone();
        if save(store.as_ref(), &saved, &current).await {
            saved = current;
        }
    }
    Ok(())
}

/// Saves the difference; false when some of it could not be saved, so that the next round tries again.
async fn save(store: &dyn Store, saved: &FleetView, current: &FleetView) -> bool {
    let nothing = Arc::<Checks>::default();
    let mut all_saved = true;
    for (name, entry) in &current.clusters {
        let before = saved.clusters.get(name).map_or(&nothing, |entry| &entry.checks);
        if Arc::ptr_eq(before, &entry.checks) {
            continue;
        }
        let (changed, removed) = difference(before, &entry.checks);
        if changed.is_empty() && removed.is_empty() {
            continue;
        }
        if let Err(error) = store.save_check_states(name, changed, removed).await {
            tracing::warn!(cluster = name, %error, "check states not saved");
            all_saved = false;
        }
    }
    all_saved
}

fn difference(before: &Checks, after: &Checks) -> (Vec<(CheckState, Health)>, Vec<String>) {
    // What changes in the memory of a check comes with a change of its state.
    let changed = after.iter().filter(|(key, check)| {
        !before.get(*key).is_some_and(|old| Arc::ptr_eq(old, check) || old.state == check.state)
    });
    let changed = changed.map(|(_, check)| (check.state.clone(), check.health.clone())).collect();
    let removed = before.iter().filter(|(key, old)| after.get(*key).is_none_or(|new| new.state.uid != old.state.uid));
    (changed, removed.map(|(_, old)| old.state.uid.clone()).collect())
}
