//! The one thread that writes the journal, and the index that everyone reads.
//!
//! Whoever needs his record on disk waits for an answer; the others leave a note that takes effect at once. The queue
//! needs no limit of its own: a caller waits for his record before he leaves the next, and acks are merged.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use active_monitor_core::run::{Run, RunKey};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use super::index::Index;
use super::record::Record;
use super::segments::Segments;
use super::{Intent, JournalError};

type Done<T> = oneshot::Sender<Result<T, JournalError>>;

/// A change whose caller waits until it is on disk.
pub(super) enum Request {
    Intend { intent: Intent, done: Done<()> },
    Settle { run: Box<Run>, done: Done<bool> },
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    appended: watch::Sender<u64>,
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
    last_seq: u64,
    intended: Vec<Done<()>>,
    settled: Vec<(Done<bool>, bool)>,
}

impl Writer {
    pub(super) fn start(segments: Segments, index: Index) -> io::Result<Writer> {
        let (appended, _) = watch::channel(index.next_seq());
        let state = Mutex::new(State { index, queue: Queue::default(), stopping: false });
        let shared = Arc::new(Shared { state, wake: Condvar::new(), appended });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || theirs.run(segments))?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.shared.state.lock().index)
    }

    pub(super) fn appended(&self) -> watch::Receiver<u64> {
        self.shared.appended.subscribe()
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
        while let Some(queue) = self.next() {
            let sync = !queue.requests.is_empty();
            let batch = self.prepare(queue);
            let result = self.commit(&mut segments, &batch, sync);
            if let Err(error) = &result {
                tracing::error!(%error, "journal write failed");
            }
            self.finish(batch, result);
            if let Err(error) = self.tidy(&mut segments) {
                tracing::error!(%error, "journal files could not be tidied");
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
            self.wake.wait(&mut state);
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
                    batch.intended.push(done);
                }
                Request::Settle { run, done } => {
                    let is_new = !state.index.is_settled(&run.key) && settled_here.insert(run.key.clone());
                    batch.settled.push((done, is_new));
                    if is_new {
                        batch.records.push(Record::Settled { seq: next_seq, run });
                        batch.last_seq = next_seq;
                        next_seq += 1;
                    } else {
                        batch.records.push(Record::Withdrawn { key: run.key });
                    }
                }
            }
        }
        drop(state);
        written.extend(batch.records.iter().cloned());
        for record in &written {
            if let Err(error) = record.encode(&mut batch.bytes) {
                tracing::error!(%error, "journal record could not be encoded");
            }
        }
        batch
    }

    fn commit(&self, segments: &mut Segments, batch: &Batch, sync: bool) -> io::Result<()> {
        if segments.wants_rotation() {
            let checkpoint = self.state.lock().index.checkpoint();
            segments.rotate(checkpoint)?;
        }
        segments.append(&batch.bytes, batch.last_seq, sync)
    }

    /// Lets everyone see what is on disk, then answers those who wait for it.
    fn finish(&self, batch: Batch, result: io::Result<()>) {
        let Batch { records, bytes: _, last_seq, intended, settled } = batch;
        // A caller that went away has his record all the same.
        match result {
            Ok(()) => {
                let mut state = self.state.lock();
                records.into_iter().for_each(|record| state.index.apply(record));
                let next_seq = state.index.next_seq();
                drop(state);
                if last_seq > 0 {
                    self.appended.send_replace(next_seq);
                }
                intended.into_iter().for_each(|done| drop(done.send(Ok(()))));
                settled.into_iter().for_each(|(done, is_new)| drop(done.send(Ok(is_new))));
            }
            Err(error) => {
                let error = Arc::new(error);
                let refused = || JournalError::Write(Arc::clone(&error));
                intended.into_iter().for_each(|done| drop(done.send(Err(refused()))));
                settled.into_iter().for_each(|(done, _)| drop(done.send(Err(refused()))));
            }
        }
    }

    /// Removes the files that nobody needs, then as many as the limit asks for.
    fn tidy(&self, segments: &mut Segments) -> io::Result<()> {
        let acked = self.state.lock().index.acked();
        segments.remove_acked(acked)?;
        while let Some(through) = segments.overflow() {
            let mut state = self.state.lock();
            let lost = state.index.backlog_through(through);
            let record = Record::Dropped { through, total: state.index.dropped() + lost };
            state.index.apply(record.clone());
            drop(state);
            let mut bytes = Vec::new();
            record.encode(&mut bytes)?;
            // Before the file goes: a crash in between must not forget the count.
            segments.append(&bytes, 0, true)?;
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
