//! `fleetcheck lint`: every problem of a file, with its place.

mod schema;

use active_monitor_core::check::Check;
use active_monitor_core::definition::{self, FleetHealthCheck, validate};
use active_monitor_core::gitops;
use active_monitor_core::healthcheck::{GROUP, HealthCheck};
use active_monitor_core::names;
use active_monitor_core::view::List;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::Resource;
use serde_json::{Value, json};

use crate::args::{Format, LintArgs};
use crate::documents::{self, Finding, Object, Severity, is_of_folder};
use crate::{Error, Exit, Streams, World, output};

/// The top level of a HealthCheck.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

pub(super) fn run(args: &LintArgs, format: Format, world: &World, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let mut findings = Vec::new();
    let (mut checked, mut skipped) = (0_usize, 0_usize);
    for input in documents::read(&args.files, streams.input)? {
        let mut of_file = Vec::new();
        for object in documents::objects(&input, &mut of_file) {
            match lint(&object) {
                Some(more) => {
                    checked += 1;
                    of_file.extend(more);
                }
                None => skipped += 1,
            }
        }
        of_file.sort_by_key(|finding: &Finding| (finding.line, finding.column));
        findings.extend(of_file);
    }
    let wrong = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let list = List { items: findings };
    output::show(format, world, streams, &list, |_, streams| {
        list.items.iter().try_for_each(|finding| writeln!(streams.out, "{finding}"))?;
        let others = if skipped == 0 { String::new() } else { format!(", {skipped} of other kinds skipped") };
        Ok(writeln!(streams.err, "{checked} checked{others}, {wrong} with problems")?)
    })?;
    Ok(if wrong == 0 { Exit::Fine } else { Exit::Found })
}

/// What is wrong with an object; `None` where its kind is none of ours.
pub(super) fn lint(object: &Object) -> Option<Vec<Finding>> {
    let (group, _) = object.api_version().split_once('/').unwrap_or_default();
    match (object.api_version(), object.kind()) {
        (definition::API_VERSION, definition::KIND) => Some(lint_definition(object)),
        (definition::API_VERSION, kind) if is_of_folder(kind) => Some(gitops::wanted(object).err().unwrap_or_default()),
        (version, "HealthCheck") if version == HealthCheck::api_version(&()) => Some(lint_check(object)),
        ("", _) => Some(vec![object.finding(Severity::Error, "apiVersion", "is missing")]),
        (_, "") => Some(vec![object.finding(Severity::Error, "kind", "is missing")]),
        (_, "HealthCheck" | definition::KIND) => Some(vec![object.finding(
            Severity::Error,
            "apiVersion",
            format!(
                "must be {} for a HealthCheck, {} for a {}",
                HealthCheck::api_version(&()),
                definition::API_VERSION,
                definition::KIND
            ),
        )]),
        _ if group == GROUP || group == definition::API_VERSION.split('/').next().unwrap_or_default() => {
            let message = format!("must be HealthCheck, {}, FleetCluster or MaintenanceWindow", definition::KIND);
            Some(vec![object.finding(Severity::Error, "kind", message)])
        }
        _ => None,
    }
}

fn lint_check(object: &Object) -> Vec<Finding> {
    let mut findings = lint_metadata(object);
    let fields = object.value.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let unknown = fields.filter(|name| !FIELDS.contains(name));
    let message = format!("unknown field; allowed are {}", FIELDS.join(", "));
    findings.extend(unknown.map(|name| object.finding(Severity::Error, name, message.as_str())));
    findings.extend(lint_spec(object, "spec", &object.value, false));
    findings
}

/// `resource` is a HealthCheck whose `spec` stands at `place` in the object.
fn lint_spec(object: &Object, place: &str, resource: &Value, template: bool) -> Vec<Finding> {
    let at = |field: &str| match field.strip_prefix("spec") {
        Some(rest) => format!("{place}{rest}"),
        None => field.to_owned(),
    };
    let mut problems: Vec<(Severity, String, String)> = Vec::new();
    for (field, message) in schema::problems(&resource["spec"]) {
        problems.push((Severity::Error, field, message));
    }
    if let Ok(check) = serde_json::from_value::<HealthCheck>(resource.clone()) {
        let (severity, more) = match Check::parse(&check) {
            Ok(check) => (Severity::Warning, check.warnings),
            Err(invalid) => (Severity::Error, invalid.problems),
        };
        for problem in more {
            let known = problems.iter().any(|(_, field, _)| *field == problem.field);
            // What a placeholder will stand for is not known here.
            let open = template && has_placeholder(resource, &problem.field);
            if !known && !open {
                problems.push((severity, problem.field, problem.message));
            }
        }
    } else if problems.is_empty() {
        problems.extend(object.read::<HealthCheck>().err().map(|f| (Severity::Error, f.field, f.message)));
    }
    problems.into_iter().map(|(severity, field, message)| object.finding(severity, &at(&field), message)).collect()
}

fn has_placeholder(resource: &Value, field: &str) -> bool {
    let pointer = format!("/{}", field.replace(['.', '['], "/").replace(']', ""));
    resource.pointer(&pointer).and_then(Value::as_str).is_some_and(|text| text.contains("${cluster."))
}

/// What the API server would say of the metadata.
fn lint_metadata(object: &Object) -> Vec<Finding> {
    let metadata = &object.value["metadata"];
    let error = |field: &str, message: String| object.finding(Severity::Error, field, message);
    let Ok(typed) = serde_json::from_value::<ObjectMeta>(metadata.clone()) else {
        return vec![object.read::<HealthCheck>().err().unwrap_or_else(|| error("metadata", "is missing".to_owned()))];
    };
    let mut findings = Vec::new();
    match (&typed.name, &typed.generate_name) {
        (Some(name), _) => {
            findings.extend(names::dns_subdomain(name).err().map(|rule| error("metadata.name", rule.to_owned())));
        }
        (None, Some(_)) => {}
        (None, None) => findings.push(error("metadata.name", "is missing".to_owned())),
    }
    if let Some(namespace) = &typed.namespace {
        findings.extend(names::dns_label(namespace).err().map(|rule| error("metadata.namespace", rule.to_owned())));
    }
    let labels = validate::labels("metadata.labels", &typed.labels.clone().unwrap_or_default());
    let annotations = validate::annotations("metadata.annotations", &typed.annotations.clone().unwrap_or_default());
    for problem in labels.err().into_iter().chain(annotations.err()).flatten() {
        findings.push(error(&problem.field, problem.message));
    }
    let kept = serde_json::to_value(&typed).unwrap_or_default();
    for (key, value) in metadata.as_object().into_iter().flatten() {
        if kept.get(key).is_none() && !value.is_null() {
            findings.push(error(&format!("metadata.{key}"), "unknown field".to_owned()));
        }
    }
    findings
}

fn lint_definition(object: &Object) -> Vec<Finding> {
    let mut findings = match documents::definition(object) {
        Ok(_) => Vec::new(),
        Err(findings) => findings,
    };
    if let Ok(FleetHealthCheck { metadata, spec, .. }) = object.read::<FleetHealthCheck>() {
        let template = spec.template;
        let resource = json!({
            "apiVersion": HealthCheck::api_version(&()), "kind": "HealthCheck",
            "metadata": {
                "name": template.metadata.name.unwrap_or(metadata.name), "namespace": template.metadata.namespace,
            },
            "spec": template.spec,
        });
        let known: Vec<String> = findings.iter().map(|finding| finding.field.clone()).collect();
        let of_template = lint_spec(object, "spec.template.spec", &resource, true);
        findings.extend(of_template.into_iter().filter(|finding| !known.contains(&finding.field)));
    }
    findings
}
