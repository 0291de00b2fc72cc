//! Which hub to speak to and how: flags, then environment, then the configuration file. Reads files, opens no socket.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;

use crate::args::ConnectionArgs;

/// The hub's address.
pub(crate) const HUB_VARIABLE: &str = "FLEETCHECK_HUB";
/// The token's text.
pub(crate) const TOKEN_VARIABLE: &str = "FLEETCHECK_TOKEN";

/// All that is needed to speak to a hub.
pub(crate) struct Connection {
    /// Base address, `https`, or `http` on a loopback host.
    pub(crate) hub: Url,
    /// The token's text.
    pub(crate) token: String,
    /// The CA certificates (PEM) to trust in place of the system's.
    pub(crate) ca: Option<Vec<u8>>,
}

/// Why there is no connection to try.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("no hub is named; give --hub https://HOST:8443, set {HUB_VARIABLE}, or write `hub:` into {}", config.display())]
    NoHub { config: PathBuf },
    #[error("{text:?} is no address of a hub; it looks like https://HOST:8443")]
    HubAddress { text: String },
    #[error("{hub} would carry the token unencrypted; use https://, or http:// only for a hub on this machine")]
    Plaintext { hub: Url },
    #[error(
        "no token is given; use --token-file, set {TOKEN_VARIABLE}, or write `token_file:` into {}; \
         make one with `active-monitor-hub token create`", config.display()
    )]
    NoToken { config: PathBuf },
    #[error("{} is empty; it should hold the token", path.display())]
    EmptyToken { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a configuration", path.display())]
    Config { path: PathBuf, source: Box<serde_saphyr::Error> },
}

/// `~/.config/fleetcheck/config.yaml`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    hub: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

/// Puts the connection together. A flag goes before the environment, and that before the file.
pub(crate) fn resolve(args: &ConnectionArgs, env: fn(&str) -> Option<String>) -> Result<Connection, ConnectionError> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let path = config_path(&env);
    let config = read_config(&path)?;
    let near = |file: PathBuf| beside(&path, &file, env("HOME"));

    let hub = args.hub.clone().or_else(|| env(HUB_VARIABLE)).or(config.hub);
    let hub = checked(&hub.ok_or_else(|| ConnectionError::NoHub { config: path.clone() })?)?;
    let token = match (&args.token, &args.token_file, env(TOKEN_VARIABLE), config.token_file) {
        (Some(token), _, _, _) => token.trim().to_owned(),
        (None, Some(file), _, _) => read_token(file)?,
        (None, None, Some(token), _) => token.trim().to_owned(),
        (None, None, None, Some(file)) => read_token(&near(file))?,
        (None, None, None, None) => return Err(ConnectionError::NoToken { config: path }),
    };
    let ca = match (&args.ca_file, config.ca_file) {
        (Some(file), _) => Some(read(file)?),
        (None, Some(file)) => Some(read(&near(file))?),
        (None, None) => None,
    };
    Ok(Connection { hub, token, ca })
}

fn config_path(env: &impl Fn(&str) -> Option<String>) -> PathBuf {
    let base = env("XDG_CONFIG_HOME").map(PathBuf::from).filter(|base| base.is_absolute());
    let base = base.unwrap_or_else(|| PathBuf::from(env("HOME").unwrap_or_default()).join(".config"));
    base.join("fleetcheck/config.yaml")
}

fn read_config(path: &Path) -> Result<Config, ConnectionError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(source) => return Err(ConnectionError::Read { path: path.to_owned(), source }),
    };
    if text.trim().is_empty() {
        return Ok(Config::default());
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(&text, options)
        .map_err(|source| ConnectionError::Config { path: path.to_owned(), source: Box::new(source) })
}

/// A path in the configuration is relative to its folder; `~/` is the home.
fn beside(config: &Path, file: &Path, home: Option<String>) -> PathBuf {
    match (file.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        (Ok(_), None) | (Err(_), _) => config.parent().unwrap_or(Path::new("")).join(file),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectionError> {
    std::fs::read(path).map_err(|source| ConnectionError::Read { path: path.to_owned(), source })
}

fn read_token(path: &Path) -> Result<String, ConnectionError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConnectionError::Read { path: path.to_owned(), source })?
        .trim()
        .to_owned();
    if text.is_empty() { Err(ConnectionError::EmptyToken { path: path.to_owned() }) } else { Ok(text) }
}

fn checked(text: &str) -> Result<Url, ConnectionError> {
    let wrong = || ConnectionError::HubAddress { text: text.to_owned() };
    let hub: Url = text.parse().map_err(|_| wrong())?;
    match hub.scheme() {
        "https" if hub.has_host() && hub.username().is_empty() => Ok(hub),
        "http" if is_loopback(&hub) => Ok(hub),
        "http" => Err(ConnectionError::Plaintext { hub }),
        _ => Err(wrong()),
    }
}

/// Whether the address names this machine.
pub(crate) fn is_loopback(hub: &Url) -> bool {
    let host = hub.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_for_this_machine_only() {
        for good in
            ["https://hub:8443", "https://hub/fleet/", "http://localhost:1", "http://127.1.2.3", "http://[::1]:9"]
        {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in [
            "http://hub:8443",
            "http://localhost.example:1",
            "http://128.0.0.1",
            "http://[::2]",
            "http://127.0.0.1.example",
        ] {
            assert!(matches!(checked(bad), Err(ConnectionError::Plaintext { .. })), "{bad}");
        }
        for bad in ["hub:8443", "ftp://hub", "hub", "https://user@hub", ""] {
            assert!(matches!(checked(bad), Err(ConnectionError::HubAddress { .. })), "{bad}");
        }
    }

    #[test]
    fn paths_of_the_configuration_are_beside_it() {
        let config = Path::new("/home/a/.config/fleetcheck/config.yaml");
        let home = || Some("/home/a".to_owned());
        assert_eq!(beside(config, Path::new("token"), home()), Path::new("/home/a/.config/fleetcheck/token"));
        assert_eq!(beside(config, Path::new("~/token"), home()), Path::new("/home/a/token"));
        assert_eq!(beside(config, Path::new("/etc/token"), home()), Path::new("/etc/token"));
    }
}
