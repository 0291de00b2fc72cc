//! The hub's `/metrics` of a large fleet, beside the same bytes from a server that only has to send them, and beside
//! Prometheus' own `/federate` of the same series.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use reqwest::{Client, header};

use super::hub::Fleet;
use super::progress::Progress;
use super::report::{Rows, Target};
use super::{Options, Part, federate, proc};
use crate::port::PortLease;
use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(60);
/// Scrapes in a repetition.
const SCRAPES: u32 = 5;

/// A scrape, timed by who asks.
pub(super) struct Scrape {
    pub(super) first_byte: Duration,
    pub(super) total: Duration,
    pub(super) bytes: usize,
}

/// [`Part::Metrics`].
pub(super) async fn measure(
    fleet: &Fleet,
    options: &Options,
    progress: &Progress,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    let part = Part::Metrics;
    let client = Client::builder().no_proxy().no_gzip().timeout(LIMIT).build()?;
    let url = format!("{}/metrics", fleet.hub.url);
    let (pid, token) = (fleet.pid()?, fleet.hub.token.as_str());
    let rest = proc::memory(pid)?.resident;
    proc::reset_peak(pid)?;
    // The first one also says what is in it, and what it costs a hub that has never been asked.
    let text = client.get(&url).bearer_auth(token).send().await?.error_for_status()?.bytes().await?;
    let extra = proc::memory(pid)?.peak - rest;
    let series = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#")).count();
    rows.add(part, "series", (series as f64, ""), None);
    rows.add(part, "size", (text.len() as f64 / f64::from(1 << 20), "MiB"), None);
    rows.add(part, "memory beyond that at rest, first scrape", (extra, "MiB"), Some(Target::AtMost(64.0)));

    let file = fleet.run.path().join("metrics.txt");
    std::fs::write(&file, &text)?;
    drop(text);
    let port = PortLease::take()?;
    let floor = Process::new(&fleet.run, fleet.run.path(), "static-file", std::env::current_exe()?);
    let floor = floor.args(["serve-file".into(), file.into_os_string(), port.number().to_string().into()]);
    floor.start()?;
    let floor_url = format!("http://127.0.0.1:{}/", port.number());
    let ask = || async { Ok(client.head(&floor_url).send().await.is_ok().then_some(())) };
    floor.until("server of a file", LIMIT, ask).await?;

    for round in 1..=options.repeat * SCRAPES {
        progress.at(format!("metrics: scrape {round} of {}", options.repeat * SCRAPES));
        let ms = |time: Duration| (time.as_secs_f64() * 1e3, "ms");
        let scraped = scrape(&client, &url, token, "identity").await?;
        rows.add(part, "first byte", ms(scraped.first_byte), Some(Target::AtMost(50.0)));
        rows.add(part, "all of it", ms(scraped.total), Some(Target::AtMost(300.0)));
        rows.add(part, "for each million series of it", ms(scraped.total.mul_f64(1e6 / series as f64)), None);
        let file = scrape(&client, &floor_url, token, "identity").await?;
        rows.add(part, "the same as a file, all of it", ms(file.total), None);
        let zipped = scrape(&client, &url, token, "gzip").await?;
        ensure!(zipped.bytes < scraped.bytes, "gzip was asked for and not given");
        rows.add(part, "with gzip, as Prometheus asks, all of it", ms(zipped.total), None);
    }
    let extra = proc::memory(pid)?.peak - rest;
    rows.add(part, "memory beyond that at rest, at most", (extra, "MiB"), Some(Target::AtMost(64.0)));
    let target = format!("127.0.0.1:{}", port.number());
    federate::measure(&fleet.run, (&target, series), options.repeat, progress, rows).await
}

pub(super) async fn scrape(client: &Client, url: &str, token: &str, encoding: &str) -> anyhow::Result<Scrape> {
    let began = Instant::now();
    let request = client.get(url).bearer_auth(token).header(header::ACCEPT_ENCODING, encoding);
    let mut answer = request.send().await?.error_for_status()?;
    let (mut bytes, mut first_byte) = (0, None);
    while let Some(chunk) = answer.chunk().await? {
        first_byte.get_or_insert_with(|| began.elapsed());
        bytes += chunk.len();
    }
    Ok(Scrape { first_byte: first_byte.context("an empty answer")?, total: began.elapsed(), bytes })
}

/// Serves a file's bytes from memory until it is killed: what sending them takes at least.
///
/// # Errors
/// When the file cannot be read or the port is taken.
pub async fn serve_file(file: &Path, port: u16) -> anyhow::Result<()> {
    let bytes = Bytes::from(tokio::fs::read(file).await?);
    let router = Router::new()
        .route("/", get(async move || ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], bytes.clone())));
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    Ok(axum::serve(listener, router).await?)
}
