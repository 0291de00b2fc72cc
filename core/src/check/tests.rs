//! Bad input: every row is one clear error that names the field, and nothing panics.

use serde_json::{Value, json};

use super::*;

const SOURCE: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: a}";

fn spec() -> Value {
    json!({"repeatAfterSec": 60,
        "workflow": {"resource": {"namespace": "health", "serviceAccount": "sa", "source": {"inline": SOURCE}}}})
}

fn parse(spec: Value) -> Result<Check, Invalid> {
    let resource: HealthCheck = serde_json::from_value(json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": "dns", "namespace": "health", "uid": "u"}, "spec": spec,
    }))
    .unwrap();
    Check::parse(&resource)
}

/// The specification with this value at this path; `null` takes it away.
fn with(path: &str, value: Value) -> Value {
    let mut spec = spec();
    let mut at = &mut spec;
    let (parents, last) = path.rsplit_once('.').map_or((None, path), |(parents, last)| (Some(parents), last));
    for name in parents.iter().flat_map(|parents| parents.split('.')) {
        at = &mut at[name];
    }
    at[last] = value;
    spec
}

#[test]
fn every_bad_field_is_named_with_what_is_allowed() {
    let source = "workflow.resource.source";
    let inline = "workflow.resource.source.inline";
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..9 {
        let refs = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    let rows: Vec<(&str, Value, &str)> = vec![
        ("repeatAfterSec", json!(31_622_401), "spec.repeatAfterSec: 31622401 is above 31622400"),
        ("repeatAfterSec", json!(2_147_483_648_i64), "spec.repeatAfterSec: 2147483648 is above"),
        ("repeatAfterSec", json!(i64::MAX), "spec.repeatAfterSec: 9223372036854775807 is above"),
        ("level", json!("galaxy"), "spec.level: \"galaxy\" is neither cluster nor namespace"),
        ("level", json!("x".repeat(100_000)), "spec.level: \"xxxx"),
        ("level", json!("a\u{1b}[31m\n"), "spec.level: \"a\\u{1b}[31m\\n\" is neither"),
        ("workflow.generateName", json!("UPPER_case"), "spec.workflow.generateName: \"UPPER_case\" must be"),
        ("workflow.generateName", json!("a".repeat(254)), "spec.workflow.generateName"),
        ("workflow.generateName", json!("-x"), "spec.workflow.generateName"),
        ("workflow.resource", Value::Null, "spec.workflow.resource: is missing"),
        ("workflow.resource.namespace", json!("a/b"), "spec.workflow.resource.namespace: \"a/b\" must be 1 to 63"),
        ("workflow.resource.namespace", json!(""), "spec.workflow.resource.namespace: \"\" must be"),
        ("workflow.resource.namespace", json!("n".repeat(64)), "spec.workflow.resource.namespace"),
        ("workflow.resource.serviceAccount", json!("x y"), "spec.workflow.resource.serviceAccount: \"x y\" must be"),
        ("workflow.resource.serviceAccount", Value::Null, "spec.workflow.resource.serviceAccount: \"\" must be"),
        ("workflow.workflowtimeout", json!(-1), "spec.workflow.workflowtimeout: -1 is negative"),
        ("workflow.workflowtimeout", json!(31_622_401), "spec.workflow.workflowtimeout: 31622401 is above"),
        ("workflow.rbacRules", json!(vec![rule.clone(); 10_000]), "spec.workflow.rbacRules: 10000 rules are above 100"),
        (
            "workflow.rbacRules",
            json!([rule, {"resources": ["pods"], "verbs": ["get"]}]),
            "spec.workflow.rbacRules[1]: needs verbs, and apiGroups with resources",
        ),
        (source, json!({}), "spec.workflow.resource.source: is empty: one of inline, url, file is needed"),
        (source, json!({"file": {"path": "/x"}}), "spec.workflow.resource.source.file.path: must be relative"),
        (
            source,
            json!({"url": {"path": "http://x/y"}}),
            "spec.workflow.resource.source.url.path: must start with https://",
        ),
        (source, json!({"url": {"path": "file:///etc/passwd"}}), "source.url.path: must start with https://"),
        (source, json!({"url": {"path": "gopher://x"}}), "source.url.path: must start with https://"),
        (inline, json!("#"), "spec.workflow.resource.source.inline: document must be"),
        (inline, json!("text"), "spec.workflow.resource.source.inline: document must be"),
        (inline, json!("- a"), "spec.workflow.resource.source.inline: document must be"),
        (inline, json!("a: 1\n---\nb: 2"), "spec.workflow.resource.source.inline: not one YAML document"),
        (inline, json!("a: ["), "spec.workflow.resource.source.inline: not one YAML document"),
        (inline, json!(bomb), "spec.workflow.resource.source.inline: not one YAML document"),
        (inline, json!("#".repeat(10 << 20)), "spec.workflow.resource.source.inline: 10485760 bytes are above 1048576"),
        ("remedyRunsLimit", json!(-1), "spec.remedyRunsLimit: -1 is negative"),
        ("remedyRunsLimit", json!(1_i64 << 40), "spec.remedyRunsLimit: 1099511627776 is above"),
        ("remedyResetInterval", json!(-1), "spec.remedyResetInterval: -1 is negative"),
        ("remedyResetInterval", json!(31_622_401), "spec.remedyResetInterval: 31622401 is above"),
        (
            "remedyworkflow",
            json!({"resource": {"namespace": "health", "source": {"inline": SOURCE}}}),
            "spec.remedyworkflow.resource.serviceAccount",
        ),
        ("initialDelaySec", json!(-1), "spec.initialDelaySec: -1 is not from 0 to 31622400"),
        ("jitterSec", json!(-1), "spec.jitterSec: -1 is not from 0 to 86400"),
        ("jitterSec", json!(61), "spec.jitterSec: is above spec.repeatAfterSec, 60"),
        ("startingDeadlineSeconds", json!(0), "spec.startingDeadlineSeconds: 0 is not from 1 to"),
        ("failureThreshold", json!(0), "spec.failureThreshold: 0 is not from 1 to 100"),
        ("failureThreshold", json!(101), "spec.failureThreshold: 101 is not from 1 to 100"),
        ("successThreshold", json!(i64::MIN), "spec.successThreshold: -9223372036854775808 is not from 1 to 100"),
    ];
    for (path, value, says) in rows {
        let invalid = parse(with(path, value)).expect_err(says);
        assert!(invalid.to_string().contains(says), "{path}: {invalid:.300}");
        assert_eq!(invalid.problems.len(), 1, "{path}: {invalid:.300}");
        assert!(invalid.to_string().len() < 600, "{path}: bounded");
    }
}

#[test]
fn a_bad_cron_is_named_with_its_field() {
    for (cron, says) in [
        ("61 * * * *", "minute: 61"),
        ("* * 31 2 *", "no time that ever comes"),
        ("0 0 30 2 *", "no time that ever comes"),
        ("CRON_TZ=Mars/X * * * * *", "Mars/X"),
        ("* * * *", "spec.schedule.cron"),
        ("@every x", "spec.schedule.cron"),
        ("@fortnightly", "spec.schedule.cron"),
        (&"*".repeat(300), "spec.schedule.cron"),
    ] {
        let mut spec = with("schedule", json!({"cron": cron}));
        spec["repeatAfterSec"] = json!(0);
        let invalid = parse(spec).expect_err(cron).to_string();
        assert!(invalid.starts_with("spec.schedule.cron: ") && invalid.contains(says), "{cron}: {invalid}");
    }
    // As robfig does: not below a second.
    let mut spec = with("schedule", json!({"cron": "@every 0s"}));
    spec["repeatAfterSec"] = Value::Null;
    assert_eq!(parse(spec).unwrap().slots().unwrap().schedule().period(), Some(Duration::from_secs(1)));
}

#[test]
fn frequent_runs_and_a_timeout_above_the_interval_are_taken_with_a_warning() {
    let warned = |spec| parse(spec).unwrap().warnings.into_iter().map(|warning| warning.field).collect::<Vec<_>>();
    assert_eq!(warned(with("repeatAfterSec", json!(1))), ["spec.repeatAfterSec"]);
    assert_eq!(warned(with("repeatAfterSec", json!(10))), [""; 0]);
    let mut spec = with("workflow.workflowtimeout", json!(61));
    spec["repeatAfterSec"] = json!(60);
    assert_eq!(warned(spec), ["spec.workflow.workflowtimeout"]);
    let mut spec = with("workflow.workflowtimeout", json!(60));
    spec["repeatAfterSec"] = json!(60);
    assert_eq!(warned(spec), [""; 0]);
}

#[test]
fn what_active_monitor_took_is_taken_and_what_has_no_effect_is_said() {
    for factor in ["1", "0", "-1", "nan", "", "0.5", "1e999"] {
        let mut spec = with("backoffFactor", json!(factor));
        spec["backoffMin"] = json!(90);
        spec["backoffMax"] = json!(-5);
        let fields: Vec<String> = parse(spec).unwrap().warnings.into_iter().map(|warning| warning.field).collect();
        assert_eq!(fields, ["spec.backoffFactor", "spec.backoffMax", "spec.backoffMin"], "{factor}");
    }
    for paused in [json!(0), json!(-1), json!(i64::MIN), Value::Null] {
        assert_eq!(parse(with("repeatAfterSec", paused)).unwrap().timing, Timing::Stopped);
    }
    for (path, value) in [
        ("repeatAfterSec", json!(1)),
        ("workflow.workflowtimeout", json!(3600)),
        ("workflow.workflowtimeout", json!(0)),
        ("remedyRunsLimit", json!(0)),
        ("remedyResetInterval", json!(0)),
        ("remedyworkflow", json!({})),
        ("schedule", json!({})),
        ("schedule", json!({"cron": "nonsense, but the interval counts"})),
        ("level", json!("")),
        ("initialDelaySec", json!(0)),
        ("jitterSec", json!(0)),
        ("jitterSec", json!(60)),
        ("startingDeadlineSeconds", json!(1)),
        ("failureThreshold", json!(100)),
        ("suspend", json!(false)),
    ] {
        let text = value.to_string();
        parse(with(path, value)).unwrap_or_else(|invalid| panic!("{path}={text}: {invalid}"));
    }
}

#[test]
fn every_problem_of_a_resource_is_named_at_once() {
    let problems = parse(json!({"schedule": {"cron": "61 * * * *"}, "level": "galaxy", "remedyRunsLimit": -1,
        "failureThreshold": 0,
        "workflow": {"generateName": "UPPER", "resource": {"namespace": "a/b", "serviceAccount": "",
            "source": {"inline": "#"}}}}))
    .unwrap_err()
    .problems;
    let mut fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "spec.failureThreshold",
            "spec.level",
            "spec.remedyRunsLimit",
            "spec.schedule.cron",
            "spec.workflow.generateName",
            "spec.workflow.resource.namespace",
            "spec.workflow.resource.serviceAccount",
            "spec.workflow.resource.source.inline",
        ]
    );
}
