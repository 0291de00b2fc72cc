//! The agent's journal: which runs were begun and how they ended, on disk, so that neither a crash nor a hub that is
//! away loses or repeats one.
//!
//! It is a set of append-only files in one directory that one process at a time may open (`journal/segments.rs`), an
//! index of what they say in memory (`journal/index.rs`) and one thread that writes; whoever waits at the same moment
//! shares one fsync (`journal/writer.rs`). Calls about one check must come one after another, as its controller makes
//! them; different checks do not disturb each other.
//!
//! The files are bounded by bytes: when they are full, or the disk is, the oldest reports go although no ack covers them,
//! and are counted. Intents and last runs do not go. A disk that cannot be written at all does not stop anybody: what
//! should be on it is held in memory, within bounds, until it is; only a crash in between loses it.

mod index;
mod lacking;
mod record;
mod segments;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use active_monitor_core::run::{Run, RunKey, RunKind};
use active_monitor_core::session::frame::{Counted, Report};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use self::lacking::Lacking;
use self::record::Record;
use self::segments::Segments;
use self::writer::{Request, Writer};

/// Bytes on disk of a journal that nobody gave a size: a day of a thousand checks a minute.
pub const DEFAULT_MAX_BYTES: u64 = 768 * 1024 * 1024;

/// A handle on the journal of this process; clones share it. The directory is released with the last one.
#[derive(Clone)]
pub struct Journal {
    writer: Arc<Writer>,
    id: Arc<str>,
    lacking: Arc<Lacking>,
}

/// What is about to be created in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The run.
    pub key: RunKey,
    /// Namespace of the check.
    pub namespace: String,
    /// Name of the check.
    pub name: String,
    /// `namespace/name` of the Workflow.
    pub workflow: String,
    /// The request that it obeys, where it is no scheduled run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_now: Option<String>,
}

/// An intent whose run has no end yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// What was to be created.
    pub intent: Intent,
    /// Whether the create is known to have succeeded. `false` says nothing: the note is not synced.
    pub created: bool,
}

/// Why the journal could not do it.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Another process has the directory open.
    #[error("the journal in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The directory or a file in it could not be read or made.
    #[error("the journal at {} could not be opened", path.display())]
    Open {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The writer has ended: the process is shutting down.
    #[error("the journal is closed")]
    Closed,
}

impl Journal {
    /// Opens the journal in `dir`, made if absent, and reads what it holds. A record cut off at the end by a crash is
    /// removed; a damaged one elsewhere is copied to `dir/quarantine`, counted and skipped.
    pub async fn open(dir: &Path, max_bytes: u64) -> Result<Journal, JournalError> {
        let dir = dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let (segments, index) = Segments::open(&dir, max_bytes)?;
            let id = segments::identify(&dir);
            let lacking = Lacking::open(&dir);
            let writer = Writer::start(&dir, segments, index);
            Ok((writer.map_err(|source| JournalError::Open { path: dir, source })?, id, lacking))
        });
        let (writer, id, lacking) = opened.await.map_err(|_| JournalError::Closed)??;
        Ok(Journal { writer: Arc::new(writer), id: id.into(), lacking: Arc::new(lacking) })
    }

    /// Drawn when the journal was made: another journal numbers its reports anew.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Notes that a workflow is about to be created; it is on disk when this returns, or the disk cannot be written
    /// ([`Journal::saved`]). A second call for a key changes
    /// nothing.
    pub async fn intend(&self, intent: Intent) -> Result<(), JournalError> {
        self.request(|done| Request::Intend { intent, done }).await
    }

    /// Notes that the workflow was created. Not synced.
    pub fn created(&self, key: &RunKey) {
        self.writer.note(Record::Created { key: key.clone() });
    }

    /// Notes how a run ended and clears its intent; on disk when this returns, as [`Journal::intend`]. `false` where that run had ended before:
    /// then the first end stands, and there is no second report.
    pub async fn settle(&self, run: Run) -> Result<bool, JournalError> {
        self.request(|done| Request::Settle { run: Box::new(run), done }).await
    }

    /// Withdraws an intent: nothing was created. On disk when this returns, as [`Journal::intend`]: an agent that forgot it
    /// would wait for a workflow that comes late, whose slot others have used up meanwhile.
    pub async fn abandon(&self, key: &RunKey) -> Result<(), JournalError> {
        self.request(|done| Request::Abandon { key: key.clone(), done }).await
    }

    /// The intents of a check that no [`Journal::settle`] or [`Journal::abandon`] has ended, checks before remedies, by
    /// slot.
    pub fn intents(&self, check_uid: &str) -> Vec<OpenIntent> {
        self.writer.read(|index| index.intents(check_uid))
    }

    /// How many runs are in flight, by the check's namespace: open intents and those of `more` that are not among them.
    pub fn in_flight(&self, more: &BTreeMap<RunKey, String>) -> BTreeMap<String, usize> {
        self.writer.read(|index| index.in_flight(more))
    }

    /// The settled run of a check with the highest slot; kept after its ack.
    pub fn last_run(&self, check_uid: &str, kind: RunKind) -> Option<Run> {
        self.writer.read(|index| index.last_run(check_uid, kind))
    }

    /// The last request for a run out of schedule that an intent of this check obeyed.
    pub fn ran_now(&self, check_uid: &str) -> Option<String> {
        self.writer.read(|index| index.ran_now(check_uid))
    }

    /// The check was deleted: its intents and last runs go, its reports stay until they are acked.
    pub fn forget(&self, check_uid: &str) {
        self.writer.note(Record::Forgotten { check_uid: check_uid.to_owned() });
    }

    /// Every check with an intent or a last run, in order.
    pub fn check_uids(&self) -> Vec<String> {
        self.writer.read(|index| index.check_uids())
    }

    /// At most `max` reports after `after_seq`, in order.
    pub fn load(&self, after_seq: u64, max: usize) -> Vec<Report> {
        self.writer.load(after_seq, max)
    }

    /// Everything up to `seq` is on the hub's disk. Not synced: an ack that a crash loses costs a second sending.
    pub fn ack(&self, seq: u64) {
        self.writer.note(Record::Acked { seq });
    }

    /// Number of the oldest report without an ack; [`Journal::next_seq`] where there is none.
    pub fn oldest_seq(&self) -> u64 {
        self.writer.read(|index| index.oldest_seq())
    }

    /// Number that the next report will get. They start at 1.
    pub fn next_seq(&self) -> u64 {
        self.writer.read(|index| index.next_seq())
    }

    /// Reports without an ack.
    pub fn backlog(&self) -> u64 {
        self.writer.read(|index| index.backlog())
    }

    /// Reports ever dropped without an ack because the journal was full.
    pub fn dropped(&self) -> u64 {
        self.writer.read(|index| index.dropped())
    }

    /// Reports that are in memory only, since the disk could not be written.
    pub fn unsaved(&self) -> u64 {
        self.writer.read(|index| if index.is_saved() { 0 } else { index.unsaved() })
    }

    /// Adds runs that the statuses count and that this journal does not know: the hub is to hear of them, after a restart too.
    pub fn lacks(&self, runs: Vec<Counted>) {
        self.lacking.add(runs);
    }

    /// The hub has heard of them.
    pub fn lacks_no_more(&self, runs: &[Counted]) {
        self.lacking.remove(runs);
    }

    /// What the journal lacks and the hub may not have heard of, whenever that changes.
    pub fn lacking(&self) -> watch::Receiver<Vec<Counted>> {
        self.lacking.follow()
    }

    /// Whether the disk can be written, whenever that changes.
    pub fn saved(&self) -> watch::Receiver<bool> {
        self.writer.saved()
    }

    /// Damaged records that were skipped when this process opened the journal, or met since.
    pub fn corrupt(&self) -> u64 {
        self.writer.read(|index| index.corrupt())
    }

    /// [`Journal::next_seq`], whenever it grows.
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.writer.appended()
    }

    async fn request<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, JournalError>>) -> Request,
    ) -> Result<T, JournalError> {
        let (done, answer) = oneshot::channel();
        self.writer.request(make(done));
        answer.await.map_err(|_| JournalError::Closed)?
    }
}

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod flip_tests;
#[cfg(test)]
mod tests;
