//! The ten examples of active-monitor's users, unmodified, with the pods they ask for: run by an agent, judged by what
//! the hub says. And a check that publishes a value which its pod measured.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use active_monitor_core::{
    run::{Outcome, Reason, Run},
    view::{CheckView, RunView},
};
use active_monitor_tests::{Agent, Cluster, Crd, Hub, fleet::upstream, skip, wait};
use serde_json::Value;

/// The examples' timeouts are 60 and 65 seconds; what comes on top is this machine's.
const LIMIT: Duration = Duration::from_secs(180);
/// A run fails when both of its pods do, so one time in four: of this many first runs at least one fails with
/// probability 0.97, and they are repeated each minute until one has.
const COPIES: usize = 12;
const CHANCE_LIMIT: Duration = Duration::from_secs(360);

const RANDOM: &str = "inlineFailrandom.yaml";
const STOPPED: &str = "inlineHello_cluster_cron_repeat.yaml";
const HELLO: &str = "inlineHello_cluster.yaml";

const SUCCEED: [&str; 5] =
    ["inlineHello.yaml", "inlineHello_ns.yaml", HELLO, "inlineHello_cluster_cron.yaml", "inlineLoops.yaml"];

const FAILING: &str = "inlineFail.yaml";
/// Why the others fail on a node without a way out: the example, and the reasons with what people are told.
const FAIL: [(&str, &[(Reason, &str)]); 3] = [
    // Where every pod or look-up takes long, the deadline comes before the last retry.
    (
        FAILING,
        &[(Reason::WorkflowFailed, "Error (exit code 127)"), (Reason::DeadlineExceeded, "Error (exit code 127)")],
    ),
    (
        "inlineDns.yaml",
        &[(Reason::WorkflowFailed, "Error (exit code 1)"), (Reason::DeadlineExceeded, "not done after 65 s")],
    ),
    ("url.yaml", &[(Reason::SourceUnavailable, "cannot fetch https://raw.githubusercontent.com/")]),
];

const MEASURED: &str = r#"
apiVersion: activemonitor.keikoproj.io/v1alpha1
kind: HealthCheck
metadata: {name: measured, namespace: health}
spec:
  repeatAfterSec: 600
  workflow:
    resource:
      namespace: health
      serviceAccount: measured
      source:
        inline: |
          apiVersion: argoproj.io/v1alpha1
          kind: Workflow
          spec:
            entrypoint: main
            templates:
            - name: main
              container:
                image: docker/whalesay:latest
                command: [/bin/bash, -c]
                args: ['P=(6 7); echo "{\"metrics\": [{\"name\": \"answer\", \"value\": $((P[0] * P[1]))}]}" > /tmp/published']
              outputs:
                parameters: [{name: published, globalName: published, valueFrom: {path: /tmp/published}}]
"#;

/// Runs everything in a cluster with a node, and ends the hub and the agents again.
pub(super) async fn examples_run(test: &str, cluster: &Cluster) {
    let Some(folder) = upstream().map(|upstream| upstream.join("examples")) else {
        skip::report(test, "only in part: ../shared/upstream is not there");
        return;
    };
    let hub = Hub::start(cluster.run(), &cluster.dir).await.unwrap();
    Agent::install(cluster, Crd::Ours).await.unwrap();
    cluster.kubectl(&["create", "namespace", "test"]).await.unwrap();
    let token = hub.add_cluster("node", &[]).await.unwrap();
    let agent = Agent::start(cluster, "node", Some(&token)).await.unwrap();
    cluster.apply_yaml(MEASURED).await.unwrap();
    let mut names = BTreeMap::new();
    for file in files(&folder) {
        let example = file.file_name().unwrap().to_str().unwrap().to_owned();
        names.insert(example, create(cluster, &file).await);
    }
    assert_eq!(names.len(), 10);

    let checks = until_all_have_run(&hub, names.len() + 1).await;
    judge(&names, &checks);
    judge_runs(&names, &hub.history("cluster=node").await.unwrap());
    let samples = &checks["measured"].state.samples;
    assert!(matches!(&samples[..], [one] if one.metric == "answer" && one.value == 42.0), "{samples:?}");
    let done = done_pods(cluster).await;
    assert_ne!(done, [""; 0]);

    both_ends_of_chance(cluster, &hub, &folder.join(RANDOM), names[RANDOM].clone()).await;
    until_deleted(cluster, &done).await;
    agent.process.stop();
    drop(agent);
    logs_stay_in_the_cluster(cluster, &hub, &names[FAILING]).await;
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect()
}

/// Creates the HealthCheck of a file, and gives the name that it got.
async fn create(cluster: &Cluster, file: &Path) -> String {
    let create = ["create", "-f", file.to_str().unwrap(), "-o", "jsonpath={.metadata.name}"];
    cluster.kubectl(&create).await.unwrap()
}

/// Every check by its name, once each has run or says that it does not.
async fn until_all_have_run(hub: &Hub, count: usize) -> BTreeMap<String, CheckView> {
    let all = wait::until("end of every example", LIMIT, || async {
        let checks = hub.checks("cluster=node").await?;
        let pending = checks.iter().filter(|check| check.status.as_str() == "Pending").map(|check| &check.state.name);
        let pending: Vec<_> = pending.collect();
        anyhow::ensure!(checks.len() == count && pending.is_empty(), "of {} pend {pending:?}", checks.len());
        Ok(Some(checks))
    });
    let all = all.await.unwrap_or_else(|error| panic!("{error:#}"));
    all.into_iter().map(|check| (check.state.name.clone(), check)).collect()
}

fn judge(names: &BTreeMap<String, String>, checks: &BTreeMap<String, CheckView>) {
    let said = |example: &str| {
        let check = &checks[&names[example]];
        (check.status.as_str(), check.state.message.as_str())
    };
    for example in SUCCEED {
        assert_eq!(said(example), ("Succeeded", ""), "{example}");
    }
    for (example, why) in FAIL {
        let (status, message) = said(example);
        let told = why.iter().any(|(_, told)| message.contains(told));
        assert!(status == "Failed" && told, "{example}: {status}: {message}");
    }
    let (status, message) = said(STOPPED);
    assert!(status == "Stopped" && message.contains("spec.schedule.cron"), "{STOPPED}: {status}: {message}");
}

/// The history says the same as the checks, run by run.
fn judge_runs(names: &BTreeMap<String, String>, runs: &[RunView]) {
    let of = |example: &str| {
        let name = &names[example];
        let runs: Vec<_> = runs.iter().map(|view| &view.run).filter(|run| run.name == *name).collect();
        runs
    };
    for example in SUCCEED {
        let runs = of(example);
        assert!(!runs.is_empty() && runs.iter().all(|run| run.outcome == Outcome::Succeeded), "{example}: {runs:?}");
    }
    for (example, why) in FAIL {
        let runs = of(example);
        let as_told =
            |run: &&Run| why.iter().any(|(reason, told)| run.reason == Some(*reason) && run.message.contains(told));
        assert!(!runs.is_empty() && runs.iter().all(as_told), "{example}: {runs:?}");
    }
    assert!(of(STOPPED).is_empty());
    // What its pods wrote has outlived them.
    assert!(of(FAILING).iter().all(|run| run.log_tail.contains("fail: not found")), "{:?}", of(FAILING));
}

async fn both_ends_of_chance(cluster: &Cluster, hub: &Hub, file: &Path, first: String) {
    let mut names = vec![first];
    while names.len() < COPIES {
        names.push(create(cluster, file).await);
    }
    let ends = wait::until("both ends of chance", CHANCE_LIMIT, || async {
        let mut runs = hub.history("cluster=node").await?;
        runs.retain(|view| names.contains(&view.run.name));
        let (well, failed): (Vec<_>, Vec<_>) = runs.iter().partition(|view| view.run.outcome == Outcome::Succeeded);
        anyhow::ensure!(!well.is_empty() && !failed.is_empty(), "{} succeeded, {} failed", well.len(), failed.len());
        Ok(Some(failed.iter().map(|view| view.run.clone()).collect::<Vec<_>>()))
    });
    let failed = ends.await.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(failed.iter().all(|run: &Run| run.message.contains("Error (exit code 1)")), "{failed:?}");
}

/// With `--log-tails=false`: a run that fails as before has no log, and nobody asked for one.
async fn logs_stay_in_the_cluster(cluster: &Cluster, hub: &Hub, failing: &str) {
    let asked = || {
        let events = cluster.audit().unwrap();
        let agents = events.iter().filter(|event| event.user.username.ends_with(":active-monitor-agent"));
        agents.filter_map(|event| event.object_ref.as_ref()).filter(|object| object.subresource == "log").count()
    };
    let query = format!("cluster=node&name={failing}");
    let (logs, runs) = (asked(), hub.history(&query).await.unwrap().len());
    assert!(logs > 0, "with tails it asks");
    let _agent = Agent::start_with(
        cluster,
        "node",
        None,
        &["--log-tails=false", "--hub-address", &hub.agents_address, "--enrolment-address", &hub.enrolment_address],
    )
    .await
    .unwrap();
    let failed = wait::until("another failure", LIMIT, || async {
        let history = hub.history(&query).await?;
        Ok((history.len() > runs).then(|| history[..history.len() - runs].to_vec()))
    });
    let failed = failed.await.unwrap_or_else(|error| panic!("{error:#}"));
    let told = |view: &RunView| view.run.message.contains("Error (exit code 127)") && view.run.log_tail.is_empty();
    assert!(failed.iter().all(told), "{failed:?}");
    assert_eq!(asked(), logs, "no log was asked for");
}

/// The pods in `health` whose containers have ended.
async fn done_pods(cluster: &Cluster) -> Vec<String> {
    let done = "--field-selector=status.phase!=Pending,status.phase!=Running";
    let names = cluster.kubectl(&["-n", "health", "get", "pods", done, "-o", "name"]).await.unwrap();
    names.lines().map(str::to_owned).collect()
}

/// Argo deletes the pods some time after they are done, and keeps the workflows.
async fn until_deleted(cluster: &Cluster, pods: &[String]) {
    wait::until("end of the pods", LIMIT, || async {
        let there = cluster.kubectl(&["-n", "health", "get", "pods", "-o", "name"]).await?;
        Ok((!there.lines().any(|pod| pods.iter().any(|done| done == pod))).then_some(()))
    })
    .await
    .unwrap();
    let text = cluster.kubectl(&["-n", "health", "get", "workflows", "-o", "json"]).await.unwrap();
    let workflows = serde_json::from_str::<Value>(&text).unwrap();
    let ended = workflows["items"].as_array().unwrap().iter().filter(|item| item["status"]["finishedAt"].is_string());
    let pod_gc: Vec<_> = ended.map(|workflow| workflow["spec"]["podGC"]["strategy"].as_str()).collect();
    assert!(!pod_gc.is_empty() && pod_gc.iter().all(|strategy| *strategy == Some("OnPodCompletion")), "{pod_gc:?}");
}
