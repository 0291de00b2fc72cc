//! An API server that misbehaves, on one cluster, behind a proxy: each fault is survived and seen, no end of a workflow is
//! missed, no run is doubled or lost, and what comes afterwards is no storm.

use std::time::{Duration, Instant};

use active_monitor_core::manifest::SLOT_LABEL;
use active_monitor_tests::api_proxy::{ApiProxy, Fault};
use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, created_workflows, made_workflows, outage, patient, waiting_check};

/// Checks that run once an hour: what the agent asks for their sake is too much.
const IDLE: usize = 40;
pub(super) const BUSY: [&str; 2] = ["busy-a", "busy-b"];
/// What the agent watches for the checks' sake.
pub(super) const WATCHED: [&str; 2] = ["healthchecks", "workflows"];

/// The promise: once the API server answers again, checks run on within this time.
const RESUMED: Duration = Duration::from_secs(10);

/// Times that the agent is killed; `ACTIVE_MONITOR_KILLS` (`make soak` gives 1000).
fn kills() -> u64 {
    std::env::var("ACTIVE_MONITOR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// A cluster with an agent behind a proxy.
pub(super) struct World {
    testbed: Testbed,
    pub(super) proxy: ApiProxy,
    pub(super) agent: Agent,
    began: Instant,
}

impl World {
    async fn start(test: &str) -> Option<World> {
        World::start_by(test, &[]).await
    }

    /// The agent is started by this program; see [`Agent::spawn_by`].
    pub(super) async fn start_by(test: &str, launcher: &[String]) -> Option<World> {
        let testbed = Testbed::start_or_skip(test, Options::default()).await.expect("testbed")?;
        let cluster = &testbed.clusters[0];
        Agent::install(cluster, Crd::Ours).await.expect("install");
        let proxy = ApiProxy::start(cluster).await.expect("proxy");
        let kubeconfig =
            cluster.service_account_kubeconfig("active-monitor", "active-monitor-agent").await.expect("account");
        let text = std::fs::read_to_string(&kubeconfig).expect("kubeconfig");
        let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        config["clusters"][0]["cluster"] = serde_json::json!({"server": proxy.url});
        let through = cluster.dir.join("through-proxy.kubeconfig");
        std::fs::write(&through, config.to_string()).expect("kubeconfig");
        let agent = Agent::spawn_by(launcher, cluster.run(), &cluster.dir, &through, "faults", None, &[]);
        let agent = agent.expect("agent");
        Some(World { testbed, proxy, agent, began: Instant::now() })
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.testbed.clusters[0]
    }

    /// Applies the busy checks.
    pub(super) async fn keep_busy(&self) {
        for name in BUSY {
            self.cluster().apply_yaml(&patient(waiting_check(name, "repeatAfterSec: 2"))).await.expect("busy check");
        }
    }

    async fn status(&self, check: &str) -> anyhow::Result<serde_json::Value> {
        Ok(self.cluster().health_check("health", check).await?["status"].take())
    }

    pub(super) async fn counted(&self, check: &str) -> anyhow::Result<u64> {
        let status = self.status(check).await?;
        Ok(status["successCount"].as_u64().unwrap_or(0) + status["failedCount"].as_u64().unwrap_or(0))
    }

    /// Waits until both busy checks have run once more.
    pub(super) async fn goes_on(&self, after: &str) {
        let runs = BUSY.map(|name| async move {
            let before = self.counted(name).await?;
            let more = || async { Ok((self.counted(name).await? > before).then_some(())) };
            wait::until(&format!("{name} runs after {after}"), PATIENCE, more).await
        });
        let done = futures::future::try_join_all(runs).await;
        done.unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.process.log_tail()));
        println!("{} ms: over {after}", self.began.elapsed().as_millis());
    }

    /// Waits until both busy checks have begun a run since that time, when the API server was back; no later than is
    /// promised.
    /// Waits until the agent's metrics say so of the API server.
    async fn until_available(&self, is: bool) {
        let line = format!("activemonitor_agent_api_available {}", u8::from(is));
        wait::until(&line, PATIENCE, || async { Ok(self.metrics().await.contains(&line).then_some(())) })
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    async fn resumes(&self, since: Timestamp, after: &str) {
        for name in BUSY {
            let prefix = format!("health/{name}-");
            let begun = || async {
                let created = created_workflows(self.cluster());
                Ok(created.into_iter().find(|made| made.at >= since && made.workflow.starts_with(&prefix)))
            };
            let begun = wait::until(&format!("{name} begins after {after}"), PATIENCE, begun).await;
            let begun = begun.unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.process.log_tail()));
            let took = begun.at.duration_since(since).unsigned_abs();
            println!("{name}: begun {} ms after the end of {after}", took.as_millis());
            assert!(took <= RESUMED, "{name}: {took:?} after {after}\n{}", self.agent.process.log_tail());
        }
    }

    pub(super) async fn metrics(&self) -> String {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("client");
        let answer = client.get(&self.agent.metrics_url).send().await.expect("metrics");
        answer.text().await.expect("text")
    }

    /// How often watches of this resource had to begin anew for this reason, as the agent counts.
    pub(super) async fn restarts(&self, resource: &str, reason: &str) -> u64 {
        let series = format!(r#"activemonitor_agent_watch_restarts_total{{reason="{reason}",resource="{resource}"}} "#);
        let metrics = self.metrics().await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series}: {metrics}"))
    }

    /// For as long as `time`, requests meet this fault; gives how many there were.
    async fn suffers(&self, fault: Fault, time: Duration) -> u64 {
        let before = self.proxy.requests();
        self.proxy.set(fault);
        tokio::time::sleep(time).await;
        self.proxy.requests() - before
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_misbehaves_costs_no_run_and_gets_no_storm() {
    let name = "an_api_server_that_misbehaves_costs_no_run_and_gets_no_storm";
    let Some(world) = World::start(name).await else { return };
    let cluster = world.cluster();
    let idle: Vec<String> = (0..IDLE).map(|i| waiting_check(&format!("idle-{i}"), "repeatAfterSec: 86400")).collect();
    cluster.apply_yaml(&idle.join("---\n")).await.expect("idle checks");
    world.keep_busy().await;
    wait::until("first runs", PATIENCE, || async {
        let created = created_workflows(cluster);
        Ok((created.iter().filter(|c| c.workflow.starts_with("health/idle-")).count() == IDLE).then_some(()))
    })
    .await
    .expect("first runs");
    world.goes_on("the start").await;

    watches_break(&world).await;
    lags_behind(&world).await;
    too_many_requests(&world).await;
    wrong_answers(&world).await;
    killed_after_a_write(&world).await;
    stopped_for_a_while(&world).await;
    users_write_too(&world).await;
    restarted(&world).await;
    all_is_counted(&world).await;
}

async fn watches_break(world: &World) {
    for (fault, time, reason) in [
        (Fault::CutWatches(Duration::from_millis(1500)), Duration::from_secs(5), "cut"),
        (Fault::Gone, Duration::from_secs(3), "expired"),
    ] {
        let mut before = Vec::new();
        for resource in WATCHED {
            before.push(world.restarts(resource, reason).await);
        }
        world.suffers(fault, time).await;
        for (resource, before) in WATCHED.iter().zip(before) {
            let counted = || async { Ok((world.restarts(resource, reason).await > before).then_some(())) };
            wait::until(&format!("{resource} {reason}: more than {before}"), PATIENCE, counted).await.expect("counted");
        }
        if fault == Fault::Gone {
            world.proxy.set(Fault::None);
        }
        world.goes_on(&format!("watches that are {reason}")).await;
    }
}

/// Lists are of some runs ago, to an agent that goes on and to one that starts anew.
async fn lags_behind(world: &World) {
    world.proxy.set(Fault::KeepLists);
    wait::until("lists that are kept", PATIENCE, || async {
        let kept = world.proxy.kept_lists();
        let has = |resource: &str| kept.iter().any(|path| path.ends_with(resource));
        Ok((has("/healthchecks") && has("/workflows")).then_some(()))
    })
    .await
    .expect("lists");
    world.goes_on("lists that are kept").await;
    for (kind, anew) in [("goes on", false), ("starts anew", true)] {
        let before = world.proxy.old_lists();
        if anew {
            world.agent.process.stop();
        }
        world.proxy.set(Fault::OldLists);
        world.agent.process.start().expect("agent");
        wait::until("lists of earlier", PATIENCE, || async {
            // Of the HealthChecks and of the workflows.
            Ok((world.proxy.old_lists() >= before + 2).then_some(()))
        })
        .await
        .expect("lists");
        world.goes_on(&format!("lists of earlier, to an agent that {kind}")).await;
    }
    world.proxy.set(Fault::None);
}

async fn too_many_requests(world: &World) {
    world.suffers(Fault::Answer(429, Some(4)), Duration::from_millis(2500)).await;
    // Whatever was under way has come back by now: the rest of the pause is silent.
    let during = world.suffers(Fault::Answer(429, Some(4)), Duration::from_millis(1000)).await;
    assert!(during <= 2, "{during} requests in a pause that the API server asked for");
    let metrics = world.metrics().await;
    assert!(metrics.contains(r#"code="429""#) && metrics.contains("activemonitor_agent_api_available 0"), "{metrics}");
    world.proxy.set(Fault::None);
    world.goes_on("429").await;
    assert!(world.metrics().await.contains("activemonitor_agent_api_available 1"));
}

async fn wrong_answers(world: &World) {
    for fault in [Fault::Answer(500, None), Fault::Answer(503, None), Fault::Hang] {
        let time = outage().max(Duration::from_secs(4));
        let requests = world.suffers(fault, time).await;
        assert!(requests <= 20 * time.as_secs(), "{requests} requests to an API server with {fault:?}");
        world.until_available(false).await;
        world.proxy.set(Fault::None);
        // What hangs is given up after ten seconds first.
        if fault != Fault::Hang {
            world.resumes(Timestamp::now(), &format!("{fault:?}")).await;
        }
        world.goes_on(&format!("{fault:?}")).await;
        world.until_available(true).await;
    }
}

async fn killed_after_a_write(world: &World) {
    for n in 1..=kills() {
        let pid = world.agent.process.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("agent");
        world.proxy.at_write(1 + n % 5, move || {
            let _gone_already = kill_process(pid, Signal::KILL);
        });
        wait::until("killed agent", PATIENCE, || async {
            Ok((world.proxy.hook_is_done() && world.agent.process.pid().is_none()).then_some(()))
        })
        .await
        .expect("killed");
        world.agent.process.start().expect("agent again");
    }
    world.goes_on("being killed").await;
    let idle = created_workflows(world.cluster()).iter().filter(|c| c.workflow.starts_with("health/idle-")).count();
    assert_eq!(idle, IDLE, "a restart starts nothing that is not due");
}

/// The agent stands still for a while, as in a machine that is suspended: of the slots that it missed one is made up for.
async fn stopped_for_a_while(world: &World) {
    let label = |at: Timestamp| at.strftime("%Y%m%dT%H%M%SZ").to_string();
    world.agent.process.signal(Signal::STOP).expect("stop");
    let stopped = label(Timestamp::now() + Duration::from_secs(1));
    tokio::time::sleep(outage().clamp(Duration::from_secs(7), Duration::from_secs(60))).await;
    let goes_on = label(Timestamp::now());
    world.agent.process.signal(Signal::CONT).expect("continue");
    world.goes_on("standing still").await;
    let workflows = world.cluster().workflows("health").await.expect("workflows");
    for name in BUSY {
        let of_check = workflows.iter().filter(|workflow| {
            workflow["metadata"]["annotations"]["activemonitor.keikoproj.io/check"] == format!("health/{name}")
        });
        let slots = of_check.filter_map(|made| made["metadata"]["labels"][SLOT_LABEL].as_str());
        let missed: Vec<_> = slots.filter(|slot| *slot > stopped.as_str() && *slot < goes_on.as_str()).collect();
        assert!(missed.len() <= 1, "{name}: {missed:?} were missed between {stopped} and {goes_on}");
    }
}

async fn users_write_too(world: &World) {
    for i in 0..10 {
        let note = format!("example.com/note-{i}=mine");
        let annotate = ["annotate", "hc", BUSY[0], "-n", "health", &note];
        // Each is a new generation.
        let edit = format!(r#"{{"spec": {{"description": "edit {i}"}}}}"#);
        let edit = ["patch", "hc", BUSY[1], "-n", "health", "--type=merge", "-p", &edit];
        let (annotated, edited) = tokio::join!(world.cluster().kubectl(&annotate), world.cluster().kubectl(&edit));
        annotated.and(edited).expect("both are users' to write");
    }
    world.goes_on("users' writes").await;
    let text = world.cluster().kubectl(&["get", "hc", BUSY[0], "-n", "health", "-o", "yaml"]).await.expect("check");
    assert_eq!(text.matches(": mine").count(), 10, "nobody's writes are lost: {text}");
    let edited = world.cluster().health_check("health", BUSY[1]).await.expect("check");
    assert_eq!(edited["spec"]["description"], "edit 9", "a user's spec is the user's");
}

/// The API server is gone for a while; when it is back, the agent's requests are few.
async fn restarted(world: &World) {
    let cluster = world.cluster();
    // Argo can lose a result that it could not store; that is not what this is about.
    cluster.stop_argo();
    cluster.stop_apiserver();
    tokio::time::sleep(outage()).await;
    cluster.start_apiserver().await.expect("API server");
    let back = Timestamp::now();
    cluster.start_argo().await.expect("Argo");
    let began = Instant::now();
    world.resumes(Timestamp::now(), "the API server's restart").await;
    world.goes_on("the API server's restart").await;
    // Two busy checks make two writes a run, each two seconds; the rest is for the idle ones.
    let seconds = began.elapsed().as_secs().max(1);
    let events = cluster.audit().expect("audit");
    let agents = events.iter().filter(|e| e.user.username.ends_with(":active-monitor-agent"));
    let requests = agents.filter(|e| e.request_received_timestamp >= back).count() as u64;
    println!("{requests} requests in {seconds} s after the API server's restart");
    assert!(requests <= 20 * seconds, "{requests} requests in {seconds} s");
}

/// Every run that was created is in the counters, none of them failed, and no slot was created twice.
pub(super) async fn all_is_counted(world: &World) {
    let cluster = world.cluster();
    for name in BUSY {
        let pause = r#"{"spec": {"repeatAfterSec": 0}}"#;
        cluster.kubectl(&["patch", "hc", name, "-n", "health", "--type=merge", "-p", pause]).await.expect("pause");
    }
    for name in BUSY {
        let counted = wait::until(&format!("{name} is counted"), PATIENCE, || async {
            let made = made_workflows(cluster, name).len() as u64;
            let (status, counted) = (world.status(name).await?, world.counted(name).await?);
            anyhow::ensure!(counted == made, "{counted} runs counted, {made} made: {status}");
            Ok((status["status"] == "Stopped").then_some(status))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", world.agent.process.log_tail()));
        assert_eq!(counted["failedCount"].as_u64().unwrap_or(0), 0, "{counted}");
    }
    let mut all: Vec<String> = created_workflows(cluster).into_iter().map(|created| created.workflow).collect();
    let runs = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), runs, "no slot was created twice");
    println!("{runs} runs, each counted once");
}
