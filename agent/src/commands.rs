//! Obeys what people ask of this cluster through the hub, as far as the agent's own configuration says. What is obeyed is
//! decided in `active_monitor_core::command`; this annotates the check that shall run now, and keeps the pauses.
//!
//! Pauses are in a file beside the journal: in force as soon as they are on the disk, over restarts, and without asking
//! the API server, which may be what is ill. An agent that takes over without that file gets them again from the hub.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use active_monitor_core::command::{
    Answer, Command, Layer, Obedience, Order, Pause, Pauses, Refusal, Runs, Scope, stopping,
};
use active_monitor_core::decide::RUN_NOW_ANNOTATION;
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::run::RunKind;
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::state::{CheckState, Phase};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts};
use tokio::sync::mpsc;

use crate::request::request;
use crate::self_test::Tester;
use crate::states::States;

/// Name of the file with the pauses.
const FILE: &str = "pauses.json";
/// Who the API server's managed fields say asked for a run.
const FIELD_MANAGER: &str = "active-monitor-agent-commands";
/// Requests to the API server under way for commands.
const SIDE_BY_SIDE: usize = 16;

/// Commands, by what became of them.
static COMMANDS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Commands of the hub, by verdict: done, or the layer that refused.";
    prometheus::register_int_counter_vec!(Opts::new("activemonitor_agent_commands_total", help), &["verdict"]).ok()
});

/// The pauses in force, on disk. Clones share them.
#[derive(Clone)]
pub struct Paused {
    pauses: Arc<Mutex<Pauses>>,
    path: PathBuf,
}

impl Paused {
    /// Reads what an earlier life of the agent left in its state directory. A file that cannot be read is set aside.
    pub fn open(state_dir: &Path) -> Paused {
        let path = state_dir.join(FILE);
        let pauses = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "pauses are damaged and set aside: nothing is paused");
                fs::rename(&path, path.with_extension("damaged")).ok();
                Pauses::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Pauses::default(),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "pauses cannot be read: nothing is paused");
                Pauses::default()
            }
        };
        Paused { pauses: Arc::new(Mutex::new(pauses)), path }
    }

    /// The pauses in force that concern a check.
    pub fn of(&self, now: Timestamp, namespace: &str, name: &str) -> Vec<Pause> {
        self.pauses.lock().of(now, namespace, name)
    }

    /// Changes the pauses: on the disk before they are in force.
    fn change<T>(&self, change: impl FnOnce(&mut Pauses) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut pauses = self.pauses.lock();
        let mut next = pauses.clone();
        let done = change(&mut next)?;
        if next != *pauses {
            let written = write(&self.path, &next);
            written.map_err(|error| Refusal::new(Layer::Agent, format!("the agent cannot keep it: {error}")))?;
            *pauses = next;
        }
        Ok(done)
    }
}

fn write(path: &Path, pauses: &Pauses) -> io::Result<()> {
    let half_made = path.with_extension("tmp");
    let mut file = File::create(&half_made)?;
    file.write_all(&serde_json::to_vec(pauses)?)?;
    file.sync_all()?;
    fs::rename(&half_made, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// What obeying needs.
pub struct Commands {
    /// The API server.
    pub client: Client,
    /// What is obeyed.
    pub obedience: Obedience,
    /// The pauses.
    pub paused: Paused,
    /// Which checks there are.
    pub states: States,
    /// Has checks looked at.
    pub wake: mpsc::Sender<ObjectRef<HealthCheck>>,
    /// Runs self-tests.
    pub tester: Tester,
}

impl Commands {
    /// Obeys and answers until any channel's end. Pauses wait for nothing; a run now asks the API server. A self-test is
    /// answered when it begins, and says itself what came of it.
    pub async fn run(
        self,
        mut commands: mpsc::Receiver<Command>,
        answers: mpsc::Sender<Answer>,
        self_tests: mpsc::Sender<SelfTest>,
    ) {
        register();
        let mut runs = Runs::default();
        let mut under_way: FuturesUnordered<BoxFuture<'_, Option<Answer>>> = FuturesUnordered::new();
        // One at a time.
        let mut tests: FuturesUnordered<BoxFuture<'_, SelfTest>> = FuturesUnordered::new();
        loop {
            let answer = tokio::select! {
                Some(ended) = tests.next() => {
                    if self_tests.send(ended).await.is_err() {
                        return;
                    }
                    continue;
                }
                command = commands.recv(), if under_way.len() < SIDE_BY_SIDE => match command {
                    None => return,
                    Some(command) => match self.obey(&command, &mut runs) {
                        Ok(Obeyed::Done(done)) => {
                            under_way.push(self.wake(command.scope.clone()).map(|()| None).boxed());
                            Answer { id: command.id, verdict: Ok(done) }
                        }
                        Ok(Obeyed::Test) => {
                            // One that is under way, such as of a session that was cut, is as good: who asks waits for its end.
                            let namespace = &self.tester.namespace;
                            let done = if tests.is_empty() {
                                tests.push(self.tester.run().boxed());
                                format!("the self-test has begun in namespace {namespace}")
                            } else {
                                format!("a self-test is under way in namespace {namespace}: its result follows")
                            };
                            Answer { id: command.id, verdict: Ok(done) }
                        }
                        Ok(Obeyed::Annotate(check)) => {
                            under_way.push(self.annotate(check, command.id).map(Some).boxed());
                            continue;
                        }
                        Err(refusal) => Answer { id: command.id, verdict: Err(refusal) },
                    },
                },
                Some(answer) = under_way.next() => match answer {
                    Some(answer) => answer,
                    None => continue,
                },
            };
            tell(&answer);
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }

    fn obey(&self, command: &Command, runs: &mut Runs) -> Result<Obeyed, Refusal> {
        self.obedience.admit(&command.order)?;
        let (now, scope) = (Timestamp::now(), &command.scope);
        match &command.order {
            Order::RunNow => {
                let check = self.runnable(now, scope)?;
                runs.count(now)?;
                Ok(Obeyed::Annotate(check))
            }
            Order::SelfTest => {
                runs.count(now)?;
                Ok(Obeyed::Test)
            }
            Order::Pause { subject, seconds, .. } => {
                self.paused.change(|pauses| pauses.put(now, command))?;
                Ok(Obeyed::Done(format!("{} of {scope} paused for {seconds} s", subject.as_str())))
            }
            Order::Resume { subject } => {
                let lifted = self.paused.change(|pauses| pauses.lift(now, *subject, scope))?;
                Ok(Obeyed::Done(format!("{} of {scope} go on: {lifted} pauses ended", subject.as_str())))
            }
        }
    }

    /// The one check that is meant, if it can run.
    fn runnable(&self, now: Timestamp, scope: &Scope) -> Result<Arc<CheckState>, Refusal> {
        let refused = |reason: String| Err(Refusal::new(Layer::Agent, reason));
        let (Some(namespace), Some(name)) = (&scope.namespace, &scope.name) else {
            return refused("a run now is for one check: give its namespace and name".to_owned());
        };
        let found = self.states.all().into_iter().find(|state| scope.covers(&state.namespace, &state.name));
        let Some(check) = found else {
            return refused(format!("there is no HealthCheck {namespace}/{name}"));
        };
        if let Some(pause) = stopping(&self.paused.of(now, namespace, name), RunKind::HealthCheck) {
            return refused(format!("{pause}; resume it first"));
        }
        if check.phase == Phase::Invalid {
            return refused(format!("{namespace}/{name} cannot run: {}", check.message));
        }
        Ok(check)
    }

    /// Asks for the run by the annotation that kubectl would ask by.
    async fn annotate(&self, check: Arc<CheckState>, id: String) -> Answer {
        let api: Api<HealthCheck> = Api::namespaced(self.client.clone(), &check.namespace);
        let body = serde_json::json!({ "metadata": { "uid": check.uid, "annotations": { RUN_NOW_ANNOTATION: id } } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let verdict = match request(api.patch_metadata(&check.name, &params, &Patch::Merge(&body))).await {
            Ok(_) => Ok(format!("{}/{} is asked to run now", check.namespace, check.name)),
            Err(error) => Err(Refusal::new(Layer::Kubernetes, error.to_string())),
        };
        Answer { id, verdict }
    }

    /// Has the checks of the scope looked at: what is said of them is new.
    async fn wake(&self, scope: Scope) {
        for check in self.states.all().iter().filter(|check| scope.covers(&check.namespace, &check.name)) {
            if self.wake.send(ObjectRef::new(&check.name).within(&check.namespace)).await.is_err() {
                return;
            }
        }
    }
}

/// What a command leads to.
enum Obeyed {
    /// It is done.
    Done(String),
    /// This check is to be asked to run.
    Annotate(Arc<CheckState>),
    /// A self-test is to be run.
    Test,
}

/// Refuses all that comes, for this reason, until either channel's end.
pub async fn refuse(reason: &str, mut commands: mpsc::Receiver<Command>, answers: mpsc::Sender<Answer>) {
    register();
    while let Some(command) = commands.recv().await {
        let answer = Answer { id: command.id, verdict: Err(Refusal::new(Layer::Policy, reason)) };
        tell(&answer);
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

/// Every counter is there from the start.
fn register() {
    let Some(counters) = COMMANDS.as_ref() else { return };
    for verdict in ["done", Layer::Policy.as_str(), Layer::Agent.as_str(), Layer::Kubernetes.as_str()] {
        counters.with_label_values(&[verdict]);
    }
}

fn tell(Answer { id, verdict }: &Answer) {
    let text = match verdict {
        Ok(done) => {
            tracing::info!(id, done, "command of the hub");
            "done"
        }
        Err(Refusal { layer, reason }) => {
            tracing::warn!(id, layer = layer.as_str(), reason, "command of the hub refused");
            layer.as_str()
        }
    };
    if let Some(counters) = COMMANDS.as_ref() {
        counters.with_label_values(&[text]).inc();
    }
}

#[cfg(test)]
mod tests;
