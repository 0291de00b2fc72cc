//! The tasks of a process and its end: a signal stops them all, and a task that ends by itself ends the process.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a process ends with a failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// A task that should run as long as the process ended.
    #[error("task {name} ended: {detail}")]
    Ended {
        /// Name of the task.
        name: &'static str,
        /// Its error, or that it had none.
        detail: String,
    },
    /// Tasks were still there when the time for an orderly end was over.
    #[error("{tasks} tasks did not end within {grace_ms} ms")]
    Stuck {
        /// How many.
        tasks: usize,
        /// The time they had.
        grace_ms: u128,
    },
    /// The process cannot hear signals.
    #[error("no handler for signals: {0}")]
    Signals(String),
}

/// The tasks of a process. Clones are handles on the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    failure: Arc<OnceLock<TaskError>>,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Cancelled when the process shall end; every task ends soon after.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks all tasks to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Starts a task that runs until the process is asked to stop. If it ends before, by an error, a panic or just so,
    /// the whole process stops and [`Tasks::run`] says which it was.
    pub fn supervise<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let this = self.clone();
        // A task of its own, so that its panic is seen here and not lost.
        let running = self.tracker.spawn(task);
        self.tracker.spawn(async move {
            let detail = match running.await {
                Ok(Ok(())) => "without an error".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            if !this.stop.is_cancelled() {
                tracing::error!(task = name, detail, "task ended");
                let _ = this.failure.set(TaskError::Ended { name, detail });
                this.stop.cancel();
            }
        });
    }

    /// Starts a task that may end whenever it wants; the process waits for it at its end.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Waits for SIGTERM, SIGINT or [`Tasks::stop`], asks all tasks to end and waits for them up to `grace`.
    ///
    /// # Errors
    /// A task ended by itself, or did not end in time.
    pub async fn run(self, grace: Duration) -> Result<(), TaskError> {
        let mut signals = Signals::new().map_err(|error| TaskError::Signals(error.to_string()))?;
        tokio::select! {
            name = signals.next() => tracing::info!(signal = name, "stopping"),
            () = self.stop.cancelled() => {}
        }
        self.stop.cancel();
        self.tracker.close();
        let ended = tokio::time::timeout(grace, self.tracker.wait()).await;
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        ended.map_err(|_| TaskError::Stuck { tasks: self.tracker.len(), grace_ms: grace.as_millis() })
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_process_with_its_reason() {
        let tasks = Tasks::new();
        let stop = tasks.stop_token();
        tasks.supervise("patient", async move {
            stop.cancelled().await;
            Ok::<(), Infallible>(())
        });
        tasks.supervise("broken", async { Err("no disk") });
        let ended = tasks.run(Duration::from_secs(5)).await;
        assert_eq!(ended, Err(TaskError::Ended { name: "broken", detail: "no disk".into() }));
    }

    #[tokio::test]
    async fn a_panic_counts_as_an_end() {
        let tasks = Tasks::new();
        tasks.supervise("panics", async {
            if true {
                panic!("boom");
            }
            Ok::<(), Infallible>(())
        });
        assert!(matches!(tasks.run(Duration::from_secs(5)).await, Err(TaskError::Ended { name: "panics", .. })));
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_left_after_the_grace() {
        let tasks = Tasks::new();
        tasks.spawn(std::future::pending());
        tasks.stop();
        let ended = tasks.run(Duration::from_millis(5)).await;
        assert_eq!(ended, Err(TaskError::Stuck { tasks: 1, grace_ms: 5 }));
    }
}
