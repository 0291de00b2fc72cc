//! The agent on a real control plane: a thousand checks a minute, and a thousand on one minute. What it did is read from
//! the API server's audit log, what it took from the kernel.

use std::time::Duration;

use active_monitor_core::check::Check;
use active_monitor_core::healthcheck::HealthCheck;
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::figures::{Figures, Log};
use super::progress::Progress;
use super::report::{Rows, Target};
use super::stats::quantile;
use super::stub::Stub;
use super::{Options, Part, proc};
use crate::audit::Tail;
use crate::cluster::Cluster;
use crate::fleet::{Agent, Crd};
use crate::testbed::{self, Testbed};

/// Checks of the part that compares with Argo: as many as Argo begins in one go.
const FEW: usize = 50;
/// How long a workflow takes.
const TAKES: Duration = Duration::from_secs(1);
/// Requests at the same time when checks are made.
const MAKERS: usize = 16;
/// What a burst of a thousand runs may take before it is given up.
const BURST_LIMIT: Duration = Duration::from_secs(300);
/// When the statuses of the last runs must be written.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at the audit log or at the agent's memory.
const LOOK: Duration = Duration::from_millis(500);
/// Minutes between the slots of checks that are all due at once, so that each burst begins with nothing in flight.
const CRON_MINUTES: i64 = 2;
/// Bursts in a repetition.
const BURSTS: i64 = 2;

/// Who carries out the workflows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Argo,
    Stub,
}

/// A cluster with an agent to come.
pub(super) struct World {
    _stub: Option<Stub>,
    client: Client,
    pub(super) log: Log,
    tail: Tail,
    pub(super) testbed: Testbed,
}

/// What a window of time shows.
struct Window {
    figures: Figures,
    memory: proc::Memory,
    cpu_ms: f64,
}

/// [`Part::Agent`]: checks whose slots are spread over the minute.
pub(super) async fn spread(options: &Options, progress: &Progress, rows: &mut Rows) -> anyhow::Result<()> {
    let part = Part::Agent;
    let count = options.scaled(1000);
    progress.say("agent: a cluster without Argo");
    let mut world = World::start(Controller::Stub).await?;
    progress.say(format!("agent: {count} checks of every 60 s are made"));
    let checks = world.make(count, &json!({"repeatAfterSec": 60})).await?;

    progress.say(format!("agent: {count} first runs"));
    let began = Timestamp::now();
    let agent = world.agent().await?;
    world.until_created(&agent, count).await?;
    let since: Vec<f64> = world.log.creates().map(|at| at.duration_since(began).as_secs_f64()).collect();
    let (first, last) = quantile(&since, 0.0).zip(quantile(&since, 1.0)).context("there were no runs")?;
    let what = format!("{count} first runs created, since the agent's start");
    rows.add(part, what, (last, "s"), Some(Target::AtMost(15.0)));
    rows.add(part, "of that, until the first of them", (first, "s"), None);

    let window = world.window(&agent, &checks, options.minutes, progress).await?;
    add(rows, part, "", &window)?;
    let Window { memory, cpu_ms, .. } = window;
    rows.add(part, "memory, VmRSS at the end", (memory.resident, "MiB"), Some(Target::AtMost(28.0)));
    rows.add(part, "memory, VmHWM", (memory.peak, "MiB"), None);
    rows.add(part, "processor time a run", (cpu_ms, "ms"), None);
    Ok(())
}

/// [`Part::Crons`]: checks that are all due on the same minute.
pub(super) async fn bursts(options: &Options, progress: &Progress, rows: &mut Rows) -> anyhow::Result<()> {
    let count = options.scaled(1000);
    progress.say("crons: a cluster without Argo");
    let mut world = World::start(Controller::Stub).await?;
    let agent = world.agent().await?;
    progress.say(format!("crons: {count} checks of one minute are made"));
    let cron = format!("*/{CRON_MINUTES} * * * *");
    let checks = world.make(count, &json!({"schedule": {"cron": cron}})).await?;
    let slots = checks.first().and_then(Check::slots).context("no check has slots")?;
    // The first slot may come while the agent still hears of the checks.
    let mut before = slots.next(Timestamp::now()).context("no slot")?;
    for burst in 1..=BURSTS {
        let slot = slots.next(before).context("no slot")?;
        progress.say(format!("crons: burst {burst} of {BURSTS}, at {slot}"));
        world.until(&agent, slot + LOOK, |_| false).await?;
        let done = |log: &Log| {
            let figures = log.figures(&checks, slot - LOOK, slot);
            figures.missed == 0 && figures.open == 0
        };
        let limit = Timestamp::now() + BURST_LIMIT;
        ensure!(world.until(&agent, limit, done).await?, "{count} crons took more than {BURST_LIMIT:?}");
        let late = world.log.figures(&checks, slot - LOOK, slot).late_ms;
        let (median, last) = quantile(&late, 0.5).zip(quantile(&late, 1.0)).context("there were no runs")?;
        let what = format!("{count} crons of one minute created, since the minute");
        rows.add(Part::Crons, what, (last / 1e3, "s"), Some(Target::AtMost(15.0)));
        rows.add(Part::Crons, "half of them", (median / 1e3, "s"), None);
        before = slot.max(Timestamp::now());
    }
    Ok(())
}

/// [`Part::Argo`]: few checks with the real controller, and the same with the stub.
pub(super) async fn beside_argo(options: &Options, progress: &Progress, rows: &mut Rows) -> anyhow::Result<()> {
    let count = options.scaled(1000).min(FEW);
    for (controller, name) in [(Controller::Argo, "Argo"), (Controller::Stub, "the stub")] {
        progress.say(format!("argo: a cluster with {name}"));
        let mut world = World::start(controller).await?;
        let checks = world.make(count, &json!({"repeatAfterSec": 60})).await?;
        let agent = world.agent().await?;
        world.until_created(&agent, count).await?;
        let window = world.window(&agent, &checks, options.minutes.min(3), progress).await?;
        add(rows, Part::Argo, &format!("{count} checks, {name}: "), &window)?;
    }
    Ok(())
}

/// The rows that every window has.
fn add(rows: &mut Rows, part: Part, prefix: &str, window: &Window) -> anyhow::Result<()> {
    let Figures {
        runs,
        missed,
        open: _,
        writes,
        reads,
        carried,
        late_ms,
        drift_ms,
        status_ms,
        noticed_ms,
        taken_up_ms,
    } = &window.figures;
    let at = |values: &[f64], q| quantile(values, q).context("there were no runs");
    let mut row = |what: &str, value, target| rows.add(part, format!("{prefix}{what}"), value, target);
    row("runs in the window", (*runs as f64, ""), None);
    row("slots without a run", (*missed as f64, ""), Some(Target::AtMost(0.0)));
    row("API writes a run", (*writes, ""), Some(Target::AtMost(2.0)));
    row("API reads a run", (*reads, ""), Some(Target::AtMost(0.0)));
    row("writes a run of who carries it out", (*carried, ""), None);
    row("workflow end to status, p50", (at(status_ms, 0.5)?, "ms"), None);
    row("workflow end to status, p99", (at(status_ms, 0.99)?, "ms"), Some(Target::AtMost(250.0)));
    row("of that, the watch and the agent, p50", (at(noticed_ms, 0.5)?, "ms"), None);
    row("of that, the watch and the agent, p99", (at(noticed_ms, 0.99)?, "ms"), None);
    row("create to the controller's first write, p50", (at(taken_up_ms, 0.5)?, "ms"), None);
    row("create to the controller's first write, p99", (at(taken_up_ms, 0.99)?, "ms"), None);
    row("slot to create, p50", (at(late_ms, 0.5)?, "ms"), None);
    row("slot to create, p99", (at(late_ms, 0.99)?, "ms"), Some(Target::AtMost(250.0)));
    row("slot to create, worst", (at(late_ms, 1.0)?, "ms"), None);
    row("slot to create, drift over the window", (*drift_ms, "ms"), None);
    Ok(())
}

impl World {
    /// A cluster with the CRD and the agent's rights; without Argo's controller, unless that is to carry out.
    pub(super) async fn start(controller: Controller) -> anyhow::Result<World> {
        let testbed = Testbed::start(testbed::Options::default()).await?;
        let cluster = first(&testbed)?;
        Agent::install(cluster, Crd::Ours).await?;
        let client = cluster.client()?;
        let stub = (controller == Controller::Stub).then(|| {
            cluster.stop_argo();
            Stub::start(client.clone())
        });
        let tail = Tail::new(&cluster.audit_log);
        Ok(World { _stub: stub, client, log: Log::default(), tail, testbed })
    }

    /// Makes checks, and gives them as the API server has them.
    pub(super) async fn make(&self, count: usize, timing: &Value) -> anyhow::Result<Vec<Check>> {
        let api: Api<HealthCheck> = Api::namespaced(self.client.clone(), "health");
        let create = async |number: usize| {
            let made = api.create(&PostParams::default(), &health_check(number, timing)?).await?;
            anyhow::Ok(Check::parse(&made)?)
        };
        stream::iter(0..count).map(create).buffer_unordered(MAKERS).try_collect().await
    }

    /// An agent without caps.
    async fn agent(&self) -> anyhow::Result<Agent> {
        let caps = ["--max-runs-in-flight=0", "--max-runs-in-flight-per-namespace=0"];
        Agent::start_with(first(&self.testbed)?, "bench", None, &caps).await
    }

    /// Follows the audit log until something holds of it, or until a moment; gives which.
    pub(super) async fn until(
        &mut self,
        agent: &Agent,
        limit: Timestamp,
        holds: impl Fn(&Log) -> bool,
    ) -> anyhow::Result<bool> {
        loop {
            self.tail.read()?.iter().for_each(|event| self.log.add(event));
            if holds(&self.log) {
                return Ok(true);
            }
            if Timestamp::now() >= limit {
                return Ok(false);
            }
            ensure!(agent.process.pid().is_some(), "the agent has ended: {}", agent.process.log_tail());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until each of so many checks has run, and has a status that says so.
    async fn until_created(&mut self, agent: &Agent, count: usize) -> anyhow::Result<()> {
        let all = |log: &Log| log.creates().count() >= count && log.checks_with_status() >= count;
        let done = self.until(agent, Timestamp::now() + BURST_LIMIT, all).await?;
        ensure!(done, "{count} first runs took more than {BURST_LIMIT:?}: {}", agent.process.log_tail());
        Ok(())
    }

    /// Watches for so many minutes, from the moment when every check is on its grid.
    async fn window(
        &mut self,
        agent: &Agent,
        checks: &[Check],
        minutes: u64,
        progress: &Progress,
    ) -> anyhow::Result<Window> {
        let second_slots = checks.iter().filter_map(|check| check.slots()?.next(check.created));
        let from = second_slots.max().context("no check has slots")?.max(Timestamp::now());
        let to = from + Duration::from_secs(60 * minutes);
        progress.say(format!("{minutes} minutes from {from}"));
        let pid = agent.process.pid().context("the agent has ended")?;
        self.until(agent, from, |_| false).await?;
        let cpu = proc::cpu_ms(pid)?;
        let mut memory = proc::memory(pid)?;
        while Timestamp::now() < to {
            let left = to.duration_since(Timestamp::now()).as_secs();
            progress.at(format!("{left} s left, the agent has {:.1} MiB", memory.resident));
            self.until(agent, to.min(Timestamp::now() + Duration::from_secs(5)), |_| false).await?;
            memory = proc::memory(pid)?;
        }
        let cpu = proc::cpu_ms(pid)? - cpu;
        // A run of the last slot starts within its second.
        self.until(agent, to + Duration::from_secs(1), |_| false).await?;
        let written = |log: &Log| log.figures(checks, from, to).open == 0;
        ensure!(self.until(agent, Timestamp::now() + END_LIMIT, written).await?, "runs have no end in any status");
        let figures = self.log.figures(checks, from, to);
        Ok(Window { cpu_ms: cpu as f64 / figures.runs.max(1) as f64, figures, memory })
    }
}

fn first(testbed: &Testbed) -> anyhow::Result<&Cluster> {
    testbed.clusters.first().context("the testbed has no cluster")
}

/// A check that needs no pod: its workflow waits for a second.
fn health_check(number: usize, timing: &Value) -> anyhow::Result<HealthCheck> {
    let workflow = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "spec": {"entrypoint": "wait", "templates": [
            {"name": "wait", "suspend": {"duration": format!("{}s", TAKES.as_secs())}},
        ]},
    });
    let mut check = json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": format!("check-{number:04}"), "namespace": "health"},
        "spec": {
            "description": "waits for a second",
            "workflow": {"resource": {
                "namespace": "health", "serviceAccount": "probe", "source": {"inline": workflow.to_string()},
            }},
        },
    });
    for (field, value) in timing.as_object().into_iter().flatten() {
        check["spec"][field] = value.clone();
    }
    Ok(serde_json::from_value(check)?)
}
