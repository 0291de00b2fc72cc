//! What the journal's files say, in memory. Pure: every change is a record, applied alike when it is written and when
//! the files are read again.

use std::collections::{BTreeMap, BTreeSet};

use active_monitor_core::run::{Run, RunKey, RunKind};
use active_monitor_core::session::frame::Report;
use jiff::Timestamp;

use super::OpenIntent;
use super::record::Record;

/// Settled slots remembered for each check and kind. Runs of a check end in order, give or take what a takeover finds,
/// so a slot before all of these was settled long ago.
const REMEMBERED_SLOTS: usize = 16;

pub(super) struct Index {
    checks: BTreeMap<String, Check>,
    reports: BTreeMap<u64, Run>,
    next_seq: u64,
    acked: u64,
    dropped: u64,
    corrupt: u64,
}

#[derive(Default)]
struct Check {
    intents: BTreeMap<(RunKind, Timestamp), OpenIntent>,
    last: BTreeMap<RunKind, Last>,
}

struct Last {
    run: Run,
    slots: BTreeSet<Timestamp>,
}

impl Index {
    pub(super) fn new() -> Index {
        Index { checks: BTreeMap::new(), reports: BTreeMap::new(), next_seq: 1, acked: 0, dropped: 0, corrupt: 0 }
    }

    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Checkpoint { next_seq, acked, dropped } => {
                self.checks.clear();
                self.next_seq = self.next_seq.max(next_seq);
                self.dropped = dropped;
                self.ack(acked);
            }
            Record::Last { run, slots } => {
                let last = Last { slots: slots.into_iter().collect(), run: *run };
                self.check(&last.run.key.check_uid.clone()).last.insert(last.run.key.kind, last);
            }
            Record::Intended { intent, created } => {
                let slot = (intent.key.kind, intent.key.slot);
                let check = self.check(&intent.key.check_uid.clone());
                check.intents.entry(slot).or_insert(OpenIntent { intent, created });
            }
            Record::Created { key } => {
                let check = self.checks.get_mut(&key.check_uid);
                if let Some(open) = check.and_then(|check| check.intents.get_mut(&(key.kind, key.slot))) {
                    open.created = true;
                }
            }
            Record::Withdrawn { key } => self.withdraw(&key),
            Record::Settled { seq, run } => self.settle(seq, *run),
            Record::Acked { seq } => self.ack(seq),
            Record::Forgotten { check_uid } => drop(self.checks.remove(&check_uid)),
            Record::Dropped { through, total } => {
                self.reports = self.reports.split_off(&through.saturating_add(1));
                self.dropped = total;
            }
        }
    }

    /// Everything but the reports, as the records that begin a file.
    pub(super) fn checkpoint(&self) -> Vec<Record> {
        let Index { checks, reports: _, next_seq, acked, dropped, corrupt: _ } = self;
        let mut records = vec![Record::Checkpoint { next_seq: *next_seq, acked: *acked, dropped: *dropped }];
        for check in checks.values() {
            records.extend(check.last.values().map(|last| Record::Last {
                run: Box::new(last.run.clone()),
                slots: last.slots.iter().copied().collect(),
            }));
            records.extend(
                check
                    .intents
                    .values()
                    .map(|open| Record::Intended { intent: open.intent.clone(), created: open.created }),
            );
        }
        records
    }

    /// Whether this run's end is known.
    pub(super) fn is_settled(&self, key: &RunKey) -> bool {
        let Some(last) = self.checks.get(&key.check_uid).and_then(|check| check.last.get(&key.kind)) else {
            return false;
        };
        let forgotten =
            last.slots.len() == REMEMBERED_SLOTS && last.slots.first().is_some_and(|oldest| key.slot < *oldest);
        forgotten || last.slots.contains(&key.slot)
    }

    pub(super) fn has_intent(&self, key: &RunKey) -> bool {
        self.checks.get(&key.check_uid).is_some_and(|check| check.intents.contains_key(&(key.kind, key.slot)))
    }

    pub(super) fn intents(&self, check_uid: &str) -> Vec<OpenIntent> {
        self.checks.get(check_uid).map(|check| check.intents.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn last_run(&self, check_uid: &str, kind: RunKind) -> Option<Run> {
        Some(self.checks.get(check_uid)?.last.get(&kind)?.run.clone())
    }

    pub(super) fn check_uids(&self) -> Vec<String> {
        self.checks.keys().cloned().collect()
    }

    pub(super) fn load(&self, after_seq: u64, max: usize) -> Vec<Report> {
        let after = self.reports.range(after_seq.saturating_add(1)..);
        after.take(max).map(|(&seq, run)| Report { seq, run: run.clone() }).collect()
    }

    pub(super) fn oldest_seq(&self) -> u64 {
        self.reports.keys().next().copied().unwrap_or(self.next_seq)
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) fn backlog(&self) -> u64 {
        self.reports.len() as u64
    }

    /// Reports without an ack up to `through`.
    pub(super) fn backlog_through(&self, through: u64) -> u64 {
        self.reports.range(..=through).count() as u64
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt
    }

    pub(super) fn count_corrupt(&mut self) {
        self.corrupt += 1;
    }

    fn check(&mut self, uid: &str) -> &mut Check {
        self.checks.entry(uid.to_owned()).or_default()
    }

    fn withdraw(&mut self, key: &RunKey) {
        let Some(check) = self.checks.get_mut(&key.check_uid) else { return };
        check.intents.remove(&(key.kind, key.slot));
        if check.intents.is_empty() && check.last.is_empty() {
            self.checks.remove(&key.check_uid);
        }
    }

    fn settle(&mut self, seq: u64, run: Run) {
        let RunKey { check_uid, kind, slot } = run.key.clone();
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
        let check = self.check(&check_uid);
        check.intents.remove(&(kind, slot));
        let last = check.last.entry(kind).or_insert_with(|| Last { run: run.clone(), slots: BTreeSet::new() });
        if slot >= last.run.key.slot {
            last.run = run.clone();
        }
        last.slots.insert(slot);
        while last.slots.len() > REMEMBERED_SLOTS {
            last.slots.pop_first();
        }
        if seq > self.acked {
            self.reports.insert(seq, run);
        }
    }

    fn ack(&mut self, seq: u64) {
        // An ack of what was never written must not swallow what comes.
        let seq = seq.min(self.next_seq.saturating_sub(1));
        if seq > self.acked {
            self.acked = seq;
            self.reports = self.reports.split_off(&seq.saturating_add(1));
        }
    }
}
