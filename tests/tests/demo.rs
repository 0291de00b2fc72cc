//! The demo as a reader runs it: it shows a fleet, and leaves nothing behind, neither on the machine nor in the
//! reader's own clusters.

// Helpers of a test fail it too; clippy takes only the test functions themselves for tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use active_monitor_tests::demo::undo::CRD;
use active_monitor_tests::fleet::project;
use active_monitor_tests::{
    Cluster, Options, Program, Programs, Testbed, programs::ProgramsError, run_dir, skip, wait,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const START_LIMIT: Duration = Duration::from_secs(180);
/// The example fails in odd minutes: within two of them there is a failure, and the remedy that follows it.
const REMEDY_LIMIT: Duration = Duration::from_secs(150);
const STOP_LIMIT: Duration = Duration::from_secs(120);
const LAST_LINE_OF_SUMMARY: &str = "Ctrl-C stops everything and leaves nothing behind.";

/// A demo in a temporary folder of its own.
struct Demo {
    tmp: TempDir,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
}

impl Demo {
    fn start(args: &[&str], env: &[(&str, String)]) -> Demo {
        let tmp = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(args).envs(env.iter().map(|(key, value)| (key, value))).env("TMPDIR", tmp.path());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Demo { tmp, child, lines, said: Vec::new() }
    }

    /// Reads on until a line that has all the words.
    async fn until_said(&mut self, words: &[&str], limit: Duration) -> String {
        let find = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                println!("| {line}");
                self.said.push(line.clone());
                if words.iter().all(|word| line.contains(word)) {
                    return line;
                }
            }
            panic!("the demo has ended without saying {words:?}")
        };
        tokio::time::timeout(limit, find).await.unwrap_or_else(|_| panic!("{words:?} is not said within {limit:?}"))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    fn run_dirs(&self) -> Vec<PathBuf> {
        let roots = fs::read_dir(self.tmp.path()).unwrap().map(|entry| entry.unwrap().path().join("runs"));
        roots.flat_map(|runs| fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().path())).collect()
    }

    /// Ends it as Ctrl-C does.
    async fn stop(mut self) {
        let runs = self.run_dirs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        self.signal(Signal::INT);
        self.until_said(&["stopped, nothing left"], STOP_LIMIT).await;
        let status = tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
        assert!(self.run_dirs().is_empty());
        assert!(run_dir::marked(&runs[0]).is_empty());
    }

    /// Runs a printed command as the reader does: in a shell, after the printed `export` line.
    async fn printed(&self, command: &str) -> String {
        let export = self.said.iter().find(|line| line.trim().starts_with("export FLEETCHECK_HUB=")).unwrap();
        let output = Command::new("sh").args(["-c", &format!("{export}\n{command}")]).output().await.unwrap();
        assert!(output.status.code().is_some_and(|code| code < 2), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_remedied_before_the_reader_s_eyes() {
    if let Err(error @ ProgramsError::NoGo { .. }) = Programs::ensure(Program::CONTROL_PLANE).await {
        skip::report("a_failure_is_remedied_before_the_reader_s_eyes", &error.to_string());
        return;
    }
    let mut demo = Demo::start(&[], &[]);
    demo.until_said(&[LAST_LINE_OF_SUMMARY], START_LIMIT).await;
    let status = demo.said.iter().find(|line| line.ends_with("fleetcheck status")).cloned().unwrap();
    println!("{}", demo.printed(&status).await);
    let checks = demo.said.iter().find(|line| line.ends_with("fleetcheck checks")).cloned().unwrap();
    let checks = format!("{checks} -o json");
    wait::until("pushed checks of eu-1 and eu-2, alone", START_LIMIT, || async {
        let found: Value = serde_json::from_str(&demo.printed(&checks).await)?;
        let pushed = found["items"].as_array().unwrap().iter().filter(|check| check["name"] == "eu-hello");
        let clusters: Vec<&str> = pushed.map(|check| check["cluster"].as_str().unwrap()).collect();
        assert!(!clusters.contains(&"us-1"), "{found:#}");
        Ok((clusters.len() == 2).then_some(()))
    })
    .await
    .unwrap();
    let failed = demo.until_said(&["/health/remedy ", "-> Failed"], REMEDY_LIMIT).await;
    let cluster = failed.split_whitespace().nth(1).unwrap().to_owned();
    demo.until_said(&[&cluster, "remedy succeeded"], REMEDY_LIMIT).await;
    demo.until_said(&[&cluster, "Failed -> Succeeded"], REMEDY_LIMIT).await;
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_s_own_clusters_are_left_as_they_were() {
    let options = Options { clusters: 2, node: false };
    let test = "the_reader_s_own_clusters_are_left_as_they_were";
    let Some(testbed) = Testbed::start_or_skip(test, options).await.unwrap() else { return };
    let [with_checks, bare] = testbed.clusters.as_slice() else { panic!("two clusters were asked for") };
    let mine = fs::read_to_string(project().join("examples/hello.yaml")).unwrap();
    let mine = mine.replace("repeatAfterSec: 30", "repeatAfterSec: 10");
    let crd = fs::read_to_string(project().join("deploy/crds/healthchecks.yaml")).unwrap();
    with_checks.apply_yaml(&crd).await.unwrap();
    with_checks.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).await.unwrap();
    with_checks.kubectl(&["create", "namespace", "health"]).await.unwrap();
    with_checks.apply_yaml(&mine).await.unwrap();
    let before = [objects(with_checks).await, objects(bare).await];

    let mut demo = Demo::start(&["--contexts", "cluster-1,cluster-2"], &as_reader(&testbed));
    demo.until_said(&[LAST_LINE_OF_SUMMARY], START_LIMIT).await;
    // Mine is not overwritten, and runs too.
    demo.until_said(&["cluster-1/health/hello", "Succeeded"], START_LIMIT).await;
    let repeat = ["get", "hc", "hello", "-n", "health", "-o", "jsonpath={.spec.repeatAfterSec}"];
    assert_eq!(with_checks.kubectl(&repeat).await.unwrap(), "10");
    let pushed = ["get", "hc", "eu-hello", "-n", "health", "--ignore-not-found", "-o", "name"];
    assert!(!with_checks.kubectl(&pushed).await.unwrap().is_empty(), "cluster-1 is region=eu");
    assert!(bare.kubectl(&pushed).await.unwrap().is_empty(), "cluster-2 is region=us");
    refused_beside_another(&testbed).await;
    // What the reader makes meanwhile stays, with its kind and its namespace.
    bare.apply_yaml(&mine.replace("name: hello", "name: later")).await.unwrap();
    demo.stop().await;
    assert_eq!(bare.kubectl(&["get", "hc", "-A", "-o", "name"]).await.unwrap().lines().count(), 1);
    bare.kubectl(&["delete", "hc", "later", "-n", "health"]).await.unwrap();
    bare.kubectl(&["delete", &format!("crd/{CRD}"), "namespace/health"]).await.unwrap();
    assert_same(&before, &[objects(with_checks).await, objects(bare).await]);

    let mut killed = Demo::start(&["--contexts", "cluster-2"], &as_reader(&testbed));
    killed.until_said(&[LAST_LINE_OF_SUMMARY], START_LIMIT).await;
    let run = killed.run_dirs().remove(0);
    killed.signal(Signal::KILL);
    killed.child.wait().await.unwrap();
    let mut sweep = Command::new(env!("CARGO_BIN_EXE_testbed"));
    sweep.arg("down").env("TMPDIR", killed.tmp.path()).envs(as_reader(&testbed));
    assert!(sweep.status().await.unwrap().success());
    assert!(!run.exists());
    wait::until("end of the killed demo's processes", STOP_LIMIT, || async {
        Ok(run_dir::marked(&run).is_empty().then_some(()))
    })
    .await
    .unwrap();
    assert_same(&before[1..], &[objects(bare).await]);
}

/// A second demo on the same clusters would share the first one's agents.
async fn refused_beside_another(testbed: &Testbed) {
    let mut second = Command::new(env!("CARGO_BIN_EXE_demo"));
    let tmp = tempfile::tempdir().unwrap();
    second.args(["--contexts", "cluster-2"]).envs(as_reader(testbed)).env("TMPDIR", tmp.path());
    let output = second.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("another demo"), "{said}");
}

/// The reader's environment: a kubeconfig with all clusters, and the `kubectl` that fits them.
fn as_reader(testbed: &Testbed) -> Vec<(&'static str, String)> {
    let configs = testbed.clusters.iter().map(|cluster| cluster.kubeconfig.display().to_string());
    let kubectl = testbed.clusters[0].programs.path(Program::Kubectl);
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", kubectl.parent().unwrap().display());
    vec![("KUBECONFIG", configs.collect::<Vec<_>>().join(":")), ("PATH", path)]
}

/// Every object of every kind in a cluster: kind, namespace, name and uid; and of a HealthCheck what it asks for.
async fn objects(cluster: &Cluster) -> BTreeSet<String> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await.unwrap();
    // The events of v1 and of events.k8s.io are the same objects.
    let kinds: Vec<&str> = kinds.lines().filter(|kind| *kind != "events").collect();
    let list = cluster.kubectl(&["get", &kinds.join(","), "-A", "-o", "json"]).await.unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let shown = |object: &Value| {
        let meta = &object["metadata"];
        let spec = if object["kind"] == "HealthCheck" { &object["spec"] } else { &json!(null) };
        format!("{} {} {} {} {spec}", object["kind"], meta["namespace"], meta["name"], meta["uid"])
    };
    list["items"].as_array().unwrap().iter().map(shown).collect()
}

fn assert_same(before: &[BTreeSet<String>], after: &[BTreeSet<String>]) {
    for (before, after) in before.iter().zip(after) {
        assert!(before.len() > 20, "{before:?}");
        let (gone, left): (Vec<_>, Vec<_>) = (before.difference(after).collect(), after.difference(before).collect());
        assert!(gone.is_empty() && left.is_empty(), "gone: {gone:#?}\nleft: {left:#?}");
    }
}
