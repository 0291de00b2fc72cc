//! Three clusters and one hub, as a platform team has them: definitions that reach the clusters they are meant for, the
//! project's examples, a Prometheus that scrapes the hub, and the dashboard in a browser.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use active_monitor_core::view::{CheckStatus, DefinitionView};
use active_monitor_tests::fleet::{binary, project, until_status};
use active_monitor_tests::port::PortLease;
use active_monitor_tests::{Agent, Cluster, Hub, Options, Process, Testbed, skip, wait};
use futures::future::join_all;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{PATIENCE, failing_check, takes_creates, waiting_check};

/// The promise: from the hub's answer to the write in every cluster, and from a status to the page.
const TWO_SECONDS: Duration = Duration::from_secs(2);
const NAMES: [(&str, &str); 3] = [("eu-1", "eu"), ("eu-2", "eu"), ("us-1", "us")];

struct Fleet {
    // In the order in which they end.
    agents: Vec<Agent>,
    hub: Hub,
    testbed: Testbed,
}

impl Fleet {
    async fn start(test: &str) -> Option<Fleet> {
        let options = Options { clusters: 3, node: false };
        let testbed = Testbed::start_or_skip(test, options).await.expect("testbed")?;
        let hub = Hub::start(testbed.clusters[0].run(), &testbed.clusters[0].dir).await.expect("hub");
        let joins = testbed.clusters.iter().zip(NAMES).map(|(cluster, (name, region))| {
            let hub = &hub;
            async move {
                let agent = Agent::join(cluster, hub, name, &[("region", region)]).await.expect("agent");
                takes_creates(cluster).await;
                agent
            }
        });
        let agents = join_all(joins).await;
        for agent in &agents {
            agent.wait_until_connected(&hub).await.expect("link");
        }
        Some(Fleet { agents, hub, testbed })
    }

    fn cluster(&self, name: &str) -> &Cluster {
        let at = NAMES.iter().position(|(known, _)| *known == name).expect("cluster");
        &self.testbed.clusters[at]
    }

    async fn until_result(&self, cluster: &str, result: &str) -> String {
        wait::until(&format!("{result} in {cluster}"), PATIENCE, || async {
            let view: DefinitionView = self.hub.get("/api/v1/definitions/pushed").await?;
            let status = view.clusters.into_iter().find(|status| status.cluster == cluster);
            let status = status.filter(|status| format!("{:?}", status.result) == format!("Some({result})"));
            Ok(status.map(|status| status.message))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Puts the definition and gives the instant of the hub's answer.
    async fn put(&self, definition: &serde_json::Value) -> Timestamp {
        self.hub.request(Method::PUT, "/api/v1/definitions/pushed", Some(definition)).await.expect("put");
        Timestamp::now()
    }
}

fn definition(description: &str, namespace: &str) -> serde_json::Value {
    let source = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  entrypoint: wait\n  templates:\n  \
        - name: wait\n    suspend: {duration: '1s'}\n";
    json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck",
        "metadata": {"name": "pushed"},
        "spec": {
            "clusterSelector": {"matchLabels": {"region": "eu"}},
            "template": {"metadata": {"namespace": namespace}, "spec": {
                "description": description, "repeatAfterSec": 30,
                "workflow": {"resource": {"namespace": "health", "serviceAccount": "sa-${cluster.name}",
                    "source": {"inline": source}}}}}
        }
    })
}

/// When the agent wrote the pushed HealthCheck, by the audit log, after `since`.
async fn written_at(cluster: &Cluster, verb: &str, since: Timestamp) -> Timestamp {
    wait::until(&format!("{verb} of the pushed HealthCheck"), PATIENCE, || async {
        let events = cluster.audit()?;
        let write = events.iter().find(|event| {
            let pushed = event.object_ref.as_ref().is_some_and(|object| object.name == "pushed");
            event.is(verb, "healthchecks")
                && pushed
                && event.stage_timestamp > since
                && event.code() < Some(300)
                && event.user.username.ends_with(":active-monitor-agent")
        });
        Ok(write.map(|event| event.stage_timestamp))
    })
    .await
    .unwrap_or_else(|error| panic!("{}: {error:#}", cluster.name))
}

/// One fleet for all of it, and what only waits beside the rest: the example fails in odd minutes.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_reach_the_clusters_that_match_and_people_see_the_fleet() {
    let name = "definitions_reach_the_clusters_that_match_and_people_see_the_fleet";
    let Some(fleet) = Fleet::start(name).await else { return };
    for example in ["hello", "schedule", "metrics", "remedy"] {
        let text = std::fs::read_to_string(project().join(format!("examples/{example}.yaml"))).expect("example");
        for cluster in &fleet.testbed.clusters {
            cluster.apply_yaml(&text).await.expect("apply");
        }
    }
    let in_turn = async {
        people_see_the_fleet_in_prometheus_on_the_command_line_and_in_the_browser(&fleet).await;
        a_definition_reaches_exactly_the_clusters_that_match(&fleet).await;
    };
    let remedied = join_all(NAMES.map(|(cluster, _)| a_failure_is_remedied(&fleet, cluster)));
    tokio::join!(in_turn, remedied);
    assert_eq!(fleet.agents.len(), 3);
}

async fn a_definition_reaches_exactly_the_clusters_that_match(fleet: &Fleet) {
    let before = Timestamp::now();
    let answered = fleet.put(&definition("first", "health")).await;
    for cluster in ["eu-1", "eu-2"] {
        let took = written_at(fleet.cluster(cluster), "create", before).await.duration_since(answered);
        println!("{cluster}: created {took:?} after the hub's answer");
        assert!(took.as_millis() <= TWO_SECONDS.as_millis().cast_signed(), "{cluster}: {took:?}");
        fleet.until_result(cluster, "Applied").await;
        until_status(&fleet.hub, cluster, "pushed", CheckStatus::Succeeded, PATIENCE).await.expect("it runs");
        let account = ["get", "serviceaccount", &format!("sa-{cluster}"), "-n", "health"];
        fleet.cluster(cluster).kubectl(&account).await.expect("the account named by the cluster");
    }
    assert!(exists(fleet.cluster("us-1")).await.is_none(), "us-1 does not match");

    let before = Timestamp::now();
    let answered = fleet.put(&definition("second", "health")).await;
    for cluster in ["eu-1", "eu-2"] {
        let took = written_at(fleet.cluster(cluster), "update", before).await.duration_since(answered);
        println!("{cluster}: changed {took:?} after the hub's answer");
        assert!(took.as_millis() <= TWO_SECONDS.as_millis().cast_signed(), "{cluster}: {took:?}");
    }
    a_local_check_is_left_alone(fleet).await;
    label_changes_are_followed(fleet).await;
    the_cluster_s_own_policy_wins(fleet).await;
    what_is_deleted_is_withdrawn(fleet).await;
    commands_reach_the_agent_and_are_never_lost(fleet).await;
}

async fn exists(cluster: &Cluster) -> Option<serde_json::Value> {
    let get = ["get", "healthcheck", "pushed", "-n", "health", "--ignore-not-found", "-o", "json"];
    let text = cluster.kubectl(&get).await.expect("get");
    serde_json::from_str(&text).ok()
}

async fn a_local_check_is_left_alone(fleet: &Fleet) {
    let us = fleet.cluster("us-1");
    us.apply_yaml(&waiting_check("pushed", "repeatAfterSec: 600")).await.expect("local check");
    let mut wider = definition("third", "health");
    wider["spec"]["clusterSelector"] = json!({});
    fleet.put(&wider).await;
    let message = fleet.until_result("us-1", "Conflict").await;
    assert!(message.contains("health/pushed"), "{message}");
    let local = exists(us).await.expect("the local check stays");
    assert!(local["spec"]["description"].is_null() && local["spec"]["repeatAfterSec"] == 600);
}

async fn label_changes_are_followed(fleet: &Fleet) {
    fleet.put(&definition("fourth", "health")).await;
    let patch = json!({"labels": {"region": "us"}});
    fleet.hub.request(Method::PATCH, "/api/v1/clusters/eu-2", Some(&patch)).await.expect("label");
    wait::until("withdrawal from eu-2", PATIENCE, || async {
        Ok(exists(fleet.cluster("eu-2")).await.is_none().then_some(()))
    })
    .await
    .expect("withdrawn");
    assert!(exists(fleet.cluster("eu-1")).await.is_some());
}

async fn the_cluster_s_own_policy_wins(fleet: &Fleet) {
    fleet.put(&definition("fifth", "kube-system")).await;
    let message = fleet.until_result("eu-1", "Refused").await;
    assert!(message.contains("kube-system") && message.contains("health"), "{message}");
    let get = ["get", "healthchecks", "-n", "kube-system", "-o", "name"];
    assert_eq!(fleet.cluster("eu-1").kubectl(&get).await.expect("get"), "");
    fleet.put(&definition("sixth", "health")).await;
    fleet.until_result("eu-1", "Applied").await;
}

async fn what_is_deleted_is_withdrawn(fleet: &Fleet) {
    fleet.hub.request(Method::DELETE, "/api/v1/definitions/pushed", None::<&()>).await.expect("delete");
    wait::until("withdrawal from eu-1", PATIENCE, || async {
        Ok(exists(fleet.cluster("eu-1")).await.is_none().then_some(()))
    })
    .await
    .expect("withdrawn");
    assert!(exists(fleet.cluster("us-1")).await.is_some(), "the local check stays");
}

/// When the agent did this to this object, by the audit log, after `since`.
async fn done_at(cluster: &Cluster, verb: &str, resource: &str, name: &str, since: Timestamp) -> Timestamp {
    wait::until(&format!("{verb} of {resource}"), PATIENCE, || async {
        let events = cluster.audit()?;
        let done = events.iter().find(|event| {
            event.is(verb, resource)
                && event
                    .object_ref
                    .as_ref()
                    .is_some_and(|object| object.name.starts_with(name) && object.subresource.is_empty())
                && event.request_received_timestamp > since
                && event.code() < Some(300)
                && event.user.username.ends_with(":active-monitor-agent")
        });
        Ok(done.map(|event| event.stage_timestamp))
    })
    .await
    .unwrap_or_else(|error| panic!("{}: {error:#}", cluster.name))
}

/// On a check that runs every ten minutes, and so never by itself meanwhile.
async fn commands_reach_the_agent_and_are_never_lost(fleet: &Fleet) {
    let (us, target) = (fleet.cluster("us-1"), "us-1/health/pushed");
    until_status(&fleet.hub, "us-1", "pushed", CheckStatus::Succeeded, PATIENCE).await.expect("its first run");
    let before = Timestamp::now();
    let ran = fleetcheck(fleet, &["run", target]).await;
    assert_eq!(ran.0, 0, "{}", ran.1);
    let asked = done_at(us, "patch", "healthchecks", "pushed", before).await.duration_since(before);
    let created = done_at(us, "create", "workflows", "", before).await.duration_since(before);
    println!(
        "run now: the agent asked for it {asked:?} and created its workflow {created:?} after the command was given"
    );
    assert!(asked.as_millis() <= TWO_SECONDS.as_millis().cast_signed(), "{asked:?}");
    assert!(created.as_millis() <= TWO_SECONDS.as_millis().cast_signed(), "{created:?}");

    let before = Timestamp::now();
    let paused = fleetcheck(fleet, &["pause", target, "--for", "1h", "--reason", "network work"]).await;
    assert_eq!(paused.0, 0, "{}", paused.1);
    until_status(&fleet.hub, "us-1", "pushed", CheckStatus::Stopped, PATIENCE).await.expect("paused");
    let took = Timestamp::now().duration_since(before);
    println!("pause: shown at the hub {took:?} after the command was given");
    assert!(took.as_millis() <= TWO_SECONDS.as_millis().cast_signed(), "{took:?}");

    let agent = fleet.agents.iter().find(|agent| agent.name == "us-1").expect("agent");
    agent.process.stop();
    let unreachable = fleetcheck(fleet, &["run", target]).await;
    assert!(unreachable.0 == 1 && unreachable.1.contains("Unreachable"), "{}", unreachable.1);
    agent.process.start().expect("agent");
    agent.wait_until_connected(&fleet.hub).await.expect("link");
    until_status(&fleet.hub, "us-1", "pushed", CheckStatus::Stopped, PATIENCE).await.expect("paused after a restart");
    let refused = fleetcheck(fleet, &["run", target]).await;
    assert!(refused.0 == 1 && refused.1.contains("Refused") && refused.1.contains("agent"), "{}", refused.1);
    let why = fleetcheck(fleet, &["why", target]).await;
    assert!(why.0 == 1 && why.1.contains("paused: ") && why.1.contains("network work"), "{}", why.1);

    let resumed = fleetcheck(fleet, &["resume", target]).await;
    assert_eq!(resumed.0, 0, "{}", resumed.1);
    until_status(&fleet.hub, "us-1", "pushed", CheckStatus::Succeeded, PATIENCE).await.expect("goes on");
    let log = fleetcheck(fleet, &["audit", "--limit", "20", "-o", "json"]).await.1;
    for line in
        ["command.run.result", "command.pause.result", "command.resume.result", "Unreachable", "Refused by agent"]
    {
        assert!(log.contains(line), "{line}: {log}");
    }
}

async fn people_see_the_fleet_in_prometheus_on_the_command_line_and_in_the_browser(fleet: &Fleet) {
    let applied = fleetcheck(fleet, &["apply", "--wait", "-f", "examples/fleet.yaml"]).await;
    assert_eq!(applied.0, 0, "{}", applied.1);
    for (cluster, region) in NAMES {
        for example in ["hello", "schedule", "metrics"] {
            until_status(&fleet.hub, cluster, example, CheckStatus::Succeeded, PATIENCE)
                .await
                .expect("example succeeds");
        }
        let pushed = fleet.hub.check_status(cluster, "eu-hello").await.expect("hub");
        assert_eq!(pushed.is_some(), region == "eu", "{cluster}");
    }
    let status = fleetcheck(fleet, &["checks", "-o", "json"]).await;
    assert!(status.0 == 0 && status.1.contains("eu-hello"), "{}", status.1);
    prometheus_scrapes_the_hub(fleet).await;
    a_red_check_turns_red_on_the_page(fleet).await;
}

/// The example fails in odd minutes: within two of them there is a failure, and the remedy that follows it.
async fn a_failure_is_remedied(fleet: &Fleet, cluster: &str) {
    wait::until("a remedy", Duration::from_secs(150), || async {
        let runs = fleet.hub.history(&format!("cluster={cluster}&name=remedy&kind=remedy")).await?;
        Ok(runs.iter().any(|run| run.run.outcome.as_str() == "Succeeded").then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{cluster}: {error:#}"));
}

/// Runs the project's command line as a person would; gives its exit code and output.
async fn fleetcheck(fleet: &Fleet, args: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(binary("fleetcheck").expect("fleetcheck"));
    let command = command.args(args).current_dir(project()).env("FLEETCHECK_HUB", &fleet.hub.url);
    let output = command.env("FLEETCHECK_TOKEN", &fleet.hub.token).output().await.expect("fleetcheck");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

async fn prometheus_scrapes_the_hub(fleet: &Fleet) {
    let (Some(prometheus), Some(promtool)) = (installed("prometheus"), installed("promtool")) else {
        skip::report("prometheus_scrapes_the_hub", "prometheus is not installed: apt-get install prometheus");
        return;
    };
    let dir = &fleet.testbed.clusters[0].dir;
    let lint = tokio::process::Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::from(file_with(&dir.join("metrics.txt"), &fleet.hub.metrics().await.expect("metrics"))))
        .output()
        .await
        .expect("promtool");
    only_legacy_names(&String::from_utf8_lossy(&[lint.stdout, lint.stderr].concat()));

    let samples = ["scrape-hub", "scrape-hub-clusters", "scrape-hub-federate"];
    let servers = samples.map(|sample| Prometheus::start(fleet, &prometheus, sample));
    for (cluster, _) in NAMES {
        for server in &servers[..2] {
            let query = format!("metrics_queue_depth{{cluster=\"{cluster}\",namespace=\"health\"}}");
            assert_eq!(server.sample(&query).await, "7", "{query}");
            let query = format!("activemonitor_check_metric{{cluster=\"{cluster}\",metric=\"queue_age_seconds\"}}");
            assert_eq!(server.sample(&query).await, "1.5", "{query}");
            let query = format!("healthcheck_success_count{{cluster=\"{cluster}\",healthcheck_name=\"hello\"}} > 0");
            assert_ne!(server.sample(&query).await, "0");
        }
    }
    for (server, targets) in servers.iter().zip(["1", "4", "1"]) {
        let up = "count(up{job=\"active-monitor-hub\"} == 1)";
        server.until(up, targets).await;
        server.until("count(activemonitor_cluster_reachable == 1)", "3").await;
        server.until("count(activemonitor_check_healthy{healthcheck_name=\"hello\"} == 1)", "3").await;
        server.until("count(activemonitor_hub_store_file_bytes)", "1").await;
    }
    assert_eq!(servers[2].query("metrics_queue_depth").await.expect("answer"), None, "some series only");
    a_cut_off_cluster_s_values_end_and_its_state_stays(fleet, &servers).await;
}

async fn a_cut_off_cluster_s_values_end_and_its_state_stays(fleet: &Fleet, servers: &[Prometheus]) {
    let agent = fleet.agents.iter().find(|agent| agent.name == "us-1").expect("agent");
    agent.process.stop();
    for server in servers {
        server.until("activemonitor_cluster_reachable{cluster=\"us-1\"}", "0").await;
        let stale = "activemonitor_check_status{cluster=\"us-1\",healthcheck_name=\"hello\",status=\"Stale\"}";
        server.until(stale, "1").await;
        server.until("activemonitor_check_healthy{cluster=\"us-1\",healthcheck_name=\"hello\"}", "0").await;
    }
    for server in &servers[..2] {
        server.until_gone("metrics_queue_depth{cluster=\"us-1\"}").await;
        server.until("count(metrics_queue_depth)", "2").await;
    }
    agent.process.start().expect("agent");
    agent.wait_until_connected(&fleet.hub).await.expect("link");
    servers[0].until("metrics_queue_depth{cluster=\"us-1\"}", "7").await;
}

/// A Prometheus that scrapes the hub by one of the sample configurations.
struct Prometheus {
    url: String,
    _process: Process,
    _port: PortLease,
}

impl Prometheus {
    fn start(fleet: &Fleet, program: &Path, sample: &str) -> Prometheus {
        let dir = fleet.testbed.clusters[0].dir.join(sample);
        std::fs::create_dir_all(&dir).expect("folder");
        let port = PortLease::take().expect("port");
        let config = scrape_config(fleet, &dir, sample);
        let process = Process::new(fleet.testbed.clusters[0].run(), &dir, sample, program.to_owned()).args([
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.join("tsdb").display()),
            format!("--web.listen-address=127.0.0.1:{}", port.number()),
        ]);
        process.start().expect("prometheus starts");
        Prometheus { url: format!("http://127.0.0.1:{}/api/v1/query", port.number()), _process: process, _port: port }
    }

    /// The first sample, if there is one.
    async fn query(&self, query: &str) -> anyhow::Result<Option<String>> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut address = reqwest::Url::parse(&self.url)?;
        address.query_pairs_mut().append_pair("query", query);
        let answer: serde_json::Value = serde_json::from_str(&http.get(address).send().await?.text().await?)?;
        anyhow::ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned))
    }

    async fn sample(&self, query: &str) -> String {
        wait::until(query, PATIENCE, || self.query(query)).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    async fn until(&self, query: &str, value: &str) {
        let shown = async || {
            let found = self.query(query).await?;
            anyhow::ensure!(found.as_deref() == Some(value), "{found:?} instead of {value}");
            Ok(Some(()))
        };
        wait::until(query, PATIENCE, shown).await.unwrap_or_else(|error| panic!("{}: {error:#}", self.url));
    }

    async fn until_gone(&self, query: &str) {
        let gone = async || Ok(self.query(query).await?.is_none().then_some(()));
        wait::until(query, PATIENCE, gone).await.unwrap_or_else(|error| panic!("{}: {error:#}", self.url));
    }
}

fn installed(program: &str) -> Option<std::path::PathBuf> {
    let path = Path::new("/usr/bin").join(program);
    path.is_file().then_some(path)
}

fn file_with(path: &Path, text: &str) -> std::fs::File {
    std::fs::write(path, text).expect("file");
    std::fs::File::open(path).expect("file")
}

/// promtool complains of names that active-monitor chose, and of nothing else.
fn only_legacy_names(complaints: &str) {
    let legacy = ["healthcheck_success_count", "healthcheck_error_count"];
    let other = complaints.lines().filter(|line| !legacy.iter().any(|name| line.starts_with(name)));
    assert_eq!(other.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// A sample configuration, with this hub's address, token and plain HTTP.
fn scrape_config(fleet: &Fleet, dir: &Path, sample: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string(project().join(format!("deploy/prometheus/{sample}.yaml"))).expect("sample");
    let token = dir.join("token");
    std::fs::write(&token, &fleet.hub.token).expect("token");
    let text = text
        .replace("https://", "http://")
        .replace("scheme: https", "scheme: http")
        .replace("15s", "2s")
        .replace("30s", "2s")
        .replace("/etc/prometheus/active-monitor-hub.token", &token.display().to_string())
        .replace("hub.example.com:8443", fleet.hub.url.trim_start_matches("http://"));
    let mut config: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    without_tls(&mut config);
    let path = dir.join("prometheus.yml");
    std::fs::write(&path, config.to_string()).expect("configuration");
    path
}

fn without_tls(config: &mut serde_json::Value) {
    if let Some(fields) = config.as_object_mut() {
        fields.remove("tls_config");
        fields.values_mut().for_each(without_tls);
    } else if let Some(items) = config.as_array_mut() {
        items.iter_mut().for_each(without_tls);
    }
}

async fn a_red_check_turns_red_on_the_page(fleet: &Fleet) {
    let live = project().join("hub/dashboard/e2e/live.mjs");
    if installed("chromium").is_none() || !project().join("hub/dashboard/node_modules/playwright-core").is_dir() {
        let reason = "chromium or hub/dashboard/node_modules is missing: apt-get install chromium; make dashboard";
        skip::report("a_red_check_turns_red_on_the_page", reason);
        return;
    }
    let cluster = fleet.cluster("eu-1");
    cluster.apply_yaml(&waiting_check("turns-red", "repeatAfterSec: 5")).await.expect("check");
    let picture = fleet.testbed.clusters[0].dir.join("grid.png");
    let mut browser = tokio::process::Command::new("node")
        .arg(&live)
        .args([&fleet.hub.url, &fleet.hub.token, "eu-1", "health", "turns-red", "--timeout", "120"])
        .args(["--screenshot", &picture.display().to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node");
    let mut lines = BufReader::new(browser.stdout.take().expect("stdout")).lines();
    assert_eq!(lines.next_line().await.expect("page").as_deref(), Some("READY"));
    cluster.apply_yaml(&failing_check("turns-red", "repeatAfterSec: 5")).await.expect("change");
    let seen = lines.next_line().await.expect("page").expect("the page turns red");
    let seen: i64 = seen.trim_start_matches("FAILED_SEEN ").parse().expect("milliseconds");
    let failed = failed_at(cluster, "turns-red").await;
    let took = seen - failed.as_millisecond();
    println!("red on the page {took} ms after the write of the status");
    assert!(took <= 2000, "{took} ms");
    let others = lines.next_line().await.expect("page");
    assert_eq!(others.as_deref(), Some("PAGES_SEEN"), "wrong now, the check in every cluster, what changed");
    let ended = tokio::time::timeout(PATIENCE, browser.wait()).await.expect("the page is closed").expect("node");
    assert!(ended.success() && picture.is_file(), "{ended}");
}

/// The last write of a failed status before now, by the audit log: the first failure is the one that the page waits for.
async fn failed_at(cluster: &Cluster, check: &str) -> Timestamp {
    let get = ["get", "healthcheck", check, "-n", "health", "-o", "jsonpath={.status.lastFailedAt}"];
    let failed: Timestamp = cluster.kubectl(&get).await.expect("status").trim().parse().expect("time");
    let events = cluster.audit().expect("audit log");
    let write = events.iter().find(|event| {
        let of_check = event.object_ref.as_ref().is_some_and(|o| o.name == check && o.subresource == "status");
        of_check && event.stage_timestamp >= failed
    });
    write.expect("write of the status").stage_timestamp
}
