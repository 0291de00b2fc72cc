//! A HealthCheck's spec against the schema of its CustomResourceDefinition: what the API server would refuse, or
//! silently drop. Unlike a deserializer, it goes on after the first problem. Pure.

use active_monitor_core::healthcheck::HealthCheck;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube_core::CustomResourceExt;
use serde_json::Value;

/// Field and message of each problem, fields beginning with `spec`.
pub(super) fn problems(spec: &Value) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let crd = HealthCheck::crd();
    let schema = crd.spec.versions.into_iter().find_map(|version| version.schema?.open_api_v3_schema);
    let schema = schema.and_then(|schema| schema.properties?.remove("spec"));
    match (schema, spec) {
        (Some(_), Value::Null) => problems.push(("spec".to_owned(), "is missing".to_owned())),
        (Some(schema), spec) => look(&schema, spec, "spec".to_owned(), &mut problems),
        (None, _) => {}
    }
    problems
}

fn look(schema: &JSONSchemaProps, value: &Value, path: String, problems: &mut Vec<(String, String)>) {
    // A field that is null is a field that is not there.
    if value.is_null() {
        return;
    }
    let expected = schema.type_.as_deref().unwrap_or_default();
    if !fits(expected, value) {
        problems.push((path, format!("must be {}, is {}", with_article(expected), kind(value))));
        return;
    }
    match value {
        Value::Object(fields) => {
            for name in schema.required.iter().flatten() {
                if fields.get(name).is_none_or(Value::is_null) {
                    problems.push((format!("{path}.{name}"), "is missing".to_owned()));
                }
            }
            for (name, value) in fields {
                look_at_field(schema, name, value, format!("{path}.{name}"), problems);
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    look(schema, item, format!("{path}[{index}]"), problems);
                }
            }
        }
        Value::String(text) => {
            let limit = schema.max_length.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            let length = text.chars().count();
            if length > limit {
                problems.push((path, format!("has {length} characters, {limit} are allowed")));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn look_at_field(
    schema: &JSONSchemaProps,
    name: &str,
    value: &Value,
    path: String,
    problems: &mut Vec<(String, String)>,
) {
    let of_name = schema.properties.as_ref().and_then(|properties| properties.get(name));
    match (of_name, &schema.additional_properties) {
        (Some(schema), _) => look(schema, value, path, problems),
        (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => look(schema, value, path, problems),
        (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
        (None, Some(JSONSchemaPropsOrBool::Bool(false)) | None) => {
            if schema.x_kubernetes_preserve_unknown_fields != Some(true) {
                problems.push((path, unknown(schema, name)));
            }
        }
    }
}

/// The API server would drop the field without a word, so a slip of the pen is pointed out.
fn unknown(schema: &JSONSchemaProps, name: &str) -> String {
    let mut known = schema.properties.iter().flat_map(|properties| properties.keys());
    match known.find(|known| known.eq_ignore_ascii_case(name)) {
        Some(meant) => format!("unknown field; {meant} is meant"),
        None => {
            let known: Vec<&str> = schema.properties.iter().flatten().map(|(name, _)| name.as_str()).collect();
            format!("unknown field; allowed are {}", known.join(", "))
        }
    }
}

fn fits(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_i64() => "an integer",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
