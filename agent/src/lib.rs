//! The agent: does the complete loop of one cluster's HealthChecks, hub or no hub, and tells a hub of it where there is
//! one. `controller` is the loop; the decisions are in `active_monitor_core::decide`.

pub mod accounts;
pub mod capacity;
mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod context;
pub mod controller;
pub mod counters;
pub mod definitions;
pub mod endpoints;
pub mod enrol;
pub mod events;
pub mod gate;
mod guard;
pub mod identity_secret;
pub mod journal;
mod kubeconfig;
pub mod leader;
pub mod link;
pub mod logs;
pub mod looks;
pub mod metrics;
pub mod observe;
pub mod ownership;
mod rebuild;
mod recovery;
pub mod request;
mod runs;
pub mod schema;
pub mod self_test;
#[cfg(test)]
#[path = "../../tests/src/skip.rs"]
#[expect(unreachable_pub, reason = "it is public where it comes from")]
mod skip;
pub mod source;
pub mod states;
mod sweep;
#[cfg(test)]
mod traced;
mod unreadable;
pub mod watches;
pub mod workflows;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::policy::Policy;
use active_monitor_core::scope::Scope;
use active_monitor_runtime::admin::Readiness;
use active_monitor_runtime::tasks::Tasks;
use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::accounts::Accounts;
use crate::accounts::drift::Drift;
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::commands::{Commands, Paused};
use crate::config::Config;
use crate::context::Context;
use crate::events::{Events, REPORTER};
use crate::gate::{Fence, Gate};
use crate::identity_secret::IdentitySecret;
use crate::journal::Journal;
use crate::leader::Candidate;
use crate::link::LinkConfig;
use crate::logs::Logs;
use crate::looks::Looks;
use crate::metrics::Counters;
use crate::ownership::{Contested, Mode};
use crate::request::request;
use crate::schema::StatusFields;
use crate::self_test::Tester;
use crate::source::Sources;
use crate::states::States;
use crate::workflows::Workflows;

/// Time that tasks have to end in an orderly way.
const GRACE: Duration = Duration::from_secs(10);
/// Keys of checks that wait to be looked at because of their workflows.
const WAKE_QUEUE: usize = 1024;
/// The answer to definitions and commands of the hub to an agent that only observes.
const ONLY_OBSERVES: &str = "this agent only observes (--mode observe) and changes nothing in its cluster";
/// Time between two tries to reach the API server at the start.
const START_RETRY: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start (no kubeconfig, journal in use, port taken), or a part of it ended by itself.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let scope = config.scope();
    let policy = config.policy()?;
    let tasks = Tasks::new();
    let readiness = Readiness::default();
    endpoints::serve_metrics(&tasks, config.metrics_bind_address, &config.metrics_security()).await?;
    endpoints::serve_probes(&tasks, config.health_probe_bind_address, readiness.clone()).await?;
    let journal = Journal::open(&config.state_dir.join("journal"), config.journal_max_bytes)
        .await
        .with_context(|| format!("cannot open the journal in {}", config.state_dir.display()))?;
    supervise(&tasks, "journal", say_whether_saved(journal.clone(), readiness.clone()));
    // What a snapshot leaves out is gone for the hub: it waits until every check has been looked at once.
    let states = States::incomplete();
    let contested = Contested::default();
    counters::register();
    let clock = Clock::new(prometheus::default_registry())?;
    metrics::Checks::register(states.clone(), journal.clone(), contested.clone(), clock.clone())?;
    // Who only observes needs no lease, and may not write one.
    let leads = config.leader_elect && config.mode == Mode::Act;
    let counters = Counters::register(prometheus::default_registry())?;
    let sources = Sources::new(config.sources()).await?;
    let kube_config = kubeconfig::read(config.kubeconfig.as_deref()).await?;
    let fence = if leads { Fence::closed() } else { Fence::open() };
    let gate = Gate::new(fence.clone(), clock.clone(), prometheus::default_registry())?;
    let client = client::connect(&kube_config, &gate)?;
    let candidate = match leads {
        true => {
            let duration = Duration::from_secs(config.leader_elect_lease_seconds.into());
            Some(Candidate::new(Client::try_from(kube_config)?, duration, fence))
        }
        false => None,
    };
    // The API server may be long in coming, and a process that is PID 1 ends only by a signal that it listens to.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stop = tasks.stop_token();
    let begin = async {
        if let Some(candidate) = &candidate {
            stand_by(candidate, &tasks, &readiness).await?;
        }
        let cluster = Cluster::read(&client, &scope, &readiness).await;
        if let Some(name) = config.identity_secret.as_ref().filter(|_| leads) {
            let mut secret = IdentitySecret::new(client.clone(), name.clone(), &config.state_dir);
            secret.take().await;
            supervise(&tasks, "identity secret", secret.follow());
        }
        anyhow::Ok(cluster)
    };
    let cluster = tokio::select! {
        cluster = begin => Some(cluster?),
        _ = terminate.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
        () = stop.cancelled() => None,
    };
    match cluster {
        None => tasks.stop(),
        Some(cluster) => {
            tracing::info!(
                kubernetes = cluster.kubernetes_version,
                version = env!("CARGO_PKG_VERSION"),
                "agent starts for its cluster"
            );
            let paused = Paused::open(&config.state_dir);
            let (wake, woken) = mpsc::channel(WAKE_QUEUE);
            let commands = Commands {
                client: client.clone(),
                obedience: config.obedience(),
                paused: paused.clone(),
                states: states.clone(),
                wake: wake.clone(),
                tester: Tester {
                    client: client.clone(),
                    namespace: self_test::namespace(&policy, &scope, client.default_namespace()),
                },
            };
            start_link(&tasks, &config, policy, &cluster, &journal, commands, readiness.clone())?;
            match config.mode {
                Mode::Observe => start_observer(&tasks, scope, client, states, clock, readiness),
                Mode::Act => {
                    let shared = (client, gate, journal, states, contested, clock, paused);
                    let wakes = (wake, woken);
                    start_controller(&tasks, &config, cluster.fields, shared, wakes, sources, counters, readiness)?;
                }
            }
        }
    }
    tasks.run(GRACE).await?;
    // Only here has everything ended that could write.
    if let Some(candidate) = candidate {
        candidate.release().await;
    }
    Ok(())
}

/// Waits until this process leads, and has the lease renewed from then on. A standby is ready: it does all that it
/// shall do.
async fn stand_by(candidate: &Candidate, tasks: &Tasks, readiness: &Readiness) -> anyhow::Result<()> {
    let leads = prometheus::IntGauge::new("activemonitor_agent_leader", "1 where this agent acts, 0 on standby.")?;
    prometheus::register(Box::new(leads.clone()))?;
    readiness.note("leader election", Some("standby".to_owned()));
    readiness.set(true);
    candidate.lead().await;
    readiness.set(false);
    readiness.note("leader election", Some("leader".to_owned()));
    leads.set(1);
    let (candidate, stop) = (candidate.clone(), tasks.stop_token());
    tasks.supervise("leader", async move { candidate.keep(stop).await });
    Ok(())
}

/// What the agent needs to know of its cluster before it starts.
struct Cluster {
    uid: String,
    kubernetes_version: String,
    fields: StatusFields,
}

impl Cluster {
    /// Asks until the API server answers and the CRD is there: an agent that starts before them is a normal thing.
    async fn read(client: &Client, scope: &Scope, readiness: &Readiness) -> Cluster {
        let mut told = String::new();
        loop {
            let error = match Self::try_read(client, scope).await {
                Ok(cluster) => {
                    readiness.note("start", None);
                    return cluster;
                }
                Err(error) if error.is_not_found() => "the HealthCheck CRD is not installed".to_owned(),
                Err(error) => error.to_string(),
            };
            if error != told {
                tracing::warn!(error, "cannot start yet, trying again");
                readiness.note("start", Some(error.clone()));
                told = error;
            }
            tokio::time::sleep(START_RETRY).await;
        }
    }

    async fn try_read(client: &Client, scope: &Scope) -> Result<Cluster, request::RequestError> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        // An agent of some namespaces may read no other than its own, which is in no other cluster either.
        let identifying = match scope {
            Scope::Cluster => "kube-system",
            Scope::Namespaces(_) => client.default_namespace(),
        };
        let uid = request(namespaces.get_metadata(identifying)).await?.metadata.uid.unwrap_or_default();
        let kubernetes_version = request(client.apiserver_version()).await?.git_version;
        let fields = request(StatusFields::read(client, scope)).await?;
        Ok(Cluster { uid, kubernetes_version, fields })
    }
}

fn start_link(
    tasks: &Tasks,
    config: &Config,
    policy: Policy,
    cluster: &Cluster,
    journal: &Journal,
    commands: Commands,
    readiness: Readiness,
) -> anyhow::Result<()> {
    let (Some(hub_address), Some(enrolment_address)) = (&config.hub_address, &config.enrolment_address) else {
        tracing::info!("no --hub-address: the agent works alone");
        return Ok(());
    };
    let token = match &config.token_file {
        Some(path) => Some(
            std::fs::read_to_string(path).with_context(|| format!("cannot read the token in {}", path.display()))?,
        ),
        None => config.token.clone(),
    };
    let link = LinkConfig {
        hub_address: hub_address.clone(),
        enrolment_address: enrolment_address.clone(),
        token: token.map(|token| token.trim().to_owned()),
        state_dir: config.state_dir.clone(),
        cluster_uid: cluster.uid.clone(),
        kubernetes_version: cluster.kubernetes_version.clone(),
        policy: config.settings(&policy),
    };
    let (link, task) = link::start(link, journal.clone(), commands.states.clone(), tasks.stop_token());
    tasks.supervise("link", task);
    supervise(tasks, "enrolment", say_whether_waiting(link.waiting, readiness));
    match config.mode {
        Mode::Act => {
            let client = commands.client.clone();
            let definitions = definitions::run(client, config.scope(), policy, link.definitions, link.statuses);
            supervise(tasks, "definitions", definitions);
            supervise(tasks, "commands", commands.run(link.commands, link.answers, link.self_tests));
        }
        Mode::Observe => {
            let refused = definitions::refuse(ONLY_OBSERVES, link.definitions, link.statuses);
            supervise(tasks, "definitions", refused);
            supervise(tasks, "commands", commands::refuse(ONLY_OBSERVES, link.commands, link.answers));
        }
    }
    Ok(())
}

/// Reports what another controller writes, and does nothing else.
fn start_observer(tasks: &Tasks, scope: Scope, client: Client, states: States, clock: Clock, readiness: Readiness) {
    let (ready, is_ready) = watch::channel(false);
    supervise(tasks, "observer", observe::run(client, scope, states, clock, ready));
    supervise(tasks, "readiness", follow_readiness(is_ready, readiness));
}

async fn follow_readiness(mut is_ready: watch::Receiver<bool>, readiness: Readiness) {
    if is_ready.wait_for(|ready| *ready).await.is_ok() {
        readiness.set(true);
    }
    std::future::pending().await
}

/// What the controller shares with other parts of the agent.
type Shared = (Client, Gate, Journal, States, Contested, Clock, Paused);

#[allow(clippy::too_many_arguments, reason = "what was made before is handed over once")]
fn start_controller(
    tasks: &Tasks,
    config: &Config,
    fields: StatusFields,
    (client, gate, journal, states, contested, clock, paused): Shared,
    (wake, woken): (mpsc::Sender<ObjectRef<HealthCheck>>, mpsc::Receiver<ObjectRef<HealthCheck>>),
    sources: Sources,
    counters: Counters,
    readiness: Readiness,
) -> anyhow::Result<()> {
    let workflows = Workflows::default();
    let scope = config.scope();
    metrics::argo::Argo::register(workflows.clone())?;
    let (listed, workflows_ready) = mpsc::channel(1);
    let (ready, is_ready) = watch::channel(false);
    supervise(tasks, "workflows", workflows.clone().follow(client.clone(), scope.clone(), wake.clone(), listed));
    supervise(tasks, "schema", fields.clone().follow(client.clone(), scope.clone()));
    let accounts = Accounts::new(client.clone(), scope.clone());
    let recorder = Recorder::new(client.clone(), Reporter { controller: REPORTER.into(), instance: None });
    supervise(tasks, "rights", Drift::new(accounts.clone(), recorder, counters.clone()).follow());
    let context = Context {
        accounts,
        capacity: Capacity::new(config.limits(), journal.clone(), wake, prometheus::default_registry())?,
        events: Events::new(client.clone()),
        sources,
        source_policy: config.source_policy(),
        scope,
        logs: config.log_tails.then(|| Logs::new(client.clone(), counters.log_tails.clone())),
        counters,
        client,
        answers: gate.answers(),
        journal,
        states,
        workflows,
        fields,
        ready: is_ready.clone(),
        since: clock.now(),
        clock,
        contested,
        remedies: config.remedies.into(),
        unknown_rights: Mutex::default(),
        paused,
        looks: Looks::default(),
        memory: Mutex::default(),
    };
    let stop = tasks.stop_token();
    let controller = controller::run(Arc::new(context), woken, workflows_ready, ready, config.max_workers, stop);
    supervise(tasks, "controller", controller);
    supervise(tasks, "readiness", follow_readiness(is_ready, readiness));
    Ok(())
}

/// Says at `/readyz` while the journal's disk cannot be written; the agent works all the same.
async fn say_whether_saved(journal: Journal, readiness: Readiness) {
    let mut saved = journal.saved();
    loop {
        let text = (!*saved.borrow_and_update()).then(|| "cannot be written, results are held in memory".to_owned());
        readiness.note("journal", text);
        if saved.changed().await.is_err() {
            return;
        }
    }
}

/// Says at `/readyz` while a person has to approve this agent's enrolment; the agent works all the same.
async fn say_whether_waiting(mut waiting: watch::Receiver<Option<String>>, readiness: Readiness) {
    loop {
        readiness.note("enrolment", waiting.borrow_and_update().clone());
        if waiting.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Runs a part of the agent until the process is asked to stop; if it ends before, so does the process.
fn supervise(tasks: &Tasks, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
    let stop = tasks.stop_token();
    tasks.supervise(name, async move {
        tokio::select! {
            () = part => {}
            () = stop.cancelled() => {}
        }
        Ok::<(), Infallible>(())
    });
}
