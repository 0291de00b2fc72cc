//! The agent's process: flags, logging, and then [`active_monitor_agent::run`].

use active_monitor_agent::config::Config;
use clap::Parser;

// Two, however many cores the node has: each thread holds memory of its own, and a run takes some milliseconds.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    active_monitor_runtime::tls::install_crypto_provider();
    // To the end: what waits is sent when it is dropped.
    let _traces = active_monitor_runtime::logging::init(
        config.log_format.into(),
        "info,kube_runtime=warn,kube_client=warn,kube_client::client::builder=off",
        "active-monitor-agent",
        active_monitor_runtime::traces::Collector::from_env(),
    );
    active_monitor_agent::run(config).await
}
