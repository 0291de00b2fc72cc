//! An agent, or somebody with its certificate, that attacks the listener: the hub bounds and counts it, and another agent's
//! reports are recorded all the while.

use std::sync::Arc;

use active_monitor_hub::refusals::Refused;
use active_monitor_runtime::tls::Refused as Turned;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// `:method: POST`, `:scheme: https`, `:path: /` in HPACK.
const POST: &[u8] = &[0x83, 0x87, 0x84];

/// A frame of HTTP/2.
fn h2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Agent {
    /// A connection with this agent's certificate, on which anything may be said.
    async fn raw(&self, hub: &Running) -> std::io::Result<TlsStream<TcpStream>> {
        self.raw_at(hub.hub.agents, &rustls::version::TLS13).await
    }

    /// The same at any listener, with this version of TLS and no other.
    async fn raw_at(
        &self,
        listener: SocketAddr,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
        let mut config = config.with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(listener).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

#[tokio::test]
async fn an_older_tls_is_spoken_at_no_listener() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = super::Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    for listener in [hub.hub.agents, hub.hub.enrolment, hub.hub.people] {
        agent.raw_at(listener, &rustls::version::TLS13).await.unwrap();
        let refused = agent.raw_at(listener, &rustls::version::TLS12).await.unwrap_err();
        assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    }
    hub.stop().await;
}

/// Says something again and again until the hub closes; at most `most` times.
async fn until_closed(mut stream: TlsStream<TcpStream>, first: &[u8], again: impl Fn(u32) -> Vec<u8>, most: u32) {
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let says = async {
        if write.write_all(first).await.is_err() {
            return;
        }
        for round in 0..most {
            if write.write_all(&again(round)).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    };
    let hears = async {
        let mut bytes = [0; 4096];
        while read.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    };
    within("a closed connection", async {
        tokio::select! {
            () = says => {}
            () = hears => {}
        }
    })
    .await;
}

/// Another agent, which notices nothing: its reports go on.
struct Neighbour {
    session: Session,
    seq: u64,
}

impl Neighbour {
    async fn connect(dir: &Path, hub: &Running) -> Neighbour {
        let token = hub.token("neighbour").await;
        let agent = Agent::enrol(dir, hub, &token, "uid-1").await.unwrap();
        let (session, _) = agent.connect(hub, "neighbour", vec![check("dns")]).await;
        Neighbour { session, seq: 0 }
    }

    async fn goes_on(&mut self, hub: &Running) {
        self.seq += 1;
        self.session.send(AgentFrame::reports(vec![report(self.seq)])).await;
        assert_eq!(self.session.ack().await, self.seq);
        assert_eq!(hub.check_status("neighbour", "dns"), Some(CheckStatus::Succeeded));
    }
}

#[tokio::test]
async fn huge_messages_many_streams_floods_of_headers_and_garbage_cost_their_sender_only() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let mut neighbour = Neighbour::connect(dir.path(), &hub).await;
    eventually("a green check", || hub.check_status("neighbour", "dns") == Some(CheckStatus::Succeeded)).await;
    let token = hub.token("c1").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();

    // A message of 100 MB: refused by its length, before its bytes are taken in.
    let huge = Hello { kubernetes_version: "v".repeat(100 << 20), ..hello("c1", "uid-1", "i1") };
    let mut session = agent.dial(&hub, huge).await.unwrap();
    let refused = within("a refusal", session.answers.message()).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    eventually("a count", || hub.hub.refusals.total(Refused::Frame) == 1).await;
    neighbour.goes_on(&hub).await;

    // A head of 20 KiB.
    let mut request = Request::new(RenewRequest { csr: Vec::new() });
    request.metadata_mut().insert("x-long", MetadataValue::try_from("x".repeat(20 << 10)).unwrap());
    assert!(within("a refusal", agent.client(&hub).await.renew(request)).await.is_err());
    neighbour.goes_on(&hub).await;

    let settings = [PREFACE, &h2(SETTINGS, 0, 0, &[])].concat();
    // A head that never ends.
    let endless = [&settings[..], &h2(HEADERS, 0, 1, POST)].concat();
    let more = [0x40, 1, b'a', 1, b'b'].repeat(3000);
    until_closed(agent.raw(&hub).await.unwrap(), &endless, |_| h2(CONTINUATION, 0, 1, &more), 10_000).await;
    neighbour.goes_on(&hub).await;
    // Streams that are opened and reset at once.
    let reset = |round: u32| {
        let stream = 2 * round + 1;
        [h2(HEADERS, END_HEADERS, stream, POST), h2(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    until_closed(agent.raw(&hub).await.unwrap(), &settings, reset, 1_000_000).await;
    neighbour.goes_on(&hub).await;
    // Bytes that are no HTTP/2.
    until_closed(agent.raw(&hub).await.unwrap(), &[0xff; 64], |_| vec![0xff; 16 << 10], 10_000).await;
    neighbour.goes_on(&hub).await;
    hub.stop().await;
}

#[tokio::test]
async fn more_streams_and_connections_than_an_agent_may_have_are_refused() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let mut neighbour = Neighbour::connect(dir.path(), &hub).await;
    eventually("a green check", || hub.check_status("neighbour", "dns") == Some(CheckStatus::Succeeded)).await;
    let token = hub.token("c1").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    // Streams whose end is left open: the ninth is answered by a reset.
    let mut raw = agent.raw(&hub).await.unwrap();
    let streams = (0..9).map(|n| h2(HEADERS, END_HEADERS, 2 * n + 1, POST));
    let opened = [PREFACE.to_vec(), h2(SETTINGS, 0, 0, &[])].into_iter().chain(streams).collect::<Vec<_>>().concat();
    raw.write_all(&opened).await.unwrap();
    let reset_of_17 = async {
        let mut heard = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let count = raw.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the hub closed: {heard:?}");
            heard.extend_from_slice(&bytes[..count]);
            let reset = [[RST_STREAM, 0].as_slice(), &17_u32.to_be_bytes()].concat();
            if heard.windows(reset.len()).any(|window| window == reset) {
                return;
            }
        }
    };
    within("a reset of the ninth stream", reset_of_17).await;
    neighbour.goes_on(&hub).await;
    // Eight connections, of which one is there; the next is closed.
    let mut held = vec![raw];
    for _ in 0..7 {
        held.push(agent.raw(&hub).await.unwrap());
    }
    assert_eq!(hub.hub.turned.total("agents", Turned::Caller), 0);
    let _ninth = agent.raw(&hub).await;
    eventually("a count", || hub.hub.turned.total("agents", Turned::Caller) == 1).await;
    neighbour.goes_on(&hub).await;
    drop(held);
    within("a session again", async { while agent.dial(&hub, hello("c1", "uid-1", "i1")).await.is_err() {} }).await;
    hub.stop().await;
}

#[tokio::test]
async fn an_agent_that_floods_is_slowed_down_and_nothing_of_it_is_lost() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let mut neighbour = Neighbour::connect(dir.path(), &hub).await;
    eventually("a green check", || hub.check_status("neighbour", "dns") == Some(CheckStatus::Succeeded)).await;
    let token = hub.token("c1").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, welcome) = agent.connect(&hub, "c1", vec![check("dns")]).await;
    let (window, frame) = (u64::from(welcome.max_unacked_reports), 128);
    // The cheapest frames there are, far beyond what goes through in one go.
    for _ in 0..20_000 {
        session.frames.send(v1::AgentFrame { frame: None }).await.unwrap();
    }
    neighbour.goes_on(&hub).await;
    let (mut sent, mut acked) = (0, 0);
    while acked < 2_000 {
        while sent + frame <= acked + window {
            session.send(AgentFrame::reports((sent + 1..=sent + frame).map(report).collect())).await;
            sent += frame;
        }
        acked = session.ack().await;
        neighbour.goes_on(&hub).await;
    }
    assert!(hub.hub.refusals.total(Refused::Rate) > 0, "beyond the burst it waits");
    while acked < sent {
        acked = session.ack().await;
    }
    let query = RunQuery { cluster: Some("c1".into()), limit: 1000, ..RunQuery::default() };
    let mut recorded = 0;
    let mut before = None;
    loop {
        let page = hub.hub.store.runs(&RunQuery { before, ..query.clone() }).await.unwrap();
        recorded += page.items.len() as u64;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(recorded, sent);
    neighbour.goes_on(&hub).await;
    hub.stop().await;
}
