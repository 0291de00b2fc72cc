//! The agent: does the complete loop of one cluster's HealthChecks, hub or no hub, and tells a hub of it where there is
//! one. `controller` is the loop; the decisions are in `active_monitor_core::decide`.

pub mod accounts;
pub mod config;
pub mod context;
pub mod controller;
pub mod definitions;
pub mod enrol;
pub mod journal;
pub mod link;
pub mod metrics;
pub mod request;
mod runs;
pub mod schema;
pub mod source;
pub mod states;
mod sweep;
pub mod workflows;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_runtime::admin::{self, Readiness};
use active_monitor_runtime::tasks::Tasks;
use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::accounts::Accounts;
use crate::config::Config;
use crate::context::Context;
use crate::journal::Journal;
use crate::link::LinkConfig;
use crate::request::request;
use crate::schema::StatusFields;
use crate::source::Sources;
use crate::states::States;
use crate::workflows::Workflows;

/// Time that tasks have to end in an orderly way.
const GRACE: Duration = Duration::from_secs(10);
/// Keys of checks that wait to be looked at because of their workflows.
const WAKE_QUEUE: usize = 1024;
/// Time between two tries to reach the API server at the start.
const START_RETRY: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start (no kubeconfig, journal in use, port taken), or a part of it ended by itself.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let readiness = Readiness::default();
    for address in [config.metrics_bind_address, config.health_probe_bind_address] {
        serve_admin(&tasks, address, readiness.clone()).await?;
    }
    let journal = Journal::open(&config.state_dir.join("journal"), config.journal_max_bytes)
        .await
        .with_context(|| format!("cannot open the journal in {}", config.state_dir.display()))?;
    // What a snapshot leaves out is gone for the hub: it waits until every check has been looked at once.
    let states = States::incomplete();
    metrics::Checks::register(states.clone(), journal.clone())?;
    let client = client(&config).await?;
    // The API server may be long in coming, and a process that is PID 1 ends only by a signal that it listens to.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let cluster = tokio::select! {
        cluster = Cluster::read(&client) => cluster,
        _ = terminate.recv() => return Ok(()),
        _ = tokio::signal::ctrl_c() => return Ok(()),
    };
    tracing::info!(
        kubernetes = cluster.kubernetes_version,
        version = env!("CARGO_PKG_VERSION"),
        "agent starts for its cluster"
    );
    start_link(&tasks, &config, &cluster, &client, &journal, &states)?;
    start_controller(&tasks, &config, cluster.fields, client, journal, states, readiness)?;
    tasks.run(GRACE).await?;
    Ok(())
}

async fn client(config: &Config) -> anyhow::Result<Client> {
    let kube_config = match &config.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::incluster().context("not in a pod and no kubeconfig given; use --kubeconfig FILE")?,
    };
    Ok(Client::try_from(kube_config)?)
}

/// What the agent needs to know of its cluster before it starts.
struct Cluster {
    uid: String,
    kubernetes_version: String,
    fields: StatusFields,
}

impl Cluster {
    /// Asks until the API server answers: an agent that starts before it is a normal thing.
    async fn read(client: &Client) -> Cluster {
        loop {
            match Self::try_read(client).await {
                Ok(cluster) => return cluster,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the cluster yet: API server, HealthCheck CRD or rights are missing");
                    tokio::time::sleep(START_RETRY).await;
                }
            }
        }
    }

    async fn try_read(client: &Client) -> Result<Cluster, request::RequestError> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let uid = request(namespaces.get_metadata("kube-system")).await?.metadata.uid.unwrap_or_default();
        let kubernetes_version = request(client.apiserver_version()).await?.git_version;
        let fields = request(StatusFields::read(client)).await?;
        Ok(Cluster { uid, kubernetes_version, fields })
    }
}

fn start_link(
    tasks: &Tasks,
    config: &Config,
    cluster: &Cluster,
    client: &Client,
    journal: &Journal,
    states: &States,
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
    };
    let (link, task) = link::start(link, journal.clone(), states.clone(), tasks.stop_token());
    tasks.supervise("link", task);
    let definitions = definitions::run(client.clone(), config.policy(), link.definitions, link.statuses);
    supervise(tasks, "definitions", definitions);
    Ok(())
}

fn start_controller(
    tasks: &Tasks,
    config: &Config,
    fields: StatusFields,
    client: Client,
    journal: Journal,
    states: States,
    readiness: Readiness,
) -> anyhow::Result<()> {
    let workflows = Workflows::default();
    let (wake, woken) = mpsc::channel(WAKE_QUEUE);
    let (listed, workflows_ready) = mpsc::channel(1);
    let (ready, is_ready) = watch::channel(false);
    supervise(tasks, "workflows", workflows.clone().follow(client.clone(), wake, listed));
    supervise(tasks, "schema", fields.clone().follow(client.clone()));
    let context = Context {
        accounts: Accounts::new(client.clone()),
        recorder: Recorder::new(client.clone(), Reporter { controller: "active-monitor-agent".into(), instance: None }),
        sources: Sources::new(config.source_allow_private)?,
        client,
        journal,
        states,
        workflows,
        fields,
        ready: is_ready.clone(),
        memory: Mutex::default(),
    };
    let stop = tasks.stop_token();
    let controller = controller::run(Arc::new(context), woken, workflows_ready, ready, config.max_workers, stop);
    supervise(tasks, "controller", controller);
    supervise(tasks, "readiness", async move {
        let mut is_ready = is_ready;
        if is_ready.wait_for(|ready| *ready).await.is_ok() {
            readiness.set(true);
        }
        std::future::pending().await
    });
    Ok(())
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

async fn serve_admin(tasks: &Tasks, address: SocketAddr, readiness: Readiness) -> anyhow::Result<()> {
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let stop = tasks.stop_token();
    tasks.supervise("admin", async move {
        axum::serve(listener, admin::router(readiness)).with_graceful_shutdown(stop.cancelled_owned()).await
    });
    Ok(())
}
