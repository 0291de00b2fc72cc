//! The journal's files: `<20 digits>.log`, each beginning with a checkpoint, the highest number open for appending.
//! A file is needed only for the reports in it, so it goes when they are acked, or when the room is needed.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::JournalError;
use super::index::Index;
use super::record::{Item, Record, scan};

/// A journal is made of about this many files, so that room is regained in small portions.
const FILES: u64 = 16;
/// Below this many bytes a file would be little more than its checkpoint.
const MIN_FILE_BYTES: u64 = 4096;
/// Damaged pieces kept for people to look at.
const MAX_QUARANTINED: usize = 64;

pub(super) struct Segments {
    dir: PathBuf,
    max_bytes: u64,
    /// Oldest first; the last one is `active`.
    files: VecDeque<Segment>,
    active: File,
    /// Length of `active` at which the next file begins.
    rotate_at: u64,
    /// A write failed: the file's end is unknown, and the next record needs a new file.
    wounded: bool,
    /// Held as long as this lives.
    _lock: File,
}

struct Segment {
    number: u64,
    path: PathBuf,
    bytes: u64,
    /// Highest number of a report in it; 0 for none.
    last_seq: u64,
}

impl Segments {
    /// Locks the directory and reads every file in it.
    pub(super) fn open(dir: &Path, max_bytes: u64) -> Result<(Segments, Index), JournalError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let lock = lock(dir)?;
        let mut index = Index::new();
        let mut files = VecDeque::new();
        for (number, path) in list(dir).map_err(at(dir))? {
            let quarantine = dir.join("quarantine");
            let segment = read(number, &path, &quarantine, &mut index).map_err(at(&path))?;
            files.push_back(segment);
        }
        let number = files.back().map_or(1, |last: &Segment| last.number);
        let path = file_path(dir, number);
        if files.is_empty() {
            let bytes = encode(index.checkpoint()).map_err(at(&path))?;
            write_new(dir, &path, &bytes).map_err(at(&path))?;
            files.push_back(Segment { number, path: path.clone(), bytes: bytes.len() as u64, last_seq: 0 });
        }
        let active = OpenOptions::new().append(true).open(&path).map_err(at(&path))?;
        let rotate_at = file_bytes(max_bytes);
        let dir = dir.to_owned();
        Ok((Segments { dir, max_bytes, files, active, rotate_at, wounded: false, _lock: lock }, index))
    }

    /// Appends encoded records, the highest report among them being `last_seq`. After an error nothing of them counts.
    pub(super) fn append(&mut self, bytes: &[u8], last_seq: u64, sync: bool) -> io::Result<()> {
        let written = self.active.write_all(bytes).and_then(|()| if sync { self.active.sync_data() } else { Ok(()) });
        let Some(segment) = self.files.back_mut() else { return written };
        match written {
            Ok(()) => {
                segment.bytes += bytes.len() as u64;
                segment.last_seq = segment.last_seq.max(last_seq);
                Ok(())
            }
            Err(error) => {
                self.wounded = true;
                // What this leaves behind, the next start takes for damage: it costs a count, not a record.
                self.active.set_len(segment.bytes).ok();
                Err(error)
            }
        }
    }

    /// Whether the next record belongs in a new file.
    pub(super) fn wants_rotation(&self) -> bool {
        self.wounded || self.files.back().is_none_or(|active| active.bytes >= self.rotate_at)
    }

    /// Begins a new file with this checkpoint. It has its name only when it is whole and on disk.
    pub(super) fn rotate(&mut self, checkpoint: Vec<Record>) -> io::Result<()> {
        let bytes = encode(checkpoint)?;
        let number = self.files.back().map_or(1, |last| last.number + 1);
        let path = file_path(&self.dir, number);
        write_new(&self.dir, &path, &bytes)?;
        self.active = OpenOptions::new().append(true).open(&path)?;
        let bytes = bytes.len() as u64;
        self.rotate_at = bytes + file_bytes(self.max_bytes);
        self.wounded = false;
        self.files.push_back(Segment { number, path, bytes, last_seq: 0 });
        Ok(())
    }

    /// Removes the files whose reports are all acked.
    pub(super) fn remove_acked(&mut self, acked: u64) -> io::Result<()> {
        while self.files.len() > 1 && self.files.front().is_some_and(|oldest| oldest.last_seq <= acked) {
            self.remove_oldest()?;
        }
        Ok(())
    }

    /// When there is no room left: the highest report of the file that must go.
    pub(super) fn overflow(&self) -> Option<u64> {
        let total: u64 = self.files.iter().map(|segment| segment.bytes).sum();
        let oldest = self.files.front().filter(|_| self.files.len() > 1 && total > self.max_bytes)?;
        Some(oldest.last_seq)
    }

    pub(super) fn remove_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.files.front() else { return Ok(()) };
        match fs::remove_file(&oldest.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => drop(self.files.pop_front()),
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Open { path, source }
}

fn file_bytes(max_bytes: u64) -> u64 {
    (max_bytes / FILES).max(MIN_FILE_BYTES)
}

fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.log"))
}

fn lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

/// The journal's files in order; half-made ones are removed.
fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => fs::remove_file(&path)?,
            Some("log") => {
                let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
                found.extend(number.map(|number| (number, path)));
            }
            Some(_) | None => {}
        }
    }
    found.sort();
    Ok(found)
}

fn read(number: u64, path: &Path, quarantine: &Path, index: &mut Index) -> io::Result<Segment> {
    let content = fs::read(path)?;
    let mut segment = Segment { number, path: path.to_owned(), bytes: content.len() as u64, last_seq: 0 };
    for item in scan(&content) {
        match item {
            Item::Record(record) => {
                if let Record::Settled { seq, .. } = *record {
                    segment.last_seq = segment.last_seq.max(seq);
                }
                index.apply(*record);
            }
            Item::Corrupt(range) => {
                index.count_corrupt();
                tracing::error!(path = %path.display(), offset = range.start, bytes = range.len(), "journal record damaged");
                set_aside(quarantine, number, range.start, &content[range])?;
            }
            Item::Torn(offset) => {
                tracing::warn!(path = %path.display(), offset, "journal record cut off by a crash, removed");
                let file = OpenOptions::new().write(true).open(path)?;
                file.set_len(offset as u64)?;
                file.sync_all()?;
                segment.bytes = offset as u64;
            }
        }
    }
    Ok(segment)
}

/// Keeps damaged bytes for people. The same damage met again at the next start has the same name.
fn set_aside(quarantine: &Path, number: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(quarantine)?;
    if fs::read_dir(quarantine)?.count() < MAX_QUARANTINED {
        fs::write(quarantine.join(format!("{number:020}-{offset}.bin")), bytes)?;
    }
    Ok(())
}

fn encode(records: Vec<Record>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records {
        record.encode(&mut bytes)?;
    }
    Ok(bytes)
}

fn write_new(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let half_made = path.with_extension("tmp");
    let mut file = File::create(&half_made)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&half_made, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
    use jiff::Timestamp;

    use super::super::writer::Writer;
    use super::super::{DEFAULT_MAX_BYTES, Journal};
    use super::*;

    #[tokio::test]
    async fn a_disk_that_was_full_for_a_while_costs_an_error_and_no_run() {
        let key = RunKey { check_uid: "a".into(), kind: RunKind::HealthCheck, slot: Timestamp::UNIX_EPOCH };
        let run = Run {
            namespace: "health".into(),
            name: "a".into(),
            workflow: None,
            outcome: Outcome::Failed,
            reason: None,
            message: String::new(),
            started_at: key.slot,
            finished_at: key.slot,
            key,
        };
        let dir = tempfile::tempdir().unwrap();
        let (mut segments, index) = Segments::open(dir.path(), DEFAULT_MAX_BYTES).unwrap();
        segments.active = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let journal = Journal { writer: Arc::new(Writer::start(segments, index).unwrap()) };
        assert!(matches!(journal.settle(run.clone()).await, Err(JournalError::Write(_))));
        assert_eq!((journal.backlog(), journal.next_seq()), (0, 1));
        assert!(journal.settle(run.clone()).await.unwrap());
        drop(journal);
        let journal = Journal::open(dir.path(), DEFAULT_MAX_BYTES).await.unwrap();
        assert_eq!((journal.backlog(), journal.corrupt()), (1, 0));
        assert!(!journal.settle(run).await.unwrap());
    }
}
