//! The requests to a receiver of alerts.

use std::time::Duration;

use active_monitor_core::alert::{self, Notice, NoticeStatus, Receiver, Route, Teller};
use active_monitor_core::view::Incident;
use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Client, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::sign::Secrets;
use crate::clock;

/// The longest that a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An alert that is not said again ends after so long. Its end is said, so this is for a hub that is gone for good: until
/// then its silence resolves nothing.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// The hub's sign of life ends after so long: its silence shall be noticed.
const DEAD_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Why a request did not deliver what it said.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// Nothing came back, or not in time.
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
    /// Something else than a success came back.
    #[error("the receiver answered {0}")]
    Answered(StatusCode),
}

/// Whose fault a failure is: that of what was said, or that of the receiver, which then takes nothing else either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The receiver has read the notice and will not take it, however often it comes.
    Notice,
    /// It is the notice's where the receiver takes others.
    Either,
    /// It is away, busy, or does not know the hub.
    Receiver,
}

impl PostError {
    /// Whether the receiver took longer to answer than it may.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, PostError::NoAnswer(error) if error.is_timeout())
    }

    /// Whose fault it is.
    pub(super) fn fault(&self) -> Fault {
        match self {
            PostError::NoAnswer(_) => Fault::Receiver,
            PostError::Answered(status) => match *status {
                StatusCode::BAD_REQUEST
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::UNSUPPORTED_MEDIA_TYPE
                | StatusCode::UNPROCESSABLE_ENTITY => Fault::Notice,
                StatusCode::INTERNAL_SERVER_ERROR => Fault::Either,
                _ => Fault::Receiver,
            },
        }
    }
}

/// A client for one receiver.
pub(super) struct Post<'a> {
    route: &'a Route,
    client: Client,
    token: Option<String>,
    secrets: Option<Secrets>,
    began: Timestamp,
}

impl<'a> Post<'a> {
    /// Reads the token, the secrets and the CA as they are now. The route's task `began` then.
    pub(super) fn new(route: &'a Route, began: Timestamp) -> anyhow::Result<Post<'a>> {
        let read =
            |path: &std::path::Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let text = |path: &std::path::Path, what: &'static str| {
            String::from_utf8(read(path)?).map_err(|_| anyhow::anyhow!("{what}: it is not UTF-8"))
        };
        let token = route.token_file.as_deref().map(|path| text(path, "tokenFile")).transpose()?;
        let secrets = route.secret_file.as_deref().map(|path| text(path, "secretFile")).transpose()?;
        let secrets = secrets.map(|text| Secrets::parse(&text)).transpose()?;
        let authorities = match route.ca_file.as_deref().map(read).transpose()? {
            Some(pem) => Certificate::from_pem_bundle(&pem).context("caFile holds no certificates")?,
            None => Vec::new(),
        };
        let client = Client::builder()
            .timeout(TIMEOUT)
            .user_agent(concat!("active-monitor-hub/", env!("CARGO_PKG_VERSION")))
            // The token is for this receiver and for no other.
            .redirect(reqwest::redirect::Policy::none());
        let (Receiver::Alertmanager(url) | Receiver::Webhook(url)) = route.receiver();
        // Without TLS no certificate is looked at, so a machine without any of its own is no obstacle.
        let is_plain = url.starts_with("http://");
        let client = if is_plain { client.tls_certs_only([]) } else { client.tls_certs_merge(authorities) };
        let client = client.build().context("no HTTP client")?;
        Ok(Post { route, client, token: token.map(|text| text.trim().to_owned()), secrets, began })
    }

    /// What goes into one request: a webhook gets notices one by one.
    pub(super) fn batches<'n>(&self, notices: &'n [Notice]) -> impl Iterator<Item = &'n [Notice]> + use<'n> {
        match self.route.receiver() {
            Receiver::Alertmanager(_) => notices.chunks(alert::MAX_DUE),
            Receiver::Webhook(_) => notices.chunks(1),
        }
    }

    /// Says that the hub is alive; it was said last at `before`.
    pub(super) async fn alive(&self, now: Timestamp, before: Option<Timestamp>) -> Result<(), PostError> {
        let summary = "the hub is alive";
        match self.route.receiver() {
            Receiver::Alertmanager(url) => {
                let labels = json!({"alertname": "ActiveMonitorWatchdog", "severity": "none"});
                self.send(&alerts_of(url), &json!([alert(labels, summary, None, later(now, DEAD_AFTER))]), None).await
            }
            Receiver::Webhook(url) => {
                let document = json!({"version": "1", "status": "alive", "summary": summary});
                self.send(url, &document, Some(&self.id("alive", before))).await
            }
        }
    }

    /// Tells of incidents, as `teller` says that they were told before.
    pub(super) async fn tell(&self, now: Timestamp, notices: &[Notice], teller: &Teller) -> Result<(), PostError> {
        match self.route.receiver() {
            Receiver::Alertmanager(url) => {
                // An Alertmanager knows an alert by its labels: those that it has no more are another one's, which ends.
                let before = notices.iter().filter_map(|notice| teller.relabelled(notice));
                let ended = before.map(|incident| incident_alert(&incident, &incident.title, now));
                let told = notices.iter().map(|notice| {
                    let ends_at = match notice.status {
                        NoticeStatus::Firing => later(now, FORGOTTEN_AFTER),
                        NoticeStatus::Silenced | NoticeStatus::Resolved => now,
                    };
                    incident_alert(&notice.incident, &alert::summary(notice), ends_at)
                });
                self.send(&alerts_of(url), &Value::Array(ended.chain(told).collect()), None).await
            }
            Receiver::Webhook(url) => {
                for notice in notices {
                    let (status, summary) = (notice.status.as_str(), alert::summary(notice));
                    let incident = notice.incident.shown();
                    let document = json!({"version": "1", "status": status, "summary": summary, "incident": incident});
                    let what = format!("{status} {} {} {}", incident.id, incident.first_seen, incident.widespread);
                    let id = self.id(&what, teller.told_at(&notice.incident));
                    self.send(url, &document, Some(&id)).await?;
                }
                Ok(())
            }
        }
    }

    /// The id of a webhook's message: the same for each try, another one for what is said again, or by another life of the
    /// hub, which does not know what was said last.
    fn id(&self, what: &str, said_last: Option<Timestamp>) -> String {
        let text = format!("{} {what} {}", self.route.name, said_last.unwrap_or(self.began));
        format!("msg_{}", hex::encode(&Sha256::digest(text)[..16]))
    }

    /// Sends a document; with the id of a webhook's message also what that is verified by.
    async fn send(&self, url: &str, document: &Value, id: Option<&str>) -> Result<(), PostError> {
        let body = document.to_string();
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(id) = id {
            let second = clock::now().as_second();
            request = request.header("webhook-id", id).header("webhook-timestamp", second);
            if let Some(secrets) = &self.secrets {
                request = request.header("webhook-signature", secrets.sign(id, second, body.as_bytes()));
            }
        }
        let answer = request.body(body).send().await.map_err(|error| PostError::NoAnswer(error.without_url()))?;
        if answer.status().is_success() { Ok(()) } else { Err(PostError::Answered(answer.status())) }
    }
}

fn alerts_of(url: &str) -> String {
    format!("{}/api/v2/alerts", url.trim_end_matches('/'))
}

fn incident_alert(incident: &Incident, summary: &str, ends_at: Timestamp) -> Value {
    let mut alert = alert(json!(alert::labels(incident)), summary, Some(incident.first_seen), ends_at);
    alert["annotations"]["description"] = json!(description(incident));
    alert
}

fn alert(labels: Value, summary: &str, starts_at: Option<Timestamp>, ends_at: Timestamp) -> Value {
    let mut alert = json!({"labels": labels, "annotations": {"summary": summary}, "endsAt": ends_at.to_string()});
    if let Some(starts_at) = starts_at {
        alert["startsAt"] = json!(starts_at.to_string());
    }
    alert
}

/// The clusters and the first message, in one line.
fn description(incident: &Incident) -> String {
    let names: Vec<&str> = incident.members.iter().take(10).map(|member| member.cluster.as_str()).collect();
    let more = incident.members.len().saturating_sub(names.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let message = incident.members.iter().map(|member| member.message.as_str()).find(|message| !message.is_empty());
    format!("in {}{more}: {}", names.join(", "), message.unwrap_or("no message"))
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
