//! A hub that asks a cluster for more than its policy opens, of every kind there is: on a real API server nothing of it comes to
//! be, and the hub's people see what was refused, and what would open it.

use std::collections::BTreeMap;
use std::fs;

use active_monitor_core::command::Layer;
use active_monitor_core::session::frame::DefinitionResult;
use active_monitor_core::view::{CheckStatus, CommandOutcome, CommandReport, DefinitionView};
use active_monitor_tests::fleet::until_status;
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Testbed, wait};
use reqwest::Method;
use serde_json::{Value, json};

use super::{PATIENCE, takes_creates};

const POLICY: &str = "namespaces: [health]\naccounts: [probe]\nmaxChecks: 2\n";
/// What the policy takes: two of them.
const GOOD: [&str; 3] = ["good-1", "good-2", "good-3"];

fn definition(name: &str) -> Value {
    let source = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  entrypoint: wait\n  templates:\n  \
        - name: wait\n    suspend: {duration: '1s'}\n";
    let job = json!({"resource": {"namespace": "health", "serviceAccount": "probe", "source": {"inline": source}}});
    json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck",
        "metadata": {"name": name},
        "spec": {
            "clusterSelector": {},
            "template": {
                "metadata": {"namespace": "health", "annotations": {}},
                "spec": {"repeatAfterSec": 600, "workflow": job},
            },
        }
    })
}

/// Something that the policy does not open.
struct Beyond {
    name: &'static str,
    /// Where in the template, and what.
    at: &'static str,
    value: Value,
    /// What the refusal must name: the field, and what opens it.
    says: [&'static str; 2],
}

fn beyond() -> Vec<Beyond> {
    let beyond = |name, at, value, says| Beyond { name, at, value, says };
    let rules = |verb: &str| json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": [verb]}]);
    let remedy = definition("x")["spec"]["template"]["spec"]["workflow"].clone();
    let source = "/spec/workflow/resource/source";
    vec![
        beyond("namespace", "/metadata/namespace", "kube-system".into(), ["metadata.namespace", "`namespaces`"]),
        beyond(
            "runs-in",
            "/spec/workflow/resource/namespace",
            "kube-system".into(),
            ["spec.workflow.resource.namespace", "`namespaces`"],
        ),
        beyond("level", "/spec/level", "cluster".into(), ["spec.level", "`levels`"]),
        beyond(
            "account",
            "/spec/workflow/resource/serviceAccount",
            "admin".into(),
            ["spec.workflow.resource.serviceAccount", "`accounts`"],
        ),
        beyond(
            "url",
            source,
            json!({"url": {"path": "https://evil.example/w.yaml"}}),
            ["spec.workflow.resource.source", "`sources`"],
        ),
        beyond("file", source, json!({"file": {"path": "w.yaml"}}), ["spec.workflow.resource.source", "`sources`"]),
        beyond("rules", "/spec/workflow/rbacRules", rules("get"), ["spec.workflow.rbacRules", "`rules`"]),
        beyond("all-rules", "/spec/workflow/rbacRules", rules("*"), ["spec.workflow.rbacRules", "`rules`"]),
        beyond("period", "/spec/repeatAfterSec", 1.into(), ["spec.repeatAfterSec", "`minPeriodSeconds`"]),
        beyond("remedy", "/spec/remedyworkflow", remedy, ["spec.remedyworkflow", "`remedies`"]),
        beyond("unknown", "/spec/hostPath", "/".into(), ["spec.hostPath", "does not know the field"]),
        beyond(
            "run-now",
            "/metadata/annotations/activemonitor.keikoproj.io~1run-now",
            "1".into(),
            ["metadata.annotations[activemonitor.keikoproj.io/run-now]", "not the hub's"],
        ),
    ]
}

/// The definition with this value there.
fn with(name: &str, at: &str, value: &Value) -> Value {
    let mut definition = definition(name);
    let (parent, field) = at.rsplit_once('/').expect("a path");
    let parent = definition["spec"]["template"].pointer_mut(parent).expect("a field");
    parent[field.replace("~1", "/")] = value.clone();
    definition
}

/// What became of each definition in the cluster, once the agent has answered for all of them.
async fn answers(hub: &Hub, names: &[String]) -> BTreeMap<String, (DefinitionResult, String)> {
    let all = wait::until("an answer for each definition", PATIENCE, || async {
        let mut answers = BTreeMap::new();
        for name in names {
            let view: DefinitionView = hub.get(&format!("/api/v1/definitions/{name}")).await?;
            let [status] = &view.clusters[..] else { anyhow::bail!("{name}: {:?}", view.clusters) };
            let Some(result) = status.result else { return Ok(None) };
            answers.insert(name.clone(), (result, status.message.clone()));
        }
        Ok(Some(answers))
    });
    all.await.unwrap_or_else(|error| panic!("{error:#}"))
}

async fn command(hub: &Hub, what: Value) -> CommandReport {
    let mut body = json!({"clusters": ["east"]});
    let (Some(body_fields), Some(what)) = (body.as_object_mut(), what.as_object()) else { panic!("an object") };
    body_fields.extend(what.clone());
    let text = hub.request(Method::POST, "/api/v1/commands", Some(&body)).await.expect("an answer");
    serde_json::from_str(&text).expect("a report")
}

/// What the agent has asked the API server to change, beside what the definitions that it takes need and its events.
fn strange_writes(cluster: &Cluster) -> Vec<String> {
    let events = cluster.audit().expect("audit log").into_iter();
    let by_agent = events.filter(|event| event.user.username.ends_with(":active-monitor-agent"));
    let writes = by_agent.filter(|event| !["get", "list", "watch"].contains(&event.verb.as_str()));
    let strange = writes.filter(|event| {
        let Some(object) = &event.object_ref else { return true };
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| object.name.starts_with(prefix));
        let is_expected = match object.resource.as_str() {
            "events" => true,
            "healthchecks" | "workflows" => begins(&GOOD[..2]),
            "serviceaccounts" | "roles" | "rolebindings" => begins(&["probe"]),
            _ => false,
        };
        !(is_expected && object.namespace == "health")
    });
    strange.map(|event| format!("{} {}", event.verb, event.request_uri)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_hostile_hub_asks_for_beyond_the_policy_comes_to_be_and_each_refusal_is_shown() {
    let name = "nothing_that_a_hostile_hub_asks_for_beyond_the_policy_comes_to_be_and_each_refusal_is_shown";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let hub = Hub::start(cluster.run(), &cluster.dir).await.expect("hub");
    let token = hub.add_cluster("east", &[]).await.expect("token");
    let policy = cluster.dir.join("policy.yaml");
    fs::write(&policy, POLICY).expect("policy");
    let policy = format!("--policy-file={}", policy.display());
    let more = [policy.as_str(), "--obey=run-now,pause", "--longest-pause-hours=1"];
    let agent = Agent::start_with(cluster, "east", Some(&token), &more).await.expect("agent");
    agent.wait_until_connected(&hub).await.expect("link");
    takes_creates(cluster).await;

    let beyond = beyond();
    let definitions = beyond.iter().map(|beyond| with(beyond.name, beyond.at, &beyond.value));
    let definitions = definitions.chain(GOOD.iter().map(|name| definition(name)));
    let mut names = Vec::new();
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().expect("a name").to_owned();
        hub.request(Method::PUT, &format!("/api/v1/definitions/{name}"), Some(&definition)).await.expect("put");
        names.push(name);
    }
    let answers = answers(&hub, &names).await;
    for Beyond { name, says, .. } in &beyond {
        let (result, message) = &answers[*name];
        let is_said = says.iter().all(|part| message.contains(part));
        assert!(*result == DefinitionResult::Refused && is_said, "{name}: {result:?}: {message}");
    }
    let [first, second, third] = GOOD.map(|name| &answers[name]);
    assert_eq!((first.0, second.0), (DefinitionResult::Applied, DefinitionResult::Applied), "{answers:?}");
    assert!(third.0 == DefinitionResult::Refused && third.1.contains("`maxChecks`"), "{third:?}");
    for name in &GOOD[..2] {
        until_status(&hub, "east", name, CheckStatus::Succeeded, PATIENCE).await.expect("what is open runs");
    }

    for (what, says) in [
        (json!({"action": "pause", "seconds": 7200, "reason": "x"}), "this cluster takes 1 to 3600 s"),
        (json!({"action": "pause", "subject": "remedies", "seconds": 60, "reason": "x"}), "obeyed are: run-now, pause"),
        (json!({"action": "test"}), "obeyed are: run-now, pause"),
    ] {
        let report = command(&hub, what.clone()).await;
        let [result] = &report.results[..] else { panic!("{report:?}") };
        assert_eq!(
            (result.outcome, result.layer),
            (CommandOutcome::Refused, Some(Layer::Policy)),
            "{what}: {result:?}"
        );
        assert!(result.message.contains(says), "{what}: {}", result.message);
    }
    let checks = hub.checks("cluster=east").await.expect("checks");
    assert!(checks.len() == 2 && checks.iter().all(|check| check.state.pauses.is_empty()), "{checks:?}");

    let there = cluster.kubectl(&["get", "healthchecks", "-A", "-o", "name"]).await.expect("get");
    let expected = GOOD[..2].iter().map(|name| format!("healthcheck.activemonitor.keikoproj.io/{name}"));
    assert_eq!(there.lines().map(str::to_owned).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(strange_writes(cluster), Vec::<String>::new());
    assert!(agent.process.pid().is_some(), "{}", agent.process.log_tail());
}
