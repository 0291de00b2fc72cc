//! A whole hub on PostgreSQL, whose server comes and goes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use active_monitor_core::view::ClusterAdd;
use active_monitor_hub::config::{Cli, ServeArgs};
use active_monitor_hub::serve;
use active_monitor_hub::store::location::StoreUrl;
use active_monitor_hub::store::{RunQuery, StoreError};
use active_monitor_runtime::tasks::Tasks;
use active_monitor_runtime::tls;
use clap::Parser;

use crate::backends::Backend;
use crate::samples::run;

fn args(data_dir: &Path, store: &str) -> ServeArgs {
    let data_dir = data_dir.display().to_string();
    let mut flags = vec!["hub", "--data-dir", &data_dir, "--store", store];
    for listen in ["--agents-listen", "--enrolment-listen", "--people-listen"] {
        flags.extend([listen, "127.0.0.1:0"]);
    }
    Cli::try_parse_from(flags).unwrap().serve
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_keeps_its_fleet_in_postgres_and_its_ca_in_the_data_directory() {
    let Some(backend) = Backend::postgres("a_hub_keeps_its_fleet_in_postgres").await else { return };
    tls::install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    std::fs::write(&file, format!("{}\n", backend.url())).unwrap();
    let args = args(dir.path(), &format!("file:{}", file.display()));
    let mut clusters = Vec::new();
    for name in ["first", "second"] {
        let tasks = Tasks::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        let hub = loop {
            match serve::start(&args, &tasks).await {
                Ok(hub) => break hub,
                Err(error) if Instant::now() > deadline => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        assert!(matches!(
            serve::start(&args, &Tasks::new()).await.err(),
            Some(serve::ServeError::Store(StoreError::InUse))
        ));
        hub.fleet.add_cluster(ClusterAdd { name: name.into(), ..ClusterAdd::default() }).await.unwrap();
        clusters = hub.fleet.view().clusters.keys().map(ToString::to_string).collect();
        tasks.stop();
        tasks.run(Duration::from_secs(20)).await.unwrap();
        // Until the last who can write is gone, no other hub gets the data base.
        assert!(matches!(backend.location().open().await.err(), Some(StoreError::InUse)));
        drop(hub);
    }
    assert_eq!(clusters, ["first", "second"]);
    assert!(!dir.path().join("hub.sqlite").exists() && dir.path().join("ca.key").exists());
}

/// As docs/postgres.md says it.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_and_the_files_of_the_data_directory_make_the_hub_again() {
    let test = "a_dump_and_the_files_of_the_data_directory_make_the_hub_again";
    let (Some(old), Some(new)) = (Backend::postgres(test).await, Backend::postgres(test).await) else { return };
    tls::install_crypto_provider();
    let (dir, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tasks = Tasks::new();
    let hub = serve::start(&args(dir.path(), &old.url()), &tasks).await.unwrap();
    hub.fleet.add_cluster(ClusterAdd { name: "first".into(), ..ClusterAdd::default() }).await.unwrap();
    hub.store.record_runs("first", vec![run("dns", 0)], crate::samples::at(0)).await.unwrap();
    let bundle = hub.authority.trust().bundle();
    let dump = dir.path().join("hub.dump");
    carried_out("pg_dump", &["--format=custom", "--file", &dump.display().to_string(), &old.url()]);
    // What comes later is not in it.
    hub.fleet.add_cluster(ClusterAdd { name: "second".into(), ..ClusterAdd::default() }).await.unwrap();
    tasks.stop();
    tasks.run(Duration::from_secs(20)).await.unwrap();

    carried_out("pg_restore", &["--dbname", &new.url(), &dump.display().to_string()]);
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(dir.path().join(file), restored.path().join(file)).unwrap();
    }
    let tasks = Tasks::new();
    let hub = serve::start(&args(restored.path(), &new.url()), &tasks).await.unwrap();
    assert_eq!(hub.fleet.view().clusters.keys().collect::<Vec<_>>(), ["first"]);
    let query = RunQuery { cluster: Some("first".into()), limit: 10, ..RunQuery::default() };
    assert_eq!(hub.store.runs(&query).await.unwrap().items.len(), 1);
    assert_eq!(hub.authority.trust().bundle(), bundle, "its agents know it");
    tasks.stop();
    tasks.run(Duration::from_secs(20)).await.unwrap();
}

fn carried_out(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_is_found_again_and_a_hub_that_lost_its_data_base_to_another_ends() {
    let Some(backend) = Backend::postgres("a_server_that_was_away_is_found_again").await else { return };
    let Backend::Postgres(database) = &backend else { unreachable!() };
    let open = backend.open().await;
    let before = database.claimant(true, None).await;
    database.cut().await;
    let again = open.store.record_runs("a", vec![run("dns", 0)], crate::samples::at(0)).await;
    assert_eq!(again.unwrap().new, 1, "the pool has a new connection for who asks");
    // The claim is taken again: a second hub is kept away as before.
    database.claimant(true, Some(before)).await;
    assert!(matches!(backend.location().open().await.err(), Some(StoreError::InUse)));
    let mut other = database.connect().await;
    let take = sqlx::query("SELECT pg_advisory_lock(x'616d687562'::bigint)").execute(&mut other);
    let cut = async {
        database.claimant(false, None).await;
        database.cut().await;
    };
    let (taken, ()) = tokio::join!(take, cut);
    taken.unwrap();
    let lost = open.claim.unwrap().await.unwrap();
    assert!(matches!(lost, Err(StoreError::InUse)), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_known_by_the_authority_that_signed_its_certificate_and_by_its_name() {
    let Some(backend) = Backend::postgres("a_server_is_known_by_the_authority").await else { return };
    let Backend::Postgres(database) = &backend else { unreachable!() };
    backend.open().await.close().await;
    let authority = format!("sslmode=verify-full&sslrootcert={}", database.authority().display());
    let open = async |host, settings: &str| {
        let url = database.url_of_tls(host, settings).parse::<StoreUrl>().unwrap();
        url.location().unwrap().open().await
    };
    for (host, settings) in [("127.0.0.1", authority.as_str()), ("localhost", "sslmode=verify-full")] {
        let refused = format!("{:?}", open(host, settings).await.err());
        assert!(refused.contains("InvalidCertificate"), "{host} {settings}: {refused}");
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let _open = loop {
        match open("localhost", &authority).await {
            Ok(open) => break open,
            Err(StoreError::InUse) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error:?}"),
        }
    };
    let mut connection = database.connect().await;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND datname = current_database()";
    let encrypted: i64 = sqlx::query_scalar(encrypted).fetch_one(&mut connection).await.unwrap();
    assert!(encrypted >= 2, "the claim and the pool: {encrypted}");
}
