//! The hub's side of an agent's life, over real sockets: enrolment, sessions, reports, definitions, restarts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says by a panic what is wrong")]

mod certificates;
mod commands;
mod damaged;
mod definitions;
mod duties;
mod enrolment;
mod hostile;
mod identity;
mod incidents;
mod killed;
mod limits;
mod liveness;
mod on_postgres;
#[path = "../store/postgres.rs"]
#[expect(dead_code, reason = "the tests of the store need more of it")]
mod postgres;
mod replicas;
mod reports;
mod restore;
mod rights;
mod shared;
mod soon;
mod traces;
mod versions;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use active_monitor_core::definition::{FleetHealthCheck, parse};
use active_monitor_core::names::CORDON_ANNOTATION;
use active_monitor_core::policy::{MAX_SETTINGS, PolicySetting};
use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use active_monitor_core::session::frame::{
    AgentFrame, Counted, DefinitionResult, DefinitionStatus, Hello, HubFrame, Report, Welcome,
};
use active_monitor_core::state::{CheckState, Phase, Totals};
use active_monitor_core::view::{CheckStatus, ClusterAdd, ClusterPatch, ClusterStatus, Event};
use active_monitor_hub::config::{Cli, ServeArgs};
use active_monitor_hub::serve::{self, Hub, ServeError};
use active_monitor_hub::store::RunQuery;
use active_monitor_proto::{EnrolRequest, EnrolmentClient, FleetClient, RenewRequest, v1};
use active_monitor_runtime::tasks::Tasks;
use active_monitor_runtime::tls;
use clap::Parser;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};

const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for something that must come.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no {what} within {DEADLINE:?}"))
}

/// Waits until a condition holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

struct Running {
    hub: Hub,
    tasks: Tasks,
}

impl Running {
    async fn start(dir: &Path) -> Running {
        Running::start_with(dir, &[]).await
    }

    async fn start_with(dir: &Path, more: &[&str]) -> Running {
        Running::start_leased(dir, "2", more).await
    }

    /// With a lease of so many seconds.
    async fn start_leased(dir: &Path, lease: &str, more: &[&str]) -> Running {
        tls::install_crypto_provider();
        let flags = ["--agents-listen", "--enrolment-listen", "--people-listen"];
        let flags = flags.iter().flat_map(|flag| [*flag, "127.0.0.1:0"]);
        let data = dir.display().to_string();
        let cli = ["hub"].into_iter().chain(flags).chain(["--data-dir", &data, "--lease-seconds", lease]);
        let cli = cli.chain(more.iter().copied());
        let args: ServeArgs = Cli::try_parse_from(cli).unwrap().serve;
        // The hub before may still be closing its files.
        within("start of the hub", async {
            loop {
                let tasks = Tasks::new();
                match serve::start(&args, &tasks).await {
                    Ok(hub) => return Running { hub, tasks },
                    Err(ServeError::Store(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
        .await
    }

    async fn stop(self) {
        self.tasks.stop();
        self.tasks.run(DEADLINE).await.unwrap();
    }

    async fn token(&self, cluster: &str) -> String {
        let add = ClusterAdd { name: cluster.into(), ..ClusterAdd::default() };
        self.hub.fleet.add_cluster(add).await.unwrap().token
    }

    fn cluster_status(&self, cluster: &str) -> Option<ClusterStatus> {
        self.hub.fleet.view().clusters.get(cluster).map(|entry| entry.view.status)
    }

    fn check_status(&self, cluster: &str, name: &str) -> Option<CheckStatus> {
        self.hub.fleet.view().check(cluster, "health", name).map(|check| check.status)
    }

    async fn history(&self, cluster: &str) -> Vec<Run> {
        let query = RunQuery { cluster: Some(cluster.into()), limit: 100, ..RunQuery::default() };
        self.hub.store.runs(&query).await.unwrap().items.into_iter().map(|item| item.run).collect()
    }
}

/// An agent made by hand.
#[derive(Clone)]
struct Agent {
    ca: String,
    certificate: String,
    key: String,
}

fn signing_request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

async fn channel(address: SocketAddr, ca: &str, identity: Option<Identity>) -> Channel {
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    if let Some(identity) = identity {
        config = config.identity(identity);
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(config).unwrap();
    endpoint.connect_lazy()
}

impl Agent {
    async fn enrol(dir: &Path, hub: &Running, token: &str, uid: &str) -> Result<Agent, Status> {
        Agent::enrol_with(dir, hub, token, uid, &KeyPair::generate().unwrap()).await
    }

    async fn enrol_with(dir: &Path, hub: &Running, token: &str, uid: &str, key: &KeyPair) -> Result<Agent, Status> {
        let ca = std::fs::read_to_string(dir.join("ca.crt")).unwrap();
        let (cluster, rest) = token.split_once('.').unwrap();
        let (secret, _fingerprint) = rest.split_once('.').unwrap();
        let mut client = EnrolmentClient::new(channel(hub.hub.enrolment, &ca, None).await);
        let request = EnrolRequest {
            token: secret.into(),
            cluster: cluster.into(),
            cluster_uid: uid.into(),
            csr: signing_request(key),
        };
        let reply = within("answer to enrolment", client.enrol(request)).await?.into_inner();
        Ok(Agent { ca: reply.ca, certificate: reply.certificate, key: key.serialize_pem() })
    }

    /// Asks for the next certificate with the present one, which may have expired.
    async fn recover(&self, hub: &Running) -> Result<Agent, Status> {
        let identity = Identity::from_pem(&self.certificate, &self.key);
        let mut client = EnrolmentClient::new(channel(hub.hub.enrolment, &self.ca, Some(identity)).await);
        let key = KeyPair::generate().unwrap();
        let request = RenewRequest { csr: signing_request(&key) };
        let reply = within("recovery", client.recover(request)).await?.into_inner();
        Ok(Agent { ca: reply.ca, certificate: reply.certificate, key: key.serialize_pem() })
    }

    /// Renews the certificate with the present one.
    async fn renew(&self, hub: &Running) -> Agent {
        let key = KeyPair::generate().unwrap();
        let request = RenewRequest { csr: signing_request(&key) };
        let reply = within("renewal", self.client(hub).await.renew(request)).await.unwrap().into_inner();
        Agent { ca: reply.ca, certificate: reply.certificate, key: key.serialize_pem() }
    }

    async fn client(&self, hub: &Running) -> FleetClient<Channel> {
        let identity = Identity::from_pem(&self.certificate, &self.key);
        FleetClient::new(channel(hub.hub.agents, &self.ca, Some(identity)).await)
    }

    /// Opens a session with this Hello; the first answer is not read yet.
    async fn dial(&self, hub: &Running, hello: Hello) -> Result<Session, Status> {
        let (frames, queued) = mpsc::channel::<v1::AgentFrame>(64);
        frames.send(AgentFrame::Hello(hello).into()).await.unwrap();
        let mut client = self.client(hub).await;
        let answers = within("session", client.session(ReceiverStream::new(queued))).await?.into_inner();
        Ok(Session { frames, answers })
    }

    /// Opens a session, is welcomed and sends a snapshot.
    async fn connect(&self, hub: &Running, cluster: &str, checks: Vec<CheckState>) -> (Session, Welcome) {
        let mut session = self.dial(hub, hello(cluster, "uid-1", "i1")).await.unwrap();
        let HubFrame::Welcome(welcome) = session.next().await else { panic!("no Welcome") };
        session.send(AgentFrame::Snapshot { checks, last: true }).await;
        (session, welcome)
    }
}

struct Session {
    frames: mpsc::Sender<v1::AgentFrame>,
    answers: Streaming<v1::HubFrame>,
}

impl Session {
    async fn send(&self, frame: AgentFrame) {
        self.frames.send(frame.into()).await.unwrap();
    }

    /// The next frame, whatever it is.
    async fn next(&mut self) -> HubFrame {
        let frame = within("frame", self.answers.message()).await.unwrap().expect("the stream ended");
        HubFrame::try_from(frame).unwrap()
    }

    /// The next definitions; acks are passed over.
    async fn definitions(&mut self) -> (u64, Vec<String>) {
        loop {
            match self.next().await {
                HubFrame::Definitions { nonce, definitions } => {
                    return (nonce, definitions.into_iter().map(|definition| definition.health_check).collect());
                }
                HubFrame::Ack(_) | HubFrame::Command(_) | HubFrame::Mark(_) => {}
                other @ (HubFrame::Welcome(_) | HubFrame::GoAway { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// The next ack; definitions are passed over.
    async fn ack(&mut self) -> u64 {
        loop {
            match self.next().await {
                HubFrame::Ack(seq) => return seq,
                HubFrame::Definitions { .. } | HubFrame::Command(_) | HubFrame::Mark(_) => {}
                other @ (HubFrame::Welcome(_) | HubFrame::GoAway { .. }) => panic!("{other:?}"),
            }
        }
    }

    async fn go_away(&mut self) -> String {
        loop {
            match self.next().await {
                HubFrame::GoAway { reason, .. } => return reason,
                HubFrame::Ack(_)
                | HubFrame::Definitions { .. }
                | HubFrame::Command(_)
                | HubFrame::Welcome(_)
                | HubFrame::Mark(_) => {}
            }
        }
    }
}

fn hello(cluster: &str, uid: &str, incarnation: &str) -> Hello {
    Hello {
        cluster: cluster.into(),
        cluster_uid: uid.into(),
        incarnation: incarnation.into(),
        agent_version: "0.1.0".into(),
        kubernetes_version: "v1.33.0".into(),
        oldest_seq: 1,
        next_seq: 1,
        sent_at: Timestamp::now(),
        dropped_reports: 0,
        journal_id: "j".into(),
        hub_mark: String::new(),
        policy: vec![PolicySetting::new("namespaces", "health")],
    }
}

fn check(name: &str) -> CheckState {
    CheckState {
        uid: format!("uid-{name}"),
        namespace: "health".into(),
        name: name.into(),
        description: String::new(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: "@every 1h".into(),
        running: None,
        next_slot: Some(Timestamp::from_second(Timestamp::now().as_second() + 3600).unwrap()),
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

fn report(seq: u64) -> Report {
    let slot = Timestamp::from_second(1_800_000_000 + i64::try_from(seq).unwrap() * 60).unwrap();
    let key = RunKey { check_uid: "uid-dns".into(), kind: RunKind::HealthCheck, slot };
    let run = Run {
        key,
        namespace: "health".into(),
        name: "dns".into(),
        workflow: Some("health/dns-1".into()),
        outcome: Outcome::Succeeded,
        reason: None,
        message: String::new(),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    };
    Report { seq, run }
}

fn definition(name: &str, description: &str) -> FleetHealthCheck {
    parse::from_value(serde_json::json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1",
        "kind": "FleetHealthCheck",
        "metadata": {"name": name},
        "spec": {
            "clusterSelector": {"matchLabels": {"env": "prod"}},
            "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": 60, "description": description}},
        },
    }))
    .unwrap()
}

fn env(value: &str) -> ClusterPatch {
    let labels = BTreeMap::from([("env".to_owned(), Some(value.to_owned()))]);
    ClusterPatch { labels, ..ClusterPatch::default() }
}
