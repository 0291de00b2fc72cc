//! The settings of the login at an OpenID provider.

use std::path::PathBuf;

use clap::Args;
use reqwest::Url;

/// The path at which the provider sends people back.
pub(super) const CALLBACK: &str = "/api/v1/oidc/callback";

/// How people log in at an OpenID provider.
#[derive(Clone, Debug, Default, Args)]
pub struct OidcArgs {
    /// The OpenID provider's issuer, letter for letter as in its ID tokens: https://issuer.example. Without it people log in
    /// with API tokens only.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_ISSUER", requires = "oidc_client_id", requires = "oidc_redirect_url")]
    pub oidc_issuer: Option<String>,
    /// The hub's client id there.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_CLIENT_ID", requires = "oidc_issuer")]
    pub oidc_client_id: Option<String>,
    /// File with the client's secret, read anew for each login; none for a public client.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_CLIENT_SECRET_FILE", requires = "oidc_issuer")]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// Where the provider sends people back: https://HUB/api/v1/oidc/callback, as registered there.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_REDIRECT_URL", requires = "oidc_issuer")]
    pub oidc_redirect_url: Option<Url>,
    /// File with the certificates (PEM) by which the provider is known, beside those of the system.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_CA_FILE", requires = "oidc_issuer")]
    pub oidc_ca_file: Option<PathBuf>,
    /// Scopes that are asked for, beside openid.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_SCOPES", value_delimiter = ',', default_values = ["email", "groups"])]
    pub oidc_scope: Vec<String>,
    /// The claim with a person's name, as the audit log shows it.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_USERNAME_CLAIM", default_value = "email")]
    pub oidc_username_claim: String,
    /// The claim with a person's groups, by which the role is found.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_GROUPS_CLAIM", default_value = "groups")]
    pub oidc_groups_claim: String,
    /// A group whose people are viewers; may be repeated. Who is in no group of these three has no access.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_VIEWER_GROUPS", value_delimiter = ',')]
    pub oidc_viewer_group: Vec<String>,
    /// A group whose people are operators.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_OPERATOR_GROUPS", value_delimiter = ',')]
    pub oidc_operator_group: Vec<String>,
    /// A group whose people are admins.
    #[arg(long, env = "ACTIVE_MONITOR_OIDC_ADMIN_GROUPS", value_delimiter = ',')]
    pub oidc_admin_group: Vec<String>,
}

/// A setting of the login at a provider that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OidcArgsError {
    /// No address of a provider.
    #[error("--oidc-issuer must be a URL: {0}")]
    Issuer(String),
    /// A code or token would cross the network in the clear.
    #[error("{0} must begin with https://; http:// is accepted only on a loopback address")]
    Plaintext(&'static str),
    /// The provider would send people to where the hub does not listen.
    #[error("--oidc-redirect-url must end with {CALLBACK}")]
    Callback,
    /// Nobody could log in.
    #[error("--oidc-viewer-group, --oidc-operator-group, --oidc-admin-group: at least one must be given")]
    NoGroup,
}

impl OidcArgs {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// See [`OidcArgsError`].
    pub fn check(&self) -> Result<(), OidcArgsError> {
        let Some(issuer) = &self.oidc_issuer else { return Ok(()) };
        let issuer = Url::parse(issuer).map_err(|error| OidcArgsError::Issuer(error.to_string()))?;
        if !is_private(&issuer) {
            return Err(OidcArgsError::Plaintext("--oidc-issuer"));
        }
        if let Some(redirect) = &self.oidc_redirect_url {
            if !is_private(redirect) {
                return Err(OidcArgsError::Plaintext("--oidc-redirect-url"));
            }
            if !redirect.path().ends_with(CALLBACK) || redirect.query().is_some() {
                return Err(OidcArgsError::Callback);
            }
        }
        let groups = [&self.oidc_viewer_group, &self.oidc_operator_group, &self.oidc_admin_group];
        if groups.iter().all(|groups| groups.is_empty()) { Err(OidcArgsError::NoGroup) } else { Ok(()) }
    }
}

/// Whether nobody else hears what is sent to a URL.
pub(super) fn is_private(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(|host| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(issuer: &str, redirect: &str, groups: &[&str]) -> OidcArgs {
        OidcArgs {
            oidc_issuer: Some(issuer.to_owned()),
            oidc_redirect_url: Some(redirect.parse().unwrap()),
            oidc_viewer_group: groups.iter().map(|&group| group.to_owned()).collect(),
            ..OidcArgs::default()
        }
    }

    #[test]
    fn a_wrong_setting_is_one_clear_error() {
        let (issuer, redirect) = ("https://issuer.example", "https://hub.example/api/v1/oidc/callback");
        assert_eq!(OidcArgs::default().check(), Ok(()));
        assert_eq!(args(issuer, redirect, &["dev"]).check(), Ok(()));
        assert_eq!(args("http://[::1]:5556/dex", redirect, &["dev"]).check(), Ok(()));
        for (args, expected) in [
            (args("issuer.example", redirect, &["dev"]), "--oidc-issuer must be a URL: "),
            (args("http://issuer.example", redirect, &["dev"]), "--oidc-issuer must begin with https://; "),
            (args("http://127.0.0.1.example", redirect, &["dev"]), "--oidc-issuer must begin with https://; "),
            (args(issuer, "http://hub.example/api/v1/oidc/callback", &["dev"]), "--oidc-redirect-url must begin with "),
            (args(issuer, "https://hub.example/", &["dev"]), "--oidc-redirect-url must end with /api/v1/oidc/callback"),
            (args(issuer, redirect, &[]), "--oidc-viewer-group, --oidc-operator-group, --oidc-admin-group: at least "),
        ] {
            let said = args.check().unwrap_err().to_string();
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
