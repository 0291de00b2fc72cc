//! How a program is built: its wrapper module is written into the cache and `go build` run there.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use sha2::{Digest as _, Sha256};

use super::{ARGO_VERSION, KUBERNETES_VERSION, Program, ProgramsError, crds_in};

const ARGO_MODULE: &str = "github.com/argoproj/argo-workflows/v3";
const OUTPUT_TAIL_CHARS: usize = 2_000;

/// A wrapper module: it pins the versions of a family of programs.
struct Module {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
}

const ETCD: Module = Module {
    name: "etcd",
    go_mod: include_str!("../../programs/etcd/go.mod"),
    go_sum: include_str!("../../programs/etcd/go.sum"),
};
const KUBERNETES: Module = Module {
    name: "kubernetes",
    go_mod: include_str!("../../programs/kubernetes/go.mod"),
    go_sum: include_str!("../../programs/kubernetes/go.sum"),
};
const ARGO: Module = Module {
    name: "argo",
    go_mod: include_str!("../../programs/argo/go.mod"),
    go_sum: include_str!("../../programs/argo/go.sum"),
};

struct Recipe {
    module: Module,
    package: String,
    ldflags: String,
    /// For a container without a C library; needs a vendored tree, see [`vendor`].
    in_container: bool,
}

/// Whether the program is in the cache and built from the sources of this testbed.
pub(super) fn is_fresh(dir: &Path, program: Program) -> bool {
    let crds_there = program != Program::WorkflowController || crds_in(dir).is_dir();
    let stamped = fs::read_to_string(stamp_file(dir, program)).is_ok_and(|found| found == stamp(program));
    crds_there && stamped && dir.join(program.file_name()).is_file()
}

/// Builds the program; the caller holds the cache's lock.
pub(super) fn build(dir: &Path, program: Program) -> Result<(), ProgramsError> {
    build_with(dir, program, "go")
}

pub(super) fn build_with(dir: &Path, program: Program, go: &str) -> Result<(), ProgramsError> {
    let recipe = recipe(program);
    let step = Step { dir, program, go };
    let source = dir.join("src").join(if recipe.in_container { program.file_name() } else { recipe.module.name });
    step.check(fs::create_dir_all(&source))?;
    step.check(fs::write(source.join("go.mod"), recipe.module.go_mod))?;
    step.check(fs::write(source.join("go.sum"), recipe.module.go_sum))?;
    let mode = if recipe.in_container {
        step.vendor(&source)?;
        "-mod=vendor"
    } else {
        "-mod=readonly"
    };

    let made = dir.join(format!("{}.new", program.file_name()));
    let mut command = step.command(&source);
    command.args(["build", mode, "-ldflags", &recipe.ldflags, "-o"]).arg(&made).arg(&recipe.package);
    if recipe.in_container {
        command.env("CGO_ENABLED", "0");
    }
    step.run(command)?;
    if program == Program::WorkflowController {
        step.copy_crds(&source)?;
    }
    // The stamp goes last: whatever interrupts this, an old stamp never vouches for a new program or a half one.
    step.check(fs::write(stamp_file(dir, program), ""))?;
    step.check(fs::rename(&made, dir.join(program.file_name())))?;
    if recipe.in_container {
        step.check(fs::remove_dir_all(&source))?;
    }
    step.check(fs::write(stamp_file(dir, program), stamp(program)))
}

/// What identifies the sources and options of a program's build.
pub(super) fn stamp(program: Program) -> String {
    let recipe = recipe(program);
    let mut hash = Sha256::new();
    for part in [recipe.module.go_mod, recipe.module.go_sum, &recipe.package, &recipe.ldflags] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

fn stamp_file(dir: &Path, program: Program) -> PathBuf {
    dir.join(format!("{}.stamp", program.file_name()))
}

fn recipe(program: Program) -> Recipe {
    let of_kubernetes = || {
        let version = "-X k8s.io/component-base/version";
        Recipe {
            module: KUBERNETES,
            package: format!("k8s.io/kubernetes/cmd/{}", program.file_name()),
            // Clients read the server's version, and refuse the placeholder of an unversioned build.
            ldflags: format!(
                "-s -w {version}.gitVersion={KUBERNETES_VERSION} {version}.gitMajor=1 {version}.gitMinor=36"
            ),
            in_container: false,
        }
    };
    let of_argo = |in_container| Recipe {
        module: ARGO,
        package: format!("{ARGO_MODULE}/cmd/{}", program.file_name()),
        ldflags: format!("-s -w -X {ARGO_MODULE}.version={ARGO_VERSION}"),
        in_container,
    };
    match program {
        Program::Etcd => Recipe {
            module: ETCD,
            package: "go.etcd.io/etcd/server/v3".to_owned(),
            ldflags: "-s -w".to_owned(),
            in_container: false,
        },
        Program::ApiServer | Program::ControllerManager | Program::Kubectl | Program::Scheduler | Program::Kubelet => {
            of_kubernetes()
        }
        Program::WorkflowController => of_argo(false),
        Program::Argoexec => of_argo(true),
    }
}

/// The build of one program, for errors that name it.
struct Step<'a> {
    dir: &'a Path,
    program: Program,
    go: &'a str,
}

impl Step<'_> {
    fn command(&self, source: &Path) -> Command {
        let mut command = Command::new(self.go);
        // What the caller's environment says about modules is about other modules.
        command.current_dir(source).env_remove("GOFLAGS").env("GOWORK", "off");
        command
    }

    fn run(&self, mut command: Command) -> Result<String, ProgramsError> {
        let name = self.program.file_name();
        let Output { status, stdout, stderr } = command.output().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                ProgramsError::NoGo { program: name, cache: self.dir.to_owned() }
            } else {
                ProgramsError::Build { program: name, output: error.to_string() }
            }
        })?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&stderr);
        let skipped = said.chars().count().saturating_sub(OUTPUT_TAIL_CHARS);
        let output = format!("{status}: {}", said.chars().skip(skipped).collect::<String>().trim());
        Err(ProgramsError::Build { program: name, output })
    }

    fn check<T>(&self, result: io::Result<T>) -> Result<T, ProgramsError> {
        result.map_err(|source| ProgramsError::Cache { path: self.dir.to_owned(), source })
    }

    /// Makes a vendored tree with the file that Argo's module zip lacks: `signal_linux.go` is a symbolic link in its
    /// repository, and module zips carry none.
    fn vendor(&self, source: &Path) -> Result<(), ProgramsError> {
        let mut command = self.command(source);
        command.args(["mod", "vendor"]);
        self.run(command)?;
        let folder = source.join("vendor").join(ARGO_MODULE).join("workflow/executor/osspecific");
        match symlink("signal_darwin.go", folder.join("signal_linux.go")) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => self.check(made),
        }
    }

    fn copy_crds(&self, source: &Path) -> Result<(), ProgramsError> {
        let mut command = self.command(source);
        command.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", ARGO_MODULE]);
        let module = PathBuf::from(self.run(command)?);
        let to = crds_in(self.dir);
        self.check(fs::create_dir_all(&to))?;
        for entry in self.check(fs::read_dir(module.join("manifests/base/crds/minimal")))? {
            let from = self.check(entry)?.path();
            let is_crd = from.extension() == Some(OsStr::new("yaml")) && !from.ends_with("kustomization.yaml");
            if let (true, Some(name)) = (is_crd, from.file_name()) {
                // Written anew, not copied: files of the module cache are read-only, and a copy would be too.
                let text = self.check(fs::read(&from))?;
                self.check(fs::write(to.join(name), text))?;
            }
        }
        Ok(())
    }
}
