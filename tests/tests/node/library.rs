//! The checks of examples/checks with the pods they ask for, each in a namespace where all is well and in one where it is
//! not, all side by side. Only parameters, namespaces and times are changed. The images are stand-ins under the same
//! names, and so are a node without a kubelet, a pod whose status is written by hand, a volume that nobody made, and the
//! DNS server.

use std::{collections::BTreeMap, fs, time::Duration};

use active_monitor_tests::{
    Agent, Cluster, Crd,
    fleet::project,
    node::{DNS_IMAGE, net},
    wait,
};
use serde_json::{Value, json};

/// Some thirty runs with a pod each, on this machine.
const LIMIT: Duration = Duration::from_secs(300);

/// What a check is given where all is well, and where it is not; `None` where there it has nothing to find.
type Case = (&'static str, &'static [(&'static str, &'static str)], Option<&'static [(&'static str, &'static str)]>);

/// POD stands for the address of a pod that answers.
const CASES: [Case; 15] = [
    ("api-latency", &[("limit-ms", "60000")], Some(&[("limit-ms", "0")])),
    (
        "certificate-expiry",
        &[("address", "API:443"), ("days", "1")],
        Some(&[("address", "API:443"), ("days", "999999")]),
    ),
    ("cronjob-freshness", &[], Some(&[])),
    ("daemonset-coverage", &[("selector", "set=well")], Some(&[("selector", "set=broken")])),
    ("deployment-rollout", &[], Some(&[])),
    ("dns-lookup", &[("server", "POD")], Some(&[])),
    ("image-pull", &[], Some(&[("image", "docker.io/testbed/no-such:1")])),
    (
        "ingress",
        &[("url", "http://POD:8080/"), ("expect", "hello")],
        Some(&[("url", "http://POD:8080/"), ("expect", "bye")]),
    ),
    ("job-queue", &[], Some(&[])),
    ("node-ready", &[("selector", "kubernetes.io/os=linux")], Some(&[("selector", "fake=true")])),
    ("pod-restarts", &[], Some(&[])),
    ("pod-scheduling", &[("minutes", "0")], Some(&[("minutes", "0")])),
    ("pvc-bound", &[("minutes", "0")], Some(&[("minutes", "0")])),
    ("quota-use", &[], Some(&[])),
    ("service-endpoints", &[], Some(&[])),
];

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: well}
---
apiVersion: v1
kind: Namespace
metadata: {name: broken}
---
# Opens the namespace for remedies.
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: active-monitor-ceiling-remedying, namespace: broken}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: active-monitor-ceiling-remedying}
subjects: [{kind: ServiceAccount, name: active-monitor-agent, namespace: active-monitor}]
";

const SITUATION: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: well}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: dns, image: "DNS_IMAGE", command: [dns]}
      - name: web
        image: docker.io/library/busybox:1.37
        command: [sh, -c, "mkdir /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: well}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere, namespace: well, labels: {set: well}}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      nodeSelector: {kubernetes.io/os: linux}
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: docker.io/library/busybox:1.37, command: [sleep, "86400"]}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: well-claim}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /tmp/nobody-mounts-it}
  claimRef: {namespace: well, name: claim}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim, namespace: well}
spec: {storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota, namespace: well}
spec: {hard: {configmaps: "10"}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup, namespace: well}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: main, image: docker.io/library/busybox:1.37, command: ["true"]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: stuck, namespace: broken}
spec:
  selector: {matchLabels: {app: stuck}}
  template:
    metadata: {labels: {app: stuck}}
    spec: {nodeSelector: {no: where}, containers: [{name: main, image: docker.io/library/busybox:1.37}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: broken}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: nowhere, namespace: broken, labels: {set: broken}}
spec:
  selector: {matchLabels: {app: nowhere}}
  template:
    metadata: {labels: {app: nowhere}}
    spec:
      nodeSelector: {kubernetes.io/os: linux}
      containers: [{name: main, image: docker.io/testbed/no-such:1}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim, namespace: broken}
spec: {storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota, namespace: broken}
spec: {hard: {configmaps: "1"}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup, namespace: broken}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: main, image: docker.io/library/busybox:1.37, command: ["true"]}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails, namespace: broken}
spec:
  backoffLimit: 0
  template:
    spec: {restartPolicy: Never, containers: [{name: main, image: docker.io/library/busybox:1.37, command: ["false"]}]}
---
apiVersion: v1
kind: Node
metadata: {name: without-kubelet, labels: {fake: "true"}}
spec: {unschedulable: true}
"#;

/// Runs every check, with an agent of its own that ends before this does.
pub(super) async fn checks_run(cluster: &Cluster) {
    Agent::install(cluster, Crd::Ours).await.unwrap();
    cluster.apply_yaml(&fs::read_to_string(project().join("examples/checks/rights.yaml")).unwrap()).await.unwrap();
    cluster.apply_yaml(NAMESPACES).await.unwrap();
    let pod = situation(cluster).await;
    let agent = Agent::start(cluster, "library", None).await.unwrap();
    for (name, well, _) in CASES {
        cluster.apply_yaml(&example(name, "well", well, &pod)).await.unwrap();
    }
    assert_eq!(CASES.len() + 1, fs::read_dir(project().join("examples/checks")).unwrap().count(), "each is run");

    until_well(cluster).await;
    for (name, _, broken) in CASES {
        if let Some(broken) = broken {
            cluster.apply_yaml(&example(name, "broken", broken, &pod)).await.unwrap();
        }
    }
    let broken = until_ended(cluster, "broken").await;
    for (name, _, _) in CASES.iter().filter(|(_, _, broken)| broken.is_some()) {
        let status = &broken[*name];
        let said = status["errorMessage"].as_str().unwrap_or_default();
        let why = if *name == "image-pull" { "not done after" } else { "exit code 1" };
        assert!(status["status"] == "Failed" && said.contains(why), "{name}: {status}");
    }
    remedies_mend(cluster).await;
    let metrics = reqwest::Client::builder().no_proxy().build().unwrap().get(&agent.metrics_url).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for published in ["api_latency_api_latency_ms{", "job_queue_active{", "job_queue_failed{"] {
        assert!(metrics.contains(published), "{published}");
    }
    drop(agent);
    cluster.kubectl(&["delete", "hc", "-A", "--all"]).await.unwrap();
    cluster.kubectl(&["delete", "namespace", "well", "broken", "--wait=false"]).await.unwrap();
    cluster.kubectl(&["delete", "node", "without-kubelet"]).await.unwrap();
}

/// An example as a user would change it for his namespace.
fn example(name: &str, namespace: &str, parameters: &[(&str, &str)], pod: &str) -> String {
    let mut text = fs::read_to_string(project().join(format!("examples/checks/{name}.yaml"))).unwrap();
    for (parameter, value) in parameters {
        let value = value.replace("POD", pod).replace("API", active_monitor_tests::cluster::SERVICE_IP);
        let begin = format!("{{name: {parameter}, value: \"");
        assert!(text.contains(&begin), "{name} has no parameter {parameter}");
        let parts: Vec<_> = text.split(&begin).map(str::to_owned).collect();
        let changed = parts.iter().enumerate().map(|(index, part)| match index {
            0 => part.clone(),
            _ => format!("{begin}{value}{}", &part[part.find('"').unwrap()..]),
        });
        text = changed.collect();
    }
    // It runs once, and has time to on a busy machine; a pull that never succeeds need not have it.
    let timeout = if namespace == "broken" && name == "image-pull" { 40 } else { 200 };
    let lines = text.lines().map(|line| match line.trim_start().split_once(": ") {
        Some(("repeatAfterSec", _)) => "  repeatAfterSec: 3600".to_owned(),
        Some(("workflowtimeout", _)) => format!("    workflowtimeout: {timeout}"),
        Some(("namespace", "health")) => line.replace("health", namespace),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Makes what the checks find, and gives the address of the pod that answers.
async fn situation(cluster: &Cluster) -> String {
    let text = SITUATION.replace("DNS_IMAGE", DNS_IMAGE);
    cluster.apply_yaml(&text).await.unwrap();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for (namespace, succeeded) in [("well", now.as_str()), ("broken", "2020-01-01T00:00:00Z")] {
        write_status(cluster, namespace, "cronjob/backup", &json!({ "lastSuccessfulTime": succeeded })).await;
    }
    // A pod on the node without a kubelet: nobody else writes its status.
    let owner =
        cluster.kubectl(&["-n", "broken", "get", "deployment", "stuck", "-o", "jsonpath={.metadata.uid}"]).await;
    let storm = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: storm\n  namespace: broken\n  ownerReferences: [{{apiVersion: apps/v1, \
         kind: Deployment, name: stuck, uid: {}}}]\nspec: {{nodeName: without-kubelet, terminationGracePeriodSeconds: 0, \
         containers: [{{name: main, image: busybox}}]}}\n",
        owner.unwrap()
    );
    cluster.apply_yaml(&storm).await.unwrap();
    let ended = json!({ "exitCode": 1, "startedAt": now, "finishedAt": now });
    let container = json!({ "name": "main", "image": "busybox", "imageID": "", "ready": false, "restartCount": 9,
        "lastState": { "terminated": ended }, "state": { "waiting": { "reason": "CrashLoopBackOff" } } });
    write_status(cluster, "broken", "pod/storm", &json!({ "phase": "Running", "containerStatuses": [container] }))
        .await;

    let wait = ["-n", "well", "wait", "--for=condition=Available", "deployment/web", "--timeout=120s"];
    cluster.kubectl(&wait).await.unwrap();
    let limit = format!("--timeout={}s", LIMIT.as_secs());
    for (namespace, condition, what) in [
        ("well", "jsonpath={.status.numberReady}=1", "daemonset/everywhere"),
        ("broken", "condition=Failed", "job/fails"),
    ] {
        cluster.kubectl(&["-n", namespace, "wait", &format!("--for={condition}"), what, &limit]).await.unwrap();
    }
    let address = ["-n", "well", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"];
    let pod = cluster.kubectl(&address).await.unwrap();
    assert!(!pod.is_empty() && pod != net::NODE_ADDRESS);
    pod
}

async fn write_status(cluster: &Cluster, namespace: &str, what: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    cluster
        .kubectl(&["-n", namespace, "patch", what, "--subresource=status", "--type=merge", "-p", &patch])
        .await
        .unwrap();
}

/// Waits until every check in `well` has succeeded. Where many pods start at once on few cores, Argo's own container
/// `wait` may fail: that says nothing of the check, which is then run again, once.
async fn until_well(cluster: &Cluster) {
    let wrong =
        |checks: BTreeMap<String, Value>| checks.into_iter().filter(|(_, status)| status["status"] != "Succeeded");
    for (name, status) in wrong(until_ended(cluster, "well").await) {
        let said = status["errorMessage"].as_str().unwrap_or_default();
        assert!(said.starts_with("wait: "), "{name}: {status:#}");
        println!("{name} is run again: {said}");
        let again = ["annotate", "hc", &name, "-n", "well", "activemonitor.keikoproj.io/run-now=again"];
        cluster.kubectl(&again).await.unwrap();
    }
    let all = wait::until("success of every check in well", LIMIT, || async {
        let left: Vec<_> = wrong(until_ended(cluster, "well").await).collect();
        anyhow::ensure!(left.is_empty(), "{left:#?}");
        Ok(Some(()))
    });
    all.await.unwrap_or_else(|error| panic!("{error:#}"));
}

/// The statuses of the checks in a namespace, once each has run.
async fn until_ended(cluster: &Cluster, namespace: &str) -> BTreeMap<String, Value> {
    let what = format!("end of every check in {namespace}");
    let ended = wait::until(&what, LIMIT, || async {
        let text = cluster.kubectl(&["-n", namespace, "get", "hc", "-o", "json"]).await?;
        let mut checks = BTreeMap::new();
        for item in serde_json::from_str::<Value>(&text)?["items"].as_array().into_iter().flatten() {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            anyhow::ensure!(item["status"]["finishedAt"].is_string(), "{name} has not ended");
            checks.insert(name.to_owned(), item["status"].clone());
        }
        Ok(Some(checks))
    });
    match ended.await {
        Ok(ended) => ended,
        Err(error) => {
            let seen = cluster.kubectl(&["-n", namespace, "get", "pods,workflows,events"]).await.unwrap_or_default();
            panic!("{error:#}\n{seen}");
        }
    }
}

/// Each remedy has done what it says, and was counted.
async fn remedies_mend(cluster: &Cluster) {
    for check in ["cronjob-freshness", "deployment-rollout", "pod-restarts"] {
        let get = ["-n", "broken", "get", "hc", check, "-o", "jsonpath={.status.remedyStatus}"];
        wait::until(&format!("remedy of {check}"), LIMIT, || async {
            let said = cluster.kubectl(&get).await?;
            anyhow::ensure!(said != "Failed", "{check}'s remedy failed");
            Ok((said == "Succeeded").then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
    let restarted = "jsonpath={.spec.template.metadata.annotations.kubectl\\.kubernetes\\.io/restartedAt}";
    let restarted = cluster.kubectl(&["-n", "broken", "get", "deployment", "stuck", "-o", restarted]).await.unwrap();
    assert!(!restarted.is_empty());
    let jobs = cluster.kubectl(&["-n", "broken", "get", "jobs", "-o", "name"]).await.unwrap();
    assert!(jobs.contains("backup-remedy-"), "{jobs}");
    let storm = cluster
        .kubectl(&[
            "-n",
            "broken",
            "get",
            "pod",
            "storm",
            "--ignore-not-found",
            "-o",
            "jsonpath={.metadata.deletionTimestamp}",
        ])
        .await;
    let storm = storm.unwrap();
    let there =
        cluster.kubectl(&["-n", "broken", "get", "pod", "storm", "--ignore-not-found", "-o", "name"]).await.unwrap();
    assert!(there.is_empty() || !storm.is_empty(), "the pod is to be made again");
}
