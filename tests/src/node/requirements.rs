//! What a machine must have to run a node. Looks at files and tries to make namespaces; changes nothing.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::geteuid;

use super::config::{BASH, BUSYBOX, CNI_PLUGINS, NAMESPACES};

/// The Debian packages whose programs a node runs or puts into its images.
pub const PACKAGES: [&str; 10] = [
    "bash-static",
    "busybox-static",
    "containerd",
    "containernetworking-plugins",
    "docker-registry",
    "iproute2",
    "openssl",
    "runc",
    "socat",
    "util-linux",
];

/// Programs that are looked for on the path, with their packages.
const PROGRAMS: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("docker-registry", "docker-registry"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("runc", "runc"),
    ("socat", "socat"),
    ("unshare", "util-linux"),
];

/// Why no node can run on this machine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The process may not do what a node does.
    #[error("a node needs root")]
    Root,
    /// Programs are not installed.
    #[error("a node needs Debian packages: apt-get install --no-install-recommends {}", .0.join(" "))]
    Packages(Vec<&'static str>),
    /// The system refuses namespaces, as it does in an ordinary container.
    #[error("a node needs mount, network and process namespaces: {0}")]
    Namespaces(String),
}

/// Says whether a node can run here.
///
/// # Errors
/// What is missing first.
pub fn requirements() -> Result<(), Missing> {
    if !geteuid().is_root() {
        return Err(Missing::Root);
    }
    let packages = missing_packages();
    if !packages.is_empty() {
        return Err(Missing::Packages(packages));
    }
    let tried = Command::new("unshare").args(NAMESPACES).arg("true").stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Missing::Namespaces(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(Missing::Namespaces(error.to_string())),
    }
}

fn missing_packages() -> Vec<&'static str> {
    let programs = PROGRAMS.iter().filter(|(program, _)| find_program(program).is_none()).map(|(_, package)| *package);
    let plugins = ["bridge", "host-local", "loopback"].map(|plugin| Path::new(CNI_PLUGINS).join(plugin));
    let plugins = plugins.iter().any(|plugin| !plugin.exists()).then_some("containernetworking-plugins");
    let statics = [(BUSYBOX, "busybox-static"), (BASH, "bash-static")];
    let statics = statics.into_iter().filter(|(path, _)| !is_static(Path::new(path))).map(|(_, package)| package);
    programs.chain(plugins).chain(statics).collect::<BTreeSet<_>>().into_iter().collect()
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether a program runs without the libraries of the machine: Debian has a busybox of either kind, in one place.
fn is_static(path: &Path) -> bool {
    // A program with libraries names its loader near its beginning.
    const LOADER: &[u8] = b"/ld-linux";
    fs::read(path).is_ok_and(|file| {
        let head = &file[..file.len().min(4096)];
        head.starts_with(b"\x7fELF") && !head.windows(LOADER.len()).any(|bytes| bytes == LOADER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_a_command_to_run() {
        let missing = Missing::Packages(vec!["runc", "socat"]).to_string();
        assert!(missing.ends_with("apt-get install --no-install-recommends runc socat"), "{missing}");
    }

    #[test]
    fn every_program_is_of_a_listed_package() {
        assert!(PROGRAMS.iter().all(|(_, package)| PACKAGES.contains(package)));
        assert!(PACKAGES.is_sorted());
    }

    #[test]
    fn a_dynamic_program_is_not_static() {
        assert!(!is_static(Path::new("/bin/sh")));
        assert!(!is_static(Path::new("/etc/passwd")));
        assert!(!is_static(Path::new("/no/such/file")));
    }
}
