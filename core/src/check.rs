//! A HealthCheck, read once: what is wrong with it is said here, and later code has no invalid case.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::{Deserialize, Serialize};

use crate::healthcheck::{HealthCheck, HealthCheckSpec, SourceSpec, WorkflowSpec, whole_seconds};
use crate::manifest;
use crate::rbac;
use crate::run::RunKind;
use crate::schedule::{Schedule, Slots};

/// The longest `repeatAfterSec`, `workflowtimeout` and `remedyResetInterval`: 366 days, in seconds.
pub const MAX_SECONDS: i64 = 366 * 24 * 3600;

/// One thing that is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Path of the field, such as `spec.schedule.cron`.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A resource that cannot be run, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Invalid {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// Reach of an account's default rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A ClusterRole, bound cluster-wide.
    Cluster,
    /// A Role in the workflow's namespace.
    Namespace,
}

/// When a check runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Timing {
    /// On these slots.
    Slots(Slots),
    /// Never: it is paused.
    Stopped,
}

/// Where the text of a workflow comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the HealthCheck itself.
    Inline(String),
    /// To be fetched for each run.
    Url {
        /// An https address.
        url: String,
        /// False only where the author switched verification off.
        verify_cert: bool,
    },
}

/// A workflow and how it is run: the check's or the remedy's.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Check or remedy.
    pub kind: RunKind,
    /// Prefix of the workflows' names.
    pub prefix: String,
    /// Namespace of the workflow.
    pub namespace: String,
    /// The account of its pods.
    pub account: String,
    /// Where its text is.
    pub source: Source,
    /// Seconds that a run may take, as the HealthCheck says; the source may say a longer time.
    pub timeout_seconds: Option<u32>,
    /// What the account may do.
    pub rules: Vec<PolicyRule>,
}

/// A remedy and how often it may run.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// Its workflow.
    pub job: Job,
    /// Remedies between two successes of the check; no limit where it is absent.
    pub limit: Option<u32>,
    /// Seconds after the last remedy when the limit starts anew.
    pub reset_seconds: Option<u32>,
}

/// A HealthCheck that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// `metadata.uid`.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// When it runs.
    pub timing: Timing,
    /// Reach of the accounts' rights.
    pub level: Level,
    /// The workflow whose success means health.
    pub workflow: Job,
    /// The workflow that mends.
    pub remedy: Option<Remedy>,
    /// What is accepted without effect, for people.
    pub warnings: Vec<Problem>,
}

impl Check {
    /// Reads a HealthCheck.
    ///
    /// # Errors
    /// All problems at once, each with its field.
    pub fn parse(resource: &HealthCheck) -> Result<Check, Invalid> {
        let mut problems = Problems::default();
        let meta = &resource.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let created = meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| whole_seconds(t.0));
        let uid = meta.uid.clone().unwrap_or_default();
        let spec = &resource.spec;

        let timing = timing(spec, created, &format!("{namespace}/{name}/{uid}"), &mut problems);
        let level = level(spec.level.as_deref(), &mut problems);
        let workflow = job(RunKind::HealthCheck, &spec.workflow, &name, &mut problems);
        let remedy = remedy(spec, &name, workflow.as_ref(), &mut problems);
        let (Some(timing), Some(level), Some(workflow), true) = (timing, level, workflow, problems.0.is_empty()) else {
            return Err(Invalid { problems: problems.0 });
        };
        Ok(Check {
            uid,
            namespace,
            name,
            generation: meta.generation.unwrap_or_default(),
            created,
            timing,
            level,
            workflow,
            remedy,
            warnings: warnings(spec),
        })
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The job of this kind, where there is one.
    pub fn job(&self, kind: RunKind) -> Option<&Job> {
        match kind {
            RunKind::HealthCheck => Some(&self.workflow),
            RunKind::Remedy => self.remedy.as_ref().map(|remedy| &remedy.job),
        }
    }

    /// Seconds that the run of this kind and slot may take by the HealthCheck alone: its own timeout, or for a check the
    /// gap to the next slot. A remedy without one gets the check's.
    pub fn timeout_seconds(&self, kind: RunKind, slot: Timestamp) -> u32 {
        let gap = match &self.timing {
            Timing::Slots(slots) => u32::try_from(slots.gap(slot).as_secs()).unwrap_or(3600),
            Timing::Stopped => 3600,
        };
        self.job(kind).and_then(|job| job.timeout_seconds).or(self.workflow.timeout_seconds).unwrap_or(gap).max(1)
    }
}

/// Problems found so far.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { field: field.into(), message: message.into() });
    }
}

fn timing(spec: &HealthCheckSpec, created: Timestamp, key: &str, problems: &mut Problems) -> Option<Timing> {
    let interval = spec.repeat_after_sec.unwrap_or(0);
    let cron = spec.schedule.as_ref().and_then(|s| s.cron.as_deref()).unwrap_or("").trim();
    if interval > MAX_SECONDS {
        problems.add("spec.repeatAfterSec", format!("{interval} is above {MAX_SECONDS} (366 days)"));
        return None;
    }
    if interval > 0 {
        let schedule = Schedule::every(std::time::Duration::from_secs(interval.unsigned_abs()));
        return Some(Timing::Slots(Slots::new(schedule, created, key)));
    }
    if cron.is_empty() {
        return Some(Timing::Stopped);
    }
    match Schedule::parse_cron(cron) {
        Ok(schedule) => {
            let slots = Slots::new(schedule, created, key);
            if slots.next(created).is_none() {
                problems.add("spec.schedule.cron", format!("{} names no time that ever comes", quoted(cron)));
            }
            Some(Timing::Slots(slots))
        }
        Err(error) => {
            problems.add("spec.schedule.cron", error.to_string());
            None
        }
    }
}

fn level(level: Option<&str>, problems: &mut Problems) -> Option<Level> {
    match level.unwrap_or("") {
        "cluster" => Some(Level::Cluster),
        "" | "namespace" => Some(Level::Namespace),
        other => {
            problems.add("spec.level", format!("{other:?} is neither cluster nor namespace"));
            None
        }
    }
}

fn job(kind: RunKind, spec: &WorkflowSpec, check_name: &str, problems: &mut Problems) -> Option<Job> {
    let base = match kind {
        RunKind::HealthCheck => "spec.workflow",
        RunKind::Remedy => "spec.remedyworkflow",
    };
    let Some(resource) = &spec.resource else {
        problems.add(format!("{base}.resource"), "is missing: it says where the workflow runs and what it is");
        return None;
    };
    let before = problems.0.len();
    let prefix = match spec.generate_name.as_deref() {
        None | Some("") => format!("{check_name}-"),
        Some(prefix) => prefix.to_owned(),
    };
    if let Err(message) = dns_prefix(&prefix) {
        problems.add(format!("{base}.generateName"), message);
    }
    if let Err(message) = dns_label(&resource.namespace) {
        problems.add(format!("{base}.resource.namespace"), message);
    }
    let account = resource.service_account.clone().unwrap_or_default();
    if let Err(message) = dns_subdomain(&account) {
        problems.add(format!("{base}.resource.serviceAccount"), message);
    }
    let timeout_seconds = seconds(spec.workflow_timeout, &format!("{base}.workflowtimeout"), problems);
    let source = source(&resource.source, &format!("{base}.resource.source"), problems);
    let rules = match spec.rbac_rules.as_deref() {
        Some(rules) if !rules.is_empty() => rules.to_vec(),
        Some(_) | None => rbac::default_rules(kind),
    };
    if rules.len() > rbac::MAX_RULES {
        problems.add(format!("{base}.rbacRules"), format!("{} rules are above {}", rules.len(), rbac::MAX_RULES));
    }
    let source = source.filter(|_| problems.0.len() == before)?;
    Some(Job { kind, prefix, namespace: resource.namespace.clone(), account, source, timeout_seconds, rules })
}

fn remedy(spec: &HealthCheckSpec, name: &str, check: Option<&Job>, problems: &mut Problems) -> Option<Remedy> {
    let limit = count(spec.remedy_runs_limit, "spec.remedyRunsLimit", problems);
    let reset_seconds = seconds(spec.remedy_reset_interval, "spec.remedyResetInterval", problems);
    // active-monitor stores `remedyworkflow: {}` where there is no remedy.
    let workflow = spec.remedyworkflow.as_ref().filter(|workflow| workflow.resource.is_some())?;
    let mut job = job(RunKind::Remedy, workflow, name, problems)?;
    // A remedy that names the check's account gets one of its own, so that the check never holds the remedy's rights.
    if check.is_some_and(|check| check.account == job.account && check.namespace == job.namespace) {
        job.account = format!("{}-remedy", job.account);
    }
    Some(Remedy { job, limit, reset_seconds })
}

fn source(spec: &SourceSpec, base: &str, problems: &mut Problems) -> Option<Source> {
    if let Some(text) = spec.inline.as_deref().filter(|text| !text.is_empty()) {
        return match manifest::Manifest::parse(text) {
            Ok(_) => Some(Source::Inline(text.to_owned())),
            Err(error) => {
                problems.add(format!("{base}.inline"), error.to_string());
                None
            }
        };
    }
    if let Some(url) = spec.url.as_ref().and_then(|url| url.path.as_deref()).filter(|path| !path.is_empty()) {
        if !url.starts_with("https://") {
            problems.add(format!("{base}.url.path"), "must start with https://");
            return None;
        }
        let verify_cert = spec.url.as_ref().and_then(|url| url.verify_cert).unwrap_or(true);
        return Some(Source::Url { url: url.to_owned(), verify_cert });
    }
    if spec.file.as_ref().and_then(|file| file.path.as_deref()).is_some_and(|path| !path.is_empty()) {
        problems.add(format!("{base}.file"), "is not supported: give the text in `inline` or its address in `url`");
        return None;
    }
    problems.add(base, "is empty: one of inline, url is needed");
    None
}

/// Absent and 0 mean that there is none.
fn seconds(value: Option<i64>, field: &str, problems: &mut Problems) -> Option<u32> {
    match value {
        Some(n) if n > MAX_SECONDS => {
            problems.add(field, format!("{n} is above {MAX_SECONDS} (366 days)"));
            None
        }
        other => count(other.filter(|n| *n != 0), field, problems),
    }
}

fn count(value: Option<i64>, field: &str, problems: &mut Problems) -> Option<u32> {
    let n = value?;
    match u32::try_from(n) {
        Ok(n) => Some(n),
        Err(_) => {
            let message = if n < 0 { format!("{n} is negative") } else { format!("{n} is above {}", u32::MAX) };
            problems.add(field, message);
            None
        }
    }
}

fn warnings(spec: &HealthCheckSpec) -> Vec<Problem> {
    let given = [
        ("spec.backoffFactor", spec.backoff_factor.is_some()),
        ("spec.backoffMax", spec.backoff_max.is_some()),
        ("spec.backoffMin", spec.backoff_min.is_some()),
    ];
    let message = "has no effect: workflows are watched, not polled";
    let given = given.into_iter().filter(|(_, given)| *given);
    given.map(|(field, _)| Problem { field: field.into(), message: message.into() }).collect()
}

fn dns_chars(text: &str, dots: bool) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.'))
}

/// RFC 1123 label, as Kubernetes wants namespaces.
fn dns_label(text: &str) -> Result<(), String> {
    let edges = !text.is_empty() && !text.starts_with('-') && !text.ends_with('-');
    if edges && text.len() <= 63 && dns_chars(text, false) {
        return Ok(());
    }
    Err(format!("{} is no DNS label: a-z, 0-9 and -, at most 63, not starting or ending with -", quoted(text)))
}

/// RFC 1123 subdomain, as Kubernetes wants names of accounts.
fn dns_subdomain(text: &str) -> Result<(), String> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if edge(text.chars().next()) && edge(text.chars().last()) && text.len() <= 253 && dns_chars(text, true) {
        return Ok(());
    }
    Err(format!("{} is no DNS name: a-z, 0-9, - and ., at most 253", quoted(text)))
}

/// The start of a subdomain: what comes after it is ours.
fn dns_prefix(text: &str) -> Result<(), String> {
    let starts = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if starts && text.len() <= 253 && dns_chars(text, true) {
        return Ok(());
    }
    Err(format!("{} cannot start a workflow's name: a-z, 0-9, - and ., at most 253", quoted(text)))
}

/// A value of the user's in an error: bounded, and with its control characters escaped.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}
