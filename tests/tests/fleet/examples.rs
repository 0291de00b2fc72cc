//! The project's own examples against a real API server, without a node: each is valid, its check and its account are
//! taken under the ceilings, and its workflow is one that Argo begins. What the pods of examples/checks find is the node
//! tier's to show. And `fleetcheck doctor` on a cluster with active-monitor's examples.

use std::path::{Path, PathBuf};

use active_monitor_tests::fleet::{binary, project, upstream};
use active_monitor_tests::tunnel::TunnelProxy;
use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, skip, wait};

use super::PATIENCE;

fn files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(project().join("examples/checks")).expect("examples/checks");
    let mut files: Vec<_> = folder.map(|file| file.expect("file").path()).collect();
    files.sort();
    files
}

async fn fleetcheck(args: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(binary("fleetcheck").expect("fleetcheck"));
    let output = command.args(args).current_dir(project()).output().await.expect("fleetcheck");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ready_check_is_taken_with_its_rights_under_the_ceilings() {
    let name = "every_ready_check_is_taken_with_its_rights_under_the_ceilings";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let table = std::fs::read_to_string(project().join("docs/checks.md")).expect("docs/checks.md");
    let mut names = Vec::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("file");
        let path = file.display().to_string();
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("name").to_owned();
        cluster.apply_yaml(&text).await.unwrap_or_else(|error| panic!("{path}: {error:#}"));
        let (code, said) = fleetcheck(&["lint", &path]).await;
        assert_eq!(code, 0, "{path}: {said}");
        if stem == "rights" {
            continue;
        }
        // Whoever may pull from one registry only gives another image, and no more.
        for image in text.lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
            assert_eq!(image, "\"{{workflow.parameters.image}}\"", "{path}");
        }
        assert!(text.contains("- {name: image, value: "), "{path}");
        let (code, rendered) = fleetcheck(&["render", &path]).await;
        assert_eq!(code, 0, "{path}: {rendered}");
        let row = table.lines().find(|line| line.starts_with(&format!("| [{stem}](")));
        let row = row.unwrap_or_else(|| panic!("docs/checks.md has no row for {stem}"));
        let period = text.lines().find_map(|line| line.strip_prefix("  repeatAfterSec: ")).expect("period");
        assert!(row.contains(&format!("| {period} s |")), "{row}");
        assert_eq!(row.ends_with("| none |"), !text.contains("  remedyworkflow:"), "{row}");
        names.push(stem);
    }
    assert!(names.len() >= 12, "{names:?}");
    let agent = Agent::start(cluster, "examples", None).await.expect("agent");
    // Its account exists and may do what it asks; Argo takes the workflow and waits for a node for its pod.
    for name in &names {
        until_begun(cluster, name).await;
    }
    let refused =
        ["get", "events.events.k8s.io", "-A", "-o", "jsonpath={range .items[*]}{.reason} {.note}{'\\n'}{end}"];
    let refused = cluster.kubectl(&refused).await.expect("events");
    assert!(!refused.contains("Invalid") && !refused.contains("cannot give"), "{refused}");
    drop(agent);
}

async fn until_begun(cluster: &Cluster, check: &str) {
    wait::until(&format!("begin of {check}"), PATIENCE, || async {
        let all = cluster.workflows("health").await?;
        let of_check = format!("health/{check}");
        let found = all.iter().find(|workflow| {
            workflow["metadata"]["annotations"]["activemonitor.keikoproj.io/check"] == of_check.as_str()
        });
        let Some(found) = found else { return Ok(None) };
        let phase = found["status"]["phase"].as_str().unwrap_or_default();
        anyhow::ensure!(phase != "Error" && phase != "Failed", "{check}: {}", found["status"]);
        Ok((phase == "Running").then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_beforehand_what_a_switch_sets_loose() {
    let name = "doctor_says_beforehand_what_a_switch_sets_loose";
    let Some(folder) = upstream() else {
        skip::report(name, "../shared/upstream is not there");
        return;
    };
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    // Under a name of his own in the audit log.
    let kubeconfig = cluster.user_kubeconfig("doctor", "doctor", "system:masters").expect("kubeconfig");
    let kubeconfig = kubeconfig.display().to_string();
    let doctor = ["doctor", "--kubeconfig", kubeconfig.as_str()];
    let (code, said) = fleetcheck(&doctor).await;
    assert!(code == 0 && said.contains("not installed"), "an empty cluster is ready for an install: {said}");

    Agent::install(cluster, Crd::Upstream).await.expect("install");
    cluster.kubectl(&["create", "namespace", "test"]).await.expect("namespace");
    for file in std::fs::read_dir(folder.join("examples")).expect("examples") {
        let file = file.expect("file").path().display().to_string();
        cluster.kubectl(&["create", "-f", &file]).await.expect("create");
    }
    let old = "apiVersion: apps/v1
kind: Deployment
metadata: {name: activemonitor-controller, namespace: health}
spec:
  selector: {matchLabels: {name: activemonitor-controller}}
  template:
    metadata: {labels: {name: activemonitor-controller}}
    spec: {containers: [{name: active-monitor, image: 'keikoproj/active-monitor:latest'}]}
";
    cluster.apply_yaml(old).await.expect("old controller");
    let greedy = "  workflow:\n    rbacRules:\n    - {apiGroups: [''], resources: [secrets], verbs: [get]}\n";
    let mut greedy = super::waiting_check("greedy", "repeatAfterSec: 30").replace("  workflow:\n", greedy);
    greedy.push_str("  level: galaxy\n");
    // Their CRD lets any level pass.
    cluster.apply_yaml(&greedy.replace("greedy", "odd")).await.expect("odd check");
    cluster.apply_yaml(&greedy.replace("galaxy", "namespace")).await.expect("greedy check");
    failed_with_a_remedy(cluster).await;

    let (code, said) = fleetcheck(&doctor).await;
    assert_eq!(code, 1, "{said}");
    for text in [
        "kubectl -n health scale deployment activemonitor-controller --replicas=0",
        "status.conditions",
        "instance id activemonitor-workflows is served",
        "13 in all, 1 of them without a schedule, 1 that cannot be run",
        "check health/odd",
        "spec.level",
        "rights health/greedy",
        "get secrets",
        "1 checks have one",
        "1 of them at once",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let (code, said) = fleetcheck(&[&doctor[..], &["-o", "json"]].concat()).await;
    let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((code, &report["numbers"]["checks"]), (1, &serde_json::json!(13)));
    // Nine examples each minute, with a template of a container each; the two others make no pods.
    assert_eq!(report["numbers"]["runsPerMinute"], 11.25, "{report:#}");
    assert_eq!(report["numbers"]["podsPerMinute"], 9.0, "{report:#}");
    it_only_read(cluster);
    of_another_context(&kubeconfig).await;

    let (code, said) = fleetcheck(&["doctor", "--kubeconfig", &kubeconfig, "--context", "nowhere"]).await;
    assert!(code == 2 && said.starts_with("error: cannot use the kubeconfig"), "{said}");
    cluster.stop_apiserver();
    let (code, said) = fleetcheck(&doctor).await;
    assert!(code == 2 && said.starts_with("error: cannot read the version"), "{said}");
}

/// A check whose last run failed a moment ago, and whose remedy has not answered.
async fn failed_with_a_remedy(cluster: &Cluster) {
    let remedy = super::waiting_check("x", "");
    let (_, remedy) = remedy.split_once("  workflow:").expect("a workflow");
    let check = format!("{}  remedyworkflow:{remedy}", super::waiting_check("remedied", "repeatAfterSec: 240"));
    cluster.apply_yaml(&check).await.expect("check with a remedy");
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = serde_json::json!({"status": {"status": "Failed", "failedCount": 1, "totalHealthCheckRuns": 1,
        "startedAt": now, "finishedAt": now, "lastFailedWorkflow": "remedied-x"}});
    let (resource, patch) = (["patch", "hc", "remedied", "-n", "health", "--subresource=status"], status.to_string());
    cluster.kubectl(&[&resource[..], &["--type=merge", "-p", &patch]].concat()).await.expect("status");
}

fn it_only_read(cluster: &Cluster) {
    let events = cluster.audit().expect("audit");
    let verbs: Vec<&str> =
        events.iter().filter(|event| event.user.username == "doctor").map(|event| event.verb.as_str()).collect();
    assert!(verbs.len() > 10, "the audit log has what it asked for: {verbs:?}");
    assert!(verbs.iter().all(|verb| ["get", "list"].contains(verb)), "it only reads: {verbs:?}");
}

/// The kubeconfig's own context is of a cluster that is not there.
async fn of_another_context(kubeconfig: &str) {
    let text = std::fs::read_to_string(kubeconfig).expect("kubeconfig");
    let mut config: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let there = config["current-context"].take().as_str().expect("a context").to_owned();
    config["current-context"] = "away".into();
    let user = &config["contexts"][0]["context"]["user"];
    let context = serde_json::json!({"name": "away", "context": {"cluster": "away", "user": user}});
    config["contexts"].as_array_mut().expect("contexts").push(context);
    let away = serde_json::json!({"name": "away", "cluster": {"server": "https://127.0.0.1:1"}});
    config["clusters"].as_array_mut().expect("clusters").push(away);
    let file = format!("{kubeconfig}.two");
    std::fs::write(&file, config.to_string()).expect("file");

    let (code, said) = fleetcheck(&["doctor", "--kubeconfig", &file]).await;
    assert!(code == 2 && said.starts_with("error: cannot read the version"), "{code}: {said}");
    let (code, said) = fleetcheck(&["doctor", "--kubeconfig", &file, "--context", &there, "-o", "json"]).await;
    let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((code, &report["context"], &report["numbers"]["checks"]), (1, &there.into(), &13.into()));
}

/// The name of an API server, one that its certificate has, which only the proxy can reach.
const HIDDEN: &str = "kubernetes.default.svc:443";

/// As kubectl goes: the kubeconfig's proxy, else the environment's unless `NO_PROXY` has the API server.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_asks_a_cluster_through_the_proxy_that_is_named_for_it_and_says_which_it_cannot_use() {
    let name = "doctor_asks_a_cluster_through_the_proxy_that_is_named_for_it_and_says_which_it_cannot_use";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let place = cluster.server.strip_prefix("https://").expect("https");
    let proxy = TunnelProxy::start(&[(HIDDEN, place)]).await.expect("proxy");
    let url = format!("http://{}", proxy.address);
    let refusing = TunnelProxy::start(&[]).await.expect("proxy");
    let refusing_url = format!("http://someone:secret@{}", refusing.address);
    let socks = "socks5://someone:secret@proxy.invalid:1080";
    let near = cluster.user_kubeconfig("doctor", "doctor", "system:masters").expect("kubeconfig");

    let (code, said) = doctor_of(&near, &[("HTTPS_PROXY", "http://proxy.invalid:3128")]).await;
    assert!(code == 0 && said.contains("not installed"), "what is on this machine needs no proxy: {said}");
    let far = moved(&near, "far", None);
    let (code, said) = doctor_of(&far, &[("HTTPS_PROXY", &url)]).await;
    assert!(code == 0 && said.contains("not installed"), "{said}");
    assert_eq!(proxy.asked(), [format!("CONNECT {HIDDEN} HTTP/1.1")]);
    let named = moved(&near, "named", Some(&url));
    let (code, said) = doctor_of(&named, &[("HTTPS_PROXY", &refusing_url), ("NO_PROXY", "*")]).await;
    assert!(code == 0 && said.contains("not installed"), "the kubeconfig's own goes before the environment: {said}");
    assert_eq!(refusing.asked(), [""; 0]);

    let (code, said) = doctor_of(&far, &[("HTTPS_PROXY", &refusing_url), ("NO_PROXY", ".svc")]).await;
    assert!(code == 2 && said.starts_with("error: cannot read the version"), "dialled itself: {said}");
    let (code, said) = doctor_of(&far, &[("ALL_PROXY", socks)]).await;
    assert!(code == 2 && said.starts_with("error: cannot read the version"), "kubectl knows no ALL_PROXY: {said}");
    let (code, said) = doctor_of(&far, &[("HTTPS_PROXY", &refusing_url)]).await;
    assert!(code == 2 && said.contains(&format!("through the proxy http://{}", refusing.address)), "{said}");
    assert!(!said.contains("secret"), "{said}");
    for (file, variables) in [(far, &[("HTTPS_PROXY", socks)][..]), (moved(&near, "socks", Some(socks)), &[])] {
        let (code, said) = doctor_of(&file, variables).await;
        assert!(code == 2 && said.contains("cannot ask the proxy socks5://proxy.invalid:1080"), "{said}");
        assert!(said.contains("NO_PROXY") && !said.contains("secret") && !said.contains("feature"), "{said}");
    }
}

/// The same kubeconfig for the hidden API server, and with this proxy.
fn moved(kubeconfig: &Path, name: &str, proxy: Option<&str>) -> PathBuf {
    let text = std::fs::read_to_string(kubeconfig).expect("kubeconfig");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let cluster = &mut config["clusters"][0]["cluster"];
    cluster["server"] = format!("https://{HIDDEN}").into();
    if let Some(proxy) = proxy {
        cluster["proxy-url"] = proxy.into();
    }
    let file = kubeconfig.with_extension(name);
    std::fs::write(&file, config.to_string()).expect("kubeconfig");
    file
}

/// `fleetcheck doctor` of a kubeconfig's cluster, with these variables and none of this machine's.
async fn doctor_of(kubeconfig: &Path, variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = tokio::process::Command::new(binary("fleetcheck").expect("fleetcheck"));
    let command = command.env_clear().envs(variables.iter().copied()).args(["doctor", "--kubeconfig"]).arg(kubeconfig);
    let output = command.output().await.expect("fleetcheck");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}
