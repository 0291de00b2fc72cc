//! The charts as they are rendered, and the manifests that come of them: what values do, and which are refused. Needs no
//! cluster.

use std::sync::Arc;
use std::{env, fs};

use active_monitor_tests::{
    charts::{Chart, Helm},
    fleet::binary,
    run_dir::RunDir,
};
use serde_json::Value;

use super::install::programs_or_skip;

#[tokio::test]
async fn the_charts_are_well_formed_and_the_manifests_are_theirs() {
    let Some(programs) = programs_or_skip("the_charts_are_well_formed_and_the_manifests_are_theirs").await else {
        return;
    };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    for chart in Chart::ALL {
        let folder = chart.folder();
        helm.run(&["lint", "--strict", folder.to_str().expect("UTF-8")]).await.expect("a chart without faults");
    }
    for chart in Chart::ALL {
        let text = fs::read_to_string(chart.folder().join("Chart.yaml")).expect("Chart.yaml");
        let version = concat!("appVersion: ", env!("CARGO_PKG_VERSION"), "\n");
        assert!(text.contains(version), "{text} lacks {version}: its image has the version of the workspace");
    }
    for manifest in helm.manifests().await.expect("rendered charts") {
        if env::var_os("UPDATE").is_some() {
            manifest.write().expect("a written manifest");
        }
        let there = fs::read_to_string(&manifest.path).unwrap_or_default();
        assert!(
            there == manifest.text,
            "{} is not what its chart gives: run this with UPDATE=1",
            manifest.path.display()
        );
    }
}

/// The alert that the hub is down asks for a job by name, and a ServiceMonitor names it by a label of the Service.
#[tokio::test]
async fn the_hubs_job_is_the_one_that_its_alert_asks_for() {
    let Some(programs) = programs_or_skip("the_hubs_job_is_the_one_that_its_alert_asks_for").await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let options = "serviceMonitor.enabled=true,serviceMonitor.secret=prometheus,prometheusRule.enabled=true";
    let text = helm.template(Chart::Hub, &["--set", options]).await.expect("the chart");
    assert!(text.contains(r#"absent(up{job="active-monitor-hub"} == 1)"#), "{text}");
    assert!(text.contains("\n  jobLabel: app.kubernetes.io/name\n"), "{text}");
    let labels = "labels: {app.kubernetes.io/name: active-monitor-hub, activemonitor.keikoproj.io/port: people}";
    assert!(text.contains(labels), "{text}");
}

/// What cert-manager keeps in a Secret is people's certificate, and no agent's: those know the hub by its own CA.
#[tokio::test]
async fn a_certificate_of_ones_own_is_mounted_and_named_for_people_alone() {
    let name = "a_certificate_of_ones_own_is_mounted_and_named_for_people_alone";
    let Some(programs) = programs_or_skip(name).await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let args = ["--set", "people.tlsSecret=hub-people", "--show-only", "templates/workload.yaml"];
    let text = helm.template(Chart::Hub, &args).await.expect("the chart");
    let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").expect("its configuration");
    let config = config["data"]["config.yaml"].as_str().expect("a file");
    for line in
        ["tls-cert-file: /etc/active-monitor-people/tls.crt", "tls-key-file: /etc/active-monitor-people/tls.key"]
    {
        assert!(config.contains(line), "{config}");
    }
    let hub = objects.iter().find(|object| object["kind"] == "StatefulSet").expect("the hub");
    let pod = &hub["spec"]["template"]["spec"];
    let has = |list: &serde_json::Value, wanted: serde_json::Value| list.as_array().expect("a list").contains(&wanted);
    let volume = serde_json::json!({"name": "people-tls", "secret": {"secretName": "hub-people"}});
    assert!(has(&pod["volumes"], volume), "{pod}");
    // A whole folder: a file that is mounted by a subPath would never change.
    let mount = serde_json::json!({"name": "people-tls", "mountPath": "/etc/active-monitor-people", "readOnly": true});
    assert!(has(&pod["containers"][0]["volumeMounts"], mount), "{pod}");
    let own = helm.template(Chart::Hub, &["--show-only", "templates/workload.yaml"]).await.expect("the chart");
    assert!(!own.contains("people-tls") && !own.contains("tls-cert-file"), "{own}");
}

/// Rights in the cluster are the hub's only where they are asked for, and then in its own namespace.
#[tokio::test]
async fn custom_resources_are_off_unless_they_are_asked_for_and_bring_only_their_own_rights() {
    let name = "custom_resources_are_off_unless_they_are_asked_for_and_bring_only_their_own_rights";
    let Some(programs) = programs_or_skip(name).await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let objects = async |more: &[&str]| -> Vec<Value> {
        let text = helm.template(Chart::Hub, more).await.expect("the chart");
        serde_saphyr::from_multiple(&text).expect("YAML")
    };
    let of_kind = |objects: &[Value], kind: &str| -> Vec<Value> {
        objects.iter().filter(|object| object["kind"] == kind).cloned().collect()
    };
    let token = |objects: &[Value]| {
        of_kind(objects, "StatefulSet")[0]["spec"]["template"]["spec"]["automountServiceAccountToken"].clone()
    };
    let without = objects(&[]).await;
    assert!(of_kind(&without, "Role").is_empty() && of_kind(&without, "CustomResourceDefinition").is_empty());
    assert_eq!(token(&without), false);
    let with = objects(&["--set", "customResources.enabled=true,networkPolicy.enabled=true"]).await;
    let rules = serde_json::json!([
        {"apiGroups": ["fleet.activemonitor.keikoproj.io"], "resources": ["fleethealthchecks"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["fleet.activemonitor.keikoproj.io"], "resources": ["fleethealthchecks/status"], "verbs": ["patch"]},
    ]);
    assert_eq!(of_kind(&with, "Role")[0]["rules"], rules);
    assert!(of_kind(&with, "ClusterRole").is_empty());
    assert_eq!(token(&with), true);
    let crd = &of_kind(&with, "CustomResourceDefinition")[0];
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let config = of_kind(&with, "ConfigMap")[0]["data"]["config.yaml"].as_str().expect("a file").to_owned();
    assert!(config.contains("resources-namespace: active-monitor"), "{config}");
    assert!(!of_kind(&with, "NetworkPolicy")[0]["spec"]["egress"].is_null(), "it reaches its API server");
    let own = objects(&["--set", "customResources.enabled=true,customResources.installCrd=false"]).await;
    assert!(of_kind(&own, "CustomResourceDefinition").is_empty() && !of_kind(&own, "Role").is_empty());
}

/// One clear error for each value that makes no sense.
#[tokio::test]
async fn values_that_make_no_sense_are_refused() {
    let Some(programs) = programs_or_skip("values_that_make_no_sense_are_refused").await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let refused = [
        (Chart::Agent, "hubb.address=h:1", "hubb"),
        (Chart::Agent, "hub.address=h:7443", "enrolmentAddress"),
        (Chart::Agent, "hub.address=h,hub.enrolmentAddress=h:1", "/hub/address"),
        (Chart::Agent, "hub.token=x", "/hub/token"),
        (Chart::Agent, "remedies.namespaces={Health}", "/remedies/namespaces/0"),
        (Chart::Agent, "remedies.mode=maybe", "/remedies/mode"),
        (Chart::Agent, "mode=look", "/mode"),
        (Chart::Agent, "runsInFlight.cluster=-1", "/runsInFlight/cluster"),
        (Chart::Agent, "sources.caConfigMap=Ours", "/sources/caConfigMap"),
        (Chart::Agent, "watchNamespaces={a_b}", "/watchNamespaces/0"),
        (Chart::Agent, "watchNamespaces={shop},logTails.namespaces={health}", "health is not among watchNamespaces"),
        (Chart::Agent, "watchNamespaces={shop},definitions.namespaces={health}", "health is not among watchNamespaces"),
        (Chart::Agent, "definitions.levels={node}", "/definitions/levels/0"),
        (Chart::Agent, "definitions.maxCheck=3", "maxCheck"),
        (Chart::Agent, "workflows.allow={root}", "/workflows/allow/0"),
        (Chart::Agent, "sources.denyCidrs={10.0.0.1}", "/sources/denyCidrs/0"),
        (Chart::Agent, "state.size=much", "/state/size"),
        (Chart::Agent, "log.level=loud", "/log/level"),
        (Chart::Agent, "metrics.certSecret=Ours", "/metrics/certSecret"),
        (Chart::Agent, "tracing.endpoint=collector:4317", "/tracing/endpoint"),
        (Chart::Agent, "tracing.attributes=eu", "/tracing/attributes"),
        (Chart::Agent, "replicas=0", "/replicas"),
        (Chart::Agent, "admission=maybe", "/admission"),
        (Chart::Agent, "crds.install=maybe", "/crds/install"),
        (Chart::Hub, "replicas=2", "replicas"),
        (Chart::Hub, "agents.address=hub.example.com", "/agents/address"),
        (Chart::Hub, "people.service.type=ExternalName", "/people/service/type"),
        (Chart::Hub, "people.tlsSecret=Ours", "/people/tlsSecret"),
        (Chart::Hub, "leaseSeconds=0", "/leaseSeconds"),
        (Chart::Hub, "customResources.enabled=maybe", "/customResources/enabled"),
        (Chart::Hub, "store.urlSecret=postgres://db", "/store/urlSecret"),
        (Chart::Hub, "serviceMonitor.enabled=true", "/serviceMonitor/secret"),
        (Chart::Hub, "tracing.endpoint=https://collector", "/tracing/endpoint"),
        (Chart::Hub, "tracing.caConfigMap=Ours", "/tracing/caConfigMap"),
        (Chart::Hub, "prometheusRule.enabled=maybe", "/prometheusRule/enabled"),
    ];
    for (chart, values, field) in refused {
        let said = helm.template(chart, &["--set", values]).await.expect_err(values);
        assert!(format!("{said:#}").contains(field), "{values}: {said:#}");
    }
}

/// A collector is named by the variables that both binaries read, and can be reached.
#[tokio::test]
async fn a_collector_in_the_values_is_one_for_hub_and_agent() {
    let Some(programs) = programs_or_skip("a_collector_in_the_values_is_one_for_hub_and_agent").await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let collector = "tracing.endpoint=https://collector:4317,tracing.caConfigMap=ours,networkPolicy.enabled=true";
    for chart in Chart::ALL {
        let args = ["--set", collector, "--set-string", "tracing.attributes=k8s.cluster.name=eu-1"];
        let text = helm.template(chart, &args).await.expect("the chart");
        for line in [
            r#"- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: "https://collector:4317"}"#,
            "- {name: OTEL_EXPORTER_OTLP_CERTIFICATE, value: /etc/active-monitor-tracing/ca.crt}",
            r#"- {name: OTEL_RESOURCE_ATTRIBUTES, value: "k8s.cluster.name=eu-1"}"#,
            "- {name: tracing-ca, mountPath: /etc/active-monitor-tracing, readOnly: true}",
            "- {name: tracing-ca, configMap: {name: ours, items: [{key: ca.crt, path: ca.crt}]}}",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let way_out = match chart {
            Chart::Agent => "- {port: 4317, protocol: TCP}",
            Chart::Hub => "egress: [{}]",
        };
        assert!(text.contains(way_out), "{text}");
    }
}

/// What the chart makes of its values is what the agent takes: it is asked for its flags, and ends at the kubeconfig.
#[tokio::test]
async fn values_become_flags_that_the_agent_knows() {
    let Some(programs) = programs_or_skip("values_become_flags_that_the_agent_knows").await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let options = "mode=observe,remedies.mode=off,runsInFlight.cluster=0,sources.verifyAlways=true,\
        sources.caConfigMap=ours,sources.denyCidrs={10.0.0.0/8},watchNamespaces={health,shop},replicas=2,\
        definitions.namespaces={health},workflows.allow={host},logTails.enabled=false,metrics.secure=true";
    let args = ["--set", options, "--show-only", "templates/workload.yaml"];
    let text = helm.template(Chart::Agent, &args).await.expect("workload");
    let args = ["--set", options, "--show-only", "templates/policy.yaml"];
    let policy = helm.template(Chart::Agent, &args).await.expect("policy");
    let policy: Value = serde_saphyr::from_str(&policy).expect("a ConfigMap");
    let policy_file = run.path().join("policy.yaml");
    fs::write(&policy_file, policy["data"]["policy.yaml"].as_str().expect("a policy")).expect("its file");
    let mounted = "policy-file=/etc/active-monitor-policy/policy.yaml";
    let flags: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("        - --")).collect();
    assert!(flags.contains(&mounted) && text.contains("mountPath: /etc/active-monitor-policy"), "{text}");
    for flag in
        ["mode=observe", "remedies=off", "max-runs-in-flight=0", "watch-namespaces=health,shop", "metrics-secure"]
    {
        assert!(flags.contains(&flag), "{flag}: {flags:?}");
    }
    assert!(
        text.contains("configMap: {name: ours") && text.contains("mountPath: /etc/active-monitor-sources"),
        "{text}"
    );
    let mut agent = tokio::process::Command::new(binary("active-monitor-agent").expect("agent"));
    let there = format!("policy-file={}", policy_file.display());
    let flags = flags.iter().map(|flag| if *flag == mounted { there.as_str() } else { flag });
    agent.args(flags.map(|flag| format!("--{flag}"))).args(["--kubeconfig", "/nowhere", "--state-dir"]);
    agent
        .arg(run.path().join("state"))
        .args(["--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0"]);
    let said = agent.output().await.expect("the agent's end");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    // The file of authorities is in the pod alone.
    assert!(said.contains("/etc/active-monitor-sources/ca.crt") && !said.contains("Usage"), "{said}");
}

/// The policy keeps checks off the namespace that the release is in, wherever that is.
#[tokio::test]
async fn the_admission_policy_closes_the_agents_own_namespace() {
    let Some(programs) = programs_or_skip("the_admission_policy_closes_the_agents_own_namespace").await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let only = ["--show-only", "templates/admission-policy.yaml", "--namespace", "monitoring"];
    let text = helm.template(Chart::Agent, &only).await.expect("policy");
    assert!(text.contains("['kube-system', 'monitoring']"), "{text}");
    assert!(text.contains("'system:serviceaccount:monitoring:active-monitor-agent'"), "{text}");
}
