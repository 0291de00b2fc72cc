//! TLS 1.3 listeners whose certificates can be replaced while they run.
//!
//! A handshake has its own task and a deadline, and their number is bounded, as is that of connections: a silent or hostile
//! caller costs a place for a few seconds, not the listener.

pub mod files;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::Stream;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use self::admission::{Connection, Limits, MAX_HANDSHAKES, Peer, Refusals, Refused};
use self::admission::{Gate, Handshake};

mod admission;
#[cfg(test)]
mod tests;

/// Time a caller has for its handshake, and again for its first bytes behind it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
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

/// Which certificates clients show.
#[derive(Clone, Copy, Debug)]
pub enum Clients<'a> {
    /// None.
    Anonymous,
    /// One of these CAs, before its time is over.
    Certified(&'a [CertificateDer<'static>]),
    /// None, or one of these CAs, also when its time is over: who asks for a new one proves his key by the old one.
    Expired(&'a [CertificateDer<'static>]),
}

/// Takes certificates whose time has not begun: they were made by a clock that was ahead. Where none has to be shown, also
/// those whose time is over. None is taken that was never good.
#[derive(Debug)]
struct AnyAge {
    verifier: Arc<dyn ClientCertVerifier>,
    is_mandatory: bool,
}

impl ClientCertVerifier for AnyAge {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Judged as of its first second or its last: everything but its age has to be right.
        let then = match self.verifier.verify_client_cert(end_entity, intermediates, now) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => not_before,
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }))
                if !self.is_mandatory =>
            {
                not_after
            }
            other => return other,
        };
        self.verifier.verify_client_cert(end_entity, intermediates, then)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn verifier(
    certificates: &[CertificateDer<'static>],
    is_mandatory: bool,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(TlsError::ClientCa)?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(TlsError::Verifier)?;
    Ok(Arc::new(AnyAge { verifier, is_mandatory }))
}

/// A server's configuration: TLS 1.3 only, no resumption, so that each connection is judged by today's certificates.
///
/// # Errors
/// The identity or the CA cannot be used.
pub fn server_config(identity: Identity, clients: Clients<'_>, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = match clients {
        Clients::Anonymous => builder.with_no_client_auth(),
        Clients::Certified(ca) => builder.with_client_cert_verifier(verifier(ca, true)?),
        Clients::Expired(ca) => builder.with_client_cert_verifier(verifier(ca, false)?),
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
    accepted: mpsc::Receiver<(Connection, SocketAddr)>,
    local_addr: SocketAddr,
}

/// Accepts TLS connections until `stop`, as many as `limits` allow. Each handshake uses the configuration of its moment, so
/// replacing it needs no restart and cuts nobody. `name` is the listener's in the counters of `refusals`.
///
/// # Errors
/// The listener's own address cannot be read.
pub fn serve_tls(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    (name, limits): (&'static str, Limits),
    refusals: Refusals,
    stop: CancellationToken,
) -> io::Result<TlsIncoming> {
    let local_addr = listener.local_addr()?;
    let (sender, accepted) = mpsc::channel(ACCEPTED_QUEUE);
    let gate = Arc::new(Gate::new(name, limits, refusals));
    tokio::spawn(async move {
        tokio::select! {
            () = accept_all(listener, config, gate, sender.clone()) => {}
            () = stop.cancelled() => {}
            () = sender.closed() => {}
        }
    });
    Ok(TlsIncoming { accepted, local_addr })
}

async fn accept_all(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    gate: Arc<Gate>,
    accepted: mpsc::Sender<(Connection, SocketAddr)>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                gate.count(Refused::System);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(config.load_full());
        // Further callers wait in the system's backlog meanwhile.
        let handshake = gate.begin().await;
        let (gate, accepted) = (Arc::clone(&gate), accepted.clone());
        tokio::spawn(async move {
            match shake_hands(stream, peer, acceptor, handshake).await {
                // The receiver is gone when the server stops: the connection is dropped with it.
                Ok(connection) => drop(accepted.send((connection, peer)).await),
                Err(refused) => gate.count(refused),
            }
        });
    }
}

async fn shake_hands(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    handshake: Handshake,
) -> Result<Connection, Refused> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "no TCP_NODELAY");
    }
    let displaced = handshake.displaced.clone();
    let timed = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = match displaced.run_until_cancelled(timed).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => {
            tracing::info!(%error, %peer, "TLS handshake failed");
            return Err(Refused::Handshake);
        }
        Some(Err(_)) => {
            tracing::info!(%peer, "TLS handshake timed out");
            return Err(Refused::Slow);
        }
        None => {
            tracing::info!(%peer, "TLS handshake gave way to a newer one");
            return Err(Refused::Displaced);
        }
    };
    handshake.done(stream, peer.ip()).inspect_err(|refused| tracing::warn!(?refused, %peer, "connection refused"))
}

impl Stream for TlsIncoming {
    type Item = io::Result<Connection>;

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
    pub async fn accept(&mut self) -> Option<(Connection, SocketAddr)> {
        self.accepted.recv().await
    }
}
