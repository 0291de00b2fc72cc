//! The clusters and checks of a view in the order in which they are written, with all that is written of them.
//!
//! A family is written for the whole fleet before the next one begins. A large fleet does not fit into the processor's
//! caches, so each check is read once, when the first family comes to it, and what all families say of it is kept in columns.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use active_monitor_core::fleet::{ClusterEntry, FleetView};
use active_monitor_core::state::{CheckState, Sample};
use active_monitor_core::view::{CheckStatus, CheckView, ClusterStatus};
use jiff::Timestamp;

use super::custom::Custom;
use super::families::Family;
use super::text::push_label;

/// Custom samples of one cluster that are shown.
const MAX_SAMPLES_PER_CLUSTER: usize = 100_000;

/// What was read of a view so far.
pub(super) struct Rows {
    /// All of them.
    pub(super) clusters: Vec<ClusterRow>,
    /// Those of the clusters that were read.
    pub(super) checks: Vec<CheckRow>,
    /// Custom samples that are shown.
    pub(super) samples: Vec<SampleRow>,
    /// The same by the families that active-monitor makes of them.
    pub(super) custom: Custom,
    /// Custom samples that are shown nowhere, by cluster.
    pub(super) dropped: BTreeMap<String, u64>,
    /// The families that are wanted, and what each says of the checks.
    pub(super) families: Vec<(&'static Family, Vec<f64>)>,
    metrics: Metrics,
    /// The text of all labels: one allocation for the whole fleet.
    labels: String,
    /// Clusters whose checks were read.
    read: usize,
    now: Timestamp,
}

pub(super) struct ClusterRow {
    pub(super) entry: Arc<ClusterEntry>,
    labels: Range<usize>,
}

pub(super) struct CheckRow {
    pub(super) status: CheckStatus,
    /// Where its samples are.
    pub(super) samples: Range<usize>,
    labels: Range<usize>,
    view: Arc<CheckView>,
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

/// A custom sample.
pub(super) struct SampleRow {
    /// Number of its check.
    pub(super) check: u32,
    metric: u32,
    pub(super) value: f64,
}

impl Rows {
    /// Nothing is read yet. Of the clusters that `picks` wants.
    pub(super) fn new(
        view: &FleetView,
        now: Timestamp,
        families: impl Iterator<Item = &'static Family>,
        custom: Custom,
        picks: impl Fn(&ClusterEntry) -> bool,
    ) -> Rows {
        let mut labels = String::new();
        let picked = view.clusters.iter().filter(|(_, entry)| picks(entry));
        let clusters = picked.map(|(name, entry)| {
            let labels = push_labels(&mut labels, &[("cluster", name)]);
            ClusterRow { entry: entry.clone(), labels }
        });
        Rows {
            clusters: clusters.collect(),
            checks: Vec::new(),
            samples: Vec::new(),
            custom,
            dropped: BTreeMap::new(),
            families: families.map(|family| (family, Vec::new())).collect(),
            metrics: Metrics::default(),
            labels,
            read: 0,
            now,
        }
    }

    /// The check of that number, read if need be; none where there are not so many.
    pub(super) fn reach(&mut self, check: usize) -> bool {
        while self.checks.len() <= check && self.read_cluster() {}
        check < self.checks.len()
    }

    /// Reads the checks of one more cluster; false where all were read.
    pub(super) fn read_cluster(&mut self) -> bool {
        let Some(ClusterRow { entry, .. }) = self.clusters.get(self.read) else { return false };
        self.read += 1;
        let entry = entry.clone();
        let is_reachable = entry.view.status != ClusterStatus::Unreachable;
        let theirs = entry.their_time(self.now);
        let (first, mut given) = (self.samples.len(), 0);
        for check in entry.checks.values() {
            // Whether what the agent said still holds: the series of its values end when it does not.
            let is_live = is_reachable && check.status != CheckStatus::Stale;
            for (family, column) in &mut self.families {
                family.read(check, is_live, theirs, column);
            }
            let shown = self.samples.len();
            if is_live {
                given += check.state.samples.len();
                self.read_samples(&check.state, first + MAX_SAMPLES_PER_CLUSTER);
            }
            let CheckState { namespace, name, .. } = &check.state;
            let names = [("cluster", entry.view.name.as_str()), ("namespace", namespace), ("healthcheck_name", name)];
            self.checks.push(CheckRow {
                status: check.status,
                samples: shown..self.samples.len(),
                labels: push_labels(&mut self.labels, &names),
                view: check.clone(),
            });
        }
        let dropped = given - (self.samples.len() - first) + self.custom.taken();
        if dropped > 0 {
            self.dropped.insert(entry.view.name.clone(), dropped as u64);
        }
        true
    }

    /// Takes the samples of the next check that can be shown: a valid name, a finite value, a name only once, as long as
    /// there are no more than `limit`.
    fn read_samples(&mut self, state: &CheckState, limit: usize) {
        let check = self.checks.len() as u32;
        for sample in state.samples.iter().filter(|sample| is_valid(sample)) {
            if self.samples.len() == limit {
                return;
            }
            if let Some(metric) = self.metrics.take(&sample.metric, check) {
                self.custom.add(state, sample, self.samples.len() as u32);
                self.samples.push(SampleRow { check, metric, value: sample.value });
            }
        }
    }

    pub(super) fn labels_of_cluster(&self, row: &ClusterRow) -> &str {
        &self.labels[row.labels.clone()]
    }

    pub(super) fn labels_of_check(&self, row: &CheckRow) -> &str {
        &self.labels[row.labels.clone()]
    }

    /// The name of a sample's metric, as its check published it.
    pub(super) fn metric(&self, sample: &SampleRow) -> &str {
        &self.metrics.names[sample.metric as usize].0
    }
}

fn push_labels(text: &mut String, labels: &[(&str, &str)]) -> Range<usize> {
    let start = text.len();
    for (index, (label, value)) in labels.iter().enumerate() {
        push_label(text, index == 0, label, value);
    }
    start..text.len()
}

fn is_valid(sample: &Sample) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b':';
    !sample.metric.is_empty() && sample.metric.bytes().all(allowed) && sample.value.is_finite()
}

/// The names of custom metrics: few, each of many checks.
#[derive(Default)]
struct Metrics {
    /// Each with the check that had it last.
    names: Vec<(String, u32)>,
    numbers: HashMap<String, u32>,
}

impl Metrics {
    /// The number of a name; none where this check has it already. Checks come one after the other.
    fn take(&mut self, name: &str, check: u32) -> Option<u32> {
        if let Some(number) = self.numbers.get(name) {
            let last = &mut self.names[*number as usize].1;
            return (std::mem::replace(last, check) != check).then_some(*number);
        }
        let number = self.names.len() as u32;
        self.names.push((name.to_owned(), check));
        self.numbers.insert(name.to_owned(), number);
        Some(number)
    }
}
