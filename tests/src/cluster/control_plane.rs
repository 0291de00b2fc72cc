//! The programs of a control plane with their arguments: etcd, the API server, the controllers, Argo.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context as _;
use serde_json::json;

use super::{
    SERVICE_CIDR, SERVICE_IP,
    kubeconfig::{self, Credentials},
    pki::{Pki, TokenKey},
};
use crate::{
    port::PortLease,
    process::Process,
    programs::{ARGO_VERSION, Program, Programs},
    run_dir::RunDir,
};

/// The namespace of Argo's controller.
pub(super) const ARGO_NAMESPACE: &str = "argo";

/// The controllers a cluster without nodes has a use for.
const NODELESS_CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,serviceaccount-controller,\
    serviceaccount-token-controller,root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,\
    resourcequota-controller";

/// The log may grow this far, in megabytes, before the API server begins another file, which nobody would read.
const AUDIT_LOG_MEGABYTES: &str = "4096";

/// What the programs of one cluster have in common.
pub(super) struct Blueprint<'a> {
    pub(super) run: &'a Arc<RunDir>,
    pub(super) programs: &'a Programs,
    pub(super) dir: &'a Path,
    pub(super) name: &'a str,
    pub(super) server: &'a str,
    pub(super) pki: &'a Pki,
    pub(super) node: bool,
}

impl Blueprint<'_> {
    pub(super) fn etcd(&self, client: &PortLease, peer: &PortLease) -> Process {
        let client = loopback_url("http", client);
        let peer = loopback_url("http", peer);
        self.process(Program::Etcd).args([
            format!("--data-dir={}", self.dir.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ])
    }

    pub(super) fn apiserver(
        &self,
        port: &PortLease,
        etcd: &PortLease,
        admin_token: &str,
        audit_log: &Path,
        token_key: &TokenKey,
    ) -> anyhow::Result<Process> {
        let names = [
            "127.0.0.1",
            SERVICE_IP,
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let serving = self.pki.server("apiserver", &names)?;
        let to_kubelet = self.pki.client("apiserver-to-kubelet", "kube-apiserver-kubelet-client", "system:masters")?;
        let tokens = self.dir.join("tokens.csv");
        fs::write(&tokens, format!("{admin_token},admin,admin,\"system:masters\"\n"))?;
        let audit_policy = self.dir.join("audit-policy.json");
        fs::write(&audit_policy, audit_policy_text())?;
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        Ok(self.process(Program::ApiServer).args([
            format!("--etcd-servers={}", loopback_url("http", etcd)),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", port.number()),
            file("tls-cert-file", &serving.cert),
            file("tls-private-key-file", &serving.key),
            file("client-ca-file", &self.pki.ca_file()),
            file("token-auth-file", &tokens),
            "--authorization-mode=RBAC,Node".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            file("service-account-key-file", &token_key.public),
            file("service-account-signing-key-file", &token_key.private),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            "--endpoint-reconciler-type=none".to_owned(),
            file("audit-policy-file", &audit_policy),
            file("audit-log-path", audit_log),
            format!("--audit-log-maxsize={AUDIT_LOG_MEGABYTES}"),
            file("kubelet-client-certificate", &to_kubelet.cert),
            file("kubelet-client-key", &to_kubelet.key),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--allow-privileged=true".to_owned(),
        ]))
    }

    pub(super) fn controller_manager(&self, token_key: &TokenKey) -> anyhow::Result<Process> {
        let kubeconfig = self.kubeconfig("controller-manager", "system:kube-controller-manager")?;
        let controllers = if self.node { "*" } else { NODELESS_CONTROLLERS };
        Ok(self.process(Program::ControllerManager).args([
            format!("--kubeconfig={kubeconfig}"),
            format!("--controllers={controllers}"),
            format!("--service-account-private-key-file={}", token_key.private.display()),
            format!("--root-ca-file={}", self.pki.ca_file().display()),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]))
    }

    pub(super) fn argo(&self) -> anyhow::Result<Process> {
        let kubeconfig = self.kubeconfig("argo", "argo-workflow-controller")?;
        let process = self.process(Program::WorkflowController).args([
            format!("--kubeconfig={kubeconfig}"),
            format!("--namespace={ARGO_NAMESPACE}"),
            format!("--executor-image={}", argoexec_image()),
            "--executor-image-pull-policy=IfNotPresent".to_owned(),
        ]);
        let process = process.env("LEADER_ELECTION_IDENTITY", "testbed").env("LEADER_ELECTION_DISABLE", "true");
        // How long it waits after news of a pod; its default of 10 s suits clusters with thousands of workflows.
        Ok(process.env("DEFAULT_REQUEUE_TIME", "1s"))
    }

    fn process(&self, program: Program) -> Process {
        Process::new(self.run, self.dir, program.file_name(), self.programs.path(program))
    }

    /// A kubeconfig for a part of the cluster, under a user name of its own so that the audit log tells it apart.
    fn kubeconfig(&self, file_stem: &str, user: &str) -> anyhow::Result<String> {
        let cert = self.pki.client(file_stem, user, "system:masters")?;
        let path = self.dir.join(format!("{file_stem}.kubeconfig"));
        let at = (self.server, self.pki.ca_file());
        kubeconfig::write(&path, self.name, (at.0, &at.1), Credentials::Cert(&cert), "default")?;
        Ok(path.to_str().context("the run folder's path is not UTF-8")?.to_owned())
    }
}

/// The name of the executor's image, which a node must have.
pub fn argoexec_image() -> String {
    format!("quay.io/argoproj/argoexec:{ARGO_VERSION}")
}

fn loopback_url(scheme: &str, port: &PortLease) -> String {
    format!("{scheme}://127.0.0.1:{}", port.number())
}

fn audit_policy_text() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
        "rules": [{ "level": "Metadata" }],
    })
    .to_string()
}
