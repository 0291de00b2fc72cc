//! The product itself on a testbed: a hub and one agent a cluster, as processes, installed as a user would.
//!
//! An agent runs outside of its cluster, with the token of the ServiceAccount in deploy/agent and so with exactly its
//! rights. The binaries are those beside this one, which `make` builds before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::view::{CheckStatus, CheckView, ClusterAdd, ClusterToken, Page, RunPage, RunView};
use anyhow::{Context as _, bail};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;
use crate::netns::Netns;
use crate::port::PortLease;
use crate::process::Process;
use crate::run_dir::RunDir;
use crate::wait;

const START_LIMIT: Duration = Duration::from_secs(30);

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A binary of the project.
///
/// # Errors
/// When it is not built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build --workspace --bins`"))
}

/// A process that is started by another program, where there is one, which becomes it.
fn launched(launcher: &[String], run: &Arc<RunDir>, dir: &Path, log: &str, binary: PathBuf) -> Process {
    match launcher {
        [] => Process::new(run, dir, log, binary),
        [program, options @ ..] => Process::new(run, dir, log, program).args(options).args([binary]),
    }
}

fn data_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let data = dir.join("hub");
    std::fs::create_dir_all(&data)?;
    Ok(data)
}

fn args(data: &Path, [agents, enrolment, people]: &[String; 3], more: &[&str]) -> Vec<String> {
    let fixed = [
        ("--data-dir", data.display().to_string()),
        ("--agents-listen", agents.clone()),
        ("--enrolment-listen", enrolment.clone()),
        ("--people-listen", people.clone()),
    ];
    let fixed = fixed.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    fixed.chain(more.iter().map(|arg| (*arg).to_owned())).collect()
}

fn http_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10))
}

/// A hub with its embedded store; people's side is plain HTTP on loopback. Dropping it kills it.
pub struct Hub {
    /// Where people reach it.
    pub url: String,
    /// An admin's token.
    pub token: String,
    /// `host:port` of its listener for agents.
    pub agents_address: String,
    /// `host:port` of its listener for enrolment.
    pub enrolment_address: String,
    /// Its process.
    pub process: Process,
    http: reqwest::Client,
    _ports: Vec<PortLease>,
}

impl Hub {
    /// Starts a hub with its data in `<dir>/hub`, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; with the end of its log.
    pub async fn start(run: &Arc<RunDir>, dir: &Path) -> anyhow::Result<Hub> {
        Hub::start_with(run, dir, &[]).await
    }

    /// As [`Hub::start`], with further arguments.
    ///
    /// # Errors
    /// As [`Hub::start`].
    pub async fn start_with(run: &Arc<RunDir>, dir: &Path, more: &[&str]) -> anyhow::Result<Hub> {
        Hub::start_by(&[], run, dir, more).await
    }

    /// As [`Hub::start_with`], by a program that becomes the hub after it has changed what it runs under, such as `env`.
    ///
    /// # Errors
    /// As [`Hub::start`].
    pub async fn start_by(launcher: &[String], run: &Arc<RunDir>, dir: &Path, more: &[&str]) -> anyhow::Result<Hub> {
        crate::init();
        let ports = [PortLease::take()?, PortLease::take()?, PortLease::take()?];
        let addresses = [0, 1, 2].map(|i: usize| format!("127.0.0.1:{}", ports[i].number()));
        let data = data_dir(dir)?;
        let process = launched(launcher, run, dir, "hub", binary("active-monitor-hub")?)
            .args(args(&data, &addresses, more))
            .args(["--people-plaintext"]);
        let client = http_client();
        Hub::ready(process, &data, &addresses, "http", client.build()?, ports.into()).await
    }

    /// As [`Hub::start_with`], on a host of its own: agents reach it over the link that can be made bad.
    ///
    /// # Errors
    /// As [`Hub::start`].
    pub async fn start_in(netns: &Netns, run: &Arc<RunDir>, dir: &Path, more: &[&str]) -> anyhow::Result<Hub> {
        crate::init();
        let (agents, people) = (netns.faulty_address(), netns.good_address());
        let addresses = [format!("{agents}:7443"), format!("{agents}:7444"), format!("{people}:8443")];
        let data = data_dir(dir)?;
        let process = Process::new(run, dir, "hub", "ip")
            .args(netns.exec(&binary("active-monitor-hub")?))
            .args(args(&data, &addresses, more));
        process.start()?;
        let ca = data.join("ca.crt");
        let ca = process.until("CA", START_LIMIT, || async { Ok(std::fs::read(&ca).ok()) }).await?;
        let client = http_client().tls_certs_only([reqwest::Certificate::from_pem(&ca)?]);
        Hub::ready(process, &data, &addresses, "https", client.build()?, Vec::new()).await
    }

    async fn ready(
        process: Process,
        data: &Path,
        [agents, enrolment, people]: &[String; 3],
        scheme: &str,
        http: reqwest::Client,
        ports: Vec<PortLease>,
    ) -> anyhow::Result<Hub> {
        process.start()?;
        let token = data.join("admin-token");
        let read = || async { Ok(std::fs::read_to_string(&token).ok().filter(|text| !text.trim().is_empty())) };
        let token = process.until("admin token", START_LIMIT, read).await?.trim().to_owned();
        let url = format!("{scheme}://{people}");
        let (agents_address, enrolment_address) = (agents.clone(), enrolment.clone());
        let hub = Hub { url, token, agents_address, enrolment_address, process, http, _ports: ports };
        hub.wait_until_ready().await?;
        Ok(hub)
    }

    /// Waits until people are answered.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let ask = || async { self.get::<serde_json::Value>("/api/v1/me").await.map(Some) };
        self.process.until("ready hub", START_LIMIT, ask).await.map(drop)
    }

    /// Kills the hub as a power cut would.
    pub fn kill(&self) {
        self.process.stop();
    }

    /// Starts a killed hub with its old data and addresses.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.process.start()?;
        self.wait_until_ready().await
    }

    /// A request with the admin's token; gives the answer's text.
    ///
    /// # Errors
    /// When there is no answer, or one that is no success: with its text.
    pub async fn request(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> anyhow::Result<String> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{path}: {status}: {text}");
        }
        Ok(if status == StatusCode::NO_CONTENT { "null".to_owned() } else { text })
    }

    /// Reads an object of the API.
    ///
    /// # Errors
    /// When there is no answer, or not this object.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let text = self.request(Method::GET, path, None::<&()>).await?;
        serde_json::from_str(&text).with_context(|| format!("{path}: unexpected answer {text:.200}"))
    }

    /// Every check, or those that the query picks.
    ///
    /// # Errors
    /// As [`Hub::get`].
    pub async fn checks(&self, query: &str) -> anyhow::Result<Vec<CheckView>> {
        let page: Page<CheckView> = self.get(&format!("/api/v1/checks?limit=10000&{query}")).await?;
        anyhow::ensure!(page.next.is_none(), "more than a page of checks");
        Ok(page.items)
    }

    /// The status of one check; `None` while the hub does not know it.
    ///
    /// # Errors
    /// As [`Hub::get`].
    pub async fn check_status(&self, cluster: &str, name: &str) -> anyhow::Result<Option<CheckStatus>> {
        let checks = self.checks(&format!("cluster={cluster}&name={name}")).await?;
        Ok(checks.first().map(|check| check.status))
    }

    /// The whole history, newest first.
    ///
    /// # Errors
    /// As [`Hub::get`].
    pub async fn history(&self, query: &str) -> anyhow::Result<Vec<RunView>> {
        let mut runs = Vec::new();
        let mut before = None::<i64>;
        loop {
            let from = before.map(|id| format!("&before={id}")).unwrap_or_default();
            let page: RunPage = self.get(&format!("/api/v1/runs?limit=1000&{query}{from}")).await?;
            runs.extend(page.items);
            before = page.next;
            if before.is_none() {
                return Ok(runs);
            }
        }
    }

    /// The text for Prometheus.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        self.request(Method::GET, "/metrics", None::<&()>).await
    }

    /// Adds a cluster; gives its one-time token.
    ///
    /// # Errors
    /// When the hub refuses.
    pub async fn add_cluster(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<ClusterToken> {
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let body = ClusterAdd { name: name.to_owned(), labels, annotations: BTreeMap::new() };
        let text = self.request(Method::POST, "/api/v1/clusters", Some(&body)).await?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Which HealthCheck CRD a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crd {
    /// The project's.
    Ours,
    /// active-monitor's, from `../shared/upstream`.
    Upstream,
}

/// The folder with what others wrote; `None` in a user's checkout.
pub fn upstream() -> Option<PathBuf> {
    let folder = project().join("../shared/upstream");
    folder.is_dir().then_some(folder)
}

/// An agent's process. Dropping it kills it.
pub struct Agent {
    /// The cluster's name at the hub.
    pub name: String,
    /// Its process.
    pub process: Process,
    /// Where its `/metrics` is.
    pub metrics_url: String,
    /// Where its `/readyz` is.
    pub ready_url: String,
    /// Where its state is.
    pub state_dir: PathBuf,
    _ports: [PortLease; 2],
}

impl Agent {
    /// Installs the CRD, the rights and the namespace `health` in a cluster.
    ///
    /// # Errors
    /// When the API server refuses something.
    pub async fn install(cluster: &Cluster, crd: Crd) -> anyhow::Result<()> {
        let crd = match crd {
            Crd::Ours => project().join("deploy/crds/healthchecks.yaml"),
            Crd::Upstream => upstream().context("no ../shared/upstream")?.join("crd-healthchecks.yaml"),
        };
        let rights = ["00-namespaces.yaml", "rbac.yaml", "remedies-health.yaml", "logs-health.yaml"];
        let rights = rights.map(|file| project().join("deploy/agent").join(file));
        for file in [crd].into_iter().chain(rights) {
            cluster.apply_yaml(&std::fs::read_to_string(&file)?).await.with_context(|| file.display().to_string())?;
        }
        let wait = ["wait", "--for=condition=Established", "crd/healthchecks.activemonitor.keikoproj.io"];
        cluster.kubectl(&wait).await.map(drop)
    }

    /// Starts an agent for a cluster, with the rights of its ServiceAccount; with `join`, it enrols at that hub.
    ///
    /// # Errors
    /// When its token or its process cannot be had.
    pub async fn start(cluster: &Cluster, name: &str, join: Option<&ClusterToken>) -> anyhow::Result<Agent> {
        Agent::start_with(cluster, name, join, &[]).await
    }

    /// As [`Agent::start`], with further arguments.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub async fn start_with(
        cluster: &Cluster,
        name: &str,
        join: Option<&ClusterToken>,
        more: &[&str],
    ) -> anyhow::Result<Agent> {
        let kubeconfig = cluster.service_account_kubeconfig("active-monitor", "active-monitor-agent").await?;
        Agent::spawn(cluster.run(), &cluster.dir, &kubeconfig, name, join, more)
    }

    /// Starts an agent for any cluster that the kubeconfig is for; its log and its state are in `dir`.
    ///
    /// # Errors
    /// When its process cannot be had.
    pub fn spawn(
        run: &Arc<RunDir>,
        dir: &Path,
        kubeconfig: &Path,
        name: &str,
        join: Option<&ClusterToken>,
        more: &[&str],
    ) -> anyhow::Result<Agent> {
        Agent::spawn_by(&[], run, dir, kubeconfig, name, join, more)
    }

    /// As [`Agent::spawn`], by a program that becomes the agent after it has changed what it runs under, such as `env`
    /// or `prlimit`.
    ///
    /// # Errors
    /// As [`Agent::spawn`].
    pub fn spawn_by(
        launcher: &[String],
        run: &Arc<RunDir>,
        dir: &Path,
        kubeconfig: &Path,
        name: &str,
        join: Option<&ClusterToken>,
        more: &[&str],
    ) -> anyhow::Result<Agent> {
        let ports = [PortLease::take()?, PortLease::take()?];
        let state_dir = dir.join(format!("agent-{name}"));
        let mut args: Vec<String> = vec![
            "--kubeconfig".into(),
            kubeconfig.display().to_string(),
            "--state-dir".into(),
            state_dir.display().to_string(),
            "--metrics-bind-address".into(),
            format!("127.0.0.1:{}", ports[0].number()),
            "--health-probe-bind-address".into(),
            format!("127.0.0.1:{}", ports[1].number()),
            "--log-format=text".into(),
        ];
        if !more.iter().any(|arg| arg.starts_with("--policy-file")) {
            args.push("--definitions-namespace=health".into());
        }
        if let Some(token) = join {
            args.extend(["--hub-address".into(), token.agent_address.clone()]);
            args.extend(["--enrolment-address".into(), token.enrolment_address.clone()]);
            args.extend(["--token".into(), token.token.clone()]);
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let binary = binary("active-monitor-agent")?;
        let log = format!("agent-{name}");
        let process = launched(launcher, run, dir, &log, binary).args(args);
        process.start()?;
        let metrics_url = format!("http://127.0.0.1:{}/metrics", ports[0].number());
        let ready_url = format!("http://127.0.0.1:{}/readyz", ports[1].number());
        Ok(Agent { name: name.to_owned(), process, metrics_url, ready_url, state_dir, _ports: ports })
    }

    /// Installs, adds the cluster to the hub and starts the agent.
    ///
    /// # Errors
    /// When one of these fails.
    pub async fn join(cluster: &Cluster, hub: &Hub, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<Agent> {
        Agent::install(cluster, Crd::Ours).await?;
        let token = hub.add_cluster(name, labels).await?;
        Agent::start(cluster, name, Some(&token)).await
    }

    /// Waits until the hub says that this cluster is connected.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub async fn wait_until_connected(&self, hub: &Hub) -> anyhow::Result<()> {
        let path = format!("/api/v1/clusters/{}", self.name);
        let path = &path;
        let ask = || async move {
            let cluster: active_monitor_core::view::ClusterView = hub.get(path).await?;
            Ok((cluster.status == active_monitor_core::view::ClusterStatus::Connected).then_some(()))
        };
        self.process.until("connection to the hub", START_LIMIT, ask).await
    }
}

/// Waits until a check has this status at the hub.
///
/// # Errors
/// When the limit passes first.
pub async fn until_status(
    hub: &Hub,
    cluster: &str,
    name: &str,
    status: CheckStatus,
    limit: Duration,
) -> anyhow::Result<()> {
    wait::until(&format!("{cluster}/{name} in status {}", status.as_str()), limit, || async {
        Ok((hub.check_status(cluster, name).await? == Some(status)).then_some(()))
    })
    .await
}
