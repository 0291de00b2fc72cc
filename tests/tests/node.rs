//! A real node runs the pods of real workflows: first of Argo alone, then of the whole product. Needs root and the
//! packages that `node::requirements` names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "node/install.rs"]
mod install;
#[path = "node/library.rs"]
mod library;
#[path = "node/upstream.rs"]
mod upstream;

use std::{fs, path::Path, time::Duration};

use active_monitor_tests::{
    Cluster, Options, Testbed,
    node::{self, Node, net},
    skip, wait,
};
use serde_json::Value;

const TEST: &str = "a_node_runs_the_pods_of_workflows";
const LIMIT: Duration = Duration::from_secs(180);

const ACCOUNT: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: check, namespace: plain}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: check, namespace: plain}
rules: [{apiGroups: [argoproj.io], resources: [workflowtaskresults], verbs: [create, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: check, namespace: plain}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: check}
subjects: [{kind: ServiceAccount, name: check, namespace: plain}]
";

const HELLO: &str = r#"
- {name: main, container: {image: "docker/whalesay:latest", command: [cowsay], args: ["hello world"]}}
"#;

const FAIL: &str = r"
- {name: main, retryStrategy: {limit: 1}, container: {image: alpine, command: [sh, -c], args: [fail]}}
";

const LOOPS: &str = r#"
- name: main
  steps:
  - - name: print-message
      template: whalesay
      arguments: {parameters: [{name: message, value: "{{item}}"}]}
      withItems: [hello world, goodbye world]
- name: whalesay
  inputs: {parameters: [{name: message}]}
  container: {image: "docker/whalesay:latest", command: [cowsay], args: ["{{inputs.parameters.message}}"]}
"#;

const OUTPUT: &str = r#"
- name: main
  container: {image: "docker/whalesay:latest", command: [/bin/bash, -c], args: ["P=(6 7); echo -n $((P[0] * P[1])) > /tmp/answer"]}
  outputs: {parameters: [{name: answer, globalName: answer, valueFrom: {path: /tmp/answer}}]}
"#;

const LOOKUP: &str = r#"
- {name: main, container: {image: tutum/dnsutils, command: [sh, -c], args: ["nslookup www.example.com"]}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_the_pods_of_workflows() {
    let Some(mut testbed) = start_or_skip().await else { return };
    let cluster = &testbed.clusters[0];
    workflows_run(cluster).await;
    library::checks_run(cluster).await;
    upstream::examples_run(TEST, cluster).await;
    install::product_runs_in_pods(cluster, testbed.node.as_ref().unwrap()).await;

    let again = node::join(cluster, &cluster.programs).await.err().expect("a machine has one node at a time");
    assert!(again.to_string().contains(&format!("process {}", std::process::id())), "{again:#}");
    let node = testbed.node.take().unwrap();
    leaves_nothing(cluster, node).await;
}

async fn start_or_skip() -> Option<Testbed> {
    if let Err(missing) = node::requirements() {
        skip::report(TEST, &missing.to_string());
        return None;
    }
    Testbed::start_or_skip(TEST, Options { clusters: 1, node: true }).await.unwrap()
}

async fn workflows_run(cluster: &Cluster) {
    cluster.apply_yaml(ACCOUNT).await.unwrap();
    for (name, templates) in
        [("hello", HELLO), ("fail", FAIL), ("loops", LOOPS), ("output", OUTPUT), ("lookup", LOOKUP)]
    {
        cluster.apply_yaml(&workflow(name, templates)).await.unwrap();
    }
    let hello = ended(cluster, "hello").await;
    assert_eq!(hello["phase"], "Succeeded", "{hello:#}");
    let said = cluster.kubectl(&["-n", "plain", "logs", "hello", "-c", "main"]).await.unwrap();
    assert!(said.contains("< hello world >"), "{said}");

    let fail = ended(cluster, "fail").await;
    assert_eq!(fail["phase"], "Failed", "{fail:#}");
    assert!(fail.to_string().contains("exit code 127"), "{fail:#}");
    let loops = ended(cluster, "loops").await;
    assert_eq!(loops["phase"], "Succeeded", "{loops:#}");
    let pods = loops["nodes"].as_object().unwrap().values().filter(|node| node["type"] == "Pod");
    assert_eq!(pods.count(), 2);
    let output = ended(cluster, "output").await;
    assert_eq!(output["outputs"]["parameters"][0]["value"], "42", "{output:#}");
    let lookup = ended(cluster, "lookup").await;
    assert_eq!(lookup["phase"], "Failed", "there is no DNS, which is said at once: {lookup:#}");
}

async fn leaves_nothing(cluster: &Cluster, node: Node) {
    let (name, dir) = (node.name.clone(), node.dir.clone());
    assert!(Path::new("/sys/class/net").join(net::LINK).exists());
    node.stop().await.unwrap();
    assert!(!dir.exists());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
    // The kernel takes down a network namespace in its own time.
    let link = Path::new("/sys/class/net").join(net::LINK);
    wait::until("end of the link", LIMIT, || async { Ok((!link.exists()).then_some(())) }).await.unwrap();
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"]).await.unwrap();
    assert!(!nodes.contains(&name), "{nodes}");
}

fn workflow(name: &str, templates: &str) -> String {
    let head = format!(
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n\
         metadata: {{name: {name}, namespace: plain, labels: {{{}: {}}}}}\n\
         spec:\n  entrypoint: main\n  serviceAccountName: check\n  templates:",
        active_monitor_tests::cluster::INSTANCE_ID_LABEL,
        active_monitor_tests::cluster::INSTANCE_ID,
    );
    format!("{head}{}", templates.replace('\n', "\n  "))
}

/// The status of a workflow, once it has ended.
async fn ended(cluster: &Cluster, name: &str) -> Value {
    let ask = || async {
        let text = cluster.kubectl(&["-n", "plain", "get", "workflow", name, "-o", "json"]).await?;
        let status = serde_json::from_str::<Value>(&text)?["status"].take();
        Ok((!status["finishedAt"].is_null()).then_some(status))
    };
    let ended = wait::until(&format!("end of workflow {name}"), LIMIT, ask).await;
    match ended {
        Ok(status) => status,
        Err(error) => {
            let seen = cluster.kubectl(&["-n", "plain", "get", "pods,events"]).await.unwrap_or_default();
            panic!("{error:#}\n{seen}");
        }
    }
}
