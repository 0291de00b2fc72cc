//! What must hold of a definition before the hub keeps it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_json::Value;

use super::{API_VERSION, FleetHealthCheck, HealthCheckTemplate, KIND, MAX_BYTES, placeholder};
use crate::names::{self, DEFINITION_LABEL};

/// Something wrong in a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Problem {
    /// Path of the field, such as `spec.template.metadata.name`.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Everything that is wrong with a definition, whatever the cluster.
pub fn validate(definition: &FleetHealthCheck) -> Result<(), Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    let FleetHealthCheck { api_version, kind, metadata, spec } = definition;
    problems.unless(api_version == API_VERSION, "apiVersion", || format!("must be {API_VERSION}"));
    problems.unless(kind == KIND, "kind", || format!("must be {KIND}"));
    problems.rule("metadata.name", names::dns_label(&metadata.name));
    problems.keys("metadata.labels", &metadata.labels);
    for (key, value) in &metadata.labels {
        problems.rule(&format!("metadata.labels[{key}]"), names::label_value(value));
    }
    problems.keys("metadata.annotations", &metadata.annotations);
    problems.selector(&spec.cluster_selector);
    problems.template(&spec.template);
    let bytes = serde_json::to_string(definition).map_or(usize::MAX, |json| json.len());
    problems.unless(bytes <= MAX_BYTES, "", || format!("the definition has {bytes} bytes, {MAX_BYTES} are allowed"));
    if problems.0.is_empty() { Ok(()) } else { Err(problems.0) }
}

/// Whether Kubernetes would take these as the labels of an object.
pub fn labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    problems.keys(field, labels);
    for (key, value) in labels {
        problems.rule(&format!("{field}[{key}]"), names::label_value(value));
    }
    if problems.0.is_empty() { Ok(()) } else { Err(problems.0) }
}

/// Whether Kubernetes would take these as the annotations of an object.
pub fn annotations(field: &str, annotations: &BTreeMap<String, String>) -> Result<(), Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    problems.keys(field, annotations);
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    let limit = names::MAX_ANNOTATIONS_BYTES;
    problems.unless(bytes <= limit, field, || format!("have {bytes} bytes together, {limit} are allowed"));
    if problems.0.is_empty() { Ok(()) } else { Err(problems.0) }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn unless(&mut self, holds: bool, field: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Problem { field: field.to_owned(), message: message() });
        }
    }

    fn rule(&mut self, field: &str, result: Result<(), names::Rule>) {
        if let Err(rule) = result {
            self.0.push(Problem { field: field.to_owned(), message: rule.to_owned() });
        }
    }

    fn keys(&mut self, field: &str, map: &BTreeMap<String, String>) {
        for key in map.keys() {
            self.rule(&format!("{field}[{key}]"), names::label_key(key));
        }
    }

    fn selector(&mut self, selector: &LabelSelector) {
        let LabelSelector { match_labels, match_expressions } = selector;
        for (key, value) in match_labels.iter().flatten() {
            let field = format!("spec.clusterSelector.matchLabels[{key}]");
            self.rule(&field, names::label_key(key));
            self.rule(&field, names::label_value(value));
        }
        for (index, requirement) in match_expressions.iter().flatten().enumerate() {
            self.requirement(&format!("spec.clusterSelector.matchExpressions[{index}]"), requirement);
        }
    }

    fn requirement(&mut self, field: &str, requirement: &LabelSelectorRequirement) {
        let LabelSelectorRequirement { key, operator, values } = requirement;
        let values = values.as_deref().unwrap_or_default();
        self.rule(&format!("{field}.key"), names::label_key(key));
        let of_values = format!("{field}.values");
        match operator.as_str() {
            "In" | "NotIn" => {
                self.unless(!values.is_empty(), &of_values, || format!("must not be empty with {operator}"));
            }
            "Exists" | "DoesNotExist" => {
                self.unless(values.is_empty(), &of_values, || format!("must be empty with {operator}"));
            }
            _ => self
                .unless(false, &format!("{field}.operator"), || "must be In, NotIn, Exists or DoesNotExist".to_owned()),
        }
        for (index, value) in values.iter().enumerate() {
            self.rule(&format!("{of_values}[{index}]"), names::label_value(value));
        }
    }

    fn template(&mut self, template: &HealthCheckTemplate) {
        let HealthCheckTemplate { metadata, spec } = template;
        let of = |name: &str| format!("spec.template.metadata.{name}");
        self.name(&of("namespace"), &metadata.namespace, names::dns_label);
        if let Some(name) = &metadata.name {
            self.name(&of("name"), name, names::dns_subdomain);
        }
        self.keys(&of("labels"), &metadata.labels);
        for (key, value) in &metadata.labels {
            let field = format!("{}[{key}]", of("labels"));
            self.name(&field, value, names::label_value);
            self.unless(key != DEFINITION_LABEL, &field, || "is set by the hub".to_owned());
        }
        self.keys(&of("annotations"), &metadata.annotations);
        for (key, value) in &metadata.annotations {
            self.placeholders(&format!("{}[{key}]", of("annotations")), value);
        }
        self.unless(spec.is_object(), "spec.template.spec", || "must be an object".to_owned());
        self.strings(&mut "spec.template.spec".to_owned(), spec);
    }

    /// The rule is for what is rendered, so it can be asked only of a text without placeholders.
    fn name(&mut self, field: &str, text: &str, rule: fn(&str) -> Result<(), names::Rule>) {
        if !text.contains("${cluster.") {
            self.rule(field, rule(text));
        }
        self.placeholders(field, text);
    }

    fn placeholders(&mut self, field: &str, text: &str) {
        if let Err(error) = placeholder::split(text) {
            self.0.push(Problem { field: field.to_owned(), message: error.to_string() });
        }
    }

    fn strings(&mut self, path: &mut String, value: &Value) {
        let length = path.len();
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => self.placeholders(path, text),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    self.strings(path, item);
                    path.truncate(length);
                }
            }
            Value::Object(fields) => {
                for (key, item) in fields {
                    path.push('.');
                    path.push_str(key);
                    self.strings(path, item);
                    path.truncate(length);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse::from_value;
    use super::*;

    fn valid() -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": {"name": "dns", "labels": {"team": "net"}, "annotations": {"why": "because"}},
            "spec": {
                "clusterSelector": {
                    "matchLabels": {"env": "prod"},
                    "matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}, {"key": "env", "operator": "In", "values": ["prod"]}],
                },
                "template": {
                    "metadata": {"namespace": "health-${cluster.name}", "name": "dns.${cluster.labels.env}", "labels": {"a": "b"}},
                    "spec": {"repeatAfterSec": 60, "list": ["${HOME}"]},
                },
            },
        })
    }

    fn problems(pointer: &str, value: Value) -> Vec<String> {
        let mut definition = valid();
        *definition.pointer_mut(pointer).unwrap() = value;
        let problems = validate(&from_value(definition).unwrap()).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_valid_definition_has_no_problems() {
        assert_eq!(validate(&from_value(valid()).unwrap()), Ok(()));
    }

    #[test]
    fn each_problem_names_its_field() {
        for (pointer, value, field) in [
            ("/apiVersion", json!("v1"), "apiVersion"),
            ("/kind", json!("HealthCheck"), "kind"),
            ("/metadata/name", json!("a.b"), "metadata.name"),
            ("/metadata/labels", json!({"a": "b c"}), "metadata.labels[a]"),
            ("/metadata/annotations", json!({"a b": ""}), "metadata.annotations[a b]"),
            ("/spec/clusterSelector/matchLabels", json!({"a/b/c": "x"}), "spec.clusterSelector.matchLabels[a/b/c]"),
            (
                "/spec/clusterSelector/matchExpressions/0/operator",
                json!("Like"),
                "spec.clusterSelector.matchExpressions[0].operator",
            ),
            (
                "/spec/clusterSelector/matchExpressions/0/operator",
                json!("NotIn"),
                "spec.clusterSelector.matchExpressions[0].values",
            ),
            (
                "/spec/clusterSelector/matchExpressions/1/operator",
                json!("Exists"),
                "spec.clusterSelector.matchExpressions[1].values",
            ),
            (
                "/spec/clusterSelector/matchExpressions/1/values/0",
                json!("b c"),
                "spec.clusterSelector.matchExpressions[1].values[0]",
            ),
            ("/spec/template/metadata/namespace", json!(""), "spec.template.metadata.namespace"),
            ("/spec/template/metadata/name", json!("${cluster.foo}"), "spec.template.metadata.name"),
            ("/spec/template/metadata/labels/a", json!("b c"), "spec.template.metadata.labels[a]"),
            (
                "/spec/template/metadata/labels",
                json!({DEFINITION_LABEL: "x"}),
                "spec.template.metadata.labels[activemonitor.keikoproj.io/definition]",
            ),
            ("/spec/template/spec", json!([]), "spec.template.spec"),
            ("/spec/template/spec/list/0", json!("${cluster."), "spec.template.spec.list[0]"),
            ("/spec/template/spec/list/0", json!("x".repeat(MAX_BYTES)), ""),
        ] {
            assert_eq!(problems(pointer, value), [field], "{pointer}");
        }
    }
}
