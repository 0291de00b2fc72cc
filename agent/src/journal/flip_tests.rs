//! One flipped bit anywhere in the journal's folder: it is noticed or it changes nothing, and the rest is served.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use active_monitor_core::run::Outcome;
use jiff::{Timestamp, ToSpan};

use super::*;

/// Files of some KiB.
const MAX_BYTES: u64 = 64 * 1024;
const RUNS: i64 = 151;

/// How many flips are tried; `make soak` tries 10,000.
fn flips() -> u64 {
    std::env::var("ACTIVE_MONITOR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

fn run(check: &str, minute: i64) -> Run {
    let slot = Timestamp::UNIX_EPOCH + (minute * 60).seconds();
    Run {
        key: RunKey { check_uid: check.into(), kind: RunKind::HealthCheck, slot },
        namespace: "health".into(),
        name: check.into(),
        workflow: Some(format!("health/{check}-{minute}")),
        outcome: Outcome::Failed,
        reason: None,
        message: format!("attempt {minute}"),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    }
}

fn intent(check: &str, minute: i64) -> Intent {
    let workflow = format!("health/{check}-{minute}");
    Intent { key: run(check, minute).key, namespace: "health".into(), name: check.into(), workflow, run_now: None }
}

/// The check whose run ends at this minute, and what is reported under this number: one each minute.
fn check(minute: i64) -> &'static str {
    ["a", "b"][usize::from(minute % 3 == 0)]
}

fn reported(seq: u64) -> Run {
    let minute = i64::try_from(seq).unwrap();
    assert!(minute <= RUNS, "{seq}");
    run(check(minute), minute)
}

/// Where what is written shall not outlast anything.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

async fn open(dir: &Path) -> Journal {
    super::tests::opened(dir, MAX_BYTES).await
}

/// Everything that a journal says.
#[derive(Debug, PartialEq)]
struct Said {
    reports: BTreeMap<u64, Run>,
    intents: Vec<OpenIntent>,
    last: Vec<Option<Run>>,
    next_seq: u64,
    dropped: u64,
}

fn said(journal: &Journal) -> Said {
    let checks = ["a", "b", "c"];
    Said {
        reports: journal.load(0, usize::MAX).into_iter().map(|report| (report.seq, report.run)).collect(),
        intents: checks.iter().flat_map(|check| journal.intents(check)).collect(),
        last: checks.iter().map(|check| journal.last_run(check, RunKind::HealthCheck)).collect(),
        next_seq: journal.next_seq(),
        dropped: journal.dropped(),
    }
}

/// The files of a journal in which everything is that can be in one, and what it says.
async fn written() -> (Vec<(PathBuf, Vec<u8>)>, Said) {
    let dir = folder();
    let journal = open(dir.path()).await;
    for minute in 1..RUNS {
        let check = check(minute);
        journal.intend(intent(check, minute)).await.unwrap();
        journal.created(&intent(check, minute).key);
        assert!(journal.settle(run(check, minute)).await.unwrap());
        if minute % 40 == 0 {
            journal.ack(minute as u64 / 2);
        }
    }
    journal.intend(intent("c", 1)).await.unwrap();
    journal.abandon(&intent("c", 1).key).await.unwrap();
    journal.intend(intent("c", 2)).await.unwrap();
    journal.intend(Intent { run_now: Some("now".into()), ..intent("b", 200) }).await.unwrap();
    assert!(journal.settle(reported(RUNS as u64)).await.unwrap());
    drop(journal);
    let said = said(&open(dir.path()).await);
    assert!(said.reports.len() > 50, "{}", said.reports.len());
    let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let files = files.map(|path| (PathBuf::from(path.file_name().unwrap()), fs::read(&path).unwrap()));
    let files: Vec<_> = files.filter(|(_, bytes)| !bytes.is_empty()).collect();
    assert!(files.len() > 3, "{} files", files.len());
    (files, said)
}

/// A place in one of the files: its number, the byte, the bit.
fn place(seed: u64, files: &[(PathBuf, Vec<u8>)]) -> (usize, usize, u8) {
    let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let random = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let random = (random ^ (random >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mut at = usize::try_from(random >> 8).unwrap() % bytes;
    let file = files.iter().position(|(_, bytes)| {
        let here = at < bytes.len();
        at -= if here { 0 } else { bytes.len() };
        here
    });
    (file.unwrap(), at, 1 << (random % 8))
}

/// Nothing is said that was not written, and what is missing or otherwise is counted.
fn judge(now: &Said, whole: &Said, corrupt: u64, what: &str) {
    // One whose ack is damaged is told again.
    for (seq, run) in &now.reports {
        assert_eq!(*run, reported(*seq), "{what}: report {seq} was not written");
    }
    assert!(corrupt > 0 || now == whole, "{what}: it is not counted, and something else is said");
}

#[tokio::test]
async fn each_flipped_bit_of_the_journals_folder_is_counted_or_changes_nothing() {
    let (files, whole) = written().await;
    let mut counted = 0;
    for seed in 0..flips() {
        let (file, at, bit) = place(seed, &files);
        let what = format!("seed {seed}: bit {bit:#x} of byte {at} of {}", files[file].0.display());
        let dir = folder();
        for (number, (name, bytes)) in files.iter().enumerate() {
            let mut bytes = bytes.clone();
            if number == file {
                bytes[at] ^= bit;
            }
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let journal = open(dir.path()).await;
        judge(&said(&journal), &whole, journal.corrupt(), &what);
        counted += u64::from(journal.corrupt() > 0);
        // It goes on.
        assert!(journal.settle(run("new", 1)).await.unwrap(), "{what}");
        drop(journal);
        let journal = open(dir.path()).await;
        assert_eq!(journal.last_run("new", RunKind::HealthCheck), Some(run("new", 1)), "{what}");
    }
    println!("{counted} of {} flips were counted; the others changed nothing", flips());
    assert!(counted * 10 > flips() * 9, "{counted}");
}

#[tokio::test]
async fn each_flipped_bit_under_an_open_journal_costs_what_it_is_in() {
    let (files, whole) = written().await;
    for seed in 0..flips() / 10 {
        let (file, at, bit) = place(seed, &files);
        let dir = folder();
        for (name, bytes) in &files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let journal = open(dir.path()).await;
        let path = dir.path().join(&files[file].0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= bit;
        fs::write(&path, bytes).unwrap();
        let what = format!("seed {seed}: bit {bit:#x} of byte {at} of {}", path.display());
        judge(&said(&journal), &whole, journal.corrupt(), &what);
    }
}
