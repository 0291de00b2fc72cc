//! What sessions show of themselves in `/metrics`, beside what the fleet's view has of each cluster.

use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{Error, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts};

/// From within a second to a day without the hub.
const LAG_BUCKETS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 86_400.0];

/// The figures. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Figures {
    lag: Histogram,
    sessions: IntCounterVec,
    missing: IntCounterVec,
    expiry: IntGaugeVec,
}

impl Figures {
    /// None counted yet.
    ///
    /// # Errors
    /// A name is wrong.
    pub fn new() -> Result<Figures, Error> {
        let cluster = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["cluster"]);
        let lag = HistogramOpts::new(
            "activemonitor_hub_report_lag_seconds",
            "From the end of a run by its agent's clock until it is on the hub's disk, clocks' skew included.",
        );
        let expiry = Opts::new(
            "activemonitor_cluster_certificate_expiry_timestamp_seconds",
            "When the newest certificate of the cluster's agent ends, in Unix time; absent until the agent connects.",
        );
        Ok(Figures {
            lag: Histogram::with_opts(lag.buckets(LAG_BUCKETS.to_vec()))?,
            sessions: cluster(
                "activemonitor_cluster_sessions_total",
                "Sessions that the cluster's agent opened since the hub started: one more than its reconnects.",
            )?,
            missing: cluster(
                "activemonitor_cluster_missing_reports_total",
                "Reports that never came, as gaps found since the hub started: dropped, lost, or not read by this version. One for a gap of unknown length.",
            )?,
            expiry: IntGaugeVec::new(expiry, &["cluster"])?,
        })
    }

    /// To be registered where they shall be seen.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.lag.clone()),
            Box::new(self.sessions.clone()),
            Box::new(self.missing.clone()),
            Box::new(self.expiry.clone()),
        ]
    }

    pub(crate) fn opened(&self, cluster: &str) {
        self.sessions.with_label_values(&[cluster]).inc();
        // There from the start: a counter that appears with its first count would hide it from `increase()`.
        self.missing.with_label_values(&[cluster]);
    }

    pub(super) fn missing(&self, cluster: &str, reports: u64) {
        self.missing.with_label_values(&[cluster]).inc_by(reports);
    }

    pub(crate) fn certified(&self, cluster: &str, until: Timestamp) {
        self.expiry.with_label_values(&[cluster]).set(until.as_second());
    }

    pub(super) fn recorded(&self, finished_at: Timestamp, now: Timestamp) {
        self.lag.observe(now.duration_since(finished_at).as_secs_f64().max(0.0));
    }
}
