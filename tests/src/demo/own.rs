//! The reader's own clusters as the demo's: checked before anything is made, given what is missing, left as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::kubectl::Kubectl;
use super::undo::{self, Before, CRD, DEMO_LABEL, Record};
use crate::fleet::{Agent, Hub, project};
use crate::run_dir::RunDir;

const AGENT: &str = "active-monitor-agent";
const NAME_CHARS: usize = 63;

/// One of the reader's clusters, fit for the demo.
pub struct OwnCluster {
    /// Its name at the hub: that of the context, as a DNS label.
    pub name: String,
    kubectl: Kubectl,
    id: String,
}

/// Checks all contexts, and puts on record what is in them. Makes nothing. Gives lines for the reader, too.
///
/// # Errors
/// When something is missing or in the way in one of them: says what, and what to do.
pub async fn check(run: &Arc<RunDir>, contexts: &[String]) -> anyhow::Result<(Vec<OwnCluster>, Vec<String>)> {
    let id = run.path().file_name().and_then(|name| name.to_str()).context("a run folder has a name")?;
    let names = names(contexts);
    let looks = contexts.iter().zip(&names).map(|(context, name)| look(context, run.path().join(name)));
    let seen = try_join_all(looks).await?;
    let mut identities = BTreeMap::new();
    for look in &seen {
        if let Some(other) = identities.insert(&look.identity, &look.kubectl.context) {
            bail!("contexts {other} and {} are the same cluster: name it once", look.kubectl.context);
        }
    }
    let controller = "Argo's controller must run in each, with instanceID activemonitor-workflows: without it every check \
        times out";
    let notes =
        std::iter::once(controller.to_owned()).chain(seen.iter().filter_map(|look| look.others.clone())).collect();
    let before = |look: &Look| Before {
        context: look.kubectl.context.clone(),
        dir: look.kubectl.dir.clone(),
        uids: look.uids.clone(),
    };
    Record { id: id.to_owned(), clusters: seen.iter().map(before).collect() }.keep(run)?;
    let own = |(name, look): (String, Look)| OwnCluster { name, kubectl: look.kubectl, id: id.to_owned() };
    Ok((names.into_iter().zip(seen).map(own).collect(), notes))
}

impl OwnCluster {
    /// Installs what is missing, adds the cluster to the hub and starts an agent on this machine. Gives a line for each
    /// object that was there.
    ///
    /// # Errors
    /// When one of these fails.
    pub async fn join(&self, run: &Arc<RunDir>, hub: &Hub, region: &str) -> anyhow::Result<(Agent, Vec<String>)> {
        let files = ["crds/healthchecks", "agent/00-namespaces", "agent/rbac", "agent/remedies-health"];
        let files = files.map(|file| project().join(format!("deploy/{file}.yaml")));
        let notes = self.create(&files).await?;
        let established = ["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{CRD}")];
        self.kubectl.run(&established).await?;
        let token = ["create", "token", AGENT, "-n", "active-monitor", "--duration=24h"];
        let token = self.kubectl.run(&token).await?;
        let kubeconfig = self.kubectl.kubeconfig_with_token(token.trim())?;
        let join = hub.add_cluster(&self.name, &[("region", region)]).await?;
        let agent = Agent::spawn(run, &self.kubectl.dir, &kubeconfig, &self.name, Some(&join), &[])?;
        Ok((agent, notes))
    }

    /// Creates the objects in these files that are not there; those that are stay as they are: gives a line for each.
    ///
    /// # Errors
    /// When a file cannot be read or an object is refused.
    pub async fn create(&self, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
        let mut objects = Vec::new();
        for file in files {
            objects.extend(labelled(file, &self.id).with_context(|| format!("cannot read {}", file.display()))?);
        }
        let there = self.kubectl.create_missing(&objects).await?;
        let left = |name: String| format!("{}: {name} was there and is left as it is", self.kubectl.context);
        Ok(there.into_iter().map(left).collect())
    }

    /// How the reader calls `kubectl` on this cluster.
    pub fn shell(&self) -> String {
        format!("kubectl --context '{}'", self.kubectl.context)
    }
}

/// What was seen in a cluster before the demo.
struct Look {
    kubectl: Kubectl,
    /// The uid of kube-system.
    identity: String,
    uids: BTreeSet<String>,
    /// A line about the reader's own checks.
    others: Option<String>,
}

async fn look(context: &str, dir: PathBuf) -> anyhow::Result<Look> {
    let kubectl = Kubectl::of_context(context, dir).await?;
    let system = kubectl.objects(&["get", "namespace", "kube-system", "--request-timeout=10s"]).await;
    let system = system.with_context(|| format!("cannot reach the cluster of context {context}: is it running?"))?;
    let argo = kubectl.objects(&["get", "crd", "workflows.argoproj.io", "--ignore-not-found"]).await?;
    ensure!(
        !argo.is_empty(),
        "context {context} has no Argo Workflows (no CRD workflows.argoproj.io): install it, with `instanceID: \
        activemonitor-workflows` in its ConfigMap workflow-controller-configmap \
        (https://argo-workflows.readthedocs.io/en/stable/installation)"
    );
    nothing_in_the_way(&kubectl).await?;
    let uids = undo::traces(&kubectl).await?.iter().map(undo::uid).collect();
    let checks = if undo::has_crd(&kubectl).await? { kubectl.objects(&["get", CRD, "-A"]).await? } else { Vec::new() };
    let checks: Vec<String> = checks.iter().map(undo::name).collect();
    let others = (!checks.is_empty()).then(|| {
        format!("{context}: while the demo lasts, its agent also runs the checks there are: {}", checks.join(", "))
    });
    Ok(Look { identity: system.iter().map(undo::uid).collect(), kubectl, uids, others })
}

/// An agent, or what belongs to one, cannot be told from the demo's; and two of them would run each check twice.
async fn nothing_in_the_way(kubectl: &Kubectl) -> anyhow::Result<()> {
    let context = &kubectl.context;
    let kinds = "namespaces,clusterroles,clusterrolebindings,serviceaccounts,rolebindings,crd";
    let kinds = if undo::has_crd(kubectl).await? { format!("healthchecks,{kinds}") } else { kinds.to_owned() };
    let demo = kubectl.objects(&["get", &kinds, "-A", "-l", DEMO_LABEL]).await?;
    if let Some(object) = demo.first() {
        bail!(
            "context {context} has objects of another demo, such as {}: end that demo, or remove what it left with \
            `kubectl --context '{context}' delete {kinds} -A -l {DEMO_LABEL}`",
            undo::name(object)
        );
    }
    for (kinds, name) in [
        ("deployments,clusterroles,clusterrolebindings,serviceaccounts", AGENT),
        ("deployments", "activemonitor-controller"),
    ] {
        let named = format!("metadata.name={name}");
        let found = kubectl.objects(&["get", kinds, "-A", "--field-selector", &named]).await?;
        if let Some(object) = found.first() {
            let kind = object["kind"].as_str().unwrap_or_default();
            bail!(
                "context {context} has {kind} {} already: the demo does not run beside another agent or controller; \
                take a cluster without one",
                undo::name(object)
            );
        }
    }
    if let Some(object) = undo::of_agents(kubectl).await?.first() {
        let kind = object["kind"].as_str().unwrap_or_default();
        bail!(
            "context {context} has {kind} {} of another agent, which the demo's agent would change: take a cluster \
            without one",
            undo::name(object)
        );
    }
    Ok(())
}

/// The objects of a YAML file, with the demo's label.
fn labelled(file: &Path, id: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(file)?)?;
    for object in &mut objects {
        object["metadata"]["labels"][DEMO_LABEL] = json!(id);
    }
    Ok(objects)
}

/// A DNS label for each context, no two alike.
fn names(contexts: &[String]) -> Vec<String> {
    let mut names = Vec::<String>::new();
    for context in contexts {
        let plain: String =
            context.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        let short = plain.trim_matches('-').get(..NAME_CHARS - 4).unwrap_or(plain.trim_matches('-'));
        let base = if short.is_empty() { "cluster" } else { short.trim_end_matches('-') };
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let free = std::iter::once(base.to_owned()).chain(numbered).find(|name| !names.contains(name));
        names.extend(free);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_become_dns_labels() {
        let contexts = ["kind-a", "arn:aws:eks:eu-1:1:cluster/A", "admin@kind.A", "admin-kind-a", "@", &"x".repeat(80)];
        let names = names(&contexts.map(str::to_owned));
        assert_eq!(names[..5], ["kind-a", "arn-aws-eks-eu-1-1-cluster-a", "admin-kind-a", "admin-kind-a-2", "cluster"]);
        assert_eq!(names[5].len(), 59);
    }

    #[test]
    fn every_object_of_a_file_gets_the_label() {
        let objects = labelled(&project().join("deploy/agent/rbac.yaml"), "run-1").unwrap();
        assert!(objects.len() > 5);
        for object in objects {
            assert_eq!(object["metadata"]["labels"][DEMO_LABEL], "run-1", "{object}");
        }
    }
}
