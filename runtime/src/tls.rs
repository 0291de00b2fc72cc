//! TLS 1.3 listeners whose certificates can be replaced while they run.
//!
//! A handshake has its own task and a deadline, and their number is bounded: a silent or hostile caller costs a place for
//! a few seconds, not the listener.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::Stream;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Time a caller has for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at the same time; further callers wait in the system's backlog.
const MAX_HANDSHAKES: usize = 256;
/// Connections that are through the handshake and not yet taken.
const ACCEPTED_QUEUE: usize = 64;
/// Pause after the system refused to accept: out of descriptors, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// ALPN of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN of HTTP/1.1.
pub const ALPN_HTTP_1: &[u8] = b"http/1.1";

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificate or key cannot be used.
    #[error("the certificate or its key cannot be used")]
    Identity(#[source] rustls::Error),
    /// The CA certificates for clients cannot be used.
    #[error("the CA of the clients cannot be used")]
    ClientCa(#[source] rustls::Error),
    /// The CA certificates for clients are none.
    #[error("the verifier of client certificates cannot be made")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Makes aws-lc-rs the process's crypto provider. Call it first in every main and test; again is harmless.
pub fn install_crypto_provider() {
    // Err means that one is installed already: this one, since no other is in the tree.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A server's certificate chain, leaf first, and its key.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// A server's configuration: TLS 1.3 only, no resumption, so that each connection is judged by today's certificates.
/// With `client_ca` a client certificate of one of those CAs is required.
///
/// # Errors
/// The identity or the CA cannot be used.
pub fn server_config(
    identity: Identity,
    client_ca: Option<&[CertificateDer<'static>]>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = match client_ca {
        Some(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate.clone()).map_err(TlsError::ClientCa)?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(TlsError::Verifier)?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(identity.chain, identity.key).map_err(TlsError::Identity)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Accepted connections, handshake done: a stream for tonic, a listener for axum.
#[derive(Debug)]
pub struct TlsIncoming {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local_addr: SocketAddr,
}

/// Accepts TLS connections until `stop`. Each handshake uses the configuration of its moment, so replacing it needs no
/// restart and cuts nobody.
///
/// # Errors
/// The listener's own address cannot be read.
pub fn serve_tls(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    stop: CancellationToken,
) -> io::Result<TlsIncoming> {
    let local_addr = listener.local_addr()?;
    let (sender, accepted) = mpsc::channel(ACCEPTED_QUEUE);
    tokio::spawn(async move {
        tokio::select! {
            () = accept_all(listener, config, sender.clone()) => {}
            () = stop.cancelled() => {}
            () = sender.closed() => {}
        }
    });
    Ok(TlsIncoming { accepted, local_addr })
}

async fn accept_all(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    accepted: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(config.load_full());
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %peer, "no TCP_NODELAY");
            }
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                // The receiver is gone when the server stops: the connection is dropped with it.
                Ok(Ok(stream)) => drop(accepted.send((stream, peer)).await),
                Ok(Err(error)) => tracing::info!(%error, %peer, "TLS handshake failed"),
                Err(_) => tracing::info!(%peer, "TLS handshake timed out"),
            }
        });
    }
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsStream<TcpStream>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(context).map(|next| next.map(|(stream, _)| Ok(stream)))
    }
}

impl TlsIncoming {
    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next connection and its peer; None when the listener has stopped.
    pub async fn accept(&mut self) -> Option<(TlsStream<TcpStream>, SocketAddr)> {
        self.accepted.recv().await
    }
}
