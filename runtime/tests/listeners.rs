//! The listeners over real sockets: certificates replaced while they run, silent callers, streams at the stop.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says by a panic what is wrong")]

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_runtime::admin::{self, Readiness};
use active_monitor_runtime::http;
use active_monitor_runtime::tls::files::{Change, FilesError, IdentityFiles};
use active_monitor_runtime::tls::{
    self, ALPN_HTTP_1, Identity, Limits, MAX_HANDSHAKES, Refusals, Refused, TlsIncoming,
};
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
    tls::server_config(identity, tls::Clients::Anonymous, &[ALPN_HTTP_1]).unwrap()
}

async fn listen(
    config: &Arc<ArcSwap<rustls::ServerConfig>>,
    limits: Limits,
    stop: &CancellationToken,
) -> (TlsIncoming, Refusals) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusals = Refusals::new("refused").unwrap();
    let named = ("test", limits);
    let incoming = tls::serve_tls(listener, Arc::clone(config), named, refusals.clone(), stop.clone()).unwrap();
    (incoming, refusals)
}

/// Waits until so many were refused for this reason.
async fn refused(refusals: &Refusals, why: Refused, at_least: u64) {
    let counted = async {
        while refusals.total("test", why) < at_least {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, counted).await.unwrap_or_else(|_| panic!("{why:?} not counted"));
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
    let (incoming, _) = listen(&config, Limits { connections: 8, per_caller: 8 }, &stop).await;
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

/// As a Secret is mounted: a link to a folder takes another's place at once.
fn mount(dir: &Path, version: &str, certificate: &str, key: &str) {
    std::fs::create_dir(dir.join(version)).unwrap();
    std::fs::write(dir.join(version).join("tls.crt"), certificate).unwrap();
    std::fs::write(dir.join(version).join("tls.key"), key).unwrap();
    std::os::unix::fs::symlink(version, dir.join("next")).unwrap();
    std::fs::rename(dir.join("next"), dir.join("data")).unwrap();
}

#[tokio::test]
async fn files_are_reloaded_and_bad_ones_leave_the_certificate_before() {
    tls::install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (certificate(), certificate());
    let put = |version, one: &CertifiedKey<KeyPair>, key: &CertifiedKey<KeyPair>| {
        mount(dir.path(), version, &one.cert.pem(), &key.signing_key.serialize_pem());
    };
    put("1", &first, &first);
    let data = dir.path().join("data");
    let files = IdentityFiles { certificate: data.join("tls.crt"), key: data.join("tls.key") };
    let config = Arc::new(ArcSwap::from_pointee(files.load(&[ALPN_HTTP_1]).unwrap()));
    let stop = CancellationToken::new();
    let (mut incoming, _) = listen(&config, Limits { connections: 8, per_caller: 8 }, &stop).await;
    let address = incoming.local_addr();
    let accepting = tokio::spawn(async move { while incoming.accept().await.is_some() {} });
    let (told, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let ended = stop.clone();
    let following = tokio::spawn(async move {
        let every = Duration::from_millis(10);
        files.follow(&[ALPN_HTTP_1], every, config, |change| told.send(change).unwrap(), ended).await;
    });
    let mut next = async || tokio::time::timeout(DEADLINE, changes.recv()).await.unwrap().unwrap();
    connect(address, first.cert.der()).await.unwrap();
    // The key of another certificate, no PEM at all, and nothing there.
    put("2", &second, &first);
    assert!(matches!(next().await, Change::Refused(FilesError::Tls { .. })));
    mount(dir.path(), "3", "nothing", &first.signing_key.serialize_pem());
    assert!(matches!(next().await, Change::Refused(FilesError::Pem { expected: "certificates", .. })));
    std::fs::remove_file(&data).unwrap();
    assert!(matches!(next().await, Change::Refused(FilesError::Read { .. })));
    connect(address, first.cert.der()).await.unwrap();
    put("4", &second, &second);
    assert!(matches!(next().await, Change::Replaced));
    connect(address, second.cert.der()).await.unwrap();
    assert!(connect(address, first.cert.der()).await.is_err());
    stop.cancel();
    tokio::time::timeout(DEADLINE, following).await.unwrap().unwrap();
    accepting.abort();
}

#[tokio::test]
async fn as_many_silent_callers_as_there_are_handshakes_keep_nobody_out() {
    tls::install_crypto_provider();
    let certificate = certificate();
    let config = Arc::new(ArcSwap::from_pointee(server(&certificate)));
    let stop = CancellationToken::new();
    let (incoming, refusals) = listen(&config, Limits { connections: 8, per_caller: 8 }, &stop).await;
    let address = incoming.local_addr();
    tokio::spawn(http::serve_tls(incoming, admin::router(Readiness::default()), stop.clone()));

    let mut silent = Vec::new();
    for _ in 0..MAX_HANDSHAKES + 4 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    refused(&refusals, Refused::Displaced, 4).await;
    let mut honest = connect(address, certificate.cert.der()).await.unwrap();
    assert!(ask(&mut honest, "/healthz").await.starts_with("HTTP/1.1 200"));
    // The one that waited longest is gone, the newest is not.
    assert_eq!(tokio::time::timeout(DEADLINE, silent[0].read(&mut [0])).await.unwrap().unwrap(), 0);
    assert!(silent[MAX_HANDSHAKES + 3].try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    // What is no TLS is refused at once.
    let mut garbage = TcpStream::connect(address).await.unwrap();
    garbage.write_all(&[0xff; 4096]).await.unwrap();
    refused(&refusals, Refused::Handshake, 1).await;
    stop.cancel();
}

#[tokio::test]
async fn connections_are_bounded_for_each_caller_and_for_all_and_a_closed_one_makes_room() {
    tls::install_crypto_provider();
    let certificate = certificate();
    let config = Arc::new(ArcSwap::from_pointee(server(&certificate)));
    let stop = CancellationToken::new();
    for (limits, why) in [
        (Limits { connections: 8, per_caller: 2 }, Refused::Caller),
        (Limits { connections: 2, per_caller: 8 }, Refused::Full),
    ] {
        let (incoming, refusals) = listen(&config, limits, &stop).await;
        let address = incoming.local_addr();
        tokio::spawn(http::serve_tls(incoming, admin::router(Readiness::default()), stop.clone()));
        let mut first = connect(address, certificate.cert.der()).await.unwrap();
        let mut second = connect(address, certificate.cert.der()).await.unwrap();
        assert!(ask(&mut first, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(&mut second, "/healthz").await.starts_with("HTTP/1.1 200"));
        // TLS 1.3: the client is through its handshake before the server closes.
        let _third = connect(address, certificate.cert.der()).await;
        refused(&refusals, why, 1).await;
        assert!(ask(&mut first, "/healthz").await.starts_with("HTTP/1.1 200"));
        drop(second);
        let room = async {
            loop {
                let mut next = connect(address, certificate.cert.der()).await.unwrap();
                let asked = next.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                let mut answer = [0; 64];
                if asked.is_ok() && next.read(&mut answer).await.is_ok_and(|read| read > 0) {
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE, room).await.unwrap();
    }
    stop.cancel();
}

#[tokio::test]
async fn a_caller_that_says_nothing_behind_its_handshake_is_let_go() {
    tls::install_crypto_provider();
    let certificate = certificate();
    let config = Arc::new(ArcSwap::from_pointee(server(&certificate)));
    let stop = CancellationToken::new();
    let (incoming, refusals) = listen(&config, Limits { connections: 8, per_caller: 8 }, &stop).await;
    let address = incoming.local_addr();
    tokio::spawn(http::serve_tls(incoming, admin::router(Readiness::default()), stop.clone()));
    // Nor in it, or half of it.
    let mut mute = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&[0x16, 3, 1, 1, 0]).await.unwrap();
    let mut silent = connect(address, certificate.cert.der()).await.unwrap();
    silent.write_all(b"GET /").await.unwrap();
    refused(&refusals, Refused::Slow, 3).await;
    let read = tokio::time::timeout(DEADLINE, silent.read(&mut [0])).await.unwrap();
    assert!(read.is_err() || read.is_ok_and(|bytes| bytes == 0), "the connection is closed");
    for stream in [&mut mute, &mut half] {
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut [0])).await.unwrap();
        assert!(read.is_err() || read.is_ok_and(|bytes| bytes == 0), "the connection is closed");
    }
    stop.cancel();
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
