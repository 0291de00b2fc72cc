use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;
const SOURCE: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  entrypoint: a\n  templates:\n  \
    - {name: a, container: {image: busybox}}\n  - {name: b, suspend: {}}\n";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).unwrap()
}

fn check(name: &str, spec: Value, status: Value) -> Result<HealthCheck, (String, String)> {
    let mut spec = spec;
    let resource = json!({"namespace": "health", "serviceAccount": "sa", "source": {"inline": SOURCE}});
    if spec["workflow"].is_null() {
        spec["workflow"] = json!({});
    }
    spec["workflow"]["resource"] = resource.clone();
    if spec["remedyworkflow"].is_object() {
        spec["remedyworkflow"]["resource"] = resource;
    }
    Ok(serde_json::from_value(json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": name, "namespace": "health", "uid": name, "creationTimestamp": at(-9000).to_string(),
            "managedFields": [{"manager": "active-monitor-controller", "subresource": "status", "operation": "Update",
                "time": at(-5).to_string()}]},
        "spec": spec, "status": status,
    }))
    .unwrap())
}

fn said<'a>(findings: &'a [Finding], what: &str, text: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.what.starts_with(what) && finding.message.contains(text));
    found.unwrap_or_else(|| panic!("{what}: {text}: {findings:#?}"))
}

#[test]
fn a_running_active_monitor_and_what_a_switch_sets_loose_are_said() {
    let failed = json!({"status": "Failed", "startedAt": at(-30).to_string(), "finishedAt": at(-20).to_string(),
        "lastFailedWorkflow": "a"});
    let secrets = json!([{"apiGroups": [""], "resources": ["secrets", "pods"], "verbs": ["get"]}]);
    let facts = Facts {
        kubernetes: "v1.36.3".to_owned(),
        crd: Some(Some(json!({"spec": {"versions": [{"name": "v1alpha1", "schema": {"openAPIV3Schema": {}}}]}}))),
        has_workflows: Some(true),
        deployments: Some(vec![
            Program { name: "health/am".into(), image: "keikoproj/active-monitor:latest".into(), replicas: 1 },
            Program {
                name: "argo/wc".into(),
                image: "quay.io/argoproj/workflow-controller:v3.7.14".into(),
                replicas: 1,
            },
        ]),
        lease_renewed: Some(NOW - 3),
        instance_ids: Some(vec![String::new()]),
        checks: vec![
            check("a", json!({"repeatAfterSec": 60, "remedyworkflow": {}}), failed),
            check("b", json!({"repeatAfterSec": 30, "workflow": {"rbacRules": secrets}}), json!({})),
            check("c", json!({"level": "galaxy"}), json!({})),
            check("d", json!({}), json!({})),
            Err(("health/e".to_owned(), "spec.workflow: missing".to_owned())),
        ],
        ceilings: None,
    };
    let (numbers, findings) = judge(at(0), &facts);
    let expected = Numbers {
        checks: 5,
        stopped: 1,
        invalid: 2,
        due_at_once: numbers.due_at_once,
        with_remedy: 1,
        remedies_at_once: 1,
        runs_per_minute: 3.0,
        pods_per_minute: 3.0,
    };
    assert_eq!(numbers, expected);
    assert!(numbers.due_at_once >= 1);
    for (verdict, what, text) in [
        (Verdict::Ok, "kubernetes", "v1.36.3"),
        (Verdict::Note, "crd", "spec"),
        (Verdict::Ok, "argo", "v3.7.14"),
        (Verdict::Bad, "argo", "nobody serves instance id activemonitor-workflows"),
        (Verdict::Warn, "active-monitor", "kubectl -n health scale deployment am --replicas=0"),
        (Verdict::Warn, "active-monitor", "renewed 3 s ago"),
        (Verdict::Warn, "active-monitor", "active-monitor-controller wrote the newest status, 5 s ago"),
        (Verdict::Warn, "check health/c", "spec.level"),
        (Verdict::Warn, "check health/e", "missing"),
        (Verdict::Warn, "rights health/b", "get secrets"),
        (Verdict::Warn, "remedies", "1 of them at once"),
    ] {
        assert_eq!(said(&findings, what, text).verdict, verdict, "{what}: {text}");
    }
    assert!(!said(&findings, "rights health/b", "").message.contains("pods"), "what is covered is not named");
}

#[test]
fn a_cluster_that_is_ready_has_nothing_worse_than_a_note() {
    let ours = serde_json::to_value(HealthCheck::crd()).unwrap();
    let facts = Facts {
        kubernetes: "v1.33.0".to_owned(),
        crd: Some(Some(ours)),
        has_workflows: Some(true),
        deployments: Some(Vec::new()),
        instance_ids: Some(vec![INSTANCE_ID.to_owned()]),
        ..Facts::default()
    };
    let (_, findings) = judge(at(0), &facts);
    assert!(findings.iter().all(|finding| finding.verdict <= Verdict::Note), "{findings:#?}");
    said(&findings, "crd", "keeps every field");
    // Who may see little is told so, and nothing is taken for fine.
    let (_, findings) = judge(at(0), &Facts { kubernetes: "v1.20.1".to_owned(), ..Facts::default() });
    said(&findings, "crd", "may not be read by you");
    assert_eq!(said(&findings, "kubernetes", "older than").verdict, Verdict::Warn);
}

#[test]
fn a_ceiling_covers_by_group_resource_verb_and_name() {
    let ceilings = Ceilings::from_the_start();
    let remedy = json!({"repeatAfterSec": 60, "remedyworkflow": {"rbacRules":
        [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete"]}]}});
    let parsed = |level: &str| {
        let mut spec = remedy.clone();
        spec["level"] = level.into();
        Check::parse(&check("a", spec, json!({})).unwrap()).unwrap()
    };
    let beyond = |check: &Check, ceilings: &Ceilings| ceilings.beyond(check, &check.remedy.as_ref().unwrap().job);
    assert_eq!(beyond(&parsed("namespace"), &ceilings), Vec::<String>::new());
    assert_eq!(beyond(&parsed("cluster"), &ceilings), ["delete pods"]);
    let closed = Ceilings { open: Some(vec!["other".to_owned()]), ..ceilings.clone() };
    assert_eq!(beyond(&parsed("namespace"), &closed), ["delete pods"]);
    assert_eq!(beyond(&parsed("cluster"), &Ceilings { open: None, ..ceilings }), Vec::<String>::new());
}
