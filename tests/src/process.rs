//! A program of the testbed, on a leash: it dies when its owner stops it, drops it, or dies in whatever way.
//!
//! The leash is a pipe from the owner. A shell forks a watcher that reads it, then becomes the program, so the
//! owner's child is the program itself. End of file on the pipe, which the kernel sees to when the owner is gone,
//! makes the watcher kill the program.

use std::{
    ffi::OsString,
    fs::{self, File},
    future::Future,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    run_dir::{self, RunDir},
    wait,
};

// In a subshell `$$` is still the number of the shell, which is the program's after the last line. A line on the
// pipe means that the program has been reaped, so its number may be another's by now.
const LEASHED: &str = r#"exec 3<&0 </dev/null
(read -r _ <&3 || kill -KILL $$) >/dev/null 2>&1 &
exec 3<&- "$@""#;

const TAIL_BYTES: u64 = 3_000;

/// A program with its arguments, running or not.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
    running: Mutex<Option<Child>>,
    // Last, so that the run folder outlives the program.
    run: Arc<RunDir>,
}

impl Process {
    /// Describes a program of the run; it logs to `<dir>/<name>.log`.
    pub fn new(run: &Arc<RunDir>, dir: &Path, name: &str, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: dir.join(format!("{name}.log")),
            running: Mutex::new(None),
            run: Arc::clone(run),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// The program's name in the testbed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that takes its output, over all its starts.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts the program; one that runs is left as it is.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be spawned.
    pub fn start(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock();
        if exit_status(&mut running).is_none() && running.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log).context("cannot open a log")?;
        let child = Command::new("sh")
            .args(["-c", LEASHED, &self.name])
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .env(run_dir::MARK, self.run.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // The terminal's Ctrl-C is for the owner, which then stops its programs in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        *running = Some(child);
        Ok(())
    }

    /// Kills the program, at once and without a farewell, and reaps it.
    pub fn stop(&self) {
        if let Some(mut child) = self.running.lock().take() {
            let _exited_already = child.kill();
            // Waiting would close the leash first, and the watcher then shoot at a number that is being freed.
            let leash = child.stdin.take();
            let _reaped = child.wait();
            release(leash);
        }
    }

    /// The program's process number, while it is started and not known to have ended.
    pub fn pid(&self) -> Option<u32> {
        let mut running = self.running.lock();
        if exit_status(&mut running).is_some() { None } else { running.as_ref().map(Child::id) }
    }

    /// Sends a signal, such as STOP and CONT.
    ///
    /// # Errors
    /// When the program does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let running = self.running.lock();
        let child = running.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process number is positive")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits until `check` gives a value.
    ///
    /// # Errors
    /// When the program ends, or `limit` passes, first; with the end of its log.
    pub async fn until<T, F, Fut>(&self, what: &str, limit: Duration, mut check: F) -> anyhow::Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = anyhow::Result<Option<T>>>,
    {
        let alive_or_value = || {
            let status = exit_status(&mut self.running.lock());
            let asked = status.is_none().then(&mut check);
            async move {
                match (status, asked) {
                    (None, Some(asked)) => Ok(asked.await?.map(Ok)),
                    (status, _) => Ok(Some(Err(anyhow!("{} has ended: {status:?}", self.name)))),
                }
            }
        };
        wait::until(what, limit, alive_or_value)
            .await
            .and_then(|outcome| outcome)
            .with_context(|| format!("{} is not well; the end of its log:\n{}", self.name, self.log_tail()))
    }

    /// Waits until the log has a line that contains `text`.
    ///
    /// # Errors
    /// As [`Process::until`].
    pub async fn until_logged(&self, text: &str, from_byte: u64, limit: Duration) -> anyhow::Result<()> {
        self.until(&format!("{text:?} in the log"), limit, || async {
            let mut log = File::open(&self.log)?;
            log.seek(SeekFrom::Start(from_byte))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).contains(text).then_some(()))
        })
        .await
    }

    /// The length of the log in bytes, to look only at what comes later; 0 when there is none.
    pub fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("{}: {error:#}", self.log.display()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last lines of a file, about 3 kB.
///
/// # Errors
/// When it cannot be read.
pub fn tail(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs a short-lived program of the run to its end and gives its stdout.
///
/// # Errors
/// When it cannot be run, or fails; with its stderr.
pub async fn output(run: &RunDir, mut command: tokio::process::Command, stdin: &str) -> anyhow::Result<String> {
    use tokio::io::AsyncWriteExt as _;
    let shown = format!("{:?}", command.as_std());
    let mut child = command
        .env(run_dir::MARK, run.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let pipe = child.stdin.take();
    let feed = async {
        if let Some(mut pipe) = pipe {
            // A program that ends before it has read everything says why on its stderr.
            let _broken_pipe = pipe.write_all(stdin.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn exit_status(running: &mut Option<Child>) -> Option<ExitStatus> {
    let child = running.as_mut()?;
    let status = child.try_wait().ok().flatten()?;
    release(child.stdin.take());
    Some(status)
}

/// Tells the watcher that there is nothing left to kill.
fn release(leash: Option<ChildStdin>) {
    if let Some(mut leash) = leash {
        let _watcher_gone = leash.write_all(b"\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn sleeper(run: &Arc<RunDir>) -> Process {
        Process::new(run, run.path(), "sleeper", "sleep").args(["600"])
    }

    #[tokio::test]
    async fn stop_kills_and_start_starts_again() {
        let run = Arc::new(RunDir::create().unwrap());
        let process = sleeper(&run);
        assert_eq!(process.pid(), None);
        process.start().unwrap();
        let first = process.pid().unwrap();
        process.start().unwrap();
        assert_eq!(process.pid(), Some(first));
        process.stop();
        assert_eq!(process.pid(), None);
        process.start().unwrap();
        assert_ne!(process.pid(), Some(first));
        drop(process);
        wait::until("end of all", LIMIT, || async { Ok(run_dir::marked(run.path()).is_empty().then_some(())) })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_closed_leash_kills_the_program() {
        let run = Arc::new(RunDir::create().unwrap());
        let process = sleeper(&run);
        process.start().unwrap();
        drop(process.running.lock().as_mut().unwrap().stdin.take());
        wait::until("death", LIMIT, || async { Ok(process.pid().is_none().then_some(())) }).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_ends_is_told_with_its_log() {
        let run = Arc::new(RunDir::create().unwrap());
        let process = Process::new(&run, run.path(), "broken", "sh").args(["-c", "echo cannot find my shoes; exit 3"]);
        process.start().unwrap();
        let error = process.until_logged("never", 0, LIMIT).await.unwrap_err();
        assert!(format!("{error:#}").contains("cannot find my shoes"), "{error:#}");
        assert!(format!("{error:#}").contains("has ended"), "{error:#}");
    }
}
