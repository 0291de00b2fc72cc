//! The journal on a disk that is full or read-only: nobody is stopped, and what is lost is counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::run::Outcome;
use jiff::{Timestamp, ToSpan};

use super::*;

fn run(minute: i64) -> Run {
    let slot = Timestamp::UNIX_EPOCH + (minute * 60).seconds();
    Run {
        key: RunKey { check_uid: "a".into(), kind: RunKind::HealthCheck, slot },
        namespace: "health".into(),
        name: "a".into(),
        workflow: None,
        outcome: Outcome::Failed,
        reason: None,
        message: "x".repeat(200),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    }
}

fn intent(minute: i64) -> Intent {
    Intent {
        key: run(minute).key,
        namespace: "health".into(),
        name: "a".into(),
        workflow: "health/a-1".into(),
        run_now: None,
    }
}

async fn until_saved(journal: &Journal, saved: bool) {
    let mut state = journal.saved();
    let changed = tokio::time::timeout(Duration::from_secs(90), state.wait_for(|now| *now == saved)).await;
    changed.expect("in time").expect("journal");
}

#[tokio::test]
async fn a_disk_that_was_full_for_a_while_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut segments, index) = Segments::open(dir.path(), DEFAULT_MAX_BYTES).unwrap();
    segments.fill();
    let writer = Arc::new(Writer::start(dir.path(), segments, index).unwrap());
    let journal = Journal { writer, id: "j".into(), lacking: Arc::new(Lacking::open(dir.path())) };
    assert!(journal.settle(run(1)).await.unwrap());
    assert_eq!((journal.backlog(), journal.load(0, 9).len(), journal.next_seq()), (1, 1, 2), "the hub gets it");
    until_saved(&journal, false).await;
    until_saved(&journal, true).await;
    assert!(!journal.settle(run(1)).await.unwrap(), "once");
    journal.intend(intent(2)).await.unwrap();
    assert_eq!(journal.unsaved(), 0);
    drop(journal);
    let journal = Journal::open(dir.path(), DEFAULT_MAX_BYTES).await.unwrap();
    assert_eq!((journal.backlog(), journal.dropped(), journal.corrupt(), journal.intents("a").len()), (1, 0, 0, 1));
}

/// A small filesystem of its own; `None` where that cannot be had.
struct Disk(PathBuf, #[expect(dead_code, reason = "removes the folder when it is dropped")] tempfile::TempDir);

impl Disk {
    fn mount(options: &str) -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            crate::skip::report("journal::disk_tests", "a small filesystem needs root and the right to mount");
            return None;
        }
        Some(Disk(path, folder))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

async fn open(dir: &Path) -> Journal {
    super::tests::opened(dir, DEFAULT_MAX_BYTES).await
}

/// Runs with a message of 1,000 bytes, all at once.
async fn settle_all(journal: &Journal, minutes: std::ops::RangeInclusive<i64>) {
    let settles = minutes.map(|minute| {
        let (journal, run) = (journal.clone(), Run { message: "y".repeat(1000), ..run(minute) });
        async move { journal.settle(run).await.unwrap() }
    });
    futures::future::join_all(settles).await;
}

#[rstest::rstest]
#[case::much_at_once(&[9000])]
#[case::much_after_what_fits(&[3000, 9000])]
#[case::much_after_some_files(&[100, 500, 900, 9000])]
#[case::little_by_little(&[1500, 3000, 4500, 6000, 7500, 9000])]
#[tokio::test]
async fn on_a_small_disk_the_oldest_go_and_are_counted(#[case] ends: &[i64]) {
    let Some(disk) = Disk::mount("size=9m") else { return };
    let dir = disk.0.join("journal");
    let journal = open(&dir).await;
    // About 12 MB in the end, although the journal was told that it may take 64.
    let runs = 9000;
    let mut begin = 1;
    for &end in ends {
        settle_all(&journal, begin..=end).await;
        begin = end + 1;
    }
    until_saved(&journal, true).await;
    let (dropped, backlog) = (journal.dropped(), journal.backlog());
    assert!(dropped > 0 && dropped + backlog == runs as u64, "{dropped} dropped, {backlog} kept");
    drop(journal);
    let journal = open(&dir).await;
    assert_eq!(
        (journal.dropped(), journal.backlog(), journal.corrupt()),
        (dropped, backlog, 0),
        "exactly, after a restart"
    );
    assert_eq!(journal.load(0, 1)[0].seq, dropped + 1, "the oldest went");
}

#[tokio::test]
async fn with_no_room_at_all_results_are_held_in_memory_until_there_is() {
    let Some(disk) = Disk::mount("size=256k") else { return };
    let dir = disk.0.join("journal");
    let journal = open(&dir).await;
    journal.intend(intent(1)).await.unwrap();
    fs::write(disk.0.join("filler"), vec![1; 1024 * 1024]).unwrap_err();
    for minute in 1..=50 {
        journal.intend(intent(minute)).await.unwrap();
        assert!(journal.settle(run(minute)).await.unwrap());
    }
    until_saved(&journal, false).await;
    assert_eq!((journal.backlog(), journal.dropped()), (50, 0));
    assert!(journal.unsaved() > 0);
    journal.ack(7);
    fs::remove_file(disk.0.join("filler")).unwrap();
    until_saved(&journal, true).await;
    assert_eq!(journal.unsaved(), 0);
    drop(journal);
    let journal = open(&dir).await;
    assert_eq!((journal.backlog(), journal.oldest_seq(), journal.dropped(), journal.corrupt()), (43, 8, 0, 0));
    assert_eq!(journal.last_run("a", RunKind::HealthCheck), Some(run(50)));
}

#[tokio::test]
async fn a_read_only_disk_is_read_and_what_is_too_much_for_the_memory_is_counted() {
    let Some(disk) = Disk::mount("size=4m") else { return };
    let dir = disk.0.join("journal");
    let journal = open(&dir).await;
    for minute in 1..=3 {
        journal.settle(run(minute)).await.unwrap();
    }
    drop(journal);
    disk.remount("ro");
    let journal = open(&dir).await;
    assert_eq!((journal.backlog(), journal.dropped()), (3, 0), "what is there is known");
    assert!(!journal.settle(run(2)).await.unwrap());
    for minute in 4..=4200 {
        assert!(journal.settle(run(minute)).await.unwrap());
    }
    until_saved(&journal, false).await;
    assert_eq!((journal.backlog(), journal.dropped()), (3 + 4096, 101), "the oldest went, and were counted");
    disk.remount("rw,size=8m");
    until_saved(&journal, true).await;
    drop(journal);
    let journal = open(&dir).await;
    assert_eq!((journal.backlog(), journal.oldest_seq(), journal.dropped()), (3 + 4096, 102, 101));
}

#[tokio::test]
async fn a_journal_that_can_never_be_made_is_one_in_memory() {
    let Some(disk) = Disk::mount("size=1m,ro") else { return };
    let journal = open(&disk.0.join("journal")).await;
    journal.intend(intent(1)).await.unwrap();
    assert!(journal.settle(run(1)).await.unwrap());
    until_saved(&journal, false).await;
    assert_eq!((journal.backlog(), journal.unsaved()), (1, 1));
}
