//! Agents without clusters, many in one process: real TLS, the real state machine of the session (`core::session::agent`),
//! real frames. Around it is the least of a shell: checks and reports come from numbers, nothing is written to disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use active_monitor_core::state::CheckState;
use active_monitor_proto::{EnrolRequest, EnrolmentClient};
use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

use self::agent::Agent;
pub use self::deaf::Deaf;
pub(in crate::bench) use self::malformed::Malformed;
use crate::fleet::Hub;

mod agent;
mod deaf;
mod malformed;
mod numbers;

/// As of the real agent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Agents that enrol at the same time.
const ENROLLING: usize = 8;

/// What all agents are told.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// Whether each one's first check has failed.
    failing: bool,
    /// Reports that each one's journal has had, beside those of its runs.
    reports: u64,
    /// Whether a run of each one ends every second.
    running: bool,
}

/// What all agents have seen.
#[derive(Debug, Default)]
struct Seen {
    runs: AtomicU64,
    acked: AtomicU64,
    /// From the end of a run until the ack of its report.
    ack_times: Mutex<Vec<Duration>>,
}

/// The agents; they end when this is dropped.
pub struct Agents {
    count: usize,
    orders: watch::Sender<Orders>,
    seen: Arc<Seen>,
    _stop: DropGuard,
}

impl Agents {
    /// Adds so many clusters to a hub, enrols an agent in each, and lets them connect; each has so many checks.
    ///
    /// # Errors
    /// The hub refuses one.
    pub async fn join(hub: &Hub, ca: &str, count: usize, checks: usize) -> anyhow::Result<Agents> {
        let names = (0..count).map(name).collect();
        Agents::join_as(hub, ca, names, checks).await
    }

    /// As [`Agents::join`], for clusters of these names.
    ///
    /// # Errors
    /// As [`Agents::join`].
    pub async fn join_as(hub: &Hub, ca: &str, names: Vec<String>, checks: usize) -> anyhow::Result<Agents> {
        let count = names.len();
        let first = names.first().context("no cluster")?;
        let enrolment = enrolment(hub, ca, first).await?;
        let enrol = async |name: String| {
            let endpoint = enrol(hub, enrolment.clone(), &name).await?;
            anyhow::Ok((name, endpoint))
        };
        let endpoints: Vec<(String, Endpoint)> =
            stream::iter(names).map(enrol).buffer_unordered(ENROLLING).try_collect().await?;
        let checks: Arc<Vec<Arc<CheckState>>> =
            Arc::new((0..checks).map(|index| Arc::new(numbers::check(index))).collect());
        let (orders, followed) = watch::channel(Orders::default());
        let (seen, stop) = (Arc::<Seen>::default(), CancellationToken::new());
        for (name, endpoint) in endpoints {
            let (checks, seen) = (Arc::clone(&checks), Arc::clone(&seen));
            let agent = Agent::new(name, endpoint, checks, followed.clone(), seen);
            tokio::spawn(stop.clone().run_until_cancelled_owned(agent.run()));
        }
        Ok(Agents { count, orders, seen, _stop: stop.drop_guard() })
    }

    /// Each agent's first check has failed from now on, or has not; gives how many have.
    pub fn fail(&self, failing: bool) -> u64 {
        self.orders.send_modify(|orders| orders.failing = failing);
        if failing { self.count as u64 } else { 0 }
    }

    /// So many reports more in each agent's journal; gives what [`Agents::acked`] is when all have arrived.
    pub fn report(&self, more: u64) -> u64 {
        self.orders.send_modify(|orders| orders.reports += more);
        self.reported()
    }

    /// A run of each agent ends every second from now on, or none does: its report is in the journal, and its check has
    /// changed.
    pub(super) fn run(&self, running: bool) {
        self.orders.send_modify(|orders| orders.running = running);
    }

    /// Reports that the journals have had, of all agents.
    pub(super) fn reported(&self) -> u64 {
        self.orders.borrow().reports * self.count as u64 + self.seen.runs.load(Ordering::Relaxed)
    }

    /// Reports that the hub has acked, of all agents.
    pub fn acked(&self) -> u64 {
        self.seen.acked.load(Ordering::Relaxed)
    }

    /// From the end of each run until the ack of its report, for those acked since this was asked last.
    pub(super) fn take_ack_times(&self) -> Vec<Duration> {
        std::mem::take(&mut self.seen.ack_times.lock())
    }
}

fn name(number: usize) -> String {
    format!("cluster-{number:04}")
}

fn endpoint(address: &str, ca: &str, identity: Option<TlsIdentity>) -> anyhow::Result<Endpoint> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
    Ok(endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE).keep_alive_while_idle(true))
}

/// Where the cluster of this name enrols, and others.
async fn enrolment(hub: &Hub, ca: &str, name: &str) -> anyhow::Result<EnrolmentClient<Channel>> {
    let token = hub.add_cluster(name, &[]).await?;
    let channel = endpoint(&token.enrolment_address, ca, None)?.connect().await.context("no enrolment")?;
    Ok(EnrolmentClient::new(channel))
}

/// Where the agent of a cluster connects, with its certificate.
async fn enrol(hub: &Hub, mut client: EnrolmentClient<Channel>, name: &str) -> anyhow::Result<Endpoint> {
    let token = hub.add_cluster(name, &[]).await?;
    let secret = token.token.split('.').nth(1).context("a token without a secret")?;
    let key = KeyPair::generate()?;
    let request = EnrolRequest {
        token: secret.to_owned(),
        cluster: name.to_owned(),
        cluster_uid: uid(name),
        csr: CertificateParams::default().serialize_request(&key)?.der().to_vec(),
    };
    let reply = client.enrol(request).await.with_context(|| name.to_owned())?.into_inner();
    let identity = TlsIdentity::from_pem(reply.certificate, key.serialize_pem());
    endpoint(&token.agent_address, &reply.ca, Some(identity))
}

/// uid of the kube-system namespace of a cluster.
fn uid(cluster: &str) -> String {
    format!("uid-{cluster}")
}
