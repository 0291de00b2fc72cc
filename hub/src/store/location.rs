//! Where a store is: what people write, and what it opens. A password in it is never shown.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus::core::Collector;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio_util::sync::CancellationToken;

use super::postgres::replicas::Replicas;
use super::postgres::{Claim, PostgresStore, Share};
use super::sqlite::SqliteStore;
use super::{Store, StoreError};

/// Between two looks for changes that all have followed.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// A location as it was given: `sqlite:DIR`, `postgres://…`, or `file:PATH` of a file that holds one of them.
#[derive(Clone)]
pub struct StoreUrl(String);

impl FromStr for StoreUrl {
    // A refusal by the command line would repeat the text, and with it the password.
    type Err = Infallible;

    fn from_str(text: &str) -> Result<StoreUrl, Infallible> {
        Ok(StoreUrl(text.to_owned()))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl")
    }
}

/// Why a text says of no store where it is.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// No form that is known.
    #[error(
        "a store is given as sqlite:DIR, as postgres://USER@HOST/DATABASE, or as file:PATH of a file that holds that"
    )]
    Form,
    /// The file with the location cannot be read.
    #[error("{path}, which holds the store's location, cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The URL names no data base.
    #[error("the postgres:// URL must name the data base, as in postgres://USER@HOST/DATABASE")]
    NoDatabase,
    /// The URL cannot be read.
    #[error("the postgres:// URL cannot be read; special characters of a password are written as %XX")]
    Postgres(#[source] sqlx::Error),
}

/// Where a store is.
#[derive(Clone)]
pub enum Location {
    /// In a directory.
    Sqlite(PathBuf),
    /// On a server.
    Postgres(Box<PgConnectOptions>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Sqlite(directory) => write!(f, "sqlite:{}", directory.display()),
            Location::Postgres(options) => {
                let database = options.get_database().unwrap_or_default();
                match options.get_socket() {
                    Some(socket) => write!(f, "PostgreSQL data base {database} at {}", socket.display()),
                    None => {
                        write!(f, "PostgreSQL data base {database} at {}:{}", options.get_host(), options.get_port())
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StoreUrl {
    /// Reads it, and the file that it names.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub fn location(&self) -> Result<Location, LocationError> {
        match self.0.strip_prefix("file:") {
            Some(path) => {
                let path = PathBuf::from(path);
                let text = std::fs::read_to_string(&path);
                parse(text.map_err(|source| LocationError::File { path, source })?.trim())
            }
            None => parse(&self.0),
        }
    }
}

fn parse(text: &str) -> Result<Location, LocationError> {
    if let Some(directory) = text.strip_prefix("sqlite:").filter(|directory| !directory.is_empty()) {
        return Ok(Location::Sqlite(PathBuf::from(directory)));
    }
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(LocationError::Form);
    }
    let mut options = PgConnectOptions::from_str(text).map_err(LocationError::Postgres)?;
    if options.get_database().is_none() {
        return Err(LocationError::NoDatabase);
    }
    let is_local = options.get_socket().is_some() || matches!(options.get_host(), "localhost" | "127.0.0.1" | "[::1]");
    let is_told = ["sslmode=", "ssl-mode="].iter().any(|setting| text.contains(setting));
    if !is_local && !is_told && std::env::var_os("PGSSLMODE").is_none() {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    Ok(Location::Postgres(Box::new(options.application_name("active-monitor-hub"))))
}

/// A store that is open.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// How the hub's replicas reach each other; none where the hub is alone.
    pub replicas: Option<Arc<Replicas>>,
    /// What it counts.
    pub collectors: Vec<Box<dyn Collector>>,
    /// Keeps a second hub away until the token is cancelled; ends with an error where that fails. None where the store
    /// does so by itself.
    pub claim: Option<Hold>,
}

/// Holds a claim until it is told to stop.
type Hold = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, Result<(), StoreError>> + Send>;

impl Location {
    /// Where the hub of a data directory keeps everything unless it is told otherwise.
    pub fn in_data_dir(data_dir: &Path) -> Location {
        Location::Sqlite(data_dir.to_owned())
    }

    /// Opens the store, which nobody else may have open.
    ///
    /// # Errors
    /// It cannot be reached or brought up to date, or another hub has it.
    pub async fn open(&self) -> Result<Opened, StoreError> {
        match self {
            Location::Sqlite(directory) => {
                let store = SqliteStore::open(directory).await?;
                Ok(Opened { collectors: store.collectors(), store: Arc::new(store), replicas: None, claim: None })
            }
            Location::Postgres(options) => {
                let opened = PostgresStore::open(options.as_ref().clone(), Share::Alone).await?;
                Ok(of_postgres(opened, |_| None))
            }
        }
    }

    /// Opens the store for one of the hub's replicas.
    ///
    /// # Errors
    /// As [`Location::open`]; and a file is nothing to share.
    pub async fn share(&self) -> Result<Opened, StoreError> {
        match self {
            Location::Sqlite(_) => Err(StoreError::NotShared),
            Location::Postgres(options) => {
                let opened = PostgresStore::open(options.as_ref().clone(), Share::Replicas).await?;
                Ok(of_postgres(opened, |store| Some(Arc::new(Replicas::new(store)))))
            }
        }
    }
}

fn of_postgres(
    (store, claim): (PostgresStore, Claim),
    replicas: impl FnOnce(&PostgresStore) -> Option<Arc<Replicas>>,
) -> Opened {
    let (collectors, replicas, held) = (store.collectors(), replicas(&store), store.clone());
    let hold: Hold = Box::new(move |stop| hold(claim, held, stop).boxed());
    Opened { store: Arc::new(store), replicas, collectors, claim: Some(hold) }
}

/// Holds the claim until `stop`, and forgets changes meanwhile: in a hub that is alone nobody follows them.
async fn hold(claim: Claim, store: PostgresStore, stop: CancellationToken) -> Result<(), StoreError> {
    let forget = async {
        loop {
            if let Err(error) = store.forget_changes().await {
                tracing::warn!(%error, "changes that all have followed are not forgotten");
            }
            tokio::time::sleep(FORGET_EVERY).await;
        }
    };
    tokio::select! {
        ended = claim.hold(stop) => ended,
        never = forget => never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Location, LocationError> {
        text.parse::<StoreUrl>().unwrap().location()
    }

    fn mode(text: &str) -> String {
        match read(text).unwrap() {
            Location::Postgres(options) => format!("{:?}", options.get_ssl_mode()),
            Location::Sqlite(_) => "none".to_owned(),
        }
    }

    #[test]
    fn a_server_on_the_network_is_reached_by_verified_tls_unless_it_is_told_otherwise() {
        assert_eq!(mode("postgres://hub@db.example/fleet"), "VerifyFull");
        assert_eq!(mode("postgres://hub@db.example/fleet?sslmode=disable"), "Disable");
        assert_eq!(mode("postgres://hub@127.0.0.1/fleet"), "Prefer");
        assert_eq!(mode("postgresql://hub@localhost/fleet?host=/run/postgresql"), "Prefer");
    }

    #[test]
    fn a_password_is_in_no_message() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres://hub:s3cret@db/fleet?sslmode=disable\n").unwrap();
        let location = read(&format!("file:{}", file.path().display())).unwrap();
        assert_eq!(location.to_string(), "PostgreSQL data base fleet at db:5432");
        assert!(!format!("{location:?} {:?}", StoreUrl("postgres://hub:s3cret@db/fleet".into())).contains("s3cret"));
        for text in
            ["postgres://hub:s3cret@db", "postgres://hub:s3cret@db:port/x", "mysql://hub:s3cret@db/x", "s3cret", ""]
        {
            let error = read(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        assert!(matches!(read("file:/nowhere"), Err(LocationError::File { .. })));
        assert!(matches!(read("sqlite:"), Err(LocationError::Form)));
    }
}
