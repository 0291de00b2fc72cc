//! A disk with a journal on it: what the agent's journal promises, and nothing beyond. A crash keeps what was synced and
//! any beginning of the rest.

use std::collections::{BTreeMap, BTreeSet};

use active_monitor_core::decide::Intent;
use active_monitor_core::run::{Run, RunKey, RunKind};

/// As the agent's journal remembers them.
const REMEMBERED_SLOTS: usize = 16;

#[derive(Clone)]
enum Record {
    Intended(Intent),
    Created(RunKey),
    Withdrawn(RunKey),
    Settled(Box<Run>),
    Forgotten(String),
}

#[derive(Default)]
pub(crate) struct Journal {
    records: Vec<Record>,
    synced: usize,
    index: Index,
}

#[derive(Default)]
struct Index {
    intents: BTreeMap<RunKey, Intent>,
    last: BTreeMap<(String, RunKind), (Run, BTreeSet<jiff::Timestamp>)>,
    ran_now: BTreeMap<String, String>,
}

impl Journal {
    pub(crate) fn intend(&mut self, intent: Intent) {
        if !self.index.intents.contains_key(&intent.key) {
            self.push(Record::Intended(intent));
        }
        self.synced = self.records.len();
    }

    pub(crate) fn created(&mut self, key: &RunKey) {
        self.push(Record::Created(key.clone()));
    }

    pub(crate) fn abandon(&mut self, key: &RunKey) {
        self.push(Record::Withdrawn(key.clone()));
        self.synced = self.records.len();
    }

    pub(crate) fn forget(&mut self, uid: &str) {
        self.push(Record::Forgotten(uid.to_owned()));
    }

    /// Whether the run's end is news.
    pub(crate) fn settle(&mut self, run: Run) -> bool {
        let is_settled = self.index.is_settled(&run.key);
        let record = if is_settled { Record::Withdrawn(run.key.clone()) } else { Record::Settled(Box::new(run)) };
        self.push(record);
        self.synced = self.records.len();
        !is_settled
    }

    pub(crate) fn intents(&self, uid: &str) -> Vec<Intent> {
        let of_check = self.index.intents.values().filter(|intent| intent.key.check_uid == uid);
        of_check.cloned().collect()
    }

    /// The runs that have no end yet.
    pub(crate) fn open(&self) -> impl Iterator<Item = &RunKey> {
        self.index.intents.keys()
    }

    pub(crate) fn is_open(&self, key: &RunKey) -> bool {
        self.index.intents.contains_key(key)
    }

    /// How many runs it knows.
    pub(crate) fn len(&self) -> usize {
        self.index.intents.len() + self.index.last.values().map(|(_, slots)| slots.len()).sum::<usize>()
    }

    pub(crate) fn ran_now(&self, uid: &str) -> Option<String> {
        self.index.ran_now.get(uid).cloned()
    }

    pub(crate) fn last_run(&self, uid: &str, kind: RunKind) -> Option<Run> {
        self.index.last.get(&(uid.to_owned(), kind)).map(|(run, _)| run.clone())
    }

    pub(crate) fn check_uids(&self) -> BTreeSet<String> {
        let intents = self.index.intents.keys().map(|key| key.check_uid.clone());
        let last = self.index.last.keys().map(|(uid, _)| uid.clone());
        intents.chain(last).chain(self.index.ran_now.keys().cloned()).collect()
    }

    /// How many records a crash may take.
    pub(crate) fn unsynced(&self) -> usize {
        self.records.len() - self.synced
    }

    /// The power goes, and this many unsynced records with it.
    pub(crate) fn crash(&mut self, lost: usize) {
        self.records.truncate(self.records.len() - lost);
        self.synced = self.records.len();
        self.index = Index::default();
        for record in self.records.clone() {
            self.index.apply(record);
        }
    }

    fn push(&mut self, record: Record) {
        self.index.apply(record.clone());
        self.records.push(record);
    }
}

impl Index {
    fn is_settled(&self, key: &RunKey) -> bool {
        self.last.get(&(key.check_uid.clone(), key.kind)).is_some_and(|(_, slots)| {
            let forgotten = slots.len() == REMEMBERED_SLOTS && slots.first().is_some_and(|first| key.slot < *first);
            forgotten || slots.contains(&key.slot)
        })
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Intended(intent) => {
                if let Some(token) = &intent.run_now {
                    self.ran_now.insert(intent.key.check_uid.clone(), token.clone());
                }
                self.intents.entry(intent.key.clone()).or_insert(intent);
            }
            Record::Created(key) => {
                if let Some(intent) = self.intents.get_mut(&key) {
                    intent.created = true;
                }
            }
            Record::Withdrawn(key) => {
                let is_settled = self.is_settled(&key);
                let withdrawn = self.intents.remove(&key).filter(|_| !is_settled);
                // What came to nothing was not obeyed.
                if withdrawn.is_some_and(|intent| intent.run_now.as_ref() == self.ran_now.get(&key.check_uid)) {
                    self.ran_now.remove(&key.check_uid);
                }
            }
            Record::Settled(run) => {
                self.intents.remove(&run.key);
                let of = (run.key.check_uid.clone(), run.key.kind);
                let (last, slots) = self.last.entry(of).or_insert_with(|| ((*run).clone(), BTreeSet::new()));
                slots.insert(run.key.slot);
                if slots.len() > REMEMBERED_SLOTS {
                    slots.pop_first();
                }
                if run.key.slot >= last.key.slot {
                    *last = *run;
                }
            }
            Record::Forgotten(uid) => {
                self.intents.retain(|key, _| key.check_uid != uid);
                self.last.retain(|(of, _), _| *of != uid);
                self.ran_now.remove(&uid);
            }
        }
    }
}
