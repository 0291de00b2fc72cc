//! What an agent that takes over lacks: runs that another one counted into the status and may not have told the hub, and
//! the workflows of active-monitor's that it had adopted. The workflows are there for some minutes, so what they say is
//! journaled again; the hub counts each run once. Of what is gone, the statuses say that it was: that the hub is told.

use active_monitor_core::check::Check;
use active_monitor_core::decide::counted_before;
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::ownership::{counted_by_agents, was_adopted};
use active_monitor_core::run::RunKind;
use active_monitor_core::session::frame::Counted;
use active_monitor_core::status::mark;
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
    let runs = checks.clone().flat_map(|(resource, check)| {
        let status = resource.status.clone().unwrap_or_default();
        counted_before(now, check, &context.observe(now, resource, status))
    });
    let runs: Vec<_> = runs.collect();
    // Those of one check stay in order: the journal remembers only the latest slots.
    let settled = futures::stream::iter(runs).map(|run| context.journal.settle(run)).buffered(SIDE_BY_SIDE);
    let rebuilt = settled.filter(|new| std::future::ready(matches!(new, Ok(true)))).count().await;
    context.journal.lacks(checks.filter_map(|(resource, check)| lacks(context, resource, check)).collect());
    rebuilt
}

/// The last run of the check that an agent counted into the status, where the journal does not know it. What another
/// controller counted was never an agent's to report.
fn lacks(context: &Context, resource: &HealthCheck, check: &Check) -> Option<Counted> {
    let counted = counted_by_agents(resource)?;
    let known = context.journal.last_run(&check.uid, RunKind::HealthCheck);
    let is_known = known.is_some_and(|run| mark(run.key.slot, run.started_at) >= counted);
    (!is_known).then(|| Counted { check_uid: check.uid.clone(), mark: counted })
}
