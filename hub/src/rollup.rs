//! Sums up what is kept for long: the days of each check and cluster, and what late results say of a time in which nothing
//! was known.
//!
//! Each step can be done again, and is, where the one that says that it was done did not come: a day's sums are replaced,
//! and the same runs make the same results.

use std::collections::BTreeMap;
use std::time::Duration;

use active_monitor_core::fleet::{FleetView, OVERDUE_GRACE};
use active_monitor_core::schedule::Schedule;
use active_monitor_core::uptime::{Class, Day, Late, Uptime};
use jiff::{SignedDuration, Timestamp};

use crate::store::rollups::{CheckDay, CheckFilter, LateRun};
use crate::store::{CheckKey, Store, StoreError};
use crate::uptime;

/// What is younger may still be written: longer than a write may take.
const SETTLE: SignedDuration = SignedDuration::from_mins(5);
/// Days that are summed up at most, the first time.
const DAYS: i64 = 366;
/// Late runs that are read at once.
const PAGE: u32 = 5_000;
/// Runs that are looked through at once: a query must end in its time, however few of them are late.
const SPAN: i64 = 200_000;
/// Late results that are held together; those of one check can be joined only then.
const MAX_RESULTS: usize = 100_000;
/// Late results in a write.
const BATCH: usize = 500;
/// Time between two writes, so that reports of agents wait for one at most.
const PAUSE: Duration = Duration::from_millis(5);

/// Does what is to be done at `now`. What the checks' schedules are is taken from `view`.
pub(crate) async fn pass(store: &dyn Store, view: &FleetView, now: Timestamp) -> Result<(), StoreError> {
    let settled = now.saturating_sub(SETTLE).unwrap_or(Timestamp::MIN);
    late_results(store, view, settled, now).await?;
    let done = store.rolled_up().await?.days;
    for (day, cluster) in store.changed_days().await? {
        if done.is_some_and(|done| day <= done) {
            sum_up(store, day, Some(cluster)).await?;
        }
    }
    let yesterday = Day::of(settled).before();
    let mut day = match (done, store.first_transition().await?) {
        (Some(done), _) => done.next(),
        (None, Some(first)) => Day::of(first).max(Day(yesterday.0 - DAYS)),
        (None, None) => return Ok(()),
    };
    while day <= yesterday {
        sum_up(store, day, None).await?;
        store.close_day(day).await?;
        day = day.next();
    }
    Ok(())
}

/// Keeps what runs say that were recorded long after their end.
async fn late_results(
    store: &dyn Store,
    view: &FleetView,
    settled: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let through = store.newest_run(settled).await?;
    let mut after = store.rolled_up().await?.runs;
    while after < through {
        let mut results: BTreeMap<CheckKey, Vec<Late>> = BTreeMap::new();
        let mut held = 0;
        while after < through && held < MAX_RESULTS {
            let upto = through.min(after.saturating_add(SPAN));
            let runs = store.late_runs(after, upto, PAGE).await?;
            after = if runs.len() < PAGE as usize { upto } else { runs.last().map_or(upto, |run| run.id) };
            for run in runs {
                if let Some(late) = late(view, &run, now) {
                    let of_check = results.entry(run.key).or_default();
                    held -= of_check.len();
                    late.join(of_check);
                    held += of_check.len();
                }
            }
        }
        let results: Vec<(CheckKey, Late)> = results
            .into_iter()
            .flat_map(|(key, of_check)| {
                // Of two at one time one counts: a statement must not have both.
                let once: BTreeMap<Timestamp, Late> = of_check.into_iter().map(|late| (late.from, late)).collect();
                once.into_values().map(move |late| (key.clone(), late))
            })
            .collect();
        for batch in results.chunks(BATCH) {
            store.put_late(batch.to_vec()).await?;
            tokio::time::sleep(PAUSE).await;
        }
        store.looked_at(after).await?;
    }
    Ok(())
}

/// What a run says of its check: until the next result was due. Of a check that is gone nobody knows when that was.
fn late(view: &FleetView, run: &LateRun, now: Timestamp) -> Option<Late> {
    let CheckKey { cluster, namespace, name } = &run.key;
    let state = &view.check(cluster, namespace, name)?.state;
    let next = Schedule::parse_cron(&state.schedule).ok()?.next_after(run.slot, run.slot)?;
    let grace = Duration::from_secs(state.timeout_seconds).saturating_add(OVERDUE_GRACE);
    let until = next.saturating_add(grace).ok()?.min(now);
    // Nothing older than a year is kept, and a time is no better than who says it.
    let from = run.finished_at.max(now.saturating_sub(SignedDuration::from_hours(24 * DAYS)).ok()?);
    (from < until).then_some(Late { from, until, outcome: run.outcome })
}

/// Sums up a day of one cluster, or of all.
async fn sum_up(store: &dyn Store, day: Day, cluster: Option<String>) -> Result<(), StoreError> {
    let lives = store.lives().await?;
    let filter = CheckFilter { cluster, ..CheckFilter::default() };
    let mut clusters: BTreeMap<String, Vec<CheckDay>> = BTreeMap::new();
    clusters.extend(filter.cluster.iter().map(|cluster| (cluster.clone(), Vec::new())));
    for (key, (time, ends)) in uptime::walk(store, &filter, &lives, day.start(), day.next().start()).await? {
        if time != Uptime::default() || ends != Class::Absent {
            clusters.entry(key.cluster.clone()).or_default().push(CheckDay { key, time, ends });
        }
    }
    for (cluster, checks) in clusters {
        store.put_days(day, &cluster, checks).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
