//! The demo: a small fleet with a hub, the project's examples and one pushed definition, while a person watches.
//!
//! It runs on clusters of the testbed, or on the reader's own. May touch: a run folder, loopback ports, its processes,
//! and in the reader's clusters what [`undo`] then removes.

pub mod kubectl;
pub mod own;
pub mod say;
pub mod undo;
pub mod watch;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;

use self::own::OwnCluster;
use self::say::{Cleared, notes, say, spinner, step};
use crate::cluster::Cluster;
use crate::fleet::{Agent, Hub, binary, project};
use crate::programs::{Program, Programs, ProgramsError};
use crate::run_dir::{self, RunDir};

/// The testbed's clusters with their regions.
pub const FLEET: [(&str, &str); 3] = [("eu-1", "eu"), ("eu-2", "eu"), ("us-1", "us")];

const LOCAL_EXAMPLES: [&str; 4] = ["hello", "schedule", "metrics", "remedy"];
const PUSHED_EXAMPLE: &str = "examples/fleet.yaml";

/// Where the demo runs.
pub enum Place {
    /// On clusters that it starts, with these programs.
    Testbed(Programs),
    /// On the reader's.
    Own(Vec<OwnCluster>),
}

/// Builds the programs of the testbed that are missing, with progress shown.
///
/// # Errors
/// When that cannot be done: with what to do.
pub async fn programs() -> anyhow::Result<Programs> {
    let bar = Cleared(spinner(""));
    if bar.0.is_hidden() {
        say(
            "      programs of Kubernetes and Argo: those that are missing are built, which takes minutes the first time",
        );
    }
    if let Ok(style) = indicatif::ProgressStyle::with_template(
        "{spinner} programs of Kubernetes and Argo {bar:20} {pos}/{len} {msg}  {elapsed}",
    ) {
        bar.0.set_style(style);
    }
    match Programs::ensure_shown(Program::CONTROL_PLANE, &bar.0).await {
        Ok(programs) => {
            bar.done("programs of Kubernetes and Argo");
            Ok(programs)
        }
        Err(error @ ProgramsError::NoGo { .. }) => Err(error)
            .context("install Go (https://go.dev/dl), or try your own clusters: make demo CONTEXTS=kind-a,kind-b"),
        Err(error) => Err(error.into()),
    }
}

/// The running demo, in the order in which it ends.
struct Demo {
    agents: Vec<Agent>,
    hub: Hub,
    clusters: Vec<Cluster>,
    /// How the reader calls `kubectl` on the first cluster.
    kubectl: String,
}

/// Sets everything up, says how to look at it, and prints what changes: for ever, or for `limit` from then on.
///
/// # Errors
/// When a part does not come up, or ends.
pub async fn show(run: &Arc<RunDir>, place: &Place, limit: Option<Duration>) -> anyhow::Result<()> {
    let demo = match place {
        Place::Testbed(programs) => on_testbed(run, programs).await?,
        Place::Own(clusters) => on_own(run, clusters).await?,
    };
    notes(&step("definition examples/fleet.yaml pushed to region=eu", push(&demo.hub)).await?);
    demo.summary(limit)?;
    let watching = watch::watch(&demo.hub, || demo.is_well());
    match limit {
        Some(limit) => tokio::time::timeout(limit, watching).await.unwrap_or(Ok(())),
        None => watching.await,
    }
}

/// Whether anything of the run is left: its folder, or a process.
///
/// # Errors
/// When there is: says where.
pub fn nothing_left(run: &Path) -> anyhow::Result<()> {
    ensure!(!run.exists(), "the run folder {} is left: remove it", run.display());
    let left = run_dir::marked(run);
    ensure!(left.is_empty(), "processes are left: {left:?}");
    Ok(())
}

async fn on_testbed(run: &Arc<RunDir>, programs: &Programs) -> anyhow::Result<Demo> {
    let starts = FLEET.map(|(name, _)| Cluster::start(run, programs, name, false));
    let clusters = step("Kubernetes with Argo: eu-1, eu-2, us-1", try_join_all(starts)).await?;
    let hub = start_hub(run).await?;
    let joins = clusters.iter().zip(FLEET).map(|(cluster, (name, region))| {
        let hub = &hub;
        async move { Agent::join(cluster, hub, name, &[("region", region)]).await }
    });
    let agents = step("an agent in each, enrolled", async { enrolled(&hub, try_join_all(joins).await?).await }).await?;
    let examples = clusters.iter().map(|cluster| async {
        for file in local_examples() {
            cluster.apply_yaml(&std::fs::read_to_string(file)?).await?;
        }
        anyhow::Ok(())
    });
    step("examples applied in each", try_join_all(examples)).await?;
    let first = clusters.first().context("the demo has clusters")?;
    let kubectl = format!("KUBECONFIG={} {}", first.kubeconfig.display(), programs.path(Program::Kubectl).display());
    Ok(Demo { agents, hub, clusters, kubectl })
}

async fn on_own(run: &Arc<RunDir>, clusters: &[OwnCluster]) -> anyhow::Result<Demo> {
    let hub = start_hub(run).await?;
    let in_eu = clusters.len().div_ceil(2);
    let joins =
        clusters.iter().enumerate().map(|(at, cluster)| cluster.join(run, &hub, if at < in_eu { "eu" } else { "us" }));
    let join = async {
        let (agents, left): (Vec<Agent>, Vec<Vec<String>>) = try_join_all(joins).await?.into_iter().unzip();
        Ok((enrolled(&hub, agents).await?, left.concat()))
    };
    let (agents, left) = step("an agent for each, enrolled", join).await?;
    notes(&left);
    let files: Vec<PathBuf> = local_examples().collect();
    let examples = try_join_all(clusters.iter().map(|cluster| cluster.create(&files)));
    notes(&step("examples applied in each", examples).await?.concat());
    let kubectl = clusters.first().context("the demo has clusters")?.shell();
    Ok(Demo { agents, hub, clusters: Vec::new(), kubectl })
}

async fn start_hub(run: &Arc<RunDir>) -> anyhow::Result<Hub> {
    step("hub with its embedded store", Hub::start(run, run.path())).await
}

/// Waits until the hub knows all of them.
async fn enrolled(hub: &Hub, agents: Vec<Agent>) -> anyhow::Result<Vec<Agent>> {
    try_join_all(agents.iter().map(|agent| agent.wait_until_connected(hub))).await?;
    Ok(agents)
}

fn local_examples() -> impl Iterator<Item = PathBuf> {
    LOCAL_EXAMPLES.iter().map(|name| project().join(format!("examples/{name}.yaml")))
}

/// Pushes the definition as the reader would; gives what the clusters say where one has not applied it.
async fn push(hub: &Hub) -> anyhow::Result<Vec<String>> {
    let mut fleetcheck = tokio::process::Command::new(binary("fleetcheck")?);
    fleetcheck.args(["apply", "--wait", "-f"]).arg(project().join(PUSHED_EXAMPLE)).stdin(Stdio::null());
    fleetcheck.env("FLEETCHECK_HUB", &hub.url).env("FLEETCHECK_TOKEN", &hub.token).kill_on_drop(true);
    let output = fleetcheck.output().await.context("cannot run fleetcheck")?;
    match output.status.code() {
        Some(0) => Ok(Vec::new()),
        // Such as one of the reader's that has a check of that name.
        Some(1) => Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()),
        Some(_) | None => anyhow::bail!("fleetcheck apply: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

impl Demo {
    /// Fails when a process of the demo has ended.
    fn is_well(&self) -> anyhow::Result<()> {
        let parts = self.clusters.iter().flat_map(|c| [&c.etcd, &c.apiserver, &c.controller_manager, &c.argo]);
        let ours = self.agents.iter().map(|agent| &agent.process).chain([&self.hub.process]);
        for process in parts.chain(ours) {
            ensure!(
                process.pid().is_some(),
                "{} has ended; the end of its log:\n{}",
                process.name(),
                process.log_tail()
            );
        }
        Ok(())
    }

    fn summary(&self, limit: Option<Duration>) -> anyhow::Result<()> {
        let (url, token, kubectl) = (&self.hub.url, &self.hub.token, &self.kubectl);
        let fleetcheck = binary("fleetcheck")?;
        let (fleetcheck, fleet) = (fleetcheck.display(), project().join(PUSHED_EXAMPLE).canonicalize()?);
        let (fleet, first) = (fleet.display(), self.agents.first().map_or("", |agent| agent.name.as_str()));
        let end = limit.map_or_else(
            || "Ctrl-C stops everything and leaves nothing behind.".to_owned(),
            |limit| format!("It stops after {} s and leaves nothing behind.", limit.as_secs()),
        );
        say(format!(
            "
Dashboard   {url}
Token       {token}

Five commands to try in another terminal, after this line:

  export FLEETCHECK_HUB={url} FLEETCHECK_TOKEN={token}

  {fleetcheck} status
  {fleetcheck} checks
  {fleetcheck} runs {first}/health/remedy
  {kubectl} get hc -n health -w
  sed 's/repeatAfterSec: 30/repeatAfterSec: 5/' {fleet} | {fleetcheck} apply --wait -f -

The check health/remedy fails in odd minutes and is remedied; in even ones it succeeds again.
{end}
"
        ));
        Ok(())
    }
}
