//! The hub's REST API as functions. The only place that opens a socket.

use std::time::Duration;

use active_monitor_core::care::WindowSpec;
use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::view::{
    AcknowledgementAdd, AuditView, CaRoll, CaView, CheckView, ClusterAdd, ClusterPatch, ClusterToken, ClusterView,
    CommandReport, CommandRequest, DefinitionView, EnrolmentDecision, EnrolmentKey, FleetSummary, IncidentPage, List,
    Page, Preview, Problem, RestoreView, RoutesFile, RoutesPreview, RunPage, SourceView, TokenAdd, TokenSecret,
    TokenView, UptimePage, WindowView,
};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::{Connection, is_loopback};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest page that a hub gives.
const MAX_PAGE: usize = 10_000;
/// More of an error's text than this helps nobody.
const MAX_SHOWN_BYTES: usize = 200;

/// A hub and the right to ask it.
pub(crate) struct Client {
    http: reqwest::Client,
    hub: Url,
}

/// Why the hub did not do or say what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the token has characters that no token has; check --token, --token-file or FLEETCHECK_TOKEN")]
    TokenText,
    #[error("the CA file holds no PEM certificate; it starts with -----BEGIN CERTIFICATE-----")]
    Ca,
    #[error("cannot set up the connection: {cause}")]
    Setup { cause: String },
    #[error("cannot reach the hub at {hub}: {cause}; is it running, and is the address right?")]
    Unreachable { hub: Url, cause: String },
    #[error("the hub at {hub} shows a certificate that is not trusted: {cause}; give its CA with --ca-file")]
    Untrusted { hub: Url, cause: String },
    #[error("the hub at {hub} did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut { hub: Url },
    #[error("the hub refused the token: {detail}; make one with `active-monitor-hub token create`")]
    Unauthorized { detail: String },
    #[error("the token may not do that: {detail}; use one with a higher role")]
    Forbidden { detail: String },
    #[error("{detail}")]
    NotFound { detail: String },
    #[error("the hub refused: {detail}")]
    Refused { detail: String },
    #[error("the hub failed with status {status}: {detail}; its log says more")]
    Failed { status: u16, detail: String },
    #[error("{hub} does not answer like a hub: {what}; is the address right?")]
    NotAHub { hub: Url, what: String },
}

impl ClientError {
    /// The hub does not have what was asked for.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ClientError::NotFound { .. })
    }
}

/// Which runs to list; what is absent matches all.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RunQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<&'static str>,
    pub(crate) limit: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<i64>,
}

/// Whose uptime, over which time, and how it is summed up; what is absent matches all.
#[derive(Debug, Default, Serialize)]
pub(crate) struct UptimeQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) selector: Option<String>,
    pub(crate) window: String,
    pub(crate) by: String,
    /// In percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) objective: Option<f64>,
    pub(crate) limit: u16,
}

/// Which incidents to list.
#[derive(Debug, Default, Serialize)]
pub(crate) struct IncidentQuery {
    pub(crate) all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u16>,
}

/// Something that people write, and the tag by which the hub knows what it was when it was read; none of a hub that gives none.
pub(crate) struct Tagged<T> {
    pub(crate) tag: Option<String>,
    pub(crate) value: T,
}

/// What is asked for after a list's first page.
#[derive(Serialize)]
struct More<'a, Q> {
    #[serde(flatten)]
    query: &'a Q,
    limit: usize,
    after: &'a str,
}

/// Which checks to list; what is absent matches all.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CheckQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<&'static str>,
}

/// A success.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Client {
    /// Nothing is sent yet.
    pub(crate) fn new(connection: Connection) -> Result<Client, ClientError> {
        let Connection { hub, token, ca } = connection;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ClientError::TokenText)?;
        bearer.set_sensitive(true);
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("fleetcheck/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // The token is for this hub and for no other.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&hub) {
            // A proxy would be another machine, which plaintext must not reach, and would mean itself by "localhost".
            builder = builder.no_proxy();
        }
        if hub.scheme() == "http" {
            // No certificate will be looked at, so a machine without any of its own is no obstacle.
            builder = builder.tls_certs_only([]);
        } else if let Some(pem) = ca {
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| ClientError::Ca)?;
            if certificates.is_empty() {
                return Err(ClientError::Ca);
            }
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder.build().map_err(|error| ClientError::Setup { cause: root_cause(&error) })?;
        Ok(Client { http, hub })
    }

    pub(crate) async fn fleet(&self) -> Result<FleetSummary, ClientError> {
        self.get(&["fleet"], &()).await
    }

    pub(crate) async fn clusters(&self) -> Result<Vec<ClusterView>, ClientError> {
        self.pages(&["clusters"], &()).await
    }

    pub(crate) async fn add_cluster(&self, body: &ClusterAdd) -> Result<ClusterToken, ClientError> {
        Ok(self.send(Method::POST, &["clusters"], body).await?.1)
    }

    pub(crate) async fn new_cluster_token(&self, name: &str) -> Result<ClusterToken, ClientError> {
        Ok(self.send(Method::POST, &["clusters", name, "token"], &()).await?.1)
    }

    pub(crate) async fn rebind_cluster(&self, name: &str) -> Result<ClusterToken, ClientError> {
        Ok(self.send(Method::POST, &["clusters", name, "rebind"], &()).await?.1)
    }

    pub(crate) async fn decide_enrolment(
        &self,
        name: &str,
        decision: EnrolmentDecision,
        body: &EnrolmentKey,
    ) -> Result<ClusterView, ClientError> {
        let verb = match decision {
            EnrolmentDecision::Approved => "approve",
            EnrolmentDecision::Denied => "deny",
        };
        Ok(self.send(Method::POST, &["clusters", name, verb], body).await?.1)
    }

    pub(crate) async fn tokens(&self) -> Result<Vec<TokenView>, ClientError> {
        Ok(self.get::<List<_>>(&["tokens"], &()).await?.items)
    }

    pub(crate) async fn add_token(&self, body: &TokenAdd) -> Result<TokenSecret, ClientError> {
        Ok(self.send(Method::POST, &["tokens"], body).await?.1)
    }

    pub(crate) async fn remove_token(&self, name: &str) -> Result<(), ClientError> {
        self.delete(&["tokens", name]).await
    }

    pub(crate) async fn end_sessions(&self, person: &str) -> Result<(), ClientError> {
        self.delete(&["sessions", person]).await
    }

    /// Newest first.
    pub(crate) async fn audit(&self, limit: u16) -> Result<Vec<AuditView>, ClientError> {
        Ok(self.get::<List<_>>(&["audit"], &serde_json::json!({"limit": limit})).await?.items)
    }

    pub(crate) async fn ca(&self) -> Result<CaView, ClientError> {
        self.get(&["ca"], &()).await
    }

    pub(crate) async fn restore(&self) -> Result<RestoreView, ClientError> {
        self.get(&["restore"], &()).await
    }

    pub(crate) async fn confirm_restore(&self) -> Result<RestoreView, ClientError> {
        Ok(self.send(Method::POST, &["restore", "confirm"], &()).await?.1)
    }

    pub(crate) async fn roll_ca(&self, body: &CaRoll) -> Result<CaView, ClientError> {
        Ok(self.send(Method::POST, &["ca", "roll"], body).await?.1)
    }

    pub(crate) async fn patch_cluster(&self, name: &str, body: &ClusterPatch) -> Result<ClusterView, ClientError> {
        Ok(self.send(Method::PATCH, &["clusters", name], body).await?.1)
    }

    pub(crate) async fn remove_cluster(&self, name: &str) -> Result<(), ClientError> {
        self.delete(&["clusters", name]).await
    }

    /// Worst first.
    pub(crate) async fn checks(&self, query: &CheckQuery) -> Result<Vec<CheckView>, ClientError> {
        let mut checks: Vec<CheckView> = self.pages(&["checks"], query).await?;
        // The hub's order by names stays within a status.
        checks.sort_by_key(|check| check.status);
        Ok(checks)
    }

    pub(crate) async fn cluster(&self, name: &str) -> Result<ClusterView, ClientError> {
        self.get(&["clusters", name], &()).await
    }

    pub(crate) async fn check(&self, cluster: &str, namespace: &str, name: &str) -> Result<CheckView, ClientError> {
        self.get(&["clusters", cluster, "checks", namespace, name], &()).await
    }

    pub(crate) async fn command(&self, body: &CommandRequest) -> Result<CommandReport, ClientError> {
        Ok(self.send(Method::POST, &["commands"], body).await?.1)
    }

    /// Newest first.
    pub(crate) async fn runs(&self, query: &RunQuery) -> Result<RunPage, ClientError> {
        self.get(&["runs"], query).await
    }

    /// The open ones, worst first, or a page of all, newest first.
    pub(crate) async fn incidents(&self, query: &IncidentQuery) -> Result<IncidentPage, ClientError> {
        self.get(&["incidents"], query).await
    }

    pub(crate) async fn windows(&self) -> Result<Vec<WindowView>, ClientError> {
        Ok(self.get::<List<_>>(&["windows"], &()).await?.items)
    }

    /// None where the hub has no watched folder, or is too old to know of any.
    pub(crate) async fn sources(&self) -> Result<Vec<SourceView>, ClientError> {
        match self.get::<List<_>>(&["sources"], &()).await {
            Ok(list) => Ok(list.items),
            Err(ClientError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn put_window(&self, body: &WindowSpec) -> Result<WindowView, ClientError> {
        Ok(self.send(Method::PUT, &["windows", &body.name], body).await?.1)
    }

    pub(crate) async fn remove_window(&self, name: &str) -> Result<(), ClientError> {
        self.delete(&["windows", name]).await
    }

    /// The names are those of cluster, namespace and check.
    pub(crate) async fn acknowledge(
        &self,
        [cluster, namespace, name]: [&str; 3],
        body: &AcknowledgementAdd,
    ) -> Result<CheckView, ClientError> {
        let path = ["clusters", cluster, "checks", namespace, name, "acknowledgement"];
        Ok(self.send(Method::PUT, &path, body).await?.1)
    }

    pub(crate) async fn unacknowledge(&self, [cluster, namespace, name]: [&str; 3]) -> Result<(), ClientError> {
        self.delete(&["clusters", cluster, "checks", namespace, name, "acknowledgement"]).await
    }

    /// The lowest first.
    pub(crate) async fn uptime(&self, query: &UptimeQuery) -> Result<UptimePage, ClientError> {
        self.get(&["uptime"], query).await
    }

    pub(crate) async fn definitions(&self) -> Result<Vec<DefinitionView>, ClientError> {
        self.pages(&["definitions"], &()).await
    }

    pub(crate) async fn definition(&self, name: &str) -> Result<DefinitionView, ClientError> {
        self.get(&["definitions", name], &()).await
    }

    /// True: it was created.
    pub(crate) async fn put_definition(&self, body: &FleetHealthCheck) -> Result<(bool, DefinitionView), ClientError> {
        let (status, view) = self.send(Method::PUT, &["definitions", &body.metadata.name], body).await?;
        Ok((status == StatusCode::CREATED, view))
    }

    pub(crate) async fn definition_to_edit(&self, name: &str) -> Result<Tagged<DefinitionView>, ClientError> {
        let Answered { headers, bytes, .. } = self.answer(self.http.get(self.url(&["definitions", name], &()))).await?;
        let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        Ok(Tagged { tag, value: self.decode(&bytes)? })
    }

    /// Only where it is as it was read with this tag.
    pub(crate) async fn put_definition_over(
        &self,
        body: &FleetHealthCheck,
        tag: Option<&str>,
    ) -> Result<(), ClientError> {
        let mut request = self.http.put(self.url(&["definitions", &body.metadata.name], &())).json(body);
        if let Some(tag) = tag {
            request = request.header(header::IF_MATCH, tag);
        }
        self.answer(request).await.map(drop)
    }

    pub(crate) async fn delete_definition(&self, name: &str) -> Result<(), ClientError> {
        self.delete(&["definitions", name]).await
    }

    pub(crate) async fn preview(&self, body: &FleetHealthCheck) -> Result<Preview, ClientError> {
        Ok(self.send(Method::POST, &["definitions", "preview"], body).await?.1)
    }

    pub(crate) async fn preview_routes(&self, body: &RoutesFile) -> Result<RoutesPreview, ClientError> {
        Ok(self.send(Method::POST, &["routes", "preview"], body).await?.1)
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &impl Serialize) -> Result<T, ClientError> {
        let request = self.http.get(self.url(path, query));
        self.decode(&self.answer(request).await?.bytes)
    }

    /// A whole list. The first page is as large as the hub likes, so that a small fleet is one request; the others are large.
    async fn pages<T: DeserializeOwned>(&self, path: &[&str], query: &impl Serialize) -> Result<Vec<T>, ClientError> {
        let Page { mut items, mut next } = self.get::<Page<T>>(path, query).await?;
        while let Some(after) = next {
            let more = More { query, limit: MAX_PAGE, after: &after };
            let page: Page<T> = self.get(path, &more).await?;
            if page.items.is_empty() || page.next.as_deref() == Some(after.as_str()) {
                return Err(ClientError::NotAHub { hub: self.hub.clone(), what: "a list without an end".to_owned() });
            }
            items.extend(page.items);
            next = page.next;
        }
        Ok(items)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<(StatusCode, T), ClientError> {
        let request = self.http.request(method, self.url(path, &())).json(body);
        let Answered { status, bytes, .. } = self.answer(request).await?;
        Ok((status, self.decode(&bytes)?))
    }

    async fn delete(&self, path: &[&str]) -> Result<(), ClientError> {
        self.answer(self.http.delete(self.url(path, &()))).await.map(drop)
    }

    fn url(&self, path: &[&str], query: &impl Serialize) -> Url {
        let mut url = self.hub.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(query)
            && !fields.is_empty()
        {
            let mut pairs = url.query_pairs_mut();
            for (name, value) in &fields {
                pairs.append_pair(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str());
            }
        }
        url
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Answered, ClientError> {
        let mut response = request.send().await.map_err(|error| self.transport_error(&error))?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let bytes = response.bytes().await.map_err(|error| self.transport_error(&error))?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        Ok(Answered { status, headers, bytes: bytes.into() })
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes)
            .map_err(|error| ClientError::NotAHub { hub: self.hub.clone(), what: error.to_string() })
    }

    fn transport_error(&self, error: &reqwest::Error) -> ClientError {
        let (hub, cause) = (self.hub.clone(), root_cause(error));
        if error.is_timeout() && !error.is_connect() {
            ClientError::TimedOut { hub }
        } else if cause.contains("certificate") {
            ClientError::Untrusted { hub, cause }
        } else {
            ClientError::Unreachable { hub, cause }
        }
    }

    fn refusal(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        let Ok(Problem { title, detail, status: _ }) = serde_json::from_slice(bytes) else {
            return ClientError::NotAHub { hub: self.hub.clone(), what: not_a_problem(status, bytes) };
        };
        let detail = if detail.is_empty() { title } else { detail };
        match status {
            StatusCode::UNAUTHORIZED => ClientError::Unauthorized { detail },
            StatusCode::FORBIDDEN => ClientError::Forbidden { detail },
            StatusCode::NOT_FOUND => ClientError::NotFound { detail },
            _ if status.is_client_error() => ClientError::Refused { detail },
            _ => ClientError::Failed { status: status.as_u16(), detail },
        }
    }
}

fn not_a_problem(status: StatusCode, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_SHOWN_BYTES)]);
    let text = text.trim();
    if text.is_empty() { format!("status {status}") } else { format!("status {status}, {text}") }
}

/// The innermost error's text: what is around it repeats the address and says "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
