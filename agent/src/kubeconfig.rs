//! How the agent reaches its API server: as a pod does, or as a kubeconfig says.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A connection on which nothing comes for so long is dead: a watch is opened anew before.
const READ_LIMIT: Duration = Duration::from_secs(330);

/// The configuration of the client: of this kubeconfig, else of the pod.
///
/// # Errors
/// The file cannot be read, or names a proxy; or there is none, and this is no pod.
pub(crate) async fn read(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Config> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
            anyhow::ensure!(
                !names_a_proxy(&file),
                "{} names a proxy (proxy-url), and the agent asks the API server without one: give it a kubeconfig without \
                 proxy-url, on a machine that reaches the API server, or run it in the cluster",
                path.display()
            );
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::incluster().context("not in a pod and no kubeconfig given; use --kubeconfig FILE")?,
    };
    // The environment's is for the way to the hub, and kube would not ask whether `NO_PROXY` has the API server.
    config.proxy_url = None;
    // A request that is sent again behind the gate's back would pass the fence and the pause unseen.
    config.default_retry = false;
    config.read_timeout = Some(READ_LIMIT);
    Ok(config)
}

/// Whether the current context's cluster does.
fn names_a_proxy(file: &Kubeconfig) -> bool {
    let context = file.contexts.iter().find(|named| Some(&named.name) == file.current_context.as_ref());
    let cluster = context.and_then(|named| Some(named.context.as_ref()?.cluster.as_str()));
    let cluster = file.clusters.iter().find(|named| Some(named.name.as_str()) == cluster);
    let proxy = cluster.and_then(|named| named.cluster.as_ref()?.proxy_url.as_deref());
    proxy.is_some_and(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clusters, of which the current context's is `there`; `other` names a proxy.
    async fn read_one(more: &str) -> anyhow::Result<kube::Config> {
        let text = format!(
            "current-context: there
contexts:
- {{name: there, context: {{cluster: there, user: agent}}}}
- {{name: other, context: {{cluster: other, user: agent}}}}
clusters:
- {{name: other, cluster: {{server: 'https://10.0.0.2', proxy-url: 'http://proxy.example.com:3128'}}}}
- {{name: there, cluster: {{server: 'https://10.0.0.1'{more}}}}}
users: [{{name: agent, user: {{token: t}}}}]
"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        read(Some(&path)).await
    }

    #[tokio::test]
    async fn a_kubeconfig_that_names_a_proxy_is_refused_with_what_to_do_and_another_contexts_is_no_matter() {
        let config = read_one("").await.unwrap();
        assert_eq!(
            (config.cluster_url.host(), config.proxy_url, config.default_retry),
            (Some("10.0.0.1"), None, false)
        );
        assert!(read_one(", proxy-url: ''").await.is_ok(), "none");
        let error = read_one(", proxy-url: 'socks5://user:secret@proxy.example.com'").await.unwrap_err().to_string();
        assert!(error.contains("without proxy-url") && !error.contains("secret"), "{error}");
    }
}
