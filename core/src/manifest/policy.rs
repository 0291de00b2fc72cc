//! What the workflows of checks may ask for. Their texts are not the operator's: they come from whoever may write a
//! HealthCheck, or from a server. What reaches beyond the check's own account and pods is refused before anything is
//! created, unless the agent's flags allow it.
//!
//! Keys are compared as Go's JSON decoder does, which does not heed case: Argo reads parts of a workflow with it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{INSTANCE_ID, INSTANCE_ID_LABEL, Manifest};
use crate::check::{Check, Invalid, Job, Problem, Source};
use crate::run::RunKind;

/// Refusals that one text is told; the first ones are enough to mend it by.
const MAX_PROBLEMS: usize = 8;
/// Argo's own annotation on pods. A controller that reads a malformed one stops for good: CVE-2026-40886.
const POD_GC_ANNOTATION: &str = "workflows.argoproj.io/pod-gc-strategy";
/// Capabilities that the Pod Security Standard "baseline" lets a container add.
const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Something that a workflow gets only where the operator says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// `hostPath`, `hostNetwork`, `hostPID`, `hostIPC`, `hostPort`.
    Host,
    /// `privileged`, `allowPrivilegeEscalation`, `hostProcess`, `procMount`, capabilities beyond the baseline.
    Privileged,
    /// `podSpecPatch`: it is a text, applied after everything that is looked at here (CVE-2026-31892).
    PodSpecPatch,
    /// Pods of other accounts than the check's.
    ServiceAccount,
    /// `workflowTemplateRef`, `templateRef`: what they name is not looked at.
    TemplateRef,
    /// The instance id of another Argo controller.
    InstanceId,
}

impl Privilege {
    /// Every privilege, in the order of declaration.
    pub const ALL: [Privilege; 6] = [
        Privilege::Host,
        Privilege::Privileged,
        Privilege::PodSpecPatch,
        Privilege::ServiceAccount,
        Privilege::TemplateRef,
        Privilege::InstanceId,
    ];

    /// Its name as a value of the agent's flag `--workflow-allow`.
    pub fn as_str(self) -> &'static str {
        match self {
            Privilege::Host => "host",
            Privilege::Privileged => "privileged",
            Privilege::PodSpecPatch => "pod-spec-patch",
            Privilege::ServiceAccount => "service-account",
            Privilege::TemplateRef => "template-ref",
            Privilege::InstanceId => "instance-id",
        }
    }
}

/// What a cluster lets the sources of its checks be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePolicy {
    /// What workflows may ask for.
    pub allowed: BTreeSet<Privilege>,
    /// Whether there is a folder that texts may be read from.
    pub files: bool,
    /// Whether a URL may be fetched without looking at the server's certificate.
    pub unverified: bool,
}

impl Default for SourcePolicy {
    /// What the agent has without flags.
    fn default() -> SourcePolicy {
        SourcePolicy { allowed: BTreeSet::new(), files: false, unverified: true }
    }
}

impl SourcePolicy {
    /// Refuses a check for what can be known before it runs: sources that are not open, inline texts that ask too much.
    ///
    /// # Errors
    /// Every problem, by the field of the HealthCheck.
    pub fn admit(&self, check: Check) -> Result<Check, Invalid> {
        let remedy = check.remedy.as_ref().map(|remedy| &remedy.job);
        let problems: Vec<Problem> =
            [&check.workflow].into_iter().chain(remedy).flat_map(|job| self.job(job)).collect();
        if problems.is_empty() { Ok(check) } else { Err(Invalid { problems }) }
    }

    fn job(&self, job: &Job) -> Vec<Problem> {
        let base = match job.kind {
            RunKind::HealthCheck => "spec.workflow.resource.source",
            RunKind::Remedy => "spec.remedyworkflow.resource.source",
        };
        let one =
            |field: &str, message: &str| vec![Problem { field: format!("{base}.{field}"), message: message.into() }];
        match &job.source {
            Source::Inline(text) => {
                let Ok(manifest) = Manifest::parse(text) else { return Vec::new() };
                let refused = self.refusals(&manifest, job).into_iter();
                refused.map(|p| Problem { field: format!("{base}.inline"), message: p.to_string() }).collect()
            }
            Source::Url { verify_cert: false, .. } if !self.unverified => {
                one("url.verifyCert", "must not be false: the agent runs with --source-verify-always")
            }
            Source::File { .. } if !self.files => {
                one("file", "cannot be read: the agent runs without --source-dir; use inline or url, or set that flag")
            }
            Source::Url { .. } | Source::File { .. } => Vec::new(),
        }
    }

    /// What this workflow asks for and may not have, at most eight problems, by the path in its text.
    pub fn refusals(&self, manifest: &Manifest, job: &Job) -> Vec<Problem> {
        let mut walk = Walk { policy: self, job, problems: Vec::new() };
        walk.metadata(&manifest.metadata);
        for (key, value) in &manifest.spec {
            // This one the agent sets itself, to the check's account.
            if key != "serviceAccountName" {
                walk.entry("spec", key, value);
            }
        }
        walk.problems
    }
}

struct Walk<'a> {
    policy: &'a SourcePolicy,
    job: &'a Job,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn refuse(&mut self, field: &str, message: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { field: field.to_owned(), message });
        }
    }

    fn needs(&mut self, privilege: Privilege, field: &str, what: &str) {
        if !self.policy.allowed.contains(&privilege) {
            let flag = privilege.as_str();
            self.refuse(field, format!("{what}; only the agent's flag --workflow-allow={flag} lets it through"));
        }
    }

    fn metadata(&mut self, metadata: &Map<String, Value>) {
        for name in ["ownerReferences", "finalizers"] {
            if metadata.get(name).is_some_and(is_given) {
                self.refuse(&format!("metadata.{name}"), "are the agent's to set, not the source's".into());
            }
        }
        let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or("");
        if !namespace.is_empty() && namespace != self.job.namespace {
            let message =
                format!("{} is not the namespace of the workflow, {:?}", quoted(namespace), self.job.namespace);
            self.refuse("metadata.namespace", message);
        }
        let labels = metadata.get("labels").and_then(Value::as_object);
        if let Some(id) = labels.and_then(|labels| labels.get(INSTANCE_ID_LABEL)?.as_str())
            && id != INSTANCE_ID
        {
            let what = format!("{} is another Argo controller's, not {INSTANCE_ID:?}", quoted(id));
            self.needs(Privilege::InstanceId, &format!("metadata.labels[{INSTANCE_ID_LABEL}]"), &what);
        }
        if let Some(annotations) = metadata.get("annotations") {
            self.annotations("metadata.annotations", annotations);
        }
    }

    fn annotations(&mut self, path: &str, annotations: &Value) {
        if annotations.get(POD_GC_ANNOTATION).is_some() {
            let message = "is Argo's own, which a malformed one stops (CVE-2026-40886); use spec.podGC".to_owned();
            self.refuse(&format!("{path}[{POD_GC_ANNOTATION}]"), message);
        }
    }

    fn value(&mut self, path: &str, value: &Value) {
        if self.problems.len() == MAX_PROBLEMS {
            return;
        }
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| self.entry(path, key, value)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, item)| self.value(&format!("{path}[{i}]"), item));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn entry(&mut self, path: &str, key: &str, value: &Value) {
        if !is_given(value) {
            return;
        }
        let path = format!("{path}.{}", shown(key));
        match folded(key).as_str() {
            "hostpath" | "hostnetwork" | "hostpid" | "hostipc" | "hostport" => {
                self.needs(Privilege::Host, &path, "reaches the node itself");
            }
            "privileged" | "allowprivilegeescalation" | "hostprocess" => {
                self.needs(Privilege::Privileged, &path, "gives the pod more than an ordinary one has");
            }
            "procmount" if value != "Default" => {
                self.needs(Privilege::Privileged, &path, "must be Default");
            }
            "capabilities" => self.capabilities(&path, value),
            "podspecpatch" => {
                self.needs(Privilege::PodSpecPatch, &path, "changes pods after all that is looked at here");
            }
            "serviceaccountname" if value != self.job.account.as_str() => {
                let what = format!("{} is not the check's account, {:?}", said(value), self.job.account);
                self.needs(Privilege::ServiceAccount, &path, &what);
            }
            "templateref" | "workflowtemplateref" => {
                self.needs(Privilege::TemplateRef, &path, "names a template that is not looked at before it runs");
            }
            "annotations" => self.annotations(&path, value),
            // Texts by keys of the author's own choice, and data.
            "labels" | "matchlabels" | "nodeselector" | "withitems" => {}
            _ => self.value(&path, value),
        }
    }

    fn capabilities(&mut self, path: &str, capabilities: &Value) {
        let Value::Object(capabilities) = capabilities else { return };
        for (_, added) in capabilities.iter().filter(|(key, _)| folded(key) == "add") {
            let beyond = |name: &&Value| !BASELINE_CAPABILITIES.iter().any(|known| *name == known);
            if let Some(name) = added.as_array().into_iter().flatten().find(beyond) {
                let what = format!("{} is more than an ordinary pod may add", said(name));
                self.needs(Privilege::Privileged, &format!("{path}.add"), &what);
            }
        }
    }
}

/// Whether a value says anything: `false`, 0 and what is empty do not.
fn is_given(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go's decoder compares keys: case does not count, and neither do the two letters beyond ASCII that fold into it.
fn folded(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// A key in a path; a hostile one is cut.
fn shown(key: &str) -> String {
    key.chars().take(64).collect()
}

fn said(value: &Value) -> String {
    value.as_str().map_or_else(|| "the value".to_owned(), quoted)
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

#[cfg(test)]
mod tests;
