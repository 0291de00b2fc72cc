//! Prometheus' own `/federate` of the same series, as a peer of the hub's `/metrics`: it scrapes them once, from a file.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Client;

use super::metrics::scrape;
use super::progress::Progress;
use super::report::Rows;
use super::{Part, proc};
use crate::port::PortLease;
use crate::process::Process;
use crate::run_dir::RunDir;

const LIMIT: Duration = Duration::from_secs(180);
/// Federations in a repetition: each takes seconds.
const TIMES: u32 = 3;

/// Starts a Prometheus, lets it scrape `target` (`host:port`) until it has all `series`, and federates them.
pub(super) async fn measure(
    run: &Arc<RunDir>,
    (target, series): (&str, usize),
    repeat: u32,
    progress: &Progress,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    progress.say("metrics: Prometheus scrapes the same series");
    let folder = run.path().join("prometheus");
    std::fs::create_dir_all(&folder)?;
    let config = folder.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 2m, scrape_timeout: 2m}}\n\
         scrape_configs: [{{job_name: hub, metrics_path: /, honor_labels: true, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    std::fs::write(&config, text)?;
    let port = PortLease::take()?;
    let address = format!("127.0.0.1:{}", port.number());
    let prometheus = Process::new(run, &folder, "prometheus", "prometheus").args([
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address={address}"),
    ]);
    prometheus.start().context("Prometheus cannot be run (Debian: apt-get install prometheus)")?;
    let client = Client::builder().no_proxy().no_gzip().timeout(LIMIT).build()?;
    let query = format!("http://{address}/api/v1/query?query=scrape_samples_scraped");
    let scraped = || async {
        let answer: serde_json::Value = client.get(&query).send().await?.json().await?;
        let value = answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse::<usize>().ok());
        Ok(value.filter(|value| *value >= series))
    };
    prometheus.until("whole scrape by Prometheus", LIMIT, scraped).await?;
    let pid = prometheus.pid().context("Prometheus has ended")?;
    let part = Part::Metrics;
    rows.add(part, "Prometheus, memory with the same series", (proc::memory(pid)?.resident, "MiB"), None);
    let url = format!("http://{address}/federate?match[]=%7B__name__%3D~%22.%2B%22%7D");
    for _ in 0..repeat * TIMES {
        proc::reset_peak(pid)?;
        let federated = scrape(&client, &url, "", "identity").await?;
        let ms = |time: Duration| (time.as_secs_f64() * 1e3, "ms");
        rows.add(part, "Prometheus' /federate of the same series, first byte", ms(federated.first_byte), None);
        rows.add(part, "Prometheus' /federate of the same series, all of it", ms(federated.total), None);
        rows.add(part, "Prometheus, memory at most meanwhile", (proc::memory(pid)?.peak, "MiB"), None);
        ensure!(federated.bytes > series * 20, "Prometheus federated only {} bytes", federated.bytes);
    }
    Ok(())
}
