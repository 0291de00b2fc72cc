//! Definitions as custom resources of the hub's own cluster, on real API servers: a hub with the rights of its chart, a proxy
//! in front of its API server, and an agent in each of two clusters.

use std::process::Stdio;

use active_monitor_core::view::DefinitionView;
use active_monitor_tests::api_proxy::{ApiProxy, Fault};
use active_monitor_tests::fleet::{binary, project};
use active_monitor_tests::programs::ProgramsError;
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Program, Programs, Testbed, skip, wait};
use serde_json::{Value, json};

use super::{PATIENCE, waiting_check};

const NAMESPACE: &str = "active-monitor";
const CRD: &str = "crd/fleethealthchecks.fleet.activemonitor.keikoproj.io";
const PATH: &str = "/apis/fleet.activemonitor.keikoproj.io/v1alpha1/namespaces/active-monitor/fleethealthchecks";
/// Runs during which nothing of it changes.
const QUIET_RUNS: i64 = 2;

struct World<'a> {
    hub: Hub,
    proxy: ApiProxy,
    /// The hub's own, where `east` is too.
    near: &'a Cluster,
    /// Where `west` is.
    far: &'a Cluster,
    _agents: [Agent; 2],
}

impl World<'_> {
    async fn start(testbed: &Testbed) -> World<'_> {
        let (near, far) = (&testbed.clusters[0], &testbed.clusters[1]);
        for cluster in [near, far] {
            Agent::install(cluster, Crd::Ours).await.expect("install");
        }
        install(near).await;
        let proxy = ApiProxy::start(near).await.expect("proxy");
        // Of a time when there was none.
        proxy.set(Fault::KeepLists);
        let launcher = ["env".to_owned(), format!("KUBECONFIG={}", through(near, &proxy).await)];
        let args = ["--resources-namespace=active-monitor", "--lease-seconds=5"];
        let hub = Hub::start_by(&launcher, near.run(), &near.dir.join("hub"), &args).await.expect("hub");
        wait::until("a list", PATIENCE, || async { Ok((!proxy.kept_lists().is_empty()).then_some(())) })
            .await
            .expect("a list");
        proxy.set(Fault::None);
        let agents = [
            Agent::join(near, &hub, "east", &[("env", "prod")]).await.expect("east"),
            Agent::join(far, &hub, "west", &[("env", "test")]).await.expect("west"),
        ];
        for agent in &agents {
            agent.wait_until_connected(&hub).await.expect("connected");
        }
        World { hub, proxy, near, far, _agents: agents }
    }

    async fn apply(&self, documents: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": documents});
        self.near.apply_yaml(&list.to_string()).await.expect("applied");
    }

    async fn status(&self, name: &str) -> Value {
        self.near.get(&format!("{PATH}/{name}")).await.expect("resource")["status"].take()
    }

    /// Waits until a condition of a resource's present generation has this reason; gives the condition's message.
    async fn until(&self, name: &str, type_: &str, reason: &str) -> String {
        let what = format!("{name}: {type_} {reason}");
        let found = wait::until(&what, PATIENCE, || async {
            let resource = self.near.get(&format!("{PATH}/{name}")).await?;
            let status = &resource["status"];
            let is_present = status["observedGeneration"] == resource["metadata"]["generation"];
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            let found = conditions.find(|condition| condition["type"] == type_ && condition["reason"] == reason);
            let found =
                found.filter(|_| is_present).map(|found| found["message"].as_str().unwrap_or_default().to_owned());
            anyhow::ensure!(found.is_some(), "{status}");
            Ok(found)
        });
        found.await.unwrap_or_else(|error| panic!("{error:#}; {}", self.hub.process.log_tail()))
    }

    async fn counts(&self, name: &str) -> [i64; 4] {
        let status = self.status(name).await;
        ["matched", "applied", "refused", "pending"].map(|what| status["clusters"][what].as_i64().unwrap_or(-1))
    }

    /// Whether the clusters have a HealthCheck of this name.
    async fn until_there(&self, name: &str, expected: [bool; 2]) {
        wait::until(&format!("{name} in the clusters: {expected:?}"), PATIENCE, || async {
            let there = [self.near.health_check("health", name).await, self.far.health_check("health", name).await];
            Ok((there.map(|answer| answer.is_ok()) == expected).then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    async fn definitions(&self) -> Vec<String> {
        let list: Value = self.hub.get("/api/v1/definitions").await.expect("definitions");
        let names = list["items"].as_array().expect("items").iter().map(|item| item["name"].as_str());
        names.map(|name| name.unwrap_or_default().to_owned()).collect()
    }

    async fn until_error(&self, is: u32) {
        let line = format!("activemonitor_hub_resources_error {is}\n");
        wait::until(&line, PATIENCE, || async { Ok(self.hub.metrics().await?.contains(&line).then_some(())) })
            .await
            .unwrap_or_else(|error| panic!("{error:#}; {}", self.hub.process.log_tail()));
    }

    /// Writes of statuses that the hub has asked of its API server.
    fn writes(&self) -> usize {
        let events = self.near.audit().expect("audit log");
        let by_hub = events.iter().filter(|event| event.user.username.ends_with(":active-monitor-hub"));
        by_hub.filter(|event| event.is("patch", "fleethealthchecks")).count()
    }

    /// Runs the command line as a person would; gives its exit code and what it says.
    async fn fleetcheck(&self, args: &[&str]) -> (i32, String) {
        let mut command = tokio::process::Command::new(binary("fleetcheck").expect("fleetcheck"));
        let command = command.args(args).env("FLEETCHECK_HUB", &self.hub.url).stdin(Stdio::null());
        let output = command.env("FLEETCHECK_TOKEN", &self.hub.token).output().await.expect("fleetcheck");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }
}

/// The CRD, the account and its rights, as the manifests have them.
async fn install(cluster: &Cluster) {
    let read = |file: &str| std::fs::read_to_string(project().join("deploy/hub-resources").join(file)).expect(file);
    let hub = read("hub.yaml");
    let is_right = |document: &&str| {
        ["ServiceAccount", "Role", "RoleBinding"].iter().any(|kind| document.contains(&format!("\nkind: {kind}\n")))
    };
    let rights: Vec<&str> = hub.split("\n---\n").filter(is_right).collect();
    assert_eq!(rights.len(), 3, "{hub}");
    cluster
        .apply_yaml(&[&[read("crd.yaml").as_str()], rights.as_slice()].concat().join("\n---\n"))
        .await
        .expect("rights");
    cluster.kubectl(&["wait", "--for=condition=Established", CRD]).await.expect("CRD");
}

/// A kubeconfig with the rights of the hub's account, through the proxy.
async fn through(cluster: &Cluster, proxy: &ApiProxy) -> String {
    let own = cluster.service_account_kubeconfig(NAMESPACE, "active-monitor-hub").await.expect("account");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(own).expect("kubeconfig")).expect("JSON");
    config["clusters"][0]["cluster"] = json!({"server": proxy.url});
    let path = cluster.dir.join("hub-through-proxy.kubeconfig");
    std::fs::write(&path, config.to_string()).expect("kubeconfig");
    path.display().to_string()
}

fn resource(name: &str, selector: Value, period: u32) -> Value {
    let check = waiting_check(name, &format!("repeatAfterSec: {period}"));
    let check: Value = serde_saphyr::from_str(&check).expect("YAML");
    json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "clusterSelector": selector,
            "template": {"metadata": {"namespace": "health"}, "spec": check["spec"]},
        },
    })
}

fn of_prod() -> Value {
    json!({"matchLabels": {"env": "prod"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_a_resource_of_the_hubs_cluster_and_says_what_became_of_it() {
    let name = "a_definition_is_a_resource_of_the_hubs_cluster_and_says_what_became_of_it";
    let options = Options { clusters: 2, ..Options::default() };
    let Some(testbed) = Testbed::start_or_skip(name, options).await.expect("testbed") else { return };
    let world = World::start(&testbed).await;

    // Everywhere, then in production only.
    world.apply(&[resource("dns", json!({}), 10)]).await;
    assert_eq!(world.until("dns", "Ready", "Applied").await, "2 of 2 clusters have it");
    assert_eq!(world.counts("dns").await, [2, 2, 0, 0]);
    world.until_there("dns", [true, true]).await;
    world.apply(&[resource("dns", of_prod(), 10)]).await;
    assert_eq!(world.until("dns", "Ready", "Applied").await, "1 of 1 clusters have it");
    world.until_there("dns", [true, false]).await;

    it_is_nobody_elses(&world).await;
    one_that_is_wrong_says_why_and_hinders_no_other(&world).await;
    a_name_that_a_person_has_is_theirs(&world).await;
    what_clusters_refuse_is_said(&world).await;
    nothing_is_written_while_nothing_changes(&world).await;
    an_api_server_that_is_away_or_empty_withdraws_nothing(&world).await;
    a_hub_that_starts_again_goes_on(&world).await;

    let all = ["delete", "fleethealthcheck", "--all", "-n", NAMESPACE];
    world.near.kubectl(&all).await.expect("deleted");
    world.until_there("dns", [false, false]).await;
    wait::until("no definition", PATIENCE, || async { Ok(world.definitions().await.is_empty().then_some(())) })
        .await
        .expect("no definition");
}

async fn it_is_nobody_elses(world: &World<'_>) {
    let view: DefinitionView = world.hub.get("/api/v1/definitions/dns").await.expect("definition");
    assert_eq!((view.resource.as_deref(), view.git), (Some("active-monitor/dns"), None));
    let (_, said) = world.fleetcheck(&["get", "dns"]).await;
    assert!(said.contains("a resource's: active-monitor/dns"), "{said}");
    let (code, said) = world.fleetcheck(&["delete", "dns"]).await;
    assert!(code != 0 && said.contains("is a resource's: change active-monitor/dns"), "{code}: {said}");
    let log: Value = world.hub.get("/api/v1/audit?action=definition.&limit=10").await.expect("audit log");
    assert_eq!(log["items"][0]["who"], "resources", "{log}");
}

async fn one_that_is_wrong_says_why_and_hinders_no_other(world: &World<'_>) {
    // The API server keeps the typing mistake, for the hub to refuse: without it the selector would pick every cluster.
    let wrong = resource("dns", json!({"matchLabel": {"env": "prod"}}), 10);
    world.apply(&[wrong, resource("tls", of_prod(), 60)]).await;
    let why = world.until("dns", "Accepted", "Invalid").await;
    assert_eq!(why, "spec.clusterSelector.matchLabel: unknown field; allowed are matchLabels and matchExpressions");
    world.until("tls", "Ready", "Applied").await;
    world.until_there("dns", [true, false]).await;
    world.until("dns", "Ready", "NotAccepted").await;
    world.apply(&[resource("dns", of_prod(), 10)]).await;
    world.until("dns", "Ready", "Applied").await;
    let long = world.near.apply_yaml(&resource("d.n.s", json!({}), 60).to_string()).await;
    assert!(format!("{:#}", long.expect_err("a name with dots")).contains("must be a DNS label"));
    // More than one cluster can be sent; all others of the same moment are done.
    let large = |n: usize| {
        let mut large = resource(&format!("large-{n:02}"), of_prod(), 3600);
        large["spec"]["template"]["spec"]["description"] = "x".repeat(230 * 1024).into();
        large
    };
    for n in 0..18 {
        // One at a time: a List of them is more than the API server takes.
        let text = large(n).to_string();
        let args = ["create", "-f", "-"];
        world.near.kubectl_as(&world.near.kubeconfig, &args, &text).await.expect("created");
    }
    let why = world.until("large-17", "Accepted", "Rejected").await;
    assert!(why.contains("the definitions of cluster east would be"), "{why}");
    world.until("large-00", "Accepted", "Accepted").await;
    let names: Vec<String> = (0..18).map(|n| format!("large-{n:02}")).collect();
    let delete = ["delete", "fleethealthcheck", "-n", NAMESPACE].into_iter().chain(names.iter().map(String::as_str));
    world.near.kubectl(&delete.collect::<Vec<_>>()).await.expect("deleted");
    wait::until("no large one", PATIENCE, || async { Ok((world.definitions().await == ["dns", "tls"]).then_some(())) })
        .await
        .expect("no large one");
}

async fn a_name_that_a_person_has_is_theirs(world: &World<'_>) {
    let mut theirs = resource("mine", of_prod(), 60);
    theirs["metadata"] = json!({"name": "mine"});
    world.hub.request(reqwest::Method::PUT, "/api/v1/definitions/mine", Some(&theirs)).await.expect("a person's");
    world.apply(&[resource("mine", json!({}), 60)]).await;
    let why = world.until("mine", "Accepted", "Conflict").await;
    assert!(why.contains("a person made another FleetHealthCheck of this name"), "{why}");
    let view: DefinitionView = world.hub.get("/api/v1/definitions/mine").await.expect("definition");
    assert_eq!(view.resource, None);
    let (code, said) = world.fleetcheck(&["delete", "mine"]).await;
    assert_eq!(code, 0, "{said}");
    world.until("mine", "Ready", "Applied").await;
    world.near.kubectl(&["delete", "fleethealthcheck", "mine", "-n", NAMESPACE]).await.expect("deleted");
    world.until_there("mine", [false, false]).await;
}

async fn what_clusters_refuse_is_said(world: &World<'_>) {
    let mut closed = resource("closed", json!({}), 60);
    closed["spec"]["template"]["metadata"]["namespace"] = "default".into();
    world.apply(&[closed]).await;
    let why = world.until("closed", "Ready", "Refused").await;
    assert!(why.starts_with("2 of 2 clusters do not take it; east: Refused: "), "{why}");
    let status = world.status("closed").await;
    assert_eq!(world.counts("closed").await, [2, 0, 2, 0]);
    assert_eq!(
        (&status["problems"][1]["cluster"], &status["problems"][1]["reason"]),
        (&json!("west"), &json!("Refused"))
    );
    world.near.kubectl(&["delete", "fleethealthcheck", "closed", "-n", NAMESPACE]).await.expect("deleted");
}

/// The check goes on, and its agent with it.
async fn nothing_is_written_while_nothing_changes(world: &World<'_>) {
    wait::until("a quiet moment", PATIENCE, || async {
        let before = world.writes();
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        Ok((world.writes() == before).then_some(()))
    })
    .await
    .expect("quiet");
    let runs = || async {
        let check = world.near.health_check("health", "dns").await.expect("HealthCheck");
        check["status"]["successCount"].as_i64().unwrap_or_default()
    };
    let (before, requests, done) = (world.writes(), world.proxy.requests(), runs().await);
    wait::until("runs", PATIENCE, || async { Ok((runs().await >= done + QUIET_RUNS).then_some(())) })
        .await
        .expect("runs");
    assert_eq!(world.writes(), before, "statuses written");
    // A watch may have been opened anew.
    assert!(world.proxy.requests() <= requests + 2, "{} requests", world.proxy.requests() - requests);
}

async fn an_api_server_that_is_away_or_empty_withdraws_nothing(world: &World<'_>) {
    let uid =
        || async { world.near.health_check("health", "dns").await.expect("HealthCheck")["metadata"]["uid"].take() };
    let before = uid().await;
    world.near.stop_apiserver();
    world.until_error(1).await;
    assert_eq!(world.definitions().await, ["dns", "tls"]);
    world.near.start_apiserver().await.expect("API server");
    world.until_error(0).await;
    assert_eq!((world.definitions().await, uid().await), (vec!["dns".to_owned(), "tls".to_owned()], before.clone()));
    // The list of before the first resource, as that of an API server that has lost its data.
    let lists = world.proxy.old_lists();
    world.proxy.set(Fault::OldLists);
    wait::until("an old list", PATIENCE, || async { Ok((world.proxy.old_lists() > lists).then_some(())) })
        .await
        .expect("an old list");
    // What follows on the watch is done.
    world.proxy.set(Fault::None);
    world.apply(&[resource("web", of_prod(), 60)]).await;
    world.until("web", "Ready", "Applied").await;
    assert_eq!((world.definitions().await.len(), uid().await), (3, before));
}

/// What was deleted while it was away is withdrawn, and what was changed is followed.
async fn a_hub_that_starts_again_goes_on(world: &World<'_>) {
    world.hub.kill();
    world.near.kubectl(&["delete", "fleethealthcheck", "web", "-n", NAMESPACE]).await.expect("deleted");
    world.apply(&[resource("tls", json!({}), 60)]).await;
    world.hub.restart().await.expect("hub");
    world.until("tls", "Ready", "Applied").await;
    world.until_there("tls", [true, true]).await;
    world.until_there("web", [false, false]).await;
    assert_eq!(world.definitions().await, ["dns", "tls"]);
}

/// What Argo CD makes of an object: it runs the script with the object as `obj`, in this Lua.
async fn health(programs: &Programs, kind: &str, object: &Value) -> (String, String) {
    let script = project().join("deploy/argocd").join(kind).join("health.lua");
    let script = std::fs::read_to_string(script).expect("script");
    let ask = "local health = ask()\nprint(health.status)\nprint(health.message)\n";
    let text = format!("obj = {}\nlocal function ask()\n{script}\nend\n{ask}", lua(object));
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("ask.lua");
    std::fs::write(&file, text).expect("file");
    let output = tokio::process::Command::new(programs.path(Program::Glua)).arg(&file).output().await.expect("glua");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let (status, message) = said.split_once('\n').unwrap_or_else(|| panic!("{said}{output:?}", output = output.stderr));
    (status.to_owned(), message.trim_end().to_owned())
}

/// JSON as a value in Lua.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| format!("[{}] = {}", json!(key), lua(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

fn object(generation: i64, status: Value) -> Value {
    json!({"metadata": {"name": "dns", "generation": generation}, "status": status})
}

fn conditions(conditions: &[(&str, &str, &str, &str)], status: Value) -> Value {
    let conditions = conditions.iter().map(|(type_, status, reason, message)| {
        json!({"type": type_, "status": status, "reason": reason, "message": message})
    });
    let mut object = object(2, json!({"observedGeneration": 2, "conditions": conditions.collect::<Vec<_>>()}));
    object["status"]["status"] = status;
    object
}

#[tokio::test]
async fn argo_cd_is_told_the_health_of_definitions_and_checks() {
    let name = "argo_cd_is_told_the_health_of_definitions_and_checks";
    let programs = match Programs::ensure(Program::SCRIPTS).await {
        Ok(programs) => programs,
        Err(error @ ProgramsError::NoGo { .. }) => return skip::report(name, &error.to_string()),
        Err(error) => panic!("{error:#}"),
    };
    let definition = "fleet.activemonitor.keikoproj.io/FleetHealthCheck";
    let check = "activemonitor.keikoproj.io/HealthCheck";
    let taken = ("Accepted", "True", "Accepted", "");
    let of = |all: &[(&str, &str, &str, &str)]| conditions(all, Value::Null);
    let of_check = |ready| conditions(&[("Scheduled", "True", "OnSchedule", ""), ready], "Failed".into());
    let unseen = json!({"observedGeneration": 1, "conditions": []});
    let rows = [
        (definition, json!({"metadata": {"generation": 1}}), "Progressing", "the hub has not looked at it yet"),
        (definition, object(2, unseen.clone()), "Progressing", "the hub has not looked at it yet"),
        (
            definition,
            of(&[("Accepted", "False", "Invalid", "spec.x: unknown field"), ("Ready", "False", "NotAccepted", "")]),
            "Degraded",
            "Invalid: spec.x: unknown field",
        ),
        (
            definition,
            of(&[taken, ("Ready", "False", "Refused", "1 of 2 clusters do not take it")]),
            "Degraded",
            "1 of 2 clusters do not take it",
        ),
        (
            definition,
            of(&[taken, ("Ready", "False", "Pending", "1 of 2 clusters have it")]),
            "Progressing",
            "1 of 2 clusters have it",
        ),
        (
            definition,
            of(&[taken, ("Ready", "True", "Applied", "2 of 2 clusters have it")]),
            "Healthy",
            "2 of 2 clusters have it",
        ),
        (check, object(2, unseen), "Progressing", "the agent has not looked at it yet"),
        (check, of_check(("Ready", "True", "Scheduled", "")), "Healthy", "last run: Failed"),
        (check, of_check(("Ready", "False", "Stopped", "suspended")), "Suspended", "suspended"),
        (check, of_check(("Ready", "False", "RBACRefused", "no right")), "Degraded", "RBACRefused: no right"),
    ];
    for (kind, object, status, message) in rows {
        assert_eq!(health(&programs, kind, &object).await, (status.to_owned(), message.to_owned()), "{object}");
    }
}
