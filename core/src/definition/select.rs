//! Which clusters a selector picks, with the semantics of Kubernetes' label selectors. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::names;

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

/// Reads the form that kubectl knows: `env=prod,tier!=test,region in (eu,us),zone notin (a),gpu,!old`.
///
/// # Errors
/// Which requirement is wrong, and what is allowed.
pub fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut requirements = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let mut depth = 0;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        });
        let (one, after) = end.map_or((rest, None), |end| (&rest[..end], Some(&rest[end + 1..])));
        requirements.push(requirement(one.trim())?);
        rest = match after.map(str::trim) {
            Some("") => return Err(format!("a requirement is missing after {one:?}")),
            Some(after) => after,
            None => "",
        };
    }
    Ok(LabelSelector { match_labels: None, match_expressions: Some(requirements) })
}

fn requirement(text: &str) -> Result<LabelSelectorRequirement, String> {
    let listed = |word: &str| {
        let (key, rest) = text.split_once(char::is_whitespace)?;
        let list = rest.trim().strip_prefix(word)?.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some((key, list.split(',').map(|value| value.trim().to_owned()).collect()))
    };
    let (key, operator, values): (&str, &str, Vec<String>) = if let Some(key) = text.strip_prefix('!') {
        (key.trim(), "DoesNotExist", Vec::new())
    } else if let Some((key, values)) = listed("notin") {
        (key, "NotIn", values)
    } else if let Some((key, values)) = listed("in") {
        (key, "In", values)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key.trim(), "NotIn", vec![value.trim().to_owned()])
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key.trim(), "In", vec![value.trim().to_owned()])
    } else {
        (text, "Exists", Vec::new())
    };
    names::label_key(key).map_err(|rule| format!("the key in {text:?} {rule}"))?;
    for value in &values {
        names::label_value(value).map_err(|rule| format!("the value {value:?} in {text:?} {rule}"))?;
    }
    let values = (!values.is_empty()).then_some(values);
    Ok(LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values })
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

    #[test]
    fn text_selectors_are_kubectls() {
        let labels = BTreeMap::from([("env", "prod"), ("a.b/gpu", "")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        for (text, expected) in [
            ("", true),
            ("env=prod", true),
            ("env==prod", true),
            ("env = dev", false),
            ("env!=dev", true),
            ("region!=eu", true),
            ("env in (dev, prod)", true),
            ("env in (dev)", false),
            ("env notin (dev,prod)", false),
            ("region notin (eu),a.b/gpu", true),
            ("!region , env", true),
            ("! env", false),
            ("a.b/gpu=", true),
        ] {
            assert_eq!(matches(&parse(text).unwrap(), &labels), expected, "{text}");
        }
        for bad in ["=", "env=prod,", ",env", "a b", "env in prod", "env in (pr od)", "env=(x)", "-x", "env>3", "!"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("en v=x").unwrap_err().starts_with("the key in \"en v=x\" must be a name"));
    }
}
