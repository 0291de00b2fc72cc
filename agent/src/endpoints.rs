//! What the agent tells whoever runs it: `/metrics` on one listener, over TLS where that is asked for, `/healthz` and
//! `/readyz` on the other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_runtime::admin::{self, Readiness};
use active_monitor_runtime::http;
use active_monitor_runtime::tasks::Tasks;
use active_monitor_runtime::tls::files::{Change, FilesError, IdentityFiles};
use active_monitor_runtime::tls::{self, ALPN_H2, ALPN_HTTP_1, Clients, Identity, Limits, Refusals, TlsError};
use anyhow::Context as _;
use arc_swap::ArcSwap;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;

/// How often the files of a certificate are looked at.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// What the listener of metrics speaks over TLS.
const ALPN: [&[u8]; 2] = [ALPN_H2, ALPN_HTTP_1];
/// Who asks for metrics: a Prometheus or two, and a person.
const LIMITS: Limits = Limits { connections: 64, per_caller: 16 };

/// How `/metrics` is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Over plain HTTP.
    None,
    /// Over TLS, with a certificate that the agent signs itself at each start.
    SelfSigned,
    /// Over TLS, with the certificate in this folder.
    Folder(PathBuf),
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Those in the folder cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The certificate cannot be made.
    #[error("the certificate cannot be made")]
    Made(#[source] rcgen::Error),
    /// What was made makes no server.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Serves `/metrics` at this address until the process ends; gives the address with its port.
///
/// # Errors
/// When the address is taken, or there is no certificate.
pub(crate) async fn serve_metrics(
    tasks: &Tasks,
    address: SocketAddr,
    security: &Security,
) -> anyhow::Result<SocketAddr> {
    let (listener, stop) = (listen(address).await?, tasks.stop_token());
    let address = listener.local_addr()?;
    let (config, files) = match security {
        Security::None => {
            tasks.supervise("metrics", http::serve_plain(listener, admin::metrics(), stop));
            return Ok(address);
        }
        Security::SelfSigned => (self_signed(), None),
        Security::Folder(folder) => {
            let files = files(folder);
            (files.load(&ALPN).map_err(CertificateError::from), Some(files))
        }
    };
    let config = Arc::new(ArcSwap::from_pointee(config.context("/metrics cannot be served over TLS")?));
    let refusals = Refusals::new("activemonitor_agent_connections_refused_total")?;
    prometheus::default_registry().register(refusals.collector()).ok();
    let incoming = tls::serve_tls(listener, Arc::clone(&config), ("metrics", LIMITS), refusals, stop.clone())?;
    tasks.supervise("metrics", http::serve_tls(incoming, admin::metrics(), stop.clone()));
    if let Some(files) = files {
        let follow = async move { files.follow(&ALPN, READ_AGAIN, config, changed, stop).await };
        crate::supervise(tasks, "certificate of metrics", follow);
    }
    Ok(address)
}

fn changed(change: Change) {
    match change {
        Change::Replaced => tracing::info!("the certificate of /metrics is replaced"),
        Change::Refused(error) => tracing::warn!(%error, "the certificate of /metrics is not replaced"),
    }
}

/// Serves `/healthz` and `/readyz` at this address until the process ends; gives the address with its port.
///
/// # Errors
/// When the address is taken.
pub(crate) async fn serve_probes(
    tasks: &Tasks,
    address: SocketAddr,
    readiness: Readiness,
) -> anyhow::Result<SocketAddr> {
    let listener = listen(address).await?;
    let address = listener.local_addr()?;
    tasks.supervise("probes", http::serve_plain(listener, admin::probes(readiness), tasks.stop_token()));
    Ok(address)
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// As a Secret of the type kubernetes.io/tls has them.
fn files(folder: &Path) -> IdentityFiles {
    IdentityFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
}

/// A certificate that nobody can check: it keeps who only listens from reading along, as active-monitor's does.
fn self_signed() -> Result<ServerConfig, CertificateError> {
    let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned());
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![name]).map_err(CertificateError::Made)?;
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let identity = Identity { chain: vec![cert.der().clone()], key };
    Ok(tls::server_config(identity, Clients::Anonymous, &ALPN)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of an answer, whoever signed the certificate; `None` without an answer.
    async fn ask(url: String) -> Option<u16> {
        let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
        Some(client.get(url).send().await.ok()?.status().as_u16())
    }

    #[tokio::test]
    async fn each_listener_answers_what_it_is_for_and_metrics_over_tls_where_asked() {
        tls::install_crypto_provider();
        let (tasks, any) = (Tasks::new(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let probes = serve_probes(&tasks, any, Readiness::default()).await.unwrap();
        let plain = serve_metrics(&tasks, any, &Security::None).await.unwrap();
        let secure = serve_metrics(&tasks, any, &Security::SelfSigned).await.unwrap();
        for (url, status) in [
            (format!("http://{probes}/healthz"), Some(200)),
            (format!("http://{probes}/readyz"), Some(503)),
            (format!("http://{probes}/metrics"), Some(404)),
            (format!("http://{plain}/metrics"), Some(200)),
            (format!("http://{plain}/healthz"), Some(404)),
            (format!("http://{plain}/readyz"), Some(404)),
            (format!("https://{secure}/metrics"), Some(200)),
            (format!("https://{secure}/healthz"), Some(404)),
            (format!("http://{secure}/metrics"), None),
        ] {
            assert_eq!(ask(url.clone()).await, status, "{url}");
        }
        tasks.stop();
    }
}
