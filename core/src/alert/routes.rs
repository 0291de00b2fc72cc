//! The file of routes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use crate::definition::select;
use crate::names;
use crate::view::{Incident, IncidentKind};

/// Most bytes of the file.
const MAX_BYTES: usize = 256 * 1024;
/// Most routes: each has a task of its own.
const MAX_ROUTES: usize = 50;

/// Routes as they are written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routes {
    /// Each is on its own: an incident goes out on every route that picks it.
    pub routes: Vec<Route>,
}

/// Where incidents go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Unique; a DNS label, for logs and metrics.
    pub name: String,
    /// Base address of an Alertmanager.
    #[serde(default)]
    alertmanager: Option<String>,
    /// Address that takes a JSON document.
    #[serde(default)]
    webhook: Option<String>,
    /// File with a bearer token for the receiver; read again for each request.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// File with CA certificates (PEM) that the receiver is known by, beside those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// File with the secrets that a webhook's documents are signed with, one on each line; read again for each request.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Which incidents; all of them where it is not given.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Say all the time that the hub is alive, so that its silence is noticed.
    #[serde(default)]
    pub watchdog: bool,
}

/// Which incidents a route picks: those for which everything that is given holds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// `Check` or `Unreachable`.
    #[serde(default)]
    kind: Option<IncidentKind>,
    /// Namespace of the check.
    #[serde(default)]
    namespace: Option<String>,
    /// Name of the check.
    #[serde(default)]
    check: Option<String>,
    /// Name of the definition.
    #[serde(default)]
    definition: Option<String>,
    /// Labels of the clusters, as kubectl writes them; one member that has them is enough.
    #[serde(default)]
    selector: Selector,
}

/// A label selector that is read with the file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Selector(Option<LabelSelector>);

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Selector, String> {
        select::parse(&text).map(|selector| Selector(Some(selector)))
    }
}

/// What is on the other end of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver<'a> {
    /// `POST /api/v2/alerts` below this address.
    Alertmanager(&'a str),
    /// `POST` of one document for each notice.
    Webhook(&'a str),
}

impl Routes {
    /// Reads the file.
    ///
    /// # Errors
    /// Which field is wrong, and what is allowed.
    pub fn parse(text: &str) -> Result<Routes, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("it has {} bytes, {MAX_BYTES} are allowed", text.len()));
        }
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let routes: Routes = serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
        if routes.routes.len() > MAX_ROUTES {
            return Err(format!("routes: there are {}, {MAX_ROUTES} are allowed", routes.routes.len()));
        }
        let mut names = BTreeSet::new();
        for (index, route) in routes.routes.iter().enumerate() {
            route.check().map_err(|why| format!("routes[{index}].{why}"))?;
            if !names.insert(&route.name) {
                return Err(format!("routes[{index}].name: {} is the name of another route", route.name));
            }
        }
        Ok(routes)
    }
}

impl Route {
    fn check(&self) -> Result<(), String> {
        names::dns_label(&self.name).map_err(|rule| format!("name {rule}"))?;
        let url = match (&self.alertmanager, &self.webhook) {
            (Some(url), None) => ("alertmanager", url),
            (None, Some(url)) => ("webhook", url),
            (None, None) | (Some(_), Some(_)) => {
                return Err("alertmanager: give the address of an alertmanager or of a webhook, one of them".to_owned());
            }
        };
        if self.secret_file.is_some() && self.webhook.is_none() {
            return Err("secretFile: only what a webhook gets is signed; an alertmanager takes tokenFile".to_owned());
        }
        let host = url.1.strip_prefix("https://").or_else(|| url.1.strip_prefix("http://"));
        match host {
            Some(host) if !host.is_empty() && !host.contains('@') => Ok(()),
            Some(_) | None => Err(format!("{}: must be http://HOST or https://HOST, without user and password", url.0)),
        }
    }

    /// The fields in which another one of this name differs, as they are written.
    pub(super) fn differences(&self, other: &Route) -> Vec<&'static str> {
        let Route { name: _, alertmanager, webhook, token_file, ca_file, secret_file, matches, watchdog } = self;
        let compared = [
            ("alertmanager", *alertmanager == other.alertmanager),
            ("webhook", *webhook == other.webhook),
            ("tokenFile", *token_file == other.token_file),
            ("caFile", *ca_file == other.ca_file),
            ("secretFile", *secret_file == other.secret_file),
            ("match", *matches == other.matches),
            ("watchdog", *watchdog == other.watchdog),
        ];
        compared.into_iter().filter(|(_, is_same)| !is_same).map(|(field, _)| field).collect()
    }

    /// What is on the other end.
    pub fn receiver(&self) -> Receiver<'_> {
        match (&self.alertmanager, &self.webhook) {
            (Some(url), _) => Receiver::Alertmanager(url),
            (None, url) => Receiver::Webhook(url.as_deref().unwrap_or_default()),
        }
    }
}

impl Match {
    /// Whether it picks an incident; `labels` are those of a cluster.
    pub fn picks<'a>(
        &self,
        incident: &Incident,
        labels: impl Fn(&str) -> Option<&'a BTreeMap<String, String>>,
    ) -> bool {
        let Match { kind, namespace, check, definition, selector: Selector(selector) } = self;
        let is = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        kind.is_none_or(|kind| kind == incident.kind)
            && is(namespace, &incident.namespace)
            && is(check, &incident.name)
            && is(definition, &incident.definition)
            && selector.as_ref().is_none_or(|selector| {
                let mut of_members = incident.members.iter().filter_map(|member| labels(&member.cluster));
                of_members.any(|labels| select::matches(selector, labels))
            })
    }
}
