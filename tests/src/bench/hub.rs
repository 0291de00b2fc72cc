//! The hub with a fleet of simulated agents: memory at rest, `/metrics`, a definition pushed, reports, agents that do
//! harm, and its death.
//!
//! The agents share the machine with the hub, and take about as much of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::session::frame::DefinitionResult;
use active_monitor_core::view::{DefinitionView, FleetSummary};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::json;

use super::progress::Progress;
use super::report::{Rows, Target};
use super::sim::Agents;
use super::{Options, Part, StoreKind, flood, metrics, proc};
use crate::fleet::Hub;
use crate::postgres::Postgres;
use crate::run_dir::RunDir;

/// Checks of each cluster.
pub(super) const CHECKS: usize = 100;
/// Reports of each agent that arrive in one go.
const REPORTS: u64 = 256;
/// Reports of each agent that wait when the hub is back.
const BACKLOG: u64 = 10;
/// What anything may take before it is given up.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two questions to the hub.
const ASK: Duration = Duration::from_millis(20);
/// Some heartbeats of every agent, and a round of what the hub saves.
const REST: Duration = Duration::from_secs(20);
const DEFINITION: &str = "/api/v1/definitions/bench";

/// The hub and its fleet.
pub(super) struct Fleet {
    pub(super) run: Arc<RunDir>,
    pub(super) hub: Hub,
    /// Of the hub, where its store is one.
    _server: Option<Postgres>,
    pub(super) agents: Agents,
    clusters: usize,
    /// Of each agent, whether its first check has failed.
    failing: bool,
    generation: u64,
}

/// The parts that need a fleet, in this order.
pub(super) const PARTS: [Part; 6] = [Part::Rest, Part::Metrics, Part::Push, Part::Reports, Part::Flood, Part::Storm];

/// Measures one of them.
pub(super) async fn measure(
    part: Part,
    fleet: &mut Fleet,
    options: &Options,
    progress: &Progress,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    for round in 1..=options.repeat {
        progress.say(format!("{}: round {round} of {}", part.as_str(), options.repeat));
        match part {
            Part::Rest => {
                let (pid, pause) = (fleet.pid()?, REST / 4);
                let cpu = proc::cpu_ms(pid)?;
                tokio::time::sleep(pause).await;
                let cpu = (proc::cpu_ms(pid)? - cpu) as f64 / pause.as_millis() as f64;
                let memory = proc::memory(pid)?;
                let what = format!("{} clusters of {CHECKS} checks, VmRSS at rest", fleet.clusters);
                rows.add(part, what, (memory.resident, "MiB"), Some(Target::AtMost(512.0)));
                rows.add(part, "VmHWM", (memory.peak, "MiB"), None);
                rows.add(part, "processor at rest, of one core", (cpu * 100.0, "%"), None);
            }
            Part::Metrics => return metrics::measure(fleet, options, progress, rows).await,
            Part::Push => fleet.push(rows).await?,
            Part::Reports => fleet.reports(rows).await?,
            Part::Flood => flood::measure(fleet, rows).await?,
            Part::Storm => fleet.storm(rows).await?,
            Part::Agent | Part::Crons | Part::Argo | Part::Visible | Part::Replicas | Part::History => {}
        }
    }
    Ok(())
}

impl Fleet {
    /// Starts a hub, and waits until all clusters are connected, all checks known, and all is quiet.
    pub(super) async fn start(options: &Options, progress: &Progress) -> anyhow::Result<Fleet> {
        let clusters = options.scaled(1000);
        progress.say(format!("hub: {clusters} clusters enrol and connect"));
        let run = Arc::new(RunDir::create()?);
        let server = match options.store {
            StoreKind::Sqlite => None,
            StoreKind::Postgresql => Some(Postgres::start().await?),
        };
        let store = server.as_ref().map(Postgres::url);
        let more: Vec<&str> = store.iter().flat_map(|url| ["--store", url]).collect();
        let hub = Hub::start_with(&run, run.path(), &more).await?;
        let agents = Agents::join(&hub, &ca(&run)?, clusters, CHECKS).await?;
        let fleet = Fleet { run, hub, _server: server, agents, clusters, failing: false, generation: 0 };
        fleet.until("all clusters", async || fleet.is_consistent(0).await).await?;
        tokio::time::sleep(REST).await;
        Ok(fleet)
    }

    /// The hub's CA, PEM.
    pub(super) fn ca(&self) -> anyhow::Result<String> {
        ca(&self.run)
    }

    pub(super) fn pid(&self) -> anyhow::Result<u32> {
        self.hub.process.pid().context("the hub has ended")
    }

    /// A changed definition, until the hub shows that every agent has answered it.
    async fn push(&mut self, rows: &mut Rows) -> anyhow::Result<()> {
        self.generation += 1;
        let body = definition(self.generation);
        let began = Instant::now();
        self.hub.request(Method::PUT, DEFINITION, Some(&body)).await?;
        let applied = async || {
            let shown: DefinitionView = self.hub.get(DEFINITION).await?;
            let here = shown.clusters.iter().filter(|cluster| {
                cluster.observed_generation == shown.generation && cluster.result == Some(DefinitionResult::Applied)
            });
            Ok(here.count() == self.clusters)
        };
        self.until("the last answer to a definition", applied).await?;
        let what = format!("a definition pushed to {} agents, until the last answer is shown", self.clusters);
        rows.add(Part::Push, what, (began.elapsed().as_secs_f64(), "s"), Some(Target::AtMost(2.0)));
        Ok(())
    }

    /// Reports from all agents at once, until the last one is on the hub's disk.
    async fn reports(&mut self, rows: &mut Rows) -> anyhow::Result<()> {
        let pid = self.pid()?;
        let (acked, cpu, began) = (self.agents.acked(), proc::cpu_ms(pid)?, Instant::now());
        let all = self.agents.report(REPORTS);
        self.until_acked(all).await?;
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), (proc::cpu_ms(pid)? - cpu) as f64 / 1e3);
        let count = (all - acked) as f64;
        let part = Part::Reports;
        let what = "durable reports, a second of the hub's processor time";
        rows.add(part, what, (count / cpu, "/s"), Some(Target::AtLeast(20_000.0)));
        rows.add(part, "durable reports, a second, the agents on the same cores", (count / seconds, "/s"), None);
        Ok(())
    }

    /// The hub is killed and started again at once; meanwhile a check of each cluster changes and reports wait.
    async fn storm(&mut self, rows: &mut Rows) -> anyhow::Result<()> {
        let resident = proc::memory(self.pid()?)?.resident;
        self.hub.kill();
        let killed = Instant::now();
        self.failing = !self.failing;
        let failed = self.agents.fail(self.failing);
        let reports = self.agents.report(BACKLOG);
        self.hub.process.start()?;
        let known = async || Ok(self.summary().await?.checks.values().sum::<u64>() == self.checks());
        self.until("the first answer", known).await?;
        let answers = killed.elapsed();
        let consistent = async || Ok(self.agents.acked() >= reports && self.is_consistent(failed).await?);
        self.until("a consistent fleet", consistent).await?;
        let took = killed.elapsed();
        let part = Part::Storm;
        let seconds = |time: Duration| (time.as_secs_f64(), "s");
        rows.add(part, "kill -9 to the first complete answer", seconds(answers), Some(Target::AtMost(5.0)));
        let what = format!("from there until all {} clusters are consistent", self.clusters);
        rows.add(part, what, seconds(took - answers), Some(Target::AtMost(5.0)));
        rows.add(part, "kill -9 until all are consistent", seconds(took), None);
        let peak = proc::memory(self.pid()?)?.peak;
        rows.add(part, "VmRSS before the kill", (resident, "MiB"), None);
        rows.add(
            part,
            "VmHWM until all are consistent, as a share of that",
            (peak / resident, ""),
            Some(Target::AtMost(1.5)),
        );
        tokio::time::sleep(REST).await;
        Ok(())
    }

    fn checks(&self) -> u64 {
        (self.clusters * CHECKS) as u64
    }

    async fn summary(&self) -> anyhow::Result<FleetSummary> {
        self.hub.get("/api/v1/fleet").await
    }

    /// Whether every cluster is connected and each check is as its agent last said.
    async fn is_consistent(&self, failed: u64) -> anyhow::Result<bool> {
        let FleetSummary { clusters, checks, .. } = self.summary().await?;
        let of = |counts: &std::collections::BTreeMap<String, u64>, status: &str| counts.get(status).copied();
        Ok(of(&clusters, "Connected") == Some(self.clusters as u64)
            && of(&checks, "Failed") == Some(failed)
            && of(&checks, "Succeeded") == Some(self.checks() - failed))
    }

    pub(super) async fn until_acked(&self, reports: u64) -> anyhow::Result<()> {
        self.until("the last ack", async || Ok(self.agents.acked() >= reports)).await
    }

    /// Asks until it holds; a hub that does not answer does not hold it yet.
    async fn until(&self, what: &str, holds: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let answer = holds().await;
            if matches!(answer, Ok(true)) {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "no {what} within {LIMIT:?}: {answer:?}\n{}", self.hub.process.log_tail());
            self.pid()?;
            tokio::time::sleep(ASK).await;
        }
    }
}

fn ca(run: &RunDir) -> anyhow::Result<String> {
    std::fs::read_to_string(run.path().join("hub/ca.crt")).context("the hub has no CA")
}

fn definition(generation: u64) -> serde_json::Value {
    let workflow = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "spec": {"entrypoint": "wait", "templates": [{"name": "wait", "suspend": {"duration": "1s"}}]},
    });
    json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1",
        "kind": "FleetHealthCheck",
        "metadata": {"name": "bench"},
        "spec": {
            "clusterSelector": {},
            "template": {"metadata": {"namespace": "health"}, "spec": {
                "description": format!("version {generation} in ${{cluster.name}}"),
                "repeatAfterSec": 60,
                "workflow": {"resource": {
                    "namespace": "health", "serviceAccount": "probe", "source": {"inline": workflow.to_string()},
                }},
            }},
        },
    })
}
