//! Reads a definition from text. Pure. What it says is judged by [`validate`](super::validate::validate).

use serde_json::Value;

use super::{FleetHealthCheck, MAX_BYTES};

/// Why a text is no definition.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Longer than [`MAX_BYTES`].
    #[error("the definition has {bytes} bytes, {MAX_BYTES} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Begins like JSON and is none.
    #[error("not JSON")]
    Json(#[source] serde_json::Error),
    /// No YAML, or more nodes or aliases than allowed.
    #[error("not YAML")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// A field that does not exist in a selector. Ignored, it would widen what the selector picks.
    #[error("{field}: unknown field; allowed are {allowed}")]
    UnknownField {
        /// Its path.
        field: String,
        /// What may stand there.
        allowed: &'static str,
    },
    /// Not the fields of a FleetHealthCheck.
    #[error("not a FleetHealthCheck")]
    Shape(#[source] serde_json::Error),
}

/// Reads one FleetHealthCheck from YAML, or from JSON where the text begins with `{`.
pub fn parse(text: &str) -> Result<FleetHealthCheck, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError::TooLarge { bytes: text.len() });
    }
    // JSON's own reader, because YAML knows no surrogate pairs.
    if text.trim_start().starts_with('{') {
        return from_value(serde_json::from_str(text).map_err(ParseError::Json)?);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_aliases: 100,
            max_anchors: 100,
            max_nodes: 20_000,
            max_events: 60_000,
            max_total_scalar_bytes: 2 * MAX_BYTES,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    from_value(serde_saphyr::from_str_with_options(text, options).map_err(|error| ParseError::Yaml(Box::new(error)))?)
}

/// Reads a FleetHealthCheck from JSON data.
pub fn from_value(value: Value) -> Result<FleetHealthCheck, ParseError> {
    // The type of the selector, which is Kubernetes' own, ignores fields that it does not know.
    let selector = &value["spec"]["clusterSelector"];
    known(selector, "spec.clusterSelector", &["matchLabels", "matchExpressions"], "matchLabels and matchExpressions")?;
    for (index, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let field = format!("spec.clusterSelector.matchExpressions[{index}]");
        known(expression, &field, &["key", "operator", "values"], "key, operator and values")?;
    }
    serde_json::from_value(value).map_err(ParseError::Shape)
}

fn known(value: &Value, field: &str, keys: &[&str], allowed: &'static str) -> Result<(), ParseError> {
    match value.as_object().and_then(|fields| fields.keys().find(|key| !keys.contains(&key.as_str()))) {
        Some(key) => Err(ParseError::UnknownField { field: format!("{field}.{key}"), allowed }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetHealthCheck
metadata: {name: dns}
spec:
  clusterSelector:
    matchLabels: {env: prod}
  template:
    metadata: {namespace: health}
    spec:
      repeatAfterSec: 60
      country: no
      workflow:
        resource:
          source:
            inline: |
              apiVersion: argoproj.io/v1alpha1
              kind: Workflow
";

    #[test]
    fn yaml_and_json_say_the_same() {
        let from_yaml = parse(YAML).unwrap();
        assert_eq!(from_yaml.spec.template.spec["repeatAfterSec"], 60);
        assert_eq!(from_yaml.spec.template.spec["country"], "no");
        let json = serde_json::to_string(&from_yaml).unwrap();
        assert_eq!(parse(&json).unwrap(), from_yaml);
        assert_eq!(
            parse(&json.replace("prod", r"\ud83d\ude00")).unwrap().spec.cluster_selector.match_labels.unwrap()["env"],
            "😀"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let bomb = format!("a: &a [{}]\nb: &b [{}]\nc: [{}]\n", "x,".repeat(500), "*a,".repeat(50), "*b,".repeat(40));
        for (text, expected) in [
            (YAML.replace("matchLabels", "matchLabel"), "spec.clusterSelector.matchLabel: unknown field"),
            (
                YAML.replace("matchLabels: {env: prod}", "matchExpressions: [{key: a, op: In}]"),
                "matchExpressions[0].op: unknown",
            ),
            (YAML.replace("metadata: {name", "metadata: {nam"), "not a FleetHealthCheck: unknown field `nam`"),
            (YAML.replace("clusterSelector", "selector"), "not a FleetHealthCheck: unknown field `selector`"),
            (format!("{YAML}---{YAML}"), "not YAML"),
            ("{\"a\":".to_owned(), "not JSON"),
            ("a: [".to_owned(), "not YAML"),
            (String::new(), "not a FleetHealthCheck"),
            (bomb, "not YAML"),
            ("x".repeat(MAX_BYTES + 1), "262145 bytes"),
        ] {
            let error = parse(&text).unwrap_err();
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            assert!(format!("{error}{source}").contains(expected), "{expected}: {error}{source}");
        }
    }
}
