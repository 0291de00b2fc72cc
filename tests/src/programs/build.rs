//! How a program is built: its wrapper module is written into the cache and `go build` run there.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{ARGO_VERSION, HELM_VERSION, KUBERNETES_VERSION, Program, ProgramsError, crds_in};

const ARGO_MODULE: &str = "github.com/argoproj/argo-workflows/v3";
const HELM_MODULE: &str = "helm.sh/helm/v4";
const OUTPUT_TAIL_CHARS: usize = 2_000;

/// A wrapper module: it pins the versions of a family of programs.
struct Module {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// Where programs run in containers, too: these have no C library. The whole family then does without, so that its
    /// programs share what Go has compiled.
    in_containers: Option<LostLink>,
}

/// A symbolic link of a module's repository that is not in the module's zip, since such zips carry no links.
struct LostLink {
    module: &'static str,
    folder: &'static str,
    link: &'static str,
    target: &'static str,
}

const ETCD: Module = Module {
    name: "etcd",
    go_mod: include_str!("../../programs/etcd/go.mod"),
    go_sum: include_str!("../../programs/etcd/go.sum"),
    in_containers: None,
};
const KUBERNETES: Module = Module {
    name: "kubernetes",
    go_mod: include_str!("../../programs/kubernetes/go.mod"),
    go_sum: include_str!("../../programs/kubernetes/go.sum"),
    in_containers: None,
};
const ARGO: Module = Module {
    name: "argo",
    go_mod: include_str!("../../programs/argo/go.mod"),
    go_sum: include_str!("../../programs/argo/go.sum"),
    in_containers: Some(LostLink {
        module: ARGO_MODULE,
        folder: "workflow/executor/osspecific",
        link: "signal_linux.go",
        target: "signal_darwin.go",
    }),
};
const HELM: Module = Module {
    name: "helm",
    go_mod: include_str!("../../programs/helm/go.mod"),
    go_sum: include_str!("../../programs/helm/go.sum"),
    in_containers: None,
};

const LUA: Module = Module {
    name: "lua",
    go_mod: include_str!("../../programs/lua/go.mod"),
    go_sum: include_str!("../../programs/lua/go.sum"),
    in_containers: None,
};

struct Recipe {
    module: Module,
    package: String,
    ldflags: String,
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
    let source = dir.join("src").join(recipe.module.name);
    step.check(fs::create_dir_all(&source))?;
    step.check(fs::write(source.join("go.mod"), recipe.module.go_mod))?;
    step.check(fs::write(source.join("go.sum"), recipe.module.go_sum))?;

    let made = dir.join(format!("{}.new", program.file_name()));
    let mut command = step.command(&source);
    command.args(["build", "-mod=readonly", "-ldflags", &recipe.ldflags, "-o"]).arg(&made);
    if let Some(lost) = &recipe.module.in_containers {
        command.env("CGO_ENABLED", "0").args(step.with_lost_link(&source, &recipe.module, lost)?);
    }
    command.arg(&recipe.package);
    step.run(command)?;
    if program == Program::WorkflowController {
        step.copy_crds(&source)?;
    }
    // The stamp goes last: whatever interrupts this, an old stamp never vouches for a new program or a half one.
    step.check(fs::write(stamp_file(dir, program), ""))?;
    step.check(fs::rename(&made, dir.join(program.file_name())))?;
    step.check(fs::write(stamp_file(dir, program), stamp(program)))
}

/// What identifies the sources and options of a program's build.
pub(super) fn stamp(program: Program) -> String {
    let recipe = recipe(program);
    let mut hash = Sha256::new();
    let in_containers = recipe.module.in_containers.map(|lost| lost.link);
    let parts = [recipe.module.go_mod, recipe.module.go_sum, &recipe.package, &recipe.ldflags];
    for part in parts.into_iter().chain(in_containers) {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

fn stamp_file(dir: &Path, program: Program) -> PathBuf {
    dir.join(format!("{}.stamp", program.file_name()))
}

fn recipe(program: Program) -> Recipe {
    match program {
        Program::Etcd => {
            Recipe { module: ETCD, package: "go.etcd.io/etcd/server/v3".to_owned(), ldflags: "-s -w".to_owned() }
        }
        Program::ApiServer | Program::ControllerManager | Program::Kubectl | Program::Scheduler | Program::Kubelet => {
            let version = "-X k8s.io/component-base/version";
            Recipe {
                module: KUBERNETES,
                package: format!("k8s.io/kubernetes/cmd/{}", program.file_name()),
                // Clients read the server's version, and refuse the placeholder of an unversioned build.
                ldflags: format!(
                    "-s -w {version}.gitVersion={KUBERNETES_VERSION} {version}.gitMajor=1 {version}.gitMinor=36"
                ),
            }
        }
        Program::WorkflowController | Program::Argoexec => Recipe {
            module: ARGO,
            package: format!("{ARGO_MODULE}/cmd/{}", program.file_name()),
            ldflags: format!("-s -w -X {ARGO_MODULE}.version={ARGO_VERSION}"),
        },
        Program::Glua => Recipe {
            module: LUA,
            package: "github.com/yuin/gopher-lua/cmd/glua".to_owned(),
            ldflags: "-s -w".to_owned(),
        },
        Program::Helm => Recipe {
            module: HELM,
            package: format!("{HELM_MODULE}/cmd/helm"),
            ldflags: format!("-s -w -X {HELM_MODULE}/internal/version.version={HELM_VERSION}"),
        },
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

    /// Puts a lost link back where only Go sees it, and gives the arguments that make Go look: a file in an overlay.
    /// Go takes none for files in its module cache, which holds modules as they came; so it is told to find the module
    /// in a folder, which is a link to that place.
    fn with_lost_link(&self, source: &Path, module: &Module, lost: &LostLink) -> Result<[OsString; 3], ProgramsError> {
        let mut download = self.command(source);
        download.args(["mod", "download", lost.module]);
        self.run(download)?;
        let place = source.join("module");
        if place.is_symlink() {
            self.check(fs::remove_file(&place))?;
        }
        self.check(symlink(self.folder_of(source, lost.module)?, &place))?;
        let redirected = format!("{}\nreplace {} => ./module\n", module.go_mod, lost.module);
        self.check(fs::write(source.join("redirected.mod"), redirected))?;
        self.check(fs::write(source.join("redirected.sum"), module.go_sum))?;
        let folder = place.join(lost.folder);
        let overlay = json!({ "Replace": { folder.join(lost.link).display().to_string(): folder.join(lost.target) } });
        let overlay_file = source.join("overlay.json");
        self.check(fs::write(&overlay_file, overlay.to_string()))?;
        Ok(["-modfile=redirected.mod".into(), "-overlay".into(), overlay_file.into()])
    }

    /// Where the module cache has a module that was downloaded.
    fn folder_of(&self, source: &Path, module: &str) -> Result<PathBuf, ProgramsError> {
        let mut command = self.command(source);
        command.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]);
        self.run(command).map(PathBuf::from)
    }

    fn copy_crds(&self, source: &Path) -> Result<(), ProgramsError> {
        let module = self.folder_of(source, ARGO_MODULE)?;
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
