//! The hub's command line. Every flag can also be set in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use active_monitor_core::view::Role;
use active_monitor_runtime::logging::LogFormat;
use clap::{Args, Parser, Subcommand};

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
    Serve(ServeArgs),
    /// API tokens. The hub must not be running on the same data directory.
    #[command(subcommand)]
    Token(TokenCommand),
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
    /// Where the hub keeps everything.
    #[arg(long, env = "ACTIVE_MONITOR_DATA_DIR", default_value = "/var/lib/active-monitor-hub")]
    pub data_dir: PathBuf,
}

/// How the hub serves.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Where the hub keeps everything: data base, CA, first admin token.
    #[arg(long, env = "ACTIVE_MONITOR_DATA_DIR", default_value = "/var/lib/active-monitor-hub")]
    pub data_dir: PathBuf,
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
    /// Where /healthz, /readyz and the process's own /metrics are served (HTTP); nowhere where it is not given.
    #[arg(long, env = "ACTIVE_MONITOR_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
    /// host:port that agents dial for the session, as printed in tokens; the listener's own address where it is not given.
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
}

impl ServeArgs {
    /// The lease as a duration.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// Checks what clap cannot.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.people_plaintext && !self.people_listen.ip().is_loopback() {
            return Err(ConfigError::Plaintext(self.people_listen));
        }
        let advertised =
            [("--agents-advertise", &self.agents_advertise), ("--enrolment-advertise", &self.enrolment_advertise)];
        for (flag, value) in advertised {
            if let Some(value) = value.as_ref().filter(|value| host(value).is_none()) {
                return Err(ConfigError::Advertise { flag, value: value.clone() });
            }
        }
        Ok(())
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
        assert_eq!(args(&["--people-plaintext"]).check(), Ok(()));
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
    fn serve_is_the_default() {
        let cli = Cli::try_parse_from(["hub", "serve", "--lease-seconds", "3"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Serve(args)) if args.lease() == Duration::from_secs(3)));
        assert!(Cli::try_parse_from(["hub", "token", "create", "--name", "x", "--role", "king"]).is_err());
    }
}
