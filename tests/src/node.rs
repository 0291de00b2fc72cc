//! A real node for one cluster: kubelet, containerd and the images of checks, so that the pods of workflows run.
//!
//! The node lives in mount, network and process namespaces of its own, as a container would. Whatever it mounts,
//! starts or configures there ends with them, however its owner ends. On the machine itself it may touch its run
//! folder, one virtual network link with the addresses of [`net`], its cgroup, and its lock file. Its pods reach the
//! API server and each other, and nothing else.

mod config;
mod image;
mod lock;
pub mod net;
mod requirements;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1;
use kube::{Api, Client, api::DeleteParams};
use tokio::process::Command;

use self::lock::NodeLock;
pub use self::{
    image::DNS_IMAGE,
    lock::LockError,
    requirements::{Missing, PACKAGES, requirements},
};
use crate::{
    cluster::Cluster,
    process::{self, Process},
    programs::{Program, Programs},
    run_dir::RunDir,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A node that is part of a cluster. Dropping it kills its programs and pods and undoes what it did to the machine;
/// [`Node::stop`] takes it out of the cluster too.
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// The container runtime's images and containers, the kubelet's state, all logs.
    pub dir: PathBuf,
    nodes: Api<v1::Node>,
    // The namespaces come first: the kernel kills whatever is in them when they end.
    _namespaces: Process,
    _inside: Vec<Process>,
    _outside: Vec<Process>,
    run: Arc<RunDir>,
    _lock: NodeLock,
}

impl Node {
    /// Gives the node the image of a target of `deploy/Dockerfile`, `agent` or `hub`, with the binary that is built.
    ///
    /// # Errors
    /// When the binary is not built, or the image cannot be made of it.
    pub async fn add_image(&self, target: &str) -> anyhow::Result<()> {
        let registry = image::Registry::new(&config::registry_url())?;
        image::push_own(&self.run, &self.dir.join("own-images"), target, &registry).await
    }

    /// Ends the node, with all its pods, and removes it from the cluster.
    ///
    /// # Errors
    /// When the API server does not take the removal; the node has ended all the same.
    pub async fn stop(self) -> anyhow::Result<()> {
        let (name, nodes) = (self.name.clone(), self.nodes.clone());
        drop(self);
        nodes.delete(&name, &DeleteParams::default()).await.with_context(|| format!("cannot remove node {name}"))?;
        Ok(())
    }
}

/// Adds a node to a cluster that was started for one, and waits until it takes pods. The programs must have been
/// built with [`Program::NODE`].
///
/// # Errors
/// [`Missing`] when the machine lacks something, [`LockError`] when another node runs on it, else when a part does
/// not come up in time; with the end of its log.
pub async fn join(cluster: &Cluster, programs: &Programs) -> anyhow::Result<Node> {
    crate::init();
    requirements()?;
    let lock = NodeLock::take()?;
    let run = Arc::new(RunDir::create()?);
    let dir = run.path().join("node");
    fs::create_dir_all(&dir)?;
    run.add_cleanup(config::CLEANUP)?;

    let name = format!("{}-node", cluster.name);
    let parts = Parts { cluster, programs, run: &run, dir: &dir, name: &name };
    let snapshotter = parts.snapshotter().await?;
    parts.write_config(snapshotter).context("cannot write the node's configuration")?;
    let namespaces = parts.namespaces().await?;
    let mut outside = vec![parts.api_socket()];
    let mut inside = vec![parts.inside(&namespaces, "api-for-pods", "socat")?.args(config::api_for_pods(&dir))];
    for process in outside.iter().chain(&inside) {
        process.start()?;
    }
    let (registry, containerd) = tokio::try_join!(parts.registry(&namespaces), parts.containerd(&namespaces))?;
    inside.extend([registry, containerd]);
    outside.push(parts.scheduler()?);
    let client = cluster.client()?;
    inside.push(parts.kubelet(&namespaces, &client).await?);

    let nodes = Api::all(client);
    Ok(Node { name, dir, nodes, _namespaces: namespaces, _inside: inside, _outside: outside, run, _lock: lock })
}

/// What the parts of one node are made from.
struct Parts<'a> {
    cluster: &'a Cluster,
    programs: &'a Programs,
    run: &'a Arc<RunDir>,
    dir: &'a Path,
    name: &'a str,
}

impl Parts<'_> {
    /// How containerd lays a container's files over its image's: not every system lets it mount that.
    async fn snapshotter(&self) -> anyhow::Result<&'static str> {
        let place = self.dir.join("overlay");
        fs::create_dir_all(&place)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", config::TRY_OVERLAY]).current_dir(&place);
        Ok(if process::output(self.run, command, "").await.is_ok() { "overlayfs" } else { "native" })
    }

    fn write_config(&self, snapshotter: &str) -> anyhow::Result<()> {
        let kubeconfig =
            self.cluster.user_kubeconfig("kubelet", &format!("system:node:{}", self.name), "system:nodes")?;
        // The kubelet's loopback is not the API server's: it takes the way of the pods.
        let kubeconfig = fs::read_to_string(kubeconfig)?.replace(&self.cluster.server, &config::api_server_url());
        fs::write(self.dir.join("kubelet.kubeconfig"), kubeconfig)?;
        config::write(self.dir, &self.cluster.ca_file, snapshotter)?;
        Ok(())
    }

    /// Makes the namespaces, and the link into them.
    async fn namespaces(&self) -> anyhow::Result<Process> {
        let namespaces = self.outside("namespaces", "unshare").args(config::NAMESPACES).args([
            "sh".into(),
            self.dir.join(config::INIT).into_os_string(),
            self.dir.as_os_str().to_owned(),
        ]);
        namespaces.start()?;
        namespaces.until_logged(config::INIT_DONE, 0, LIMIT).await?;
        let pid = namespaces.pid().context("the node's namespaces have ended")?;
        for script in [net::link_outside(pid), enter(pid, &net::link_inside())] {
            let mut command = Command::new("sh");
            command.args(["-ec", &script]);
            process::output(self.run, command, "").await.context("cannot link the node to the machine")?;
        }
        Ok(namespaces)
    }

    fn outside(&self, name: &str, program: impl Into<PathBuf>) -> Process {
        Process::new(self.run, self.dir, name, program)
    }

    /// Describes a program in the namespaces. It dies with them: stopping the process alone leaves it.
    fn inside(&self, namespaces: &Process, name: &str, program: impl Into<PathBuf>) -> anyhow::Result<Process> {
        let pid = namespaces.pid().context("the node's namespaces have ended")?;
        Ok(self.outside(name, "nsenter").args(net::enter_args(pid)).args([program.into()]))
    }

    /// The API server as a socket file, which a network namespace does not hide.
    fn api_socket(&self) -> Process {
        self.outside("api-socket", "socat").args(config::api_socket(self.dir, self.cluster.port))
    }

    async fn registry(&self, namespaces: &Process) -> anyhow::Result<Process> {
        let registry = self.inside(namespaces, "registry", "docker-registry")?;
        let registry = registry.args(["serve".into(), self.dir.join(config::REGISTRY)]);
        registry.start()?;
        let client = image::Registry::new(&config::registry_url())?;
        registry.until("answer of the image registry", LIMIT, || client.answers()).await?;
        image::push_all(self.run, &self.dir.join("images"), self.programs, &client).await?;
        Ok(registry)
    }

    async fn containerd(&self, namespaces: &Process) -> anyhow::Result<Process> {
        let containerd = self.inside(namespaces, "containerd", "containerd")?;
        let containerd = containerd.args(["--config".into(), self.dir.join(config::CONTAINERD)]);
        containerd.start()?;
        containerd.until_logged("containerd successfully booted", 0, LIMIT).await?;
        Ok(containerd)
    }

    fn scheduler(&self) -> anyhow::Result<Process> {
        let kubeconfig = self.cluster.user_kubeconfig("scheduler", "system:kube-scheduler", "system:masters")?;
        let scheduler = self.outside("scheduler", self.programs.path(Program::Scheduler)).args([
            format!("--kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]);
        scheduler.start()?;
        Ok(scheduler)
    }

    /// Starts the kubelet and waits until the cluster gives the node pods.
    async fn kubelet(&self, namespaces: &Process, client: &Client) -> anyhow::Result<Process> {
        let kubelet = self.inside(namespaces, "kubelet", self.programs.path(Program::Kubelet))?;
        let kubelet = kubelet.args(config::kubelet_args(self.dir, self.name));
        kubelet.start()?;
        let nodes: Api<v1::Node> = Api::all(client.clone());
        let ask = || async { Ok(nodes.get_opt(self.name).await?.filter(takes_pods).map(drop)) };
        kubelet.until("ready node", LIMIT, ask).await?;
        Ok(kubelet)
    }
}

/// A command line that runs `command` in the namespaces of a process.
fn enter(pid: u32, command: &str) -> String {
    format!("nsenter {} {command}", net::enter_args(pid).join(" "))
}

fn takes_pods(node: &v1::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    ready && taints.is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_takes_pods_once_it_is_ready_and_untainted() {
        let node = |status: &str, taints: serde_json::Value| -> v1::Node {
            let conditions = json!([{ "type": "Ready", "status": status }]);
            serde_json::from_value(json!({ "spec": { "taints": taints }, "status": { "conditions": conditions } }))
                .unwrap()
        };
        assert!(takes_pods(&node("True", json!([]))));
        assert!(!takes_pods(&node("False", json!([]))));
        assert!(!takes_pods(&node("True", json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }]))));
        assert!(!takes_pods(&v1::Node::default()));
    }
}
