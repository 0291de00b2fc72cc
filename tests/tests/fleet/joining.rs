//! The commands that people copy, from `fleetcheck cluster add` and from docs/install.md, run by a shell on a cluster where
//! nothing is prepared. No node runs the pods: an agent outside of the cluster gets what its pod would get.

use active_monitor_core::view::{ClusterStatus, ClusterView};
use active_monitor_tests::fleet::{binary, project};
use active_monitor_tests::shell::{self, Shell};
use active_monitor_tests::{Agent, Cluster, Hub, Options, Program, Testbed, wait};
use serde_json::Value;

use super::PATIENCE;
use super::install::programs_or_skip;

const REGISTRY: &str = "registry.example.com/";

struct World<'a> {
    cluster: &'a Cluster,
    hub: Hub,
    shell: Shell<'a>,
}

impl World<'_> {
    /// Gives what it prints.
    async fn run(&self, script: &str) -> String {
        self.shell.run(script).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The first commands of a section of docs/install.md.
    async fn run_documented(&self, heading: &str) {
        let blocks = shell::documented(heading, REGISTRY).expect("the section");
        self.run(&blocks[0]).await;
    }

    /// The one line that fleetcheck prints which begins so.
    async fn printed(&self, fleetcheck: &str, begins: &str) -> String {
        let said = self.run(fleetcheck).await;
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with(begins)).collect();
        assert_eq!(lines.len(), 1, "{said}");
        lines[0].to_owned()
    }

    async fn agents_set(&self) -> Value {
        let text = self.run("kubectl -n active-monitor get statefulset active-monitor-agent -o json").await;
        serde_json::from_str(&text).expect("JSON")
    }

    async fn secret(&self, name: &str, key: &str) -> String {
        let template = format!(r#"{{{{index .data "{key}" | base64decode}}}}"#);
        self.run(&format!("kubectl -n active-monitor get secret {name} -o go-template='{template}'")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_are_printed_and_documented_install_an_agent_that_enrols() {
    let name = "the_commands_that_are_printed_and_documented_install_an_agent_that_enrols";
    let Some(helm) = programs_or_skip(name).await else { return };
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let hub = Hub::start(cluster.run(), &cluster.dir).await.expect("hub");
    let kubectl = cluster.programs.path(Program::Kubectl);
    let programs = [kubectl, helm.path(Program::Helm), binary("fleetcheck").expect("fleetcheck")];
    let shell = Shell::new(cluster, project(), &programs).variable("FLEETCHECK_HUB", &hub.url);
    let shell = shell.variable("FLEETCHECK_TOKEN", &hub.token);
    let world = World { cluster, hub, shell };

    by_kubectl(&world).await;
    world.run("kubectl delete --ignore-not-found -f deploy/agent").await;
    world.run_documented("Plain kubectl").await;
    world.run("kubectl -n active-monitor get statefulset active-monitor-agent active-monitor-hub").await;
    world.run("kubectl delete --ignore-not-found -f deploy/hub -f deploy/agent").await;
    by_helm(&world).await;
}

async fn by_kubectl(world: &World<'_>) {
    let line = world.printed("fleetcheck cluster add east", "kubectl apply").await;
    world.run(&line).await;
    let first = world.agents_set().await;
    let mut environment = vec!["env".to_owned()];
    for variable in first["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("name");
        let from = &variable["valueFrom"]["secretKeyRef"];
        if let (Some(secret), Some(key)) = (from["name"].as_str(), from["key"].as_str()) {
            environment.push(format!("{name}={}", world.secret(secret, key).await));
        }
    }
    assert_eq!(environment.len(), 4, "the hub's two addresses and the token: {first}");
    enrols(world, "kubectl", &environment, &[]).await;

    // A pod gets its environment when it starts: another token needs another pod.
    let line = world.printed("fleetcheck cluster token east", "kubectl apply").await;
    world.run(&line).await;
    let second = world.agents_set().await;
    assert_ne!(first["spec"]["template"], second["spec"]["template"], "the pod is replaced");
}

async fn by_helm(world: &World<'_>) {
    world.run_documented("The agent with Helm").await;
    let line = world.printed("fleetcheck cluster token east", "helm upgrade").await;
    world.run(&line).await;
    assert_eq!(world.run("helm list -n active-monitor -q").await, "agent\n", "it is the same release");
    let set = world.agents_set().await;
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let image = container["image"].as_str().expect("image");
    assert!(image.starts_with(&format!("{REGISTRY}active-monitor-agent:")), "the release keeps its values: {image}");

    let args = container["args"].as_array().expect("arguments").iter().filter_map(Value::as_str);
    let hubs = args.filter(|arg| ["--hub-address=", "--enrolment-address="].iter().any(|flag| arg.starts_with(flag)));
    let file = world.cluster.dir.join("token");
    std::fs::write(&file, world.secret("active-monitor-agent-token", "token").await).expect("token");
    let file = format!("--token-file={}", file.display());
    let args: Vec<&str> = hubs.chain([file.as_str()]).collect();
    assert_eq!(args.len(), 3, "{container}");
    enrols(world, "helm", &[], &args).await;

    let line = world.printed("fleetcheck cluster token east", "helm upgrade").await;
    world.run(&line).await;
    assert_ne!(set["spec"]["template"], world.agents_set().await["spec"]["template"], "the pod is replaced");
}

/// Starts the agent, without any state, as its pod would be started; ends it again.
async fn enrols(world: &World<'_>, folder: &str, environment: &[String], args: &[&str]) {
    let cluster = world.cluster;
    wait::until("a cluster without a session", PATIENCE, || async {
        let view: ClusterView = world.hub.get("/api/v1/clusters/east").await?;
        Ok((view.status != ClusterStatus::Connected).then_some(()))
    })
    .await
    .expect("nobody else speaks for it");
    let kubeconfig = cluster.service_account_kubeconfig("active-monitor", "active-monitor-agent").await.expect("token");
    let dir = cluster.dir.join(folder);
    std::fs::create_dir_all(&dir).expect("folder");
    let agent = Agent::spawn_by(environment, cluster.run(), &dir, &kubeconfig, "east", None, args).expect("agent");
    agent.wait_until_connected(&world.hub).await.expect("it enrols and connects");
}
