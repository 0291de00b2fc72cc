//! The history and uptime of a large fleet over 90 days, on SQLite and on PostgreSQL.
//!
//! The hub's tables are filled by SQL, which takes minutes. A run of every minute of the whole fleet for a week would be a
//! billion rows: it is one every four hours, and every half hour for 90 days of one cluster in a hundred.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::view::{RunPage, UptimePage};
use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use tokio::process::Command;

use super::progress::Progress;
use super::report::{Rows, Target};
use super::stats::quantile;
use super::{Options, Part};
use crate::fleet::Hub;
use crate::postgres::Postgres;
use crate::run_dir::RunDir;

const LIMIT: Duration = Duration::from_secs(120);
/// Questions of each kind in a repetition.
const ASKED: usize = 200;
const DAY: i64 = 86_400;
/// What is filled in must not be deleted meanwhile.
const KEEP: [&str; 2] = ["--run-days", "120"];
const SQLITE: &str = "PRAGMA synchronous = OFF; PRAGMA cache_size = -600000; PRAGMA temp_store = MEMORY; BEGIN;\n\
    CREATE TEMP TABLE numbers AS SELECT value AS n FROM generate_series(0, 9999);\n";
const POSTGRES: &str = "SET synchronous_commit = off; BEGIN;\n\
    CREATE TEMP TABLE numbers AS SELECT n::bigint FROM generate_series(0, 9999) AS n;\n";

/// [`Part::History`].
pub(super) async fn measure(options: &Options, progress: &Progress, rows: &mut Rows) -> anyhow::Result<()> {
    let run = Arc::new(RunDir::create()?);
    let clusters = options.scaled(1000);
    let fill = fill(clusters);
    progress.say("history: SQLite is filled");
    let folder = run.path().join("sqlite");
    std::fs::create_dir_all(&folder)?;
    let hub = Hub::start_with(&run, &folder, &KEEP).await?;
    hub.kill();
    let file = folder.join("hub/hub.sqlite");
    let began = Instant::now();
    let mut sqlite = Command::new("sqlite3");
    sqlite.arg("-bail").arg(&file);
    feed(sqlite, &folder, &format!("{SQLITE}{fill}COMMIT;\n")).await?;
    let took = began.elapsed();
    side("SQLite", &hub, took, clusters, options, progress, rows).await?;
    drop(hub);
    std::fs::remove_dir_all(&folder)?;

    progress.say("history: PostgreSQL is filled");
    let server = Postgres::start().await?;
    let folder = run.path().join("postgres");
    std::fs::create_dir_all(&folder)?;
    let url = server.url();
    let [keep, days] = KEEP;
    let hub = Hub::start_with(&run, &folder, &["--store", &url, keep, days]).await?;
    hub.kill();
    let began = Instant::now();
    let mut psql = Command::new("psql");
    psql.args(["-v", "ON_ERROR_STOP=1", "-q", "-d", &url]);
    feed(psql, &folder, &format!("{POSTGRES}{fill}COMMIT;\nANALYZE;\n")).await?;
    side("PostgreSQL", &hub, began.elapsed(), clusters, options, progress, rows).await
}

fn fill(clusters: usize) -> String {
    let now = Timestamp::now().as_second();
    let values = [
        ("@CLUSTERS@", clusters.to_string()),
        ("@LONG@", clusters.div_ceil(100).to_string()),
        ("@NOW@", (now * 1_000_000).to_string()),
        ("@TODAY@", (now / DAY).to_string()),
    ];
    let text = include_str!("history/fill.sql").to_owned();
    values.into_iter().fold(text, |text, (name, value)| text.replace(name, &value))
}

/// Gives a script to a data base's shell.
async fn feed(mut shell: Command, folder: &Path, script: &str) -> anyhow::Result<()> {
    let file = folder.join("fill.sql");
    std::fs::write(&file, script)?;
    let done = shell.stdin(std::fs::File::open(&file)?).kill_on_drop(true).output().await;
    let done = done.context("the data base's shell cannot be run (Debian: apt-get install sqlite3 postgresql)")?;
    ensure!(done.status.success(), "not filled: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Starts the hub on what was filled in, and asks.
async fn side(
    store: &str,
    hub: &Hub,
    filled: Duration,
    clusters: usize,
    options: &Options,
    progress: &Progress,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    let part = Part::History;
    progress.say(format!("history: {store} is asked"));
    hub.restart().await?;
    // Its first round of roll-ups and deletions reads whole tables.
    let figure = async |name: &str| hub_figure(hub, name).await;
    let rested = async || Ok(figure("activemonitor_hub_last_pruning_timestamp_seconds").await.filter(|at| *at > 0.0));
    hub.process.until("first pruning", LIMIT, rested).await?;
    let size = figure("activemonitor_hub_store_file_bytes").await.unwrap_or(f64::NAN) / f64::from(1 << 30);
    rows.add(part, format!("{store}: filled by SQL"), (filled.as_secs_f64(), "s"), None);
    rows.add(part, format!("{store}: size"), (size, "GiB"), None);
    let runs = figure("activemonitor_hub_store_rows{table=\"runs\"}").await.unwrap_or(f64::NAN);
    rows.add(part, format!("{store}: runs"), (runs, ""), None);

    hub.kill();
    let began = Instant::now();
    hub.restart().await?;
    let _: UptimePage =
        hub.get("/api/v1/uptime?window=90d&cluster=cluster-1000&namespace=health&name=check-100").await?;
    let took = (began.elapsed().as_secs_f64(), "s");
    rows.add(part, format!("{store}: a restart, to the first answer"), took, Some(Target::AtMost(5.0)));

    for _ in 0..options.repeat {
        // Those whose runs are kept for 90 days.
        let long = clusters.div_ceil(100);
        let check =
            |n: usize| format!("cluster=cluster-{}&namespace=health&name=check-{}", 1000 + n % long, 100 + n * 7 % 100);
        let (uptime, page) = (
            async |n: usize| {
                let found: UptimePage = hub.get(&format!("/api/v1/uptime?window=90d&{}", check(n))).await?;
                ensure!(found.items.len() == 1 && found.items[0].time.outages >= 4, "{found:?}");
                Ok(())
            },
            async |n: usize| {
                let found: RunPage = hub.get(&format!("/api/v1/runs?limit=1000&{}", check(n))).await?;
                ensure!(found.items.len() == 1000, "{} runs", found.items.len());
                Ok(())
            },
        );
        ask(rows, &format!("{store}: a check's uptime of 90 days"), ASKED, 100.0, uptime).await?;
        ask(rows, &format!("{store}: a check's newest 1,000 runs"), ASKED, 100.0, page).await?;
        for (what, query) in [
            ("uptime of the fleet over 90 days", "by=fleet&window=90d"),
            ("uptime by region over 30 days", "by=label.region&window=30d"),
            ("uptime by cluster over 7 days", "by=cluster&window=7d"),
        ] {
            let fleet = async |_| {
                let found: UptimePage = hub.get(&format!("/api/v1/uptime?{query}")).await?;
                let checks: u64 = found.items.iter().map(|item| item.checks).sum();
                ensure!(found.total > found.items.len() as u64 || checks == clusters as u64 * 100, "{checks} checks");
                Ok(())
            };
            ask(rows, &format!("{store}: {what}"), ASKED, 50.0, fleet).await?;
        }
    }
    Ok(())
}

/// Asks so often, one after the other; the first one finds nothing prepared.
async fn ask(
    rows: &mut Rows,
    what: &str,
    times: usize,
    target_ms: f64,
    question: impl AsyncFn(usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut took = Vec::with_capacity(times);
    for number in 0..times {
        let began = Instant::now();
        question(number).await.with_context(|| what.to_owned())?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let part = Part::History;
    rows.add(part, format!("{what}, the first"), (took[0], "ms"), None);
    rows.add(
        part,
        format!("{what}, p99"),
        (quantile(&took, 0.99).unwrap_or(f64::NAN), "ms"),
        Some(Target::AtMost(target_ms)),
    );
    Ok(())
}

/// A figure of the hub itself, where it has it.
async fn hub_figure(hub: &Hub, name: &str) -> Option<f64> {
    let text = hub.request(reqwest::Method::GET, "/metrics?only=hub", None::<&()>).await.ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
