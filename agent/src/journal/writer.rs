//! The one thread that writes the journal, and the index that everyone reads.
//!
//! Whoever needs his record on disk waits for an answer; the others leave a note that takes effect at once. The queue
//! needs no limit of its own: a caller waits for his record before he leaves the next, and acks are merged.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use active_monitor_core::run::{Run, RunKey};
use active_monitor_core::session::frame::Report;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use super::index::{Found, Index, Stored};
use super::record::Record;
use super::segments::{self, Reader, Segments};
use super::{Intent, JournalError};

type Done<T> = oneshot::Sender<Result<T, JournalError>>;

/// A disk that could not be written is tried again after this time, though nobody asks.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// A change whose caller waits until it is on disk.
pub(super) enum Request {
    Intend { intent: Intent, done: Done<()> },
    Abandon { key: RunKey, done: Done<()> },
    Settle { run: Box<Run>, done: Done<bool> },
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    dir: PathBuf,
    appended: watch::Sender<u64>,
    saved: watch::Sender<bool>,
}

struct State {
    index: Index,
    queue: Queue,
    stopping: bool,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    /// Applied to the index already.
    notes: Vec<Record>,
    acked: Option<u64>,
}

/// What one fsync puts on disk.
#[derive(Default)]
struct Batch {
    /// To be applied when they are on disk.
    records: Vec<Record>,
    bytes: Vec<u8>,
    /// Numbers of the reports, and where in `bytes` they are.
    reports: Vec<(u64, usize)>,
    noted: Vec<Done<()>>,
    settled: Vec<(Done<bool>, bool)>,
}

impl Writer {
    pub(super) fn start(dir: &Path, segments: Segments, mut index: Index) -> io::Result<Writer> {
        index.all_saved();
        let (appended, _) = watch::channel(index.next_seq());
        let state = Mutex::new(State { index, queue: Queue::default(), stopping: false });
        let (saved, _) = watch::channel(true);
        let dir = dir.to_owned();
        let shared = Arc::new(Shared { state, wake: Condvar::new(), dir, appended, saved });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || theirs.run(segments))?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.shared.state.lock().index)
    }

    /// Gives fewer reports where the disk does not answer: they are still there for the next call.
    pub(super) fn load(&self, after_seq: u64, max: usize) -> Vec<Report> {
        let found = self.shared.state.lock().index.find(after_seq, max);
        let mut reader = Reader::new(&self.shared.dir);
        let mut reports = Vec::new();
        for found in found {
            let read = match found {
                Found::Held(report) => Ok(Some(*report)),
                Found::Stored(stored) => reader.read(stored).and_then(|read| match read {
                    Some(report) => Ok(Some(report)),
                    None => self.read_again(stored),
                }),
            };
            match read {
                Ok(report) => reports.extend(report),
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be read for now");
                    break;
                }
            }
        }
        reports
    }

    /// Reads under the lock what was not where it had been: it was moved meanwhile, or it is damaged, and then lost.
    fn read_again(&self, stored: Stored) -> io::Result<Option<Report>> {
        let mut state = self.shared.state.lock();
        let moved = match state.index.find(stored.seq.saturating_sub(1), 1).pop() {
            Some(Found::Stored(moved)) if moved.seq == stored.seq => moved,
            // It was acked or dropped.
            Some(_) | None => return Ok(None),
        };
        let report = Reader::new(&self.shared.dir).read(moved)?;
        if report.is_none() {
            tracing::error!(seq = stored.seq, "journal record damaged");
            state.index.lose(stored.seq);
        }
        Ok(report)
    }

    pub(super) fn appended(&self) -> watch::Receiver<u64> {
        self.shared.appended.subscribe()
    }

    pub(super) fn saved(&self) -> watch::Receiver<bool> {
        self.shared.saved.subscribe()
    }

    pub(super) fn request(&self, request: Request) {
        self.shared.state.lock().queue.requests.push(request);
        self.shared.wake.notify_one();
    }

    /// Applies a record at once and writes it with the next batch.
    pub(super) fn note(&self, record: Record) {
        let mut state = self.shared.state.lock();
        if let Record::Acked { seq } = record {
            state.queue.acked = state.queue.acked.max(Some(seq));
        } else {
            state.queue.notes.push(record.clone());
        }
        state.index.apply(record);
        drop(state);
        self.shared.wake.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_one();
        // Waits for the last batch and for the lock on the directory to be released.
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn run(&self, mut segments: Segments) {
        let mut failed: Option<Instant> = None;
        while let Some(queue) = self.next() {
            let sync = !queue.requests.is_empty();
            let mut batch = self.prepare(queue);
            // Not at each batch: with much held in memory a try is much work.
            let result = match failed {
                Some(at) if at.elapsed() < TRY_AGAIN => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
                Some(_) | None => self.commit(&mut segments, &mut batch, sync),
            };
            let result = self.finish(batch, result);
            match result.and_then(|()| self.tidy(&mut segments)) {
                Ok(()) => {
                    failed = None;
                    if !self.saved.send_replace(true) {
                        tracing::info!("the journal is written again, nothing is held in memory only");
                    }
                }
                Err(error) => {
                    failed = failed.filter(|at| at.elapsed() < TRY_AGAIN).or_else(|| Some(Instant::now()));
                    if self.saved.send_replace(false) {
                        tracing::error!(%error, "the journal cannot be written, results are held in memory");
                    }
                }
            }
        }
    }

    /// Waits for work; `None` when all is written and no handle is left.
    fn next(&self) -> Option<Queue> {
        let mut state = self.state.lock();
        loop {
            let Queue { requests, notes, acked } = &state.queue;
            if !(requests.is_empty() && notes.is_empty() && acked.is_none()) {
                return Some(std::mem::take(&mut state.queue));
            }
            if state.stopping {
                return None;
            }
            if state.index.is_saved() {
                self.wake.wait(&mut state);
            } else if self.wake.wait_for(&mut state, TRY_AGAIN).timed_out() {
                return Some(Queue::default());
            }
        }
    }

    fn prepare(&self, queue: Queue) -> Batch {
        let Queue { requests, notes, acked } = queue;
        let mut batch = Batch::default();
        let mut written: Vec<Record> = notes;
        written.extend(acked.map(|seq| Record::Acked { seq }));
        let state = self.state.lock();
        let mut next_seq = state.index.next_seq();
        let mut settled_here: BTreeSet<RunKey> = BTreeSet::new();
        for request in requests {
            match request {
                Request::Intend { intent, done } => {
                    if !state.index.has_intent(&intent.key) {
                        batch.records.push(Record::Intended { intent, created: false });
                    }
                    batch.noted.push(done);
                }
                Request::Abandon { key, done } => {
                    batch.records.push(Record::Withdrawn { key });
                    batch.noted.push(done);
                }
                Request::Settle { run, done } => {
                    let is_new = !state.index.is_settled(&run.key) && settled_here.insert(run.key.clone());
                    batch.settled.push((done, is_new));
                    if is_new {
                        batch.records.push(Record::Settled { seq: next_seq, run });
                        next_seq += 1;
                    } else {
                        batch.records.push(Record::Withdrawn { key: run.key });
                    }
                }
            }
        }
        drop(state);
        written.extend(batch.records.iter().cloned());
        match segments::encode(&written) {
            Ok((bytes, reports)) => (batch.bytes, batch.reports) = (bytes, reports),
            Err(error) => tracing::error!(%error, "journal records could not be encoded"),
        }
        batch
    }

    /// Writes what is held in memory, then the batch. Whatever the disk has no room for, the oldest file makes room for;
    /// each try either gets further or has one file less, so that it ends.
    fn commit(&self, segments: &mut Segments, batch: &mut Batch, sync: bool) -> io::Result<Vec<Stored>> {
        loop {
            match self.begins_file(segments) {
                Ok(true) => {}
                Ok(false) => break,
                // The checkpoint that begins the file has the count.
                Err(error) => drop(self.make_room(segments, error)?),
            }
        }
        loop {
            match segments.append(&batch.bytes, &batch.reports, sync) {
                Err(error) if !segments.is_wounded() => {
                    self.make_room(segments, error)?.encode(&mut batch.bytes)?;
                }
                result => return result,
            }
        }
    }

    /// Begins a new file where one is due. What is held in memory goes into as many files as it needs, so that a disk
    /// with room for some of it takes some, and the oldest can go for the rest; `false` when nothing is left to do.
    fn begins_file(&self, segments: &mut Segments) -> io::Result<bool> {
        let state = self.state.lock();
        let unsaved = state.index.unsaved_records(segments.file_bytes());
        if unsaved.is_empty() && !segments.wants_rotation() {
            return Ok(false);
        }
        let mut records = state.index.checkpoint();
        drop(state);
        records.extend(unsaved);
        let stored = segments.rotate(&records)?;
        let mut state = self.state.lock();
        stored.into_iter().for_each(|stored| state.index.place(stored));
        if state.index.unsaved() == 0 {
            state.index.all_saved();
        }
        drop(state);
        if let Err(error) = self.thin(segments) {
            tracing::warn!(%error, "a file of the journal stays as large as it is");
        }
        Ok(true)
    }

    fn thin(&self, segments: &mut Segments) -> io::Result<()> {
        let acked = self.state.lock().index.acked();
        if let Some(thinned) = segments.thin(acked)? {
            let mut state = self.state.lock();
            let stored = segments.replace(thinned)?;
            stored.into_iter().for_each(|stored| state.index.place(stored));
        }
        Ok(())
    }

    /// Lets the oldest file go where the disk is full before the limit is reached, and gives the record that says what it
    /// cost. Gives the error back where that is not the reason, or no file can be spared.
    fn make_room(&self, segments: &mut Segments, error: io::Error) -> io::Result<Record> {
        let full = error.kind() == io::ErrorKind::StorageFull;
        let Some(through) = segments.expendable().filter(|_| full) else { return Err(error) };
        let (record, lost) = self.drop_reports(through);
        tracing::warn!(reports = lost, through_seq = through, "disk full, oldest reports dropped without an ack");
        segments.remove_oldest()?;
        Ok(record)
    }

    /// Forgets the reports up to `through`; gives the record that says so, and how many they are.
    fn drop_reports(&self, through: u64) -> (Record, u64) {
        let mut state = self.state.lock();
        let lost = state.index.backlog_through(through);
        let record = Record::Dropped { through, total: state.index.dropped() + lost };
        state.index.apply(record.clone());
        (record, lost)
    }

    /// Lets everyone see what there is, then answers those who wait for it. What is not on disk counts all the same,
    /// since a disk must not stop checks: until it is `saved`, a crash of the process loses it.
    fn finish(&self, batch: Batch, result: io::Result<Vec<Stored>>) -> io::Result<()> {
        let Batch { records, bytes: _, reports, noted, settled } = batch;
        let mut state = self.state.lock();
        records.into_iter().for_each(|record| state.index.apply(record));
        let result = result.map(|stored| {
            stored.into_iter().for_each(|stored| state.index.place(stored));
            state.index.all_saved();
        });
        if result.is_err()
            && let Some(record) = state.index.hold()
        {
            tracing::warn!(?record, "too much is held in memory, oldest reports dropped without an ack");
            state.index.apply(record);
        }
        let next_seq = state.index.next_seq();
        drop(state);
        if !reports.is_empty() {
            self.appended.send_replace(next_seq);
        }
        // A caller that went away has his record all the same.
        noted.into_iter().for_each(|done| drop(done.send(Ok(()))));
        settled.into_iter().for_each(|(done, is_new)| drop(done.send(Ok(is_new))));
        result
    }

    /// Removes the files that nobody needs, then as many as the limit asks for.
    fn tidy(&self, segments: &mut Segments) -> io::Result<()> {
        let acked = self.state.lock().index.acked();
        segments.remove_acked(acked)?;
        while let Some(through) = segments.overflow() {
            let (record, lost) = self.drop_reports(through);
            let mut bytes = Vec::new();
            record.encode(&mut bytes)?;
            // Before the file goes: a crash in between must not forget the count.
            segments.append(&bytes, &[], true)?;
            segments.remove_oldest()?;
            tracing::warn!(
                reports = lost,
                through_seq = through,
                "journal full, oldest reports dropped without an ack"
            );
        }
        Ok(())
    }
}
