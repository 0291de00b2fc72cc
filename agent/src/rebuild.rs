//! What an agent that takes over lacks: runs that another one counted into the status and may not have told the hub, and
//! the workflows of active-monitor's that it had adopted. The workflows are there for some minutes, so what they say is
//! journaled again; the hub counts each run once.

use active_monitor_core::check::Check;
use active_monitor_core::decide::counted_before;
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::ownership::was_adopted;
use futures::StreamExt;

use crate::context::Context;
use crate::ownership;

/// Runs that are journaled side by side: they share an fsync.
const SIDE_BY_SIDE: usize = 256;

/// Journals the ended runs of these checks that the journal does not know; gives their number. After a restart with the
/// journal at hand there are none.
pub(crate) async fn rebuild<'a>(
    context: &Context,
    checks: impl Iterator<Item = (&'a HealthCheck, &'a Check)> + Clone,
) -> usize {
    for (resource, check) in checks.clone() {
        let status = resource.status.clone().unwrap_or_default();
        for seen in context.workflows.of_check(&check.uid) {
            if was_adopted(&status, &seen) {
                ownership::adopt_again(context, check, &seen).await;
            }
        }
    }
    let now = context.clock.now();
    let runs = checks.flat_map(|(resource, check)| {
        let status = resource.status.clone().unwrap_or_default();
        counted_before(now, check, &context.observe(now, resource, status))
    });
    let runs: Vec<_> = runs.collect();
    // Those of one check stay in order: the journal remembers only the latest slots.
    let settled = futures::stream::iter(runs).map(|run| context.journal.settle(run)).buffered(SIDE_BY_SIDE);
    settled.filter(|new| std::future::ready(matches!(new, Ok(true)))).count().await
}
