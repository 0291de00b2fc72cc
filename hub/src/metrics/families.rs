//! The built-in families: what they say of each check and cluster, and how that is written.

use active_monitor_core::fleet::{ClusterEntry, overdue_seconds};
use active_monitor_core::run::RunKind;
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::state::Totals;
use active_monitor_core::view::{CheckStatus, CheckView, ClusterStatus};
use jiff::Timestamp;

use super::rows::{ClusterRow, Rows};
use super::selection::Selection;
use super::text::Text;

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
    /// One value for each check, when its cluster's clock says this.
    Check(fn(&CheckView, Timestamp) -> f64),
    /// 1 with the status of each check as a label.
    CheckStatus,
    /// One value for each cluster, absent where nothing is known.
    Cluster(fn(&ClusterEntry) -> Option<f64>),
    /// 1 with the status of each cluster as a label.
    ClusterStatus,
}

/// In a column, where a family says nothing: no value that is written is one.
const NOTHING: f64 = f64::NAN;

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
        write: Write::Check(|check, theirs| overdue_seconds(check, theirs) as f64),
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
        name: "activemonitor_cluster_self_test_passed",
        help: "1 where the latest self-test since the cluster enrolled succeeded, else 0: also where there was none.",
        kind: "gauge",
        write: Write::Cluster(|cluster| {
            let has_passed = cluster.view.self_test.as_ref().is_some_and(SelfTest::passed);
            Some(f64::from(u8::from(has_passed)))
        }),
    },
    Family {
        name: "activemonitor_cluster_clock_skew_seconds",
        help: "The clock of the agent minus that of the hub.",
        kind: "gauge",
        write: Write::Cluster(|cluster| Some(cluster.view.clock_skew_ms as f64 / 1e3)),
    },
];

impl Family {
    /// Appends to the family's column what it says of a check: two values for its runs, one for the check itself, none
    /// where it writes what the rows have anyway.
    pub(super) fn read(&self, check: &CheckView, is_live: bool, theirs: Timestamp, column: &mut Vec<f64>) {
        match self.write {
            Write::Run(value) => {
                let of = |totals: Option<&Totals>| totals.filter(|_| is_live).and_then(value).unwrap_or(NOTHING);
                column.extend([of(Some(&check.state.check)), of(check.state.remedy.as_ref())]);
            }
            Write::Check(value) => column.push(value(check, theirs)),
            Write::Samples | Write::CheckStatus | Write::Cluster(_) | Write::ClusterStatus => {}
        }
    }

    /// Whether it has a row for each check; else it has one for each cluster.
    pub(super) fn is_of_checks(&self) -> bool {
        match self.write {
            Write::Run(_) | Write::Samples | Write::Check(_) | Write::CheckStatus => true,
            Write::Cluster(_) | Write::ClusterStatus => false,
        }
    }

    /// Writes the series of a cluster that are wanted.
    pub(super) fn write_cluster(&self, rows: &Rows, row: &ClusterRow, wanted: &Selection, text: &mut Text) {
        let cluster = &row.entry.view;
        let label = |label: &str| if label == "cluster" { cluster.name.as_str() } else { "" };
        let mut out = Series { name: self.name, labels: rows.labels_of_cluster(row), wanted, label, text };
        match self.write {
            Write::Cluster(value) => {
                if let Some(value) = value(&row.entry) {
                    out.plain(value);
                }
            }
            Write::ClusterStatus => out.with("status", cluster.status.as_str(), 1.0),
            Write::Run(_) | Write::Samples | Write::Check(_) | Write::CheckStatus => {}
        }
    }

    /// Writes the series of check number `index` that are wanted, out of the family's column.
    pub(super) fn write_check(&self, rows: &Rows, index: usize, column: &[f64], wanted: &Selection, text: &mut Text) {
        let row = &rows.checks[index];
        let label = |label: &str| row.label(label);
        let mut out = Series { name: self.name, labels: rows.labels_of_check(row), wanted, label, text };
        match self.write {
            Write::Run(_) => {
                for (kind, value) in [RunKind::HealthCheck, RunKind::Remedy].into_iter().zip(&column[2 * index..]) {
                    if !value.is_nan() {
                        out.with("workflow", kind.as_str(), *value);
                    }
                }
            }
            Write::Samples => {
                for sample in &rows.samples[row.samples.clone()] {
                    out.with("metric", rows.metric(sample), sample.value);
                }
            }
            Write::Check(_) => out.plain(column[index]),
            Write::CheckStatus => out.with("status", row.status.as_str(), 1.0),
            Write::Cluster(_) | Write::ClusterStatus => {}
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
