//! The built-in families, and the rows that they are written from.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use active_monitor_core::fleet::{ClusterEntry, FleetView, overdue_seconds};
use active_monitor_core::run::RunKind;
use active_monitor_core::state::{CheckState, Sample, Totals};
use active_monitor_core::view::{CheckStatus, CheckView, ClusterStatus};
use jiff::Timestamp;

use super::text::{Text, push_label};

/// The clusters and checks of a view in the order in which they are written, with their labels as ready text.
pub(super) struct Rows {
    pub(super) clusters: Vec<ClusterRow>,
    pub(super) checks: Vec<CheckRow>,
    /// Custom samples that are shown nowhere, by cluster.
    pub(super) dropped: BTreeMap<String, u64>,
    /// The text of all labels: one allocation for the whole fleet.
    labels: String,
    now: Timestamp,
}

pub(super) struct ClusterRow {
    pub(super) entry: Arc<ClusterEntry>,
    labels: Range<usize>,
}

pub(super) struct CheckRow {
    pub(super) view: Arc<CheckView>,
    labels: Range<usize>,
    /// Whether what the agent said still holds: the series of its values end when it does not.
    is_live: bool,
    /// Numbers of the samples that are shown.
    pub(super) samples: Vec<usize>,
}

/// A sample by the number of its check and its own in it.
#[derive(Clone, Copy)]
pub(super) struct SampleAt {
    pub(super) check: usize,
    pub(super) sample: usize,
}

impl Rows {
    pub(super) fn new(view: &FleetView, now: Timestamp) -> Rows {
        let (dropped, labels) = (BTreeMap::new(), String::new());
        let mut rows = Rows { clusters: Vec::new(), checks: Vec::new(), dropped, labels, now };
        for (name, entry) in &view.clusters {
            let labels = rows.labels(&[("cluster", name)]);
            rows.clusters.push(ClusterRow { entry: entry.clone(), labels });
            let is_reachable = entry.view.status != ClusterStatus::Unreachable;
            let mut left = MAX_SAMPLES_PER_CLUSTER;
            let mut dropped = 0;
            for check in entry.checks.values() {
                let CheckState { namespace, name: check_name, samples, .. } = &check.state;
                let names = [("cluster", name.as_str()), ("namespace", namespace), ("healthcheck_name", check_name)];
                let labels = rows.labels(&names);
                let is_live = is_reachable && check.status != CheckStatus::Stale;
                let shown = if is_live { shown(samples, left) } else { Vec::new() };
                left -= shown.len();
                dropped += if is_live { samples.len() - shown.len() } else { 0 };
                rows.checks.push(CheckRow { view: check.clone(), labels, is_live, samples: shown });
            }
            if dropped > 0 {
                rows.dropped.insert(name.clone(), dropped as u64);
            }
        }
        rows
    }

    fn labels(&mut self, labels: &[(&str, &str)]) -> Range<usize> {
        let start = self.labels.len();
        for (index, (label, value)) in labels.iter().enumerate() {
            push_label(&mut self.labels, index == 0, label, value);
        }
        start..self.labels.len()
    }

    /// The labels of the check of a sample, and the sample.
    pub(super) fn sample(&self, at: SampleAt) -> (&str, &Sample) {
        let row = &self.checks[at.check];
        (&self.labels[row.labels.clone()], &row.view.state.samples[at.sample])
    }
}

/// Numbers of the samples that can be shown: a valid name, a finite value, a name only once, at most `limit`.
fn shown(samples: &[Sample], limit: usize) -> Vec<usize> {
    let mut names = BTreeSet::new();
    let is_valid = |sample: &Sample| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        !sample.metric.is_empty() && sample.metric.chars().all(allowed) && sample.value.is_finite()
    };
    let valid = samples.iter().enumerate().filter(|(_, sample)| is_valid(sample) && names.insert(&sample.metric));
    valid.map(|(index, _)| index).take(limit).collect()
}

/// A family that is always there.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// `counter` or `gauge`.
    pub(super) kind: &'static str,
    write: Write,
}

/// How the series of one row are written.
enum Write {
    /// For each kind of run: a value of its counters and times, absent where there was no run.
    Run(fn(&Totals) -> Option<f64>),
    /// Every custom sample.
    Samples,
    /// One value for each check.
    Check(fn(&CheckView, Timestamp) -> f64),
    /// 1 with the status of each check as a label.
    CheckStatus,
    /// One value for each cluster, absent where nothing is known.
    Cluster(fn(&ClusterEntry) -> Option<f64>),
    /// 1 with the status of each cluster as a label.
    ClusterStatus,
}

/// Custom samples of one cluster that are shown.
const MAX_SAMPLES_PER_CLUSTER: usize = 100_000;

/// Name prefixes that no custom family may have.
const RESERVED: [&str; 2] = ["activemonitor_", "process_"];

/// Whether a name belongs to a built-in family.
pub(super) fn is_built_in(name: &str) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix)) || FAMILIES.iter().any(|family| family.name == name)
}

/// Every built-in family in the order in which they are written.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "healthcheck_success_count",
        help: "Runs of a check or remedy that succeeded.",
        kind: "counter",
        write: Write::Run(|totals| Some(totals.succeeded as f64)),
    },
    Family {
        name: "healthcheck_error_count",
        help: "Runs of a check or remedy that failed.",
        kind: "counter",
        write: Write::Run(|totals| Some(totals.failed as f64)),
    },
    Family {
        name: "healthcheck_runtime_seconds",
        help: "How long the last run took.",
        kind: "gauge",
        write: Write::Run(|totals| Some(totals.finished_at?.duration_since(totals.started_at?).as_secs_f64())),
    },
    Family {
        name: "healthcheck_starttime",
        help: "When the last run started, in Unix time.",
        kind: "gauge",
        write: Write::Run(|totals| Some(totals.started_at?.as_second() as f64)),
    },
    Family {
        name: "healthcheck_finishedtime",
        help: "When the last run ended, in Unix time.",
        kind: "gauge",
        write: Write::Run(|totals| Some(totals.finished_at?.as_second() as f64)),
    },
    Family {
        name: "activemonitor_check_metric",
        help: "The custom metrics of every check, whatever their names.",
        kind: "gauge",
        write: Write::Samples,
    },
    Family {
        name: "activemonitor_check_healthy",
        help: "1 when the last run of the check succeeded and that is recent, else 0.",
        kind: "gauge",
        write: Write::Check(|check, _| f64::from(u8::from(check.status == CheckStatus::Succeeded))),
    },
    Family {
        name: "activemonitor_check_status",
        help: "1 for the status that the check has.",
        kind: "gauge",
        write: Write::CheckStatus,
    },
    Family {
        name: "activemonitor_check_overdue_seconds",
        help: "Seconds past the time when the next result of the check was due, 0 when it is in time.",
        kind: "gauge",
        write: Write::Check(|check, now| overdue_seconds(check, now) as f64),
    },
    Family {
        name: "activemonitor_cluster_reachable",
        help: "1 when the agent of the cluster is heard, else 0.",
        kind: "gauge",
        write: Write::Cluster(|cluster| {
            let is_reachable = match cluster.view.status {
                ClusterStatus::Connected | ClusterStatus::Reconnecting => true,
                ClusterStatus::Unreachable | ClusterStatus::Pending => false,
            };
            Some(f64::from(u8::from(is_reachable)))
        }),
    },
    Family {
        name: "activemonitor_cluster_status",
        help: "1 for the status that the cluster has.",
        kind: "gauge",
        write: Write::ClusterStatus,
    },
    Family {
        name: "activemonitor_cluster_last_heard_timestamp_seconds",
        help: "When the agent of the cluster was heard last, in Unix time.",
        kind: "gauge",
        write: Write::Cluster(|cluster| Some(cluster.view.last_heard_at?.as_millisecond() as f64 / 1e3)),
    },
    Family {
        name: "activemonitor_cluster_backlog_reports",
        help: "Reports that wait at the agent of the cluster.",
        kind: "gauge",
        write: Write::Cluster(|cluster| Some(cluster.view.backlog as f64)),
    },
    Family {
        name: "activemonitor_cluster_dropped_reports_total",
        help: "Reports that the agent of the cluster dropped because its journal was full.",
        kind: "counter",
        write: Write::Cluster(|cluster| Some(cluster.view.dropped_reports as f64)),
    },
    Family {
        name: "activemonitor_cluster_clock_skew_seconds",
        help: "The clock of the agent minus that of the hub.",
        kind: "gauge",
        write: Write::Cluster(|cluster| Some(cluster.view.clock_skew_ms as f64 / 1e3)),
    },
];

impl Family {
    /// Writes the series of row number `index`; false where there is no such row.
    pub(super) fn write_row(&self, rows: &Rows, index: usize, text: &mut Text) -> bool {
        match self.write {
            Write::Cluster(_) | Write::ClusterStatus => {
                let Some(row) = rows.clusters.get(index) else { return false };
                self.write_cluster(row, &rows.labels[row.labels.clone()], text);
            }
            Write::Run(_) | Write::Samples | Write::Check(_) | Write::CheckStatus => {
                let Some(row) = rows.checks.get(index) else { return false };
                self.write_check(row, &rows.labels[row.labels.clone()], rows.now, text);
            }
        }
        true
    }

    fn write_cluster(&self, row: &ClusterRow, labels: &str, text: &mut Text) {
        match self.write {
            Write::Cluster(value) => {
                if let Some(value) = value(&row.entry) {
                    text.series(self.name, labels, value);
                }
            }
            Write::ClusterStatus => {
                text.series_with(self.name, labels, "status", row.entry.view.status.as_str(), 1.0);
            }
            Write::Run(_) | Write::Samples | Write::Check(_) | Write::CheckStatus => {}
        }
    }

    fn write_check(&self, row: &CheckRow, labels: &str, now: Timestamp, text: &mut Text) {
        let state = &row.view.state;
        match self.write {
            Write::Run(value) if row.is_live => {
                let remedy = state.remedy.as_ref().map(|totals| (RunKind::Remedy, totals));
                for (kind, totals) in [(RunKind::HealthCheck, &state.check)].into_iter().chain(remedy) {
                    if let Some(value) = value(totals) {
                        text.series_with(self.name, labels, "workflow", kind.as_str(), value);
                    }
                }
            }
            Write::Samples => {
                for index in &row.samples {
                    let sample = &state.samples[*index];
                    text.series_with(self.name, labels, "metric", &sample.metric, sample.value);
                }
            }
            Write::Check(value) => text.series(self.name, labels, value(&row.view, now)),
            Write::CheckStatus => text.series_with(self.name, labels, "status", row.view.status.as_str(), 1.0),
            Write::Run(_) | Write::Cluster(_) | Write::ClusterStatus => {}
        }
    }
}
