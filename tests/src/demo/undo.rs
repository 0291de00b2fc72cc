//! Removing the demo from the reader's clusters: what it made, by its label, and what its agents made, by theirs.
//!
//! That nothing else carries an agent's labels is checked before the start ([`super::own`]); only Workflows and Events
//! of former agents may, so those that were there are on record. The record lies in the run folder, whose cleanup
//! script names it: a demo that was killed is undone by whoever sweeps next.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use active_monitor_core::manifest::CHECK_UID_LABEL;
use active_monitor_core::names::DEFINITION_LABEL;
use active_monitor_core::rbac::{OWNER, OWNER_LABEL};
use anyhow::{Context as _, bail};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::sleep;

use super::kubectl::Kubectl;
use crate::run_dir::RunDir;

/// The label on everything that a demo makes itself; its value is the name of the run folder.
pub const DEMO_LABEL: &str = "activemonitor.keikoproj.io/demo";
/// The project's CRD.
pub const CRD: &str = "healthchecks.activemonitor.keikoproj.io";

const RECORD: &str = "own.json";
/// How long no Event may have come before the rest is taken for written, how often they are looked for, and for how long.
const EVENTS_QUIET: Duration = Duration::from_secs(3);
const EVENTS_LIMIT: Duration = Duration::from_secs(60);
const EVENTS_PAUSE: Duration = Duration::from_millis(500);
const ACCOUNT_KINDS: &str = "serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings";

/// What has to be known to remove a demo.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The value of [`DEMO_LABEL`].
    pub id: String,
    /// The clusters.
    pub clusters: Vec<Before>,
}

/// A cluster as it was before the demo.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    /// The reader's name of the cluster.
    pub context: String,
    /// The demo's folder for it.
    pub dir: PathBuf,
    /// The uids of the Workflows and Events of agents that were there.
    pub uids: BTreeSet<String>,
}

impl Record {
    /// Writes it to the run folder and has it undone when the run ends, in whatever way.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn keep(&self, run: &RunDir) -> anyhow::Result<()> {
        let path = run.path().join(RECORD);
        fs::write(&path, serde_json::to_vec(self)?)?;
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let demo = std::env::current_exe().context("cannot find this program's file")?;
        Ok(run.add_cleanup(&format!("{} --undo {}", quoted(&demo), quoted(&path)))?)
    }
}

/// Whether the demo of that run folder may have made something in the reader's clusters.
pub fn is_due(run: &Path) -> bool {
    run.join(RECORD).exists()
}

/// Undoes the demo of that run folder, then forgets it. Gives what had to stay, a line each.
///
/// # Errors
/// When a cluster does not answer or something cannot be removed; the record is kept then.
pub async fn undo(run: &Path) -> anyhow::Result<Vec<String>> {
    undo_record(&run.join(RECORD)).await
}

/// As [`undo`], for the record's file; one that is not there is undone already.
///
/// # Errors
/// As [`undo`].
pub async fn undo_record(path: &Path) -> anyhow::Result<Vec<String>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let record: Record = serde_json::from_slice(&fs::read(path)?).context("cannot read what the demo has made")?;
    // One cluster that does not answer must not keep the others from being cleaned.
    let done = join_all(record.clusters.iter().map(|before| undo_in(&record.id, before))).await;
    let kept: Vec<Vec<String>> = done.into_iter().collect::<anyhow::Result<_>>()?;
    fs::remove_file(path)?;
    Ok(kept.concat())
}

/// What only a living agent keeps in a cluster: the accounts of checks with their rights, and the checks that a hub
/// pushed.
pub(super) async fn of_agents(kubectl: &Kubectl) -> anyhow::Result<Vec<Value>> {
    let owned = format!("{OWNER_LABEL}={OWNER}");
    let mut found = kubectl.objects(&["get", ACCOUNT_KINDS, "-A", "-l", &owned]).await?;
    if has_crd(kubectl).await? {
        found.extend(kubectl.objects(&["get", CRD, "-A", "-l", DEFINITION_LABEL]).await?);
    }
    Ok(found)
}

/// The Workflows that agents made, and the Events about HealthChecks and these.
pub(super) async fn traces(kubectl: &Kubectl) -> anyhow::Result<Vec<Value>> {
    let workflows = workflows(kubectl).await?;
    let events = events(kubectl, &workflows.iter().map(uid).collect()).await?;
    Ok([workflows, events].concat())
}

async fn workflows(kubectl: &Kubectl) -> anyhow::Result<Vec<Value>> {
    let mut found = kubectl.objects(&["get", "workflows.argoproj.io", "-A", "-l", CHECK_UID_LABEL]).await?;
    let self_tests = format!("{OWNER_LABEL}={OWNER},!{CHECK_UID_LABEL}");
    found.extend(kubectl.objects(&["get", "workflows.argoproj.io", "-A", "-l", &self_tests]).await?);
    Ok(found)
}

/// The Events about HealthChecks, and about the workflows with these uids.
async fn events(kubectl: &Kubectl, uids: &BTreeSet<String>) -> anyhow::Result<Vec<Value>> {
    let of_checks = ["get", "events", "-A", "--field-selector", "reportingComponent=active-monitor-agent"];
    let mut found = kubectl.objects(&of_checks).await?;
    let of_workflows = ["get", "events", "-A", "--field-selector", "involvedObject.kind=Workflow"];
    let events = kubectl.objects(&of_workflows).await?.into_iter();
    found.extend(events.filter(|event| event["involvedObject"]["uid"].as_str().is_some_and(|uid| uids.contains(uid))));
    Ok(found)
}

/// Whether HealthChecks can be asked for.
pub(super) async fn has_crd(kubectl: &Kubectl) -> anyhow::Result<bool> {
    Ok(!kubectl.objects(&["get", "crd", CRD, "--ignore-not-found"]).await?.is_empty())
}

/// The uid of any object.
pub(super) fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// `namespace/name`, or the name of what is in no namespace.
pub(super) fn name(object: &Value) -> String {
    let part = |key: &str| object["metadata"][key].as_str();
    let name = part("name").unwrap_or_default();
    part("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

async fn undo_in(id: &str, before: &Before) -> anyhow::Result<Vec<String>> {
    let kubectl = Kubectl { context: before.context.clone(), dir: before.dir.clone() };
    let label = format!("{DEMO_LABEL}={id}");
    let (made_by_agent, mut workflows) = (of_agents(&kubectl).await?, workflows(&kubectl).await?);
    workflows.retain(|object| !before.uids.contains(&uid(object)));
    let workflow_uids = workflows.iter().map(uid).collect();

    // The checks go first: while their kind is there, and before the accounts that their workflows use.
    let with_crd = has_crd(&kubectl).await?;
    if with_crd {
        kubectl.delete(&kubectl.objects(&["get", CRD, "-A", "-l", &label]).await?).await?;
    }
    kubectl.delete(&[made_by_agent, workflows].concat()).await?;
    delete_events(&kubectl, &workflow_uids, before).await?;

    let others = if with_crd { kubectl.objects(&["get", CRD, "-A"]).await? } else { Vec::new() };
    let kinds = format!("{ACCOUNT_KINDS},namespaces,crd");
    let made = kubectl.objects(&["get", &kinds, "-A", "-l", &label]).await?;
    let (kept, gone): (Vec<Value>, Vec<Value>) = made.into_iter().partition(|object| holds_any(object, &others));
    kubectl.delete(&gone).await?;
    for object in &kept {
        // From here on it is the reader's.
        let kind = object["kind"].as_str().unwrap_or_default();
        let named = object["metadata"]["name"].as_str().unwrap_or_default();
        kubectl.run(&["label", kind, named, &format!("{DEMO_LABEL}-")]).await?;
    }
    Ok(kept.iter().map(|object| stays(&kubectl.context, object, &others)).collect())
}

/// Deletes the Events until none comes any more: Argo's controller writes those about a workflow that it was at work on
/// after that is gone.
///
/// # Errors
/// When they do not end.
async fn delete_events(kubectl: &Kubectl, workflows: &BTreeSet<String>, before: &Before) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut last_seen = began;
    while last_seen.elapsed() < EVENTS_QUIET {
        let mut late = events(kubectl, workflows).await?;
        late.retain(|event| !before.uids.contains(&uid(event)));
        if late.is_empty() {
            sleep(EVENTS_PAUSE).await;
            continue;
        }
        if began.elapsed() > EVENTS_LIMIT {
            bail!("context {}: Events of the demo go on to come: {}", kubectl.context, name(&late[0]));
        }
        kubectl.delete(&late).await?;
        last_seen = Instant::now();
    }
    Ok(())
}

/// Whether a check that is not the demo's would go with this object.
fn holds_any(object: &Value, others: &[Value]) -> bool {
    match object["kind"].as_str() {
        Some("CustomResourceDefinition") => !others.is_empty(),
        Some("Namespace") => others.iter().any(|other| other["metadata"]["namespace"] == object["metadata"]["name"]),
        Some(_) | None => false,
    }
}

fn stays(context: &str, object: &Value, others: &[Value]) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    let others: Vec<String> = others.iter().map(name).collect();
    format!(
        "{context}: {kind} {} stays, for the HealthChecks in it that are not the demo's: {}",
        name(object),
        others.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_holds_another_s_check_stays() {
        let crd = json!({"kind": "CustomResourceDefinition", "metadata": {"name": CRD}});
        let health = json!({"kind": "Namespace", "metadata": {"name": "health"}});
        let role = json!({"kind": "Role", "metadata": {"name": "reader", "namespace": "health"}});
        let check = json!({"metadata": {"name": "mine", "namespace": "health"}});
        let elsewhere = json!({"metadata": {"name": "mine", "namespace": "elsewhere"}});
        assert!(holds_any(&crd, std::slice::from_ref(&elsewhere)) && !holds_any(&crd, &[]));
        assert!(holds_any(&health, std::slice::from_ref(&check)));
        assert!(!holds_any(&health, &[elsewhere]) && !holds_any(&role, &[check]));
    }

    #[tokio::test]
    async fn what_is_undone_already_is_no_error() {
        assert_eq!(undo_record(Path::new("/nowhere/own.json")).await.unwrap(), Vec::<String>::new());
    }
}
