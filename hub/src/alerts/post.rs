//! The requests to a receiver of alerts.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::alert::{self, Notice, NoticeStatus, Receiver, Route};
use active_monitor_core::view::Incident;
use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

/// The longest that a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An alert that is not said again ends after so long. Its end is said, so this is for a hub that is gone for good: until
/// then its silence resolves nothing.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// The hub's sign of life ends after so long: its silence shall be noticed.
const DEAD_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// A client for one receiver.
pub(super) struct Post<'a> {
    route: &'a Route,
    client: Client,
    token: Option<String>,
}

impl<'a> Post<'a> {
    /// Reads the token and the CA as they are now.
    pub(super) fn new(route: &'a Route) -> anyhow::Result<Post<'a>> {
        let read =
            |path: &std::path::Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let token = route.token_file.as_deref().map(read).transpose()?;
        let token = token.map(|bytes| String::from_utf8(bytes).context("the token is not UTF-8")).transpose()?;
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
        Ok(Post { route, client, token: token.map(|text| text.trim().to_owned()) })
    }

    /// What goes into one request: a webhook gets notices one by one.
    pub(super) fn batches<'n>(&self, notices: &'n [Notice]) -> impl Iterator<Item = &'n [Notice]> + use<'n> {
        match self.route.receiver() {
            Receiver::Alertmanager(_) => notices.chunks(alert::MAX_DUE),
            Receiver::Webhook(_) => notices.chunks(1),
        }
    }

    /// Says that the hub is alive.
    pub(super) async fn alive(&self, now: Timestamp) -> anyhow::Result<()> {
        let summary = "the hub is alive";
        match self.route.receiver() {
            Receiver::Alertmanager(url) => {
                let labels = json!({"alertname": "ActiveMonitorWatchdog", "severity": "none"});
                self.send(&alerts_of(url), &json!([alert(labels, summary, None, later(now, DEAD_AFTER))])).await
            }
            Receiver::Webhook(url) => {
                self.send(url, &json!({"version": "1", "status": "alive", "summary": summary})).await
            }
        }
    }

    /// Tells of incidents. Those `before` were known to an Alertmanager by labels that they have no more.
    pub(super) async fn tell(
        &self,
        now: Timestamp,
        notices: &[Notice],
        before: &[Arc<Incident>],
    ) -> anyhow::Result<()> {
        match self.route.receiver() {
            Receiver::Alertmanager(url) => {
                let ended = before.iter().map(|incident| incident_alert(incident, &incident.title, now));
                let told = notices.iter().map(|notice| {
                    let ends_at = match notice.status {
                        NoticeStatus::Firing => later(now, FORGOTTEN_AFTER),
                        NoticeStatus::Silenced | NoticeStatus::Resolved => now,
                    };
                    incident_alert(&notice.incident, &alert::summary(notice), ends_at)
                });
                self.send(&alerts_of(url), &Value::Array(ended.chain(told).collect())).await
            }
            Receiver::Webhook(url) => {
                for notice in notices {
                    let (status, summary) = (notice.status.as_str(), alert::summary(notice));
                    let incident = notice.incident.shown();
                    let document = json!({"version": "1", "status": status, "summary": summary, "incident": incident});
                    self.send(url, &document).await?;
                }
                Ok(())
            }
        }
    }

    async fn send(&self, url: &str, document: &Value) -> anyhow::Result<()> {
        let mut request = self.client.post(url).json(document);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(reqwest::Error::without_url).context("no answer")?;
        anyhow::ensure!(answer.status().is_success(), "the receiver answered {}", answer.status());
        Ok(())
    }
}

/// Whether the receiver took longer to answer than it may.
pub(super) fn is_timeout(error: &anyhow::Error) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout)
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
