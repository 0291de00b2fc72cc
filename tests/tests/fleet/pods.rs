//! What the charts give the pods of what is around them: the way out of a network policy, and the login to the registry.

use std::sync::Arc;

use active_monitor_tests::charts::{Chart, Helm};
use active_monitor_tests::run_dir::RunDir;
use serde_json::{Value, json};

use super::install::programs_or_skip;

/// What a hub dials stands in many settings: with any of them its policy lets it out, and without it does not.
#[tokio::test]
async fn a_hubs_network_policy_lets_it_out_to_whom_it_dials() {
    let Some(programs) = programs_or_skip("a_hubs_network_policy_lets_it_out_to_whom_it_dials").await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let dials = [
        "config.oidc-issuer=https://id.example.com",
        "config.routes-file=/etc/routes.yaml",
        "config.remote-write-url=https://store.example.com/write",
        "config.store=postgres://hub@db/hub",
        "alerts.secret=routes",
        "store.urlSecret=hub-store",
        "sidecars[0].name=git-sync",
    ];
    for (values, way_out) in
        dials.map(|values| (values, json!([{}]))).into_iter().chain([("leaseSeconds=15", Value::Null)])
    {
        let policy = network_policy(&helm, Chart::Hub, values).await;
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["egress"], way_out, "{values}");
    }
}

/// DNS, HTTPS, the API server's ports and the two of the hub, and nothing else.
#[tokio::test]
async fn an_agents_network_policy_lets_it_out_to_its_api_server_and_its_hub() {
    let name = "an_agents_network_policy_lets_it_out_to_its_api_server_and_its_hub";
    let Some(programs) = programs_or_skip(name).await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    let alone = [("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 6443)];
    let joined = [&alone[..], &[("TCP", 7443), ("TCP", 7444)]].concat();
    let hub = "hub.address=hub.example.com:7443,hub.enrolmentAddress=hub.example.com:7444";
    for (values, ports) in [("replicas=1", &alone[..]), (hub, &joined)] {
        let policy = network_policy(&helm, Chart::Agent, values).await;
        let ports: Vec<Value> =
            ports.iter().map(|(protocol, port)| json!({"port": port, "protocol": protocol})).collect();
        assert_eq!(policy["egress"], json!([{ "ports": ports }]), "{values}");
    }
}

async fn network_policy(helm: &Helm<'_>, chart: Chart, values: &str) -> Value {
    let only = ["--set", "networkPolicy.enabled=true", "--set", values, "--show-only=templates/networkpolicy.yaml"];
    let text = helm.template(chart, &only).await.unwrap_or_else(|error| panic!("{values}: {error:#}"));
    serde_saphyr::from_str::<Value>(&text).expect("a policy")["spec"].take()
}

/// Without it, no pod comes up from a registry that asks who one is.
#[tokio::test]
async fn a_login_to_the_registry_is_in_both_pods() {
    let Some(programs) = programs_or_skip("a_login_to_the_registry_is_in_both_pods").await else { return };
    let run = Arc::new(RunDir::create().expect("a run folder"));
    let helm = Helm::new(&programs, &run);
    for chart in Chart::ALL {
        let args = ["--set", "pullSecrets[0].name=my-login", "--show-only=templates/workload.yaml"];
        let text = helm.template(chart, &args).await.expect("the chart");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        let set = objects.iter().find(|object| object["kind"] == "StatefulSet").expect("the pod");
        assert_eq!(set["spec"]["template"]["spec"]["imagePullSecrets"], json!([{"name": "my-login"}]), "{chart:?}");
    }
}
