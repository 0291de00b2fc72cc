//! What rows take on PostgreSQL: docs/postgres.md says it. What they take on SQLite is tested beside the retention.

use active_monitor_core::run::{Run, RunKey};
use active_monitor_core::uptime::{Class, Day, Life, Transition, Uptime};
use active_monitor_core::view::CheckStatus;
use active_monitor_hub::store::rollups::CheckDay;
use active_monitor_hub::store::{AuditEntry, CheckKey};

use crate::backends::Backend;
use crate::samples::{at, run};

const ROWS: i64 = 20_000;

/// As they come from a fleet: uids and names of the usual length.
fn usual(number: i64) -> Run {
    let run = run("check", number / 10);
    let check = number % 10;
    let key = RunKey { check_uid: format!("7d444840-9dc0-11d1-b245-{check:012}"), ..run.key };
    Run { key, name: format!("check-{check}"), workflow: Some(format!("health/check-{check}-0a1b2c3d4e")), ..run }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_take_the_bytes_that_the_docs_say() {
    let Some(backend) = Backend::postgres("rows_take_the_bytes_that_the_docs_say").await else { return };
    let open = backend.open().await;
    let store = &open.store;
    let mut bytes = vec![store.sizes().await.unwrap().file_bytes];
    for first in (0..ROWS).step_by(1000) {
        store.record_runs("prod-eu-1", (first..first + 1000).map(usual).collect(), at(first)).await.unwrap();
    }
    bytes.push(store.sizes().await.unwrap().file_bytes);
    let steps = (0..ROWS).map(|number| {
        let (namespace, name) = ("health".into(), format!("check-{}", number % 10));
        let status = if number % 20 < 10 { CheckStatus::Failed } else { CheckStatus::Succeeded };
        let step = Transition { at: at(number), status: Some(status), maintenance: false };
        (CheckKey { cluster: "prod-eu-1".into(), namespace, name }, step)
    });
    store.record_transitions(Life { from: at(0), to: at(1) }, steps.collect()).await.unwrap();
    bytes.push(store.sizes().await.unwrap().file_bytes);
    for number in 0..ROWS / 10 {
        let line = AuditEntry {
            at: at(number),
            who: "ops".into(),
            action: "definition.put".into(),
            object: format!("definition-{number}"),
        };
        store.audit(&line).await.unwrap();
    }
    bytes.push(store.sizes().await.unwrap().file_bytes);
    for day in 0..ROWS / 100 {
        let of_check = |check| CheckDay {
            key: CheckKey { cluster: "prod-eu-1".into(), namespace: "health".into(), name: format!("check-{check}") },
            time: Uptime { up_seconds: 86_000.5, down_seconds: 399.5, outages: 2, ..Uptime::default() },
            ends: Class::Up,
        };
        store.put_days(Day(day), "prod-eu-1", (0..100).map(of_check).collect()).await.unwrap();
    }
    bytes.push(store.sizes().await.unwrap().file_bytes);
    let rows = [ROWS, ROWS, ROWS / 10, ROWS].map(i64::unsigned_abs);
    let each: Vec<u64> = bytes.windows(2).zip(rows).map(|(bytes, rows)| (bytes[1] - bytes[0]) / rows).collect();
    println!("bytes a run, a transition, an audit line, a check's day: {each:?}");
    assert!(matches!(each[..], [400..600, 200..320, 120..200, 150..230]), "{each:?}");
    open.close().await;
}
