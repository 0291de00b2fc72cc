//! Commands as people copy them, from the documentation or from what a program prints, run by a shell.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::process::Command;

use crate::{cluster::Cluster, fleet::project, process};

/// A terminal of somebody who is a cluster's admin. It has nothing of the environment of the test.
pub struct Shell<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    path: String,
    environment: Vec<(String, String)>,
}

impl<'a> Shell<'a> {
    /// In this folder, with these programs beside those of the system.
    pub fn new(cluster: &'a Cluster, folder: &Path, programs: &[PathBuf]) -> Shell<'a> {
        let folders = programs.iter().filter_map(|program| Some(program.parent()?.display().to_string()));
        let path = folders.chain(["/usr/local/bin:/usr/bin:/bin".to_owned()]).collect::<Vec<_>>().join(":");
        Shell { cluster, folder: folder.to_owned(), path, environment: Vec::new() }
    }

    /// With one more variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs this up to the first command that fails, and gives what is printed.
    ///
    /// # Errors
    /// When a command fails; with its stderr.
    pub async fn run(&self, script: &str) -> anyhow::Result<String> {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).current_dir(&self.folder).env_clear();
        shell.env("PATH", &self.path).env("HOME", self.cluster.dir.join("home"));
        shell.env("KUBECONFIG", &self.cluster.kubeconfig);
        shell.envs(self.environment.iter().map(|(name, value)| (name, value)));
        process::output(self.cluster.run(), shell, "").await
    }
}

/// The blocks of commands of a section of docs/install.md, with this in the place of the registry.
///
/// # Errors
/// When there is no such section.
pub fn documented(heading: &str, registry: &str) -> anyhow::Result<Vec<String>> {
    let docs = std::fs::read_to_string(project().join("docs/install.md"))?;
    let section = docs.split("\n## ").find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'));
    let section = section.with_context(|| format!("docs/install.md has no section {heading}"))?;
    let blocks = section.split("\n```").skip(1).step_by(2);
    Ok(blocks.filter_map(|block| block.strip_prefix('\n')).map(|block| block.replace("REGISTRY/", registry)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_gives_its_commands_and_no_others() {
        let blocks = documented("The hub with Helm", "there/").unwrap();
        assert!(
            blocks[0].starts_with("helm install hub ") && blocks[0].contains("there/active-monitor-hub"),
            "{blocks:?}"
        );
        // The one in YAML is no command.
        assert!(blocks[1].starts_with("kubectl ") && blocks.len() == 2, "{blocks:?}");
        assert!(documented("Nothing", "").is_err());
    }
}
