//! What the facts of a cluster mean for a switch. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use active_monitor_core::check::{Check, Job, Source};
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::manifest::{INSTANCE_ID, INSTANCE_ID_LABEL, Manifest};
use active_monitor_core::ownership;
use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::status;
use jiff::Timestamp;
use kube_core::CustomResourceExt;
use serde::Serialize;
use serde_json::Value;

use super::Finding;
use super::facts::{Ceilings, Facts, Program};

/// Findings of one kind that are listed one by one; the rest is counted.
const MAX_LISTED: usize = 20;
/// The oldest minor releases of Kubernetes 1 and of Argo Workflows 3 that are not warned of.
const KUBERNETES_MINOR: u32 = 30;
const ARGO_MINOR: u32 = 4;
/// A lease or a status written so lately means that its writer is there. Seconds.
const LATELY: i64 = 60;

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works otherwise than before.
    Warn,
    /// It does not work before this is mended.
    Bad,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Warn => "warn",
            Verdict::Bad => "bad",
        }
    }
}

/// What a switch would set loose.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Numbers {
    pub(super) checks: usize,
    /// They have no schedule.
    pub(super) stopped: usize,
    /// They cannot be run.
    pub(super) invalid: usize,
    /// Their slot has passed: they start at once.
    pub(super) due_at_once: usize,
    /// They carry a remedy that may run when they fail.
    pub(super) with_remedy: usize,
    /// Their last run failed lately and no remedy has answered: it starts at once.
    pub(super) remedies_at_once: usize,
    pub(super) runs_per_minute: f64,
    /// At least: templates with a container, once each.
    pub(super) pods_per_minute: f64,
}

pub(super) fn judge(now: Timestamp, facts: &Facts) -> (Numbers, Vec<Finding>) {
    let mut findings = Findings::default();
    findings.kubernetes(&facts.kubernetes);
    findings.crd(facts.crd.as_ref());
    findings.argo(facts);
    findings.old_controller(now, facts);
    let mut numbers = Numbers { checks: facts.checks.len(), ..Numbers::default() };
    let checks = findings.checks(now, facts, &mut numbers);
    findings.instance_ids(facts, &checks);
    findings.rights(facts, &checks);
    findings.load(&numbers);
    findings.remedies(&numbers);
    (numbers, findings.0)
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, verdict: Verdict, what: &str, message: impl Into<String>) {
        self.0.push(Finding { verdict, what: what.to_owned(), message: message.into() });
    }

    /// Lists some, and counts the others.
    fn list(&mut self, verdict: Verdict, what: &str, many: Vec<(String, String)>) {
        let more = many.len().saturating_sub(MAX_LISTED);
        many.into_iter()
            .take(MAX_LISTED)
            .for_each(|(key, message)| self.add(verdict, &format!("{what} {key}"), message));
        if more > 0 {
            self.add(verdict, what, format!("and {more} more"));
        }
    }

    fn kubernetes(&mut self, version: &str) {
        match minor(version, "v1.") {
            Some(minor) if minor >= KUBERNETES_MINOR => self.add(Verdict::Ok, "kubernetes", version),
            Some(_) | None => {
                let message = format!("{version} is older than v1.{KUBERNETES_MINOR}, the oldest that is looked after");
                self.add(Verdict::Warn, "kubernetes", message);
            }
        }
    }

    fn crd(&mut self, crd: Option<&Option<Value>>) {
        let Some(crd) = crd else { return self.add(Verdict::Note, "crd", "may not be read by you: not looked at") };
        let Some(crd) = crd else {
            return self.add(Verdict::Note, "crd", "not installed: kubectl apply --server-side -f deploy/crds");
        };
        let ours = serde_json::to_value(HealthCheck::crd()).unwrap_or_default();
        let pruned = pruned(schema(crd), schema(&ours));
        if pruned.is_empty() {
            return self.add(Verdict::Ok, "crd", "keeps every field");
        }
        let message = format!(
            "installed, and keeps all that active-monitor needs; it drops {}. To keep them: kubectl apply --server-side \
             --force-conflicts -f deploy/crds",
            pruned.join(", ")
        );
        self.add(Verdict::Note, "crd", message);
    }

    fn argo(&mut self, facts: &Facts) {
        match facts.has_workflows {
            Some(false) => self.add(Verdict::Bad, "argo", "Argo Workflows is not installed: nothing can run"),
            None => self.add(Verdict::Note, "argo", "its CRD may not be read by you: not looked at"),
            Some(true) => {}
        }
        let Some(deployments) = &facts.deployments else {
            return self.add(Verdict::Note, "argo", "deployments may not be listed by you: versions not looked at");
        };
        let controllers = || deployments.iter().filter(|program| program.image.contains("workflow-controller"));
        if facts.has_workflows == Some(true) && controllers().next().is_none() {
            self.add(Verdict::Note, "argo", "no deployment of its workflow controller is seen; it may run elsewhere");
        }
        for Program { name, image, replicas } in controllers() {
            let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
            let is_old = minor(tag, "v3.").is_none_or(|minor| minor < ARGO_MINOR);
            let (verdict, more) = match (*replicas, is_old) {
                (0, _) => (Verdict::Bad, ": it has no replica, so no workflow ends"),
                (_, true) => (Verdict::Warn, ": tested are releases from v3.4 on"),
                (_, false) => (Verdict::Ok, ""),
            };
            self.add(verdict, "argo", format!("{name} runs {image}{more}"));
        }
    }

    fn old_controller(&mut self, now: Timestamp, facts: &Facts) {
        let before = self.0.len();
        let old = facts.deployments.iter().flatten().filter(|program| {
            let image = &program.image;
            image.contains("active-monitor") && !["-agent", "-hub"].iter().any(|ours| image.contains(ours))
        });
        for Program { name, image, replicas } in old {
            let (namespace, deployment) = name.split_once('/').unwrap_or_default();
            match replicas {
                0 => self.add(Verdict::Ok, "active-monitor", format!("{name} ({image}) is scaled to 0")),
                _ => {
                    let message = format!(
                        "{name} ({image}) runs: before the agent acts, kubectl -n {namespace} scale deployment {deployment} \
                         --replicas=0"
                    );
                    self.add(Verdict::Warn, "active-monitor", message);
                }
            }
        }
        if let Some(renewed) = facts.lease_renewed.filter(|renewed| now.as_second() - renewed < LATELY) {
            let age = now.as_second() - renewed;
            self.add(Verdict::Warn, "active-monitor", format!("its lease was renewed {age} s ago: it is alive"));
        }
        if let Some((manager, at)) = last_writer(facts) {
            let age = now.as_second() - at.as_second();
            let verdict = if age < LATELY { Verdict::Warn } else { Verdict::Note };
            let message =
                format!("{manager} wrote the newest status, {age} s ago; the agent stops where it goes on writing");
            self.add(verdict, "active-monitor", message);
        }
        if self.0.len() == before {
            self.add(Verdict::Ok, "active-monitor", "not seen");
        }
    }

    /// Says what is wrong with checks, and gives those that can be run.
    fn checks(&mut self, now: Timestamp, facts: &Facts, numbers: &mut Numbers) -> Vec<Check> {
        let (mut valid, mut invalid) = (Vec::new(), Vec::new());
        for found in &facts.checks {
            let resource = match found {
                Ok(resource) => resource,
                Err((key, error)) => {
                    invalid.push((key.clone(), error.clone()));
                    continue;
                }
            };
            match Check::parse(resource) {
                Ok(check) => {
                    numbers.count(now, &check, &resource.status.clone().unwrap_or_default());
                    valid.push(check);
                }
                Err(problems) => {
                    let part = |part: &Option<String>| part.clone().unwrap_or_default();
                    let key = format!("{}/{}", part(&resource.metadata.namespace), part(&resource.metadata.name));
                    invalid.push((key, problems.to_string()));
                }
            }
        }
        numbers.invalid = invalid.len();
        let Numbers { checks, stopped, .. } = numbers;
        let text =
            format!("{checks} in all, {stopped} of them without a schedule, {} that cannot be run", invalid.len());
        self.add(if invalid.is_empty() { Verdict::Ok } else { Verdict::Warn }, "checks", text);
        self.list(Verdict::Warn, "check", invalid);
        valid
    }

    fn instance_ids(&mut self, facts: &Facts, checks: &[Check]) {
        let Some(served) = &facts.instance_ids else {
            return self.add(
                Verdict::Note,
                "argo",
                "its configuration may not be read by you: instance ids not compared",
            );
        };
        let mut asked: BTreeSet<String> =
            checks.iter().flat_map(jobs).filter_map(|(check, job)| instance_id(check, job)).collect();
        if asked.is_empty() {
            asked.insert(INSTANCE_ID.to_owned());
        }
        for id in asked {
            if served.contains(&id) {
                self.add(Verdict::Ok, "argo", format!("instance id {id} is served"));
            } else {
                let served: Vec<String> = served.iter().map(|id| format!("{id:?}")).collect();
                let message = format!(
                    "nobody serves instance id {id}, so its workflows would not run; Argo's configuration has {}",
                    if served.is_empty() { "none".to_owned() } else { served.join(", ") }
                );
                self.add(Verdict::Bad, "argo", message);
            }
        }
    }

    fn rights(&mut self, facts: &Facts, checks: &[Check]) {
        let ceilings = facts.ceilings.clone().unwrap_or_else(Ceilings::from_the_start);
        let mut beyond = Vec::new();
        for (check, job) in checks.iter().flat_map(jobs) {
            let rules = ceilings.beyond(check, job);
            if !rules.is_empty() {
                let kind = if job.kind == RunKind::Remedy { "remedy" } else { "check" };
                let message = format!(
                    "its {kind} in {} needs more than the agent may hand out: {}",
                    job.namespace,
                    rules.join(", ")
                );
                beyond.push((check.key(), message));
            }
        }
        let whose =
            if facts.ceilings.is_some() { "the installed ceilings" } else { "the ceilings of a new installation" };
        if beyond.is_empty() {
            return self.add(Verdict::Ok, "rights", format!("{whose} cover every check"));
        }
        let message = format!("{} of the checks' jobs ask for more than {whose} hold; see docs/agent.md", beyond.len());
        self.add(Verdict::Warn, "rights", message);
        self.list(Verdict::Warn, "rights", beyond);
    }

    fn load(&mut self, numbers: &Numbers) {
        let Numbers { due_at_once, runs_per_minute, pods_per_minute, .. } = numbers;
        let message = format!(
            "{runs_per_minute:.1} runs and at least {pods_per_minute:.1} pods a minute at the checks' schedules; \
             {due_at_once} runs start at once"
        );
        self.add(Verdict::Note, "load", message);
    }

    fn remedies(&mut self, numbers: &Numbers) {
        let Numbers { with_remedy, remedies_at_once, .. } = numbers;
        if *with_remedy == 0 {
            return self.add(Verdict::Ok, "remedies", "no check has one");
        }
        let message = format!(
            "{with_remedy} checks have one, and every failure will start it within its limit, {remedies_at_once} of them \
             at once; --remedies=observe says what would run and starts none"
        );
        self.add(Verdict::Warn, "remedies", message);
    }
}

impl Numbers {
    fn count(&mut self, now: Timestamp, check: &Check, status: &HealthCheckStatus) {
        let Some(slots) = check.slots() else {
            self.stopped += 1;
            return;
        };
        let gap = slots.gap(now).as_secs_f64().max(1.0);
        self.runs_per_minute += 60.0 / gap;
        self.pods_per_minute += 60.0 / gap * pods(check, &check.workflow) as f64;
        self.due_at_once += usize::from(slots.due(now, status::consumed(status)).is_some());
        if check.remedy.is_some() {
            self.with_remedy += 1;
            let fresh = slots.gap(now).max(Duration::from_secs(60));
            self.remedies_at_once +=
                usize::from(status::unanswered_failure(status, check.thresholds.failure, now, fresh).is_some());
        }
    }
}

fn jobs(check: &Check) -> impl Iterator<Item = (&Check, &Job)> {
    [RunKind::HealthCheck, RunKind::Remedy].into_iter().filter_map(move |kind| Some((check, check.job(kind)?)))
}

/// The Workflow of a run; `None` where its text is fetched.
fn workflow(check: &Check, job: &Job) -> Option<Value> {
    let Source::Inline(text) = &job.source else { return None };
    let key = RunKey { check_uid: check.uid.clone(), kind: job.kind, slot: check.created };
    Some(Manifest::parse(text).ok()?.workflow(check, job, &key))
}

fn instance_id(check: &Check, job: &Job) -> Option<String> {
    Some(workflow(check, job)?["metadata"]["labels"][INSTANCE_ID_LABEL].as_str()?.to_owned())
}

/// Templates with a container; one where the text is not at hand.
fn pods(check: &Check, job: &Job) -> usize {
    let Some(workflow) = workflow(check, job) else { return 1 };
    let templates = workflow["spec"]["templates"].as_array().cloned().unwrap_or_default();
    templates.iter().filter(|t| ["container", "script", "containerSet"].iter().any(|kind| t[kind].is_object())).count()
}

/// The controller that wrote the newest status, and when; agents do not count.
fn last_writer(facts: &Facts) -> Option<(String, Timestamp)> {
    let checks = facts.checks.iter().filter_map(|check| check.as_ref().ok());
    let writers = checks.flat_map(|check| {
        let mut metadata = check.metadata.clone();
        ownership::keep_writers(&mut metadata);
        metadata.managed_fields.unwrap_or_default()
    });
    let writers = writers.filter_map(|entry| Some((entry.manager?, entry.time?.0)));
    writers.filter(|(manager, _)| ownership::is_controller(manager)).max_by_key(|(_, at)| *at)
}

fn schema(crd: &Value) -> &Value {
    let versions = crd["spec"]["versions"].as_array();
    let version = versions.into_iter().flatten().find(|version| version["name"] == "v1alpha1");
    version.map_or(&Value::Null, |version| &version["schema"]["openAPIV3Schema"])
}

/// The fields of ours that the installed schema lacks: the topmost of each.
fn pruned(installed: &Value, ours: &Value) -> Vec<String> {
    fn walk(path: &str, installed: &Value, ours: &Value, lacking: &mut Vec<String>) {
        for (name, field) in ours["properties"].as_object().into_iter().flatten() {
            let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match installed["properties"].get(name) {
                Some(known) => walk(&here, known, field, lacking),
                None if installed["x-kubernetes-preserve-unknown-fields"] == true => {}
                None => lacking.push(here),
            }
        }
    }
    let mut lacking = Vec::new();
    for part in ["spec", "status"] {
        walk(part, &installed["properties"][part], &ours["properties"][part], &mut lacking);
    }
    lacking
}

/// The minor release of `v1.36.3` after `v1.`.
fn minor(version: &str, major: &str) -> Option<u32> {
    let rest = version.strip_prefix(major)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests;
