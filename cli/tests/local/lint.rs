//! lint: every problem, with its place.

use active_monitor_cli::Exit;

use crate::run;

pub(crate) const CHECK: &str = "\
apiVersion: activemonitor.keikoproj.io/v1alpha1
kind: HealthCheck
metadata:
  name: dns
  namespace: health
spec:
  repeatAfterSec: 60
  level: namespace
  workflow:
    generateName: dns-
    resource:
      namespace: health
      serviceAccount: dns-sa
      source:
        inline: |
          apiVersion: argoproj.io/v1alpha1
          kind: Workflow
          spec:
            entrypoint: main
";

const DEFINITION: &str = "\
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetHealthCheck
metadata: {name: dns}
spec:
  clusterSelector: {}
  template:
    metadata: {namespace: \"${cluster.labels.env}\"}
    spec:
      repeatAfterSec: 60
      workflow:
        resource:
          namespace: \"${cluster.labels.env}\"
          serviceAccount: sa
          source: {inline: \"{apiVersion: argoproj.io/v1alpha1, kind: Workflow, spec: {}}\"}
";

fn lint(text: &str) -> Vec<String> {
    let ran = run(&["lint", "-"], text);
    let lines: Vec<String> = ran.out.lines().map(str::to_owned).collect();
    assert_eq!(ran.exit, if lines.iter().all(|l| l.contains(": warning: ")) { Exit::Fine } else { Exit::Found });
    lines
}

#[test]
fn what_is_sound_is_left_alone() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: health}\n";
    let ran = run(&["lint", "-"], &format!("{namespace}---\n{CHECK}---\n{DEFINITION}"));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Fine, ""));
    assert_eq!(ran.err, "2 checked, 1 of other kinds skipped, 0 with problems\n");
}

#[test]
fn every_problem_has_its_place() {
    let bad = CHECK
        .replace("name: dns\n", "name: Dns\n  label: {a: b}\n")
        .replace("spec:\n  repeat", "remedyworkflow: {}\nspec:\n  repeat")
        .replace("repeatAfterSec: 60", "repeatAfterSec: often")
        .replace("level: namespace", "Level: galaxy\n  remedyRunsLimit: \"3\"")
        .replace("serviceAccount: dns-sa", "serviceaccount: dns-sa\n      extra: 1");
    insta::assert_snapshot!(lint(&format!("# a comment\n---\n{bad}")).join("\n"), @r"
    <stdin>:6:3: metadata.name: must be 1 to 253 characters of a-z, 0-9, '-' and '.', and each part between dots must begin and end with a letter or digit
    <stdin>:7:3: metadata.label: unknown field
    <stdin>:9:1: remedyworkflow: unknown field; allowed are apiVersion, kind, metadata, spec, status
    <stdin>:11:3: spec.repeatAfterSec: must be an integer, is a string
    <stdin>:12:3: spec.Level: unknown field; level is meant
    <stdin>:13:3: spec.remedyRunsLimit: must be an integer, is a string
    <stdin>:18:7: spec.workflow.resource.serviceaccount: unknown field; serviceAccount is meant
    <stdin>:19:7: spec.workflow.resource.extra: unknown field; allowed are namespace, serviceAccount, source
    ");
    let bad = CHECK
        .replace("repeatAfterSec: 60", "schedule: {cron: 61 * * * *}")
        .replace("namespace: health\n      s", "namespace: Health\n      s")
        .replace("level: namespace", "level: galaxy\n  backoffMax: 3")
        .replace("kind: Workflow", "kind: Pod");
    insta::assert_snapshot!(lint(&bad).join("\n"), @r#"
    <stdin>:7:14: spec.schedule.cron: minute: 61 is above 59
    <stdin>:8:3: spec.level: "galaxy" is neither cluster nor namespace
    <stdin>:13:7: spec.workflow.resource.namespace: "Health" must be 1 to 63 characters of a-z, 0-9 and '-', and begin and end with a letter or digit
    <stdin>:16:9: spec.workflow.resource.source.inline: kind must be Workflow
    "#);
}

#[test]
fn definitions_are_looked_into() {
    let bad = DEFINITION
        .replace("clusterSelector: {}", "clusterSelector: {matchExpressions: [{key: env, operator: in, values: [a]}]}")
        .replace("repeatAfterSec: 60", "repeatAfterSec: 60\n      every: 1s\n      description: \"${cluster.nme}\"")
        .replace("serviceAccount: sa", "serviceAccount: \"-\"");
    insta::assert_snapshot!(lint(&bad).join("\n"), @r#"
    <stdin>:5:51: spec.clusterSelector.matchExpressions[0].operator: must be In, NotIn, Exists or DoesNotExist
    <stdin>:10:7: spec.template.spec.every: unknown field; allowed are backoffFactor, backoffMax, backoffMin, description, failureThreshold, initialDelaySec, jitterSec, level, remedyResetInterval, remedyRunsLimit, remedyworkflow, repeatAfterSec, schedule, startingDeadlineSeconds, successThreshold, suspend, workflow
    <stdin>:11:7: spec.template.spec.description: "${cluster.nme}" is no placeholder: use ${cluster.name}, ${cluster.labels.KEY} or ${cluster.annotations.KEY} with an optional :-DEFAULT, or $${cluster. for the literal text
    <stdin>:15:11: spec.template.spec.workflow.resource.serviceAccount: "-" must be 1 to 253 characters of a-z, 0-9, '-' and '.', and each part between dots must begin and end with a letter or digit
    "#);
    insta::assert_snapshot!(lint(&DEFINITION.replace("clusterSelector", "selector")).join("\n"), @r"
    <stdin>:5:3: spec.selector: unknown field `selector`, expected `clusterSelector` or `template`
    ");
}

#[test]
fn broken_texts_are_placed_too() {
    let all = format!("{CHECK}---\njust text\n---\nkind: HealthCheck\n---\na: 1\na: 2\n---\nb: [1\nc: }}\n");
    insta::assert_snapshot!(lint(&all).join("\n"), @r"
    <stdin>:21:1: this is no object: it has no apiVersion and no kind
    <stdin>:23:1: apiVersion: is missing
    <stdin>:26:1: duplicate mapping key: a
    <stdin>:29:2: illegal placement of ':' indicator
    ");
    let kinds = "apiVersion: activemonitor.keikoproj.io/v1alpha1\nkind: Healthcheck\n---\n\
                 apiVersion: activemonitor.keikoproj.io/v1\nkind: HealthCheck\n";
    insta::assert_snapshot!(lint(kinds).join("\n"), @r"
    <stdin>:2:1: kind: must be HealthCheck, FleetHealthCheck, FleetCluster or MaintenanceWindow
    <stdin>:4:1: apiVersion: must be activemonitor.keikoproj.io/v1alpha1 for a HealthCheck, fleet.activemonitor.keikoproj.io/v1alpha1 for a FleetHealthCheck
    ");
}

#[test]
fn the_items_of_a_list_are_checked() {
    let item = CHECK.replace("level: namespace", "level: galaxy").replace('\n', "\n  ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}", item.trim_end());
    insta::assert_snapshot!(lint(&list).join("\n"), @r#"
    <stdin>:11:5: items[0].spec.level: "galaxy" is neither cluster nor namespace
    "#);
}

#[test]
fn findings_as_data() {
    let ran = run(&["lint", "-", "-o", "json"], &CHECK.replace("level: namespace", "level: galaxy"));
    assert_eq!(ran.exit, Exit::Found);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let first = &json["items"][0];
    assert_eq!(
        (first["file"].as_str(), first["line"].as_u64(), first["column"].as_u64()),
        (Some("<stdin>"), Some(8), Some(3))
    );
    assert_eq!((first["field"].as_str(), first["severity"].as_str()), (Some("spec.level"), Some("error")));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let ran = run(&["lint", "/nonexistent/check.yaml"], "");
    assert_eq!(ran.exit, Exit::Error);
    assert!(ran.err.starts_with("error: cannot read /nonexistent/check.yaml: "), "{}", ran.err);
}

/// active-monitor's own examples, and this project's, are the files that users have.
#[test]
fn this_projects_examples_are_sound() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let ran = run(&["lint", path.to_str().unwrap()], "");
            assert_eq!(ran.exit, Exit::Fine, "{}", ran.out);
        }
    }
}

#[test]
fn what_the_hub_takes_from_its_folder_is_checked_as_the_hub_does() {
    let head = "apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1\nkind:";
    let sound = format!(
        "{head} FleetCluster\nmetadata: {{name: east, labels: {{env: prod}}}}\n---\n{head} MaintenanceWindow\nmetadata: \
         {{name: night}}\nspec: {{cron: \"0 3 * * *\", durationSeconds: 60}}\n"
    );
    assert_eq!(lint(&sound), Vec::<String>::new());
    let bad = sound.replace("east", "East").replace("durationSeconds: 60", "durationSeconds: 0");
    let said = lint(&bad);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("<stdin>:3:12: metadata.name: must"), "{said:?}");
    assert!(said[1].starts_with("<stdin>:8:27: spec.durationSeconds: durationSeconds must be from 1"), "{said:?}");
}
