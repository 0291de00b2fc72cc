//! The Helm charts in `deploy/charts`, and the plain manifests that are rendered from them.
//!
//! May touch the run folder, where Helm keeps its own files, and, only by [`Manifest::write`], the manifests in `deploy`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tokio::process::Command;

use crate::{
    cluster::Cluster,
    fleet::project,
    process,
    programs::{Program, Programs},
    run_dir::RunDir,
};

/// A chart: the folder in `deploy/charts`, which is also the name of its release and the part of its names after
/// `active-monitor-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chart {
    /// The agent's.
    Agent,
    /// The hub's.
    Hub,
}

impl Chart {
    /// Every chart.
    pub const ALL: [Self; 2] = [Self::Agent, Self::Hub];

    /// Its folder.
    pub fn folder(self) -> PathBuf {
        project().join("deploy/charts").join(self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Hub => "hub",
        }
    }

    /// The values of its plain manifests, where the chart's own do not do. The CRD is in `deploy/crds`.
    fn plain_values(self) -> &'static str {
        match self {
            Self::Agent => "crds.install=false,remedies.namespaces={health},logTails.namespaces={health}",
            Self::Hub => {
                "adminToken.secret=active-monitor-hub-admin,\
                 agents.address=hub.example.com:7443,enrolment.address=hub.example.com:7444"
            }
        }
    }
}

/// A manifest for plain kubectl: part of a chart's rendering, under a text of its own.
struct Plain {
    chart: Chart,
    file: &'static str,
    /// Further values.
    values: &'static str,
    head: &'static str,
    /// Documents that the chart has not: with Helm the namespaces are there before.
    namespaces: &'static [&'static str],
    templates: &'static [&'static str],
}

/// The namespace of agent and hub.
const OWN: &str = "apiVersion: v1
kind: Namespace
metadata:
  name: active-monitor
  labels:
    pod-security.kubernetes.io/enforce: restricted";

/// The namespace of checks.
const HEALTH: &str = "apiVersion: v1
kind: Namespace
metadata:
  name: health";

/// Of a team's agent, which works in the namespace `health` alone.
const NAMESPACED: &str = "watchNamespaces={health}";

/// In each folder the file with the namespaces comes first by its name: `kubectl apply -f FOLDER` goes by that.
const PLAIN: [Plain; 10] = [
    Plain {
        chart: Chart::Agent,
        file: "deploy/agent/00-namespaces.yaml",
        values: "",
        head: "# The agent's namespace, and one for checks.
",
        namespaces: &[OWN, HEALTH],
        templates: &[],
    },
    Plain {
        chart: Chart::Agent,
        file: "deploy/agent/admission-policy.yaml",
        values: "",
        head: "",
        namespaces: &[],
        templates: &["admission-policy"],
    },
    Plain {
        chart: Chart::Agent,
        file: "deploy/agent/rbac.yaml",
        values: "",
        head: "# What the agent may do. Apply it with: kubectl apply -f deploy/crds -f deploy/agent
#
",
        namespaces: &[],
        templates: &["rbac"],
    },
    Plain {
        chart: Chart::Agent,
        file: "deploy/agent/remedies-health.yaml",
        values: "",
        head: "# Opens the namespace `health` for remedies: their accounts may there be given what the remedying ceiling holds.
",
        namespaces: &[],
        templates: &["remedies"],
    },
    Plain {
        chart: Chart::Agent,
        file: "deploy/agent/logs-health.yaml",
        values: "",
        head: "# Lets the agent read the logs of failed pods in the namespace `health`.
",
        namespaces: &[],
        templates: &["logs"],
    },
    Plain {
        chart: Chart::Agent,
        file: "deploy/agent/workload.yaml",
        values: "",
        head: "# The agent's pod. To join a hub, give it --hub-address, --enrolment-address and --token-file.
",
        namespaces: &[],
        templates: &["workload"],
    },
    Plain {
        chart: Chart::Agent,
        file: "deploy/agent-namespaced/rbac.yaml",
        values: NAMESPACED,
        head: "# What an agent may do that works in the namespace `health` alone, without rights in the cluster; which must have the
# CRD. Apply it with: kubectl apply -f deploy/agent-namespaced
",
        namespaces: &[OWN, HEALTH],
        templates: &["rbac", "namespaced", "remedies", "logs"],
    },
    Plain {
        chart: Chart::Agent,
        file: "deploy/agent-namespaced/workload.yaml",
        values: NAMESPACED,
        head: "# The pod of an agent that works in the namespace `health` alone. To join a hub, give it --hub-address,
# --enrolment-address and --token-file.
",
        namespaces: &[],
        templates: &["workload"],
    },
    Plain {
        chart: Chart::Hub,
        file: "deploy/hub/hub.yaml",
        values: "",
        head: "# The hub. Put the host that agents dial in place of hub.example.com, and make the admin's token before:
#   kubectl -n active-monitor create secret generic active-monitor-hub-admin \\
#     --from-literal=token=amf_$(openssl rand -hex 32)
",
        namespaces: &[OWN],
        templates: &["workload"],
    },
    Plain {
        chart: Chart::Hub,
        file: "deploy/hub-resources/hub.yaml",
        values: "customResources.enabled=true",
        head: "# The hub as in deploy/hub/hub.yaml, which it stands in for, with definitions as custom resources of its namespace.
# Apply it with: kubectl apply -f deploy/hub-resources/crd.yaml -f deploy/hub-resources/hub.yaml
",
        namespaces: &[OWN],
        templates: &["custom-resources", "workload"],
    },
];

/// A plain manifest as the charts give it.
#[derive(Debug)]
pub struct Manifest {
    /// Where it is checked in.
    pub path: PathBuf,
    /// What it should be.
    pub text: String,
}

impl Manifest {
    /// Writes it where it is checked in.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn write(&self) -> io::Result<()> {
        fs::write(&self.path, &self.text)
    }
}

/// `helm`, with its caches in a run folder.
#[derive(Clone, Copy, Debug)]
pub struct Helm<'a> {
    program: &'a Programs,
    run: &'a RunDir,
}

impl<'a> Helm<'a> {
    /// The programs must have been built with [`Program::CHARTS`].
    pub fn new(programs: &'a Programs, run: &'a RunDir) -> Self {
        Self { program: programs, run }
    }

    /// Runs it without a cluster and gives its stdout.
    ///
    /// # Errors
    /// When it fails; with its stderr.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        self.command(None, args).await
    }

    /// Runs it as the admin of a cluster, in the namespace `active-monitor`, and gives its stdout.
    ///
    /// # Errors
    /// When it fails; with its stderr.
    pub async fn on(&self, cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
        self.command(Some(&cluster.kubeconfig), args).await
    }

    /// Renders a chart as a client would: nobody looks at a cluster.
    ///
    /// # Errors
    /// When the values are refused.
    pub async fn template(&self, chart: Chart, more: &[&str]) -> anyhow::Result<String> {
        let folder = chart.folder();
        let folder = folder.to_str().context("the project's path is not UTF-8")?;
        self.run(&[&["template", chart.name(), folder], more].concat()).await
    }

    /// Every plain manifest.
    ///
    /// # Errors
    /// When a chart cannot be rendered.
    pub async fn manifests(&self) -> anyhow::Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for plain in &PLAIN {
            let only = plain.templates.iter().map(|template| format!("--show-only=templates/{template}.yaml"));
            let only: Vec<String> = only.collect();
            let values = ["--set", plain.chart.plain_values(), "--set", plain.values];
            let args: Vec<&str> = values.into_iter().chain(only.iter().map(String::as_str)).collect();
            let text = match plain.templates {
                // Without a choice Helm renders them all.
                [] => String::new(),
                _ => self.template(plain.chart, &args).await.with_context(|| plain.file.to_owned())?,
            };
            manifests.push(Manifest { path: project().join(plain.file), text: assemble(plain, &text) });
        }
        Ok(manifests)
    }

    async fn command(&self, kubeconfig: Option<&Path>, args: &[&str]) -> anyhow::Result<String> {
        let home = self.run.path().join("helm");
        let mut command = Command::new(self.program.path(Program::Helm));
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, &home);
        }
        // Without one, Helm would look at whatever cluster the caller's environment names.
        command.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/dev/null")));
        command.args(["--namespace", "active-monitor"]).args(args);
        process::output(self.run, command, "").await
    }
}

/// The documents of a rendering below the head, without the lines that name their templates.
fn assemble(plain: &Plain, rendered: &str) -> String {
    let documents = rendered.split("---\n").map(|document| {
        let lines = document.lines().filter(|line| !line.starts_with("# Source: "));
        lines.collect::<Vec<_>>().join("\n").trim().to_owned()
    });
    let documents = documents.filter(|document| !document.is_empty());
    let namespaces = plain.namespaces.iter().map(|&document| document.to_owned());
    let documents: Vec<String> = namespaces.chain(documents).collect();
    let origin = format!("# Rendered from deploy/charts/{} by a test: change the chart.\n", plain.chart.name());
    format!("{origin}{}{}\n", plain.head, documents.join("\n---\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_its_head_and_the_documents() {
        let plain = Plain {
            chart: Chart::Agent,
            file: "x",
            values: "",
            head: "# Head.\n",
            namespaces: &["n: 0"],
            templates: &[],
        };
        let text = assemble(&plain, "---\n# Source: a\n# Why.\na: 1\n\n---\n# Source: b\nb: 2\n");
        assert_eq!(
            text,
            "# Rendered from deploy/charts/agent by a test: change the chart.\n\
             # Head.\nn: 0\n---\n# Why.\na: 1\n---\nb: 2\n"
        );
    }
}
