//! The charts and the manifests that are rendered from them, installed on a real API server as a user would.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use active_monitor_tests::{
    Agent, Cluster, Options, Program, Programs, Testbed,
    charts::{Chart, Helm},
    fleet::{project, upstream},
    programs::ProgramsError,
    run_dir::RunDir,
    skip, wait,
};
use serde_json::Value;

use super::PATIENCE;

const CRD: &str = "crd/healthchecks.activemonitor.keikoproj.io";

/// What a cluster's admin prepares.
pub(super) const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: active-monitor, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Namespace
metadata: {name: health}
";

/// As much of the Prometheus operator as a ServiceMonitor needs to be stored.
const SERVICE_MONITORS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: ServiceMonitor, plural: servicemonitors}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [endpoints, selector]
            properties:
              jobLabel: {type: string}
              endpoints:
                type: array
                items:
                  type: object
                  required: [port]
                  properties: {port: {type: string}}
                  x-kubernetes-preserve-unknown-fields: true
              selector:
                type: object
                properties: {matchLabels: {type: object, additionalProperties: {type: string}}}
";

/// `helm`; without Go, and without it in the cache, the test is reported as skipped and gets `None`.
pub(super) async fn programs_or_skip(test: &str) -> Option<Programs> {
    match Programs::ensure(Program::CHARTS).await {
        Ok(programs) => Some(programs),
        Err(error @ ProgramsError::NoGo { .. }) => {
            skip::report(test, &error.to_string());
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

/// Rights and CRD come from two hands, in any order.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_before_its_crd_says_so_and_runs_once_it_is_there() {
    let name = "an_agent_that_comes_before_its_crd_says_so_and_runs_once_it_is_there";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let deploy = |folder: &str| project().join("deploy").join(folder).display().to_string();
    cluster.kubectl(&["apply", "-f", &deploy("agent")]).await.expect("rights");
    let agent = Agent::start(cluster, "early", None).await.expect("agent");
    let ready = || async {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let answer = client.get(&agent.ready_url).send().await?;
        anyhow::Ok((answer.status().as_u16(), answer.text().await?))
    };
    let waits = || async { Ok(Some(ready().await?).filter(|(_, said)| said.contains("CRD is not installed"))) };
    let (code, said) = agent.process.until("word of it", PATIENCE, waits).await.expect("word of it");
    assert_eq!(code, 503, "{said}");

    cluster.kubectl(&["apply", "-f", &deploy("crds")]).await.expect("CRD");
    super::takes_creates(cluster).await;
    cluster.apply_yaml(&super::waiting_check("stays", "repeatAfterSec: 600")).await.expect("check");
    let runs = || async { Ok((status(cluster).await? == "Succeeded").then_some(())) };
    agent.process.until("first run", PATIENCE, runs).await.expect("a run, without a restart");
    let (code, said) = ready().await.expect("readiness");
    assert!(code == 200 && said.starts_with("ready"), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_chart_comes_is_upgraded_and_goes_and_leaves_what_is_not_its_own() {
    let name = "the_agents_chart_comes_is_upgraded_and_goes_and_leaves_what_is_not_its_own";
    let Some(programs) = programs_or_skip(name).await else { return };
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let helm = Helm::new(&programs, testbed.run());
    cluster.apply_yaml(&format!("{NAMESPACES}---{SERVICE_MONITORS}")).await.expect("namespaces");

    installed_then_upgraded(cluster, &helm, testbed.run()).await;
    the_agent_works_with_these_rights(cluster).await;
    the_hub_keeps_its_token(cluster, &helm).await;
    uninstalled(cluster, &helm).await;
    a_team_has_one_of_its_own(cluster, &helm).await;
    a_crd_of_others_is_left_alone(cluster, &helm).await;
    cluster
        .kubectl(&["delete", "namespace", "active-monitor", "health", "shop", "--timeout=60s"])
        .await
        .expect("an end");
}

/// First as an older release with an older CRD, then as this one, with every option.
async fn installed_then_upgraded(cluster: &Cluster, helm: &Helm<'_>, run: &RunDir) {
    let older = older_chart(run.path());
    let observing =
        ["install", "agent", older.to_str().expect("UTF-8"), "--set", "mode=observe,remedies.namespaces={health}"];
    helm.on(cluster, &observing).await.expect("installed");
    cluster.kubectl(&["wait", "--for=condition=Established", CRD, "--timeout=60s"]).await.expect("established");
    assert!(columns(cluster).await.contains("OLD CNT"));

    an_observer_only_reads(cluster).await;

    let ceiling = ["get", "clusterrole", "active-monitor-ceiling-reading", "-o", "jsonpath={.rules}"];
    wait::until("aggregated rules", PATIENCE, || async {
        Ok(cluster.kubectl(&ceiling).await?.contains("pods").then_some(()))
    })
    .await
    .expect("rules");
    let chart = Chart::Agent.folder();
    let options = "remedies.namespaces={health},networkPolicy.enabled=true,serviceMonitor.enabled=true,\
        hub.address=hub.example.com:7443,hub.enrolmentAddress=hub.example.com:7444,hub.token=once,replicas=2,\
        remedies.mode=off,runsInFlight.cluster=0,runsInFlight.perNamespace=20,\
        sources.verifyAlways=true,sources.caConfigMap=our-authorities";
    let upgrade = ["upgrade", "agent", chart.to_str().expect("UTF-8"), "--set", options];
    helm.on(cluster, &upgrade).await.expect("upgraded");
    let columns = columns(cluster).await;
    assert!(columns.contains("FAIL CNT") && !columns.contains("OLD CNT"), "{columns}");
    assert!(cluster.kubectl(&ceiling).await.expect("ceiling").contains("pods"), "the upgrade emptied the ceiling");
    admitted(cluster, "agent", "active-monitor-agent").await;
    let made = [
        "networkpolicy/active-monitor-agent",
        "servicemonitor/active-monitor-agent",
        "secret/active-monitor-agent-token",
        "secret/active-monitor-agent-identity",
        "validatingadmissionpolicybinding/active-monitor-authors",
    ];
    let made = [&["get", "-n", "active-monitor"], &made[..]].concat();
    cluster.kubectl(&made).await.expect("every option");
}

/// The rights of `mode=observe`, as docs/migrating.md has them.
async fn an_observer_only_reads(cluster: &Cluster) {
    let may = "--as=system:serviceaccount:active-monitor:active-monitor-agent";
    let lists = ["auth", "can-i", "list", "healthchecks", "-n", "health", may];
    wait::until("rights to read", PATIENCE, || async { Ok(cluster.kubectl(&lists).await.is_ok().then_some(())) })
        .await
        .expect("rights");
    for (verb, kind) in [
        ("patch", "healthchecks/status"),
        ("create", "healthchecks"),
        ("create", "workflows"),
        ("create", "roles"),
        ("list", "pods"),
    ] {
        let ask = ["auth", "can-i", verb, kind, "-n", "health", may];
        assert!(cluster.kubectl(&ask).await.is_err(), "{verb} {kind}");
    }
    let policy = ["get", "validatingadmissionpolicies", "-o", "name"];
    assert_eq!(cluster.kubectl(&policy).await.expect("policies"), "", "nobody is refused what he could do before");
}

/// The chart as it might have been before, with a column of another name in its CRD.
fn older_chart(dir: &Path) -> PathBuf {
    let to = dir.join("older");
    let copied = std::process::Command::new("cp").args(["-rL"]).arg(Chart::Agent.folder()).arg(&to).status();
    assert!(copied.expect("cp").success());
    let crd = to.join("files/healthchecks.yaml");
    let text = fs::read_to_string(&crd).expect("CRD");
    assert!(text.contains("name: FAIL CNT"));
    fs::write(&crd, text.replace("name: FAIL CNT", "name: OLD CNT")).expect("older CRD");
    to
}

async fn columns(cluster: &Cluster) -> String {
    let columns = "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}";
    cluster.kubectl(&["get", CRD, "-o", columns]).await.expect("CRD")
}

/// The pod of a StatefulSet is taken where the PodSecurity level is restricted; a plain one is not.
async fn admitted(cluster: &Cluster, container: &str, set: &str) {
    let text = cluster.kubectl(&["get", "statefulset", set, "-n", "active-monitor", "-o", "json"]).await.expect("set");
    let set: Value = serde_json::from_str(&text).expect("JSON");
    let mut pod = set["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "as-the-set-makes-it".into();
    let claims = set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
    let claims = claims.map(|claim| serde_json::json!({"name": claim["metadata"]["name"], "emptyDir": {}}));
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    pod["spec"]["volumes"] = volumes.into_iter().chain(claims).collect();
    assert_eq!(pod["spec"]["containers"][0]["name"], container);
    let create = ["create", "--dry-run=server", "-n", "active-monitor", "-f", "-"];
    cluster.kubectl_as(&cluster.kubeconfig, &create, &pod.to_string()).await.expect("a restricted pod");

    pod["spec"]["securityContext"].take();
    let refused = cluster.kubectl_as(&cluster.kubeconfig, &create, &pod.to_string()).await.expect_err("PodSecurity");
    assert!(refused.to_string().contains("violates PodSecurity"), "{refused:#}");
}

/// Outside of the cluster, since no node runs its pod here, with the token of the chart's account.
async fn the_agent_works_with_these_rights(cluster: &Cluster) {
    let agent = Agent::start(cluster, "installed", None).await.expect("agent");
    cluster.apply_yaml(&super::waiting_check("stays", "repeatAfterSec: 600")).await.expect("check");
    let run = agent
        .process
        .until("first run", PATIENCE, || async { Ok((status(cluster).await? == "Succeeded").then_some(())) });
    run.await.expect("a run");
}

async fn status(cluster: &Cluster) -> anyhow::Result<String> {
    let check = cluster.health_check("health", "stays").await?;
    Ok(check["status"]["status"].as_str().unwrap_or_default().to_owned())
}

/// The admin's token is made once; every option is taken.
async fn the_hub_keeps_its_token(cluster: &Cluster, helm: &Helm<'_>) {
    let chart = Chart::Hub.folder();
    let chart = chart.to_str().expect("UTF-8");
    helm.on(cluster, &["install", "hub", chart]).await.expect("installed");
    let read = ["get", "secret", "active-monitor-hub-admin", "-n", "active-monitor", "-o", "jsonpath={.data.token}"];
    let token = cluster.kubectl(&read).await.expect("token");
    assert_eq!(token.len(), 68_usize.div_ceil(3) * 4, "base64 of amf_ and 64 digits: {token}");
    let options = "networkPolicy.enabled=true,serviceMonitor.enabled=true,serviceMonitor.secret=prometheus,\
        agents.address=hub.example.com:7443,enrolment.address=hub.example.com:7444,people.names={hub.example.com},\
        people.service.type=LoadBalancer,people.tlsSecret=hub-people,store.urlSecret=hub-store";
    helm.on(cluster, &["upgrade", "hub", chart, "--set", options]).await.expect("upgraded");
    assert_eq!(cluster.kubectl(&read).await.expect("token"), token);
    admitted(cluster, "hub", "active-monitor-hub").await;
    let made = ["get", "networkpolicy/active-monitor-hub", "servicemonitor/active-monitor-hub", "-n", "active-monitor"];
    cluster.kubectl(&made).await.expect("every option");
    helm.on(cluster, &["uninstall", "hub"]).await.expect("uninstalled");
}

/// The CRD, the HealthChecks and two roles that nobody has stay, nothing else of the release does; what the agent made
/// goes by its label.
async fn uninstalled(cluster: &Cluster, helm: &Helm<'_>) {
    helm.on(cluster, &["uninstall", "agent"]).await.expect("uninstalled");
    assert_eq!(status(cluster).await.expect("the check"), "Succeeded");
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list,delete", "-o", "name"]).await.expect("kinds");
    let kinds = kinds.lines().collect::<Vec<_>>().join(",");
    let labelled = |label: &'static str| {
        let kinds = &kinds;
        async move { cluster.kubectl(&["get", kinds, "-A", "-o", "name", "-l", label]).await.expect("objects") }
    };
    // Not helm's own waiting, which may miss the end of an object that is gone at once.
    wait::until("end of the release", PATIENCE, || async {
        let left = labelled("app.kubernetes.io/managed-by=Helm").await;
        let kept = [
            "clusterrole.rbac.authorization.k8s.io/active-monitor-default-reading",
            "clusterrole.rbac.authorization.k8s.io/active-monitor-default-remedying",
            "customresourcedefinition.apiextensions.k8s.io/healthchecks.activemonitor.keikoproj.io",
        ];
        let left: BTreeSet<&str> = left.split_whitespace().collect();
        anyhow::ensure!(left == BTreeSet::from(kept), "{left:?}");
        Ok(Some(()))
    })
    .await
    .expect("what the chart says it keeps, alone");

    let own = "activemonitor.keikoproj.io/owner=active-monitor-agent";
    assert!(labelled(own).await.contains("serviceaccount/probe"), "the account of the check");
    let made = "serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings";
    cluster.kubectl(&["delete", made, "-A", "-l", own]).await.expect("deleted");
    assert_eq!(labelled(own).await, "");
}

/// In two namespaces, without a right beyond them; the CRD is there, which is the cluster's admin's.
async fn a_team_has_one_of_its_own(cluster: &Cluster, helm: &Helm<'_>) {
    let chart = Chart::Agent.folder();
    let options = "watchNamespaces={health,shop},remedies.namespaces={shop},logTails.namespaces={health,shop},\
        replicas=2,hub.address=hub.example.com:7443,hub.enrolmentAddress=hub.example.com:7444";
    cluster.kubectl(&["create", "namespace", "shop"]).await.expect("namespace");
    let installed = helm.on(cluster, &["install", "agent", chart.to_str().expect("UTF-8"), "--set", options]).await;
    installed.expect("installed without the cluster's objects");
    let bound = ["get", "clusterrolebindings", "-o", "jsonpath={.items[*].subjects[*].name}"];
    assert!(
        !cluster.kubectl(&bound).await.expect("bindings").contains("active-monitor-agent"),
        "no cluster-wide right"
    );

    let may = "--as=system:serviceaccount:active-monitor:active-monitor-agent";
    for (verb, kind, namespace) in
        [("list", "workflows", "health"), ("get", "pods/log", "shop"), ("create", "leases", "active-monitor")]
    {
        let ask = ["auth", "can-i", verb, kind, "-n", namespace, may];
        wait::until(kind, PATIENCE, || async { Ok(cluster.kubectl(&ask).await.is_ok().then_some(())) })
            .await
            .expect("the API server knows the rights by and by");
    }
    let before = cluster.audit().expect("audit").len();
    let args = ["--watch-namespaces=health,shop", "--leader-elect", "--identity-secret=active-monitor-agent-identity"];
    let agent = Agent::start_with(cluster, "team", None, &args).await.expect("agent");
    let mut fails = super::failing_check("fails", "repeatAfterSec: 600");
    let remedy =
        super::waiting_check("x", "").split_once("  workflow:").map(|(_, text)| text.replace("probe", "fixer"));
    fails.push_str(&format!("  remedyworkflow:{}", remedy.expect("workflow")));
    let fails = fails.replace("namespace: health", "namespace: shop");
    let wide = super::waiting_check("wide", "repeatAfterSec: 600\n  level: cluster");
    let strays = super::waiting_check("strays", "repeatAfterSec: 600")
        .replace("      namespace: health", "      namespace: default");
    let outside =
        super::waiting_check("outside", "repeatAfterSec: 600").replace("namespace: health", "namespace: default");
    cluster.apply_yaml(&[fails, wide, strays, outside].join("---\n")).await.expect("checks");

    let read = |namespace: &'static str, name: &'static str| async move {
        let text = cluster.kubectl(&["get", "healthcheck", name, "-n", namespace, "-o", "json"]).await?;
        anyhow::Ok(serde_json::from_str::<Value>(&text)?["status"].clone())
    };
    let remedied = || async { Ok((read("shop", "fails").await?["remedySuccessCount"] == 1).then_some(())) };
    agent.process.until("remedy", PATIENCE, remedied).await.expect("a check and its remedy in the second namespace");
    for (name, says) in [
        ("wide", "spec.level: cluster takes an agent of the whole cluster; this one has rights only in health, shop"),
        ("strays", "spec.workflow.resource.namespace: this agent has no rights in default, only in health, shop"),
    ] {
        let judged = || async { Ok(Some(read("health", name).await?).filter(|status| status["status"] == "Invalid")) };
        let status = agent.process.until(name, PATIENCE, judged).await.expect("a verdict");
        assert!(status["errorMessage"].as_str().unwrap_or_default().contains(says), "{status}");
        // The schema is read where everybody may: the fields that are only ours are written.
        assert_eq!(status["conditions"][0]["reason"], "Invalid", "{status}");
    }
    assert_eq!(read("default", "outside").await.expect("check"), Value::Null, "nobody looks there");
    let patch = ["patch", "role", "probe-ns-role", "-n", "shop", "--type=merge", "-p", r#"{"rules": []}"#];
    cluster.kubectl(&patch).await.expect("patch");
    let rules = ["get", "role", "probe-ns-role", "-n", "shop", "-o", "jsonpath={.rules}"];
    let back = || async { Ok(cluster.kubectl(&rules).await?.contains("pods").then_some(())) };
    agent.process.until("rules put right", PATIENCE, back).await.expect("drift is seen with these rights");

    let own = ["health", "shop", "active-monitor"];
    let events = cluster.audit().expect("audit").split_off(before);
    let agents = events.iter().filter(|event| event.user.username.ends_with(":active-monitor-agent"));
    let outside = agents.filter(|event| {
        let namespace = event.object_ref.as_ref().map_or("", |object| object.namespace.as_str());
        event.code() == Some(403) || !(own.contains(&namespace) || event.object_ref.is_none())
    });
    let outside: Vec<String> = outside.map(|event| format!("{} {}", event.verb, event.request_uri)).collect();
    assert_eq!(outside, Vec::<String>::new(), "refused, or asked for beyond the namespaces");
    agent.process.stop();
    helm.on(cluster, &["uninstall", "agent"]).await.expect("uninstalled");
    let made = [
        "delete",
        "serviceaccounts,roles,rolebindings",
        "-A",
        "-l",
        "activemonitor.keikoproj.io/owner=active-monitor-agent",
    ];
    cluster.kubectl(&made).await.expect("deleted");
}

/// A CRD that was there before is neither changed, nor taken, nor deleted; the kept one is this release's own again.
async fn a_crd_of_others_is_left_alone(cluster: &Cluster, helm: &Helm<'_>) {
    let chart = Chart::Agent.folder();
    let chart = chart.to_str().expect("UTF-8");
    helm.on(cluster, &["install", "agent", chart]).await.expect("installed again");
    assert_eq!(status(cluster).await.expect("the check"), "Succeeded");
    helm.on(cluster, &["uninstall", "agent"]).await.expect("uninstalled again");

    let Some(theirs) = upstream() else {
        return skip::report("a_crd_of_others_is_left_alone", "../shared/upstream is not there");
    };
    cluster.kubectl(&["delete", CRD, "--timeout=60s"]).await.expect("no CRD");
    let theirs = fs::read_to_string(theirs.join("crd-healthchecks.yaml")).expect("their CRD");
    cluster.apply_yaml(&theirs).await.expect("their CRD");
    let spec_and_marks = ["get", CRD, "-o", "jsonpath={.spec}{.metadata.annotations}{.metadata.labels}{.metadata.uid}"];
    let before = cluster.kubectl(&spec_and_marks).await.expect("their CRD");
    let told = helm.on(cluster, &["install", "agent", chart]).await.expect("installed beside their CRD");
    assert!(told.contains("left as it is"), "{told}");
    helm.on(cluster, &["upgrade", "agent", chart]).await.expect("upgraded beside their CRD");
    assert_eq!(cluster.kubectl(&spec_and_marks).await.expect("their CRD"), before);
    helm.on(cluster, &["uninstall", "agent"]).await.expect("uninstalled");
    assert_eq!(cluster.kubectl(&spec_and_marks).await.expect("their CRD"), before);
    handed_over(cluster, helm, chart).await;
}

/// As docs/install.md says: from then on the CRD is upgraded, and still outlives the release.
async fn handed_over(cluster: &Cluster, helm: &Helm<'_>, chart: &str) {
    helm.on(cluster, &["install", "agent", chart]).await.expect("installed beside their CRD");
    let stored = |name: &str| {
        let check = super::waiting_check(name, "schedule: {cron: nonsense}");
        check.replace("      namespace: health", "      namespace: a/b").replace("      serviceAccount: probe\n", "")
    };
    cluster.apply_yaml(&stored("stored")).await.expect("their CRD has no rules");
    cluster.kubectl(&["label", CRD, "--overwrite", "app.kubernetes.io/managed-by=Helm"]).await.expect("label");
    let release = ["meta.helm.sh/release-name=agent", "meta.helm.sh/release-namespace=active-monitor"];
    cluster.kubectl(&[&["annotate", CRD, "--overwrite"], &release[..]].concat()).await.expect("annotations");
    helm.on(cluster, &["upgrade", "agent", chart, "--force-conflicts"]).await.expect("upgraded");
    let fields = "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.status.properties.conditions.type}";
    assert_eq!(cluster.kubectl(&["get", CRD, "-o", fields]).await.expect("CRD"), "array", "ours has conditions");
    wait::until("rules in force", PATIENCE, || async {
        let new =
            cluster.kubectl_as(&cluster.kubeconfig, &["create", "--dry-run=server", "-f", "-"], &stored("new")).await;
        Ok(new.is_err().then_some(()))
    })
    .await
    .expect("rules");
    what_was_stored_stays_usable(cluster).await;
    helm.on(cluster, &["uninstall", "agent"]).await.expect("uninstalled");
    cluster.kubectl(&["get", CRD]).await.expect("the CRD stays");
}

/// An object that our rules would not let in can be labelled, can be told its status, and can be mended.
async fn what_was_stored_stays_usable(cluster: &Cluster) {
    let patch = ["patch", "healthcheck", "stored", "-n", "health", "--type=merge", "-p"];
    cluster.kubectl(&["label", "healthcheck", "stored", "-n", "health", "team=shop"]).await.expect("a label");
    let status = [&patch[..], &[r#"{"status": {"status": "Invalid"}}"#, "--subresource=status"]].concat();
    cluster.kubectl(&status).await.expect("a status");
    let worse =
        cluster.kubectl(&[&patch[..], &[r#"{"spec": {"schedule": {"cron": "other nonsense"}}}"#]].concat()).await;
    assert!(format!("{:#}", worse.expect_err("a change")).contains("spec.schedule.cron: Invalid value"));
    let mended = r#"{"spec": {"schedule": {"cron": "@hourly"},
        "workflow": {"resource": {"namespace": "health", "serviceAccount": "probe"}}}}"#;
    cluster.kubectl(&[&patch[..], &[mended]].concat()).await.expect("mended");
}
