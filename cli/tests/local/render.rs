//! render: the objects of a check and of its remedy.

use active_monitor_cli::Exit;
use serde_json::Value;

use crate::lint::CHECK;
use crate::run;

const REMEDY: &str = r#"  remedyworkflow:
    rbacRules:
    - {apiGroups: [""], resources: [pods], verbs: [delete]}
    resource:
      namespace: health
      serviceAccount: dns-sa
      source:
        url: {path: https://example.com/remedy.yaml}
"#;

#[test]
fn a_check_is_an_account_its_rights_and_a_workflow() {
    let ran = run(&["render", "-"], CHECK);
    insta::assert_snapshot!(ran.out, @r#"
    apiVersion: v1
    kind: ServiceAccount
    metadata:
      annotations:
        activemonitor.keikoproj.io/account: health/dns-sa
      labels:
        activemonitor.keikoproj.io/account-namespace: health
        activemonitor.keikoproj.io/owner: active-monitor-agent
        workflows.argoproj.io/managed-by: active-monitor
      name: dns-sa
      namespace: health
    ---
    apiVersion: rbac.authorization.k8s.io/v1
    kind: Role
    metadata:
      annotations:
        activemonitor.keikoproj.io/account: health/dns-sa
      labels:
        activemonitor.keikoproj.io/account-namespace: health
        activemonitor.keikoproj.io/owner: active-monitor-agent
        workflows.argoproj.io/managed-by: active-monitor
      name: dns-sa-ns-role
      namespace: health
    rules:
    - apiGroups:
      - ""
      resources:
      - pods
      - nodes
      - events
      - services
      - configmaps
      - namespaces
      - endpoints
      verbs:
      - get
      - list
      - watch
    - apiGroups:
      - apps
      resources:
      - deployments
      - replicasets
      - statefulsets
      - daemonsets
      verbs:
      - get
      - list
      - watch
    - apiGroups:
      - argoproj.io
      resources:
      - workflows
      verbs:
      - get
      - list
      - watch
    - apiGroups:
      - argoproj.io
      resources:
      - workflowtaskresults
      verbs:
      - create
      - patch
    ---
    apiVersion: rbac.authorization.k8s.io/v1
    kind: RoleBinding
    metadata:
      annotations:
        activemonitor.keikoproj.io/account: health/dns-sa
      labels:
        activemonitor.keikoproj.io/account-namespace: health
        activemonitor.keikoproj.io/owner: active-monitor-agent
        workflows.argoproj.io/managed-by: active-monitor
      name: dns-sa-ns-role-binding
      namespace: health
    roleRef:
      apiGroup: rbac.authorization.k8s.io
      kind: Role
      name: dns-sa-ns-role
    subjects:
    - kind: ServiceAccount
      name: dns-sa
      namespace: health
    ---
    apiVersion: argoproj.io/v1alpha1
    kind: Workflow
    metadata:
      annotations:
        activemonitor.keikoproj.io/check: health/dns
      labels:
        activemonitor.keikoproj.io/check-uid: 00000000-0000-0000-0000-000000000000
        activemonitor.keikoproj.io/kind: healthCheck
        activemonitor.keikoproj.io/slot: 20260301T120000Z
        workflows.argoproj.io/controller-instanceid: activemonitor-workflows
      name: dns-a6513906e666
      namespace: health
      ownerReferences:
      - apiVersion: activemonitor.keikoproj.io/v1alpha1
        blockOwnerDeletion: false
        controller: true
        kind: HealthCheck
        name: dns
        uid: 00000000-0000-0000-0000-000000000000
    spec:
      activeDeadlineSeconds: 60
      entrypoint: main
      podGC:
        deleteDelayDuration: 60s
        strategy: OnPodCompletion
      serviceAccountName: dns-sa
      ttlStrategy:
        secondsAfterCompletion: 600
    "#);
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Fine, ""));
}

#[test]
fn a_remedy_has_its_own_account() {
    let ran = run(&["render", "-", "-o", "json"], &format!("{CHECK}{REMEDY}"));
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    let objects: Vec<String> = json["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| format!("{} {}", o["kind"].as_str().unwrap(), o["metadata"]["name"].as_str().unwrap()))
        .collect();
    assert_eq!(objects.len(), 7);
    assert_eq!(
        objects[4..],
        ["ServiceAccount dns-sa-remedy", "Role dns-sa-remedy-ns-role", "RoleBinding dns-sa-remedy-ns-role-binding"]
    );
    assert_eq!(ran.err, "the remedy workflow is read from https://example.com/remedy.yaml at each run\n");
}

#[test]
fn what_cannot_be_rendered_is_said() {
    let ran = run(&["render", "-"], &CHECK.replace("level: namespace", "level: galaxy"));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Found, ""));
    assert!(ran.err.starts_with("<stdin>:8:3: spec.level: "), "{}", ran.err);
    let ran = run(&["render", "-"], "apiVersion: v1\nkind: Namespace\n");
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Found, "the file has no HealthCheck\n"));
}
