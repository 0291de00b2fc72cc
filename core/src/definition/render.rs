//! Fills a cluster's values into a definition: the HealthCheck that this cluster gets. Pure.
//!
//! A value goes into a string as text and is never read again, so a value cannot bring a placeholder. It may not have
//! control characters, so it stays on its line. A workflow written inline is itself a YAML text in a string, and there a
//! value could end the YAML scalar that it stands in: put such a placeholder in quotes (`"${cluster.annotations.url}"`).
//! Quotes are enough, because in strings of several lines, and in fields called `inline`, a value with a quote or a
//! backslash is refused.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::placeholder::{self, Malformed, Piece, Source};
use super::{FleetHealthCheck, MAX_BYTES};
use crate::names::{self, DEFINITION_LABEL};

/// `apiVersion` of what is rendered.
pub const HEALTH_CHECK_API_VERSION: &str = "activemonitor.keikoproj.io/v1alpha1";

/// What placeholders can say of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels at the hub.
    pub labels: &'a BTreeMap<String, String>,
    /// Its annotations at the hub.
    pub annotations: &'a BTreeMap<String, String>,
}

/// Why a definition has no HealthCheck for a cluster. Each names the field of the FleetHealthCheck.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The cluster lacks a label or annotation that has no default.
    #[error("{field}: the cluster has no {kind} {key:?}", kind = kind(*source_of))]
    Missing {
        /// Path of the string.
        field: String,
        /// Labels or annotations.
        source_of: Source,
        /// The key that is missing.
        key: String,
    },
    /// A value could change the meaning of the text around it.
    #[error("{field}: the cluster's {kind} {key:?} has {what}, which cannot be inserted here", kind = kind(*source_of))]
    Unsafe {
        /// Path of the string.
        field: String,
        /// Labels or annotations.
        source_of: Source,
        /// The key whose value it is.
        key: String,
        /// What it contains.
        what: &'static str,
    },
    /// A placeholder that is none.
    #[error("{field}: malformed placeholder")]
    Placeholder {
        /// Path of the string.
        field: String,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// A name or label that Kubernetes would refuse.
    #[error("{field}: {value:?} {rule}")]
    Name {
        /// Path of the string.
        field: String,
        /// What was rendered.
        value: String,
        /// What is allowed.
        rule: names::Rule,
    },
    /// Longer than [`MAX_BYTES`].
    #[error("the rendered HealthCheck has {bytes} bytes, {MAX_BYTES} are allowed")]
    TooLarge {
        /// Its length as JSON.
        bytes: usize,
    },
}

fn kind(source: Source) -> &'static str {
    match source {
        Source::Labels => "label",
        Source::Annotations => "annotation",
    }
}

/// The HealthCheck for one cluster, as JSON: apiVersion, kind, metadata (namespace, name, labels with
/// [`DEFINITION_LABEL`], annotations) and spec. Whether the selector picks the cluster is not asked here.
pub fn render(definition: &FleetHealthCheck, cluster: &ClusterFacts<'_>) -> Result<Value, RenderError> {
    let template = &definition.spec.template;
    let meta = &template.metadata;
    let field = |name: &str| format!("spec.template.metadata.{name}");

    let namespace = text(&meta.namespace, &field("namespace"), cluster)?;
    check(names::dns_label, &namespace, || field("namespace"))?;
    let name = text(meta.name.as_deref().unwrap_or(&definition.metadata.name), &field("name"), cluster)?;
    check(names::dns_subdomain, &name, || field("name"))?;
    let mut labels = values(&meta.labels, &field("labels"), cluster)?;
    for (key, value) in &labels {
        check(names::label_value, value, || format!("{}[{key}]", field("labels")))?;
    }
    labels.insert(DEFINITION_LABEL.to_owned(), definition.metadata.name.clone());
    let annotations = values(&meta.annotations, &field("annotations"), cluster)?;

    let rendered = json!({
        "apiVersion": HEALTH_CHECK_API_VERSION,
        "kind": "HealthCheck",
        "metadata": {"namespace": namespace, "name": name, "labels": labels, "annotations": annotations},
        "spec": value(&template.spec, &mut "spec.template.spec".to_owned(), cluster)?,
    });
    let bytes = rendered.to_string().len();
    if bytes > MAX_BYTES { Err(RenderError::TooLarge { bytes }) } else { Ok(rendered) }
}

fn check(
    rule: fn(&str) -> Result<(), names::Rule>,
    value: &str,
    field: impl Fn() -> String,
) -> Result<(), RenderError> {
    rule(value).map_err(|rule| RenderError::Name { field: field(), value: value.to_owned(), rule })
}

fn values(
    map: &BTreeMap<String, String>,
    field: &str,
    cluster: &ClusterFacts<'_>,
) -> Result<BTreeMap<String, String>, RenderError> {
    map.iter().map(|(key, value)| Ok((key.clone(), text(value, &format!("{field}[{key}]"), cluster)?))).collect()
}

/// `path` is where `value` stands; it is as before when this returns.
fn value(value: &Value, path: &mut String, cluster: &ClusterFacts<'_>) -> Result<Value, RenderError> {
    let length = path.len();
    let rendered = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(string) => Value::String(text(string, path, cluster)?),
        Value::Array(items) => {
            let mut out = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                out.push(self::value(item, path, cluster)?);
                path.truncate(length);
            }
            Value::Array(out)
        }
        Value::Object(fields) => {
            let mut out = Map::with_capacity(fields.len());
            for (key, item) in fields {
                path.push('.');
                path.push_str(key);
                out.insert(key.clone(), self::value(item, path, cluster)?);
                path.truncate(length);
            }
            Value::Object(out)
        }
    };
    Ok(rendered)
}

fn text(template: &str, field: &str, cluster: &ClusterFacts<'_>) -> Result<String, RenderError> {
    let pieces =
        placeholder::split(template).map_err(|source| RenderError::Placeholder { field: field.to_owned(), source })?;
    let quotable = template.contains('\n') || field.ends_with(".inline");
    let mut out = String::with_capacity(template.len());
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name => out.push_str(cluster.name),
            Piece::Value { source, key, default } => {
                let map = match source {
                    Source::Labels => cluster.labels,
                    Source::Annotations => cluster.annotations,
                };
                match (map.get(key), default) {
                    (Some(value), _) => {
                        if let Some(what) = unsafe_part(value, quotable) {
                            let (field, key) = (field.to_owned(), key.to_owned());
                            return Err(RenderError::Unsafe { field, source_of: source, key, what });
                        }
                        out.push_str(value);
                    }
                    (None, Some(default)) => out.push_str(default),
                    (None, None) => {
                        let (field, key) = (field.to_owned(), key.to_owned());
                        return Err(RenderError::Missing { field, source_of: source, key });
                    }
                }
                // A bound while rendering: many placeholders times a long annotation must not fill the memory.
                if out.len() > MAX_BYTES {
                    return Err(RenderError::TooLarge { bytes: out.len() });
                }
            }
        }
    }
    Ok(out)
}

/// What in a value could change the text around it: a line's end ends a YAML scalar, and so does a quote inside quotes.
/// U+2028 and U+2029 are line ends to YAML 1.1 readers.
fn unsafe_part(value: &str, quotable: bool) -> Option<&'static str> {
    if value.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        Some("a control character")
    } else if quotable && value.contains(['"', '\'', '\\', '`']) {
        Some("a quote or backslash")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn definition(template: Value) -> FleetHealthCheck {
        parse(
            &json!({
                "apiVersion": super::super::API_VERSION, "kind": "FleetHealthCheck", "metadata": {"name": "dns"},
                "spec": {"clusterSelector": {}, "template": template},
            })
            .to_string(),
        )
        .unwrap()
    }

    fn rendered(template: Value) -> Result<Value, RenderError> {
        let labels = [("env", "prod"), ("example.com/region", "eu"), ("topology", "${cluster.name}")];
        let annotations = [("url", "https://a:6443/x?y=z#f"), ("quoted", "a\"b"), ("lines", "a\nb: c")];
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let (labels, annotations) = (own(&labels), own(&annotations));
        let facts = ClusterFacts { name: "east", labels: &labels, annotations: &annotations };
        render(&definition(template), &facts)
    }

    fn field(text: &str) -> Result<String, RenderError> {
        let value = rendered(json!({"metadata": {"namespace": "health"}, "spec": {"a": [{"b": text}]}}))?;
        Ok(value["spec"]["a"][0]["b"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_health_check_is_made_with_the_clusters_values() {
        let template = json!({
            "metadata": {
                "namespace": "health-${cluster.labels.env}", "name": "dns-${cluster.name}",
                "labels": {"region": "${cluster.labels.example.com/region}"}, "annotations": {"${cluster.name}": "${cluster.name}"},
            },
            "spec": {"repeatAfterSec": 60, "level": null, "${cluster.name}": true, "list": ["${cluster.name}", 1.5]},
        });
        assert_eq!(
            rendered(template).unwrap(),
            json!({
                "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
                "metadata": {
                    "namespace": "health-prod", "name": "dns-east",
                    "labels": {"region": "eu", "activemonitor.keikoproj.io/definition": "dns"},
                    "annotations": {"${cluster.name}": "east"},
                },
                "spec": {"repeatAfterSec": 60, "level": null, "${cluster.name}": true, "list": ["east", 1.5]},
            })
        );
        let value = rendered(json!({"metadata": {"namespace": "health"}, "spec": {}})).unwrap();
        assert_eq!(value["metadata"]["name"], "dns");
    }

    #[test]
    fn values_are_text() {
        for (text, expected) in [
            ("${cluster.annotations.url}", "https://a:6443/x?y=z#f"),
            ("${cluster.labels.topology}", "${cluster.name}"),
            ("${cluster.labels.none:-${HOME} b}", "${HOME b}"),
            ("$${cluster.name} ${HOME} $(date) ${x:-y}", "${cluster.name} ${HOME} $(date) ${x:-y}"),
            ("${cluster.annotations.quoted}", "a\"b"),
        ] {
            assert_eq!(field(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_unsafe_is_named() {
        for (text, expected) in [
            ("${cluster.labels.none}", "spec.template.spec.a[0].b: the cluster has no label \"none\""),
            ("${cluster.annotations.env}", "spec.template.spec.a[0].b: the cluster has no annotation \"env\""),
            (
                "${cluster.annotations.lines}",
                "spec.template.spec.a[0].b: the cluster's annotation \"lines\" has a control character, which cannot be \
                 inserted here",
            ),
            (
                "x: 1\nurl: \"${cluster.annotations.quoted}\"",
                "spec.template.spec.a[0].b: the cluster's annotation \"quoted\" has a quote or backslash, which cannot \
                 be inserted here",
            ),
            ("${cluster.typo}", "spec.template.spec.a[0].b: malformed placeholder"),
        ] {
            assert_eq!(field(text).unwrap_err().to_string(), expected, "{text}");
        }
        let inline = json!({"metadata": {"namespace": "health"}, "spec": {"inline": "{\"a\": \"${cluster.annotations.quoted}\"}"}});
        assert!(matches!(rendered(inline), Err(RenderError::Unsafe { .. })));
    }

    #[test]
    fn names_that_kubernetes_refuses_are_refused() {
        for metadata in [
            json!({"namespace": "${cluster.annotations.url}"}),
            json!({"namespace": "health", "name": "Upper-${cluster.name}"}),
            json!({"namespace": "health", "labels": {"a": "${cluster.annotations.url}"}}),
        ] {
            assert!(matches!(rendered(json!({"metadata": metadata, "spec": {}})), Err(RenderError::Name { .. })));
        }
    }

    #[test]
    fn size_is_bounded() {
        let long = BTreeMap::from([("long".to_owned(), "x".repeat(MAX_BYTES / 2))]);
        let facts = ClusterFacts { name: "east", labels: &BTreeMap::new(), annotations: &long };
        let text = "${cluster.annotations.long}".repeat(3);
        for spec in
            [json!({"a": text}), json!({"a": "${cluster.annotations.long}", "b": "${cluster.annotations.long}"})]
        {
            let template = json!({"metadata": {"namespace": "health"}, "spec": spec});
            assert!(matches!(render(&definition(template), &facts), Err(RenderError::TooLarge { .. })));
        }
    }
}
