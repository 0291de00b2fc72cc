//! An agent with too little: 64 file descriptors, a tenth of a processor, less memory than it needs. It is slower or it
//! dies; what it has written stays whole, and no run is doubled or lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, skip, wait};
use tokio::net::TcpStream;

use super::{PATIENCE, created_workflows, patient, waiting_check};

const CHECKS: usize = 30;
const FILES: usize = 64;
/// Of each 100 ms.
const PROCESSOR_MICROSECONDS: u32 = 10_000;
/// It cannot even start with that.
const TOO_LITTLE_MEMORY: usize = 3 * 1024 * 1024;

/// A group of control groups, version 1; it is removed when this is dropped, which needs its processes to have ended.
pub(super) struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _left_over_where_a_process_lives = fs::remove_dir(&self.0);
    }
}

impl Group {
    /// `None` where this machine does not let us.
    pub(super) fn make(controller: &str, limits: &[(&str, String)]) -> Option<Group> {
        let folder = Path::new("/sys/fs/cgroup").join(controller);
        // Of several tests in one process.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let group = Group(folder.join(format!("active-monitor-test-{}-{number}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        limits.iter().all(|(file, value)| group.set(file, value)).then_some(group)
    }

    pub(super) fn set(&self, file: &str, value: &str) -> bool {
        fs::write(self.0.join(file), value).is_ok()
    }

    /// Becomes a program in this group.
    pub(super) fn launcher(&self) -> [String; 4] {
        let script = format!(r#"echo $$ >{}/cgroup.procs && exec "$@""#, self.0.display());
        ["sh".into(), "-c".into(), script, "sh".into()]
    }
}

struct World<'a> {
    cluster: &'a Cluster,
    kubeconfig: PathBuf,
}

impl World<'_> {
    fn start(&self, launcher: &[String]) -> Agent {
        let cluster = self.cluster;
        let name = "limits";
        Agent::spawn_by(launcher, cluster.run(), &cluster.dir, &self.kubeconfig, name, None, &[]).expect("agent")
    }

    fn created(&self) -> usize {
        created_workflows(self.cluster).len()
    }

    /// Waits until about every check has run once more.
    async fn goes_on(&self, agent: &Agent, how: &str) {
        let before = self.created();
        let more = || async { Ok((self.created() >= before + CHECKS).then_some(())) };
        let done = wait::until(&format!("runs {how}"), PATIENCE * 2, more).await;
        done.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
        println!("goes on {how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_files_little_processor_and_little_memory_break_nothing() {
    let name = "few_files_little_processor_and_little_memory_break_nothing";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let kubeconfig = cluster.service_account_kubeconfig("active-monitor", "active-monitor-agent").await;
    let world = World { cluster, kubeconfig: kubeconfig.expect("account") };
    let checks = (0..CHECKS).map(|i| patient(waiting_check(&format!("check-{i}"), "repeatAfterSec: 6")));
    cluster.apply_yaml(&checks.collect::<Vec<_>>().join("---\n")).await.expect("checks");

    few_files(&world).await;
    let groups = [
        Group::make(
            "cpu",
            &[("cpu.cfs_period_us", "100000".to_owned()), ("cpu.cfs_quota_us", PROCESSOR_MICROSECONDS.to_string())],
        ),
        Group::make("memory", &[("memory.limit_in_bytes", TOO_LITTLE_MEMORY.to_string())]),
    ];
    match &groups {
        [Some(processor), Some(memory)] => {
            little_processor(&world, processor).await;
            little_memory(&world, memory).await;
        }
        _ => skip::report(name, "no control groups (version 1) to write: only file descriptors were limited"),
    }
    nothing_is_broken(&world).await;
}

/// Callers hold more connections than the agent has descriptors.
async fn few_files(world: &World<'_>) {
    let agent = world.start(&["prlimit".to_owned(), format!("--nofile={FILES}:{FILES}")]);
    world.goes_on(&agent, "with 64 descriptors").await;
    let address = agent.metrics_url.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    let mut held = Vec::new();
    for _ in 0..2 * FILES {
        held.push(tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(&address)).await);
    }
    let pid = agent.process.pid().expect("it lives");
    wait::until("no descriptor left", PATIENCE, || async {
        let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok((open >= FILES - 1).then_some(()))
    })
    .await
    .expect("descriptors");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(agent.process.pid(), Some(pid), "{}", agent.process.log_tail());
    drop(held);
    world.goes_on(&agent, "after it had no descriptor left").await;
    assert_eq!(agent.process.pid(), Some(pid), "{}", agent.process.log_tail());
    agent.process.stop();
}

async fn little_processor(world: &World<'_>, group: &Group) {
    let launcher = group.launcher();
    let agent = world.start(&launcher);
    world.goes_on(&agent, "with a tenth of a processor").await;
    let stat = fs::read_to_string(group.0.join("cpu.stat")).expect("statistics");
    println!("{}", stat.replace('\n', ", "));
    agent.process.stop();
}

/// The kernel kills it, wherever it is; with enough memory it goes on where it was.
async fn little_memory(world: &World<'_>, group: &Group) {
    let launcher = group.launcher();
    for _ in 0..3 {
        let agent = world.start(&launcher);
        wait::until("the end of an agent without memory", PATIENCE, || async {
            Ok(agent.process.pid().is_none().then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
    }
    // The same group with enough.
    assert!(group.set("memory.limit_in_bytes", &(256 * 1024 * 1024).to_string()), "limit");
    let agent = world.start(&launcher);
    world.goes_on(&agent, "with enough memory").await;
    let resident = fs::read_to_string(group.0.join("memory.usage_in_bytes")).expect("usage");
    println!("{} bytes in use", resident.trim());
    agent.process.stop();
}

async fn nothing_is_broken(world: &World<'_>) {
    let agent = world.start(&[]);
    world.goes_on(&agent, "as before").await;
    let pause = r#"{"spec": {"repeatAfterSec": 0}}"#;
    for i in 0..CHECKS {
        let check = format!("check-{i}");
        let patch = ["patch", "hc", &check, "-n", "health", "--type=merge", "-p", pause];
        world.cluster.kubectl(&patch).await.expect("pause");
    }
    wait::until("each run counted once", PATIENCE, || async {
        let text = world.cluster.kubectl(&["get", "hc", "-n", "health", "-o", "json"]).await?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let checks = list["items"].as_array().cloned().unwrap_or_default();
        let counted =
            checks.iter().map(|check| check["status"]["totalHealthCheckRuns"].as_u64().unwrap_or(0)).sum::<u64>();
        let stopped = checks.iter().all(|check| check["status"]["status"] == "Stopped");
        let created = world.created() as u64;
        anyhow::ensure!(counted <= created, "{counted} runs counted, {created} created");
        Ok((stopped && counted == created).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
    let mut all: Vec<String> = created_workflows(world.cluster).into_iter().map(|made| made.workflow).collect();
    let runs = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), runs, "no slot was created twice");
    let log = fs::read_to_string(agent.process.log()).expect("log");
    assert!(!log.contains("panicked"), "{}", agent.process.log_tail());
    let quarantine = agent.state_dir.join("journal/quarantine");
    assert!(fs::read_dir(quarantine).map_or(true, |mut files| files.next().is_none()), "the journal is whole");
}
