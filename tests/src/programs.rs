//! The programs the testbed runs, built from Go modules into a cache and rebuilt when their sources change.
//!
//! May touch the cache (`$ACTIVE_MONITOR_CACHE`, else `~/.cache/active-monitor-fleet`) and, through `go`, the Go
//! module and build caches. The wrapper modules lie in `tests/programs`.

mod build;

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;

/// The release of Kubernetes that is built, and that clients see.
pub const KUBERNETES_VERSION: &str = "v1.36.3";
/// The release of Argo Workflows that is built.
pub const ARGO_VERSION: &str = "v3.7.14";
/// The release of Helm that is built.
pub const HELM_VERSION: &str = "v4.2.4";

/// A program that can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The store of the API server.
    Etcd,
    /// `kube-apiserver`
    ApiServer,
    /// `kube-controller-manager`
    ControllerManager,
    /// `kubectl`
    Kubectl,
    /// Argo's `workflow-controller`
    WorkflowController,
    /// `kube-scheduler`
    Scheduler,
    /// `kubelet`
    Kubelet,
    /// Argo's executor, linked statically to run in a container.
    Argoexec,
    /// `helm`
    Helm,
    /// Lua as Argo CD runs it.
    Glua,
}

impl Program {
    /// What a cluster without nodes needs.
    pub const CONTROL_PLANE: &[Self] =
        &[Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Kubectl, Self::WorkflowController];
    /// What a node needs besides.
    pub const NODE: &[Self] = &[Self::Scheduler, Self::Kubelet, Self::Argoexec];

    /// What installs the charts.
    pub const CHARTS: &[Self] = &[Self::Helm];

    /// What runs Argo CD's health scripts.
    pub const SCRIPTS: &[Self] = &[Self::Glua];

    /// The name of its file in the cache.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::WorkflowController => "workflow-controller",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Argoexec => "argoexec",
            Self::Helm => "helm",
            Self::Glua => "glua",
        }
    }
}

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// Nothing can be built here: a test skips itself, a person installs Go.
    #[error("{program} is not in the cache ({}) and there is no `go` to build it", .cache.display())]
    NoGo {
        /// The first program that is missing.
        program: &'static str,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// `go` was run and failed.
    #[error("cannot build {program}: {output}")]
    Build {
        /// The program that was built.
        program: &'static str,
        /// The end of what `go` printed.
        output: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot use the cache of programs in {}", .path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Neither `ACTIVE_MONITOR_CACHE` nor `HOME` is set.
    #[error("neither ACTIVE_MONITOR_CACHE nor HOME says where the cache of programs is")]
    NoCache,
}

/// A cache that holds the programs that were asked for.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Builds those of the programs that are missing or older than their sources; minutes each when nothing is cached.
    ///
    /// # Errors
    /// [`ProgramsError::NoGo`] when something must be built and cannot be; else what went wrong.
    pub async fn ensure(programs: &[Program]) -> Result<Self, ProgramsError> {
        Self::ensure_shown(programs, &ProgressBar::hidden()).await
    }

    /// As [`Programs::ensure`], with the bar at one step a program.
    ///
    /// # Errors
    /// As [`Programs::ensure`].
    pub async fn ensure_shown(programs: &[Program], bar: &ProgressBar) -> Result<Self, ProgramsError> {
        let (programs, bar) = (programs.to_vec(), bar.clone());
        let dir = cache_dir()?;
        let task = tokio::task::spawn_blocking(move || {
            ensure_in(&dir, &programs, &bar)?;
            Ok(Self { dir })
        });
        task.await.unwrap_or_else(|ended| {
            Err(ProgramsError::Build { program: "the programs", output: format!("the build task ended: {ended}") })
        })
    }

    /// The file of a program.
    pub fn path(&self, program: Program) -> PathBuf {
        self.dir.join(program.file_name())
    }

    /// The folder with Argo's custom resource definitions; there once the workflow controller is.
    pub fn argo_crds(&self) -> PathBuf {
        crds_in(&self.dir)
    }
}

fn crds_in(dir: &Path) -> PathBuf {
    dir.join("argo-crds")
}

fn cache_dir() -> Result<PathBuf, ProgramsError> {
    let base = match (env::var_os("ACTIVE_MONITOR_CACHE"), env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache/active-monitor-fleet"),
        (None, None) => return Err(ProgramsError::NoCache),
    };
    Ok(base.join("testbed/programs"))
}

fn ensure_in(dir: &Path, programs: &[Program], bar: &ProgressBar) -> Result<(), ProgramsError> {
    bar.set_length(programs.len() as u64);
    if programs.iter().all(|program| build::is_fresh(dir, *program)) {
        bar.finish_with_message("up to date");
        return Ok(());
    }
    let cache_error = |source| ProgramsError::Cache { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(cache_error)?;
    let lock = File::create(dir.join("lock")).map_err(cache_error)?;
    bar.set_message("waiting for another build");
    lock.lock().map_err(cache_error)?;
    for program in programs {
        bar.set_message(program.file_name());
        // Looked at again under the lock: the other build may have been of the same programs.
        if !build::is_fresh(dir, *program) {
            build::build(dir, *program)?;
        }
        bar.inc(1);
    }
    bar.finish_with_message("built");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_go_the_error_says_so() {
        let empty = tempfile::tempdir().unwrap();
        let error = build::build_with(empty.path(), Program::Etcd, "no-such-go").unwrap_err();
        assert!(matches!(error, ProgramsError::NoGo { program: "etcd", .. }), "{error}");
    }

    #[test]
    fn a_program_without_its_stamp_is_not_fresh() {
        let cache = tempfile::tempdir().unwrap();
        fs::write(cache.path().join("etcd"), "").unwrap();
        assert!(!build::is_fresh(cache.path(), Program::Etcd));
        fs::write(cache.path().join("etcd.stamp"), build::stamp(Program::Etcd)).unwrap();
        assert!(build::is_fresh(cache.path(), Program::Etcd));
    }
}
