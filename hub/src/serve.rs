//! Puts the hub together: store, CA, owner and the three listeners. It decides nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::session::frame::{MAX_AGENT_FRAME_BYTES, MAX_HUB_FRAME_BYTES};
use active_monitor_core::view::Role;
use active_monitor_proto::{EnrolmentServer, FleetServer};
use active_monitor_runtime::admin::{self, Readiness};
use active_monitor_runtime::http;
use active_monitor_runtime::tasks::Tasks;
use active_monitor_runtime::tls::files::{Change, FilesError, IdentityFiles};
use active_monitor_runtime::tls::{
    self, ALPN_H2, ALPN_HTTP_1, Clients, Limits, Refusals as Turned, TlsError, TlsIncoming,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus::{IntCounterVec, IntGauge, Opts};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::alerts::{self, AlertMetrics, RoutesError};
use crate::auth::oidc::{Oidc, OidcSetupError};
use crate::authority::{Authority, SharedError, Trust};
use crate::ca::{self, CaError};
use crate::clock;
use crate::config::{ConfigError, ServeArgs};
use crate::enrolment::EnrolmentService;
use crate::incidents::{self, IncidentMetrics, OpenIncidents};
use crate::ingest::{Figures, FleetService};
use crate::marks::Marks;
use crate::owner::{self, FleetHandle, Terms};
use crate::refusals::Refusals;
use crate::remote_write::{RemoteWriteMetrics, SenderError};
use crate::replicas::Peers;
use crate::resources::{Resources, ResourcesError};
use crate::retention::Pruning;
use crate::revocations::{RevocationError, Revocations, SharedError as SharedRevocationError};
use crate::singletons::{self, Duties};
use crate::source::Source;
use crate::store::location::{LocationError, Opened};
use crate::store::postgres::replicas::Topic;
use crate::store::{ApiToken, Store, StoreError};
use crate::trust::Issuer;
use crate::{AppState, api, auth};

/// File in the data directory with the first admin token.
pub const ADMIN_TOKEN_FILE: &str = "admin-token";
/// Streams on one agent's connection: a session, a renewal, and room for both again.
const MAX_STREAMS: u32 = 8;
/// The largest head of a request of an agent, bytes.
const MAX_HEAD_BYTES: u32 = 16 * 1024;
/// What one agent's connection may send ahead of what the hub has taken, bytes; so much memory it can cost.
const AGENT_WINDOW: u32 = 256 * 1024;
/// Time for a request that is no stream, and for the head of the answer of one that is.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of agents. One of them is enough for an agent, but two replicas share a certificate, and a connection that
/// was cut is seen late.
const AGENTS: Limits = Limits { connections: 10_000, per_caller: 8 };
/// Connections that enrol. Many agents may be behind one address.
const ENROLMENT: Limits = Limits { connections: 1_024, per_caller: 128 };
/// Connections of people. Many people may be behind one address.
const PEOPLE: Limits = Limits { connections: 1_024, per_caller: 256 };
/// The largest request to enrol.
const MAX_ENROLMENT_BYTES: usize = 64 * 1024;
/// How long an enrolment's connection may last: nobody has to be known to open one.
const ENROLMENT_AGE: Duration = Duration::from_secs(60);
/// Time that connections have to end after the stop.
const DRAIN: Duration = Duration::from_secs(5);
/// What people's listener speaks.
const PEOPLE_ALPN: [&[u8]; 2] = [ALPN_H2, ALPN_HTTP_1];
/// How often the files of people's certificate are looked at.
const FILES_EVERY: Duration = Duration::from_secs(5);
/// Name and life of the lease under which a replica starts.
const START: &str = "start";
const START_LIFE: Duration = Duration::from_secs(15);
/// Between two pings; at least so long a peer may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Why the hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting makes no sense.
    #[error("the configuration is wrong")]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("the data directory cannot be used")]
    DataDir(#[source] io::Error),
    /// It is not told where the store is.
    #[error("--store")]
    Location(#[from] LocationError),
    /// The store does not open.
    #[error("the store does not open")]
    Store(#[from] StoreError),
    /// The file with the admin's token cannot be read, or holds none.
    #[error("--admin-token-file: {path} must hold amf_ and 64 hex digits")]
    AdminToken {
        /// The file.
        path: PathBuf,
        /// What the system said, where it could not be read.
        #[source]
        source: Option<io::Error>,
    },
    /// The routes of alerts cannot be used.
    #[error("the routes of alerts cannot be used")]
    Routes(#[from] RoutesError),
    /// What was revoked is not known.
    #[error("what was revoked is not known")]
    Revocations(#[from] RevocationError),
    /// What other replicas revoked is not known.
    #[error("what other replicas revoked is not known")]
    SharedRevocations(#[from] SharedRevocationError),
    /// The CA cannot be used.
    #[error("the CA cannot be used")]
    Ca(#[from] CaError),
    /// The CA that the replicas share cannot be used.
    #[error("the CA that the replicas share cannot be used")]
    SharedCa(#[from] SharedError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The certificate for people cannot be used.
    #[error("--tls-cert-file, --tls-key-file: the certificate for people cannot be used")]
    People(#[from] FilesError),
    /// The login at the OpenID provider cannot be set up.
    #[error("the login at the OpenID provider cannot be set up")]
    Oidc(#[from] OidcSetupError),
    /// The resources of the hub's own cluster cannot be followed.
    #[error("--resources-namespace")]
    Resources(#[from] ResourcesError),
    /// Remote write cannot be set up.
    #[error("remote write cannot be set up")]
    RemoteWrite(#[from] SenderError),
    /// An address cannot be listened on.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A hub that serves.
pub struct Hub {
    /// Where agents connect.
    pub agents: SocketAddr,
    /// Where agents enrol.
    pub enrolment: SocketAddr,
    /// Where people connect.
    pub people: SocketAddr,
    /// Where the process's own endpoints are.
    pub admin: Option<SocketAddr>,
    /// Reads and changes the fleet.
    pub fleet: FleetHandle,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The open incidents.
    pub incidents: OpenIncidents,
    /// The CA.
    pub authority: Arc<Authority>,
    /// What was refused.
    pub refusals: Refusals,
    /// Connections that were refused.
    pub turned: Turned,
}

/// The TLS configurations, which are replaced before their certificate ends.
struct Listeners {
    agents: Arc<ArcSwap<ServerConfig>>,
    enrolment: Arc<ArcSwap<ServerConfig>>,
    people: Arc<ArcSwap<ServerConfig>>,
    /// Where people's certificate comes from, where it is not the hub's CA.
    files: Option<IdentityFiles>,
}

/// Starts the hub's tasks and returns once all listeners are open.
///
/// # Errors
/// See [`ServeError`]; nothing is left running that `tasks` does not hold.
pub async fn start(args: &ServeArgs, tasks: &Tasks) -> Result<Hub, ServeError> {
    args.check()?;
    // Of replicas only one tells; each refuses a file that makes no sense.
    args.routes_file.as_deref().map(alerts::read).transpose()?;
    let readiness = Readiness::default();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&args.data_dir);
    made.map_err(ServeError::DataDir)?;
    let location = args.store.location(&args.data_dir)?;
    let opened = if args.replicated { location.share().await? } else { location.open().await? };
    let Opened { store, replicas, collectors, claim } = opened;
    if let Some(hold) = claim {
        tasks.supervise("store", hold(tasks.stop_token()));
    }
    let metrics_error = |error: prometheus::Error| StoreError::Metrics(error.to_string());
    let refusals = Refusals::new().map_err(metrics_error)?;
    let pruning = Pruning::new().map_err(metrics_error)?;
    let incident_metrics = IncidentMetrics::new().map_err(metrics_error)?;
    let alert_metrics = AlertMetrics::new().map_err(metrics_error)?;
    let turned = Turned::new("activemonitor_hub_connections_refused_total").map_err(metrics_error)?;
    let figures = Figures::new().map_err(metrics_error)?;
    let own = [refusals.collector(), turned.collector()].into_iter().chain(figures.collectors());
    let source = Arc::new(Source::load(args.source.clone(), store.as_ref()).await?.shared(replicas.clone()));
    let resources = match &args.source.resources_namespace {
        Some(namespace) => Some(Resources::new(namespace).await?),
        None => None,
    };
    let own = own.chain(resources.iter().map(Resources::collector));
    let own = own.chain(source.collectors()).chain(incident_metrics.collectors()).chain(alert_metrics.collectors());
    // Of replicas the one that prunes shows it.
    let pruned = if replicas.is_none() { pruning.collectors() } else { Vec::new() };
    for collector in collectors.into_iter().chain(own).chain(pruned) {
        if let Err(error) = prometheus::default_registry().register(collector) {
            tracing::debug!(%error, "metric not registered");
        }
    }
    let revocations = Revocations::load(&args.revocations.path(&args.data_dir))?.shared(replicas.clone());
    let revocations = Arc::new(revocations);
    // One replica after the other, so that of two that are the first ones only one makes a token.
    let turn = match &replicas {
        Some(replicas) => Some(replicas.wait_for_lease(START, START_LIFE).await?),
        None => None,
    };
    // First of all: where no admin's token is left, the first start makes one.
    revocations.learn().await?;
    revocations.enforce(store.as_ref()).await?;
    revocations.teach().await?;
    match &args.admin_token_file {
        Some(path) => given_token(path, store.as_ref()).await?,
        None => first_token(&args.data_dir, store.as_ref()).await?,
    }
    let (life, now) = (args.agent_certificate_life(), Timestamp::now());
    let authority = Arc::new(match &replicas {
        Some(replicas) => Authority::share(Arc::clone(replicas), &args.data_dir, life, now).await?,
        None => Authority::load(&args.data_dir, life, now)?,
    });
    if let (Some(replicas), Some(turn)) = (&replicas, turn) {
        replicas.end_lease(&turn).await?;
        tasks.supervise("shared CA", Arc::clone(&authority).follow(tasks.stop_token()));
    }

    let (agents, agents_address) = listen(args.agents_listen).await?;
    let (enrolment, enrolment_address) = listen(args.enrolment_listen).await?;
    let (people, people_address) = listen(args.people_listen).await?;
    let restore_unconfirmed = IntGauge::new(
        "activemonitor_hub_restore_unconfirmed",
        "1 where the hub came back from the past and nobody has confirmed it: definitions are held back.",
    );
    let restore_unconfirmed = restore_unconfirmed.map_err(metrics_error)?;
    if let Err(error) = prometheus::default_registry().register(Box::new(restore_unconfirmed.clone())) {
        tracing::debug!(%error, "metric not registered");
    }
    let peers = replicas.clone().map(|replicas| Arc::new(Peers::new(replicas)));
    if let Some(peers) = &peers {
        let follow = Arc::clone(&revocations).follow(peers.changed(Topic::Revocations), tasks.stop_token());
        tasks.supervise("shared revocations", follow);
        let changes = peers.changed(Topic::Source);
        let follow = Arc::clone(&source).follow(Arc::clone(&peers.store), changes, tasks.stop_token());
        tasks.supervise("shared source", follow);
    }
    let terms = Terms {
        revocations,
        restore_unconfirmed,
        peers,
        lease: args.lease(),
        authority: Arc::clone(&authority),
        agent_address: args.agents_advertise.clone().unwrap_or_else(|| agents_address.to_string()),
        enrolment_address: args.enrolment_advertise.clone().unwrap_or_else(|| enrolment_address.to_string()),
    };
    let fleet = owner::start(Arc::clone(&store), terms, tasks).await?;
    let remote_write_metrics = RemoteWriteMetrics::new().map_err(metrics_error)?;
    if args.remote_write.url().map_err(ConfigError::from)?.is_some() {
        for collector in remote_write_metrics.collectors() {
            if let Err(error) = prometheus::default_registry().register(collector) {
                tracing::debug!(%error, "metric not registered");
            }
        }
    }
    let duties = Duties {
        fleet: fleet.clone(),
        source: Arc::clone(&source),
        resources,
        retention: args.retention(),
        pruning,
        incidents: incident_metrics.clone(),
        routes_file: args.routes_file.clone(),
        alerts: alert_metrics,
        remote_write: args.remote_write.clone(),
        remote_write_metrics,
        registry: prometheus::default_registry().clone(),
    };
    let open_incidents = match replicas {
        None => duties.start(Arc::clone(&store), (fleet.view(), false), None, tasks).await?,
        Some(replicas) => {
            tasks.supervise("singletons", singletons::run(replicas, duties, tasks.stop_token()));
            incidents::follow(Arc::clone(&store), fleet.clone(), incident_metrics, tasks).await?
        }
    };
    let listeners = Listeners::new(&authority.trust(), &args.names(), args.people_identity())?;

    let issuer = Issuer { authority: Arc::clone(&authority), fleet: fleet.clone() };
    let marks = Marks::load(store.as_ref()).await?;
    let fleet_service = FleetService::new(
        issuer.clone(),
        Arc::clone(&store),
        args.lease(),
        refusals.clone(),
        marks,
        figures,
        tasks.clone(),
    );
    let fleet_service = FleetServer::new(fleet_service)
        .max_decoding_message_size(MAX_AGENT_FRAME_BYTES)
        .max_encoding_message_size(MAX_HUB_FRAME_BYTES);
    let incoming = accept(agents, &listeners.agents, ("agents", AGENTS), &turned, tasks, args.agents_listen)?;
    let mut server =
        grpc(args.lease()).initial_stream_window_size(AGENT_WINDOW).initial_connection_window_size(AGENT_WINDOW);
    let served = server.add_service(fleet_service);
    let served = served.serve_with_incoming_shutdown(incoming, tasks.stop_token().cancelled_owned());
    tasks.supervise("agents", drained(served, tasks.stop_token()));

    let enrolment_service = EnrolmentService::new(issuer, Arc::clone(&store), refusals.clone(), args.require_approval);
    let incoming =
        accept(enrolment, &listeners.enrolment, ("enrolment", ENROLMENT), &turned, tasks, args.enrolment_listen)?;
    let enrolment_service = EnrolmentServer::new(enrolment_service).max_decoding_message_size(MAX_ENROLMENT_BYTES);
    let mut server = enrolment_grpc(args.lease());
    let served = server.add_service(enrolment_service);
    let served = served.serve_with_incoming_shutdown(incoming, tasks.stop_token().cancelled_owned());
    tasks.supervise("enrolment", drained(served, tasks.stop_token()));

    let app = AppState {
        fleet: fleet.clone(),
        store: Arc::clone(&store),
        incidents: open_incidents.clone(),
        authority: Arc::clone(&authority),
        oidc: Oidc::load(&args.oidc, store.as_ref()).await?.map(Arc::new),
        source,
        routes_file: args.routes_file.clone(),
        registry: prometheus::default_registry().clone(),
        secure_cookies: !args.people_plaintext,
    };
    let router = api::router(app);
    if args.people_plaintext {
        tasks.supervise("people", http::serve_plain(people, router, tasks.stop_token()));
    } else {
        let incoming = accept(people, &listeners.people, ("people", PEOPLE), &turned, tasks, args.people_listen)?;
        tasks.supervise("people", http::serve_tls(incoming, router, tasks.stop_token()));
    }
    let admin = match args.admin_listen {
        Some(address) => {
            let (listener, address) = listen(address).await?;
            tasks.supervise("admin", http::serve_plain(listener, admin::router(readiness.clone()), tasks.stop_token()));
            Some(address)
        }
        None => None,
    };
    let files = listeners.follow_files(tasks.stop_token())?;
    tasks.supervise("certificate files", async move {
        files.await;
        Ok::<(), Infallible>(())
    });
    tasks.supervise("certificates", listeners.renew(Arc::clone(&authority), args.names(), tasks.stop_token()));
    readiness.set(true);
    tracing::info!(agents = %agents_address, enrolment = %enrolment_address, people = %people_address, "hub serves");
    Ok(Hub {
        agents: agents_address,
        enrolment: enrolment_address,
        people: people_address,
        admin,
        fleet,
        store,
        incidents: open_incidents,
        authority,
        refusals,
        turned,
    })
}

/// Makes an API token and returns its text.
///
/// # Errors
/// The store fails.
pub async fn create_token(store: &dyn Store, name: &str, role: Role) -> Result<String, StoreError> {
    let text = auth::new_token();
    let token = ApiToken { name: name.to_owned(), role, hash: auth::hash(&text), created_at: Timestamp::now() };
    store.put_api_token(&token).await?;
    Ok(text)
}

/// Where there is no admin's token, one is left in the data directory: a file, since a log is read by many.
async fn first_token(data_dir: &Path, store: &dyn Store) -> Result<(), ServeError> {
    if store.api_tokens().await?.iter().any(|token| token.role == Role::Admin) {
        return Ok(());
    }
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    let text = create_token(store, "admin", Role::Admin).await?;
    ca::write_private(&path, format!("{text}\n").as_bytes()).map_err(ServeError::DataDir)?;
    tracing::info!(path = %path.display(), "admin token written");
    Ok(())
}

/// The admin's token is the one in the file from now on.
async fn given_token(path: &Path, store: &dyn Store) -> Result<(), ServeError> {
    let refused = |source| ServeError::AdminToken { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(|source| refused(Some(source)))?;
    let text = text.trim();
    if !auth::is_token(text) {
        return Err(refused(None));
    }
    let (name, role, hash) = ("admin".to_owned(), Role::Admin, auth::hash(text));
    let known = store.api_tokens().await?;
    if known.iter().any(|token| token.name == name && token.role == role && token.hash == hash) {
        return Ok(());
    }
    store.put_api_token(&ApiToken { name, role, hash, created_at: Timestamp::now() }).await?;
    tracing::info!(path = %path.display(), "admin token taken over");
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

fn accept(
    listener: TcpListener,
    config: &Arc<ArcSwap<ServerConfig>>,
    (name, limits): (&'static str, Limits),
    turned: &Turned,
    tasks: &Tasks,
    address: SocketAddr,
) -> Result<TlsIncoming, ServeError> {
    tls::serve_tls(listener, Arc::clone(config), (name, limits), turned.clone(), tasks.stop_token())
        .map_err(|source| ServeError::Listen { address, source })
}

/// Runs a server; once asked to stop, its connections have [`DRAIN`] to end. A silent peer would else keep it for ever.
pub(crate) async fn drained<E>(server: impl Future<Output = Result<(), E>>, stop: CancellationToken) -> Result<(), E> {
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server => ended,
        () = cut => Ok(()),
    }
}

/// A peer may leave a ping unanswered for as long as it may be silent: a pause within the lease ends no session.
pub(crate) fn grpc(lease: Duration) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE.max(lease)))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(MAX_HEAD_BYTES)
        .timeout(REQUEST_TIMEOUT)
}

/// For who enrols, whose connections end after a while. The grace is a part of it: with one, tonic 0.14 ends a connection after
/// both, and says nothing before.
pub(crate) fn enrolment_grpc(lease: Duration) -> Server {
    grpc(lease).max_connection_age(ENROLMENT_AGE.saturating_sub(DRAIN)).max_connection_age_grace(DRAIN)
}

impl Listeners {
    fn new(trust: &Trust, names: &[String], files: Option<IdentityFiles>) -> Result<Listeners, ServeError> {
        let [agents, enrolment, people] = configs(trust, names)?.map(|config| Arc::new(ArcSwap::from_pointee(config)));
        if let Some(files) = &files {
            people.store(Arc::new(files.load(&PEOPLE_ALPN)?));
        }
        Ok(Listeners { agents, enrolment, people, files })
    }

    /// Follows the files of people's certificate, where there are some.
    fn follow_files(&self, stop: CancellationToken) -> Result<impl Future<Output = ()> + use<>, ServeError> {
        let reloads = IntCounterVec::new(
            Opts::new("activemonitor_hub_tls_reloads_total", "Changes of --tls-cert-file and --tls-key-file."),
            &["result"],
        );
        let reloads = reloads.map_err(|error| StoreError::Metrics(error.to_string()))?;
        let [taken, refused] = ["replaced", "refused"].map(|result| reloads.with_label_values(&[result]));
        let (files, people) = (self.files.clone(), Arc::clone(&self.people));
        if files.is_some()
            && let Err(error) = prometheus::default_registry().register(Box::new(reloads))
        {
            tracing::debug!(%error, "metric not registered");
        }
        let changed = move |change| match change {
            Change::Replaced => {
                taken.inc();
                tracing::info!("people's certificate replaced");
            }
            Change::Refused(error) => {
                refused.inc();
                let error = anyhow::Error::from(error);
                tracing::error!(
                    error = format!("{error:#}"),
                    "people's new certificate is no good, the one before stays"
                );
            }
        };
        Ok(async move {
            match files {
                Some(files) => files.follow(&PEOPLE_ALPN, FILES_EVERY, people, changed, stop).await,
                None => stop.cancelled().await,
            }
        })
    }

    /// Replaces the certificates at two thirds of their life, and when the CA changes or the clock is set back.
    async fn renew(
        self,
        authority: Arc<Authority>,
        names: Vec<String>,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let mut changes = authority.changes();
        loop {
            tokio::select! {
                () = tokio::time::sleep(ca::SERVER_LIFE * 2 / 3) => {}
                // Those that were made by a clock that was ahead are not good yet.
                () = clock::set_back() => {}
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
            let [agents, enrolment, people] = configs(&authority.trust(), &names)?.map(Arc::new);
            self.agents.store(agents);
            self.enrolment.store(enrolment);
            if self.files.is_none() {
                self.people.store(people);
            }
            tracing::info!("certificates of the listeners replaced");
        }
    }
}

/// Configurations for agents (client certificates required), enrolment (an expired one proves a key) and people.
fn configs(trust: &Trust, names: &[String]) -> Result<[ServerConfig; 3], ServeError> {
    let now = Timestamp::now();
    let (ca, client_ca) = (&trust.ca, trust.client_roots());
    let agents = tls::server_config(ca.issue_server(names, now)?, Clients::Certified(&client_ca), &[ALPN_H2])?;
    let enrolment = tls::server_config(ca.issue_server(names, now)?, Clients::Expired(&client_ca), &[ALPN_H2])?;
    let people = tls::server_config(ca.issue_server(names, now)?, Clients::Anonymous, &PEOPLE_ALPN)?;
    Ok([agents, enrolment, people])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;

    #[tokio::test]
    async fn a_start_without_an_admins_token_leaves_one_whatever_other_tokens_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).await.unwrap();
        create_token(&store, "watcher", Role::Viewer).await.unwrap();
        first_token(dir.path(), &store).await.unwrap();
        let written = || std::fs::read_to_string(dir.path().join(ADMIN_TOKEN_FILE)).unwrap();
        let first = written();
        let tokens = store.api_tokens().await.unwrap();
        let admin = tokens.iter().find(|token| token.role == Role::Admin).unwrap();
        assert_eq!((tokens.len(), admin.hash), (2, auth::hash(first.trim())));
        first_token(dir.path(), &store).await.unwrap();
        assert_eq!(written(), first);
    }
}
