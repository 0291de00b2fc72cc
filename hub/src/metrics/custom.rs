//! The families that active-monitor makes of a check's own samples: `<check>_<metric>`, one for each name.
//!
//! Checks of one name in many clusters share a family, and so may checks whose names differ only in characters that
//! metric names lack. All series of a family must stand together, so the samples are grouped before they are written.

use std::collections::{BTreeMap, HashMap};

use active_monitor_core::samples::family_name;

use super::families::{Rows, SampleAt};

/// The samples of a fleet, by family.
pub(super) struct Custom {
    /// Name and series, in the order of the names.
    pub(super) families: Vec<(String, CustomFamily)>,
    /// Samples whose name is taken, by cluster.
    pub(super) dropped: BTreeMap<String, u64>,
}

/// One family.
#[derive(Default)]
pub(super) struct CustomFamily {
    /// The first help text that was found.
    pub(super) help: String,
    pub(super) series: Vec<SampleAt>,
}

impl Custom {
    /// Groups the samples that are shown. `is_taken` says which names are not free.
    pub(super) fn new(rows: &Rows, is_taken: impl Fn(&str) -> bool) -> Custom {
        let mut families: HashMap<String, CustomFamily> = HashMap::new();
        let mut dropped = BTreeMap::new();
        let mut name = String::new();
        for (check, row) in rows.checks.iter().enumerate() {
            let state = &row.view.state;
            for &index in &row.samples {
                let sample = &state.samples[index];
                family_name(&mut name, &state.name, &sample.metric);
                if is_taken(&name) {
                    *dropped.entry(row.view.cluster.clone()).or_default() += 1;
                    continue;
                }
                // The name is copied only for the first series of a family.
                let family = match families.get_mut(name.as_str()) {
                    Some(family) => family,
                    None => families.entry(name.clone()).or_default(),
                };
                if family.help.is_empty() {
                    family.help.clone_from(&sample.help);
                }
                family.series.push(SampleAt { check, sample: index });
            }
        }
        let mut families: Vec<_> = families.into_iter().collect();
        families.sort_by(|(a, _), (b, _)| a.cmp(b));
        Custom { families, dropped }
    }
}
