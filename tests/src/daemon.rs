//! The testbed in the background, as `testbed up`, `status` and `down` see it: one a user and machine.
//!
//! The daemon owns the run folder `up` and writes its state file there once all clusters work. May touch the run
//! folders and send signals to the daemon.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, setsid};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cluster::Cluster,
    process::tail,
    programs::{Program, Programs},
    run_dir::{self, RunDir},
    testbed::{Options, Testbed},
    wait,
};

const NAME: &str = "up";
const STATE: &str = "state.json";
const START_LIMIT: Duration = Duration::from_secs(600);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What a started testbed consists of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The daemon's process number.
    pub owner: u32,
    /// The `kubectl` that fits the clusters.
    pub kubectl: PathBuf,
    /// The clusters.
    pub clusters: Vec<ClusterState>,
}

/// One cluster of a started testbed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterState {
    /// Its name.
    pub name: String,
    /// The API server's URL.
    pub server: String,
    /// The admin's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Its programs.
    pub parts: Vec<PartState>,
}

/// One program of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartState {
    /// Its name.
    pub name: String,
    /// The process number it was started with.
    pub pid: Option<u32>,
    /// Whether that process lives.
    pub running: bool,
}

/// Starts the daemon as `program` with `args` and waits until its clusters work. Ctrl-C stops it again.
///
/// # Errors
/// When a testbed is up already, or this one does not come up; with the end of its log.
pub async fn up(program: &Path, args: &[String]) -> anyhow::Result<State> {
    run_dir::sweep()?;
    if run_dir::living_owner(&run_path()).is_some() {
        bail!("a testbed is up already; `testbed down` ends it");
    }
    let root = run_dir::root();
    fs::create_dir_all(&root)?;
    let log = root.join("up.log");
    let output = File::create(&log)?;
    let mut daemon = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start the daemon")?;
    let mut terminated = signal(SignalKind::terminate())?;
    let started = tokio::select! {
        started = until_started(&mut daemon, &log) => started,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        _ = terminated.recv() => Err(anyhow!("terminated")),
    };
    if started.is_err() {
        // It is this process's child: its number is its own until it is waited for.
        let pid = Pid::from_child(&daemon);
        let _ended_already = kill_process(pid, Signal::TERM);
        daemon.wait()?;
    }
    started
}

async fn until_started(daemon: &mut Child, log: &Path) -> anyhow::Result<State> {
    let ask = || {
        let ended = daemon.try_wait();
        async move {
            match (status()?, ended?) {
                (Some(state), _) => Ok(Some(Ok(state))),
                (None, Some(status)) => Ok(Some(Err(anyhow!("the daemon has ended: {status}")))),
                (None, None) => Ok(None),
            }
        }
    };
    let outcome = wait::until("started testbed", START_LIMIT, ask).await;
    outcome.and_then(|state| state).with_context(|| tail(log).unwrap_or_default())
}

/// Runs the daemon: starts the clusters, then holds them until it is told to end by a TERM or INT signal.
///
/// # Errors
/// When they do not come up.
pub async fn run(options: Options) -> anyhow::Result<()> {
    // Away from the terminal, so that closing it, or Ctrl-C in it, is not for the clusters. It fails only for the
    // leader of a process group, which a daemon started from a shell by hand is.
    let _is_leader = setsid();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let serve = async {
        let programs = Programs::ensure(&options.programs()).await?;
        let testbed = Testbed::start_in(RunDir::create_named(NAME)?, &programs, options).await?;
        let unfinished = testbed.run().path().join("state.json.new");
        fs::write(&unfinished, serde_json::to_vec_pretty(&state_of(&testbed, &programs))?)?;
        fs::rename(&unfinished, testbed.run().path().join(STATE))?;
        std::future::pending::<()>().await;
        Ok(())
    };
    // Dropping the unfinished future drops what it has started.
    tokio::select! {
        ended = serve => ended,
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    }
}

/// What is up, with a fresh look at which programs live; `None` when no testbed is up or it is still starting.
///
/// # Errors
/// When its state file cannot be read.
pub fn status() -> anyhow::Result<Option<State>> {
    let path = run_path();
    if run_dir::living_owner(&path).is_none() {
        return Ok(None);
    }
    let file = path.join(STATE);
    if !file.exists() {
        return Ok(None);
    }
    let mut state: State = serde_json::from_slice(&fs::read(&file)?).context("cannot read the testbed's state")?;
    let living: Vec<u32> = run_dir::marked(&path).iter().filter_map(|pid| pid.as_raw_pid().try_into().ok()).collect();
    for part in state.clusters.iter_mut().flat_map(|cluster| &mut cluster.parts) {
        part.running = part.pid.is_some_and(|pid| living.contains(&pid));
    }
    Ok(Some(state))
}

/// Ends the testbed that is up and removes what it, or a dead owner, left. Gives whether one was up.
///
/// # Errors
/// When something cannot be removed.
pub async fn down() -> anyhow::Result<bool> {
    let path = run_path();
    let owner = run_dir::living_owner(&path);
    if let Some(owner) = owner {
        let _ended_already = kill_process(owner, Signal::TERM);
        let gone = || async { Ok((!path.exists()).then_some(())) };
        if wait::until("end of the daemon", STOP_LIMIT, gone).await.is_err()
            && run_dir::living_owner(&path) == Some(owner)
        {
            let _ended_already = kill_process(owner, Signal::KILL);
        }
    }
    run_dir::sweep()?;
    Ok(owner.is_some())
}

fn run_path() -> PathBuf {
    run_dir::root().join("runs").join(NAME)
}

fn state_of(testbed: &Testbed, programs: &Programs) -> State {
    let clusters = testbed.clusters.iter().map(cluster_state).collect();
    State { owner: std::process::id(), kubectl: programs.path(Program::Kubectl), clusters }
}

fn cluster_state(cluster: &Cluster) -> ClusterState {
    let programs = [&cluster.etcd, &cluster.apiserver, &cluster.controller_manager, &cluster.argo];
    let parts = programs.map(|part| PartState { name: part.name().to_owned(), pid: part.pid(), running: true });
    ClusterState {
        name: cluster.name.clone(),
        server: cluster.server.clone(),
        kubeconfig: cluster.kubeconfig.clone(),
        parts: parts.into(),
    }
}
