//! From the token to a cluster that can run a check, on a real API server with the real Argo: a person approves the agent's
//! key, the agent connects, and the cluster tests itself; what is in the way is said.

use std::time::Duration;

use active_monitor_core::self_test::{NAME_PREFIX, SelfTestOutcome};
use active_monitor_core::view::{AuditView, ClusterStatus, ClusterView, List};
use active_monitor_tests::cluster::INSTANCE_ID;
use active_monitor_tests::fleet::binary;
use active_monitor_tests::tunnel::TunnelProxy;
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Testbed, wait};

use super::PATIENCE;
use super::argo::configure;

/// The self-test's own limit, and what the machine may take around it.
const TEST_LIMIT: Duration = Duration::from_secs(60 + 60);

/// The longest that an agent that waits for approval leaves between two questions, which `cluster approve` says.
const ASKS_AGAIN: Duration = Duration::from_secs(60);

struct World<'a> {
    hub: Hub,
    cluster: &'a Cluster,
}

impl World<'_> {
    async fn view(&self) -> anyhow::Result<ClusterView> {
        self.hub.get("/api/v1/clusters/east").await
    }

    /// Waits for a self-test with this outcome; gives its message.
    async fn tested(&self, outcome: SelfTestOutcome) -> String {
        let tested = wait::until(outcome.as_str(), TEST_LIMIT, || async {
            Ok(self.view().await?.self_test.filter(|last| last.outcome == outcome))
        });
        tested.await.expect("a self-test").message
    }

    /// Runs the command line as a person would; gives its exit code and what it says.
    async fn fleetcheck(&self, args: &[&str]) -> (i32, String) {
        let mut command = tokio::process::Command::new(binary("fleetcheck").expect("fleetcheck"));
        let command = command.args(args).env("FLEETCHECK_HUB", &self.hub.url);
        let output = command.env("FLEETCHECK_TOKEN", &self.hub.token).output().await.expect("fleetcheck");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    /// Self-tests whose workflows the API server has ever taken.
    fn made(&self) -> usize {
        let events = self.cluster.audit().expect("audit log");
        let made = events.iter().filter(|event| event.is("create", "workflows") && event.code() == Some(201));
        made.filter(|event| event.object_ref.as_ref().is_some_and(|object| object.name.starts_with(NAME_PREFIX)))
            .count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_waits_for_a_person_and_ends_with_a_self_test_that_says_what_the_cluster_can_do() {
    let name = "an_enrolment_waits_for_a_person_and_ends_with_a_self_test_that_says_what_the_cluster_can_do";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let dir = cluster.dir.join("approving");
    let hub = Hub::start_with(cluster.run(), &dir, &["--require-approval"]).await.expect("hub");
    let token = hub.add_cluster("east", &[]).await.expect("token");
    let world = World { hub, cluster };

    let agent = Agent::start(cluster, "east", Some(&token)).await.expect("agent");
    a_person_approves_its_key(&world, &agent).await;
    let message = world.tested(SelfTestOutcome::Succeeded).await;
    assert!(message.contains("health/active-monitor-self-test-") && message.contains("no pod"), "{message}");
    let (code, said) = world.fleetcheck(&["cluster", "add", "-f", &clusters_file(&dir), "--wait=60"]).await;
    assert!(code == 0 && said.contains("cluster east: enrolled, and its self-test passed"), "{code}: {said}");

    // The agent that only observes makes nothing, and says so; what it was before the restart is shown no more.
    configure(cluster, "somebody-elses").await;
    cluster.stop_argo();
    cluster.start_argo().await.expect("another Argo");
    let (code, said) = world.fleetcheck(&["cluster", "test", "east"]).await;
    assert!(code == 1 && said.contains("self-test timed out: no Argo controller took up"), "{code}: {said}");
    // While a session is cut the message is of that.
    let message = wait::until("a message", PATIENCE, || async {
        let view = world.view().await?;
        Ok((view.status == ClusterStatus::Connected).then_some(view.message))
    });
    let message = message.await.expect("a connected cluster");
    assert!(message.contains("its self-test failed: no Argo controller"), "{message}");
    let (_, listed) = world.fleetcheck(&["cluster", "list"]).await;
    assert!(listed.contains("timed out") && listed.contains("fleetcheck cluster test east"), "{listed}");
    drop(agent);
    let made = world.made();
    let observer = Agent::start_with(cluster, "east", Some(&token), &["--mode=observe"]).await.expect("observer");
    let message = world.tested(SelfTestOutcome::NotRun).await;
    assert!(message.contains("only observes"), "{message}");
    assert_eq!(world.made(), made, "it creates nothing");
    drop(observer);

    // Argo is as it should be: the next session tests by itself.
    configure(cluster, INSTANCE_ID).await;
    cluster.stop_argo();
    cluster.start_argo().await.expect("Argo");
    let agent = Agent::start(cluster, "east", Some(&token)).await.expect("agent");
    world.tested(SelfTestOutcome::Succeeded).await;
    // One, unless its session was cut before the hub had heard of its end.
    let sessions = sessions(&agent).await;
    assert!((1..=sessions).contains(&(world.made() - made)), "{} made in {sessions} sessions", world.made() - made);
    nothing_is_left(&world).await;
    all_of_it_is_in_the_audit_log(&world).await;
    assert!(agent.process.pid().is_some(), "{}", agent.process.log_tail());
}

/// Until then the agent has no certificate, its checks may run, and it says which key waits.
async fn a_person_approves_its_key(world: &World<'_>, agent: &Agent) {
    let waits = wait::until("an agent that waits", PATIENCE, || async { Ok(world.view().await?.pending_enrolment) });
    let key = waits.await.expect("an agent that waits").key_fingerprint;
    let ready = wait::until("word of it", PATIENCE, || async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let answer = client.get(&agent.ready_url).send().await?.text().await?;
        Ok((answer.starts_with("ready") && answer.contains("waiting for approval")).then_some(answer))
    });
    assert!(ready.await.expect("readiness").contains(&key), "the same key");
    agent.process.until_logged(&key, 0, PATIENCE).await.expect("the key in the agent's log");
    assert!(!agent.state_dir.join("identity/identity.json").exists(), "no certificate before");
    let (_, listed) = world.fleetcheck(&["cluster", "list"]).await;
    assert!(listed.contains(&key) && listed.contains("fleetcheck cluster approve east"), "{listed}");
    let other = "0".repeat(64);
    let (code, said) = world.fleetcheck(&["cluster", "approve", "east", "--key", &other]).await;
    assert!(code == 2 && said.contains(&key), "{code}: {said}");
    let (code, said) = world.fleetcheck(&["cluster", "approve", "east"]).await;
    assert!(code == 0 && said.contains("is approved"), "{code}: {said}");
    // It asks again within a minute, the longer it has waited the later.
    let connected = || async { Ok((world.view().await?.status == ClusterStatus::Connected).then_some(())) };
    agent.process.until("the approved agent's session", ASKS_AGAIN + PATIENCE, connected).await.expect("connected");
}

/// Sessions that this agent has had.
async fn sessions(agent: &Agent) -> usize {
    let text = super::failover::fetch(&agent.metrics_url).await.expect("metrics");
    let of = text.lines().find_map(|line| line.strip_prefix("activemonitor_agent_hub_sessions_total "));
    of.and_then(|count| count.parse().ok()).expect("its sessions")
}

fn clusters_file(dir: &std::path::Path) -> String {
    let file = dir.join("clusters.yaml");
    std::fs::write(&file, "clusters:\n- name: east\n").expect("file");
    file.display().to_string()
}

/// Argo takes away what it has ended, and the agent what nobody took up.
async fn nothing_is_left(world: &World<'_>) {
    wait::until("an end of the workflows", TEST_LIMIT, || async {
        let left = world.cluster.workflows("health").await?;
        anyhow::ensure!(left.is_empty(), "{} are left", left.len());
        Ok(Some(()))
    })
    .await
    .expect("nothing is left");
}

async fn all_of_it_is_in_the_audit_log(world: &World<'_>) {
    let log: List<AuditView> = world.hub.get("/api/v1/audit?action=cluster.&limit=100").await.expect("audit log");
    let (tests, steps): (Vec<_>, Vec<_>) = log.items.iter().rev().partition(|line| line.action == "cluster.self-test");
    let mut steps: Vec<&str> = steps.iter().map(|line| line.action.as_str()).collect();
    // Nor is an enrolment that is asked for again, since its answer was late, another step.
    steps.dedup();
    assert_eq!(steps, ["cluster.add", "cluster.pending", "cluster.approve", "cluster.enrol"]);
    let mut outcomes: Vec<_> = tests.iter().filter_map(|line| line.object.split(": ").nth(1)).collect();
    // A session that a busy machine has cut begins with another self-test.
    outcomes.dedup();
    assert_eq!(outcomes, ["Succeeded", "TimedOut", "NotRun", "Succeeded"]);
}

/// A name that is nobody's (RFC 6761), with the ports that the chart gives: only the proxy knows where it is.
const HIDDEN: [&str; 2] = ["hub.invalid:7443", "hub.invalid:7444"];

/// The variable is for the way to the hub: the API server is asked without the proxy, which would not let it through.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_behind_a_proxy_enrols_and_has_its_session_through_it() {
    let name = "an_agent_behind_a_proxy_enrols_and_has_its_session_through_it";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let [agents, enrolment] = HIDDEN;
    let advertised = ["--agents-advertise", agents, "--enrolment-advertise", enrolment];
    let hub = Hub::start_with(cluster.run(), &cluster.dir, &advertised).await.expect("hub");
    let token = hub.add_cluster("east", &[]).await.expect("token");
    assert_eq!([token.agent_address.as_str(), token.enrolment_address.as_str()], HIDDEN);
    let places = [(agents, hub.agents_address.as_str()), (enrolment, hub.enrolment_address.as_str())];
    let proxy = TunnelProxy::start(&places).await.expect("proxy");
    cluster.apply_yaml(&super::waiting_check("far", "repeatAfterSec: 600")).await.expect("check");

    let kubeconfig = cluster.service_account_kubeconfig("active-monitor", "active-monitor-agent").await.expect("token");
    let environment = ["env".to_owned(), format!("HTTPS_PROXY=http://{}", proxy.address)];
    let agent = Agent::spawn_by(&environment, cluster.run(), &cluster.dir, &kubeconfig, "east", Some(&token), &[]);
    let agent = agent.expect("agent");
    agent.wait_until_connected(&hub).await.expect("connected");
    let arrives = || async { Ok((!hub.history("name=far").await?.is_empty()).then_some(())) };
    agent.process.until("its run at the hub", PATIENCE, arrives).await.expect("the session carries what happens");

    assert_eq!(
        proxy.asked(),
        HIDDEN.map(|hidden| format!("CONNECT {hidden} HTTP/1.1")),
        "nothing else goes through it"
    );
}
