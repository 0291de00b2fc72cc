//! The hub's command line. Every flag can also be set in the environment, and in a file ([`file`]).

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use active_monitor_core::view::Role;
use active_monitor_runtime::logging::LogFormat;
use active_monitor_runtime::tls::files::IdentityFiles;
use clap::{Args, Parser, Subcommand};

use crate::auth::oidc::{OidcArgs, OidcArgsError};
use crate::remote_write::{RemoteWriteArgs, UrlError};
use crate::retention::Retention;
use crate::revocations;
use crate::source::SourceArgs;
use crate::store::location::{Location, LocationError, StoreUrl};

pub mod file;

/// The hub of Active-Monitor Fleet: the health of the whole fleet in one place.
#[derive(Debug, Parser)]
#[command(name = "active-monitor-hub", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; serves where it is not given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What the hub can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve agents and people.
    Serve(Box<ServeArgs>),
    /// Print the CA's certificate, by which fleetcheck and Prometheus know the hub.
    Ca(DataArgs),
    /// Write a tar archive of data base and CA to stdout; the hub may be running. It holds the CA's key.
    Backup(BackupArgs),
    /// Read such an archive from stdin into an empty data directory.
    Restore(DataArgs),
    /// Print what was revoked, which no backup holds; put it into the data directory before a restore, as revoked.json.
    Revoked(RevokedArgs),
    /// Move everything from one store into another, which must be empty. No hub may be running on either.
    MigrateStore(MigrateStoreArgs),
    /// API tokens. The hub must not be running on the same store.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// Which hub it is about.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Where the hub keeps everything.
    #[arg(long, env = "ACTIVE_MONITOR_DATA_DIR", default_value = "/var/lib/active-monitor-hub")]
    pub data_dir: PathBuf,
}

/// Where the hub's data base is.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Where the data base is: sqlite:DIR, postgres://USER@HOST/DATABASE, or file:PATH of a file that holds that. SQLite in
    /// the data directory where it is not given. A password belongs into the environment or a file: all can read the
    /// arguments of a process.
    #[arg(long, env = "ACTIVE_MONITOR_STORE", hide_env_values = true)]
    pub store: Option<StoreUrl>,
}

impl StoreArgs {
    /// The store that is meant.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub fn location(&self, data_dir: &Path) -> Result<Location, LocationError> {
        self.store.as_ref().map_or_else(|| Ok(Location::in_data_dir(data_dir)), StoreUrl::location)
    }
}

/// Where it is kept what was revoked.
#[derive(Clone, Debug, Args)]
pub struct RevocationsArgs {
    /// File with what was revoked; a file of its own in the data directory where it is not given. No backup holds it: keep a
    /// copy elsewhere.
    #[arg(long, env = "ACTIVE_MONITOR_REVOCATIONS_FILE")]
    pub revocations_file: Option<PathBuf>,
}

impl RevocationsArgs {
    /// The file that is meant.
    pub fn path(&self, data_dir: &Path) -> PathBuf {
        self.revocations_file.clone().unwrap_or_else(|| data_dir.join(revocations::FILE_NAME))
    }
}

/// Of which hub it is printed what was revoked.
#[derive(Debug, Args)]
pub struct RevokedArgs {
    /// Which hub.
    #[command(flatten)]
    pub data: DataArgs,
    /// Where it keeps that.
    #[command(flatten)]
    pub revocations: RevocationsArgs,
}

/// What is backed up.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Which hub.
    #[command(flatten)]
    pub data: DataArgs,
    /// Where its data base is.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// From where to where.
#[derive(Debug, Args)]
pub struct MigrateStoreArgs {
    /// The store to read, in the forms of --store.
    #[arg(long)]
    pub from: StoreUrl,
    /// The empty store to fill, in the forms of --store.
    #[arg(long)]
    pub to: StoreUrl,
}

/// What can be done with API tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; only its hash is kept.
    Create(TokenArgs),
}

/// A new token.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Whose token it is; replaces an earlier one of that name.
    #[arg(long)]
    pub name: String,
    /// viewer, operator or admin.
    #[arg(long, value_parser = role)]
    pub role: Role,
    /// Which hub.
    #[command(flatten)]
    pub data: DataArgs,
    /// Where its data base is.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// How the hub serves.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// A YAML file with a key for each of these flags, named like it: `lease-seconds: 30`. Flags and environment win.
    #[arg(long, env = "ACTIVE_MONITOR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where the hub keeps everything: data base, CA, first admin token.
    #[arg(long, env = "ACTIVE_MONITOR_DATA_DIR", default_value = "/var/lib/active-monitor-hub")]
    pub data_dir: PathBuf,
    /// Where the data base is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Other replicas of this hub may run on the same data base, which must be on a PostgreSQL server.
    #[arg(long, env = "ACTIVE_MONITOR_REPLICATED")]
    pub replicated: bool,
    /// Where agents connect (mTLS).
    #[arg(long, env = "ACTIVE_MONITOR_AGENTS_LISTEN", default_value = "0.0.0.0:7443")]
    pub agents_listen: SocketAddr,
    /// Where agents enrol (TLS).
    #[arg(long, env = "ACTIVE_MONITOR_ENROLMENT_LISTEN", default_value = "0.0.0.0:7444")]
    pub enrolment_listen: SocketAddr,
    /// Where people, fleetcheck and Prometheus connect (HTTPS).
    #[arg(long, env = "ACTIVE_MONITOR_PEOPLE_LISTEN", default_value = "127.0.0.1:8443")]
    pub people_listen: SocketAddr,
    /// HTTP instead of HTTPS for people; only on a loopback address, for a proxy beside the hub.
    #[arg(long, env = "ACTIVE_MONITOR_PEOPLE_PLAINTEXT")]
    pub people_plaintext: bool,
    /// Certificate for people's listener in place of one of the hub's CA: PEM, leaf first. Read anew when it changes.
    #[arg(long, env = "ACTIVE_MONITOR_TLS_CERT_FILE", requires = "tls_key_file", conflicts_with = "people_plaintext")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, env = "ACTIVE_MONITOR_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Where /healthz, /readyz and the process's own /metrics are served (HTTP); nowhere where it is not given.
    #[arg(long, env = "ACTIVE_MONITOR_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
    /// File with the admin's API token, amf_ and 64 hex digits; it replaces the admin's token at each start. Without it the
    /// first start makes one.
    #[arg(long, env = "ACTIVE_MONITOR_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Where it is kept what was revoked.
    #[command(flatten)]
    pub revocations: RevocationsArgs,
    /// host:port that agents dial for the session, as printed in tokens; the listener's own address where it is not given
    /// and the listener has one.
    #[arg(long, env = "ACTIVE_MONITOR_AGENTS_ADVERTISE")]
    pub agents_advertise: Option<String>,
    /// host:port that agents dial to enrol, as printed in tokens.
    #[arg(long, env = "ACTIVE_MONITOR_ENROLMENT_ADVERTISE")]
    pub enrolment_advertise: Option<String>,
    /// A further DNS name or IP address for the hub's certificates; may be repeated.
    #[arg(long, env = "ACTIVE_MONITOR_TLS_NAMES", value_delimiter = ',')]
    pub tls_name: Vec<String>,
    /// Silence after which a cluster is Unreachable.
    #[arg(long, env = "ACTIVE_MONITOR_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub lease_seconds: u64,
    /// Let a person approve each agent before it gets a certificate: fleetcheck cluster approve.
    #[arg(long, env = "ACTIVE_MONITOR_REQUIRE_APPROVAL")]
    pub require_approval: bool,
    /// Life of an agent's certificate, which is renewed at two thirds of it.
    #[arg(long, env = "ACTIVE_MONITOR_AGENT_CERTIFICATE_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(4..=2_592_000))]
    pub agent_certificate_seconds: u64,
    /// Days that a run stays in the history.
    #[arg(long, env = "ACTIVE_MONITOR_RUN_DAYS", default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..=3660))]
    pub run_days: u16,
    /// Days that the log tail of a failed run is kept, where the run is.
    #[arg(long, env = "ACTIVE_MONITOR_LOG_TAIL_DAYS", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=3660))]
    pub log_tail_days: u16,
    /// Days that a line stays in the audit log.
    #[arg(long, env = "ACTIVE_MONITOR_AUDIT_DAYS", default_value_t = 366, value_parser = clap::value_parser!(u16).range(1..=3660))]
    pub audit_days: u16,
    /// YAML file that says who is told of incidents; nobody where it is not given.
    #[arg(long, env = "ACTIVE_MONITOR_ROUTES_FILE")]
    pub routes_file: Option<PathBuf>,
    /// Where the desired state comes from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where the fleet's series go.
    #[command(flatten)]
    pub remote_write: RemoteWriteArgs,
    /// How people log in at an OpenID provider.
    #[command(flatten)]
    pub oidc: OidcArgs,
    /// text or json.
    #[arg(long, env = "ACTIVE_MONITOR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// A setting that makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Plain HTTP on an address that others can reach.
    #[error("--people-plaintext is accepted only on a loopback address, not on {0}")]
    Plaintext(SocketAddr),
    /// An advertised address without a port.
    #[error("{flag} must be host:port, not {value:?}")]
    Advertise {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// No address of a remote store.
    #[error("--remote-write-url {0}")]
    RemoteWrite(#[from] UrlError),
    /// The login at a provider.
    #[error(transparent)]
    Oidc(#[from] OidcArgsError),
    /// Nobody can dial "all addresses of this machine".
    #[error("{flag} must be given as host:port that agents reach the hub at: nobody can dial {address}")]
    Undialable {
        /// The flag.
        flag: &'static str,
        /// What agents would be told.
        address: String,
    },
}

impl ServeArgs {
    /// The lease as a duration.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// Life of an agent's certificate.
    pub fn agent_certificate_life(&self) -> Duration {
        Duration::from_secs(self.agent_certificate_seconds)
    }

    /// How long what is kept.
    pub fn retention(&self) -> Retention {
        Retention { run_days: self.run_days, log_tail_days: self.log_tail_days, audit_days: self.audit_days }
    }

    /// Checks what clap cannot.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.people_plaintext && !self.people_listen.ip().is_loopback() {
            return Err(ConfigError::Plaintext(self.people_listen));
        }
        self.remote_write.url()?;
        self.oidc.check()?;
        dialable("--agents-advertise", self.agents_advertise.as_deref(), self.agents_listen)?;
        dialable("--enrolment-advertise", self.enrolment_advertise.as_deref(), self.enrolment_listen)
    }

    /// The files of people's certificate, where it is not one of the hub's CA.
    pub fn people_identity(&self) -> Option<IdentityFiles> {
        let (certificate, key) = (self.tls_cert_file.clone()?, self.tls_key_file.clone()?);
        Some(IdentityFiles { certificate, key })
    }

    /// Every name that the hub's certificates are good for.
    pub fn names(&self) -> Vec<String> {
        let advertised = [&self.agents_advertise, &self.enrolment_advertise];
        let advertised = advertised.into_iter().flatten().filter_map(|address| host(address)).map(str::to_owned);
        let listens = [self.agents_listen, self.enrolment_listen, self.people_listen];
        let listens = listens.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
        let fixed = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut names: Vec<String> = advertised.chain(listens).chain(self.tls_name.clone()).chain(fixed).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Agents are told `advertised`, or where there is none the listener's address.
fn dialable(flag: &'static str, advertised: Option<&str>, listen: SocketAddr) -> Result<(), ConfigError> {
    let address = advertised.map_or_else(|| listen.to_string(), str::to_owned);
    let Some(host) = host(&address) else { return Err(ConfigError::Advertise { flag, value: address }) };
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(ConfigError::Undialable { flag, address }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The host of `host:port`; brackets around an IPv6 address are dropped.
fn host(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "viewer" => Ok(Role::Viewer),
        "operator" => Ok(Role::Operator),
        "admin" => Ok(Role::Admin),
        other => Err(format!("{other:?} is no role: viewer, operator or admin")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: &[&str]) -> ServeArgs {
        Cli::try_parse_from(["hub"].iter().chain(flags)).unwrap().serve
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        let closed = ["--people-plaintext", "--agents-listen", "127.0.0.1:0", "--enrolment-listen", "127.0.0.1:0"];
        assert_eq!(args(&closed).check(), Ok(()));
        let open = args(&["--people-plaintext", "--people-listen", "0.0.0.0:80"]);
        assert!(matches!(open.check(), Err(ConfigError::Plaintext(_))));
    }

    #[test]
    fn certificates_carry_what_is_advertised() {
        let args = args(&["--agents-advertise", "hub.example:7443", "--enrolment-advertise", "[fd00::1]:7444"]);
        assert_eq!(args.check(), Ok(()));
        for name in ["hub.example", "fd00::1", "localhost"] {
            assert!(args.names().contains(&name.to_owned()), "{name}");
        }
        assert!(self::args(&["--agents-advertise", "hub.example"]).check().is_err());
    }

    #[test]
    fn agents_are_never_told_an_address_that_nobody_can_dial() {
        let refused = |flags: &[&str]| args(flags).check().unwrap_err().to_string();
        assert_eq!(
            refused(&[]),
            "--agents-advertise must be given as host:port that agents reach the hub at: nobody can dial 0.0.0.0:7443"
        );
        assert!(refused(&["--agents-advertise", "hub:7443"]).starts_with("--enrolment-advertise must be given"));
        let both = ["--agents-advertise", "hub:7443", "--enrolment-advertise", "[::]:7444"];
        assert!(refused(&both).ends_with("nobody can dial [::]:7444"));
        assert_eq!(args(&["--agents-listen", "10.1.2.3:1", "--enrolment-listen", "[fd00::1]:2"]).check(), Ok(()));
    }

    #[test]
    fn a_password_in_the_url_of_a_remote_store_is_in_no_message() {
        let closed = ["--agents-listen", "127.0.0.1:0", "--enrolment-listen", "127.0.0.1:0", "--remote-write-url"];
        let judged = |url: &str| args(&[&closed[..], &[url]].concat());
        assert_eq!(judged("https://store.example/api/v1/write").check(), Ok(()));
        for (url, expected) in [
            ("https://hub:s3cret@store.example/write", "--remote-write-url must have no credentials in it"),
            ("ftp://hub:s3cret@store.example", "--remote-write-url must begin with http:// or https://"),
            ("https://hub:s3cret@store.example:port/", "--remote-write-url must be a URL: "),
            ("hub:s3cret", "--remote-write-url must begin with "),
            ("", "--remote-write-url must be a URL: "),
        ] {
            let args = judged(url);
            let error = args.check().unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert!(!format!("{error} {error:?} {args:?}").contains("s3cret"), "{error:?} {args:?}");
        }
        let command = <Cli as clap::CommandFactory>::command();
        let arg = command.get_arguments().find(|arg| arg.get_id() == "remote_write_url").unwrap();
        assert!(arg.is_hide_env_values_set(), "--help shows what the environment says");
    }

    #[test]
    fn serve_is_the_default() {
        let cli = Cli::try_parse_from(["hub", "serve", "--lease-seconds", "3"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Serve(args)) if args.lease() == Duration::from_secs(3)));
        assert!(Cli::try_parse_from(["hub", "token", "create", "--name", "x", "--role", "king"]).is_err());
    }
}
