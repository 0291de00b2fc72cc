//! A HealthCheck, read once: what is wrong with it is said here, and later code has no invalid case.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::{Deserialize, Serialize};

use crate::healthcheck::{HealthCheck, HealthCheckSpec, SourceSpec, WorkflowSpec, whole_seconds};
use crate::manifest;
use crate::names;
use crate::rbac;
use crate::run::RunKind;
use crate::schedule::{Schedule, Slots, Spread};

/// Below this interval, in seconds, `fleetcheck lint` warns.
const FREQUENT_SECONDS: i64 = 10;
/// The longest `repeatAfterSec`, `workflowtimeout` and `remedyResetInterval`: 366 days, in seconds.
pub const MAX_SECONDS: i64 = 366 * 24 * 3600;
/// The longest path of a source.
const MAX_PATH_BYTES: usize = 1024;

/// The longest `jitterSec`, in seconds.
const MAX_JITTER_SECONDS: i64 = 24 * 3600;
/// The highest `failureThreshold` and `successThreshold`.
const MAX_THRESHOLD: i64 = 100;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A ClusterRole, bound cluster-wide.
    Cluster,
    /// A Role in the workflow's namespace.
    Namespace,
}

impl Level {
    /// As in `spec.level`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Cluster => "cluster",
            Level::Namespace => "namespace",
        }
    }
}

/// When a check runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Timing {
    /// On these slots.
    Slots(Slots),
    /// Never: it is paused.
    Stopped,
}

/// How many runs in a row change what is said of a check; each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failed ones, until it is Failed and its remedy is called.
    pub failure: u32,
    /// Successful ones, until a failed check is Succeeded.
    pub success: u32,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds { failure: 1, success: 1 }
    }
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
    /// To be read for each run, from the folder that the agent's operator opened.
    File {
        /// Relative to that folder, without `..`.
        path: String,
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
    pub rules: Arc<[PolicyRule]>,
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
    /// Nothing is started while this is so.
    pub suspended: bool,
    /// Seconds after its slot when a run that has not been started is skipped.
    pub starting_deadline_seconds: Option<u32>,
    /// Runs in a row that count as a change.
    pub thresholds: Thresholds,
    /// Reach of the accounts' rights.
    pub level: Level,
    /// The workflow whose success means health.
    pub workflow: Job,
    /// The workflow that mends.
    pub remedy: Option<Remedy>,
    /// What is accepted and has no effect, or another one than people may think.
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
        let starting_deadline_seconds =
            within(spec.starting_deadline_seconds, 1, MAX_SECONDS, "spec.startingDeadlineSeconds", &mut problems);
        let thresholds = Thresholds {
            failure: within(spec.failure_threshold, 1, MAX_THRESHOLD, "spec.failureThreshold", &mut problems)
                .unwrap_or(1),
            success: within(spec.success_threshold, 1, MAX_THRESHOLD, "spec.successThreshold", &mut problems)
                .unwrap_or(1),
        };
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
            suspended: spec.suspend.unwrap_or(false),
            starting_deadline_seconds,
            thresholds,
            level,
            workflow,
            remedy,
            warnings: warnings(spec),
        })
    }

    /// What stands in for a resource that cannot be run and of which no valid version is known: enough to follow a run
    /// in flight to its end, which its workflow's own deadline bounds.
    pub fn unrunnable(resource: &HealthCheck) -> Check {
        let meta = &resource.metadata;
        Check {
            uid: meta.uid.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| whole_seconds(t.0)),
            timing: Timing::Stopped,
            suspended: false,
            starting_deadline_seconds: None,
            thresholds: Thresholds::default(),
            level: Level::Namespace,
            workflow: Job {
                kind: RunKind::HealthCheck,
                prefix: String::new(),
                namespace: String::new(),
                account: String::new(),
                source: Source::Inline(String::new()),
                timeout_seconds: Some(1),
                rules: Arc::default(),
            },
            remedy: None,
            warnings: Vec::new(),
        }
    }

    /// The slots that the check runs on; `None` while it is paused or suspended.
    pub fn slots(&self) -> Option<&Slots> {
        match &self.timing {
            Timing::Slots(slots) if !self.suspended => Some(slots),
            Timing::Slots(_) | Timing::Stopped => None,
        }
    }

    /// Why nothing is started, where that is so.
    pub fn stopped_because(&self) -> Option<&'static str> {
        match &self.timing {
            _ if self.suspended => Some("suspended: spec.suspend is true"),
            Timing::Stopped => Some("paused: neither spec.repeatAfterSec above 0 nor spec.schedule.cron is given"),
            Timing::Slots(_) => None,
        }
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

    fn rule(&mut self, field: String, text: &str, rule: impl Fn(&str) -> Result<(), names::Rule>) {
        if let Err(allowed) = rule(text) {
            self.add(field, format!("{} {allowed}", quoted(text)));
        }
    }
}

fn timing(spec: &HealthCheckSpec, created: Timestamp, key: &str, problems: &mut Problems) -> Option<Timing> {
    let interval = spec.repeat_after_sec.unwrap_or(0);
    let cron = spec.schedule.as_ref().and_then(|s| s.cron.as_deref()).unwrap_or("").trim();
    let spread = spread(spec, problems);
    if interval > MAX_SECONDS {
        problems.add("spec.repeatAfterSec", format!("{interval} is above {MAX_SECONDS} (366 days)"));
        return None;
    }
    if interval > 0 {
        if spread.jitter_below.is_some_and(|jitter| jitter.as_secs() > interval.unsigned_abs()) {
            problems.add("spec.jitterSec", format!("is above spec.repeatAfterSec, {interval}"));
        }
        let schedule = Schedule::every(Duration::from_secs(interval.unsigned_abs()));
        return Some(Timing::Slots(Slots::new(schedule, created, key, spread)));
    }
    if cron.is_empty() {
        return Some(Timing::Stopped);
    }
    match Schedule::parse_cron(cron) {
        Ok(schedule) => {
            let slots = Slots::new(schedule, created, key, spread);
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

fn spread(spec: &HealthCheckSpec, problems: &mut Problems) -> Spread {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let delay = within(spec.initial_delay_sec, 0, MAX_SECONDS, "spec.initialDelaySec", problems);
    let jitter_below = within(spec.jitter_sec, 0, MAX_JITTER_SECONDS, "spec.jitterSec", problems);
    Spread { delay: delay.map_or(Duration::ZERO, seconds), jitter_below: jitter_below.map(seconds) }
}

fn level(level: Option<&str>, problems: &mut Problems) -> Option<Level> {
    match level.unwrap_or("") {
        "cluster" => Some(Level::Cluster),
        "" | "namespace" => Some(Level::Namespace),
        other => {
            problems.add("spec.level", format!("{} is neither cluster nor namespace", quoted(other)));
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
    let account = resource.service_account.clone().unwrap_or_default();
    problems.rule(format!("{base}.generateName"), &prefix, names::dns_prefix);
    problems.rule(format!("{base}.resource.namespace"), &resource.namespace, names::dns_label);
    problems.rule(format!("{base}.resource.serviceAccount"), &account, names::dns_subdomain);
    let timeout_seconds = seconds(spec.workflow_timeout, &format!("{base}.workflowtimeout"), problems);
    let source = source(&resource.source, &format!("{base}.resource.source"), problems);
    let rules = match spec.rbac_rules.as_deref() {
        Some(rules) if !rules.is_empty() => rules.into(),
        Some(_) | None => rbac::default_rules(kind),
    };
    if rules.len() > rbac::MAX_RULES {
        problems.add(format!("{base}.rbacRules"), format!("{} rules are above {}", rules.len(), rbac::MAX_RULES));
    } else if let Some(at) = rules.iter().position(|rule| !rbac::is_complete(rule)) {
        // The API server would refuse the role, and with it the rights of every check of the account.
        let wanted = "needs verbs, and apiGroups with resources, or nonResourceURLs alone";
        problems.add(format!("{base}.rbacRules[{at}]"), wanted);
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
    if let Some(path) = spec.file.as_ref().and_then(|file| file.path.as_deref()).filter(|path| !path.is_empty()) {
        let outside = path.starts_with('/') || path.split('/').any(|part| part == "..");
        if outside || path.len() > MAX_PATH_BYTES || path.contains(char::is_control) {
            let allowed = "must be relative to the agent's folder of sources, without .., at most 1024 bytes";
            problems.add(format!("{base}.file.path"), allowed);
            return None;
        }
        return Some(Source::File { path: path.to_owned() });
    }
    problems.add(base, "is empty: one of inline, url, file is needed");
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

/// A number of the fields that are ours.
fn within(value: Option<i64>, least: i64, most: i64, field: &str, problems: &mut Problems) -> Option<u32> {
    let n = value?;
    let found = u32::try_from(n).ok().filter(|_| (least..=most).contains(&n));
    if found.is_none() {
        problems.add(field, format!("{n} is not from {least} to {most}"));
    }
    found
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
    let without_effect = given.map(|(field, _)| Problem { field: field.into(), message: message.into() });
    without_effect.chain(hurried(spec)).collect()
}

/// Intervals that are taken and that few people mean.
fn hurried(spec: &HealthCheckSpec) -> Vec<Problem> {
    let Some(interval) = spec.repeat_after_sec.filter(|interval| *interval > 0) else { return Vec::new() };
    let mut problems = Problems::default();
    if interval < FREQUENT_SECONDS {
        let message =
            format!("a run every {interval} s is a load for the API server and Argo: {FREQUENT_SECONDS} is usual");
        problems.add("spec.repeatAfterSec", message);
    }
    if let Some(timeout) = spec.workflow.workflow_timeout.filter(|timeout| *timeout > interval) {
        let message = format!("{timeout} is above spec.repeatAfterSec, {interval}: no run begins while one goes on");
        problems.add("spec.workflow.workflowtimeout", message);
    }
    problems.0
}

/// A value of the user's in an error: bounded, and with its control characters escaped.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

#[cfg(test)]
mod tests;
