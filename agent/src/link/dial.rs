//! Opens the connection under a session: TCP, TLS 1.3, HTTP/2.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_runtime::cut::{Cuttable, Progress, Written};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint, Uri};

use super::proxy;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// The address is no `host:port`.
    #[error("the address is not host:port")]
    Address,
    /// TCP or the TLS handshake failed: the sources say which.
    #[error("the connection could not be made")]
    Connect(#[source] tonic::transport::Error),
    /// The key is no PEM.
    #[error("the key cannot be read")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// A connection. Dropping it closes it, also where the hub takes nothing of what is still to be sent.
pub(crate) struct Line {
    pub(crate) channel: Channel,
    pub(crate) progress: Progress,
    _open: DropGuard,
}

/// The one crypto provider of this process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    match CryptoProvider::get_default() {
        Some(provider) => Arc::clone(provider),
        None => Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    }
}

/// TLS 1.3 and HTTP/2 only; `finish` decides who is trusted and who the agent is.
pub(crate) fn client_config(
    finish: impl FnOnce(ConfigBuilder<ClientConfig, WantsVerifier>) -> Result<ClientConfig, DialError>,
) -> Result<ClientConfig, DialError> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(DialError::Tls)?;
    let mut config = finish(builder)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Opens one connection. It is not opened again when it breaks: that is for the caller to time.
pub(crate) async fn connect(address: &str, tls: Arc<ClientConfig>) -> Result<Line, DialError> {
    let uri: Uri = format!("http://{address}").parse().map_err(|_| DialError::Address)?;
    let (Some(host), Some(_)) = (uri.host(), uri.port()) else { return Err(DialError::Address) };
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|_| DialError::Address)?;
    let connector = TlsConnector::from(tls);
    let address = address.to_owned();
    let dial = move || {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let tcp = proxy::connect(&address, &Matcher::from_env()).await?;
            tcp.set_nodelay(true)?;
            connector.connect(name, tcp).await
        }
    };
    over(uri, dial).await
}

/// HTTP/2 over a connection that `dial` opens, in time.
pub(super) async fn over<Io, Dialled>(uri: Uri, dial: impl Fn() -> Dialled + Send + 'static) -> Result<Line, DialError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Dialled: Future<Output = io::Result<Io>> + Send + 'static,
{
    // The scheme stays http for tonic, which would else ask for its own TLS, that can change neither key nor trust.
    let endpoint = Endpoint::from(uri)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let open = CancellationToken::new();
    let cut = open.clone();
    let written = Written::default();
    let counted = written.clone();
    let dial = tower::service_fn(move |_: Uri| {
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, dial());
        let (cut, written) = (cut.child_token(), counted.clone());
        async move {
            let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time"));
            dialled.await.unwrap_or_else(late).map(|io| TokioIo::new(Cuttable::new(io, cut, written)))
        }
    });
    let channel = endpoint.connect_with_connector(dial).await.map_err(DialError::Connect)?;
    Ok(Line { channel, progress: Progress::new(written), _open: open.drop_guard() })
}
