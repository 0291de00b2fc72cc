//! Asks a hub with a fleet all that its OpenAPI document allows, and much that it does not: no answer may be a 5xx, each must be
//! one that the document has, and the hub may not complain in its log. schemathesis (PyPI) does the asking; `make fuzz-api`.

// Helpers of a test fail it too; clippy takes only the test functions themselves for tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::view::{CheckStatus, IncidentPage};
use active_monitor_tests::bench::sim::Agents;
use active_monitor_tests::fleet::{Hub, project};
use active_monitor_tests::run_dir::RunDir;
use active_monitor_tests::{skip, wait};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// Of one call, for each caller: `make fuzz-api` asks more.
const EXAMPLES: &str = "10";
/// Until the fleet is as it shall be.
const LIMIT: Duration = Duration::from_secs(60);
/// What takes away what other calls ask for, cuts agents off, or replaces the caller's own token: it is asked last.
/// schemathesis learns names from answers.
const LAST: &str = "^(removeCluster|rebindCluster|addToken|removeToken|rollCa)$";
const CLUSTERS: [&str; 2] = ["east", "west"];

/// What schemathesis asks with, beside what it makes up: names that are there.
const CONFIG: &str = r#"
seed = 1
rate-limit = "150/s"
# The stream of events has no end.
max-stream-events = 1
request-timeout = 40

[checks]
enabled = false
not_a_server_error = { enabled = true }
status_code_conformance = { enabled = true }
content_type_conformance = { enabled = true }
response_schema_conformance = { enabled = true }

[dictionaries]
clusters = { values = ["east", "west"] }
namespaces = { values = ["health"] }
names = { values = ["check-000", "check-001", "dns", "night", "kept", "frost"] }

[parameters]
cluster = { dictionary = "clusters", probability = 0.7 }
namespace = { dictionary = "namespaces", probability = 0.7 }
name = { dictionary = "names", probability = 0.7 }

[[operations]]
include-operation-id = "events"
# The document describes the text of the stream, schemathesis asks of each event whether it is that text.
checks = { response_schema_conformance = { enabled = false } }
"#;

/// What is Git's, which nobody else may change.
const GIT: &str = r#"
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetHealthCheck
metadata: {name: kept}
spec:
  clusterSelector: {matchLabels: {tier: gold}}
  template: {metadata: {namespace: health}, spec: {repeatAfterSec: 60}}
---
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetCluster
metadata: {name: west, labels: {tier: gold}}
---
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: MaintenanceWindow
metadata: {name: frost}
spec: {cron: "0 4 * * *", durationSeconds: 60}
"#;
/// Nobody is told by it: it picks no incident that there is.
const ROUTES: &str = "routes: [{name: oncall, webhook: 'http://127.0.0.1:1', match: {check: none}}]";

struct Fleet {
    hub: Hub,
    agents: Agents,
    run: Arc<RunDir>,
}

impl Fleet {
    async fn start() -> Fleet {
        let run = Arc::new(RunDir::create().unwrap());
        let [folder, routes] = ["fleet", "routes.yaml"].map(|name| run.path().join(name).display().to_string());
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(format!("{folder}/all.yaml"), GIT).unwrap();
        std::fs::write(&routes, ROUTES).unwrap();
        let flags = ["--git-folder", &folder, "--routes-file", &routes];
        let hub = Hub::start_with(&run, run.path(), &flags).await.unwrap();
        let ca = std::fs::read_to_string(run.path().join("hub/ca.crt")).unwrap();
        let names = CLUSTERS.map(str::to_owned).into();
        let agents = Agents::join_as(&hub, &ca, names, 5).await.unwrap();
        let fleet = Fleet { hub, agents, run };
        fleet.fill().await;
        fleet
    }

    async fn write(&self, method: Method, path: &str, body: Value) -> String {
        self.hub.request(method, path, Some(&body)).await.unwrap()
    }

    /// Some of all that a hub can have.
    async fn fill(&self) {
        for name in CLUSTERS {
            let path = format!("/api/v1/clusters/{name}");
            self.write(Method::PATCH, &path, json!({"labels": {"env": "prod"}, "annotations": {"url": "x"}})).await;
        }
        let definition = json!({
            "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck", "metadata": {"name": "dns"},
            "spec": {
                "clusterSelector": {"matchLabels": {"env": "prod"}},
                "template": {"metadata": {"namespace": "health"}, "spec": {"description": "${cluster.name}"}},
            },
        });
        self.write(Method::PUT, "/api/v1/definitions/dns", definition).await;
        let window = json!({"name": "night", "cron": "0 3 * * *", "durationSeconds": 3600});
        self.write(Method::PUT, "/api/v1/windows/night", window).await;
        self.hub.add_cluster("pending", &[]).await.unwrap();
        self.until("what is Git's", async || {
            let sources: Value = self.hub.get("/api/v1/sources").await.ok()?;
            (sources["items"][0]["state"] == "InForce").then_some(())
        })
        .await;
        let reported = self.agents.report(50);
        self.agents.fail(true);
        self.until("reports", async || (self.agents.acked() >= reported).then_some(())).await;
        self.until("incident", async || {
            let page: IncidentPage = self.hub.get("/api/v1/incidents").await.ok()?;
            (!page.items.is_empty()).then_some(())
        })
        .await;
        let acknowledgement = "/api/v1/clusters/east/checks/health/check-000/acknowledgement";
        self.write(Method::PUT, acknowledgement, json!({"expiresInSeconds": 3600, "comment": "known"})).await;
    }

    async fn until<T>(&self, what: &str, holds: impl AsyncFn() -> Option<T>) -> T {
        let holds = &holds;
        let held = wait::until(what, LIMIT, || async move { Ok(holds().await) }).await;
        held.unwrap_or_else(|error| panic!("{error:#}\n{}", self.hub.process.log_tail()))
    }

    /// A new token with this role.
    async fn token(&self, role: &str) -> String {
        let answer =
            self.write(Method::POST, "/api/v1/tokens", json!({"name": format!("fuzz-{role}"), "role": role})).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["token"].as_str().unwrap().to_owned()
    }

    /// Asks all calls that are chosen, as the owner of the token.
    async fn ask(&self, schemathesis: &Path, token: &str, phases: &str, chosen: [&str; 2]) {
        let examples = std::env::var("ACTIVE_MONITOR_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
        let config = self.run.path().join("schemathesis.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let mut command = Command::new(schemathesis);
        command.arg("--config-file").arg(&config).args(["run", &format!("{}/api/v1/openapi.json", self.hub.url)]);
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
        command.args(["--phases", phases, "--max-examples", &examples]).args(chosen);
        // It keeps a cache where it runs.
        command.current_dir(self.run.path()).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        println!("{said}");
    }

    /// Without what was asked for there would be little to answer.
    async fn assert_there(&self, token: &str) {
        let me = reqwest::Client::new().get(format!("{}/api/v1/me", self.hub.url)).bearer_auth(token);
        assert!(me.send().await.unwrap().status().is_success(), "the token is no longer known");
        for cluster in CLUSTERS {
            let status = self.hub.check_status(cluster, "check-001").await.unwrap();
            assert_eq!(status, Some(CheckStatus::Succeeded), "{cluster}");
        }
    }

    fn assert_content(&self) {
        let log = std::fs::read_to_string(self.hub.process.log()).unwrap();
        let complaints: Vec<&str> =
            log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

/// The program, where it is installed.
fn schemathesis() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("schemathesis")).find(|program| program.is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_hub_with_a_fleet_is_one_that_its_document_has() {
    let Some(schemathesis) = schemathesis() else {
        let pins = project().join("tests/schemathesis.txt");
        let reason = format!("schemathesis is not installed: pip install -r {}", pins.display());
        return skip::report("every_answer_of_a_hub_with_a_fleet_is_one_that_its_document_has", &reason);
    };
    let fleet = Fleet::start().await;
    let most = ["--exclude-operation-id-regex", LAST];
    // What each call may be given is the same for all of them.
    for (role, phases) in [("viewer", "fuzzing"), ("operator", "fuzzing"), ("admin", "coverage,fuzzing")] {
        let token = fleet.token(role).await;
        fleet.ask(&schemathesis, &token, phases, most).await;
        fleet.assert_there(&token).await;
    }
    fleet.ask(&schemathesis, &fleet.hub.token, "coverage,fuzzing", ["--include-operation-id-regex", LAST]).await;
    fleet.assert_content();
}
