//! What a cluster lets the hub push to it: decided by the agent's own configuration, which the hub cannot change.

mod pace;
mod settings;

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use crate::check::{Check, Job, Level, Source, Timing};
use crate::healthcheck::HealthCheck;
use crate::names::{self, DEFINITION_LABEL, DEPENDS_ON_ANNOTATION};
use crate::rbac;
use crate::run::RunKind;

pub use self::pace::Pace;
pub use self::settings::{MAX_SETTINGS, PolicySetting};

/// The largest file of a policy, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// What these annotations say is a command: a run now would pass by what the cluster obeys.
const OWN_PREFIX: &str = "activemonitor.keikoproj.io/";

/// Whether an annotation is a command of this agent's; what a check depends on is the check's own.
fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX) && name != DEPENDS_ON_ANNOTATION
}
/// Slots of a calendar that are looked at for its shortest period.
const SLOTS_LOOKED_AT: usize = 1000;

/// Where the text of a workflow may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// The definition itself.
    Inline,
    /// A server.
    Url,
    /// The folder that the agent's operator opened.
    File,
}

impl SourceKind {
    /// As in the file.
    fn as_str(self) -> &'static str {
        match self {
            SourceKind::Inline => "inline",
            SourceKind::Url => "url",
            SourceKind::File => "file",
        }
    }
}

/// The cluster's own limits on pushed definitions, as in the file of the agent's `--policy-file`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// Namespaces that pushed HealthChecks and their workflows may be in. Empty: nothing may be pushed.
    pub namespaces: BTreeSet<String>,
    /// Whether they may carry a remedy.
    pub remedies: bool,
    /// The levels that they may have.
    pub levels: BTreeSet<Level>,
    /// Accounts that their workflows may run as; where there is no list, any of the open namespaces.
    pub accounts: Option<BTreeSet<String>>,
    /// Where their workflows may come from.
    pub sources: BTreeSet<SourceKind>,
    /// What they may be given besides the default rights of checks and remedies.
    pub rules: Vec<PolicyRule>,
    /// The shortest time between two of their runs.
    pub min_period_seconds: u32,
    /// How many there may be.
    pub max_checks: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            namespaces: BTreeSet::new(),
            remedies: false,
            levels: [Level::Namespace].into(),
            accounts: None,
            sources: [SourceKind::Inline].into(),
            rules: Vec::new(),
            min_period_seconds: 10,
            max_checks: 200,
        }
    }
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// One sentence: the field, what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Policy, String> {
        if text.len() > MAX_FILE_BYTES {
            return Err(format!("{} bytes are above {MAX_FILE_BYTES}", text.len()));
        }
        let options = serde_saphyr::options!(with_snippet: false);
        let given: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
        // An empty file is the default.
        let given = if given.is_null() { Value::Object(serde_json::Map::new()) } else { given };
        let policy: Policy = serde_json::from_value(given.clone()).map_err(|error| error.to_string())?;
        let kept = serde_json::to_value(&policy.rules).unwrap_or_default();
        if let Some(field) = dropped(&given["rules"], &kept, "rules") {
            return Err(format!("{field}: there is no such field in a rule"));
        }
        let accounts = policy.accounts.iter().flatten();
        let named = policy.namespaces.iter().map(|name| ("namespaces", name, names::dns_label(name)));
        let named = named.chain(accounts.map(|name| ("accounts", name, names::dns_subdomain(name))));
        for (field, name, rule) in named {
            rule.map_err(|allowed| format!("{field}: {name:?} {allowed}"))?;
        }
        Ok(policy)
    }

    /// Reads what the hub wants this cluster to have.
    ///
    /// # Errors
    /// One sentence: what is not allowed or not valid, and what is allowed.
    pub fn admit(&self, definition: &str, health_check: &str) -> Result<HealthCheck, String> {
        let given: Value = serde_json::from_str(health_check).map_err(|error| format!("it is no JSON: {error}"))?;
        let mut resource: HealthCheck =
            serde_json::from_value(given.clone()).map_err(|error| format!("it is no HealthCheck: {error}"))?;
        let kept = serde_json::to_value(&resource.spec).unwrap_or_default();
        if let Some(field) = dropped(&given["spec"], &kept, "spec") {
            return Err(format!("{field}: this agent does not know the field, and does not drop it in silence"));
        }
        let label = resource.metadata.labels.as_ref().and_then(|labels| labels.get(DEFINITION_LABEL));
        if label.map(String::as_str) != Some(definition) {
            return Err(format!("its label {DEFINITION_LABEL} must be {definition:?}"));
        }
        let annotations = resource.metadata.annotations.iter().flatten();
        if let Some((name, _)) = annotations.clone().find(|(name, _)| is_own(name)) {
            return Err(format!("metadata.annotations[{name}]: is this agent's to set, not the hub's"));
        }
        self.namespace("metadata.namespace", resource.metadata.namespace.as_deref().unwrap_or(""))?;
        let check = Check::parse(&resource).map_err(|invalid| invalid.to_string())?;
        self.level(check.level)?;
        self.period(&check, &resource)?;
        self.job("spec.workflow", &check.workflow)?;
        if let Some(remedy) = &check.remedy {
            if !self.remedies {
                return Err(refusal("spec.remedyworkflow", "a remedy", &[], "remedies"));
            }
            self.job("spec.remedyworkflow", &remedy.job)?;
        }
        // Finalizers, owners and whatever else metadata can do is not the hub's to say.
        let ObjectMeta { name, namespace, labels, annotations, .. } = resource.metadata;
        resource.metadata = ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() };
        Ok(resource)
    }

    /// Whether the hub may have one more HealthCheck made where there are `made` of its definitions.
    ///
    /// # Errors
    /// One sentence, as of [`Policy::admit`].
    pub fn admit_another(&self, made: usize) -> Result<(), String> {
        let max = self.max_checks;
        if u32::try_from(made).is_ok_and(|made| made < max) {
            return Ok(());
        }
        Err(format!(
            "one more pushed HealthCheck: this cluster takes {max}; `maxChecks` in its --policy-file opens more"
        ))
    }

    fn job(&self, field: &str, job: &Job) -> Result<(), String> {
        self.namespace(&format!("{field}.resource.namespace"), &job.namespace)?;
        if let Some(accounts) = self.accounts.as_ref().filter(|accounts| !accounts.contains(&job.account)) {
            let open: Vec<&str> = accounts.iter().map(String::as_str).collect();
            let field = format!("{field}.resource.serviceAccount");
            return Err(refusal(&field, &format!("{:?}", job.account), &open, "accounts"));
        }
        let source = match job.source {
            Source::Inline(_) => SourceKind::Inline,
            Source::Url { .. } => SourceKind::Url,
            Source::File { .. } => SourceKind::File,
        };
        if !self.sources.contains(&source) {
            let open: Vec<&str> = self.sources.iter().map(|kind| kind.as_str()).collect();
            return Err(refusal(&format!("{field}.resource.source"), source.as_str(), &open, "sources"));
        }
        self.rules(&format!("{field}.rbacRules"), job)
    }

    fn rules(&self, field: &str, job: &Job) -> Result<(), String> {
        let held: Vec<PolicyRule> = rbac::default_rules(job.kind).iter().chain(&self.rules).cloned().collect();
        let Some(beyond) = job.rules.iter().find(|rule| !rbac::covers(&held, rule)) else { return Ok(()) };
        let open = match job.kind {
            RunKind::HealthCheck => "the default rights of checks",
            RunKind::Remedy => "the default rights of remedies",
        };
        let further = if self.rules.is_empty() { Vec::new() } else { vec!["its `rules`"] };
        let open = [vec![open], further].concat();
        let beyond: String = serde_json::to_string(beyond).unwrap_or_default().chars().take(256).collect();
        Err(refusal(field, &beyond, &open, "rules"))
    }

    fn namespace(&self, field: &str, namespace: &str) -> Result<(), String> {
        if self.namespaces.contains(namespace) {
            return Ok(());
        }
        let open: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        Err(refusal(field, &format!("{namespace:?}"), &open, "namespaces"))
    }

    fn level(&self, level: Level) -> Result<(), String> {
        if self.levels.contains(&level) {
            return Ok(());
        }
        let open: Vec<&str> = self.levels.iter().map(|level| level.as_str()).collect();
        Err(refusal("spec.level", level.as_str(), &open, "levels"))
    }

    fn period(&self, check: &Check, resource: &HealthCheck) -> Result<(), String> {
        // A suspended check has a schedule all the same.
        let Timing::Slots(slots) = &check.timing else { return Ok(()) };
        let Some(shortest) = slots.schedule().shortest_gap(check.created, SLOTS_LOOKED_AT) else { return Ok(()) };
        let (shortest, least) = (shortest.as_secs(), u64::from(self.min_period_seconds));
        if shortest >= least {
            return Ok(());
        }
        let interval = resource.spec.repeat_after_sec.is_some_and(|seconds| seconds > 0);
        let field = if interval { "spec.repeatAfterSec" } else { "spec.schedule.cron" };
        let open = format!("{least} s and more");
        Err(refusal(field, &format!("a period of {shortest} s"), &[&open], "minPeriodSeconds"))
    }
}

/// The one shape of a refusal: the field, what is asked, what is open, and what the cluster's operator would change.
fn refusal(field: &str, asked: &str, open: &[&str], setting: &str) -> String {
    let open = if open.is_empty() { "none".to_owned() } else { open.join(", ") };
    format!(
        "{field}: {asked} is not open to the hub in this cluster; open are: {open}; `{setting}` in its --policy-file \
         opens more"
    )
}

/// The first field of `given` that is not in `kept`.
fn dropped(given: &Value, kept: &Value, path: &str) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            given.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match kept.get(name) {
                    Some(kept) => dropped(value, kept, &path),
                    None => Some(path),
                }
            })
        }
        (Value::Array(given), Value::Array(kept)) => {
            let mut items = given.iter().zip(kept).enumerate();
            items.find_map(|(i, (given, kept))| dropped(given, kept, &format!("{path}[{i}]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
