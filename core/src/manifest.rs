//! The text of a workflow, and the Workflow object that is made of it for one run.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::check::{Check, Job};
use crate::run::{RunKey, RunKind};

pub mod policy;

/// The largest text that is read, in bytes.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Label that Argo's controllers choose their workflows by.
pub const INSTANCE_ID_LABEL: &str = "workflows.argoproj.io/controller-instanceid";
/// The instance id that active-monitor's users run Argo with.
pub const INSTANCE_ID: &str = "activemonitor-workflows";
/// Label with the `metadata.uid` of the HealthCheck: what the agent watches, and adopts by.
pub const CHECK_UID_LABEL: &str = "activemonitor.keikoproj.io/check-uid";
/// Label with the run's kind: `healthCheck` or `remedy`.
pub const KIND_LABEL: &str = "activemonitor.keikoproj.io/kind";
/// Label with the run's slot, as `20260131T235959Z`.
pub const SLOT_LABEL: &str = "activemonitor.keikoproj.io/slot";
/// Annotation with the `namespace/name` of the HealthCheck.
pub const CHECK_ANNOTATION: &str = "activemonitor.keikoproj.io/check";
/// Annotation that says what was not as it should be when the workflow was made; the run's record carries it.
pub const WARNING_ANNOTATION: &str = "activemonitor.keikoproj.io/warning";

/// Seconds that a finished workflow stays where its source does not say: long enough for an agent that was away to
/// adopt its result, short enough that finished ones do not pile up.
const KEEP_FINISHED_SECONDS: u64 = 600;
/// The least that a source's own time is taken for, the old `ttlSecondsAfterFinished` included, which Argo 3.7 no longer
/// knows: a result that expires before it is seen would be a run that vanished.
const LEAST_KEEP_FINISHED_SECONDS: u64 = 300;
/// How long a completed pod stays, so that its log can still be read.
const POD_GC_DELAY: &str = "60s";
/// The longest name of a workflow: it is used in labels, which end there.
const MAX_NAME: usize = 63;

const MAX_DEPTH: usize = 64;
/// Aliases count as what they stand for.
const MAX_NODES: usize = 100_000;
/// The same for the bytes of texts: the API server takes no more in one request.
const MAX_TEXT_BYTES: usize = 3 << 20;

/// Why a text is no workflow that can be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Above [`MAX_SOURCE_BYTES`].
    #[error("{bytes} bytes are above {MAX_SOURCE_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No single YAML document within the parser's limits (depth 64, 100,000 nodes, 3 MiB of texts, aliases unfolded).
    #[error("not one YAML document within its limits: {message}")]
    Yaml {
        /// The parser's words and place, on one line.
        message: String,
    },
    /// Another type than is needed.
    #[error("{field} must be {expected}")]
    Shape {
        /// Path in the document; `document` for the whole.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// The text of a workflow, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    metadata: Map<String, Value>,
    spec: Map<String, Value>,
}

impl Manifest {
    /// Reads one YAML or JSON document.
    ///
    /// # Errors
    /// When it is too large, no single document, or no Workflow with a spec.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        if text.len() > MAX_SOURCE_BYTES {
            return Err(ManifestError::TooLarge { bytes: text.len() });
        }
        let Value::Object(mut document) = parse_yaml(text)? else {
            return Err(ManifestError::Shape { field: "document", expected: "a mapping: a Workflow" });
        };
        let is = |field: &str, value: &str| document.get(field).and_then(Value::as_str) == Some(value);
        if !is("apiVersion", "argoproj.io/v1alpha1") {
            return Err(ManifestError::Shape { field: "apiVersion", expected: "argoproj.io/v1alpha1" });
        }
        if !is("kind", "Workflow") {
            return Err(ManifestError::Shape { field: "kind", expected: "Workflow" });
        }
        let Some(Value::Object(spec)) = document.remove("spec") else {
            return Err(ManifestError::Shape { field: "spec", expected: "a mapping" });
        };
        let metadata = match document.remove("metadata") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(_) => return Err(ManifestError::Shape { field: "metadata", expected: "a mapping" }),
        };
        string_map(&metadata, "labels", "metadata.labels")?;
        string_map(&metadata, "annotations", "metadata.annotations")?;
        Ok(Manifest { metadata, spec })
    }

    /// `spec.activeDeadlineSeconds`, where the text gives one.
    pub fn deadline_seconds(&self) -> Option<u32> {
        let seconds = self.spec.get("activeDeadlineSeconds")?;
        let seconds = seconds.as_u64().or_else(|| seconds.as_str()?.parse().ok())?;
        u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
    }

    /// Seconds that a run may take: the HealthCheck's timeout, or the source's own deadline where that is longer.
    pub fn timeout_seconds(&self, check: &Check, kind: RunKind, slot: Timestamp) -> u32 {
        check.timeout_seconds(kind, slot).max(self.deadline_seconds().unwrap_or(0))
    }

    /// The Workflow for this run, as JSON.
    pub fn workflow(&self, check: &Check, job: &Job, key: &RunKey) -> Value {
        json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": self.run_metadata(check, job, key),
            "spec": self.run_spec(job, self.timeout_seconds(check, job.kind, key.slot)),
        })
    }

    fn run_metadata(&self, check: &Check, job: &Job, key: &RunKey) -> Value {
        let mut labels = object(&self.metadata, "labels");
        labels.entry(INSTANCE_ID_LABEL).or_insert_with(|| INSTANCE_ID.into());
        labels.insert(CHECK_UID_LABEL.into(), key.check_uid.clone().into());
        labels.insert(KIND_LABEL.into(), key.kind.as_str().into());
        labels.insert(SLOT_LABEL.into(), slot_label(key.slot).into());
        let mut annotations = object(&self.metadata, "annotations");
        annotations.insert(CHECK_ANNOTATION.into(), check.key().into());
        let mut metadata = json!({
            "name": workflow_name(&job.prefix, key),
            "namespace": job.namespace,
            "labels": labels,
            "annotations": annotations,
        });
        // An owner in another namespace would be taken for an orphan's and the workflow deleted.
        if check.namespace == job.namespace {
            metadata["ownerReferences"] = json!([{
                "apiVersion": "activemonitor.keikoproj.io/v1alpha1",
                "kind": "HealthCheck",
                "name": check.name,
                "uid": check.uid,
                "controller": true,
                "blockOwnerDeletion": false,
            }]);
        }
        metadata
    }

    fn run_spec(&self, job: &Job, timeout_seconds: u32) -> Value {
        let mut spec = self.spec.clone();
        spec.insert("serviceAccountName".into(), job.account.clone().into());
        if self.deadline_seconds().is_none() {
            spec.insert("activeDeadlineSeconds".into(), timeout_seconds.into());
        }
        let old_ttl = spec.remove("ttlSecondsAfterFinished").and_then(|ttl| ttl.as_u64());
        let keep = old_ttl.unwrap_or(KEEP_FINISHED_SECONDS);
        let mut ttl = object(&spec, "ttlStrategy");
        if ttl.is_empty() {
            ttl.insert("secondsAfterCompletion".into(), keep.into());
        }
        for seconds in ttl.values_mut() {
            *seconds = seconds.as_u64().unwrap_or(0).max(LEAST_KEEP_FINISHED_SECONDS).into();
        }
        spec.insert("ttlStrategy".into(), ttl.into());
        let mut pod_gc = object(&spec, "podGC");
        pod_gc.entry("strategy").or_insert_with(|| "OnPodCompletion".into());
        pod_gc.entry("deleteDelayDuration").or_insert_with(|| POD_GC_DELAY.into());
        spec.insert("podGC".into(), pod_gc.into());
        Value::Object(spec)
    }
}

/// The name of a run's Workflow: the prefix, cut where needed, and 12 hex digits of SHA-256 over the run's key. The
/// formula is frozen: a repeated create must collide with the first one.
pub fn workflow_name(prefix: &str, key: &RunKey) -> String {
    let identity = format!("{}\n{}\n{}", key.check_uid, key.kind, key.slot.as_second());
    let hash = hex::encode(Sha256::digest(identity));
    let hash = &hash[..12];
    let cut = prefix.len().min(MAX_NAME - hash.len());
    let prefix = prefix[..cut].trim_end_matches('.');
    format!("{prefix}{hash}")
}

/// A slot as a label's value: `20260131T235959Z`.
pub fn slot_label(slot: Timestamp) -> String {
    slot.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The inverse of [`slot_label`].
pub fn parse_slot_label(text: &str) -> Option<Timestamp> {
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn parse_yaml(text: &str) -> Result<Value, ManifestError> {
    let limits = serde_saphyr::budget!(
        max_depth: MAX_DEPTH,
        max_nodes: MAX_NODES,
        max_total_scalar_bytes: MAX_TEXT_BYTES,
        max_documents: 1,
    );
    let aliases = serde_saphyr::alias_limits!(max_total_replayed_events: MAX_NODES);
    let options = serde_saphyr::options!(budget: limits, alias_limits: aliases, with_snippet: false);
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let message: String = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        ManifestError::Yaml { message: crate::run::clean_message(&message) }
    })
}

fn string_map(of: &Map<String, Value>, name: &str, field: &'static str) -> Result<(), ManifestError> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(map)) if map.values().all(Value::is_string) => Ok(()),
        Some(_) => Err(ManifestError::Shape { field, expected: "a mapping of texts to texts" }),
    }
}

fn object(of: &Map<String, Value>, name: &str) -> Map<String, Value> {
    of.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(second: i64) -> RunKey {
        let slot = Timestamp::from_second(second).unwrap();
        RunKey { check_uid: "0b1c".into(), kind: RunKind::HealthCheck, slot }
    }

    #[test]
    fn names_are_frozen_unique_and_short_enough() {
        assert_eq!(workflow_name("dns-", &key(1_800_000_000)), "dns-8f5d0c0a3c2e".replace("8f5d0c0a3c2e", &hash()));
        assert_ne!(workflow_name("dns-", &key(0)), workflow_name("dns-", &key(60)));
        let long = workflow_name(&"a.".repeat(120), &key(0));
        assert!(long.len() <= 63 && !long.contains(".."), "{long}");
    }

    /// The first 12 hex digits of `printf '0b1c\nhealthCheck\n1800000000' | sha256sum`.
    fn hash() -> String {
        hex::encode(Sha256::digest("0b1c\nhealthCheck\n1800000000"))[..12].to_owned()
    }

    #[test]
    fn slots_round_trip_through_their_label() {
        let slot = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(parse_slot_label(&slot_label(slot)), Some(slot));
        assert_eq!(parse_slot_label("x"), None);
    }

    #[test]
    fn what_is_no_workflow_is_refused_with_the_field() {
        for (text, says) in [
            ("", "document must be"),
            ("#", "document must be"),
            ("just text", "document must be"),
            ("- a\n- b", "document must be"),
            ("kind: Workflow", "apiVersion must be"),
            ("apiVersion: argoproj.io/v1alpha1\nkind: Pod", "kind must be"),
            ("apiVersion: argoproj.io/v1alpha1\nkind: Workflow", "spec must be"),
            (
                "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}\nmetadata: {labels: {a: 1}}",
                "metadata.labels",
            ),
            ("a: [", "not one YAML document"),
            ("a: 1\n---\nb: 2", "not one YAML document"),
        ] {
            let error = Manifest::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_budget() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let refs = vec![format!("*a{}", level - 1); 9].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        assert!(matches!(Manifest::parse(&bomb), Err(ManifestError::Yaml { .. })));
        let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
        assert!(matches!(Manifest::parse(&deep), Err(ManifestError::Yaml { .. })));
        let large = "#".repeat(MAX_SOURCE_BYTES + 1);
        assert!(matches!(Manifest::parse(&large), Err(ManifestError::TooLarge { .. })));
    }

    /// How many aliases of this anchored value a workflow may have, and the error that one more gets.
    fn most_aliases(anchored: &str) -> (usize, String) {
        let head = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n";
        let text = |aliases: usize| format!("{head}  a: &a {anchored}\n  b: [{}]\n", vec!["*a"; aliases].join(","));
        let refused = (1..).find_map(|aliases| Some((aliases, Manifest::parse(&text(aliases)).err()?)));
        let (aliases, error) = refused.unwrap();
        (aliases - 1, error.to_string())
    }

    /// What a text takes is bounded by how much it becomes, however short it is.
    #[test]
    fn aliases_count_as_what_they_stand_for() {
        let nodes = 2_000;
        let (most, error) = most_aliases(&format!("[{}]", vec!["x"; nodes].join(",")));
        let become_nodes = (most + 1) * (nodes + 1);
        assert!((MAX_NODES - 2 * nodes..=MAX_NODES).contains(&become_nodes), "{become_nodes} nodes: {error}");
        assert!(error.contains("not one YAML document within its limits"), "{error}");

        let bytes = 300_000;
        let (most, error) = most_aliases(&"x".repeat(bytes));
        let become_bytes = (most + 1) * bytes;
        assert!((MAX_TEXT_BYTES - 2 * bytes..=MAX_TEXT_BYTES).contains(&become_bytes), "{become_bytes} bytes: {error}");
        assert!(error.contains("not one YAML document within its limits"), "{error}");
    }
}
