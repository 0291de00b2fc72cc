//! A journal's file, whatever a disk made of it: it opens, and what is recorded then is there.

#![no_main]

use std::sync::LazyLock;

use active_monitor_agent::journal::Journal;
use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("runtime"));

fn run() -> Run {
    let slot = Timestamp::from_second(1_800_000_000).expect("a time");
    Run {
        key: RunKey { check_uid: "of this target".into(), kind: RunKind::HealthCheck, slot },
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

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("folder");
    std::fs::write(dir.path().join(format!("{:020}.log", 1)), bytes).expect("file");
    RUNTIME.block_on(async {
        let journal = Journal::open(dir.path(), 1 << 20).await.expect("whatever is in it");
        let before = journal.next_seq();
        if journal.settle(run()).await.expect("there is room") {
            assert_eq!(journal.next_seq(), before + 1);
            assert_eq!(journal.load(before - 1, 1).first().map(|report| report.seq), Some(before));
        }
    });
});
