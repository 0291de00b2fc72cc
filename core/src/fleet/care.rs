//! Maintenance windows and acknowledgements in the fleet: which checks they are said of, and when that changes by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Deadline, Fleet};
use crate::care::{Acknowledgement, Care, Window};
use crate::dependency;
use crate::view::{CheckStatus, CheckView, Event};

/// The maintenance windows, and which of them are open.
#[derive(Debug, Default)]
pub(super) struct Windows {
    all: Vec<Window>,
    /// Numbers of those that are open, in their order.
    open: Vec<usize>,
    /// When the next one begins or ends.
    armed: Option<Timestamp>,
}

impl Windows {
    /// The first open window that is about a check.
    fn over(&self, labels: &BTreeMap<String, String>, check: &CheckView) -> Option<String> {
        let open = self.open.iter().filter_map(|number| self.all.get(*number));
        let state = &check.state;
        let mut over = open.filter(|window| window.picks(labels, &check.cluster, &state.namespace, &state.name));
        over.next().map(|window| window.spec.name.clone())
    }
}

impl Fleet {
    pub(super) fn put_windows(&mut self, now: Timestamp, windows: Vec<Window>) {
        self.windows.all = windows;
        self.events.push(Event::Windows);
        self.refresh_windows(now);
    }

    /// Opens and closes windows; shows the checks of every cluster again, which costs only when that happens.
    pub(super) fn refresh_windows(&mut self, now: Timestamp) {
        if let Some(armed) = self.windows.armed.take() {
            self.deadlines.remove(&(armed, Deadline::Windows));
        }
        let all = self.windows.all.iter().enumerate();
        self.windows.open = all.filter(|(_, window)| window.ends(now).is_some()).map(|(number, _)| number).collect();
        self.windows.armed = self.windows.all.iter().filter_map(|window| window.changes(now)).min();
        if let Some(next) = self.windows.armed {
            self.deadlines.insert((next, Deadline::Windows));
        }
        let clusters: Vec<String> = self.view.clusters.keys().cloned().collect();
        for cluster in clusters {
            self.reshow(now, &cluster);
        }
    }

    /// Shows the checks of a cluster again, where what is said of them has changed.
    pub(super) fn reshow(&mut self, now: Timestamp, cluster: &str) {
        let Some(entry) = self.view.clusters.get(cluster) else { return };
        let changed = entry
            .checks
            .iter()
            .filter(|(_, check)| self.windows.over(&entry.view.labels, check) != check.care.maintenance);
        let keys: Vec<(String, String)> = changed.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.edit_check(now, cluster, &key, |_| {});
        }
    }

    /// What is said of a check that is shown anew. An acknowledgement ends with a success.
    pub(super) fn care(&self, now: Timestamp, check: &CheckView) -> Care {
        let entry = self.view.clusters.get(&check.cluster);
        let maintenance = entry.and_then(|entry| self.windows.over(&entry.view.labels, check));
        let goes_on = |known: &&Acknowledgement| check.status != CheckStatus::Succeeded && known.expires_at > now;
        let acknowledgement = check.care.acknowledgement.as_ref().filter(goes_on).cloned();
        let explained = entry.map(|entry| dependency::explain(&entry.checks, check)).unwrap_or_default();
        let (explained_by, dependency_problem) = (explained.by, explained.problem);
        Care { maintenance, acknowledgement, explained_by, dependency_problem }
    }

    pub(super) fn acknowledge(
        &mut self,
        now: Timestamp,
        cluster: &str,
        key: (String, String),
        acknowledgement: Option<Acknowledgement>,
    ) {
        if let Some(Acknowledgement { expires_at, .. }) = &acknowledgement {
            let (namespace, name) = key.clone();
            let deadline = Deadline::Acknowledged(cluster.to_owned(), namespace, name);
            self.deadlines.insert((*expires_at, deadline));
        }
        self.edit_check(now, cluster, &key, |care| care.acknowledgement = acknowledgement);
    }

    /// The end of an acknowledgement has come, unless a later one took its place.
    pub(super) fn end_acknowledgement(&mut self, now: Timestamp, cluster: &str, key: &(String, String)) {
        self.edit_check(now, cluster, key, |_| {});
    }

    /// Statuses changed: what depends on one of these checks may be explained by it, or no longer.
    pub(super) fn refresh_dependants(&mut self, now: Timestamp) {
        for (cluster, changed) in std::mem::take(&mut self.stirred) {
            let Some(entry) = self.view.clusters.get(&cluster) else { continue };
            for key in dependency::dependants(&entry.checks, &changed) {
                self.edit_check(now, &cluster, &key, |_| {});
            }
        }
    }

    /// Changes what is said of a check, and tells it.
    fn edit_check(&mut self, now: Timestamp, cluster: &str, key: &(String, String), edit: impl FnOnce(&mut Care)) {
        let Some(shown) = self.view.clusters.get(cluster).and_then(|entry| entry.checks.get(key)) else { return };
        let mut next = CheckView::clone(shown);
        edit(&mut next.care);
        next.care = self.care(now, &next);
        if next.care == shown.care {
            return;
        }
        self.events.push(Event::Check(Box::new(next.clone())));
        if let Some(entry) = self.view.clusters.get_mut(cluster) {
            Arc::make_mut(&mut Arc::make_mut(entry).checks).insert(key.clone(), Arc::new(next));
        }
    }
}
