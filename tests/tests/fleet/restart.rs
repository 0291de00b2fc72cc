//! An agent with a thousand checks is killed and starts again: what is not due does not run, what was missed runs once, no
//! more at once than may be in flight, and each run in flight is adopted and counted once. Argo, which begins some twenty
//! workflows a second, is stood in for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::manifest::{SLOT_LABEL, slot_label};
use active_monitor_tests::bench::Stub;
use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;

use super::{Created, PATIENCE, check, created_workflows, patient};

/// Checks that have run and are due in an hour.
const IDLE: usize = 840;
/// Checks whose run is in flight when the agent is killed; every second one ends while it is away.
const IN_FLIGHT: usize = 60;
/// Checks whose slots pass while it is away.
const DUE: usize = 100;
const PERIOD: Duration = Duration::from_secs(12);
/// Runs in flight that the agent allows.
const MOST: usize = 100;
/// Requests at the same time when checks are made.
const MAKERS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_thousand_checks_runs_what_is_due_and_adopts_what_is_in_flight() {
    let name = "a_restart_with_a_thousand_checks_runs_what_is_due_and_adopts_what_is_in_flight";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    cluster.stop_argo();
    let _argo = Stub::start(cluster.client().expect("client"));
    let limits = [format!("--max-runs-in-flight={MOST}"), format!("--max-runs-in-flight-per-namespace={MOST}")];
    let agent = Agent::start_with(cluster, "restarted", None, &limits.each_ref().map(String::as_str)).await;
    let agent = agent.expect("agent");
    agent.process.until_logged("caches are complete", 0, PATIENCE).await.expect("a ready agent");

    make(cluster, "idle", IDLE, "repeatAfterSec: 3600", |_| 1).await;
    until_counted(cluster, &agent, "idle", IDLE).await;
    make(cluster, "due", DUE, &format!("repeatAfterSec: {}", PERIOD.as_secs()), |_| 1).await;
    make(cluster, "flight", IN_FLIGHT, "repeatAfterSec: 3600", |i| if i % 2 == 0 { 8 } else { 30 }).await;
    wait::until("runs in flight", PATIENCE, || async {
        Ok((checks_of(cluster, "flight").len() == IN_FLIGHT && checks_of(cluster, "due").len() == DUE).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));

    agent.process.stop();
    let killed = Timestamp::now();
    // A slot of each check passes, and for every second run in flight its end.
    tokio::time::sleep(PERIOD + Duration::from_secs(1)).await;
    let back = Timestamp::now();
    let log = agent.process.log_bytes();
    agent.process.start().expect("agent again");
    agent.process.until_logged("caches are complete", log, PATIENCE).await.expect("a ready agent");
    until_counted(cluster, &agent, "flight", IN_FLIGHT).await;
    wait::until("a run of each that is due", PATIENCE, || async {
        Ok((runs_since(cluster, killed).await?.len() == DUE).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));

    pause_due(cluster).await;
    let counted = until_all_counted(cluster, &agent).await;
    for (check, runs) in runs_since(cluster, killed).await.expect("runs") {
        let missed = runs.iter().filter(|(_, slot)| *slot <= slot_label(runs[0].0)).count();
        assert_eq!(missed, 1, "{check}: the slots before its first run are made up for by that one: {runs:?}");
    }
    let created = created_workflows(cluster);
    let since: Vec<&Created> = created.iter().filter(|made| made.at >= killed).collect();
    let undue: Vec<_> = since.iter().filter(|made| !made.workflow.starts_with("health/due-")).collect();
    assert!(undue.is_empty(), "created though not due: {undue:?}");
    assert_eq!(
        created.iter().map(|made| &made.workflow).collect::<BTreeSet<_>>().len(),
        created.len(),
        "no slot twice"
    );
    let untouched = written(cluster, back).into_iter().filter(|check| check.starts_with("idle-")).count();
    assert_eq!(untouched, 0, "nothing is written of a check that has nothing to tell");
    let most = most_at_once(cluster, &created).await;
    assert!(most <= MOST, "{most} runs were in flight at once");
    println!(
        "{counted} runs, each counted once; {} of them since the agent was killed, at most {most} at once",
        since.len()
    );
}

/// Makes checks, whose workflows take so many seconds.
async fn make(cluster: &Cluster, name: &str, checks: usize, timing: &str, takes: impl Fn(usize) -> u64) {
    let api = Api::<HealthCheck>::namespaced(cluster.client().expect("client"), "health");
    let made = stream::iter(0..checks).map(|i| {
        let suspend = format!(r#"  suspend: {{duration: "{}s"}}"#, takes(i));
        let spec = ["entrypoint: wait", "templates:", "- name: wait", &suspend];
        let text = patient(check(&format!("{name}-{i}"), timing, &spec));
        let api = api.clone();
        async move { anyhow::Ok(api.create(&PostParams::default(), &serde_saphyr::from_str(&text)?).await?) }
    });
    let made: Vec<HealthCheck> = made.buffer_unordered(MAKERS).try_collect().await.expect("checks");
    assert_eq!(made.len(), checks);
}

/// The checks of this name that have a workflow.
fn checks_of(cluster: &Cluster, name: &str) -> BTreeSet<String> {
    let created = created_workflows(cluster).into_iter().map(|made| check_of(&made.workflow));
    created.filter(|check| check.starts_with(&format!("{name}-"))).collect()
}

/// A workflow's name is its check's, and a hash.
fn check_of(workflow: &str) -> String {
    let name = workflow.trim_start_matches("health/");
    name.rsplit_once('-').map_or(name, |(check, _)| check).to_owned()
}

async fn checks(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let list = cluster.get("/apis/activemonitor.keikoproj.io/v1alpha1/namespaces/health/healthchecks").await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Waits until each of these checks, which are due once, has one success.
async fn until_counted(cluster: &Cluster, agent: &Agent, name: &str, checks: usize) {
    let prefix = format!("{name}-");
    wait::until(&format!("each of {name} counted"), PATIENCE, || async {
        let all = self::checks(cluster).await?;
        let of_name =
            all.iter().filter(|check| check["metadata"]["name"].as_str().is_some_and(|n| n.starts_with(&prefix)));
        let counted = of_name.filter(|check| check["status"]["successCount"] == 1).count();
        anyhow::ensure!(counted == checks, "{counted} of {checks}");
        Ok(Some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
}

/// When runs were created and for which slot, by check, since the agent was killed.
async fn runs_since(
    cluster: &Cluster,
    killed: Timestamp,
) -> anyhow::Result<BTreeMap<String, Vec<(Timestamp, String)>>> {
    let workflows = cluster.workflows("health").await?;
    let name = |workflow: &Value| format!("health/{}", workflow["metadata"]["name"].as_str().unwrap_or_default());
    let slot = |workflow: &Value| workflow["metadata"]["labels"][SLOT_LABEL].as_str().unwrap_or_default().to_owned();
    let slots: BTreeMap<String, String> = workflows.iter().map(|workflow| (name(workflow), slot(workflow))).collect();
    let mut runs: BTreeMap<String, Vec<(Timestamp, String)>> = BTreeMap::new();
    for made in created_workflows(cluster).into_iter().filter(|made| made.at >= killed) {
        let slot = slots.get(&made.workflow).cloned().unwrap_or_default();
        runs.entry(check_of(&made.workflow)).or_default().push((made.at, slot));
    }
    runs.values_mut().for_each(|runs| runs.sort());
    Ok(runs)
}

async fn pause_due(cluster: &Cluster) {
    let api = Api::<HealthCheck>::namespaced(cluster.client().expect("client"), "health");
    let paused = stream::iter(0..DUE).map(|i| {
        let api = api.clone();
        async move {
            let pause = Patch::Merge(serde_json::json!({"spec": {"repeatAfterSec": 0}}));
            api.patch(&format!("due-{i}"), &PatchParams::default(), &pause).await.map(drop)
        }
    });
    paused.buffer_unordered(MAKERS).try_collect::<()>().await.expect("pauses");
}

/// Waits until each check has counted as many successes as it has workflows, and no failure; gives how many that are.
async fn until_all_counted(cluster: &Cluster, agent: &Agent) -> u64 {
    wait::until("each run counted once", PATIENCE, || async {
        let checks = checks(cluster).await?;
        let mut created: BTreeMap<String, u64> = BTreeMap::new();
        for made in created_workflows(cluster) {
            *created.entry(check_of(&made.workflow)).or_default() += 1;
        }
        let mut all = 0;
        for check in &checks {
            let (status, name) = (&check["status"], check["metadata"]["name"].as_str().unwrap_or_default());
            let (counted, made) =
                (status["successCount"].as_u64().unwrap_or(0), created.get(name).copied().unwrap_or(0));
            let is_paused = !name.starts_with("due-") || status["status"] == "Stopped";
            anyhow::ensure!(
                counted == made && is_paused && status["failedCount"].as_u64().unwrap_or(0) == 0,
                "{name} has {made} runs: {status}"
            );
            all += made;
        }
        Ok((checks.len() == IDLE + IN_FLIGHT + DUE).then_some(all))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()))
}

/// Checks whose status the agent has written since then.
fn written(cluster: &Cluster, since: Timestamp) -> Vec<String> {
    let events = cluster.audit().expect("audit log");
    let agents = events.iter().filter(|event| event.user.username.ends_with(":active-monitor-agent"));
    let patches = agents.filter(|event| event.is("patch", "healthchecks") && event.request_received_timestamp >= since);
    patches.filter_map(|event| Some(event.object_ref.as_ref()?.name.clone())).collect()
}

/// The most runs that were in flight at once: from the request that created one until the second in which it ended began.
async fn most_at_once(cluster: &Cluster, created: &[Created]) -> usize {
    let mut steps: Vec<(Timestamp, isize)> = created.iter().map(|made| (made.at, 1)).collect();
    for workflow in cluster.workflows("health").await.expect("workflows") {
        let ended = workflow["status"]["finishedAt"].as_str().and_then(|at| at.parse().ok());
        steps.push((ended.expect("each has ended"), -1));
    }
    // What ends with the second in which another one begins made room for it.
    steps.sort();
    let (mut now, mut most) = (0, 0);
    for (_, step) in steps {
        now += step;
        most = most.max(now);
    }
    usize::try_from(most).expect("no more end than begin")
}
