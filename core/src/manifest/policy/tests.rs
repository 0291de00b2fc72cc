//! Every field that is refused, every spelling of it, and that ordinary workflows are not.

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::healthcheck::HealthCheck;

const HEAD: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n";

fn check(source: Value, remedy: Option<Value>) -> Check {
    let job = |source: Value| json!({"resource": {"namespace": "health", "serviceAccount": "probe", "source": source}});
    let mut spec = json!({"repeatAfterSec": 60, "workflow": job(source)});
    if let Some(remedy) = remedy {
        spec["remedyworkflow"] = job(remedy);
    }
    let resource = json!({"apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": "dns", "namespace": "health", "uid": "u"}, "spec": spec});
    let resource: HealthCheck = serde_json::from_value(resource).unwrap();
    Check::parse(&resource).unwrap()
}

fn refusals(policy: &SourcePolicy, text: &str) -> Vec<Problem> {
    let check = check(json!({"inline": format!("{HEAD}spec: {{}}")}), None);
    policy.refusals(&Manifest::parse(text).unwrap(), &check.workflow)
}

#[rstest]
#[case("spec: {volumes: [{name: v, hostPath: {path: /}}]}", "spec.volumes[0].hostPath", "host")]
#[case(
    "spec: {templates: [{name: a, volumes: [{name: v, hostPath: {path: /}}]}]}",
    "spec.templates[0].volumes[0].hostPath",
    "host"
)]
#[case("spec: {hostNetwork: true}", "spec.hostNetwork", "host")]
#[case("spec: {templates: [{hostPID: true}]}", "spec.templates[0].hostPID", "host")]
#[case("spec: {templates: [{hostIPC: 'true'}]}", "spec.templates[0].hostIPC", "host")]
#[case(
    "spec: {templates: [{container: {ports: [{hostPort: 80}]}}]}",
    "spec.templates[0].container.ports[0].hostPort",
    "host"
)]
#[case(
    "spec: {templates: [{container: {securityContext: {privileged: true}}}]}",
    "spec.templates[0].container.securityContext.privileged",
    "privileged"
)]
#[case(
    "spec: {templates: [{sidecars: [{securityContext: {allowPrivilegeEscalation: true}}]}]}",
    "spec.templates[0].sidecars[0].securityContext.allowPrivilegeEscalation",
    "privileged"
)]
#[case(
    "spec: {templates: [{script: {securityContext: {capabilities: {add: [KILL, SYS_ADMIN]}}}}]}",
    "spec.templates[0].script.securityContext.capabilities.add",
    "privileged"
)]
#[case(
    "spec: {templates: [{initContainers: [{securityContext: {procMount: Unmasked}}]}]}",
    "spec.templates[0].initContainers[0].securityContext.procMount",
    "privileged"
)]
#[case("spec: {podSpecPatch: '{}'}", "spec.podSpecPatch", "pod-spec-patch")]
#[case("spec: {templates: [{podSpecPatch: 'hostPID: true'}]}", "spec.templates[0].podSpecPatch", "pod-spec-patch")]
#[case(
    "spec: {templateDefaults: {podSpecPatch: 'hostPID: true'}}",
    "spec.templateDefaults.podSpecPatch",
    "pod-spec-patch"
)]
#[case("spec: {artifactGC: {podSpecPatch: 'hostPID: true'}}", "spec.artifactGC.podSpecPatch", "pod-spec-patch")]
#[case("spec: {templates: [{serviceAccountName: admin}]}", "spec.templates[0].serviceAccountName", "service-account")]
#[case(
    "spec: {templates: [{serviceAccountName: '{{inputs.parameters.who}}'}]}",
    "spec.templates[0].serviceAccountName",
    "service-account"
)]
#[case("spec: {executor: {serviceAccountName: admin}}", "spec.executor.serviceAccountName", "service-account")]
#[case("spec: {artifactGC: {serviceAccountName: admin}}", "spec.artifactGC.serviceAccountName", "service-account")]
#[case("spec: {workflowTemplateRef: {name: a}}", "spec.workflowTemplateRef", "template-ref")]
#[case(
    "spec: {templates: [{dag: {tasks: [{templateRef: {name: a, template: b}}]}}]}",
    "spec.templates[0].dag.tasks[0].templateRef",
    "template-ref"
)]
#[case("spec: {hooks: {exit: {templateRef: {name: a, template: b}}}}", "spec.hooks.exit.templateRef", "template-ref")]
// Argo reads steps with Go's decoder: case does not count, nor two letters that fold into ASCII.
#[case(
    "spec: {templates: [{steps: [[{inline: {PodSpecPatch: 'x'}}]]}]}",
    "spec.templates[0].steps[0][0].inline.PodSpecPatch",
    "pod-spec-patch"
)]
#[case(
    "spec: {templates: [{steps: [[{inline: {volumes: [{hoſtpath: {path: /}}]}}]]}]}",
    "spec.templates[0].steps[0][0].inline.volumes[0].hoſtpath",
    "host"
)]
#[case(
    "metadata: {labels: {workflows.argoproj.io/controller-instanceid: other}}\nspec: {}",
    "metadata.labels[workflows.argoproj.io/controller-instanceid]",
    "instance-id"
)]
fn what_needs_a_privilege_is_refused_with_its_field_and_its_flag(
    #[case] text: &str,
    #[case] field: &str,
    #[case] flag: &str,
) {
    let text = format!("{HEAD}{text}");
    let found = refusals(&SourcePolicy::default(), &text);
    let [problem] = &found[..] else { panic!("{found:?}") };
    assert_eq!(problem.field, field);
    assert!(problem.message.ends_with(&format!("--workflow-allow={flag} lets it through")), "{problem}");
    let privilege = Privilege::ALL.into_iter().find(|privilege| privilege.as_str() == flag).unwrap();
    let open = SourcePolicy { allowed: [privilege].into(), ..SourcePolicy::default() };
    assert_eq!(refusals(&open, &text), []);
}

#[rstest]
#[case("metadata: {namespace: kube-system}\nspec: {}", "metadata.namespace")]
#[case("metadata: {finalizers: [a/b]}\nspec: {}", "metadata.finalizers")]
#[case("metadata: {ownerReferences: [{name: a}]}\nspec: {}", "metadata.ownerReferences")]
#[case(
    "metadata: {annotations: {workflows.argoproj.io/pod-gc-strategy: x}}\nspec: {}",
    "metadata.annotations[workflows.argoproj.io/pod-gc-strategy]"
)]
#[case(
    "spec: {podMetadata: {annotations: {workflows.argoproj.io/pod-gc-strategy: OnPodCompletion}}}",
    "spec.podMetadata.annotations[workflows.argoproj.io/pod-gc-strategy]"
)]
#[case(
    "spec: {templates: [{metadata: {annotations: {workflows.argoproj.io/pod-gc-strategy: OnPodCompletion}}}]}",
    "spec.templates[0].metadata.annotations[workflows.argoproj.io/pod-gc-strategy]"
)]
fn what_no_flag_allows_is_refused(#[case] text: &str, #[case] field: &str) {
    let open = SourcePolicy { allowed: Privilege::ALL.into(), ..SourcePolicy::default() };
    let found = refusals(&open, &format!("{HEAD}{text}"));
    let [problem] = &found[..] else { panic!("{found:?}") };
    assert_eq!(problem.field, field);
    assert!(!problem.message.contains("--workflow-allow"), "{problem}");
}

#[rstest]
#[case(
    "metadata: {namespace: health, labels: {workflows.argoproj.io/controller-instanceid: activemonitor-workflows}}\nspec: {}"
)]
#[case("spec: {serviceAccountName: other, hostNetwork: false, podSpecPatch: ''}")]
#[case(
    "spec: {templates: [{serviceAccountName: probe, podGC: {strategy: OnPodSuccess}, container: {ports: [{hostPort: 0}]}}]}"
)]
#[case(
    "spec: {templates: [{container: {securityContext: {privileged: false, procMount: Default, capabilities: {add: [CHOWN], drop: [ALL]}}}}]}"
)]
#[case(
    "spec: {nodeSelector: {privileged: 'true'}, podMetadata: {labels: {hostPath: a}, annotations: {podSpecPatch: b}}}"
)]
#[case(
    "spec: {templates: [{steps: [[{name: a, withItems: [{privileged: true}]}]]}], synchronization: {mutex: {name: m}}, hooks: {exit: {template: a}}}"
)]
fn ordinary_workflows_are_let_through(#[case] text: &str) {
    assert_eq!(refusals(&SourcePolicy::default(), &format!("{HEAD}{text}")), []);
}

#[test]
fn the_problems_are_bounded_and_so_is_each() {
    let templates =
        vec![
            format!("{{\"{}\": {{podSpecPatch: x, serviceAccountName: \"{}\"}}}}", "k".repeat(500), "a".repeat(9000));
            50
        ];
    let found = refusals(&SourcePolicy::default(), &format!("{HEAD}spec: {{templates: [{}]}}", templates.join(",")));
    assert_eq!(found.len(), MAX_PROBLEMS);
    assert!(found.iter().all(|problem| problem.to_string().len() < 400));
}

#[test]
fn a_check_is_refused_before_it_runs_where_that_can_be_known() {
    let bad = json!({"inline": format!("{HEAD}spec: {{hostNetwork: true}}")});
    let good = json!({"inline": format!("{HEAD}spec: {{}}")});
    let policy = SourcePolicy::default();
    let says = |check| policy.admit(check).map_err(|invalid| invalid.to_string()).map(drop);
    assert_eq!(says(check(good.clone(), None)), Ok(()));
    let error = says(check(bad.clone(), None)).unwrap_err();
    assert!(error.starts_with("spec.workflow.resource.source.inline: spec.hostNetwork: "), "{error}");
    let error = says(check(good, Some(bad))).unwrap_err();
    assert!(error.starts_with("spec.remedyworkflow.resource.source.inline: spec.hostNetwork: "), "{error}");

    let file = json!({"file": {"path": "dns.yaml"}});
    let error = says(check(file.clone(), None)).unwrap_err();
    assert!(error.starts_with("spec.workflow.resource.source.file: ") && error.contains("--source-dir"), "{error}");
    let open = SourcePolicy { files: true, ..SourcePolicy::default() };
    assert!(open.admit(check(file, None)).is_ok());

    let url = json!({"url": {"path": "https://example.com/a", "verifyCert": false}});
    assert_eq!(says(check(url.clone(), None)), Ok(()), "as active-monitor's users have it");
    let strict = SourcePolicy { unverified: false, ..SourcePolicy::default() };
    let error = strict.admit(check(url, None)).unwrap_err().to_string();
    assert!(error.starts_with("spec.workflow.resource.source.url.verifyCert: "), "{error}");
}

/// What users have must still run: our own examples, and active-monitor's where they are at hand.
#[test]
fn every_example_is_let_through() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut seen = 0;
    for folder in [format!("{root}/examples"), format!("{root}/../shared/upstream/examples")] {
        let Ok(files) = std::fs::read_dir(&folder) else { continue };
        for file in files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        {
            let text = std::fs::read_to_string(&file).unwrap();
            let checks: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            for resource in checks.into_iter().filter(|resource| resource["kind"] == "HealthCheck") {
                let check = Check::parse(&serde_json::from_value(resource).unwrap()).unwrap();
                let admitted = SourcePolicy::default().admit(check);
                assert!(admitted.is_ok(), "{}: {}", file.display(), admitted.unwrap_err());
                seen += 1;
            }
        }
    }
    assert!(seen >= 4, "{seen} examples");
}
