//! Run folders: where one testbed keeps its state, and how what a dead owner left is found and removed.
//!
//! A run folder belongs to the process that holds the lock of its `owner` file. Each program started for it carries
//! the folder's path in its environment, so whatever belongs to the run is found exactly, with its descendants.
//! May touch: the folders under [`root`], and processes that carry the mark.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, PidfdFlags, Signal, getuid, pidfd_open, pidfd_send_signal};

/// The environment variable that marks a program as part of a run; its value is the run folder.
pub const MARK: &str = "ACTIVE_MONITOR_RUN_DIR";

/// When set, a run's logs are kept after it ends; a panicking test keeps them anyway.
pub const KEEP_LOGS: &str = "ACTIVE_MONITOR_KEEP_LOGS";

const OWNER: &str = "owner";
const CLEANUP: &str = "cleanup.sh";

/// The folder of one run, owned by this process and removed on drop.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _owner: File,
}

/// The folder that holds all run folders of this user.
pub fn root() -> PathBuf {
    env::temp_dir().join(format!("active-monitor-testbed-{}", getuid().as_raw()))
}

impl RunDir {
    /// Makes a run folder with a name of its own, after sweeping what dead owners left.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create() -> anyhow::Result<Self> {
        Self::create_in(&root(), None)
    }

    /// Makes the run folder `name`, of which there is one at a time.
    ///
    /// # Errors
    /// When a living process owns it, or it cannot be made.
    pub fn create_named(name: &str) -> anyhow::Result<Self> {
        Self::create_in(&root(), Some(name))
    }

    fn create_in(root: &Path, name: Option<&str>) -> anyhow::Result<Self> {
        let runs = root.join("runs");
        fs::create_dir_all(&runs).with_context(|| format!("cannot make {}", runs.display()))?;
        let _sweeping = lock_root(root)?;
        sweep_locked(&runs)?;
        let path = match name {
            None => tempfile::Builder::new().prefix("run-").tempdir_in(&runs)?.keep(),
            Some(name) => {
                let path = runs.join(name);
                fs::create_dir(&path).with_context(|| format!("{} is in use or cannot be made", path.display()))?;
                path
            }
        };
        let owner = File::create(path.join(OWNER))?;
        owner.try_lock().context("cannot lock a new run folder")?;
        io::Write::write_all(&mut &owner, std::process::id().to_string().as_bytes())?;
        Ok(Self { path, _owner: owner })
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds lines of shell to be run when the run ends, by its owner or by whoever sweeps after it: for what killing
    /// processes does not undo, such as mounts. Each line must bear being run twice or in vain.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn add_cleanup(&self, script: &str) -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(self.path.join(CLEANUP))?;
        io::Write::write_all(&mut file, format!("{script}\n").as_bytes())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if env::var_os(KEEP_LOGS).is_some() || std::thread::panicking() {
            match keep_logs(&self.path) {
                Ok(kept) => eprintln!("testbed logs are kept in {}", kept.display()),
                Err(error) => eprintln!("testbed logs of {} are lost: {error:#}", self.path.display()),
            }
        }
        if let Err(error) = remove(&self.path) {
            eprintln!("cannot remove run folder {}: {error:#}", self.path.display());
        }
    }
}

/// Kills what dead owners left running and removes their run folders.
///
/// # Errors
/// When a folder cannot be read or removed.
pub fn sweep() -> anyhow::Result<()> {
    let runs = root().join("runs");
    if !runs.exists() {
        return Ok(());
    }
    let _sweeping = lock_root(&root())?;
    sweep_locked(&runs)
}

/// The process that owns the run folder, while it lives.
pub fn living_owner(path: &Path) -> Option<Pid> {
    let owner = path.join(OWNER);
    match File::open(&owner).ok()?.try_lock() {
        Err(TryLockError::WouldBlock) => Pid::from_raw(fs::read_to_string(&owner).ok()?.trim().parse().ok()?),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// The living processes that belong to the run folder.
pub fn marked(path: &Path) -> Vec<Pid> {
    let mark = mark_of(path);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| has_mark(*pid, &mark)).collect()
}

fn mark_of(path: &Path) -> Vec<u8> {
    let mut mark = OsString::from(MARK);
    mark.push("=");
    mark.push(path);
    mark.as_bytes().to_vec()
}

fn has_mark(pid: Pid, mark: &[u8]) -> bool {
    // A process that has ended, or is another user's, has no environment to read.
    let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == mark)
}

/// Kills until nothing carries the mark: a process may fork between two looks.
fn kill_marked(path: &Path) -> anyhow::Result<()> {
    let mark = mark_of(path);
    for _ in 0..200 {
        let pids = marked(path);
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            // The descriptor pins the process: the mark is looked at again once the number cannot be reused.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            if has_mark(pid, &mark) {
                let _gone_already = pidfd_send_signal(&process, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("processes of {} survive being killed", path.display())
}

fn lock_root(root: &Path) -> anyhow::Result<File> {
    let lock = File::create(root.join("lock"))?;
    lock.lock().context("cannot lock the run folders")?;
    Ok(lock)
}

fn sweep_locked(runs: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(runs)? {
        let path = entry?.path();
        if living_owner(&path).is_none() && path.is_dir() {
            remove(&path).with_context(|| format!("cannot sweep {}", path.display()))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    kill_marked(path)?;
    let script = path.join(CLEANUP);
    if script.exists() {
        Command::new("sh").arg(&script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    }
    match fs::remove_dir_all(path) {
        // Its owner may be removing it at the same moment.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Copies the logs (`*.log`, with the folders they lie in) to where no sweep takes them.
fn keep_logs(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.file_name().context("a run folder has a name")?;
    let kept =
        path.parent().and_then(Path::parent).context("a run folder lies two below the root")?.join("logs").join(name);
    for folder in fs::read_dir(path)? {
        let folder = folder?;
        if folder.file_type()?.is_dir() {
            let to = kept.join(folder.file_name());
            fs::create_dir_all(&to)?;
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                if file.path().extension().is_some_and(|extension| extension == "log") {
                    fs::copy(file.path(), to.join(file.file_name()))?;
                }
            }
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_folder_lives_as_long_as_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create_in(root.path(), Some("one")).unwrap();
        assert_eq!(living_owner(run.path()).unwrap().as_raw_nonzero().get() as u32, std::process::id());
        assert!(RunDir::create_in(root.path(), Some("one")).is_err());
        let path = run.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        run.add_cleanup(&format!("echo done > {}/cleaned", root.path().display())).unwrap();
        drop(run);
        assert!(!path.exists());
        assert!(root.path().join("cleaned").exists());
        drop(RunDir::create_in(root.path(), Some("one")).unwrap());
    }

    #[test]
    fn what_a_dead_owner_left_is_swept_with_its_processes() {
        let root = tempfile::tempdir().unwrap();
        let dead = root.path().join("runs").join("run-dead");
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join(OWNER), "1").unwrap();
        // The grandchild has the mark too, and no parent that would take it along.
        let mut child = Command::new("sh").args(["-c", "sleep 600 & wait"]).env(MARK, &dead).spawn().unwrap();
        while marked(&dead).len() < 2 {
            std::thread::yield_now();
        }
        let other = RunDir::create_in(root.path(), None).unwrap();
        assert!(!dead.exists());
        assert!(other.path().exists());
        assert_eq!(marked(&dead), Vec::new());
        child.wait().unwrap();
    }
}
