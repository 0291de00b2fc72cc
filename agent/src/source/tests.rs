//! Sources against servers of every kind: real TCP, TLS and HTTP on loopback.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;

const LIMITS: Limits = Limits { connect: Duration::from_millis(700), total: Duration::from_millis(1500) };

/// A server that misbehaves by path, at a port of its own of `127.0.0.1` and `127.0.0.2`.
struct Server {
    port: u16,
    dir: TempDir,
    /// Bytes of bodies that were written.
    sent: Arc<AtomicUsize>,
    /// Which of its addresses were connected to.
    met: Arc<Mutex<Vec<IpAddr>>>,
}

impl Server {
    async fn start() -> Server {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names = ["localhost", "rebind.test", "127.0.0.1", "127.0.0.2"].map(str::to_owned).to_vec();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();

        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let second = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let server = Server { port, dir, sent: Arc::default(), met: Arc::default() };
        for listener in [listener, second] {
            let (acceptor, sent, met) = (acceptor.clone(), server.sent.clone(), server.met.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    met.lock().push(stream.local_addr().unwrap().ip());
                    tokio::spawn(answer(acceptor.clone(), stream, port, sent.clone()));
                }
            });
        }
        server
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    fn config(&self) -> SourceConfig {
        let addresses = Addresses { allowed: vec!["127.0.0.1/32".parse().unwrap()], ..Addresses::default() };
        SourceConfig { addresses, ca_file: Some(self.dir.path().join("ca.pem")), ..SourceConfig::default() }
    }

    async fn sources(&self) -> Sources {
        Sources::with(self.config(), LIMITS, names(vec!["127.0.0.1"])).await.unwrap()
    }
}

/// Every name has these addresses, one after the other with each look-up, and the last one from then on.
fn names(answers: Vec<&str>) -> address::Lookup {
    let answers: VecDeque<SocketAddr> = answers.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect();
    let answers = Arc::new(Mutex::new(answers));
    Arc::new(move |_| {
        let mut answers = answers.lock();
        let found = if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() };
        Box::pin(async move { Ok(found.into_iter().collect()) })
    })
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream, port: u16, sent: Arc<AtomicUsize>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap();
    let _ = misbehave(&mut stream, path, port, &sent).await;
    let _ = stream.shutdown().await;
}

async fn misbehave(
    stream: &mut TlsStream<TcpStream>,
    path: &str,
    port: u16,
    sent: &AtomicUsize,
) -> std::io::Result<()> {
    // It answers once: a client that is not told keeps the connection and may ask again before it sees the end.
    let document = |body: &[u8], more: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let redirect = |to: &str| {
        format!("HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    let whole = match path {
        "/good" => document(b"good", ""),
        "/packed" => document(&gzip(b"packed"), "Content-Encoding: gzip\r\n"),
        "/bomb" => document(&gzip(&vec![b'a'; 4 << 20]), "Content-Encoding: gzip\r\n"),
        "/torn" => document(&gzip(b"packed")[..12], "Content-Encoding: gzip\r\n"),
        "/binary" => document(&[0xff, 0xfe], ""),
        "/fits" => document(&vec![b'a'; 1 << 20], ""),
        "/large" => document(&vec![b'a'; (1 << 20) + 1], ""),
        "/short" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".to_vec(),
        "/404" => b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/503" => b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/moved" => redirect("/good"),
        "/loop" => redirect("/loop"),
        "/to-http" => redirect(&format!("http://localhost:{port}/good")),
        "/to-address" => redirect(&format!("https://127.0.0.2:{port}/good")),
        "/to-metadata" => redirect("https://169.254.169.254/latest/meta-data"),
        "/to-name" => redirect(&format!("https://rebind.test:{port}/good")),
        "/never" => std::future::pending().await,
        "/drip" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await?;
            loop {
                stream.write_all(b"a").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'a'; 16 * 1024]).await?;
                sent.fetch_add(16 * 1024, Ordering::Relaxed);
            }
        }
        other => panic!("{other}"),
    };
    stream.write_all(&whole).await
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

fn url(url: &str) -> Source {
    Source::Url { url: url.to_owned(), verify_cert: true }
}

async fn says(sources: &Sources, source: &str) -> String {
    let began = Instant::now();
    let said = match sources.text(&url(source)).await {
        Ok(Text { text, warning: None }) => text,
        Ok(Text { text, warning: Some(warning) }) => format!("{text}, but {warning}"),
        Err(error) => error.to_string(),
    };
    assert!(began.elapsed() < LIMITS.total + Duration::from_secs(2), "{source} took {:?}", began.elapsed());
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_gets_its_own_answer_within_the_limits() {
    let server = Server::start().await;
    let sources = server.sources().await;
    for (path, expected) in [
        ("/good", "good"),
        ("/packed", "packed"),
        ("/moved", "good"),
        ("/bomb", "it is larger than 1048576 bytes"),
        ("/large", "it is larger than 1048576 bytes"),
        ("/endless", "it is larger than 1048576 bytes"),
        ("/binary", "it is not UTF-8"),
        ("/404", "the server answered 404 Not Found"),
        ("/503", "the server answered 503 Service Unavailable"),
        ("/never", "not complete within 1.5 s"),
        ("/drip", "not complete within 1.5 s"),
        ("/loop", "more than 3 redirects"),
        ("/to-http", "redirected away from https"),
        ("/to-address", "redirected to 127.0.0.2, which the agent may not fetch from"),
        ("/to-metadata", "redirected to 169.254.169.254, which the agent may not fetch from"),
        ("/to-name", "good"),
    ] {
        let said = says(&sources, &server.url(path)).await;
        let is_error = said.starts_with(&format!("cannot fetch {}: ", server.url(path)));
        assert!(said.ends_with(expected) && is_error != (said == expected), "{path}: {said}");
    }
    assert_eq!(says(&sources, &server.url("/fits")).await.len(), 1 << 20);
    for path in ["/torn", "/short"] {
        assert!(says(&sources, &server.url(path)).await.starts_with("cannot fetch"), "{path}");
    }
    assert!(server.sent.load(Ordering::Relaxed) < 16 << 20, "the rest is not waited for");
    assert!(server.met.lock().iter().all(|met| *met == IpAddr::from([127, 0, 0, 1])), "nothing else was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_to_the_address_that_was_looked_at() {
    let server = Server::start().await;
    // The name moves to an address that is not open, between two look-ups.
    let moving = Sources::with(server.config(), LIMITS, names(vec!["127.0.0.1", "127.0.0.2"])).await.unwrap();
    let rebind = format!("https://rebind.test:{}/good", server.port);
    assert_eq!(says(&moving, &rebind).await, "good");
    let said = says(&moving, &rebind).await;
    // A kept-alive connection may still be there: it is one to the address that was looked at.
    assert!(said == "good" || said.ends_with("rebind.test has no address that the agent may fetch from"), "{said}");
    let closed = Sources::with(server.config(), LIMITS, names(vec!["127.0.0.2"])).await.unwrap();
    let said = says(&closed, &rebind).await;
    assert!(said.ends_with("rebind.test has no address that the agent may fetch from"), "{said}");
    // The same in a redirect.
    let hop = Sources::with(server.config(), LIMITS, names(vec!["127.0.0.1", "127.0.0.2"])).await.unwrap();
    let said = says(&hop, &server.url("/to-name")).await;
    assert!(said.ends_with("rebind.test has no address that the agent may fetch from"), "{said}");
    assert!(server.met.lock().iter().all(|met| *met == IpAddr::from([127, 0, 0, 1])));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_and_other_schemes_are_refused_before_anything_is_sent() {
    let server = Server::start().await;
    let config = SourceConfig { addresses: Addresses::default(), ..server.config() };
    let sources = Sources::with(config, LIMITS, names(vec!["127.0.0.1"])).await.unwrap();
    let port = server.port;
    for host in ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254", "2130706433", "0x7f.1", "10.0.0.1"] {
        let said = says(&sources, &format!("https://{host}:{port}/good")).await;
        assert!(said.contains("the agent may not fetch from"), "{host}: {said}");
    }
    let said = says(&sources, &server.url("/good")).await;
    assert!(said.ends_with("localhost has no address that the agent may fetch from"), "{said}");
    for other in ["http://localhost/a", "file:///etc/passwd", "gopher://localhost/", "https://"] {
        assert!(says(&sources, other).await.starts_with("cannot fetch"), "{other}");
    }
    let said = says(&sources, &format!("https://bob:hunter2@localhost:{port}/good?token=abc")).await;
    assert!(!said.contains("hunter2") && !said.contains("abc"), "{said}");
    assert!(server.met.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_looked_at_unless_the_author_says_otherwise() {
    let server = Server::start().await;
    let strange = Sources::with(SourceConfig { ca_file: None, ..server.config() }, LIMITS, names(vec!["127.0.0.1"]));
    let strange = strange.await.unwrap();
    let said = says(&strange, &server.url("/good")).await;
    assert!(said.contains("certificate"), "{said}");
    let source = Source::Url { url: server.url("/good"), verify_cert: false };
    assert_eq!(strange.text(&source).await.unwrap().text, "good");
    let missing = SourceConfig { ca_file: Some("/nowhere/ca.pem".into()), ..SourceConfig::default() };
    assert!(matches!(Sources::new(missing).await, Err(SetupError::CaFile { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_or_a_connection_that_hangs_ends_at_its_own_limit() {
    let server = Server::start().await;
    let silent: address::Lookup = Arc::new(|_| Box::pin(std::future::pending()));
    let sources = Sources::with(server.config(), LIMITS, silent).await.unwrap();
    assert!(says(&sources, &server.url("/good")).await.ends_with("no connection within 0.7 s"));
    // Accepts, and says nothing of TLS.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sources = server.sources().await;
    let said = says(&sources, &format!("https://localhost:{}/", mute.local_addr().unwrap().port())).await;
    assert!(said.ends_with("no connection within 0.7 s"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_server_is_away_its_last_good_text_runs_and_that_is_said() {
    let server = Server::start().await;
    let sources = server.sources().await;
    let kept = Text { text: "kept".into(), warning: None };
    for path in ["/503", "/never", "/404", "/binary", "/to-metadata"] {
        sources.keep(&url(&server.url(path)), &kept).await;
    }
    for (path, why) in
        [("/503", "the server answered 503 Service Unavailable"), ("/never", "not complete within 1.5 s")]
    {
        let said = says(&sources, &server.url(path)).await;
        assert!(said.starts_with("kept, but ran the copy that was fetched at 20") && said.ends_with(why), "{said}");
    }
    for path in ["/404", "/binary", "/to-metadata"] {
        let said = says(&sources, &server.url(path)).await;
        assert!(said.starts_with("cannot fetch"), "a server that is there has its say: {path}: {said}");
    }
    // A copy is no good text of its own.
    let copy = sources.text(&url(&server.url("/503"))).await.unwrap();
    let gone = server.url("/never");
    sources.keep(&url(&gone), &Text { text: "other".into(), ..copy }).await;
    assert!(says(&sources, &gone).await.starts_with("kept, but "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_a_server_is_away_runs_the_copy_on_the_disk() {
    let server = Server::start().await;
    let config = SourceConfig { copies: Some(server.dir.path().join("sources")), ..server.config() };
    let start = || Sources::with(config.clone(), LIMITS, names(vec!["127.0.0.1"]));
    let kept = Text { text: "kept".into(), warning: None };
    start().await.unwrap().keep(&url(&server.url("/503")), &kept).await;
    let said = says(&start().await.unwrap(), &server.url("/503")).await;
    assert!(said.starts_with("kept, but ran the copy that was fetched at 20"), "{said}");
    // Who does not look at certificates gets no copy of who does.
    let unverified = Source::Url { url: server.url("/503"), verify_cert: false };
    assert!(start().await.unwrap().text(&unverified).await.is_err());
}
