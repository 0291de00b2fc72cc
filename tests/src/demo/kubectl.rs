//! The reader's `kubectl`, on one context of the reader's kubeconfig.
//!
//! Everything after [`Kubectl::of_context`] goes through a copy of that context in the run folder: whoever sweeps up
//! after a killed demo may have another kubeconfig.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::process::Command;

const KUBECONFIG: &str = "admin.kubeconfig";

/// Runs `kubectl` on one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// The reader's name of the cluster.
    pub context: String,
    /// The demo's folder for this cluster.
    pub dir: PathBuf,
}

impl Kubectl {
    /// Copies the context into `dir`, which is made.
    ///
    /// # Errors
    /// When there is no `kubectl`, or no such context.
    pub async fn of_context(context: &str, dir: PathBuf) -> anyhow::Result<Kubectl> {
        fs::create_dir_all(&dir)?;
        let kubectl = Kubectl { context: context.to_owned(), dir };
        let view = ["config", "view", "--raw", "--minify", "--flatten", "-o", "json", "--context", context];
        let text = finished("config view", command().args(view).output().await)
            .with_context(|| format!("cannot use context {context} (`kubectl config get-contexts` lists yours)"))?;
        write_private(&kubectl.kubeconfig(), &text)?;
        Ok(kubectl)
    }

    /// Runs it and gives its stdout.
    ///
    /// # Errors
    /// When it fails: with its stderr.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        finished(args.first().unwrap_or(&""), self.output(args).await)
            .with_context(|| format!("context {}", self.context))
    }

    /// As [`Kubectl::run`], with `-o json`: the items of the list that it prints, or the one object; nothing where it
    /// prints nothing.
    ///
    /// # Errors
    /// As [`Kubectl::run`], or when that is no JSON.
    pub async fn objects(&self, args: &[&str]) -> anyhow::Result<Vec<Value>> {
        let text = self.run(&[args, &["-o", "json"]].concat()).await?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let mut found: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        Ok(match found.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => vec![found],
        })
    }

    /// Creates those of the objects that are not there, and leaves the others as they are: gives their names.
    ///
    /// # Errors
    /// When one is refused for another reason than that it is there.
    pub async fn create_missing(&self, objects: &[Value]) -> anyhow::Result<Vec<String>> {
        let file = self.list_file(objects)?;
        let output = self.output(&["create", "-f", &file]).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let (there, refused): (Vec<_>, Vec<_>) =
            said.lines().partition(|line| line.contains("(AlreadyExists)") || line.starts_with("Warning:"));
        if !output.status.success() && (!refused.is_empty() || there.is_empty()) {
            bail!("context {}: cannot create: {}", self.context, refused.join("; "));
        }
        let named =
            there.iter().filter_map(|line| Some(line.rsplit_once("\": ")?.1.trim_end_matches(" already exists")));
        Ok(named.map(|name| name.replace('"', "")).collect())
    }

    /// Deletes the objects and waits until they are gone. Those that are not there do not matter.
    ///
    /// # Errors
    /// When one stays.
    pub async fn delete(&self, objects: &[Value]) -> anyhow::Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        let file = self.list_file(objects)?;
        self.run(&["delete", "--ignore-not-found", "--wait", "--timeout=90s", "-f", &file]).await.map(drop)
    }

    /// Writes a kubeconfig for the same server and another user.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn kubeconfig_with_token(&self, token: &str) -> anyhow::Result<PathBuf> {
        let admin: Value = serde_json::from_slice(&fs::read(self.kubeconfig())?)?;
        let cluster = &admin["clusters"][0]["cluster"];
        let config = json!({
            "apiVersion": "v1", "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": "agent", "user": {"token": token}}],
            "contexts": [{"name": "agent", "context": {"cluster": "cluster", "user": "agent"}}],
            "current-context": "agent",
        });
        let path = self.dir.join("agent.kubeconfig");
        write_private(&path, &config.to_string())?;
        Ok(path)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join(KUBECONFIG)
    }

    async fn output(&self, args: &[&str]) -> io::Result<Output> {
        // The reader's own cache would remember kinds that are gone after the demo.
        let cache = self.dir.join("kubectl-cache");
        command().arg("--kubeconfig").arg(self.kubeconfig()).arg("--cache-dir").arg(cache).args(args).output().await
    }

    /// A file with what `kubectl` needs of the objects.
    fn list_file(&self, objects: &[Value]) -> anyhow::Result<String> {
        let path = self.dir.join("objects.json");
        fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        Ok(path.to_str().context("the run folder's path is not UTF-8")?.to_owned())
    }
}

fn command() -> Command {
    let mut command = Command::new("kubectl");
    // The terminal's Ctrl-C is for the demo, which then cleans up with further calls.
    command.process_group(0).stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn finished(what: &str, output: io::Result<Output>) -> anyhow::Result<String> {
    let output = output.map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let next = "no kubectl in PATH: install it (https://kubernetes.io/docs/tasks/tools)";
        anyhow::Error::new(error).context(if missing { next } else { "cannot run kubectl" })
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("it says nothing");
        bail!("kubectl {what}: {last}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
