//! What the journal's files say, in memory. Pure: every change is a record, applied alike when it is written and when
//! the files are read again. Of a report that is on disk it only knows where: a day of them is no load on the memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    /// Reports on disk, by number.
    stored: VecDeque<Stored>,
    /// Reports that are not on disk, by number.
    held: BTreeMap<u64, Run>,
    next_seq: u64,
    acked: u64,
    dropped: u64,
    corrupt: u64,
    /// Reports that the memory may hold while the disk cannot be written; `None` while it can.
    room: Option<u64>,
}

/// Where a report is: 16 bytes, as there may be more than a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) seq: u64,
    /// Number of the file.
    pub(super) file: u32,
    /// Of the record in it.
    pub(super) offset: u32,
}

/// A report to be sent, or where to read it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Held(Box<Report>),
    Stored(Stored),
}

/// What a disk that cannot be written may add to the reports in memory: some megabytes.
const MAX_UNSAVED: u64 = 4096;

/// About what a run takes on disk beside its texts.
const RUN_BYTES: usize = 512;

/// What is in boxes is one or two where a tree makes room for eleven.
#[derive(Default)]
struct Check {
    intents: BTreeMap<(RunKind, Timestamp), Box<OpenIntent>>,
    last: BTreeMap<RunKind, Box<Last>>,
    /// The last request for a run out of schedule that was obeyed.
    ran_now: Option<String>,
}

struct Last {
    run: Run,
    slots: BTreeSet<Timestamp>,
}

impl Index {
    pub(super) fn new() -> Index {
        Index {
            checks: BTreeMap::new(),
            stored: VecDeque::new(),
            held: BTreeMap::new(),
            next_seq: 1,
            acked: 0,
            dropped: 0,
            corrupt: 0,
            room: None,
        }
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
                self.check(&last.run.key.check_uid.clone()).last.insert(last.run.key.kind, Box::new(last));
            }
            Record::Intended { intent, created } => {
                let slot = (intent.key.kind, intent.key.slot);
                let check = self.check(&intent.key.check_uid.clone());
                if intent.run_now.is_some() {
                    check.ran_now = intent.run_now.clone();
                }
                check.intents.entry(slot).or_insert_with(|| Box::new(OpenIntent { intent, created }));
            }
            Record::RanNow { check_uid, token } => self.check(&check_uid).ran_now = Some(token),
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
                self.discard(through);
                self.dropped = total;
            }
        }
    }

    /// Everything but the reports, as the records that begin a file.
    pub(super) fn checkpoint(&self) -> Vec<Record> {
        let Index { checks, stored: _, held: _, next_seq, acked, dropped, corrupt: _, room: _ } = self;
        let mut records = vec![Record::Checkpoint { next_seq: *next_seq, acked: *acked, dropped: *dropped }];
        for (uid, check) in checks {
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
            let ran_now = check.ran_now.iter();
            records.extend(ran_now.map(|token| Record::RanNow { check_uid: uid.clone(), token: token.clone() }));
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
        self.checks
            .get(check_uid)
            .map(|check| check.intents.values().map(|open| OpenIntent::clone(open)).collect())
            .unwrap_or_default()
    }

    pub(super) fn in_flight(&self, more: &BTreeMap<RunKey, String>) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let open = self.checks.values().flat_map(|check| check.intents.values()).map(|open| &open.intent.namespace);
        let further = more.iter().filter(|(key, _)| !self.has_intent(key)).map(|(_, namespace)| namespace);
        for namespace in open.chain(further) {
            *counts.entry(namespace.clone()).or_default() += 1;
        }
        counts
    }

    pub(super) fn last_run(&self, check_uid: &str, kind: RunKind) -> Option<Run> {
        Some(self.checks.get(check_uid)?.last.get(&kind)?.run.clone())
    }

    pub(super) fn ran_now(&self, check_uid: &str) -> Option<String> {
        self.checks.get(check_uid)?.ran_now.clone()
    }

    pub(super) fn check_uids(&self) -> Vec<String> {
        self.checks.keys().cloned().collect()
    }

    pub(super) fn find(&self, after_seq: u64, max: usize) -> Vec<Found> {
        let from = self.stored.partition_point(|stored| stored.seq <= after_seq);
        let stored = self.stored.range(from..).map(|stored| Found::Stored(*stored));
        let held = self.held.range(after_seq.saturating_add(1)..);
        let held = held.map(|(&seq, run)| Found::Held(Box::new(Report { seq, run: run.clone() })));
        stored.chain(held).take(max).collect()
    }

    /// A report is on disk, here.
    pub(super) fn place(&mut self, stored: Stored) {
        let at = self.stored.partition_point(|earlier| earlier.seq < stored.seq);
        match self.stored.get_mut(at) {
            Some(known) if known.seq == stored.seq => *known = stored,
            // One that is not held was acked, or dropped, in the meantime.
            Some(_) | None if self.held.remove(&stored.seq).is_some() => self.stored.insert(at, stored),
            Some(_) | None => {}
        }
    }

    /// A report cannot be read where it was.
    pub(super) fn lose(&mut self, seq: u64) {
        if let Ok(at) = self.stored.binary_search_by_key(&seq, |stored| stored.seq) {
            self.stored.remove(at);
            self.corrupt += 1;
        }
    }

    pub(super) fn oldest_seq(&self) -> u64 {
        let stored = self.stored.front().map(|oldest| oldest.seq);
        stored.or_else(|| self.held.keys().next().copied()).unwrap_or(self.next_seq)
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) fn backlog(&self) -> u64 {
        (self.stored.len() + self.held.len()) as u64
    }

    /// Reports without an ack up to `through`.
    pub(super) fn backlog_through(&self, through: u64) -> u64 {
        let stored = self.stored.partition_point(|stored| stored.seq <= through);
        (stored + self.held.range(..=through).count()) as u64
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

    /// The disk can be written again.
    pub(super) fn all_saved(&mut self) {
        self.room = None;
    }

    /// The disk could not be written: what is not on it is held in memory, within bounds. Gives what must go, the
    /// oldest first, as a record.
    pub(super) fn hold(&mut self) -> Option<Record> {
        let backlog = self.backlog();
        let room = *self.room.get_or_insert(backlog.saturating_sub(self.unsaved()).saturating_add(MAX_UNSAVED));
        let excess = usize::try_from(backlog.checked_sub(room)?.checked_sub(1)?).ok()?;
        let stored = self.stored.get(excess).map(|stored| stored.seq);
        let through = stored.or_else(|| self.held.keys().nth(excess.checked_sub(self.stored.len())?).copied())?;
        Some(Record::Dropped { through, total: self.dropped + backlog - room })
    }

    /// Whether the disk could be written when that was last tried.
    pub(super) fn is_saved(&self) -> bool {
        self.room.is_none()
    }

    /// Reports that are not on disk.
    pub(super) fn unsaved(&self) -> u64 {
        self.held.len() as u64
    }

    /// The oldest reports that are not on disk, as records, about `max_bytes` of them but at least one, after what a
    /// reader must forget; none where all are.
    pub(super) fn unsaved_records(&self, max_bytes: u64) -> Vec<Record> {
        if self.is_saved() {
            return Vec::new();
        }
        let mut records = vec![Record::Dropped { through: self.oldest_seq().saturating_sub(1), total: self.dropped }];
        let mut bytes = 0;
        for (&seq, run) in &self.held {
            if bytes >= max_bytes {
                break;
            }
            bytes += (run.message.len() + run.log_tail.len() + RUN_BYTES) as u64;
            records.push(Record::Settled { seq, run: Box::new(run.clone()) });
        }
        records
    }

    fn check(&mut self, uid: &str) -> &mut Check {
        self.checks.entry(uid.to_owned()).or_default()
    }

    fn withdraw(&mut self, key: &RunKey) {
        let settled = self.is_settled(key);
        let Some(check) = self.checks.get_mut(&key.check_uid) else { return };
        let withdrawn = check.intents.remove(&(key.kind, key.slot));
        // What came to nothing was not obeyed.
        if withdrawn.is_some_and(|open| !settled && open.intent.run_now == check.ran_now) {
            check.ran_now = None;
        }
        if check.intents.is_empty() && check.last.is_empty() && check.ran_now.is_none() {
            self.checks.remove(&key.check_uid);
        }
    }

    fn settle(&mut self, seq: u64, run: Run) {
        let RunKey { check_uid, kind, slot } = run.key.clone();
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
        let check = self.check(&check_uid);
        check.intents.remove(&(kind, slot));
        // The report carries the log's tail; no decision needs it, and this copy stays as long as the check.
        let kept = Run { log_tail: String::new(), ..run.clone() };
        let last =
            check.last.entry(kind).or_insert_with(|| Box::new(Last { run: kept.clone(), slots: BTreeSet::new() }));
        if slot >= last.run.key.slot {
            last.run = kept;
        }
        last.slots.insert(slot);
        while last.slots.len() > REMEMBERED_SLOTS {
            last.slots.pop_first();
        }
        let is_stored = self.stored.binary_search_by_key(&seq, |stored| stored.seq).is_ok();
        if seq > self.acked && !is_stored {
            self.held.insert(seq, run);
        }
    }

    fn ack(&mut self, seq: u64) {
        // An ack of what was never written must not swallow what comes.
        let seq = seq.min(self.next_seq.saturating_sub(1));
        if seq > self.acked {
            self.acked = seq;
            self.discard(seq);
        }
    }

    fn discard(&mut self, through: u64) {
        let gone = self.stored.partition_point(|stored| stored.seq <= through);
        self.stored.drain(..gone);
        self.held = self.held.split_off(&through.saturating_add(1));
    }
}
