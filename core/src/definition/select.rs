//! Which clusters a selector picks, with the semantics of Kubernetes' label selectors. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Whether `labels` satisfy every requirement of the selector. One without requirements matches everything; `NotIn` and
/// `DoesNotExist` match where the key is absent. An operator that does not exist, which
/// [`validate`](super::validate::validate) refuses, matches nothing.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let LabelSelector { match_labels, match_expressions } = selector;
    let equal = match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal && match_expressions.iter().flatten().all(|requirement| satisfied(requirement, labels))
}

fn satisfied(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let value = labels.get(key);
    let listed = || value.is_some_and(|value| values.iter().flatten().any(|v| v == value));
    match operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned()), ("gpu".to_owned(), String::new())]);
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {}}), true),
            (json!({"matchLabels": {"env": "prod"}}), true),
            (json!({"matchLabels": {"env": "dev"}}), false),
            (json!({"matchLabels": {"env": "prod", "region": "eu"}}), false),
            (json!({"matchLabels": {"gpu": ""}}), true),
            (expression("env", "In", &["dev", "prod"]), true),
            (expression("env", "In", &["dev"]), false),
            (expression("region", "In", &["eu"]), false),
            (expression("env", "NotIn", &["dev"]), true),
            (expression("env", "NotIn", &["prod"]), false),
            (expression("region", "NotIn", &["eu"]), true),
            (expression("gpu", "Exists", &[]), true),
            (expression("region", "Exists", &[]), false),
            (expression("region", "DoesNotExist", &[]), true),
            (expression("env", "DoesNotExist", &[]), false),
            (expression("env", "Like", &["prod"]), false),
            (
                json!({"matchLabels": {"env": "prod"}, "matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}),
                false,
            ),
        ] {
            let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(matches(&parsed, &labels), expected, "{selector}");
        }
    }
}
