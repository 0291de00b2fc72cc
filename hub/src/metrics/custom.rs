//! The families that active-monitor makes of a check's own samples: `<check>_<metric>`, one for each name.
//!
//! Checks of one name in many clusters share a family, and so may checks whose names differ only in characters that
//! metric names lack. All series of a family must stand together, so the samples are grouped before they are written.

use std::collections::{HashMap, HashSet};

use active_monitor_core::samples::{family_name, is_built_in};
use active_monitor_core::state::{CheckState, Sample};

/// The samples of a fleet, by family.
pub(super) struct Custom {
    families: HashMap<String, CustomFamily>,
    /// Names that are not free, beside the built-in ones.
    reserved: HashSet<String>,
    /// Samples whose name is not free, since [`Custom::taken`] was asked.
    taken: usize,
    /// The name under construction: it is copied only for the first series of a family.
    name: String,
}

/// One family.
#[derive(Default)]
pub(super) struct CustomFamily {
    /// The first help text that was found.
    pub(super) help: String,
    /// Numbers of its samples.
    pub(super) series: Vec<u32>,
}

impl Custom {
    pub(super) fn new(reserved: HashSet<String>) -> Custom {
        Custom { families: HashMap::new(), reserved, taken: 0, name: String::new() }
    }

    /// Puts a sample of a check, by its number, to its family.
    pub(super) fn add(&mut self, check: &CheckState, sample: &Sample, number: u32) {
        let name = &mut self.name;
        family_name(name, &check.name, &sample.metric);
        if is_built_in(name) || self.reserved.contains(name) {
            self.taken += 1;
            return;
        }
        let family = match self.families.get_mut(name) {
            Some(family) => family,
            None => self.families.entry(name.clone()).or_default(),
        };
        if family.help.is_empty() {
            family.help.clone_from(&sample.help);
        }
        family.series.push(number);
    }

    /// How many samples had a name that is not free, since this was asked last.
    pub(super) fn taken(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }

    /// Name and series, in the order of the names.
    pub(super) fn take(&mut self) -> Vec<(String, CustomFamily)> {
        let mut families: Vec<_> = std::mem::take(&mut self.families).into_iter().collect();
        families.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        families
    }
}
