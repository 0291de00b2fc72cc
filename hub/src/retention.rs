//! Deletes what is older than it is kept for, so that the hub's disk is bounded by what runs and not by how long.
//!
//! In small batches with a pause between them: a batch waits in the writer's queue like any other write, and reports of
//! agents wait for one batch at most.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use prometheus::core::Collector;
use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use tokio_util::sync::CancellationToken;

use crate::owner::FleetHandle;
use crate::rollup;
use crate::store::{Expired, Store, StoreError};

/// Time between two passes.
const PERIOD: Duration = Duration::from_secs(10 * 60);
/// Rows in a batch.
const BATCH: u32 = 500;
/// Time between two batches.
const PAUSE: Duration = Duration::from_millis(20);

/// Days that transitions, sums of days and closed incidents are kept: a year.
const YEAR_DAYS: u16 = 366;

/// How long what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Runs.
    pub run_days: u16,
    /// Log tails of runs that are kept.
    pub log_tail_days: u16,
    /// Lines of the audit log.
    pub audit_days: u16,
}

impl Retention {
    /// From which time on it stays.
    fn limit(self, what: Expired, now: Timestamp) -> Timestamp {
        let days = match what {
            Expired::Runs => self.run_days,
            Expired::LogTails => self.log_tail_days,
            Expired::Audit => self.audit_days,
            Expired::Transitions
            | Expired::LateResults
            | Expired::CheckDays
            | Expired::ClusterDays
            | Expired::Incidents => YEAR_DAYS,
        };
        now.saturating_sub(SignedDuration::from_hours(i64::from(days) * 24)).unwrap_or(now)
    }
}

/// What is counted of the pruning.
#[derive(Clone, Debug)]
pub struct Pruning {
    pruned: IntCounterVec,
    last: Gauge,
    rows: IntGaugeVec,
    file_bytes: IntGauge,
    used_bytes: IntGauge,
}

impl Pruning {
    /// Every counter is there from the start.
    ///
    /// # Errors
    /// A name is wrong.
    pub fn new() -> Result<Pruning, prometheus::Error> {
        let pruned = Opts::new("activemonitor_hub_pruned_rows_total", "Rows deleted, or emptied, for their age.");
        let pruned = IntCounterVec::new(pruned, &["what"])?;
        for what in Expired::ALL {
            pruned.with_label_values(&[what.as_str()]);
        }
        let rows = Opts::new("activemonitor_hub_store_rows", "Rows of the store after the last pruning.");
        Ok(Pruning {
            pruned,
            last: Gauge::new(
                "activemonitor_hub_last_pruning_timestamp_seconds",
                "When the last pruning that got through ended, in Unix time; 0 before the first.",
            )?,
            rows: IntGaugeVec::new(rows, &["table"])?,
            file_bytes: IntGauge::new("activemonitor_hub_store_file_bytes", "Bytes of the data base's file.")?,
            used_bytes: IntGauge::new(
                "activemonitor_hub_store_used_bytes",
                "Bytes of the data base that are in use; the rest of the file is used again before it grows.",
            )?,
        })
    }

    /// To be registered where they shall be seen.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let Pruning { pruned, last, rows, file_bytes, used_bytes } = self.clone();
        vec![Box::new(pruned), Box::new(last), Box::new(rows), Box::new(file_bytes), Box::new(used_bytes)]
    }
}

/// Rolls up and prunes now and then until `stop`. What cannot be rolled up is not pruned either: it may be needed for that.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    retention: Retention,
    counts: Pruning,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            result = round(store.as_ref(), &fleet, retention, &counts) => {
                if let Err(error) = result {
                    tracing::error!(%error, "not rolled up and pruned");
                }
            }
            () = stop.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn round(
    store: &dyn Store,
    fleet: &FleetHandle,
    retention: Retention,
    counts: &Pruning,
) -> Result<(), StoreError> {
    rollup::pass(store, &fleet.view(), Timestamp::now()).await?;
    pass(store, retention, Timestamp::now(), counts).await
}

/// Deletes all that is too old at `now`, and looks how much is left.
async fn pass(store: &dyn Store, retention: Retention, now: Timestamp, counts: &Pruning) -> Result<(), StoreError> {
    for what in Expired::ALL {
        let before = retention.limit(what, now);
        loop {
            let rows = store.prune(what, before, BATCH).await?;
            counts.pruned.with_label_values(&[what.as_str()]).inc_by(rows);
            if rows < u64::from(BATCH) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    let sizes = store.sizes().await?;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    for (table, rows) in sizes.rows {
        counts.rows.with_label_values(&[table]).set(number(rows));
    }
    counts.file_bytes.set(number(sizes.file_bytes));
    counts.used_bytes.set(number(sizes.used_bytes));
    counts.last.set(now.as_millisecond() as f64 / 1e3);
    Ok(())
}

#[cfg(test)]
mod tests;
