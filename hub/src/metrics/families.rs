//! The built-in families, and the rows that they are written from.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use active_monitor_core::fleet::{ClusterEntry, FleetView, overdue_seconds};
use active_monitor_core::run::RunKind;
use active_monitor_core::state::{CheckState, Sample, Totals};
use active_monitor_core::view::{CheckStatus, CheckView, ClusterStatus};
use jiff::Timestamp;

use super::selection::Selection;
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

impl CheckRow {
    /// The value of one of the labels in the ready text; empty for any other.
    pub(super) fn label(&self, label: &str) -> &str {
        match label {
            "cluster" => &self.view.cluster,
            "namespace" => &self.view.state.namespace,
            "healthcheck_name" => &self.view.state.name,
            _ => "",
        }
    }
}

/// Where the series of one row go, as far as they are wanted.
struct Series<'a, L> {
    name: &'a str,
    /// Ready text.
    labels: &'a str,
    wanted: &'a Selection,
    /// The values in the ready text.
    label: L,
    text: &'a mut Text,
}

impl<'a, L: Fn(&str) -> &'a str> Series<'a, L> {
    fn plain(&mut self, value: f64) {
        if self.wanted.picks(self.name, &self.label) {
            self.text.series(self.name, self.labels, value);
        }
    }

    /// One with a label that is not in the ready text.
    fn with(&mut self, label: &str, content: &'a str, value: f64) {
        if self.wanted.picks(self.name, |wanted| if wanted == label { content } else { (self.label)(wanted) }) {
            self.text.series_with(self.name, self.labels, label, content, value);
        }
    }
}

/// A sample by the number of its check and its own in it.
#[derive(Clone, Copy)]
pub(super) struct SampleAt {
    pub(super) check: usize,
    pub(super) sample: usize,
}

impl Rows {
    /// Of the clusters that `picks` wants.
    pub(super) fn new(view: &FleetView, now: Timestamp, picks: impl Fn(&ClusterEntry) -> bool) -> Rows {
        let (dropped, labels) = (BTreeMap::new(), String::new());
        let mut rows = Rows { clusters: Vec::new(), checks: Vec::new(), dropped, labels, now };
        for (name, entry) in view.clusters.iter().filter(|(_, entry)| picks(entry)) {
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
        name: "activemonitor_check_refused_metrics",
        help: "Custom metrics of the last run that published any, which its agent refused.",
        kind: "gauge",
        write: Write::Check(|check, _| check.state.refused_samples as f64),
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
        name: "activemonitor_check_soft",
        help: "1 while the last result of the check stands against its status: not enough of them in a row yet.",
        kind: "gauge",
        write: Write::Check(|check, _| f64::from(u8::from(check.health.soft))),
    },
    Family {
        name: "activemonitor_check_flapping",
        help: "1 while the results of the check change too often to be alerted on one by one.",
        kind: "gauge",
        write: Write::Check(|check, _| f64::from(u8::from(check.health.flapping))),
    },
    Family {
        name: "activemonitor_check_maintenance",
        help: "1 while the check is in a maintenance window.",
        kind: "gauge",
        write: Write::Check(|check, _| f64::from(u8::from(check.care.maintenance.is_some()))),
    },
    Family {
        name: "activemonitor_check_acknowledged",
        help: "1 while somebody has acknowledged that the check is wrong.",
        kind: "gauge",
        write: Write::Check(|check, _| f64::from(u8::from(check.care.acknowledgement.is_some()))),
    },
    Family {
        name: "activemonitor_check_explained",
        help: "1 while a check that this one depends on fails, which explains its own failure.",
        kind: "gauge",
        write: Write::Check(|check, _| f64::from(u8::from(check.care.explained_by.is_some()))),
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
        name: "activemonitor_cluster_refused_checks",
        help: "Checks of the cluster that the hub does not take, since there are more than 50000.",
        kind: "gauge",
        write: Write::Cluster(|cluster| Some(cluster.view.refused_checks as f64)),
    },
    Family {
        name: "activemonitor_cluster_clock_skew_seconds",
        help: "The clock of the agent minus that of the hub.",
        kind: "gauge",
        write: Write::Cluster(|cluster| Some(cluster.view.clock_skew_ms as f64 / 1e3)),
    },
];

impl Family {
    /// Writes the series of row number `index` that are wanted; false where there is no such row.
    pub(super) fn write_row(&self, rows: &Rows, index: usize, wanted: &Selection, text: &mut Text) -> bool {
        match self.write {
            Write::Cluster(_) | Write::ClusterStatus => {
                let Some(row) = rows.clusters.get(index) else { return false };
                let cluster = &row.entry.view.name;
                let label = |label: &str| if label == "cluster" { cluster.as_str() } else { "" };
                let mut out = Series { name: self.name, labels: &rows.labels[row.labels.clone()], wanted, label, text };
                self.write_cluster(row, &mut out);
            }
            Write::Run(_) | Write::Samples | Write::Check(_) | Write::CheckStatus => {
                let Some(row) = rows.checks.get(index) else { return false };
                let labels = &rows.labels[row.labels.clone()];
                let mut out = Series { name: self.name, labels, wanted, label: |label: &str| row.label(label), text };
                self.write_check(row, rows.now, &mut out);
            }
        }
        true
    }

    fn write_cluster<'a>(&self, row: &'a ClusterRow, out: &mut Series<'a, impl Fn(&str) -> &'a str>) {
        match self.write {
            Write::Cluster(value) => {
                if let Some(value) = value(&row.entry) {
                    out.plain(value);
                }
            }
            Write::ClusterStatus => out.with("status", row.entry.view.status.as_str(), 1.0),
            Write::Run(_) | Write::Samples | Write::Check(_) | Write::CheckStatus => {}
        }
    }

    fn write_check<'a>(&self, row: &'a CheckRow, now: Timestamp, out: &mut Series<'a, impl Fn(&str) -> &'a str>) {
        let state = &row.view.state;
        match self.write {
            Write::Run(value) if row.is_live => {
                let remedy = state.remedy.as_ref().map(|totals| (RunKind::Remedy, totals));
                for (kind, totals) in [(RunKind::HealthCheck, &state.check)].into_iter().chain(remedy) {
                    if let Some(value) = value(totals) {
                        out.with("workflow", kind.as_str(), value);
                    }
                }
            }
            Write::Samples => {
                for index in &row.samples {
                    let sample = &state.samples[*index];
                    out.with("metric", &sample.metric, sample.value);
                }
            }
            Write::Check(value) => out.plain(value(&row.view, now)),
            Write::CheckStatus => out.with("status", row.view.status.as_str(), 1.0),
            Write::Run(_) | Write::Cluster(_) | Write::ClusterStatus => {}
        }
    }
}
