//! The hub in virtual time: its owner, its sessions and its server of HTTP/2 are the real ones, over a network in memory
//! and a store for which the clock stands still. There is no TLS: whose connection it is, is told.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::fleet::FleetView;
use active_monitor_core::view::{CheckStatus, ClusterAdd, ClusterStatus, Event};
use active_monitor_proto::{
    CertificateReply, EnrolRequest, Enrolment, EnrolmentClient, EnrolmentServer, Fleet, FleetServer, RenewRequest, v1,
};
use active_monitor_runtime::tasks::Tasks;
use jiff::Timestamp;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::super::{Caller, Figures, FleetService, Frames};
use super::agent::{self, Agent};
use super::wire::{self, Open, Wire};
use crate::authority::Authority;
use crate::ca;
use crate::enrolment::EnrolmentService;
use crate::marks::Marks;
use crate::owner::{self, FleetHandle, Terms};
use crate::refusals::Refusals;
use crate::store::frozen::{Frozen, frozen};
use crate::store::sqlite::SqliteStore;
use crate::store::{RunQuery, Store};
use crate::trust::Issuer;
use crate::{clock, serve};

type Wires = mpsc::UnboundedSender<std::io::Result<Wire>>;

/// Where agents knock; nobody opens while the hub is away.
#[derive(Clone, Default)]
pub(super) struct Doorway(Arc<Mutex<Option<Wires>>>);

impl Doorway {
    pub(super) fn knock(&self, wire: Wire) -> anyhow::Result<()> {
        match &*self.0.lock() {
            Some(wires) => wires.send(Ok(wire)).map_err(|_| anyhow::anyhow!("the hub ends")),
            None => anyhow::bail!("there is no hub"),
        }
    }
}

/// A cluster's status, and since when.
pub(super) type Seen = (Timestamp, String, ClusterStatus);

pub(super) struct World {
    dir: TempDir,
    door: Doorway,
    pub(super) store: Arc<dyn Store>,
    certificate_life: Duration,
    /// Each change of a cluster's status, over all lives of the hub.
    seen: Arc<Mutex<Vec<Seen>>>,
    hub: Option<Hub>,
}

struct Hub {
    tasks: Tasks,
    fleet: FleetHandle,
    issuer: Issuer,
    figures: Figures,
}

impl World {
    pub(super) async fn new() -> World {
        World::with_certificates(ca::AGENT_LIFE).await
    }

    /// Agents' certificates last so long.
    pub(super) async fn with_certificates(certificate_life: Duration) -> World {
        clock::virtual_time::begin("2026-03-01T00:00:00Z".parse().unwrap());
        // What is written is not to outlast anything.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = frozen(SqliteStore::open(dir.path())).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(Frozen(store));
        let mut world =
            World { dir, door: Doorway::default(), store, certificate_life, seen: Arc::default(), hub: None };
        world.start().await;
        world
    }

    pub(super) async fn start(&mut self) {
        let tasks = Tasks::new();
        let authority = Authority::load(self.dir.path(), self.certificate_life, clock::now()).unwrap();
        let authority = Arc::new(authority);
        let terms = Terms { authority: Arc::clone(&authority), ..Terms::of_a_test(self.dir.path()) };
        let lease = terms.lease;
        let fleet = owner::start(Arc::clone(&self.store), terms, &tasks).await.unwrap();
        let issuer = Issuer { authority, fleet: fleet.clone() };
        let marks = Marks::load(&*self.store).await.unwrap();
        let (refusals, figures) = (Refusals::new().unwrap(), Figures::new().unwrap());
        let store = Arc::clone(&self.store);
        let service = FleetService::new(issuer.clone(), store, lease, refusals, marks, figures.clone(), tasks.clone());
        let (wires, accepted) = mpsc::unbounded_channel();
        let stop = tasks.stop_token();
        let served = serve::grpc(lease).add_service(FleetServer::new(Door(service)));
        let incoming = UnboundedReceiverStream::new(accepted);
        let served = served.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tasks.supervise("agents", serve::drained(served, stop));
        tokio::spawn(watch(fleet.clone(), Arc::clone(&self.seen)));
        *self.door.0.lock() = Some(wires);
        self.hub = Some(Hub { tasks, fleet, issuer, figures });
    }

    pub(super) async fn stop(&mut self) {
        let Some(Hub { tasks, .. }) = self.hub.take() else { return };
        self.door.0.lock().take();
        tasks.stop();
        tasks.run(Duration::from_secs(30)).await.unwrap();
    }

    fn hub(&self) -> &Hub {
        self.hub.as_ref().expect("a hub")
    }

    /// What the sessions show in `/metrics`.
    pub(super) fn figures(&self) -> String {
        let registry = prometheus::Registry::new();
        let collectors = self.hub().figures.collectors();
        collectors.into_iter().for_each(|collector| registry.register(collector).unwrap());
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    pub(super) fn view(&self) -> Arc<FleetView> {
        self.hub().fleet.view()
    }

    pub(super) fn status(&self, cluster: &str) -> ClusterStatus {
        self.view().clusters[cluster].view.status
    }

    pub(super) fn check_status(&self, cluster: &str) -> Option<CheckStatus> {
        self.view().check(cluster, "health", "dns").map(|check| check.status)
    }

    /// When a cluster took on this status.
    pub(super) fn times(&self, cluster: &str, status: ClusterStatus) -> Vec<Timestamp> {
        let seen = self.seen.lock();
        seen.iter().filter(|(_, name, seen)| name == cluster && *seen == status).map(|(at, ..)| *at).collect()
    }

    /// Adds a cluster; its agent enrols and dials.
    pub(super) async fn agent(&self, cluster: &str) -> Arc<Agent> {
        let Hub { fleet, issuer, .. } = self.hub();
        let add = ClusterAdd { name: cluster.into(), ..ClusterAdd::default() };
        let token = fleet.add_cluster(add).await.unwrap().token;
        let secret = token.split('.').nth(1).unwrap().to_owned();
        let request = EnrolRequest {
            token: secret,
            cluster: cluster.into(),
            cluster_uid: format!("uid-{cluster}"),
            csr: agent::signing_request(),
        };
        let enrolment = self.enrolment_service(issuer);
        let reply = enrolment.enrol(Request::new(request)).await.unwrap().into_inner();
        Agent::start(cluster, agent::identity(&reply.certificate), self.door.clone())
    }

    fn enrolment_service(&self, issuer: &Issuer) -> EnrolmentService {
        EnrolmentService::new(issuer.clone(), Arc::clone(&self.store), Refusals::new().unwrap(), false)
    }

    /// A connection to the hub's server for enrolments; its wire is as an agent's.
    pub(super) async fn enrolment(&self, agent: &Agent) -> (EnrolmentClient<Channel>, Open) {
        let Hub { tasks, issuer, .. } = self.hub();
        let (near, far, open) = wire::connection(agent.known.lock().identity.clone(), &agent.weather.subscribe());
        let mut server = serve::enrolment_grpc(Terms::of_a_test(self.dir.path()).lease);
        let served = server.add_service(EnrolmentServer::new(self.enrolment_service(issuer)));
        let incoming = tokio_stream::iter([Ok::<_, std::io::Error>(far)]).chain(tokio_stream::pending());
        tokio::spawn(served.serve_with_incoming_shutdown(incoming, tasks.stop_token().cancelled_owned()));
        (EnrolmentClient::new(agent::over(near, None).await.unwrap()), open)
    }

    /// How often each of a cluster's runs is in the history: runs, and different ones among them.
    pub(super) async fn history(&self, cluster: &str) -> (u64, u64) {
        let mut query = RunQuery { cluster: Some(cluster.into()), limit: 1000, ..RunQuery::default() };
        let mut slots = Vec::new();
        loop {
            let page = self.store.runs(&query).await.unwrap();
            query.before = page.items.last().map(|item| item.id);
            slots.extend(page.items.into_iter().map(|item| item.run.key.slot));
            if page.next.is_none() {
                break;
            }
        }
        let all = slots.len() as u64;
        slots.sort_unstable();
        slots.dedup();
        (all, slots.len() as u64)
    }
}

/// Notes each change of a cluster's status.
async fn watch(fleet: FleetHandle, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut events = fleet.events();
    drop(fleet);
    while let Ok((_, event)) = events.recv().await {
        let Event::Cluster(view) = &*event else { continue };
        let mut seen = seen.lock();
        let before = seen.iter().rev().find(|(_, name, _)| *name == view.name).map(|(.., status)| *status);
        if before != Some(view.status) {
            seen.push((clock::now(), view.name.clone(), view.status));
        }
    }
}

/// The service without TLS.
struct Door(FleetService);

fn caller<T>(request: &Request<T>) -> Caller {
    let (identity, connection, written) = request.extensions().get().cloned().expect("a caller");
    Caller { identity, connection, written }
}

#[tonic::async_trait]
impl Fleet for Door {
    type SessionStream = Frames;

    async fn session(&self, request: Request<Streaming<v1::AgentFrame>>) -> Result<Response<Frames>, Status> {
        self.0.open(caller(&request), request.into_inner()).await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateReply>, Status> {
        self.0.issue(caller(&request).identity, &request.into_inner().csr).await
    }
}
