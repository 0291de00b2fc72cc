//! The hub's side of an agent's life, over real sockets: enrolment, sessions, reports, definitions, restarts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says by a panic what is wrong")]

#[path = "session/certificates.rs"]
mod certificates;
#[path = "session/commands.rs"]
mod commands;
#[path = "session/hostile.rs"]
mod hostile;
#[path = "session/incidents.rs"]
mod incidents;
#[path = "session/killed.rs"]
mod killed;
#[path = "session/limits.rs"]
mod limits;
#[path = "session/on_postgres.rs"]
mod on_postgres;
#[path = "store/postgres.rs"]
#[expect(dead_code, reason = "the tests of the store need more of it")]
mod postgres;
#[path = "session/replicas.rs"]
mod replicas;
#[path = "session/restore.rs"]
mod restore;
#[path = "session/shared.rs"]
mod shared;
#[path = "session/traces.rs"]
mod traces;
#[path = "session/versions.rs"]
mod versions;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use active_monitor_core::definition::{FleetHealthCheck, parse};
use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use active_monitor_core::session::frame::{
    AgentFrame, DefinitionResult, DefinitionStatus, Hello, HubFrame, Report, Welcome,
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

#[tokio::test]
async fn an_ack_means_recorded_and_a_run_sent_again_counts_once() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    assert_eq!(hub.cluster_status("berlin"), Some(ClusterStatus::Pending));
    let (mut session, welcome) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    assert!(welcome.session_epoch > 0 && welcome.lease_ms == 2000 && welcome.heartbeat_ms < 1000);
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    session.send(AgentFrame::reports(vec![report(1), report(2)])).await;
    assert_eq!(session.ack().await, 2);
    assert_eq!(hub.history("berlin").await, [report(2).run, report(1).run]);
    drop(session);
    eventually("a closed session", || hub.cluster_status("berlin") == Some(ClusterStatus::Reconnecting)).await;

    let (mut session, second) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    assert!(second.session_epoch > welcome.session_epoch);
    session.send(AgentFrame::reports(vec![report(2), report(3)])).await;
    assert_eq!(session.ack().await, 3);
    assert_eq!(hub.history("berlin").await.len(), 3);
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn reports_that_never_came_are_a_gap_at_their_place_in_the_history() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let page = async |hub: &Running| {
        let query = RunQuery { cluster: Some("berlin".into()), limit: 100, ..RunQuery::default() };
        hub.hub.store.runs(&query).await.unwrap()
    };
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    session.send(AgentFrame::reports(vec![report(1), report(2)])).await;
    assert_eq!(session.ack().await, 2);
    // The journal was full and dropped 3 to 5; then 8 was lost to a flipped bit.
    drop(session);
    hub.stop().await;
    let hub = Running::start(dir.path()).await;
    let dropped = Hello { oldest_seq: 6, next_seq: 10, dropped_reports: 3, ..hello("berlin", "uid-1", "i1") };
    let mut session = agent.dial(&hub, dropped.clone()).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    session.send(AgentFrame::Snapshot { checks: vec![], last: true }).await;
    session.send(AgentFrame::reports(vec![report(6), report(7), report(9)])).await;
    while session.ack().await < 9 {}
    let found = page(&hub).await;
    let places: Vec<_> = found.gaps.iter().map(|gap| (gap.after, gap.reports)).collect();
    let ids: Vec<i64> = found.items.iter().map(|run| run.id).collect();
    assert_eq!(places, [(ids[1], 1), (ids[3], 3)], "{ids:?}: between 7 and 9, and between 2 and 6");
    drop(session);
    // The same Hello again, and one of a journal that was made anew, add none.
    let again = Hello { oldest_seq: 10, ..dropped };
    let fresh = Hello { journal_id: "k".into(), ..hello("berlin", "uid-1", "i2") };
    for (hello, seq) in [(again, 10), (fresh, 1)] {
        let mut session = agent.dial(&hub, hello).await.unwrap();
        assert!(matches!(session.next().await, HubFrame::Welcome(_)));
        session.send(AgentFrame::Snapshot { checks: vec![], last: true }).await;
        session.send(AgentFrame::reports(vec![report(seq)])).await;
        assert_eq!(session.ack().await, seq);
    }
    assert_eq!(page(&hub).await.gaps, found.gaps);
    hub.stop().await;
}

#[tokio::test]
async fn a_token_is_good_for_one_key_one_name_and_one_cluster() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let key = KeyPair::generate().unwrap();
    let code = |result: Result<Agent, Status>| result.err().map(|status| status.code());
    let wrong = format!("berlin.{}.x", "0".repeat(64));
    assert_eq!(code(Agent::enrol(dir.path(), &hub, &wrong, "uid-1").await), Some(Code::Unauthenticated));
    let other_name = token.replacen("berlin", "paris", 1);
    assert_eq!(code(Agent::enrol(dir.path(), &hub, &other_name, "uid-1").await), Some(Code::Unauthenticated));
    Agent::enrol_with(dir.path(), &hub, &token, "uid-1", &key).await.unwrap();
    // An answer that was lost may be asked for again, by the same key only.
    Agent::enrol_with(dir.path(), &hub, &token, "uid-1", &key).await.unwrap();
    assert_eq!(code(Agent::enrol(dir.path(), &hub, &token, "uid-1").await), Some(Code::FailedPrecondition));
    assert_eq!(code(Agent::enrol_with(dir.path(), &hub, &token, "uid-2", &key).await), Some(Code::PermissionDenied));
    hub.stop().await;
}

#[tokio::test]
async fn an_expired_token_and_too_many_wrong_ones_are_refused() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let mut known = hub.hub.store.enrolment_token("berlin").await.unwrap().unwrap();
    known.expires_at = Timestamp::now();
    hub.hub.store.put_enrolment_token("berlin", &known).await.unwrap();
    let expired = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.err().unwrap();
    assert_eq!(
        (expired.code(), expired.message()),
        (Code::FailedPrecondition, "the token has expired; make a new one")
    );
    let wrong = format!("berlin.{}.x", "0".repeat(64));
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(Agent::enrol(dir.path(), &hub, &wrong, "uid-1").await.err().unwrap().code());
    }
    assert_eq!(codes.first(), Some(&Code::Unauthenticated));
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted));
    hub.stop().await;
}

#[tokio::test]
async fn who_is_not_who_the_certificate_says_is_refused() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    hub.token("paris").await;

    let mut wrong_name = agent.dial(&hub, hello("paris", "uid-1", "i1")).await.unwrap();
    let refused = within("refusal", wrong_name.answers.message()).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let mut wrong_uid = agent.dial(&hub, hello("berlin", "uid-2", "i1")).await.unwrap();
    assert!(wrong_uid.go_away().await.contains("uid-2"));
    assert!(hub.hub.fleet.view().clusters["berlin"].view.message.contains("uid-2"));

    let nobody = channel(hub.hub.agents, &agent.ca, None).await;
    let (_frames, queued) = mpsc::channel::<v1::AgentFrame>(1);
    let mut client = FleetClient::new(nobody);
    let session = client.session(ReceiverStream::new(queued));
    assert!(within("refusal", session).await.is_err(), "a session needs a client certificate");
    hub.stop().await;
}

#[tokio::test]
async fn after_a_restart_of_the_hub_nothing_is_green_until_the_agent_speaks() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    let stopping = tokio::spawn(hub.stop());
    assert_eq!(session.go_away().await, "the hub is stopping");
    within("stop", stopping).await.unwrap();
    drop(session);

    let hub = Running::start(dir.path()).await;
    assert_eq!(hub.check_status("berlin", "dns"), Some(CheckStatus::Stale));
    eventually("an end of the grace", || hub.cluster_status("berlin") == Some(ClusterStatus::Unreachable)).await;
    let (session, _) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    // The connection stays open and silent: the lease alone must end it.
    eventually("a stale check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Stale)).await;
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn a_removed_cluster_is_cut_and_its_certificate_is_worth_nothing() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let mut client = agent.client(&hub).await;
    let renewed = client.renew(RenewRequest { csr: signing_request(&KeyPair::generate().unwrap()) });
    assert!(within("renewal", renewed).await.unwrap().into_inner().certificate.contains("BEGIN CERTIFICATE"));
    hub.hub.fleet.remove_cluster("berlin").await.unwrap();
    assert_eq!(session.go_away().await, "the cluster was removed");
    let refused = agent.dial(&hub, hello("berlin", "uid-1", "i1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // A namesake that is added later does not revive it. Certificates count whole seconds.
    let issued = Timestamp::now().as_second();
    eventually("another second", || Timestamp::now().as_second() > issued).await;
    hub.token("berlin").await;
    let refused = agent.dial(&hub, hello("berlin", "uid-1", "i1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    hub.stop().await;
}

#[tokio::test]
async fn definitions_follow_the_labels_and_their_statuses_are_shown() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    assert_eq!(session.definitions().await.1.len(), 0, "a new session gets the set as it is");
    let definition = parse::from_value(serde_json::json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1",
        "kind": "FleetHealthCheck",
        "metadata": {"name": "dns"},
        "spec": {
            "clusterSelector": {"matchLabels": {"env": "prod"}},
            "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": 60, "description": "${cluster.name}"}},
        },
    }))
    .unwrap();
    let (view, is_new) = hub.hub.fleet.put_definition(definition.clone()).await.unwrap();
    assert!(is_new && view.generation == 1 && view.clusters.is_empty());
    assert!(!hub.hub.fleet.put_definition(definition).await.unwrap().1, "the same again changes nothing");
    assert_eq!(hub.hub.fleet.definitions()["dns"].generation, 1);

    let labels = |value: Option<&str>| ClusterPatch {
        labels: BTreeMap::from([("env".to_owned(), value.map(str::to_owned))]),
        ..ClusterPatch::default()
    };
    let mut events = hub.hub.fleet.events();
    hub.hub.fleet.patch_cluster("berlin", labels(Some("prod"))).await.unwrap();
    let (nonce, pushed) = session.definitions().await;
    assert_eq!(pushed.len(), 1);
    assert!(pushed[0].contains("berlin"), "{}", pushed[0]);
    let refused = DefinitionStatus {
        name: "dns".into(),
        generation: 1,
        result: DefinitionResult::Refused,
        message: "not here".into(),
    };
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses: vec![refused] }).await;
    eventually("a status", || {
        let clusters = hub.hub.fleet.definitions()["dns"].clusters.clone();
        clusters.len() == 1
            && clusters[0].result == Some(DefinitionResult::Refused)
            && clusters[0].message == "not here"
    })
    .await;
    within("event", async {
        while !matches!(*events.recv().await.unwrap().1, Event::Definition { ref name } if name == "dns") {}
    })
    .await;
    hub.hub.fleet.patch_cluster("berlin", labels(None)).await.unwrap();
    assert_eq!(session.definitions().await.1.len(), 0, "what is not selected is withdrawn");
    drop(session);
    hub.stop().await;
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

#[tokio::test]
async fn a_stored_definition_that_cannot_be_read_is_withdrawn_from_nobody_and_shown() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    hub.hub.fleet.patch_cluster("berlin", env("prod")).await.unwrap();
    hub.hub.fleet.put_definition(definition("dns", "x")).await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let (nonce, pushed) = session.definitions().await;
    assert!(pushed[0].contains("HealthCheck"));
    let status =
        |generation, result| DefinitionStatus { name: "dns".into(), generation, result, message: String::new() };
    let statuses = vec![status(1, DefinitionResult::Applied)];
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses }).await;
    eventually("a status", || {
        hub.hub.fleet.definitions()["dns"].clusters.first().is_some_and(|cluster| cluster.result.is_some())
    })
    .await;
    drop(session);
    // As a hub of another version would have written it.
    hub.hub.store.put_definition("dns", &serde_json::json!({"kind": "FleetHealthCheck", "spec": 7})).await.unwrap();
    hub.stop().await;

    let hub = Running::start(dir.path()).await;
    let shown = hub.hub.fleet.definitions()["dns"].clone();
    assert!(shown.message.contains("cannot read it"), "{}", shown.message);
    assert_eq!((shown.clusters[0].cluster.as_str(), shown.clusters[0].result), ("berlin", None));
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let (nonce, pushed) = session.definitions().await;
    assert_eq!(pushed, [""], "the set names it, so that the agent keeps what it has");
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses: vec![status(0, DefinitionResult::Refused)] }).await;
    let (view, _) = hub.hub.fleet.put_definition(definition("dns", "mended")).await.unwrap();
    assert_eq!(view.message, "");
    assert!(session.definitions().await.1[0].contains("mended"));
    hub.hub.fleet.delete_definition("dns").await.unwrap();
    assert!(session.definitions().await.1.is_empty());
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn a_set_that_a_label_makes_too_large_is_shown_and_changes_nothing_in_the_cluster() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let large = "x".repeat(200 << 10);
    for index in 0..21 {
        hub.hub.fleet.put_definition(definition(&format!("d{index:02}"), &large)).await.unwrap();
    }
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    assert!(session.definitions().await.1.is_empty());
    hub.hub.fleet.patch_cluster("berlin", env("prod")).await.unwrap();
    let (_, pushed) = session.definitions().await;
    assert!(pushed.len() == 21 && pushed.iter().all(String::is_empty), "held, not sent and not withdrawn");
    let shown = hub.hub.fleet.definitions()["d07"].clusters[0].clone();
    assert!(shown.result.is_none() && shown.message.contains("the limit is 4194304"), "{}", shown.message);
    let refused = hub.hub.fleet.put_definition(definition("d99", "small")).await.unwrap_err();
    assert!(refused.to_string().contains("cluster berlin"), "{refused}");
    // What makes it smaller is taken.
    hub.hub.fleet.put_definition(definition("d07", "small")).await.unwrap();
    assert!(session.definitions().await.1.iter().all(|check| check.contains("HealthCheck")));
    assert_eq!(hub.hub.fleet.definitions()["d08"].clusters[0].message, "");
    drop(session);
    hub.stop().await;
}

/// Life of a certificate in tests about its end.
const SHORT: [&str; 2] = ["--agent-certificate-seconds", "4"];

#[tokio::test]
async fn a_new_session_takes_over_from_the_old_one() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut first, _) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    let (second, _) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    assert_eq!(first.go_away().await, "another session of this cluster took over");
    drop(first);
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    assert_eq!(hub.cluster_status("berlin"), Some(ClusterStatus::Connected));
    drop(second);
    hub.stop().await;
}
