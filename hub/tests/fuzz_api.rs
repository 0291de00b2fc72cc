//! Asks the real program all that its OpenAPI document allows, and much that it does not: no answer may be a 5xx, and each must be
//! one that the document has. The hub has clusters, checks, runs, definitions, windows and incidents.
//!
//! Needs `schemathesis` (PyPI), pinned in `fuzz_api/requirements.txt`; `.ci/run` installs it. `ACTIVE_MONITOR_FUZZ_SECONDS` says how
//! long it asks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use active_monitor_core::care::WindowSpec;
use active_monitor_core::health::Health;
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::state::CheckState;
use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{CheckStatus, Incident};
use active_monitor_hub::store::sqlite::SqliteStore;
use active_monitor_hub::store::{CheckKey, ClusterRecord, Store};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What it asks about.
const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz_api/schemathesis.toml");
/// The stream of events has no end, and tokens are left alone, or the run would take its own away.
const LEFT_ALONE: &str = "^/api/v1/(events|tokens|login|logout)";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// A time ago.
fn ago(seconds: u64) -> Timestamp {
    Timestamp::now() - Duration::from_secs(seconds)
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn check(name: &str) -> (CheckState, Health) {
    let totals = json!({"succeeded": 5, "failed": 2, "startedAt": ago(90), "finishedAt": ago(80)});
    let state = json!({
        "uid": format!("uid-{name}"), "namespace": "health", "name": name, "phase": "Failed", "schedule": "@every 60s",
        "message": "no such host", "timeoutSeconds": 30, "check": totals, "nextSlot": ago(30), "dependsOn": ["health/web"],
        "samples": [{"metric": "latency", "help": "", "value": 0.5}],
    });
    (read::<CheckState>(state), Health::default())
}

fn run(name: &str, seconds: u64) -> Run {
    Run {
        key: RunKey { check_uid: format!("uid-{name}"), kind: RunKind::HealthCheck, slot: ago(seconds) },
        namespace: "health".to_owned(),
        name: name.to_owned(),
        workflow: None,
        outcome: Outcome::Failed,
        reason: Some(Reason::WorkflowFailed),
        message: "no such host".to_owned(),
        started_at: ago(seconds),
        finished_at: ago(seconds - 5),
        warning: String::new(),
        log_tail: String::new(),
    }
}

fn incident(name: &str) -> Arc<Incident> {
    let counts = json!({"failing": 1, "healthy": 2, "unknown": 0, "failingInScope": 1, "inScope": 3});
    read(json!({
        "id": format!("check/health/{name}"), "kind": "Check", "subject": format!("check/health/{name}"), "title": name,
        "namespace": "health", "name": name, "widespread": false, "silenced": false, "flapping": false,
        "firstSeen": ago(90), "lastChange": ago(90), "counts": counts,
    }))
}

/// Much of everything.
async fn fill(data: &Path) {
    let store = SqliteStore::open(data).await.unwrap();
    let mut steps = Vec::new();
    for index in 0..10 {
        let name = format!("c{index}");
        let record = ClusterRecord {
            name: name.clone(),
            labels: [("env".to_owned(), if index % 2 == 0 { "prod" } else { "dev" }.to_owned())].into(),
            cluster_uid: Some(format!("uid-{name}")),
            created_at: ago(9000),
            ..ClusterRecord::default()
        };
        store.put_cluster(&record).await.unwrap();
        let names = ["dns", "web", "disk"];
        store.save_check_states(&name, names.map(check).to_vec(), Vec::new()).await.unwrap();
        let runs = names.iter().flat_map(|name| (1..20).map(|slot| run(name, slot * 60))).collect();
        store.record_runs(&name, runs, ago(1)).await.unwrap();
        for check in names {
            let key = CheckKey { cluster: name.clone(), namespace: "health".into(), name: check.into() };
            let status = Some(CheckStatus::Failed);
            steps.push((key, Transition { at: ago(3600), status, maintenance: false }));
        }
        let definition = json!({
            "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck",
            "metadata": {"name": format!("d{index}")},
            "spec": {
                "clusterSelector": {"matchLabels": {"env": "prod"}},
                "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": 60, "level": "${cluster.labels.env}"}},
            },
        });
        store.put_definition(&format!("d{index}"), &definition).await.unwrap();
        let window = json!({"name": format!("w{index}"), "cron": "@daily", "durationSeconds": 60});
        store.put_window(&format!("w{index}"), Some(&read::<WindowSpec>(window))).await.unwrap();
    }
    store.record_transitions(Life { from: ago(7200), to: ago(1) }, steps).await.unwrap();
    store.put_incidents(&[incident("dns"), incident("web")]).await.unwrap();
}

/// The program; it ends with this.
struct Hub {
    child: Child,
    url: String,
    log: Arc<Mutex<String>>,
}

impl Hub {
    fn start(data: &Path) -> Hub {
        let mut child = Command::new(env!("CARGO_BIN_EXE_active-monitor-hub"))
            .args(["--people-plaintext", "--data-dir"])
            .arg(data)
            .args([
                "--people-listen",
                "127.0.0.1:0",
                "--agents-listen",
                "127.0.0.1:0",
                "--enrolment-listen",
                "127.0.0.1:0",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (log, (said, heard)) = (Arc::<Mutex<String>>::default(), mpsc::channel());
        let mut hub = Hub { child, url: String::new(), log: Arc::clone(&log) };
        // It goes on reading, so that the hub is never held up by a full pipe.
        std::thread::spawn(move || {
            for line in lines {
                *log.lock().unwrap() += &format!("{line}\n");
                // Nobody listens any more once the address is known.
                let _ = said.send(line);
            }
        });
        while hub.url.is_empty() {
            let line = heard.recv_timeout(Duration::from_secs(60)).expect("the hub says where it listens");
            hub.url = people(&line).map(|port| format!("http://127.0.0.1:{port}")).unwrap_or_default();
        }
        hub
    }
}

/// The port of the people's listener, in the line that says it.
fn people(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("people")?.1.split_once("127.0.0.1:")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As the tests of the whole fleet say it.
fn skipped(reason: &str) {
    let line = format!("skipped: fuzz_api: {reason}\n");
    eprint!("{line}");
    let Some(path) = std::env::var_os("ACTIVE_MONITOR_SKIPS") else { return };
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_no_answer_is_a_5xx_and_each_is_in_the_document() {
    if Command::new("schemathesis").arg("--version").output().is_err() {
        return skipped("schemathesis is not installed: pip install -r hub/tests/fuzz_api/requirements.txt");
    }
    let data = tempfile::tempdir().unwrap();
    fill(data.path()).await;
    let hub = Hub::start(data.path());
    let token = std::fs::read_to_string(data.path().join("admin-token")).unwrap();
    let seconds = std::env::var("ACTIVE_MONITOR_FUZZ_SECONDS").unwrap_or_else(|_| "20".to_owned());
    let output = Command::new("schemathesis")
        // It keeps a cache where it runs.
        .current_dir(data.path())
        .args(["--config-file", SETTINGS, "run", &format!("{}/api/v1/openapi.json", hub.url)])
        .args(["-H", &format!("Authorization: Bearer {}", token.trim())])
        .args(["--exclude-path-regex", LEFT_ALONE, "--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
        .args(["--max-time", &seconds, "--rate-limit", "150/s", "--seed", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    let log = hub.log.lock().unwrap();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}
