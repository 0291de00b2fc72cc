//! The journal against crashes, damage and a full disk's limit, on real files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use active_monitor_core::run::{MAX_LOG_TAIL_BYTES, MAX_MESSAGE_BYTES, Outcome};
use jiff::{Timestamp, ToSpan};

use super::record::{Item, scan};
use super::*;

fn key(check_uid: &str, minute: i64) -> RunKey {
    let slot = Timestamp::UNIX_EPOCH + (minute * 60).seconds();
    RunKey { check_uid: check_uid.into(), kind: RunKind::HealthCheck, slot }
}

fn run(check_uid: &str, minute: i64) -> Run {
    let key = key(check_uid, minute);
    Run {
        namespace: "health".into(),
        name: "dns".into(),
        workflow: Some("health/dns-1".into()),
        outcome: Outcome::Succeeded,
        reason: None,
        message: String::new(),
        started_at: key.slot,
        finished_at: key.slot,
        warning: String::new(),
        log_tail: String::new(),
        key,
    }
}

#[tokio::test]
async fn an_obeyed_request_is_known_after_a_restart_and_forgotten_where_it_came_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let asked = |minute: i64, token: &str| Intent { run_now: Some(token.to_owned()), ..intent("a", minute) };
    let journal = Journal::open(dir.path(), DEFAULT_MAX_BYTES).await.unwrap();
    assert_eq!(journal.ran_now("a"), None);
    journal.intend(asked(1, "one")).await.unwrap();
    journal.intend(asked(2, "two")).await.unwrap();
    journal.abandon(&asked(2, "two").key).await.unwrap();
    journal.intend(intent("a", 3)).await.unwrap();
    assert_eq!(journal.ran_now("a"), None, "what came to nothing may be asked again");
    journal.intend(asked(4, "three")).await.unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), DEFAULT_MAX_BYTES).await.unwrap();
    assert_eq!(journal.ran_now("a").as_deref(), Some("three"));
    let open = journal.intents("a").into_iter().find(|open| open.intent.key == asked(4, "").key).unwrap();
    assert_eq!(open.intent.run_now.as_deref(), Some("three"));
    journal.forget("a");
    journal.intend(intent("b", 1)).await.unwrap();
    assert_eq!(journal.ran_now("a"), None);
}

fn intent(check_uid: &str, minute: i64) -> Intent {
    let key = key(check_uid, minute);
    Intent { key, namespace: "health".into(), name: "dns".into(), workflow: "health/dns-1".into(), run_now: None }
}

async fn open(dir: &Path) -> Journal {
    opened(dir, DEFAULT_MAX_BYTES).await
}

/// Opens a journal, perhaps again. A process that another test starts meanwhile has its lock until it has become its program.
pub(super) async fn opened(dir: &Path, max_bytes: u64) -> Journal {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Journal::open(dir, max_bytes).await {
            Err(JournalError::InUse(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            journal => return journal.unwrap(),
        }
    }
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

fn seqs(journal: &Journal) -> Vec<u64> {
    journal.load(0, usize::MAX).iter().map(|report| report.seq).collect()
}

#[tokio::test]
async fn what_was_acknowledged_to_the_caller_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    journal.intend(intent("a", 1)).await.unwrap();
    journal.intend(intent("a", 1)).await.unwrap();
    journal.created(&key("a", 1));
    journal.intend(intent("b", 1)).await.unwrap();
    assert!(journal.settle(run("b", 1)).await.unwrap());
    journal.intend(intent("b", 2)).await.unwrap();
    journal.intend(intent("c", 1)).await.unwrap();
    journal.abandon(&key("c", 1)).await.unwrap();
    drop(journal);

    let journal = open(dir.path()).await;
    assert_eq!(journal.intents("a"), [OpenIntent { intent: intent("a", 1), created: true }]);
    assert_eq!(journal.intents("b"), [OpenIntent { intent: intent("b", 2), created: false }]);
    assert_eq!(journal.last_run("b", RunKind::HealthCheck), Some(run("b", 1)));
    assert_eq!(journal.last_run("b", RunKind::Remedy), None);
    assert_eq!(journal.check_uids(), ["a", "b"]);
    assert_eq!(journal.load(0, 10), [Report { seq: 1, run: run("b", 1) }]);
    assert_eq!((journal.oldest_seq(), journal.next_seq(), journal.backlog()), (1, 2, 1));
}

#[tokio::test]
async fn a_run_settles_once_whoever_asks_and_whenever() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let (first, second) = tokio::join!(journal.settle(run("a", 1)), journal.settle(run("a", 1)));
    assert!(first.unwrap() ^ second.unwrap());
    assert!(!journal.settle(run("a", 1)).await.unwrap());
    journal.ack(1);
    drop(journal);
    let journal = open(dir.path()).await;
    assert!(!journal.settle(run("a", 1)).await.unwrap());
    assert!(journal.settle(run("a", 3)).await.unwrap());
    // A run found late is a run all the same, and the last one stays the last.
    assert!(journal.settle(run("a", 2)).await.unwrap());
    assert_eq!(journal.last_run("a", RunKind::HealthCheck).unwrap().key, key("a", 3));
    // What is older than everything remembered was settled long ago.
    for minute in 4..40 {
        assert!(journal.settle(run("a", minute)).await.unwrap());
    }
    assert!(!journal.settle(run("a", 2)).await.unwrap());
    assert_eq!(journal.backlog(), 38);
}

#[tokio::test]
async fn settling_twice_clears_the_intent_that_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    assert!(journal.settle(run("a", 1)).await.unwrap());
    journal.intend(intent("a", 1)).await.unwrap();
    assert!(!journal.settle(run("a", 1)).await.unwrap());
    assert_eq!(journal.intents("a"), []);
}

#[tokio::test]
async fn acks_survive_and_an_ack_of_the_future_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    for minute in 1..=5 {
        journal.settle(run("a", minute)).await.unwrap();
    }
    journal.ack(3);
    journal.ack(2);
    assert_eq!(seqs(&journal), [4, 5]);
    drop(journal);
    let journal = open(dir.path()).await;
    assert_eq!(seqs(&journal), [4, 5]);
    journal.ack(1000);
    assert!(journal.settle(run("a", 6)).await.unwrap());
    assert_eq!(seqs(&journal), [6]);
}

#[tokio::test]
async fn a_forgotten_check_leaves_only_its_reports() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    journal.settle(run("a", 1)).await.unwrap();
    journal.intend(intent("a", 2)).await.unwrap();
    journal.forget("a");
    assert_eq!((journal.check_uids(), seqs(&journal)), (vec![], vec![1]));
    drop(journal);
    let journal = open(dir.path()).await;
    assert_eq!((journal.check_uids(), seqs(&journal)), (vec![], vec![1]));
}

#[tokio::test]
async fn two_processes_never_share_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    assert!(matches!(Journal::open(dir.path(), 1).await, Err(JournalError::InUse(_))));
    drop(journal);
    open(dir.path()).await;
}

#[tokio::test]
async fn callers_at_the_same_time_get_numbers_without_holes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let mut appended = journal.appended();
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.settle(run(&format!("check-{i}"), 1)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
    appended.wait_for(|&next_seq| next_seq == 201).await.unwrap();
    assert_eq!(seqs(&journal), (1..=200).collect::<Vec<_>>());
}

/// The bytes of a journal with `runs` settled runs, and where the last record begins.
async fn written(runs: i64) -> (Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let path = logs(dir.path()).remove(0);
    let mut before = 0;
    for minute in 1..=runs {
        before = fs::read(&path).unwrap().len();
        journal.settle(run("a", minute)).await.unwrap();
    }
    (fs::read(path).unwrap(), before)
}

async fn open_bytes(bytes: &[u8]) -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("00000000000000000001.log"), bytes).unwrap();
    let journal = open(dir.path()).await;
    (dir, journal)
}

#[tokio::test]
async fn a_crash_at_any_byte_of_a_record_costs_that_record_only() {
    let (bytes, last) = written(3).await;
    for cut in last..bytes.len() {
        let items: Vec<_> = scan(&bytes[..cut]).collect();
        let whole = items.iter().filter(|item| matches!(item, Item::Record(..))).count();
        assert_eq!(whole, 3, "checkpoint and two runs, cut at {cut}");
        assert_eq!(items.len(), if cut == last { 3 } else { 4 });
        assert!(cut == last || items[3] == Item::Torn(last), "cut at {cut}");
    }
    for cut in (last..bytes.len()).step_by(37) {
        let (dir, journal) = open_bytes(&bytes[..cut]).await;
        assert_eq!((seqs(&journal), journal.corrupt()), (vec![1, 2], 0));
        assert!(journal.settle(run("a", 3)).await.unwrap());
        drop(journal);
        let journal = open(dir.path()).await;
        assert_eq!((seqs(&journal), journal.corrupt()), (vec![1, 2, 3], 0));
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_for_a_while_costs_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    for slot in 1..=3 {
        journal.settle(run("a", slot)).await.unwrap();
    }
    let (file, aside) = (logs(dir.path()).remove(0), dir.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    // Opens, and answers each read with an error.
    fs::create_dir(&file).unwrap();
    assert_eq!((seqs(&journal), journal.backlog(), journal.corrupt()), (vec![], 3, 0));
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    assert_eq!((seqs(&journal), journal.corrupt()), (vec![1, 2, 3], 0));
}

#[tokio::test]
async fn a_flipped_bit_costs_one_record_and_is_counted() {
    let (bytes, last) = written(3).await;
    let (_, second) = written(2).await;
    for at in second..last {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let items: Vec<_> = scan(&damaged).collect();
        assert_eq!(items.len(), 4, "flipped at {at}");
        assert_eq!(items[2], Item::Corrupt(second..last), "flipped at {at}");
    }
    let mut damaged = bytes.clone();
    damaged[second + 20] ^= 1;
    let (dir, journal) = open_bytes(&damaged).await;
    assert_eq!((seqs(&journal), journal.corrupt(), journal.next_seq()), (vec![1, 3], 1, 4));
    let kept: Vec<_> = fs::read_dir(dir.path().join("quarantine")).unwrap().collect();
    assert_eq!(kept.len(), 1);
    // The last record, whole but wrong, is damage and not a crash.
    let mut damaged = bytes;
    *damaged.last_mut().unwrap() ^= 1;
    let (_dir, journal) = open_bytes(&damaged).await;
    assert_eq!((seqs(&journal), journal.corrupt()), (vec![1, 2], 1));
}

#[test]
fn any_bytes_can_be_scanned() {
    use proptest::prelude::*;
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..300))| {
        scan(&bytes).count();
        scan(&[b"AMJ1".as_slice(), &bytes].concat()).count();
    });
}

#[tokio::test]
async fn a_full_journal_drops_the_oldest_reports_and_counts_them() {
    const MAX_BYTES: u64 = 32 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), MAX_BYTES).await.unwrap();
    journal.intend(intent("early", 1)).await.unwrap();
    journal.settle(run("once", 1)).await.unwrap();
    for minute in 1..=300 {
        journal.settle(run("a", minute)).await.unwrap();
    }
    drop(journal);
    let size: u64 = logs(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(size <= MAX_BYTES + 8192, "{size}");

    let journal = Journal::open(dir.path(), MAX_BYTES).await.unwrap();
    let kept = seqs(&journal);
    assert!(journal.dropped() > 0);
    assert_eq!(journal.dropped() + journal.backlog(), 301);
    assert_eq!(kept, (302 - journal.backlog()..=301).collect::<Vec<_>>());
    assert_eq!(journal.intents("early").len(), 1);
    assert!(journal.last_run("once", RunKind::HealthCheck).is_some());
    assert!(!journal.settle(run("once", 1)).await.unwrap());
    let uids: BTreeSet<_> = journal.check_uids().into_iter().collect();
    assert_eq!(uids, BTreeSet::from(["a".into(), "early".into(), "once".into()]));
}

#[tokio::test]
async fn acked_reports_leave_the_disk() {
    const MAX_BYTES: u64 = 32 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), MAX_BYTES).await.unwrap();
    for minute in 1..=300 {
        journal.settle(run("a", minute)).await.unwrap();
        journal.ack(minute as u64);
    }
    drop(journal);
    assert!(logs(dir.path()).len() <= 2);
    let journal = Journal::open(dir.path(), MAX_BYTES).await.unwrap();
    assert_eq!((journal.dropped(), journal.backlog(), journal.next_seq()), (0, 0, 301));
    assert_eq!(journal.last_run("a", RunKind::HealthCheck), Some(run("a", 300)));
}

#[tokio::test]
async fn a_log_tail_is_in_the_report_and_not_kept_beyond_its_ack() {
    let dir = tempfile::tempdir().unwrap();
    let failed = Run { log_tail: "lookup failed".into(), ..run("a", 1) };
    let journal = open(dir.path()).await;
    assert!(journal.settle(failed.clone()).await.unwrap());
    drop(journal);
    let journal = open(dir.path()).await;
    assert_eq!(journal.load(0, 10)[0].run, failed);
    let last = journal.last_run("a", RunKind::HealthCheck);
    assert_eq!(last, Some(Run { log_tail: String::new(), ..failed }));
}

/// As long as names get in practice.
fn usual(check: i64, minute: i64) -> (Intent, Run) {
    let uid = uuid::Uuid::from_u128(check as u128).to_string();
    let (namespace, name) = ("health-checks".to_owned(), format!("ingress-dns-lookup-{check:04}"));
    let workflow = format!("{namespace}/{name}-1fb3c8a97d");
    let run = Run {
        namespace: namespace.clone(),
        name: name.clone(),
        workflow: Some(workflow.clone()),
        finished_at: key(&uid, minute).slot + 7.seconds(),
        ..run(&uid, minute)
    };
    (Intent { key: run.key.clone(), namespace, name, workflow, run_now: None }, run)
}

#[tokio::test]
async fn the_default_holds_two_hours_of_a_thousand_checks_a_minute_that_all_fail() {
    const RUNS: i64 = 500;
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    for check in 0..RUNS {
        let (intent, run) = usual(check, 1);
        let (message, log_tail) = ("m".repeat(MAX_MESSAGE_BYTES), "t".repeat(MAX_LOG_TAIL_BYTES));
        journal.intend(intent).await.unwrap();
        journal.created(&run.key);
        assert!(journal.settle(Run { outcome: Outcome::Failed, message, log_tail, ..run }).await.unwrap());
    }
    let bytes: u64 = logs(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let hours = DEFAULT_MAX_BYTES / (bytes / RUNS as u64) / 60_000;
    println!("{} bytes a run, {hours} hours", bytes / RUNS as u64);
    assert!(hours >= 2, "{} bytes a run", bytes / RUNS as u64);
}

#[tokio::test]
async fn the_default_holds_a_day_of_a_thousand_checks_a_minute() {
    const CHECKS: i64 = 1000;
    const DAY: u64 = 24 * 60;
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    for minute in 1..=20 {
        let runs = (0..CHECKS).map(|check| {
            let (journal, (intent, run)) = (journal.clone(), usual(check, minute));
            async move {
                journal.intend(intent).await.unwrap();
                journal.created(&run.key);
                assert!(journal.settle(run).await.unwrap());
            }
        });
        futures::future::join_all(runs).await;
    }
    let files = logs(dir.path());
    assert!(files.len() >= 3, "enough to see what a full one takes: {}", files.len());
    let (active, full) = files.split_last().unwrap();
    let reports =
        |path: &PathBuf| scan(&fs::read(path).unwrap()).filter(|item| matches!(item, Item::Record(..))).count() as u64;
    let (kept, bytes) = full
        .iter()
        .fold((0, 0), |(kept, bytes), path| (kept + reports(path), bytes + fs::metadata(path).unwrap().len()));
    let day = bytes * DAY * CHECKS as u64 / kept + fs::metadata(active).unwrap().len();
    println!("{} bytes a run, {} MiB a day", bytes / kept, day >> 20);
    assert!(day <= DEFAULT_MAX_BYTES, "{} MiB a day", day >> 20);
    // Nothing of it is in the memory, and all of it is there in order.
    assert_eq!((journal.unsaved(), journal.backlog()), (0, 20_000));
    let (mut after, mut seen) = (0, 0);
    loop {
        let loaded = journal.load(after, 128);
        let Some(last) = loaded.last() else { break };
        assert_eq!(
            loaded.iter().map(|report| report.seq).collect::<Vec<_>>(),
            (after + 1..=last.seq).collect::<Vec<_>>()
        );
        (after, seen) = (last.seq, seen + loaded.len());
    }
    assert_eq!(seen, 20_000);
    drop(journal);
    let journal = open(dir.path()).await;
    assert_eq!((journal.backlog(), journal.corrupt(), journal.check_uids().len()), (20_000, 0, 1000));
    assert_eq!(journal.load(0, 1)[0].seq, 1);
}

#[tokio::test]
async fn a_record_that_is_damaged_while_it_waits_is_counted_and_the_others_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    for minute in 1..=3 {
        journal.settle(run("a", minute)).await.unwrap();
    }
    let path = logs(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let items: Vec<_> = scan(&bytes).collect();
    let Item::Record(_, second) = items[2] else { panic!("{items:?}") };
    bytes[second + 40] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(seqs(&journal), [1, 3]);
    assert_eq!((journal.corrupt(), journal.backlog()), (1, 2));
}

/// What a journal of version 0.1.0 holds. `RECORD=1` writes it; it is not written again for a version that is out.
#[tokio::test]
async fn a_journal_of_each_version_is_read() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/journal/recorded/0.1.0.log");
    if std::env::var_os("RECORD").is_some() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path()).await;
        journal.intend(intent("a", 1)).await.unwrap();
        journal.created(&key("a", 1));
        journal.intend(Intent { run_now: Some("t1".into()), ..intent("b", 2) }).await.unwrap();
        let failed = Run {
            outcome: Outcome::Failed,
            reason: Some(active_monitor_core::run::Reason::DeadlineExceeded),
            message: "späť \"quoted\"".into(),
            warning: "w".into(),
            log_tail: "t".into(),
            ..run("b", 2)
        };
        journal.settle(failed).await.unwrap();
        for minute in 3..=5 {
            journal.settle(run("c", minute)).await.unwrap();
        }
        journal.intend(intent("d", 1)).await.unwrap();
        journal.abandon(&key("d", 1)).await.unwrap();
        journal.forget("c");
        journal.ack(2);
        drop(journal);
        fs::create_dir_all(recorded.parent().unwrap()).unwrap();
        fs::copy(logs(dir.path()).remove(0), &recorded).unwrap();
    }
    let (_dir, journal) = open_bytes(&fs::read(recorded).unwrap()).await;
    assert_eq!(journal.corrupt(), 0);
    assert_eq!(journal.intents("a"), [OpenIntent { intent: intent("a", 1), created: true }]);
    let last = journal.last_run("b", RunKind::HealthCheck).unwrap();
    assert_eq!((last.message.as_str(), last.warning.as_str()), ("späť \"quoted\"", "w"));
    assert_eq!(journal.ran_now("b").as_deref(), Some("t1"));
    assert_eq!(journal.check_uids(), ["a", "b"]);
    assert_eq!(journal.load(0, 9), [4, 5].map(|minute| Report { seq: minute as u64 - 1, run: run("c", minute) }));
    assert_eq!((journal.next_seq(), journal.dropped()), (5, 0));
}
