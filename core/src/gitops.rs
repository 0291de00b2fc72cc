//! What a folder of documents says the fleet shall be. It is read as one set: one bad document refuses all of it. Pure.
//!
//! What the set is compared with, and what follows from that, is in [`plan`]; [`resources`] are not one set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::care::{Window, WindowSpec};
use crate::definition::validate::{self, Problem};
use crate::definition::{API_VERSION, DefinitionMeta, FleetHealthCheck};
use crate::document::{self, Finding, Input, Object};
use crate::names;

pub mod plan;
pub mod resources;

/// The most documents of a set.
pub const MAX_DOCUMENTS: usize = 10_000;

/// What a document can be; its `kind` is the variant's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Kind {
    /// A definition, as `fleetcheck apply` takes it.
    FleetHealthCheck,
    /// Labels and annotations of a cluster.
    FleetCluster,
    /// A maintenance window.
    MaintenanceWindow,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::FleetHealthCheck, Kind::FleetCluster, Kind::MaintenanceWindow];

    /// As documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::FleetHealthCheck => "FleetHealthCheck",
            Kind::FleetCluster => "FleetCluster",
            Kind::MaintenanceWindow => "MaintenanceWindow",
        }
    }

    /// The kind of an object of our API group; of anything else there is none.
    ///
    /// # Errors
    /// The field that says otherwise, and what is allowed.
    pub fn of(object: &Object) -> Result<Kind, Finding> {
        if object.api_version() != API_VERSION {
            return Err(object.error("apiVersion", format!("must be {API_VERSION}")));
        }
        let known = Kind::ALL.into_iter().find(|kind| kind.as_str() == object.kind());
        known.ok_or_else(|| object.error("kind", "must be FleetHealthCheck, FleetCluster or MaintenanceWindow"))
    }
}

/// One thing that there shall be.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it stands.
    pub object: Object,
    /// What it asks for.
    pub wanted: Wanted,
}

/// What a document asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// This definition.
    Definition(Box<FleetHealthCheck>),
    /// These labels and annotations of a cluster, beside those of others.
    Cluster(DefinitionMeta),
    /// This maintenance window.
    Window(Box<WindowSpec>),
}

impl Wanted {
    /// Its kind and its name, which is unique among those of the kind.
    pub fn key(&self) -> (Kind, &str) {
        match self {
            Wanted::Definition(definition) => (Kind::FleetHealthCheck, &definition.metadata.name),
            Wanted::Cluster(metadata) => (Kind::FleetCluster, &metadata.name),
            Wanted::Window(spec) => (Kind::MaintenanceWindow, &spec.name),
        }
    }
}

/// A set of documents, by kind and name.
pub type Documents = BTreeMap<(Kind, String), Document>;

/// Reads all files as one set.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn read(files: &[Input]) -> Result<Documents, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut documents = Documents::new();
    for object in files.iter().flat_map(|file| document::objects(file, &mut findings)).collect::<Vec<_>>() {
        match wanted(&object) {
            Ok(wanted) => {
                let (kind, name) = wanted.key();
                let key = (kind, name.to_owned());
                if let Some(first) = documents.get(&key) {
                    let Finding { file, line, .. } = first.object.error("metadata.name", "");
                    let message = format!("is the name of the {} at {file}:{line} too", kind.as_str());
                    findings.push(object.error("metadata.name", message));
                } else {
                    documents.insert(key, Document { object, wanted });
                }
            }
            Err(more) => findings.extend(more),
        }
    }
    if documents.len() > MAX_DOCUMENTS {
        let message = format!("there are {} documents, {MAX_DOCUMENTS} are allowed", documents.len());
        findings.push(whole(message));
    }
    if findings.is_empty() { Ok(documents) } else { Err(findings) }
}

/// About the folder and no file of it.
pub fn whole(message: impl Into<String>) -> Finding {
    let severity = document::Severity::Error;
    Finding { file: ".".to_owned(), line: 0, column: 0, severity, field: String::new(), message: message.into() }
}

/// What an object asks for.
///
/// # Errors
/// Everything that is wrong with it.
pub fn wanted(object: &Object) -> Result<Wanted, Vec<Finding>> {
    match Kind::of(object).map_err(|finding| vec![finding])? {
        Kind::FleetHealthCheck => {
            document::definition(object).map(|definition| Wanted::Definition(Box::new(definition)))
        }
        Kind::FleetCluster => cluster(object).map(Wanted::Cluster),
        Kind::MaintenanceWindow => {
            window(object).map(|spec| Wanted::Window(Box::new(spec))).map_err(|finding| vec![finding])
        }
    }
}

/// A FleetCluster: labels and annotations of a cluster, and nothing else.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FleetCluster {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: DefinitionMeta,
}

fn cluster(object: &Object) -> Result<DefinitionMeta, Vec<Finding>> {
    let FleetCluster { metadata, .. } = object.read().map_err(|finding| vec![finding])?;
    let name = names::dns_label(&metadata.name);
    let name = name.map_err(|rule| vec![Problem { field: "metadata.name".to_owned(), message: rule.to_owned() }]);
    let labels = validate::labels("metadata.labels", &metadata.labels);
    let annotations = validate::annotations("metadata.annotations", &metadata.annotations);
    let problems = [name, labels, annotations].into_iter().filter_map(Result::err).flatten();
    let findings: Vec<Finding> = problems.map(|problem| object.error(&problem.field, problem.message)).collect();
    if findings.is_empty() { Ok(metadata) } else { Err(findings) }
}

/// A MaintenanceWindow: a [`WindowSpec`] whose name is that of the object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MaintenanceWindow {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: WindowMeta,
    spec: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowMeta {
    name: String,
}

fn window(object: &Object) -> Result<WindowSpec, Finding> {
    let MaintenanceWindow { metadata: WindowMeta { name }, mut spec, .. } = object.read()?;
    if spec.contains_key("name") {
        return Err(object.error("spec.name", "unknown field; the window's name is metadata.name"));
    }
    spec.insert("name".to_owned(), Value::String(name));
    let spec: WindowSpec = serde_path_to_error::deserialize(Value::Object(spec)).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
        object.error(&field, error.inner().to_string())
    })?;
    Window::parse(spec).map(|window| window.spec).map_err(|message| {
        // The message begins with the field, where it is about one.
        let word = message.split([' ', ':']).next().unwrap_or_default();
        let field = match word {
            "name" => "metadata.name".to_owned(),
            word if object.value["spec"].get(word).is_some() => format!("spec.{word}"),
            _ => "spec".to_owned(),
        };
        object.error(&field, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFINITION: &str = "
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetHealthCheck
metadata: {name: dns}
spec:
  clusterSelector: {matchLabels: {env: prod}}
  template:
    metadata: {namespace: health}
    spec: {repeatAfterSec: 60}
";
    const CLUSTER: &str = "
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetCluster
metadata:
  name: east
  labels: {env: prod}
";
    const WINDOW: &str = "
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: MaintenanceWindow
metadata: {name: patch-day}
spec:
  selector: env=prod
  cron: \"0 3 * * 2\"
  durationSeconds: 3600
";

    fn file(name: &str, text: &str) -> Input {
        Input { name: name.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_set_is_read_from_many_files_and_documents() {
        let set = read(&[file("a.yaml", &format!("{DEFINITION}---{CLUSTER}")), file("b.yaml", WINDOW)]).unwrap();
        let names: Vec<_> = set.keys().map(|(kind, name)| (kind.as_str(), name.as_str())).collect();
        assert_eq!(names, [("FleetHealthCheck", "dns"), ("FleetCluster", "east"), ("MaintenanceWindow", "patch-day")]);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_line_and_field() {
        for (text, expected) in [
            (WINDOW.replace("0 3 * *", "0 30 * *"), "f.yaml:7:3: spec.cron: "),
            (WINDOW.replace("durationSeconds: 3600", "durationSeconds: long"), "f.yaml:8:3: spec.durationSeconds: "),
            (WINDOW.replace("selector", "selektor"), "f.yaml:6:3: spec.selektor: unknown field"),
            (WINDOW.replace("  selector", "  name: a\n  selector"), "f.yaml:6:3: spec.name: unknown field; the"),
            (CLUSTER.replace("env: prod", "env: \"a b\""), "f.yaml:6:12: metadata.labels[env]: "),
            (format!("{CLUSTER}spec: {{}}\n"), "f.yaml:7:1: spec: unknown field"),
            (CLUSTER.replace("FleetCluster", "Cluster"), "f.yaml:3:1: kind: must be FleetHealthCheck, "),
            (CLUSTER.replace("v1alpha1", "v1"), "f.yaml:2:1: apiVersion: must be "),
            (
                DEFINITION.replace("namespace: health", "namespace: H"),
                "f.yaml:8:16: spec.template.metadata.namespace: ",
            ),
            (
                format!("{CLUSTER}---{CLUSTER}"),
                "f.yaml:11:3: metadata.name: is the name of the FleetCluster at f.yaml:5",
            ),
            (format!("{CLUSTER}---\na: [\n"), "f.yaml:"),
        ] {
            let findings = read(&[file("f.yaml", &text)]).unwrap_err();
            assert!(findings[0].to_string().starts_with(expected), "{expected}\n{}", findings[0]);
        }
    }
}
