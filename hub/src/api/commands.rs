//! Commands to clusters. Each is in the audit log before it is sent, and again with what became of it in each cluster; a
//! caller that goes away does not change that.

use std::time::Duration;

use active_monitor_core::command::{Answer, Command, Order, Pause, Refusal, Scope};
use active_monitor_core::fleet::FleetView;
use active_monitor_core::view::{CommandOutcome, CommandReport, CommandRequest, CommandResult, Me, Problem, in_words};
use axum::extract::State;
use jiff::Timestamp;
use rand::RngCore;

use super::Api;
use super::extract::Json;
use super::problem::ApiError;
use crate::auth::Operator;
use crate::owner::ANSWER_TIMEOUT;
use crate::store::AuditEntry;

/// Clusters that a line of the audit log names.
const MAX_NAMED: usize = 10;

/// Asks clusters to run a check now, to pause or to resume, and says what became of it in each. An agent obeys as far as
/// its own configuration lets it. What could not be delivered is not tried again.
#[utoipa::path(
    post, path = "/api/v1/commands", operation_id = "command", tag = "commands", request_body = CommandRequest,
    responses(
        (status = 200, body = CommandReport, description = "One result a cluster; look at each"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn command(
    Operator(me): Operator,
    State(api): State<Api>,
    Json(request): Json<CommandRequest>,
) -> Result<axum::Json<CommandReport>, ApiError> {
    let (scope, order) = request.order(&me.name).map_err(ApiError::Invalid)?;
    let clusters = picked(&api.app.fleet.view(), &request)?;
    let report = tokio::spawn(async move { api.give(me, request, scope, order, clusters).await });
    report.await.map_err(|_| ApiError::Internal)?.map(axum::Json)
}

/// Names of the clusters that are meant.
fn picked(view: &FleetView, request: &CommandRequest) -> Result<Vec<String>, ApiError> {
    if let Some(unknown) = request.clusters.iter().find(|name| !view.clusters.contains_key(*name)) {
        return Err(ApiError::Invalid(format!("clusters: there is no cluster {unknown}")));
    }
    let has_labels = |name: &String| {
        request.labels.iter().all(|(key, value)| view.clusters[name].view.labels.get(key) == Some(value))
    };
    let is_named = |name: &String| request.clusters.is_empty() || request.clusters.contains(name);
    let picked: Vec<String> = view.clusters.keys().filter(|name| is_named(name) && has_labels(name)).cloned().collect();
    if picked.is_empty() {
        return Err(ApiError::Invalid("labels: no cluster has them".to_owned()));
    }
    Ok(picked)
}

impl Api {
    async fn give(
        self,
        me: Me,
        request: CommandRequest,
        scope: Scope,
        order: Order,
        clusters: Vec<String>,
    ) -> Result<CommandReport, ApiError> {
        let (at, words) = (Timestamp::now(), in_words(&scope, &order));
        let action = format!("command.{}", request.action.as_str());
        self.note(at, &me, &action, format!("{words}; in {}", named(&clusters))).await?;
        let command = Command { id: new_id(), scope, order };
        let results = futures::future::join_all(clusters.into_iter().map(async |cluster| {
            let result = self.ask(at, cluster, &command).await;
            let CommandResult { cluster, outcome, layer, message } = &result;
            let by = layer.map(|layer| format!(" by {}", layer.as_str())).unwrap_or_default();
            let object = format!("{cluster}: {words}: {}{by}: {message}", outcome.as_str());
            self.note(Timestamp::now(), &me, &format!("{action}.result"), object).await.map(|()| result)
        }));
        let results = results.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(CommandReport { id: command.id, at, command: words, results })
    }

    async fn note(&self, at: Timestamp, me: &Me, action: &str, object: String) -> Result<(), ApiError> {
        tracing::info!(who = me.name, action, object, "command");
        let entry = AuditEntry { at, who: me.name.clone(), action: action.to_owned(), object };
        Ok(self.app.store.audit(&entry).await?)
    }

    async fn ask(&self, at: Timestamp, cluster: String, command: &Command) -> CommandResult {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.app.fleet.command(&cluster, command.clone())).await;
        let (outcome, layer, message) = match asked {
            Ok(Ok(Answer { verdict: Ok(done), .. })) => {
                let message = match self.keep(at, &cluster, command).await {
                    Ok(()) => done,
                    Err(problem) => format!("{done}; {problem}"),
                };
                (CommandOutcome::Delivered, None, message)
            }
            Ok(Ok(Answer { verdict: Err(Refusal { layer, reason }), .. })) => {
                (CommandOutcome::Refused, Some(layer), reason)
            }
            Ok(Err(undelivered)) => (CommandOutcome::Unreachable, None, undelivered.to_string()),
            Err(_) => {
                let seconds = ANSWER_TIMEOUT.as_secs();
                let message = format!("no answer within {seconds} s; it may be done all the same");
                (CommandOutcome::TimedOut, None, message)
            }
        };
        CommandResult { cluster, outcome, layer, message }
    }

    /// Remembers what is paused, for an agent that takes over.
    async fn keep(&self, at: Timestamp, cluster: &str, command: &Command) -> Result<(), String> {
        let Command { id, scope, order } = command.clone();
        let kept = match order {
            Order::RunNow | Order::SelfTest => Ok(()),
            Order::Pause { subject, seconds, reason, by } => {
                let until = at.saturating_add(Duration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
                let pause = Pause { id, subject, scope, until, reason, by };
                self.app.store.put_pause(cluster, &pause, at).await
            }
            Order::Resume { subject } => self.app.store.end_pauses(cluster, subject, &scope).await,
        };
        kept.map_err(|error| {
            tracing::error!(cluster, %error, "a pause was not stored");
            "the hub could not note it, so that an agent that takes over does not hear of it".to_owned()
        })
    }
}

fn named(clusters: &[String]) -> String {
    let shown = clusters.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match clusters.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn new_id() -> String {
    let mut bytes = [0u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}
