//! The journal's files: `<20 digits>.log`, each beginning with a checkpoint, the highest number open for appending.
//! A file is needed only for the reports in it, so it goes when they are acked, or when the room is needed; when the next
//! one begins, it is written again without anything else.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use active_monitor_core::session::frame::Report;

use super::JournalError;
use super::index::{Index, Stored};
use super::record::{Item, Record, read_at, scan};

/// A journal is made of about this many files, or more of the largest size, so that room is regained in small portions.
const FILES: u64 = 16;
/// A file is read as a whole at the start, so however large the journal may be, its files are not larger.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Below this many bytes a file would be little more than its checkpoint.
const MIN_FILE_BYTES: u64 = 4096;
/// Damaged pieces kept for people to look at.
const MAX_QUARANTINED: usize = 64;

pub(super) struct Segments {
    dir: PathBuf,
    max_bytes: u64,
    /// Oldest first; the last one is `active`, where there is one.
    files: VecDeque<Segment>,
    active: Option<File>,
    /// Length of `active` at which the next file begins.
    rotate_at: u64,
    /// A write failed, or none was possible from the start: the next record needs a new file.
    wounded: bool,
    /// Held as long as this lives; a disk that cannot be written gives it later.
    lock: Option<File>,
}

/// A file that has only its reports left, and is not in its place yet.
pub(super) struct Thinned {
    number: u64,
    path: PathBuf,
    bytes: u64,
    reports: Vec<(u64, usize)>,
}

struct Segment {
    number: u64,
    path: PathBuf,
    bytes: u64,
    /// Highest number of a report in it; 0 for none.
    last_seq: u64,
}

impl Segments {
    /// Locks the directory and reads every file in it. A disk that is full or read-only is no reason to fail: then what
    /// can be read is read, and [`Segments::wants_rotation`] until it can be written.
    pub(super) fn open(dir: &Path, max_bytes: u64) -> Result<(Segments, Index), JournalError> {
        if let Err(error) = fs::create_dir_all(dir) {
            forgive(error).map_err(at(dir))?;
        }
        let lock = lock(dir)?;
        let max_bytes = max_bytes.min(disk_bytes(dir).map_or(u64::MAX, |bytes| bytes / 4 * 3));
        let mut index = Index::new();
        let mut files = VecDeque::new();
        for (number, path) in list(dir).map_err(at(dir))? {
            let quarantine = dir.join("quarantine");
            let segment = read(number, &path, &quarantine, &mut index).map_err(at(&path))?;
            files.push_back(segment);
        }
        let active = match files.back() {
            Some(Segment { path, .. }) => match OpenOptions::new().append(true).open(path) {
                Ok(file) => Some(file),
                Err(error) => forgive(error).map(|()| None).map_err(at(path))?,
            },
            None => None,
        };
        let (wounded, rotate_at, dir) = (active.is_none(), file_bytes(max_bytes), dir.to_owned());
        let mut segments = Segments { dir, max_bytes, files, active, rotate_at, wounded, lock };
        if segments.files.is_empty()
            && let Err(error) = segments.rotate(&index.checkpoint())
        {
            let dir = &segments.dir;
            forgive(error).map_err(at(dir))?;
        }
        Ok((segments, index))
    }

    /// Bytes that a file grows by, about.
    pub(super) fn file_bytes(&self) -> u64 {
        file_bytes(self.max_bytes)
    }

    /// Appends encoded records, among them these reports (number, and where in `bytes`); gives where they are now. After an
    /// error nothing of them counts.
    pub(super) fn append(&mut self, bytes: &[u8], reports: &[(u64, usize)], sync: bool) -> io::Result<Vec<Stored>> {
        let (Some(active), Some(segment)) = (self.active.as_mut(), self.files.back_mut()) else {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        };
        if let Err(error) = active.write_all(bytes) {
            // What cannot be taken back, the next start takes for damage: it costs a count, not a record.
            self.wounded = active.set_len(segment.bytes).is_err();
            return Err(error);
        }
        if sync && let Err(error) = active.sync_data() {
            // Nobody knows what of the file is on the disk.
            self.wounded = true;
            active.set_len(segment.bytes).ok();
            return Err(error);
        }
        let stored = place(segment.number, segment.bytes, reports);
        segment.bytes += bytes.len() as u64;
        segment.last_seq = reports.iter().fold(segment.last_seq, |last, (seq, _)| last.max(*seq));
        Ok(stored)
    }

    /// Whether nothing more can be appended to the last file.
    pub(super) fn is_wounded(&self) -> bool {
        self.wounded
    }

    /// Whether the next record belongs in a new file.
    pub(super) fn wants_rotation(&self) -> bool {
        self.wounded || self.files.back().is_none_or(|active| active.bytes >= self.rotate_at)
    }

    /// Begins a new file with these records, a checkpoint first; gives where the reports among them are. It has its name
    /// only when it is whole and on disk.
    pub(super) fn rotate(&mut self, records: &[Record]) -> io::Result<Vec<Stored>> {
        if self.lock.is_none() {
            fs::create_dir_all(&self.dir)?;
            self.lock = Some(lock(&self.dir).map_err(io::Error::other)?.ok_or(io::ErrorKind::ReadOnlyFilesystem)?);
        }
        let (bytes, reports) = encode(records)?;
        let number = self.files.back().map_or(1, |last| last.number + 1);
        let path = file_path(&self.dir, number);
        write_new(&self.dir, &path, &bytes)?;
        self.active = Some(OpenOptions::new().append(true).open(&path)?);
        let bytes = bytes.len() as u64;
        self.rotate_at = bytes + file_bytes(self.max_bytes);
        self.wounded = false;
        let last_seq = reports.last().map_or(0, |(seq, _)| *seq);
        self.files.push_back(Segment { number, path, bytes, last_seq });
        Ok(place(number, 0, &reports))
    }

    /// Writes the file before the active one again, beside it, with nothing but the reports after `acked`: the active one
    /// says the rest again. `None` where there is none, or where it is damaged: that is left for the next start.
    pub(super) fn thin(&self, acked: u64) -> io::Result<Option<Thinned>> {
        let Some(segment) = self.files.len().checked_sub(2).and_then(|at| self.files.get(at)) else { return Ok(None) };
        let (mut bytes, mut reports) = (Vec::new(), Vec::new());
        for item in scan(&fs::read(&segment.path)?) {
            match item {
                Item::Record(record, _) => match *record {
                    Record::Settled { seq, .. } if seq <= acked => {}
                    Record::Settled { seq, .. } => {
                        reports.push((seq, bytes.len()));
                        record.encode(&mut bytes)?;
                    }
                    Record::Checkpoint { .. }
                    | Record::Last { .. }
                    | Record::Intended { .. }
                    | Record::RanNow { .. }
                    | Record::Created { .. }
                    | Record::Withdrawn { .. }
                    | Record::Acked { .. }
                    | Record::Forgotten { .. }
                    | Record::Dropped { .. } => {}
                },
                Item::Corrupt(_) | Item::Torn(_) => return Ok(None),
            }
        }
        let path = segment.path.with_extension("tmp");
        write_synced(&path, &bytes)?;
        Ok(Some(Thinned { number: segment.number, path, bytes: bytes.len() as u64, reports }))
    }

    /// Puts it in the place of the file that it was made of; gives where the reports are now.
    pub(super) fn replace(&mut self, thinned: Thinned) -> io::Result<Vec<Stored>> {
        let Thinned { number, path, bytes, reports } = thinned;
        let Some(segment) = self.files.iter_mut().find(|segment| segment.number == number) else {
            return Ok(Vec::new());
        };
        // Not synced: after a crash the one or the other is there, and both are right.
        fs::rename(path, &segment.path)?;
        segment.bytes = bytes;
        Ok(place(number, 0, &reports))
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

    /// Of a disk that has no room although the limit is not reached: the highest report of the file that must go. The
    /// last file stays.
    pub(super) fn expendable(&self) -> Option<u64> {
        self.files.front().filter(|_| self.files.len() > 1).map(|oldest| oldest.last_seq)
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

/// How large the disk is; `None` where it does not say. A disk smaller than the journal's limit would be full with one or
/// two files on it, and neither could be spared for the other.
fn disk_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_blocks.saturating_mul(disk.f_frsize)).filter(|bytes| *bytes > 0)
}

fn file_bytes(max_bytes: u64) -> u64 {
    (max_bytes / FILES).clamp(MIN_FILE_BYTES, MAX_FILE_BYTES)
}

fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.log"))
}

/// Whether a fault is the disk's, which may pass, and not one of the path.
fn forgive(error: io::Error) -> io::Result<()> {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    if [PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull].contains(&error.kind()) {
        tracing::error!(%error, "the journal cannot be written");
        return Ok(());
    }
    Err(error)
}

/// `None` where the disk has no room for the file, or none may be written.
fn lock(dir: &Path) -> Result<Option<File>, JournalError> {
    let path = dir.join("lock");
    let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
        Ok(file) => file,
        // The directory could not be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return forgive(error).map(|()| None).map_err(at(&path)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

/// The journal's files in order; half-made ones are removed.
fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        // It could not be made: there is nothing in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => fs::remove_file(&path).or_else(forgive)?,
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
            Item::Record(record, offset) => {
                let seq = if let Record::Settled { seq, .. } = *record { Some(seq) } else { None };
                index.apply(*record);
                if let Some(seq) = seq {
                    segment.last_seq = segment.last_seq.max(seq);
                    place(number, 0, &[(seq, offset)]).into_iter().for_each(|stored| index.place(stored));
                }
            }
            Item::Corrupt(range) => {
                index.count_corrupt();
                tracing::error!(path = %path.display(), offset = range.start, bytes = range.len(), "journal record damaged");
                set_aside(quarantine, number, range.start, &content[range]).or_else(forgive)?;
            }
            Item::Torn(offset) => {
                tracing::warn!(path = %path.display(), offset, "journal record cut off by a crash, removed");
                cut(path, offset as u64).or_else(forgive)?;
                segment.bytes = offset as u64;
            }
        }
    }
    Ok(segment)
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Keeps damaged bytes for people. The same damage met again at the next start has the same name.
fn set_aside(quarantine: &Path, number: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(quarantine)?;
    if fs::read_dir(quarantine)?.count() < MAX_QUARANTINED {
        fs::write(quarantine.join(format!("{number:020}-{offset}.bin")), bytes)?;
    }
    Ok(())
}

/// Bytes of records, and the numbers of the reports among them with their places in it.
type Encoded = (Vec<u8>, Vec<(u64, usize)>);

pub(super) fn encode(records: &[Record]) -> io::Result<Encoded> {
    let (mut bytes, mut reports) = (Vec::new(), Vec::new());
    for record in records {
        if let Record::Settled { seq, .. } = record {
            reports.push((*seq, bytes.len()));
        }
        record.encode(&mut bytes)?;
    }
    Ok((bytes, reports))
}

/// Where reports are that were written to a file from `base` on. Files stay far below 4 GiB, and so many are not made in
/// the life of a disk.
fn place(number: u64, base: u64, reports: &[(u64, usize)]) -> Vec<Stored> {
    let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
    let stored = |(seq, at): &(u64, usize)| Stored {
        seq: *seq,
        file: narrow(number),
        offset: narrow(base.saturating_add(*at as u64)),
    };
    reports.iter().map(stored).collect()
}

/// Reads reports of one journal; a file stays open for those that follow.
pub(super) struct Reader<'a> {
    dir: &'a Path,
    open: Option<(u32, File)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(dir: &'a Path) -> Reader<'a> {
        Reader { dir, open: None }
    }

    /// `None` where it is not there any more as it was written. An error says nothing of the report: a process without
    /// free descriptors cannot open the file, and a disk may answer again.
    pub(super) fn read(&mut self, stored: Stored) -> io::Result<Option<Report>> {
        let Stored { seq, file: number, offset } = stored;
        let file = match self.open.take() {
            Some((open, file)) if open == number => file,
            Some(_) | None => match File::open(file_path(self.dir, number.into())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            },
        };
        let record = read_at(&file, offset.into())?;
        self.open = Some((number, file));
        Ok(match record {
            Some(Record::Settled { seq: found, run }) if found == seq => Some(Report { seq, run: *run }),
            Some(
                Record::Settled { .. }
                | Record::Checkpoint { .. }
                | Record::Last { .. }
                | Record::Intended { .. }
                | Record::RanNow { .. }
                | Record::Created { .. }
                | Record::Withdrawn { .. }
                | Record::Acked { .. }
                | Record::Forgotten { .. }
                | Record::Dropped { .. },
            )
            | None => None,
        })
    }
}

/// Reads what tells this journal from others, or draws it. Where it cannot be kept it lasts as long as the process.
pub(super) fn identify(dir: &Path) -> String {
    let path = dir.join("id");
    if let Some(id) = fs::read_to_string(&path).ok().filter(|id| !id.is_empty()) {
        return id;
    }
    let id = uuid::Uuid::new_v4().to_string();
    if let Err(error) = write_new(dir, &path, id.as_bytes()) {
        tracing::warn!(path = %path.display(), %error, "the journal's id cannot be kept");
    }
    id
}

pub(super) fn write_new(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let half_made = path.with_extension("tmp");
    write_synced(&half_made, bytes)?;
    fs::rename(&half_made, path)?;
    File::open(dir)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Its bytes are wanted for the next try.
        fs::remove_file(path).ok();
    })
}

#[cfg(test)]
impl Segments {
    /// As if the disk were full, until the next file is begun.
    pub(super) fn fill(&mut self) {
        self.active = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
    }
}
