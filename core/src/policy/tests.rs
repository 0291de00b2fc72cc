use serde_json::json;

use super::*;

/// What the hub pushes, with the fields of `spec` in it replaced by those given.
fn pushed(namespace: &str, spec: Value) -> String {
    let source = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}";
    let job = json!({"resource": {"namespace": "health", "serviceAccount": "sa", "source": {"inline": source}}});
    let mut given = json!({"repeatAfterSec": 60, "workflow": job});
    merge(&mut given, spec);
    let metadata: Value = json!({"name": "dns", "namespace": namespace, "labels": {DEFINITION_LABEL: "dns"}});
    json!({"apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck", "metadata": metadata,
        "spec": given})
    .to_string()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn open() -> Policy {
    Policy { namespaces: ["health".to_owned()].into(), ..Policy::default() }
}

fn remedy(rules: Value) -> Value {
    let source = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}";
    json!({"remedyworkflow": {"rbacRules": rules, "resource": {
        "namespace": "health", "serviceAccount": "fixer", "source": {"inline": source}}}})
}

fn url() -> Value {
    json!({"workflow": {"resource": {"source": {"inline": null, "url": {"path": "https://example.com/w.yaml"}}}}})
}

#[test]
fn only_what_the_cluster_opened_is_admitted() {
    assert!(open().admit("dns", &pushed("health", json!({}))).is_ok());
    for (definition, text, says) in [
        ("dns", pushed("kube-system", json!({})), "metadata.namespace: \"kube-system\" is not open to the hub"),
        ("other", pushed("health", json!({})), "its label"),
        ("dns", "{}".to_owned(), "no HealthCheck"),
        (
            "dns",
            pushed("health", json!({})).replace(
                "\"name\":\"dns\"",
                "\"name\":\"dns\",\"annotations\":{\"activemonitor.keikoproj.io/run-now\":\"1\"}",
            ),
            "metadata.annotations[activemonitor.keikoproj.io/run-now]",
        ),
        ("dns", pushed("health", json!({})).replace("repeatAfterSec", "repeatEvery"), "spec.repeatEvery"),
    ] {
        let error = open().admit(definition, &text).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let closed = Policy::default();
    assert!(closed.admit("dns", &pushed("health", json!({}))).unwrap_err().contains("open are: none"));
    let named = format!("\"name\":\"dns\",\"annotations\":{{\"{DEPENDS_ON_ANNOTATION}\":\"web\"}}");
    let depends = pushed("health", json!({})).replace("\"name\":\"dns\"", &named);
    assert!(depends.contains("depends-on") && open().admit("dns", &depends).is_ok());
}

/// Each thing that a hub may ask for: how it is refused by default, and what opens it.
#[test]
fn each_thing_beyond_the_default_is_refused_with_what_is_open_and_what_opens_it() {
    let rule = |resource: &str, verb: &str| json!([{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]);
    let workflow = |field: &str, value: Value| json!({"workflow": {field: value}});
    let resource = |field: &str, value: &str| json!({"workflow": {"resource": {field: value}}});
    let secrets = "namespaces: [health]\nrules: [{apiGroups: [''], resources: [secrets], verbs: [get]}]";
    for (spec, field, asked, opened, setting, opens) in [
        (
            resource("namespace", "kube-system"),
            "spec.workflow.resource.namespace",
            "\"kube-system\"",
            "health",
            "namespaces",
            "namespaces: [health, kube-system]",
        ),
        (json!({"level": "cluster"}), "spec.level", "cluster", "namespace", "levels", "levels: [namespace, cluster]"),
        (url(), "spec.workflow.resource.source", "url", "inline", "sources", "sources: [inline, url]"),
        (
            workflow("rbacRules", rule("secrets", "get")),
            "spec.workflow.rbacRules",
            "{\"apiGroups\":[\"\"],\"resources\":[\"secrets\"],\"verbs\":[\"get\"]}",
            "the default rights of checks",
            "rules",
            secrets,
        ),
        (
            json!({"repeatAfterSec": 9}),
            "spec.repeatAfterSec",
            "a period of 9 s",
            "10 s and more",
            "minPeriodSeconds",
            "minPeriodSeconds: 9",
        ),
        (
            json!({"repeatAfterSec": 0, "schedule": {"cron": "@every 3s"}}),
            "spec.schedule.cron",
            "a period of 3 s",
            "10 s and more",
            "minPeriodSeconds",
            "minPeriodSeconds: 1",
        ),
        (remedy(json!([])), "spec.remedyworkflow", "a remedy", "none", "remedies", "remedies: true"),
    ] {
        let text = pushed("health", spec);
        let expected = format!(
            "{field}: {asked} is not open to the hub in this cluster; open are: {opened}; `{setting}` in its --policy-file \
             opens more"
        );
        assert_eq!(open().admit("dns", &text).unwrap_err(), expected);
        let policy =
            if opens.contains("namespaces: [health") { opens.into() } else { format!("namespaces: [health]\n{opens}") };
        let policy = Policy::parse(&policy).unwrap();
        assert!(policy.admit("dns", &text).is_ok(), "{opens}");
    }
}

#[test]
fn a_list_of_accounts_holds_for_checks_and_remedies() {
    let policy = Policy::parse("{namespaces: [health], accounts: [sa], remedies: true}").unwrap();
    assert!(policy.admit("dns", &pushed("health", json!({}))).is_ok());
    let error = policy.admit("dns", &pushed("health", remedy(json!([])))).unwrap_err();
    assert!(error.starts_with("spec.remedyworkflow.resource.serviceAccount: \"fixer\" is not open"), "{error}");
    assert!(error.contains("open are: sa;"), "{error}");
    let other = json!({"workflow": {"resource": {"serviceAccount": "admin"}}});
    assert!(policy.admit("dns", &pushed("health", other)).unwrap_err().contains("serviceAccount: \"admin\""));
}

#[test]
fn a_pushed_check_never_gets_a_remedys_rights_and_a_remedy_no_more_than_its_own() {
    let policy = Policy { remedies: true, ..open() };
    let delete = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]);
    let check = pushed("health", json!({"workflow": {"rbacRules": delete.clone()}}));
    assert!(policy.admit("dns", &check).unwrap_err().contains("spec.workflow.rbacRules"));
    assert!(policy.admit("dns", &pushed("health", remedy(delete))).is_ok());
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let error = policy.admit("dns", &pushed("health", remedy(everything))).unwrap_err();
    assert!(error.contains("open are: the default rights of remedies;"), "{error}");
}

#[test]
fn the_shortest_gap_of_a_calendar_counts() {
    let policy = Policy::parse("{namespaces: [health], minPeriodSeconds: 300}").unwrap();
    for (cron, admitted) in [
        ("*/5 * * * *", true),
        ("*/4 * * * *", false),
        ("0,58 * * * *", false),
        // Two minutes apart on one night of the week.
        ("59,1 0,23 * * SAT,SUN", false),
        ("0 0 29 2 *", true),
    ] {
        let text = pushed("health", json!({"repeatAfterSec": 0, "schedule": {"cron": cron}}));
        assert_eq!(policy.admit("dns", &text).is_ok(), admitted, "{cron}");
    }
}

#[test]
fn there_are_only_so_many() {
    let policy = Policy { max_checks: 2, ..open() };
    assert!(policy.admit_another(1).is_ok());
    let error = policy.admit_another(2).unwrap_err();
    assert_eq!(error, "one more pushed HealthCheck: this cluster takes 2; `maxChecks` in its --policy-file opens more");
}

#[test]
fn a_file_says_what_is_wrong_with_it() {
    assert_eq!(Policy::parse("").unwrap(), Policy::default());
    assert_eq!(Policy::parse("# nothing yet\n").unwrap(), Policy::default());
    for (text, says) in [
        ("namespace: [health]", "unknown field `namespace`"),
        ("levels: [node]", "unknown variant `node`, expected `cluster` or `namespace`"),
        ("sources: [oci]", "expected one of `inline`, `url`, `file`"),
        ("namespaces: [a_b]", "namespaces: \"a_b\""),
        ("accounts: ['']", "accounts: \"\""),
        ("minPeriodSeconds: -1", "invalid value"),
        ("rules: [{apiGroup: [''], resources: [pods], verbs: [get]}]", "rules[0].apiGroup: there is no such field"),
        ("- a", "invalid type"),
        ("{", "line"),
    ] {
        let error = Policy::parse(text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
    assert!(Policy::parse(&" ".repeat(MAX_FILE_BYTES + 1)).unwrap_err().contains("are above"));
}
