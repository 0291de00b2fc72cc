//! Publishes what this replica shows of its own clusters, and so says that it is alive.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::fleet::{FleetView, Publisher};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stored;
use crate::store::postgres::replicas::Replicas;

/// The longest time between two rounds.
const PERIOD: Duration = Duration::from_millis(250);

/// Publishes what changed until `stop`, and once more then. After `beat` without anything to say it says so.
pub(super) async fn run(
    store: Arc<Replicas>,
    view: watch::Receiver<Arc<FleetView>>,
    beat: Duration,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut publisher = Publisher::default();
    let mut heard_at = None::<Instant>;
    loop {
        let is_last = stop.is_cancelled();
        let current = view.borrow().clone();
        let due = publisher.due(&current);
        if !due.is_empty() || heard_at.is_none_or(|at| at.elapsed() >= beat) {
            match store.publish(&due.iter().map(stored).collect::<Vec<_>>()).await {
                Ok(refused) => {
                    if !refused.is_empty() {
                        tracing::info!(clusters = ?refused, "their sessions are at other replicas");
                    }
                    publisher.published(&current, due, &refused);
                    heard_at = Some(Instant::now());
                }
                // The next round tries again; until then the others show what they know.
                Err(error) => tracing::warn!(%error, "what this replica shows is not published"),
            }
        }
        if is_last {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD.min(beat)) => {}
            () = stop.cancelled() => {}
        }
    }
}
