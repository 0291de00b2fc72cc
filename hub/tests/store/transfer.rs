//! Everything moves from one store into another, or nothing does.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::run::Run;
use active_monitor_hub::store::location::{Location, StoreUrl};
use active_monitor_hub::store::transfer::{TransferError, transfer};
use active_monitor_hub::store::{RunQuery, Store, StoreError, TransitionQuery};
use jiff::Timestamp;

use crate::backends::Backend;
use crate::samples::{at, fill, run};

/// Everything that the store tells, in words.
async fn told(store: &Arc<dyn Store>) -> Vec<String> {
    let mut told = vec![
        format!("{:?}", store.clusters().await.unwrap()),
        format!("{:?}", store.definitions().await.unwrap()),
        format!("{:?}", store.definition_statuses().await.unwrap()),
        format!("{:?}", store.api_tokens().await.unwrap()),
        format!("{:?}", store.ended_sessions().await.unwrap()),
        format!("{:?}", store.audit_log(1000).await.unwrap()),
        format!("{:?}", store.windows().await.unwrap()),
        format!("{:?}", store.acknowledgements().await.unwrap()),
        format!("{:?}", store.lives().await.unwrap()),
        format!("{:?}", store.sizes().await.unwrap().rows),
    ];
    for cluster in store.clusters().await.unwrap() {
        let name = &cluster.name;
        told.push(format!("{:?}", store.enrolment_token(name).await.unwrap()));
        told.push(format!("{:?}", store.check_states(name).await.unwrap()));
        told.push(format!("{:?}", store.pauses(name, at(0)).await.unwrap()));
        told.push(format!("{:?}", store.report_cursor(name, "journal").await.unwrap()));
    }
    let mut query = RunQuery { limit: 1000, ..RunQuery::default() };
    loop {
        let page = store.runs(&query).await.unwrap();
        told.push(format!("{:?} {:?}", page.gaps, page.items));
        match page.next {
            Some(next) => query.before = Some(next),
            None => break,
        }
    }
    let query = TransitionQuery { cluster: None, namespace: None, name: None, from: at(0), to: Timestamp::MAX };
    store.transitions(&query, &mut |key, step| told.push(format!("{key:?} {step:?}"))).await.unwrap();
    told
}

async fn move_all(from: &Location, to: &Location) -> Result<(), TransferError> {
    transfer(from, to, &mut |_, _, _| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_moves_to_postgres_and_back_without_losing_a_word() {
    let Some(postgres) = Backend::postgres("a_fleet_moves_to_postgres_and_back_without_losing_a_word").await else {
        return;
    };
    let sqlite = Backend::sqlite();
    let open = sqlite.open().await;
    fill(&open.store, 2_500).await;
    // The newest runs are gone: what comes later must not get their ids.
    open.store.record_runs("a", (0..9).map(|slot| run("late", slot)).collect(), at(-9)).await.unwrap();
    assert_eq!(open.store.prune(active_monitor_hub::store::Expired::Runs, at(-8), 100).await.unwrap(), 9);
    let before = told(&open.store).await;

    let running = move_all(&sqlite.location(), &postgres.location()).await;
    let held = |error: &StoreError| matches!(error, StoreError::Locked { .. } | StoreError::InUse);
    assert!(matches!(&running, Err(TransferError::Source { source, .. }) if held(source)), "{running:?}");
    open.close().await;
    until_free(&sqlite).await;

    move_all(&sqlite.location(), &postgres.location()).await.unwrap();
    let open = postgres.open().await;
    assert_eq!(told(&open.store).await, before);
    let running = move_all(&postgres.location(), &sqlite.location()).await;
    assert!(matches!(&running, Err(TransferError::Source { source, .. }) if held(source)), "{running:?}");
    open.store.record_runs("a", vec![run("dns", 9_999)], at(9_999)).await.unwrap();
    let newest = open.store.runs(&RunQuery { limit: 1, ..RunQuery::default() }).await.unwrap().items.remove(0);
    assert_eq!((newest.id, newest.run), (2_511, run("dns", 9_999)));
    let before = told(&open.store).await;
    open.close().await;

    // The old file does not stand in the way, and is not lost.
    let Backend::Sqlite(directory) = &sqlite else { unreachable!() };
    assert!(directory.path().join("hub.sqlite.moved").is_file());
    move_all(&postgres.location(), &sqlite.location()).await.unwrap();
    let open = sqlite.open().await;
    assert_eq!(told(&open.store).await, before);
    open.store.record_runs("a", vec![Run { log_tail: "x".into(), ..run("dns", 10_000) }], at(0)).await.unwrap();
    assert_eq!(open.store.runs(&RunQuery { limit: 1, ..RunQuery::default() }).await.unwrap().items[0].id, 2_512);
    open.close().await;

    let full = move_all(&postgres.location(), &sqlite.location()).await;
    assert!(matches!(&full, Err(TransferError::NotEmpty { .. })), "{full:?}");
    let nothing = Backend::sqlite();
    let missing = move_all(&nothing.location(), &postgres.location()).await;
    assert!(matches!(&missing, Err(TransferError::NoSource(_))), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_killed_leaves_the_target_empty_and_the_next_one_moves_all() {
    let Some(postgres) = Backend::postgres("a_move_that_is_killed_leaves_the_target_empty").await else { return };
    let sqlite = Backend::sqlite();
    let open = sqlite.open().await;
    fill(&open.store, 60_000).await;
    let before = told(&open.store).await;
    open.close().await;
    until_free(&sqlite).await;
    for (from, to) in [(&sqlite, &postgres), (&postgres, &sqlite)] {
        let mut mover = Command::new(env!("CARGO_BIN_EXE_active-monitor-hub"))
            .args(["migrate-store", "--from", &from.url(), "--to", &to.url()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until_it_writes(to).await;
        mover.kill().unwrap();
        let output = mover.wait_with_output().unwrap();
        assert!(!output.status.success(), "the move was over before it was killed");

        let open = to.open().await;
        assert!(open.store.clusters().await.unwrap().is_empty());
        assert!(open.store.runs(&RunQuery { limit: 1, ..RunQuery::default() }).await.unwrap().items.is_empty());
        open.close().await;
        until_free(to).await;
        move_all(&from.location(), &to.location()).await.unwrap();
        let open = to.open().await;
        assert_eq!(told(&open.store).await, before);
        open.close().await;
        until_free(to).await;
    }
}

/// Rows of the move are on their way to the target's disk.
async fn until_it_writes(to: &Backend) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let written = match to {
            Backend::Sqlite(directory) => {
                std::fs::metadata(directory.path().join("hub.sqlite-wal")).map_or(0, |file| file.len())
            }
            Backend::Postgres(database) => {
                let size = "SELECT coalesce(pg_relation_size(to_regclass('runs')), 0)";
                let mut connection = database.connect().await;
                sqlx::query_scalar::<_, i64>(size).fetch_one(&mut connection).await.unwrap().unsigned_abs()
            }
        };
        if written > 1_000_000 {
            return;
        }
        assert!(Instant::now() < deadline, "nothing is written");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A store that was closed lets go of its file a moment later.
async fn until_free(backend: &Backend) {
    backend.open().await.close().await;
}

#[tokio::test]
async fn a_server_that_refuses_is_told_without_its_password() {
    let url = "postgres://hub:s3cret@127.0.0.1:1/fleet".parse::<StoreUrl>().unwrap();
    let error = url.location().unwrap().open().await.err().expect("nobody listens there");
    assert!(!format!("{error:?} {error}").contains("s3cret"), "{error:?}");
    let refused = Command::new(env!("CARGO_BIN_EXE_active-monitor-hub"))
        .args(["token", "create", "--name", "x", "--role", "admin"])
        .env("ACTIVE_MONITOR_STORE", "postgres://hub:s3cret@127.0.0.1:1/fleet")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("the store does not open"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
}
