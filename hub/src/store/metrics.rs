//! What is counted of the writing, whatever the data base.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter};

use super::StoreError;

#[derive(Clone)]
pub(super) struct Metrics {
    /// Writes that were done or failed.
    pub(super) writes: IntCounter,
    /// Transactions, from begin to the end of the commit, seconds; each holds one write or more.
    pub(super) commits: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Result<Metrics, StoreError> {
        Metrics::make().map_err(|error| StoreError::Metrics(error.to_string()))
    }

    fn make() -> Result<Metrics, prometheus::Error> {
        let commits = HistogramOpts::new(
            "activemonitor_hub_store_commit_seconds",
            "Time of a transaction of the store; several writes may share one.",
        );
        Ok(Metrics {
            writes: IntCounter::new("activemonitor_hub_store_writes_total", "Writes to the store.")?,
            commits: Histogram::with_opts(commits)?,
        })
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.writes.clone()), Box::new(self.commits.clone())]
    }
}
