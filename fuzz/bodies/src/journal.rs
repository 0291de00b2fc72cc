//! The journal's files, whatever is in them: it opens, and damage costs what was damaged and no more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use active_monitor_agent::journal::Journal;
use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use jiff::Timestamp;
use tokio::runtime::Runtime;

/// Small, so that its files are, and turn over.
const MAX_BYTES: u64 = 1 << 20;
/// Reports in the file that is changed.
const REPORTS: u64 = 12;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));

/// A journal's only file as the agent wrote it.
static WRITTEN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = scratch();
    RUNTIME.block_on(async {
        let journal = Journal::open(dir.path(), MAX_BYTES).await.expect("a journal");
        for minute in 1..=REPORTS {
            journal.settle(run(minute)).await.expect("room");
        }
    });
    let mut paths = fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").path());
    let log = paths.find(|path| path.extension().is_some_and(|extension| extension == "log"));
    fs::read(log.expect("a file")).expect("it can be read")
});

fn run(minute: u64) -> Run {
    let slot = Timestamp::from_second(60 * i64::try_from(minute).expect("a small number")).expect("a time");
    let key = RunKey { check_uid: "a".into(), kind: RunKind::HealthCheck, slot };
    Run {
        key,
        namespace: "health".into(),
        name: "dns".into(),
        workflow: None,
        outcome: Outcome::Succeeded,
        reason: None,
        message: String::new(),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    }
}

/// In memory where there is such a place: thousands of these are made.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

fn file(dir: &Path) -> PathBuf {
    dir.join(format!("{:020}.log", 1))
}

/// Runs the target on one input: as a file, as the payload of a sound record, and as changes of a file.
pub fn body(bytes: &[u8]) {
    opened(bytes);
    opened(&record(bytes));
    let damaged = crate::changed(&WRITTEN, bytes);
    let found = opened(&damaged);
    // Each changed byte lies in one record, and cutting the end off costs what it cuts.
    let touched: BTreeSet<u64> = (1..=REPORTS).filter(|seq| !is_whole(*seq, &damaged)).collect();
    let expected: Vec<u64> = (1..=REPORTS).filter(|seq| !touched.contains(seq)).collect();
    assert_eq!(found, expected);
}

/// Whether the bytes of a report's record are as they were.
fn is_whole(seq: u64, damaged: &[u8]) -> bool {
    let begins: Vec<usize> = WRITTEN.windows(4).enumerate().filter(|(_, it)| it == b"AMJ1").map(|(at, _)| at).collect();
    let settled = format!("\"seq\":{seq},");
    let ends = begins.iter().skip(1).copied().chain([WRITTEN.len()]);
    let place = begins
        .iter()
        .copied()
        .zip(ends)
        .find(|(from, to)| String::from_utf8_lossy(&WRITTEN[*from..*to]).contains(&settled));
    let (from, to) = place.expect("each report has its record");
    damaged.get(from..to) == Some(&WRITTEN[from..to])
}

/// The numbers of the reports in a journal of this one file; it says the same when it is opened again.
fn opened(bytes: &[u8]) -> Vec<u64> {
    let dir = scratch();
    fs::write(file(dir.path()), bytes).expect("room");
    let read = || {
        RUNTIME.block_on(async {
            let journal = Journal::open(dir.path(), MAX_BYTES).await.expect("whatever is in it");
            let seqs: Vec<u64> = journal.load(0, usize::MAX).iter().map(|report| report.seq).collect();
            let next = journal.next_seq();
            assert!(seqs.is_sorted() && seqs.last().is_none_or(|last| *last < next || next == u64::MAX));
            seqs
        })
    };
    let found = read();
    assert_eq!(read(), found);
    found
}

/// A record with this payload, its length and checksum right.
fn record(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    [b"AMJ1".as_slice(), &length, &hasher.finalize().to_le_bytes(), payload].concat()
}
