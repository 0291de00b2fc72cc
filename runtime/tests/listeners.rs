//! The listeners over real sockets: certificates replaced while they run, silent callers, streams at the stop.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_runtime::admin::{self, Readiness};
use active_monitor_runtime::http;
use active_monitor_runtime::tls::{self, ALPN_HTTP_1, Identity};
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
}

fn server(certificate: &CertifiedKey<KeyPair>) -> rustls::ServerConfig {
    let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()).into();
    let identity = Identity { chain: vec![certificate.cert.der().clone()], key };
    tls::server_config(identity, None, &[ALPN_HTTP_1]).unwrap()
}

async fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio::time::timeout(DEADLINE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

/// Asks for a path and reads the first piece of the answer.
async fn ask<Io: AsyncReadExt + AsyncWriteExt + Unpin>(io: &mut Io, path: &str) -> String {
    io.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(DEADLINE, io.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn a_replaced_certificate_counts_for_the_next_caller_and_cuts_nobody() {
    tls::install_crypto_provider();
    let (old, new) = (certificate(), certificate());
    let config = Arc::new(ArcSwap::from_pointee(server(&old)));
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let incoming = tls::serve_tls(listener, Arc::clone(&config), stop.clone()).unwrap();
    let address = incoming.local_addr();
    let readiness = Readiness::default();
    let served = tokio::spawn(http::serve_tls(incoming, admin::router(readiness.clone()), stop.clone()));

    // A caller that says nothing costs nobody anything.
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut first = connect(address, old.cert.der()).await.unwrap();
    assert!(ask(&mut first, "/readyz").await.starts_with("HTTP/1.1 503"));
    readiness.set(true);
    config.store(Arc::new(server(&new)));
    assert!(connect(address, old.cert.der()).await.is_err());
    let mut second = connect(address, new.cert.der()).await.unwrap();
    assert!(ask(&mut second, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(ask(&mut first, "/readyz").await.starts_with("HTTP/1.1 200"));
    stop.cancel();
    tokio::time::timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_endless_answer_does_not_keep_the_server() {
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = || async {
        let first = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"data\n"))]);
        Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
    };
    let router = Router::new().route("/events", get(endless));
    let served = tokio::spawn(http::serve_plain(listener, router, stop.clone()));
    let mut caller = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut caller, "/events").await.starts_with("HTTP/1.1 200"));
    let asked = Instant::now();
    stop.cancel();
    tokio::time::timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10));
}
