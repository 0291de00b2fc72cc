//! The Kubernetes events of docs/events.md, as `kubectl describe` shows them. Those that take another controller, another
//! CRD or somebody who changes rights are in the tests that the table names.

use active_monitor_tests::fleet::project;
use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use serde_json::Value;

use super::failures::{successes, until};
use super::{PATIENCE, check, failing_check, patient, waiting_check};

/// Check, reason, and whether it is a warning.
const EXPECTED: [(&str, &str, bool); 8] = [
    ("good", "Succeeded", false),
    ("mended", "Failed", true),
    ("mended", "RemedySucceeded", false),
    ("past-mending", "RemedyFailed", true),
    ("paused", "Stopped", false),
    ("invalid", "Invalid", true),
    ("slow", "SlotMissed", true),
    ("ahead", "ClockWasAhead", true),
];

fn remedied(name: &str, remedy: &str) -> String {
    let (_, remedy) = remedy.split_once("  workflow:\n").expect("workflow");
    format!("{}  remedyworkflow:\n{}", failing_check(name, "repeatAfterSec: 3600"), remedy.replace("probe", "fixer"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_happens_to_a_check_is_told_as_an_event_of_it() {
    let name = "each_thing_that_happens_to_a_check_is_told_as_an_event_of_it";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let agent = Agent::start(cluster, "events", None).await.expect("agent");
    // Its run ends some seconds after the slot that follows, whose run may begin a second late, and some before the next one:
    // a slot's run starts within its second, and Argo cuts a duration to whole seconds.
    let slow = ["entrypoint: wait", "templates:", "- name: wait", r#"  suspend: {duration: "15s"}"#];
    let checks = [
        waiting_check("good", "repeatAfterSec: 3600"),
        remedied("mended", &waiting_check("x", "")),
        remedied("past-mending", &failing_check("x", "")),
        waiting_check("paused", "repeatAfterSec: 0"),
        waiting_check("invalid", "schedule: {cron: '61 * * * *'}"),
        patient(check("slow", "repeatAfterSec: 10\n  startingDeadlineSeconds: 1", &slow)),
        waiting_check("ahead", "repeatAfterSec: 3600"),
    ];
    cluster.apply_yaml(&checks.join("---\n")).await.expect("checks");
    until(cluster, "ahead", "first run", |check| successes(check) == 1).await;
    // As an agent left it whose clock was a day ahead.
    let tomorrow = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).strftime("%Y-%m-%dT%H:%M:%SZ");
    let status = format!(r#"{{"status": {{"startedAt": "{tomorrow}"}}}}"#);
    let patch = ["patch", "hc", "ahead", "-n", "health", "--subresource=status", "--type=merge", "-p", &status];
    cluster.kubectl(&patch).await.expect("status");

    wait::until("every event", PATIENCE, || async {
        let told = told(cluster).await?;
        let missing: Vec<_> = EXPECTED.iter().filter(|expected| !told.contains(&tuple(expected))).collect();
        anyhow::ensure!(missing.is_empty(), "not told: {missing:?}");
        Ok(Some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
    let table = std::fs::read_to_string(project().join("docs/events.md")).expect("docs/events.md");
    for (_, reason, _) in told(cluster).await.expect("events") {
        assert!(table.contains(&format!("| `{reason}` |")), "docs/events.md does not know {reason}");
    }
}

fn tuple(expected: &(&str, &str, bool)) -> (String, String, bool) {
    (expected.0.to_owned(), expected.1.to_owned(), expected.2)
}

/// What was told of each HealthCheck; each event says something.
async fn told(cluster: &Cluster) -> anyhow::Result<Vec<(String, String, bool)>> {
    let text = cluster.kubectl(&["get", "events.events.k8s.io", "-n", "health", "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&text)?;
    let events = list["items"].as_array().cloned().unwrap_or_default();
    let of_checks = events.iter().filter(|event| event["regarding"]["kind"] == "HealthCheck");
    let ours = of_checks.filter(|event| event["note"].as_str().is_some_and(|note| !note.is_empty()));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(ours
        .map(|event| (word(&event["regarding"]["name"]), word(&event["reason"]), event["type"] == "Warning"))
        .collect())
}
