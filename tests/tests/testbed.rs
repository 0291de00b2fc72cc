//! The testbed keeps its promises: real clusters, real permissions, an audit log, and nothing left behind.

// Helpers of a test fail it too; clippy takes only the test functions themselves for tests.
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use active_monitor_tests::{
    Cluster, Options, Program, Programs, Testbed,
    cluster::{INSTANCE_ID, INSTANCE_ID_LABEL},
    programs::ProgramsError,
    run_dir, skip, wait,
};
use anyhow::{Context as _, ensure};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn clusters_run_workflows_and_enforce_permissions() {
    let options = Options { clusters: 2, node: false };
    let Some(testbed) =
        Testbed::start_or_skip("clusters_run_workflows_and_enforce_permissions", options).await.unwrap()
    else {
        return;
    };
    let path = testbed.run().path().to_owned();
    let [first, second] = testbed.clusters.as_slice() else { panic!("two clusters were asked for") };
    assert_ne!(first.port, second.port);
    tokio::try_join!(runs_a_workflow(first), runs_a_workflow(second)).unwrap();
    enforces_permissions(first).await.unwrap();
    comes_back_after_faults(second).await.unwrap();
    drop(testbed);
    assert!(!path.exists());
    assert!(run_dir::marked(&path).is_empty());
}

async fn runs_a_workflow(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&["create", "namespace", "health"]).await?;
    submit(cluster, "pause").await?;
    until_succeeded(cluster, "pause").await?;
    let events = cluster.audit()?;
    let created = events.iter().find(|event| {
        let named = event.object_ref.as_ref().is_some_and(|object| object.name == "pause");
        named && event.is("patch", "workflows") && event.user.username == "admin"
    });
    let created = created.context("the audit log does not know who made the workflow")?;
    ensure!(created.code() == Some(201), "{created:?}");
    ensure!(created.user_agent.starts_with("kubectl/"), "{created:?}");
    ensure!(events.iter().any(|event| event.user.username == "argo-workflow-controller"), "Argo made no request");
    Ok(())
}

async fn submit(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let workflow = format!(
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n\
         metadata: {{name: {name}, namespace: health, labels: {{{INSTANCE_ID_LABEL}: {INSTANCE_ID}}}}}\n\
         spec: {{entrypoint: main, templates: [{{name: main, suspend: {{duration: \"1s\"}}}}]}}\n"
    );
    cluster.apply_yaml(&workflow).await
}

async fn until_succeeded(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    wait::until("succeeded workflow", LIMIT, || async {
        let phase = ["-n", "health", "get", "workflow", name, "-o", "jsonpath={.status.phase}"];
        Ok((cluster.kubectl(&phase).await? == "Succeeded").then_some(()))
    })
    .await
}

async fn enforces_permissions(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&["-n", "health", "create", "serviceaccount", "reader"]).await?;
    let kubeconfig = cluster.service_account_kubeconfig("health", "reader").await?;
    let list = ["get", "workflows"];
    let refused = cluster.kubectl_as(&kubeconfig, &list, "").await.err().context("no right is needed to list")?;
    ensure!(format!("{refused:#}").contains("Forbidden"), "{refused:#}");
    cluster.kubectl(&["-n", "health", "create", "role", "reader", "--verb=list,get", "--resource=workflows"]).await?;
    let bind = ["-n", "health", "create", "rolebinding", "reader", "--role=reader", "--serviceaccount=health:reader"];
    cluster.kubectl(&bind).await?;
    let listed = wait::until("listing", LIMIT, || async { cluster.kubectl_as(&kubeconfig, &list, "").await.map(Some) });
    ensure!(listed.await?.contains("pause"), "the workflow is not listed");
    let user = "system:serviceaccount:health:reader";
    let codes: Vec<_> = cluster
        .audit()?
        .iter()
        .filter(|e| e.user.username == user && e.is("list", "workflows"))
        .map(|e| e.code())
        .collect();
    ensure!(codes.first() == Some(&Some(403)) && codes.last() == Some(&Some(200)), "{codes:?}");

    let node = cluster.user_kubeconfig("some-user", "somebody", "some-group")?;
    let who = cluster.kubectl_as(&node, &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"], "").await?;
    ensure!(who == "somebody", "{who}");
    Ok(())
}

async fn comes_back_after_faults(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.stop_argo();
    submit(cluster, "later").await?;
    cluster.stop_apiserver();
    ensure!(cluster.kubectl(&["get", "namespaces"]).await.is_err(), "a dead API server answers");
    cluster.start_apiserver().await?;
    cluster.start_argo().await?;
    until_succeeded(cluster, "later").await
}

/// The command line with a temporary folder, and so a testbed, of its own.
struct CommandLine {
    tmp: tempfile::TempDir,
}

impl CommandLine {
    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_testbed")).args(args).env("TMPDIR", self.tmp.path()).output().unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.run(&["status", "-o", "json"]).stdout).unwrap()
    }

    fn runs(&self) -> PathBuf {
        let root = run_dir::root().file_name().unwrap().to_owned();
        self.tmp.path().join(root).join("runs")
    }
}

impl Drop for CommandLine {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

async fn nothing_is_left(run: &Path) {
    wait::until("end of all processes", LIMIT, || async { Ok(run_dir::marked(run).is_empty().then_some(())) })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_killed_owner_leaves_no_process_and_down_leaves_nothing() {
    match Programs::ensure(Program::CONTROL_PLANE).await {
        Err(error @ ProgramsError::NoGo { .. }) => {
            return skip::report("a_killed_owner_leaves_no_process_and_down_leaves_nothing", &error.to_string());
        }
        ensured => drop(ensured.unwrap()),
    }
    let line = CommandLine { tmp: tempfile::tempdir().unwrap() };
    let run = line.runs().join("up");

    let up = line.run(&["up"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    assert!(String::from_utf8_lossy(&up.stdout).contains("export KUBECONFIG="));
    let state = line.json();
    let parts = state["clusters"][0]["parts"].as_array().unwrap();
    assert!(parts.len() == 4 && parts.iter().all(|part| part["running"] == true), "{state:#}");
    assert!(!line.run(&["up"]).status.success(), "a second testbed was started");

    let owner = state["owner"].as_u64().unwrap().to_string();
    assert!(Command::new("kill").args(["-9", &owner]).status().unwrap().success());
    nothing_is_left(&run).await;
    assert!(line.json().is_null());

    let again = line.run(&["up"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(line.run(&["down"]).status.success());
    assert!(run_dir::marked(&run).is_empty());
    assert_eq!(std::fs::read_dir(line.runs()).unwrap().count(), 0);
}
