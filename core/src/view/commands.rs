//! Commands to clusters, as the API says them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::command::{Layer, MAX_REASON_BYTES, Order, Scope, Subject};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// One run of one check, out of schedule.
    Run,
    /// Nothing is started for a time.
    Pause,
    /// Pauses end.
    Resume,
    /// The agent tests whether its cluster can run a check.
    Test,
}

impl Action {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Run => "run",
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Test => "test",
        }
    }
}

/// Body of `POST /api/v1/commands`. The clusters are those that are named, those that have all the labels, or all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandRequest {
    /// What is asked.
    pub action: Action,
    /// What a pause or resume is of; checks (and with them their remedies) where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// Names of clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
    /// Labels that a cluster must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Every cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_clusters: bool,
    /// Only checks of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only this check; needs the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// How long a pause lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Why, for those who meet the pause: at most 512 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl CommandRequest {
    /// What the clusters are asked, by `by`.
    ///
    /// # Errors
    /// Which field is wrong, and what is allowed.
    pub fn order(&self, by: &str) -> Result<(Scope, Order), String> {
        let CommandRequest { action, subject, namespace, check, seconds, reason, .. } = self;
        let one_way = [!self.clusters.is_empty(), !self.labels.is_empty(), self.all_clusters];
        if one_way.into_iter().filter(|is_given| *is_given).count() != 1 {
            return Err("give one of clusters, labels and allClusters: which clusters are meant".to_owned());
        }
        let is_empty = |text: &Option<String>| text.as_deref() == Some("");
        if is_empty(namespace) || is_empty(check) {
            return Err("namespace and check must not be empty: leave them out for all".to_owned());
        }
        if namespace.is_none() && check.is_some() {
            return Err("check: needs a namespace".to_owned());
        }
        if reason.len() > MAX_REASON_BYTES {
            return Err(format!("reason: {} bytes, at most {MAX_REASON_BYTES} are allowed", reason.len()));
        }
        let scope = Scope { namespace: namespace.clone(), name: check.clone() };
        let subject_or_checks = subject.unwrap_or(Subject::Checks);
        let order = match (action, seconds) {
            (Action::Run, None) if check.is_none() => return Err("check: a run is of one check; give it".to_owned()),
            (Action::Run, None) if subject.is_some() => return Err("subject: a run has none; leave it out".to_owned()),
            (Action::Run, None) => Order::RunNow,
            (Action::Pause, Some(seconds)) if *seconds > 0 => {
                let (reason, by) = (reason.clone(), by.to_owned());
                Order::Pause { subject: subject_or_checks, seconds: *seconds, reason, by }
            }
            (Action::Pause, _) => return Err("seconds: a pause lasts 1 second or more; give them".to_owned()),
            (Action::Resume, None) => Order::Resume { subject: subject_or_checks },
            (Action::Test, None) if namespace.is_some() => {
                return Err("namespace: a self-test is of a cluster; leave it out".to_owned());
            }
            (Action::Test, None) if subject.is_some() => {
                return Err("subject: a self-test has none; leave it out".to_owned());
            }
            (Action::Test, None) => Order::SelfTest,
            (Action::Run | Action::Resume | Action::Test, Some(_)) => {
                return Err(format!("seconds: {} takes none; leave them out", action.as_str()));
            }
        };
        Ok((scope, order))
    }
}

/// What became of a command in one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum CommandOutcome {
    /// Its agent does it.
    Delivered,
    /// It is not done; the layer says who refused.
    Refused,
    /// No agent is connected, or its connection closed before the answer.
    Unreachable,
    /// No answer came; it may be done all the same.
    TimedOut,
}

impl CommandOutcome {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            CommandOutcome::Delivered => "Delivered",
            CommandOutcome::Refused => "Refused",
            CommandOutcome::Unreachable => "Unreachable",
            CommandOutcome::TimedOut => "TimedOut",
        }
    }
}

/// What became of a command in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandResult {
    /// Name of the cluster.
    pub cluster: String,
    /// What became of it.
    pub outcome: CommandOutcome,
    /// Who refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
    /// What was done, or why nothing was.
    pub message: String,
}

/// What became of a command: one result for each cluster that was meant, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandReport {
    /// Of the command, also in the agents' logs.
    pub id: String,
    /// When it was given, by the hub's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What was asked, in words.
    pub command: String,
    /// The results.
    pub results: Vec<CommandResult>,
}

/// A command in words, for the audit log.
pub fn in_words(scope: &Scope, order: &Order) -> String {
    match order {
        Order::RunNow => format!("run {scope} now"),
        Order::Pause { subject, seconds, reason, by: _ } => {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("pause {} of {scope} for {seconds} s{why}", subject.as_str())
        }
        Order::Resume { subject } => format!("resume {} of {scope}", subject.as_str()),
        Order::SelfTest => "run a self-test".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_that_makes_no_sense_says_which_field() {
        let order = |value: serde_json::Value| {
            let request: CommandRequest = serde_json::from_value(value).unwrap();
            request.order("ann").map(|(scope, order)| in_words(&scope, &order))
        };
        for (value, words) in [
            (json!({"action": "run", "clusters": ["a"], "namespace": "n", "check": "c"}), "run check n/c now"),
            (
                json!({"action": "pause", "subject": "remedies", "labels": {"region": "eu"}, "seconds": 9, "reason": "x"}),
                "pause remedies of the whole cluster for 9 s: x",
            ),
            (json!({"action": "resume", "allClusters": true, "namespace": "n"}), "resume checks of namespace n"),
            (json!({"action": "test", "clusters": ["a"]}), "run a self-test"),
        ] {
            assert_eq!(order(value), Ok(words.to_owned()));
        }
        for (value, field) in [
            (json!({"action": "resume"}), "clusters"),
            (json!({"action": "resume", "allClusters": true, "clusters": ["a"]}), "clusters"),
            (json!({"action": "resume", "allClusters": true, "check": "c"}), "check"),
            (json!({"action": "resume", "allClusters": true, "namespace": ""}), "namespace"),
            (json!({"action": "resume", "allClusters": true, "seconds": 1}), "seconds"),
            (json!({"action": "run", "allClusters": true, "namespace": "n"}), "check"),
            (
                json!({"action": "run", "allClusters": true, "namespace": "n", "check": "c", "subject": "checks"}),
                "subject",
            ),
            (json!({"action": "test", "allClusters": true, "namespace": "n"}), "namespace"),
            (json!({"action": "test", "allClusters": true, "subject": "checks"}), "subject"),
            (json!({"action": "test", "allClusters": true, "seconds": 1}), "seconds"),
            (json!({"action": "pause", "allClusters": true}), "seconds"),
            (json!({"action": "pause", "allClusters": true, "seconds": 0}), "seconds"),
            (json!({"action": "pause", "allClusters": true, "seconds": 1, "reason": "x".repeat(513)}), "reason"),
        ] {
            let error = order(value.clone()).unwrap_err();
            assert!(error.contains(field), "{value}: {error}");
        }
    }
}
