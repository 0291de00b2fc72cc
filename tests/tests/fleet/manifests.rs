//! What agent and hub may do in a cluster, read rule by rule: in every manifest of `deploy/`, and as the charts render it
//! with their values turned up.

use std::fs;
use std::path::Path;

use active_monitor_tests::charts::{Chart, Helm};
use active_monitor_tests::fleet::project;
use active_monitor_tests::programs::ProgramsError;
use active_monitor_tests::run_dir::RunDir;
use active_monitor_tests::{Program, Programs, skip};
use serde_json::{Value, json};

/// Verbs by which one becomes whoever one likes.
const SELF_MADE: [&str; 3] = ["escalate", "bind", "impersonate"];
/// The one Secret that is read and changed, where two replicas share an identity.
const IDENTITY: &str = "active-monitor-agent-identity";

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What is wrong with the rules or the binding of an object, one line each.
fn faults(object: &Value) -> Vec<String> {
    let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
    let mut faults = Vec::new();
    let role = object["roleRef"]["name"].as_str().unwrap_or("active-monitor-");
    if !role.starts_with("active-monitor-") {
        faults.push(format!("{name} binds {role}, which is not ours"));
    }
    for rule in object["rules"].as_array().into_iter().flatten() {
        let verbs = texts(&rule["verbs"]);
        for field in ["apiGroups", "resources", "verbs", "nonResourceURLs", "resourceNames"] {
            if texts(&rule[field]).iter().any(|text| text.contains('*')) {
                faults.push(format!("{name} has a wildcard: {rule}"));
            }
        }
        if SELF_MADE.iter().any(|verb| verbs.contains(verb)) {
            faults.push(format!("{name} may become anybody: {rule}"));
        }
        let secrets = texts(&rule["resources"]).iter().any(|resource| resource.split('/').next() == Some("secrets"));
        let named = texts(&rule["resourceNames"]) == [IDENTITY];
        if secrets && !(named && verbs.iter().all(|verb| ["get", "update"].contains(verb))) {
            faults.push(format!("{name} reaches Secrets: {rule}"));
        }
    }
    faults
}

fn is_about_rights(object: &Value) -> bool {
    let kinds = ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"];
    object["kind"].as_str().is_some_and(|kind| kinds.contains(&kind))
}

/// The objects of a text that say who may do what.
fn rights(text: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    objects.retain(is_about_rights);
    objects
}

/// Every YAML file below, without the charts, which are templates.
fn manifests(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() && !path.ends_with("charts") {
            manifests(&path, found);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push((path.display().to_string(), fs::read_to_string(&path).expect("text")));
        }
    }
}

/// Gives how many objects there are.
fn are_without_fault(origin: &str, text: &str) -> usize {
    let rights = rights(text);
    let faults: Vec<String> = rights.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{origin}: {faults:#?}");
    rights.len()
}

#[test]
fn each_fault_of_a_role_is_found() {
    let role = |rule: Value| json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [rule]});
    let rule =
        |resource: &str, verbs: &[&str]| role(json!({"apiGroups": [""], "resources": [resource], "verbs": verbs}));
    assert_eq!(faults(&rule("pods", &["get"])), Vec::<String>::new());
    let bad = [
        rule("*", &["get"]),
        rule("pods/*", &["get"]),
        rule("pods", &["*"]),
        role(json!({"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]})),
        role(json!({"nonResourceURLs": ["/*"], "verbs": ["get"]})),
        rule("clusterroles", &["escalate"]),
        rule("roles", &["bind"]),
        rule("users", &["impersonate"]),
        rule("secrets", &["get"]),
        role(json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [IDENTITY], "verbs": ["delete"]})),
        role(json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["other"], "verbs": ["get"]})),
        json!({"kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": {"name": "cluster-admin"}}),
    ];
    for object in bad {
        assert_eq!(faults(&object).len(), 1, "{object}");
    }
}

#[test]
fn no_manifest_gives_a_wildcard_or_the_means_to_take_more() {
    let mut found = Vec::new();
    manifests(&project().join("deploy"), &mut found);
    let objects: usize = found.iter().map(|(path, text)| are_without_fault(path, text)).sum();
    println!("{objects} roles and bindings in {} manifests", found.len());
    assert!(objects >= 25, "{objects} roles and bindings");
}

#[tokio::test]
async fn no_chart_gives_a_wildcard_or_the_means_to_take_more() {
    let programs = match Programs::ensure(Program::CHARTS).await {
        Ok(programs) => programs,
        Err(error @ ProgramsError::NoGo { .. }) => {
            return skip::report("no_chart_gives_a_wildcard_or_the_means_to_take_more", &error.to_string());
        }
        Err(error) => panic!("{error:#}"),
    };
    let run = std::sync::Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let everything = "replicas=2,hub.address=h:1,hub.enrolmentAddress=h:2,hub.token=amt_x,definitions.namespaces={health},\
        definitions.remedies=true,logTails.namespaces={health},remedies.namespaces={health}";
    let hub = "adminToken.secret=a,agents.address=hub.example.com:7443,enrolment.address=hub.example.com:7444";
    let renderings = [
        (Chart::Agent, "mode=act", 8),
        (Chart::Agent, "mode=observe", 1),
        (Chart::Agent, everything, 12),
        (Chart::Agent, "watchNamespaces={health},remedies.namespaces={health},logTails.namespaces={health}", 10),
        (Chart::Hub, hub, 0),
    ];
    for (chart, values, at_least) in renderings {
        let text = helm.template(chart, &["--set", values]).await.unwrap_or_else(|error| panic!("{values}: {error:#}"));
        let objects = are_without_fault(values, &text);
        assert!(objects >= at_least, "{values}: {objects} roles and bindings");
    }
}
