//! A migration that is interrupted or fails leaves the data base as it was, and the next start goes on from there.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use active_monitor_core::uptime::Life;
use active_monitor_hub::store::postgres::replicas::Publication;
use active_monitor_hub::store::{ClusterRecord, RunQuery};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use tempfile::TempDir;

use crate::backends::{Backend, NEWER};
use crate::postgres::Database;
use crate::samples::{at, cluster, run};

/// The migrations of a back end, and one after them.
async fn with(folder: &TempDir, back_end: &str, last: &str) -> Migrator {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("migrations").join(back_end);
    for file in std::fs::read_dir(own).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("9999_next.sql"), last).unwrap();
    Migrator::new(folder.path().to_owned()).await.unwrap()
}

const BROKEN: &str = "CREATE TABLE half (id BIGINT); INSERT INTO nowhere VALUES (1);";
const MENDED: &str = "CREATE TABLE half (id BIGINT); CREATE TABLE whole (id BIGINT);";

#[tokio::test]
async fn a_migration_of_sqlite_that_fails_or_is_cut_off_is_done_by_the_next_start() {
    let backend = Backend::sqlite();
    let Backend::Sqlite(directory) = &backend else { unreachable!() };
    backend.open().await.close().await;
    let options = SqliteConnectOptions::new().filename(directory.path().join("hub.sqlite"));
    let connect = async || options.connect().await.unwrap();

    let (folder, mut connection) = (TempDir::new().unwrap(), connect().await);
    let failed = with(&folder, "sqlite", BROKEN).await.run(&mut connection).await;
    assert!(matches!(failed, Err(MigrateError::ExecuteMigration(_, 9999))), "{failed:?}");
    drop(connection);
    // What a process that is killed leaves: a transaction that nobody ends.
    let mut connection = connect().await;
    sqlx::raw_sql("BEGIN; CREATE TABLE half (id BIGINT)").execute(&mut connection).await.unwrap();
    drop(connection);
    backend.open().await.close().await;

    let mut connection = connect().await;
    with(&folder, "sqlite", MENDED).await.run(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO whole VALUES (1)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    // A data base that a newer hub has migrated is left alone.
    let older = backend.location().open().await.err().expect("a refusal");
    assert!(format!("{older:?}").contains("VersionMissing(9999)"), "{older:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_of_postgres_that_fails_or_is_cut_off_is_done_by_the_next_start() {
    let Some(backend) = Backend::postgres("a_migration_of_postgres_that_fails_or_is_cut_off").await else { return };
    let Backend::Postgres(database) = &backend else { unreachable!() };
    backend.open().await.close().await;

    let folder = TempDir::new().unwrap();
    let failed = with(&folder, "postgres", BROKEN).await.run(&mut database.connect().await).await;
    assert!(matches!(failed, Err(MigrateError::ExecuteMigration(_, 9999))), "{failed:?}");
    let slow = with(&folder, "postgres", "CREATE TABLE half (id BIGINT); SELECT pg_sleep(600);").await;
    let mut connection = database.connect().await;
    let cut = async {
        until_it_sleeps(database).await;
        database.cut().await;
    };
    let (cut_off, ()) = tokio::join!(slow.run(&mut connection), cut);
    assert!(cut_off.is_err());
    backend.open().await.close().await;

    let mut connection = database.connect().await;
    with(&folder, "postgres", MENDED).await.run(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO whole VALUES (1)").execute(&mut connection).await.unwrap();
    drop(connection);
    let older = backend.location().open().await.err().expect("a refusal");
    assert!(format!("{older:?}").contains("VersionMissing(9999)"), "{older:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_replica_goes_on_while_a_newer_one_migrates_and_is_not_started_again() {
    let test = "an_older_replica_goes_on_while_a_newer_one_migrates_and_is_not_started_again";
    let Some(backend) = Backend::postgres(test).await else { return };
    let Backend::Postgres(database) = &backend else { unreachable!() };
    let older = backend.location().share().await.unwrap();
    let replicas = older.replicas.as_ref().unwrap();
    let beside = backend.location().share().await.unwrap().replicas.unwrap();
    let serve = async |second: i64| {
        let (cluster, store) = (ClusterRecord { cluster_uid: Some("uid".into()), ..cluster("a") }, &older.store);
        store.put_cluster(&cluster).await.unwrap();
        let epoch = replicas.open_session("a", "uid").await.unwrap().unwrap();
        store.record_runs("a", vec![run("dns", second)], at(second)).await.unwrap();
        let page = store.runs(&RunQuery { cluster: Some("a".into()), limit: 9, ..RunQuery::default() }).await.unwrap();
        assert_eq!(page.items[0].run, run("dns", second));
        let lease = replicas.take_lease("singletons", Duration::from_secs(60)).await.unwrap().unwrap();
        let life = Life { from: at(0), to: at(second) };
        replicas.fenced(&lease).record_transitions(life, Vec::new()).await.unwrap();
        let link = Some(format!(r#"{{"second":{second}}}"#));
        let (checks, removed) = (Vec::new(), Vec::new());
        let publication = Publication { cluster: "a".into(), epoch, link, checks, removed, is_whole: true };
        assert!(replicas.publish(&[publication]).await.unwrap().is_empty());
        assert!(!beside.follow(0).await.unwrap().clusters.is_empty());
    };
    // Its statements are prepared.
    for second in 1..8 {
        serve(second).await;
    }
    let folder = TempDir::new().unwrap();
    with(&folder, "postgres", NEWER).await.run(&mut database.connect().await).await.unwrap();
    for second in 8..16 {
        serve(second).await;
    }
    let again = backend.location().share().await.err().expect("a refusal");
    assert!(format!("{again:?}").contains("VersionMissing(9999)"), "{again:?}");
    serve(16).await;
}

async fn until_it_sleeps(database: &Database) {
    let mut connection = database.connect().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while sqlx::query(sleeping).fetch_one(&mut connection).await.unwrap().get::<i64, _>(0) == 0 {
        assert!(Instant::now() < deadline, "the migration does not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
