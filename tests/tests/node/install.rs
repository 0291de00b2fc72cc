//! Agent and hub as pods of the images of the Dockerfile, from the plain manifests.

use std::{fs, os::unix::fs::chown, path::Path, time::Duration};

use active_monitor_tests::{Cluster, fleet::project, node::Node};
use serde_json::json;

/// The user of the images.
const USER: u32 = 65532;
const TOKEN: &str = "amf_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
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

/// Installs both, has the agent run a check, and asks the hub who one is. No other agent may be there.
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
    let token = format!("--from-literal=token={TOKEN}");
    let secret = ["-n", "active-monitor", "create", "secret", "generic", "active-monitor-hub-admin", &token];
    cluster.kubectl(&secret).await.unwrap();
    cluster.kubectl(&[&apply[..], &[&deploy("hub")]].concat()).await.unwrap();
    for set in ["statefulset/active-monitor-agent", "statefulset/active-monitor-hub"] {
        let ready = cluster.kubectl(&["-n", "active-monitor", "rollout", "status", set, "--timeout=120s"]).await;
        if let Err(error) = ready {
            let seen = cluster.kubectl(&["-n", "active-monitor", "get", "pods,events", "-o", "wide"]).await;
            let log = cluster.kubectl(&["-n", "active-monitor", "logs", set, "--tail=20"]).await;
            panic!("{error:#}\n{}\n{}", seen.unwrap_or_default(), log.unwrap_or_default());
        }
    }

    cluster.apply_yaml(HELLO).await.unwrap();
    let succeeded = ["-n", "health", "wait", "healthcheck/by-a-pod", "--for=jsonpath={.status.status}=Succeeded"];
    cluster.kubectl(&[&succeeded[..], &["--timeout=120s"]].concat()).await.unwrap();
    let log = cluster.kubectl(&["-n", "active-monitor", "logs", "active-monitor-agent-0"]).await.unwrap();
    assert!(log.lines().all(|line| line.starts_with('{')), "not JSON: {log}");
    the_hub_answers(cluster).await;
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

/// With the token of its Secret, under the name of its Service and by the certificate that it prints itself.
async fn the_hub_answers(cluster: &Cluster) {
    let pod = ["-n", "active-monitor", "get", "pod", "active-monitor-hub-0", "-o", "jsonpath={.status.podIP}"];
    let address = cluster.kubectl(&pod).await.unwrap();
    let print = ["-n", "active-monitor", "exec", "active-monitor-hub-0", "--", "active-monitor-hub", "ca"];
    let ca = cluster.kubectl(&print).await.unwrap();
    let ca = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
    let client = client.tls_certs_only([ca]).resolve(HUB, format!("{}:8443", address.trim()).parse().unwrap());
    let asked = client.build().unwrap().get(format!("https://{HUB}:8443/api/v1/me")).bearer_auth(TOKEN).send();
    let me: serde_json::Value = asked.await.unwrap().error_for_status().unwrap().json().await.unwrap();
    assert_eq!((&me["name"], &me["role"]), (&json!("admin"), &json!("admin")), "{me}");
}
