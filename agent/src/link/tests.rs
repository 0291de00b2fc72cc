//! The link against a small hub in this process: real TLS on loopback, the real state machine at the other end, and a
//! store that outlives the hub's death.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use active_monitor_core::command::{Layer, Order, Refusal, Scope};
use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use active_monitor_core::self_test::SelfTestOutcome;
use active_monitor_core::session::frame::{AgentFrame, Counted, DefinitionResult, HubFrame, Welcome};
use active_monitor_core::session::hub::{HubSession, Input, Output};
use active_monitor_core::state::{CheckState, Phase, Totals};
use active_monitor_proto::{
    CertificateReply, EnrolRequest, Enrolment, EnrolmentServer, Fleet, FleetServer, RenewRequest, v1,
};
use active_monitor_runtime::tls::{self, Clients};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::{Timestamp, ToSpan};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::*;

mod certificates;
mod damaged;
mod delivery;
mod partition;
mod spans;
mod tokens;
mod traffic;

const SECRET: &str = "5ec5e75ec5e75ec5e75ec5e75ec5e75ec5e75ec5e75ec5e75ec5e75ec5e7aaaa";
const PATIENCE: Duration = Duration::from_secs(30);

/// Of a token that the hub gave out later.
fn second_secret() -> String {
    SECRET.replace("aaaa", "cccc")
}

/// What survives the hub's process: its CA and its store.
struct Hub {
    ca: CertificateDer<'static>,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    state: Mutex<HubState>,
    certificate_age: Duration,
    certificate_rest: Mutex<Duration>,
}

#[derive(Default)]
struct HubState {
    /// The signing request's key that spent the token.
    token_spent_by: Option<Vec<u8>>,
    /// Answers to enrolments that get lost on the way.
    lose_answers: u32,
    enrolments: u32,
    recoveries: u32,
    renewals: u32,
    sessions: u64,
    view: BTreeMap<String, CheckState>,
    recorded: BTreeMap<RunKey, u32>,
    definitions: Vec<Definition>,
    statuses: Vec<DefinitionStatus>,
    commands: Vec<Command>,
    answers: Vec<Answer>,
    self_tests: Vec<SelfTest>,
    lacking: Vec<Vec<Counted>>,
    /// Nobody has approved the key yet.
    waits_for_approval: bool,
    heartbeats: u32,
}

impl Hub {
    fn new() -> Hub {
        Hub::with_certificates(Duration::from_secs(60), Duration::from_secs(3600))
    }

    fn with_certificates(certificate_age: Duration, certificate_rest: Duration) -> Hub {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Hub {
            ca: certificate.der().clone(),
            ca_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            state: Mutex::default(),
            certificate_age,
            certificate_rest: Mutex::new(certificate_rest),
        }
    }

    fn token(&self) -> String {
        format!("c1.{SECRET}.{}", hex::encode(Sha256::digest(&self.ca)))
    }

    fn certificate(&self, csr: &[u8]) -> CertificateReply {
        let csr = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        let mut params = CertificateParams::default();
        let uri = "spiffe://active-monitor-fleet/cluster/c1";
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.not_before = (SystemTime::now() - self.certificate_age).into();
        params.not_after = (SystemTime::now() + *self.certificate_rest.lock()).into();
        let certificate = params.signed_by(&csr.public_key, &self.issuer).unwrap();
        CertificateReply { certificate: certificate.pem(), ca: self.ca_pem.clone() }
    }

    fn tls(&self, with_clients: bool) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let identity = tls::Identity { chain: vec![leaf.der().clone(), self.ca.clone()], key };
        let ca = [self.ca.clone()];
        let clients = if with_clients { Clients::Certified(&ca) } else { Clients::Expired(&ca) };
        tls::install_crypto_provider();
        let config = tls::server_config(identity, clients, &[tls::ALPN_H2]).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The hub's process. Dropping it is a kill: nothing is said to anybody.
struct Process {
    runtime: Option<Runtime>,
    agents: SocketAddr,
    enrolment: SocketAddr,
}

impl Process {
    /// The ports are chosen at the first start.
    fn start(hub: &Arc<Hub>, ports: Option<(SocketAddr, SocketAddr)>) -> Process {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (agents, enrolment) = ports.unwrap_or((any, any));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = |address: SocketAddr| {
            let listener = std::net::TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let (agents, enrolment) = (listen(agents), listen(enrolment));
        let addresses = (agents.local_addr().unwrap(), enrolment.local_addr().unwrap());
        runtime.spawn(serve(agents, hub.tls(true), FleetServer::new(Service(Arc::clone(hub)))));
        runtime.spawn(serve(enrolment, hub.tls(false), EnrolmentServer::new(Service(Arc::clone(hub)))));
        Process { runtime: Some(runtime), agents: addresses.0, enrolment: addresses.1 }
    }

    fn ports(&self) -> (SocketAddr, SocketAddr) {
        (self.agents, self.enrolment)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A runtime may not be awaited inside another one.
        let runtime = self.runtime.take();
        std::thread::spawn(move || drop(runtime)).join().unwrap();
    }
}

async fn serve<S>(listener: std::net::TcpListener, tls: TlsAcceptor, service: S)
where
    S: tower::Service<http::Request<tonic::body::Body>, Error = std::convert::Infallible>
        + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Response: axum::response::IntoResponse,
    S::Future: Send + 'static,
{
    let listener = TcpListener::from_std(listener).unwrap();
    let accepted = futures::stream::unfold((listener, tls), |(listener, tls)| async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(stream) = tls.accept(tcp).await {
                return Some((Ok::<_, std::io::Error>(stream), (listener, tls)));
            }
        }
    });
    tonic::transport::Server::builder().add_service(service).serve_with_incoming(accepted).await.unwrap();
}

struct Service(Arc<Hub>);

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<CertificateReply>, Status> {
        let request = request.into_inner();
        let mut state = self.0.state.lock();
        state.enrolments += 1;
        let key = rcgen::PublicKeyData::der_bytes(
            &CertificateSigningRequestParams::from_der(&request.csr.clone().into()).unwrap().public_key,
        )
        .to_vec();
        let is_spent = state.token_spent_by.as_ref().is_some_and(|by| *by != key);
        let is_ours = [SECRET.to_owned(), second_secret()].contains(&request.token);
        if is_spent || !is_ours || request.cluster != "c1" || request.cluster_uid != "uid" {
            return Err(Status::permission_denied("the token is spent"));
        }
        state.token_spent_by = Some(key);
        if state.waits_for_approval {
            return Err(Status::aborted("a person has to approve it"));
        }
        if state.lose_answers > 0 {
            state.lose_answers -= 1;
            return Err(Status::unavailable("the answer got lost"));
        }
        Ok(Response::new(self.0.certificate(&request.csr)))
    }

    async fn recover(&self, request: Request<RenewRequest>) -> Result<Response<CertificateReply>, Status> {
        assert!(request.peer_certs().is_some_and(|certificates| !certificates.is_empty()));
        self.0.state.lock().recoveries += 1;
        Ok(Response::new(self.0.certificate(&request.into_inner().csr)))
    }
}

#[tonic::async_trait]
impl Fleet for Service {
    type SessionStream = BoxStream<'static, Result<v1::HubFrame, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        assert!(request.peer_certs().is_some_and(|certificates| !certificates.is_empty()));
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(hub_session(Arc::clone(&self.0), request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateReply>, Status> {
        self.0.state.lock().renewals += 1;
        Ok(Response::new(self.0.certificate(&request.into_inner().csr)))
    }
}

async fn hub_session(
    hub: Arc<Hub>,
    mut frames: Streaming<v1::AgentFrame>,
    sender: mpsc::Sender<Result<v1::HubFrame, Status>>,
) {
    let mut session = HubSession::new("c1".into());
    while let Ok(Some(frame)) = frames.message().await {
        let frame = AgentFrame::try_from(frame).unwrap();
        let mut inputs = VecDeque::from([Input::Frame(frame)]);
        while let Some(input) = inputs.pop_front() {
            for output in session.handle(input) {
                if let Output::Send(frame) = output {
                    sender.send(Ok(HubFrame::into(frame))).await.ok();
                } else {
                    inputs.extend(hub.carry_out(output));
                }
            }
        }
    }
}

impl Hub {
    fn carry_out(&self, output: Output) -> Vec<Input> {
        let mut state = self.state.lock();
        match output {
            Output::Register(hello) => {
                assert_eq!((hello.cluster.as_str(), hello.cluster_uid.as_str()), ("c1", "uid"));
                state.sessions += 1;
                let welcome = Welcome {
                    session_epoch: state.sessions,
                    heartbeat_ms: 200,
                    lease_ms: 1000,
                    max_unacked_reports: 8,
                    hub_version: "0.1.0".into(),
                };
                let commands = state.commands.clone().into_iter().map(Input::Command);
                let first = [Input::Accepted(welcome), Input::PushDefinitions(state.definitions.clone())];
                return first.into_iter().chain(commands).collect();
            }
            Output::Snapshot(checks) => {
                state.view = checks.into_iter().map(|state| (state.uid.clone(), state)).collect();
            }
            Output::Upsert(check) => drop(state.view.insert(check.uid.clone(), *check)),
            Output::Removed(uid) => drop(state.view.remove(&uid)),
            Output::Record { reports, through_seq } => {
                for report in reports {
                    *state.recorded.entry(report.run.key).or_default() += 1;
                }
                return vec![Input::Committed { seq: through_seq }];
            }
            Output::Heartbeat(_) => state.heartbeats += 1,
            Output::DefinitionsStatus(statuses) => state.statuses = statuses,
            Output::Answered(answer) => state.answers.push(answer),
            Output::SelfTested(self_test) => state.self_tests.push(self_test),
            Output::Lacking(runs) => state.lacking.push(runs),
            Output::Send(_) | Output::DefinitionsTooLarge { .. } => {}
            Output::End(error) => panic!("the hub ended the session: {error:?}"),
        }
        Vec::new()
    }
}

fn check(uid: &str, message: &str) -> CheckState {
    CheckState {
        uid: uid.into(),
        namespace: "health".into(),
        name: uid.into(),
        description: String::new(),
        phase: Phase::Pending,
        message: message.into(),
        schedule: String::new(),
        running: None,
        next_slot: None,
        timeout_seconds: 60,
        check: Totals::default(),
        remedy: None,
        remedy_status: String::new(),
        samples: Vec::new(),
        refused_samples: 0,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
        definition: None,
    }
}

fn run_at(minute: i64) -> Run {
    let slot = Timestamp::UNIX_EPOCH + (minute * 60).seconds();
    Run {
        key: RunKey { check_uid: "a".into(), kind: RunKind::HealthCheck, slot },
        namespace: "health".into(),
        name: "a".into(),
        workflow: None,
        outcome: Outcome::Succeeded,
        reason: None,
        message: String::new(),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    }
}

/// The agent's process, as far as the link sees it.
struct Agent {
    link: Link,
    journal: Journal,
    states: States,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    async fn start(dir: &Path, process: &Process, token: Option<String>) -> Agent {
        Agent::start_with(States::new(), dir, process, token).await
    }

    async fn start_with(states: States, dir: &Path, process: &Process, token: Option<String>) -> Agent {
        let ports = (process.agents.port(), process.enrolment.port());
        Agent::start_at(states, dir, ports, token).await
    }

    async fn start_at(states: States, dir: &Path, (agents, enrolment): (u16, u16), token: Option<String>) -> Agent {
        let journal = Journal::open(&dir.join("journal"), 1 << 20).await.unwrap();
        let config = LinkConfig {
            hub_address: format!("localhost:{agents}"),
            enrolment_address: format!("localhost:{enrolment}"),
            token,
            state_dir: dir.to_owned(),
            cluster_uid: "uid".into(),
            kubernetes_version: "v1.33.0".into(),
            policy: Vec::new(),
        };
        let cancel = CancellationToken::new();
        let (link, task) = start(config, journal.clone(), states.clone(), cancel.clone());
        Agent { link, journal, states, cancel, task }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
    }

    async fn stop_when_connected(mut self) {
        let connected = self.link.connected.wait_for(|connected| *connected);
        assert!(*tokio::time::timeout(PATIENCE, connected).await.unwrap().unwrap());
        self.stop().await;
    }
}

/// Waits until the hub's state is as it should be.
async fn until(hub: &Hub, what: &str, condition: impl Fn(&HubState) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition(&hub.state.lock()) {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
