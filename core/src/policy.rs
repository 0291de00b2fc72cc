//! What a cluster lets the hub push to it: decided by the agent's own configuration, which the hub cannot change.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::check::{Check, Job};
use crate::healthcheck::HealthCheck;
use crate::report::DEFINITION_LABEL;

/// The cluster's own limits on pushed definitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Namespaces that pushed HealthChecks and their workflows may be in. Empty: nothing may be pushed.
    pub namespaces: BTreeSet<String>,
    /// Whether they may carry a remedy.
    pub remedies: bool,
}

impl Policy {
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
        self.namespace("metadata.namespace", resource.metadata.namespace.as_deref().unwrap_or(""))?;
        let check = Check::parse(&resource).map_err(|invalid| invalid.to_string())?;
        self.job("spec.workflow", &check.workflow)?;
        if !self.remedies {
            only_reads(&check.workflow)?;
        }
        if let Some(remedy) = &check.remedy {
            if !self.remedies {
                return Err("spec.remedyworkflow: this cluster takes no remedies from the hub".into());
            }
            self.job("spec.remedyworkflow", &remedy.job)?;
        }
        // Finalizers, owners and whatever else metadata can do is not the hub's to say.
        let ObjectMeta { name, namespace, labels, annotations, .. } = resource.metadata;
        resource.metadata = ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() };
        Ok(resource)
    }

    fn job(&self, field: &str, job: &Job) -> Result<(), String> {
        self.namespace(&format!("{field}.resource.namespace"), &job.namespace)
    }

    fn namespace(&self, field: &str, namespace: &str) -> Result<(), String> {
        if self.namespaces.contains(namespace) {
            return Ok(());
        }
        let allowed: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        Err(format!("{field}: {namespace:?} is not open to the hub in this cluster; open are: {allowed}"))
    }
}

/// Without remedies, a pushed check may look and not touch.
fn only_reads(job: &Job) -> Result<(), String> {
    let mut verbs = job.rules.iter().flat_map(|rule| &rule.verbs);
    match verbs.find(|verb| !["get", "list", "watch"].contains(&verb.as_str())) {
        None => Ok(()),
        Some(verb) => Err(format!(
            "spec.workflow.rbacRules: {verb:?} is not open to the hub in this cluster; open are: get, list, watch"
        )),
    }
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
mod tests {
    use serde_json::json;

    use super::*;

    fn pushed(namespace: &str, runs_in: &str, remedy: bool) -> String {
        let source = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}";
        let job = json!({"resource": {"namespace": runs_in, "serviceAccount": "sa", "source": {"inline": source}}});
        let mut spec = json!({"repeatAfterSec": 60, "workflow": job});
        if remedy {
            spec["remedyworkflow"] = job;
        }
        let metadata: Value = json!({"name": "dns", "namespace": namespace, "labels": {DEFINITION_LABEL: "dns"}});
        json!({"apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck", "metadata": metadata,
            "spec": spec})
        .to_string()
    }

    #[test]
    fn only_what_the_cluster_opened_is_admitted() {
        let policy = Policy { namespaces: ["health".to_owned()].into(), remedies: false };
        assert!(policy.admit("dns", &pushed("health", "health", false)).is_ok());
        for (definition, text, says) in [
            ("dns", pushed("kube-system", "health", false), "metadata.namespace"),
            ("dns", pushed("health", "kube-system", false), "spec.workflow.resource.namespace"),
            ("dns", pushed("health", "health", true), "takes no remedies"),
            ("other", pushed("health", "health", false), "its label"),
            ("dns", "{}".to_owned(), "no HealthCheck"),
            ("dns", pushed("health", "health", false).replace("repeatAfterSec", "repeatEvery"), "spec.repeatEvery"),
        ] {
            let error = policy.admit(definition, &text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let closed = Policy::default();
        assert!(closed.admit("dns", &pushed("health", "health", false)).unwrap_err().contains("open are: none"));
    }
}
