//! Puts the hub together: store, CA, owner and the three listeners. It decides nothing.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::session::frame::MAX_AGENT_FRAME_BYTES;
use active_monitor_core::view::Role;
use active_monitor_proto::{EnrolmentServer, FleetServer};
use active_monitor_runtime::admin::{self, Readiness};
use active_monitor_runtime::http;
use active_monitor_runtime::tasks::Tasks;
use active_monitor_runtime::tls::{self, ALPN_H2, ALPN_HTTP_1, TlsError, TlsIncoming};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::ca::{self, Ca, CaError};
use crate::config::{ConfigError, ServeArgs};
use crate::enrolment::EnrolmentService;
use crate::ingest::FleetService;
use crate::owner::{self, FleetHandle, Terms};
use crate::store::sqlite::SqliteStore;
use crate::store::{ApiToken, Store, StoreError};
use crate::{AppState, api, auth};

/// File in the data directory with the first admin token.
pub const ADMIN_TOKEN_FILE: &str = "admin-token";
/// Streams on one agent's connection: a session, a renewal, and room for both again.
const MAX_STREAMS: u32 = 8;
/// The largest request to enrol.
const MAX_ENROLMENT_BYTES: usize = 64 * 1024;
/// Time that connections have to end after the stop.
const DRAIN: Duration = Duration::from_secs(5);
/// A peer that does not answer a ping for so long is gone.
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
    /// The store does not open.
    #[error("the store does not open")]
    Store(#[from] StoreError),
    /// The CA cannot be used.
    #[error("the CA cannot be used")]
    Ca(#[from] CaError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
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
}

/// The TLS configurations, which are replaced before their certificate ends.
struct Listeners {
    agents: Arc<ArcSwap<ServerConfig>>,
    enrolment: Arc<ArcSwap<ServerConfig>>,
    people: Arc<ArcSwap<ServerConfig>>,
}

/// Starts the hub's tasks and returns once all listeners are open.
///
/// # Errors
/// See [`ServeError`]; nothing is left running that `tasks` does not hold.
pub async fn start(args: &ServeArgs, tasks: &Tasks) -> Result<Hub, ServeError> {
    args.check()?;
    let readiness = Readiness::default();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&args.data_dir);
    made.map_err(ServeError::DataDir)?;
    let store = SqliteStore::open(&args.data_dir).await?;
    for collector in store.collectors() {
        if let Err(error) = prometheus::default_registry().register(collector) {
            tracing::debug!(%error, "metric not registered");
        }
    }
    let store: Arc<dyn Store> = Arc::new(store);
    first_token(&args.data_dir, store.as_ref()).await?;
    let ca = Arc::new(Ca::load_or_create(&args.data_dir, Timestamp::now())?);

    let (agents, agents_address) = listen(args.agents_listen).await?;
    let (enrolment, enrolment_address) = listen(args.enrolment_listen).await?;
    let (people, people_address) = listen(args.people_listen).await?;
    let terms = Terms {
        lease: args.lease(),
        ca_fingerprint: ca.fingerprint(),
        agent_address: args.agents_advertise.clone().unwrap_or_else(|| agents_address.to_string()),
        enrolment_address: args.enrolment_advertise.clone().unwrap_or_else(|| enrolment_address.to_string()),
    };
    let fleet = owner::start(Arc::clone(&store), terms, tasks).await?;
    let listeners = Listeners::new(&ca, &args.names())?;

    let fleet_service =
        FleetService::new(Arc::clone(&ca), Arc::clone(&store), fleet.clone(), args.lease(), tasks.clone());
    let fleet_service = FleetServer::new(fleet_service).max_decoding_message_size(MAX_AGENT_FRAME_BYTES);
    let incoming = accept(agents, &listeners.agents, tasks, args.agents_listen)?;
    let served = grpc().add_service(fleet_service);
    let served = served.serve_with_incoming_shutdown(incoming, tasks.stop_token().cancelled_owned());
    tasks.supervise("agents", drained(served, tasks.stop_token()));

    let enrolment_service = EnrolmentService::new(Arc::clone(&ca), Arc::clone(&store), fleet.clone());
    let incoming = accept(enrolment, &listeners.enrolment, tasks, args.enrolment_listen)?;
    let enrolment_service = EnrolmentServer::new(enrolment_service).max_decoding_message_size(MAX_ENROLMENT_BYTES);
    let served = grpc().add_service(enrolment_service);
    let served = served.serve_with_incoming_shutdown(incoming, tasks.stop_token().cancelled_owned());
    tasks.supervise("enrolment", drained(served, tasks.stop_token()));

    let app = AppState {
        fleet: fleet.clone(),
        store: Arc::clone(&store),
        registry: prometheus::default_registry().clone(),
        secure_cookies: !args.people_plaintext,
    };
    let router = api::router(app);
    if args.people_plaintext {
        tasks.supervise("people", http::serve_plain(people, router, tasks.stop_token()));
    } else {
        let incoming = accept(people, &listeners.people, tasks, args.people_listen)?;
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
    tasks.supervise("certificates", listeners.renew(ca, args.names(), tasks.stop_token()));
    readiness.set(true);
    tracing::info!(agents = %agents_address, enrolment = %enrolment_address, people = %people_address, "hub serves");
    Ok(Hub { agents: agents_address, enrolment: enrolment_address, people: people_address, admin, fleet, store })
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

/// Where there is no token yet, an admin's is left in the data directory: a file, since a log is read by many.
async fn first_token(data_dir: &Path, store: &dyn Store) -> Result<(), ServeError> {
    if !store.api_tokens().await?.is_empty() {
        return Ok(());
    }
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    let text = create_token(store, "admin", Role::Admin).await?;
    ca::write_private(&path, format!("{text}\n").as_bytes()).map_err(ServeError::DataDir)?;
    tracing::info!(path = %path.display(), "admin token written");
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
    tasks: &Tasks,
    address: SocketAddr,
) -> Result<TlsIncoming, ServeError> {
    tls::serve_tls(listener, Arc::clone(config), tasks.stop_token())
        .map_err(|source| ServeError::Listen { address, source })
}

/// Runs a server; once asked to stop, its connections have [`DRAIN`] to end. A silent peer would else keep it for ever.
async fn drained<E>(server: impl Future<Output = Result<(), E>>, stop: CancellationToken) -> Result<(), E> {
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server => ended,
        () = cut => Ok(()),
    }
}

fn grpc() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(Some(MAX_STREAMS))
}

impl Listeners {
    fn new(ca: &Ca, names: &[String]) -> Result<Listeners, ServeError> {
        let [agents, enrolment, people] = configs(ca, names)?.map(|config| Arc::new(ArcSwap::from_pointee(config)));
        Ok(Listeners { agents, enrolment, people })
    }

    /// Replaces the certificates at two thirds of their life.
    async fn renew(self, ca: Arc<Ca>, names: Vec<String>, stop: CancellationToken) -> Result<(), ServeError> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(ca::SERVER_LIFE * 2 / 3) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let [agents, enrolment, people] = configs(&ca, &names)?.map(Arc::new);
            self.agents.store(agents);
            self.enrolment.store(enrolment);
            self.people.store(people);
            tracing::info!("certificates of the listeners replaced");
        }
    }
}

/// Configurations for agents (client certificates required), enrolment and people.
fn configs(ca: &Ca, names: &[String]) -> Result<[ServerConfig; 3], ServeError> {
    let now = Timestamp::now();
    let client_ca = [ca.certificate().clone()];
    let agents = tls::server_config(ca.issue_server(names, now)?, Some(&client_ca), &[ALPN_H2])?;
    let enrolment = tls::server_config(ca.issue_server(names, now)?, None, &[ALPN_H2])?;
    let people = tls::server_config(ca.issue_server(names, now)?, None, &[ALPN_H2, ALPN_HTTP_1])?;
    Ok([agents, enrolment, people])
}
