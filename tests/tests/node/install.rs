//! Agent and hub as pods of the images of the Dockerfile: the agent from the plain manifests, the hub from its chart. And
//! the hub's backup and restore as docs/install.md has them.

use std::{fs, os::unix::fs::chown, path::Path, time::Duration};

use active_monitor_tests::{
    Cluster, Program, Programs,
    charts::{Chart, Helm},
    fleet::project,
    node::Node,
    shell::{self, Shell},
};
use reqwest::Method;
use serde_json::{Value, json};

/// The user of the images.
const USER: u32 = 65532;
const HUB: &str = "active-monitor-hub-people.active-monitor.svc";

/// The check of active-monitor's first example.
const HELLO: &str = "
apiVersion: activemonitor.keikoproj.io/v1alpha1
kind: HealthCheck
metadata: {name: by-a-pod, namespace: health}
spec:
  repeatAfterSec: 600
  level: cluster
  workflow:
    resource:
      namespace: health
      serviceAccount: by-a-pod
      source:
        inline: |
          apiVersion: argoproj.io/v1alpha1
          kind: Workflow
          spec:
            entrypoint: whalesay
            templates:
            - name: whalesay
              container: {image: docker/whalesay:latest, command: [cowsay], args: [hello world]}
";

/// Installs both, has the agent run a check, asks the hub, backs it up and restores it. No other agent may be there.
pub(super) async fn product_runs_in_pods(cluster: &Cluster, node: &Node) {
    for (target, claim, size) in [("agent", "state", "1Gi"), ("hub", "data", "10Gi")] {
        node.add_image(target).await.unwrap();
        cluster.apply_yaml(&volume(&node.dir.join("volumes").join(claim), claim, size)).await.unwrap();
    }
    let deploy = |file: &str| project().join("deploy").join(file).display().to_string();
    let apply = ["apply", "--server-side", "--force-conflicts", "-f"];
    cluster.kubectl(&[&apply[..], &[&deploy("crds")]].concat()).await.unwrap();
    let crd = "crd/healthchecks.activemonitor.keikoproj.io";
    cluster.kubectl(&["wait", "--for=condition=Established", crd, "--timeout=60s"]).await.unwrap();
    cluster.kubectl(&[&apply[..], &[&deploy("agent")]].concat()).await.unwrap();
    let helm = Programs::ensure(Program::CHARTS).await.unwrap();
    let chart = Chart::Hub.folder();
    let helm = Helm::new(&helm, cluster.run());
    helm.on(cluster, &["install", "hub", chart.to_str().unwrap()]).await.unwrap();
    for set in ["statefulset/active-monitor-agent", "statefulset/active-monitor-hub"] {
        is_ready(cluster, set).await;
    }

    cluster.apply_yaml(HELLO).await.unwrap();
    let succeeded = ["-n", "health", "wait", "healthcheck/by-a-pod", "--for=jsonpath={.status.status}=Succeeded"];
    cluster.kubectl(&[&succeeded[..], &["--timeout=120s"]].concat()).await.unwrap();
    let log = cluster.kubectl(&["-n", "active-monitor", "logs", "active-monitor-agent-0"]).await.unwrap();
    assert!(log.lines().all(|line| line.starts_with('{')), "not JSON: {log}");
    backed_up_and_restored(cluster, node).await;
}

async fn is_ready(cluster: &Cluster, set: &str) {
    let ready = cluster.kubectl(&["-n", "active-monitor", "rollout", "status", set, "--timeout=120s"]).await;
    if let Err(error) = ready {
        let seen = cluster.kubectl(&["-n", "active-monitor", "get", "pods,events", "-o", "wide"]).await;
        let log = cluster.kubectl(&["-n", "active-monitor", "logs", set, "--tail=20"]).await;
        panic!("{error:#}\n{}\n{}", seen.unwrap_or_default(), log.unwrap_or_default());
    }
}

/// A volume on the node, since nothing here makes volumes; it belongs to the user of the images.
fn volume(dir: &Path, name: &str, size: &str) -> String {
    fs::create_dir_all(dir).unwrap();
    chown(dir, Some(USER), Some(USER)).unwrap();
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": { "storage": size },
            "hostPath": { "path": dir, "type": "Directory" },
        },
    })
    .to_string()
}

/// On a new volume: it has what it had, under the CA that it had, and what was revoked since stays revoked.
async fn backed_up_and_restored(cluster: &Cluster, node: &Node) {
    let folder = cluster.dir.join("backup");
    fs::create_dir_all(&folder).unwrap();
    let shell = Shell::new(cluster, &folder, &[cluster.programs.path(Program::Kubectl)]);
    let run = async |script: &str| shell.run(script).await.unwrap_or_else(|error| panic!("{error:#}"));
    let blocks = shell::documented("Back up and restore the hub", "").unwrap();
    let [back_up, restore] = &blocks[..] else { panic!("{blocks:?}") };
    let (archive, revoked) = back_up.split_once('\n').unwrap();

    let print = ["-n", "active-monitor", "exec", "active-monitor-hub-0", "--", "active-monitor-hub", "ca"];
    let ca = cluster.kubectl(&print).await.unwrap();
    let secret =
        "kubectl -n active-monitor get secret active-monitor-hub-admin -o jsonpath='{.data.token}' | base64 -d";
    let token = run(secret).await;
    let hub = HubPod::reach(cluster, &ca, &token).await;
    let me = hub.ask(Method::GET, "/me", Value::Null).await;
    assert_eq!((&me["name"], &me["role"]), (&json!("admin"), &json!("admin")), "{me}");
    for name in ["east", "gone"] {
        hub.ask(Method::POST, "/clusters", json!({"name": name})).await;
    }
    run(archive).await;
    hub.ask(Method::DELETE, "/clusters/gone", Value::Null).await;
    run(revoked).await;

    cluster.apply_yaml(&volume(&node.dir.join("volumes/restored"), "restored", "10Gi")).await.unwrap();
    run(restore).await;
    is_ready(cluster, "statefulset/active-monitor-hub").await;
    let hub = HubPod::reach(cluster, &ca, &token).await;
    let clusters = hub.ask(Method::GET, "/clusters", Value::Null).await;
    let names: Vec<_> = clusters["items"].as_array().unwrap().iter().map(|cluster| &cluster["name"]).collect();
    assert_eq!(names, ["east"], "{clusters}");
    let fleet = hub.ask(Method::GET, "/fleet", Value::Null).await;
    assert!(fleet["restore"].is_object(), "it says that it comes from a backup: {fleet}");
}

/// The hub's pod, under the name of its Service and by the certificate that it printed once.
struct HubPod {
    client: reqwest::Client,
    token: String,
}

impl HubPod {
    async fn reach(cluster: &Cluster, ca: &str, token: &str) -> HubPod {
        let pod = ["-n", "active-monitor", "get", "pod", "active-monitor-hub-0", "-o", "jsonpath={.status.podIP}"];
        let address = cluster.kubectl(&pod).await.unwrap();
        let ca = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).tls_certs_only([ca]);
        let client = client.resolve(HUB, format!("{}:8443", address.trim()).parse().unwrap());
        HubPod { client: client.build().unwrap(), token: token.to_owned() }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let asked = self.client.request(method, format!("https://{HUB}:8443/api/v1{path}")).bearer_auth(&self.token);
        let asked = if body.is_null() { asked } else { asked.json(&body) };
        let answer = asked.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }
}
