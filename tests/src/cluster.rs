//! One Kubernetes cluster on loopback: etcd, API server, controller manager and Argo's workflow controller.
//!
//! May touch its folder in the run folder, the loopback ports it leases, and its own programs.

mod control_plane;
mod kubeconfig;
pub mod pki;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use http::{HeaderName, HeaderValue, Request};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::ClusterRole,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::OnceCell;

pub use self::control_plane::argoexec_image;
use self::{
    control_plane::{ARGO_NAMESPACE, Blueprint},
    kubeconfig::Credentials,
    pki::Pki,
};
use crate::{
    audit,
    port::PortLease,
    process::{self, Process},
    programs::{Program, Programs},
    run_dir::RunDir,
};

/// The range of the cluster's service addresses.
pub const SERVICE_CIDR: &str = "10.0.0.0/24";
/// The service address of the API server, `kubernetes.default`; its certificate is valid for it.
pub const SERVICE_IP: &str = "10.0.0.1";
/// The instance id that Argo's controller answers to: the value of the label [`INSTANCE_ID_LABEL`].
pub const INSTANCE_ID: &str = "activemonitor-workflows";
/// Workflows without this label, or with another value, are left alone.
pub const INSTANCE_ID_LABEL: &str = "workflows.argoproj.io/controller-instanceid";
/// The user agent of the testbed's own admin client in the audit log.
pub const ADMIN_USER_AGENT: &str = "active-monitor-testbed";

const START_LIMIT: Duration = Duration::from_secs(120);
const TOKEN_SECONDS: i64 = 24 * 3600;

/// A running cluster. Dropping it kills its programs.
///
/// The programs are public: `stop` is a kill -9, `start` starts it again with its old state and ports, and
/// `signal` pauses (STOP) and resumes (CONT).
pub struct Cluster {
    /// Its name, `cluster-1` and so on.
    pub name: String,
    /// Its folder: certificates, kubeconfigs, logs, state.
    pub dir: PathBuf,
    /// The API server's URL.
    pub server: String,
    /// The API server's port on 127.0.0.1.
    pub port: u16,
    /// The certificate of the authority behind all its certificates, PEM.
    pub ca_file: PathBuf,
    /// The kubeconfig of the admin, who is in `system:masters`.
    pub kubeconfig: PathBuf,
    /// The audit log; read it with [`Cluster::audit`].
    pub audit_log: PathBuf,
    /// The programs it was started with.
    pub programs: Programs,
    /// Its authority, to make more certificates.
    pub pki: Pki,
    /// The workflow controller.
    pub argo: Process,
    /// The controller manager.
    pub controller_manager: Process,
    /// The API server.
    pub apiserver: Process,
    /// The API server's store.
    pub etcd: Process,
    config: Config,
    etcd_url: String,
    audited: audit::Log,
    // Of the runtime that asks first: a cluster belongs to one test.
    reader: OnceCell<Client>,
    _ports: [PortLease; 3],
    run: Arc<RunDir>,
}

impl Cluster {
    /// Starts a cluster in a folder of the run and waits until all its parts work. With `node`, all controllers run,
    /// not only those of use without one.
    ///
    /// # Errors
    /// When a part does not come up in time; with the end of its log.
    pub async fn start(run: &Arc<RunDir>, programs: &Programs, name: &str, node: bool) -> anyhow::Result<Self> {
        crate::init();
        let cluster =
            Self::prepare(run, programs, name, node).await.with_context(|| format!("cannot prepare {name}"))?;
        cluster.bring_up().await.with_context(|| format!("cannot start {name}"))?;
        Ok(cluster)
    }

    /// A new admin client, for the runtime of the caller. Its user agent is [`ADMIN_USER_AGENT`].
    ///
    /// # Errors
    /// When the client's TLS cannot be set up.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }

    /// Reads the audit log up to its last complete line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn audit(&self) -> anyhow::Result<Vec<audit::Event>> {
        self.audited.events().with_context(|| format!("cannot read the audit log of {}", self.name))
    }

    /// Reads an object or a list as the admin, by its path below the API server's URL. It takes a fraction of the time,
    /// and of the machine, that `kubectl get` does: this is what a test asks while it waits.
    ///
    /// # Errors
    /// When there is no such object, or no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let client = self.reader.get_or_try_init(|| async { self.client() }).await?;
        client.request(Request::get(path).body(Vec::new())?).await.with_context(|| format!("cannot get {path}"))
    }

    /// Reads a HealthCheck as the admin.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub async fn health_check(&self, namespace: &str, name: &str) -> anyhow::Result<serde_json::Value> {
        let group = "/apis/activemonitor.keikoproj.io/v1alpha1";
        self.get(&format!("{group}/namespaces/{namespace}/healthchecks/{name}")).await
    }

    /// Reads the Workflows of a namespace as the admin.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub async fn workflows(&self, namespace: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let list = self.get(&format!("/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows")).await?;
        list["items"].as_array().cloned().context("no list of workflows")
    }

    /// Runs `kubectl` as the admin and gives its stdout.
    ///
    /// # Errors
    /// When it fails; with its stderr.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl_as(&self.kubeconfig, args, "").await
    }

    /// Runs `kubectl` with another kubeconfig and with `stdin`, and gives its stdout.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub async fn kubectl_as(&self, kubeconfig: &Path, args: &[&str], stdin: &str) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(self.programs.path(Program::Kubectl));
        // The cache of the API's kinds is kept per cluster: a port may have been another cluster's an hour ago.
        command.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(self.dir.join("kubectl-cache")).args(args);
        process::output(&self.run, command, stdin).await
    }

    /// Applies all documents of a YAML text, server-side, as the admin.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn apply_yaml(&self, text: &str) -> anyhow::Result<()> {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl_as(&self.kubeconfig, &args, text).await.map(drop)
    }

    /// Asks for a token of an existing service account and writes a kubeconfig with it; valid for a day.
    ///
    /// # Errors
    /// When there is no such service account.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.service_account_token(namespace, name).await?;
        let path = self.dir.join(format!("{namespace}-{name}.kubeconfig"));
        self.write_kubeconfig(&path, Credentials::Token(&token), namespace)?;
        Ok(path)
    }

    /// Asks for a token of an existing service account; valid for a day.
    ///
    /// # Errors
    /// When there is no such service account.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..Default::default() };
        let request = TokenRequest { spec, ..Default::default() };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("no token for service account {namespace}/{name}"))?;
        Ok(answer.status.context("a token request was answered without a token")?.token)
    }

    /// Makes a client certificate for any user in any group and writes a kubeconfig with it; `file_stem` names the
    /// files.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn user_kubeconfig(&self, file_stem: &str, user: &str, group: &str) -> anyhow::Result<PathBuf> {
        let cert = self.pki.client(file_stem, user, group)?;
        let path = self.dir.join(format!("{file_stem}.kubeconfig"));
        self.write_kubeconfig(&path, Credentials::Cert(&cert), "default")?;
        Ok(path)
    }

    /// Describes a further program that lives and dies with the cluster; it logs into [`Cluster::dir`].
    pub fn process(&self, name: &str, program: impl Into<PathBuf>) -> Process {
        Process::new(&self.run, &self.dir, name, program)
    }

    /// The run that the cluster belongs to.
    pub fn run(&self) -> &Arc<RunDir> {
        &self.run
    }

    /// Kills the API server. Its port stays taken: connections are refused.
    pub fn stop_apiserver(&self) {
        self.apiserver.stop();
    }

    /// Starts the API server again and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; with the end of its log.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        self.apiserver.start()?;
        let client = self.client()?;
        let ask = || async {
            let request = Request::get("/readyz").body(Vec::new())?;
            Ok((client.request_text(request).await?.trim() == "ok").then_some(()))
        };
        self.apiserver.until("ready API server", START_LIMIT, ask).await
    }

    /// Has etcd forget all that was before now, as the API server has it do every five minutes. Gives the revision.
    ///
    /// # Errors
    /// When etcd does not.
    pub async fn compact_etcd(&self) -> anyhow::Result<i64> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let ask = async |call: &str, body: serde_json::Value| {
            let answer = client.post(format!("{}/v3/kv/{call}", self.etcd_url)).json(&body).send().await?;
            anyhow::Ok(answer.error_for_status()?.json::<serde_json::Value>().await?)
        };
        // Of the key "/", of which there is none: each answer says how far etcd is.
        let answer = ask("range", serde_json::json!({"key": "Lw=="})).await?;
        let revision: i64 = answer["header"]["revision"].as_str().context("etcd gives no revision")?.parse()?;
        ask("compaction", serde_json::json!({"revision": revision.to_string(), "physical": true})).await?;
        Ok(revision)
    }

    /// Kills the workflow controller.
    pub fn stop_argo(&self) {
        self.argo.stop();
    }

    /// Starts the workflow controller and waits until it has seen what there is.
    ///
    /// # Errors
    /// When it does not get that far; with the end of its log.
    pub async fn start_argo(&self) -> anyhow::Result<()> {
        let from_byte = self.argo.log_bytes();
        self.argo.start()?;
        // It says so once its caches are filled, and nothing later in its start.
        self.argo.until_logged("Starting CronWorkflow controller", from_byte, START_LIMIT).await
    }

    async fn prepare(run: &Arc<RunDir>, programs: &Programs, name: &str, node: bool) -> anyhow::Result<Self> {
        let dir = run.path().join(name);
        fs::create_dir_all(&dir)?;
        let pki = Pki::new(&dir.join("pki"))?;
        let ports = [PortLease::take()?, PortLease::take()?, PortLease::take()?];
        let [api_port, etcd_port, etcd_peer_port] = &ports;
        let server = format!("https://127.0.0.1:{}", api_port.number());
        let audit_log = dir.join("audit.log");
        let admin_token = hex::encode(rand::random::<[u8; 16]>());
        let token_key = pki.token_key()?;

        let blueprint = Blueprint { run, programs, dir: &dir, name, server: &server, pki: &pki, node };
        let etcd = blueprint.etcd(etcd_port, etcd_peer_port);
        let apiserver = blueprint.apiserver(api_port, etcd_port, &admin_token, &audit_log, &token_key)?;
        let controller_manager = blueprint.controller_manager(&token_key)?;
        let argo = blueprint.argo()?;

        let kubeconfig = dir.join("admin.kubeconfig");
        let ca_file = pki.ca_file();
        kubeconfig::write(&kubeconfig, name, (&server, &ca_file), Credentials::Token(&admin_token), "default")?;
        Ok(Self {
            name: name.to_owned(),
            port: api_port.number(),
            config: admin_config(&kubeconfig).await?,
            etcd_url: format!("http://127.0.0.1:{}", etcd_port.number()),
            audited: audit::Log::new(&audit_log),
            reader: OnceCell::new(),
            programs: programs.clone(),
            run: Arc::clone(run),
            _ports: ports,
            dir,
            server,
            ca_file,
            kubeconfig,
            audit_log,
            pki,
            argo,
            controller_manager,
            apiserver,
            etcd,
        })
    }

    async fn bring_up(&self) -> anyhow::Result<()> {
        self.etcd.start()?;
        if let Err(error) = self.start_apiserver().await {
            return Err(error.context(format!("the end of etcd's log: {}", self.etcd.log_tail())));
        }
        // It would give up if it were started before there is an API server.
        self.controller_manager.start()?;
        self.install_argo().await?;
        tokio::try_join!(self.start_argo(), self.controllers_work())?;
        Ok(())
    }

    async fn install_argo(&self) -> anyhow::Result<()> {
        let crds = self.programs.argo_crds();
        let crds = crds.to_str().context("the cache's path is not UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", crds]).await?;
        let limit = format!("--timeout={}s", START_LIMIT.as_secs());
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", &limit]).await?;
        let text = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {ARGO_NAMESPACE}}}}}\n---\n\
             apiVersion: v1\nkind: ConfigMap\n\
             metadata: {{name: workflow-controller-configmap, namespace: {ARGO_NAMESPACE}}}\n\
             data:\n  instanceID: {INSTANCE_ID}\n  metricsConfig: '{{enabled: false}}'\n"
        );
        self.apply_yaml(&text).await
    }

    /// Until aggregated roles are filled, whoever holds one is refused everything; until a namespace gets its
    /// service account, pods are.
    async fn controllers_work(&self) -> anyhow::Result<()> {
        let client = self.client()?;
        let roles: Api<ClusterRole> = Api::all(client.clone());
        let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
        let ask = || async {
            let rules = roles.get("view").await?.rules.unwrap_or_default();
            ensure!(!rules.is_empty(), "the aggregated cluster role `view` has no rules");
            Ok(accounts.get_opt("default").await?.map(drop))
        };
        self.controller_manager.until("working controllers", START_LIMIT, ask).await
    }

    fn write_kubeconfig(&self, path: &Path, credentials: Credentials<'_>, namespace: &str) -> anyhow::Result<()> {
        let at = (self.server.as_str(), self.ca_file.as_path());
        kubeconfig::write(path, &self.name, at, credentials, namespace).context("cannot write a kubeconfig")
    }
}

async fn admin_config(kubeconfig: &Path) -> anyhow::Result<Config> {
    let parsed = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
    config.headers.push((HeaderName::from_static("user-agent"), HeaderValue::from_static(ADMIN_USER_AGENT)));
    Ok(config)
}
