//! The objects in YAML files. Reads files and the standard input.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use active_monitor_core::definition::{self, FleetHealthCheck};
pub(crate) use active_monitor_core::document::{Finding, Input, Object, Severity, definition, objects};
use active_monitor_core::gitops::{self, Documents, Kind};
use serde::de::DeserializeOwned;

use crate::{Error, Streams};

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{count} in the files; nothing was sent", count = if *count == 1 { "1 problem".to_owned() } else { format!("{count} problems") })]
    Problems { count: usize },
    #[error("the files have no FleetHealthCheck")]
    None,
    #[error("the files have no FleetHealthCheck, FleetCluster or MaintenanceWindow")]
    Nothing,
}

/// Kinds that the hub takes from its watched folder and from nowhere else.
pub(crate) fn is_of_folder(kind: &str) -> bool {
    [Kind::FleetCluster, Kind::MaintenanceWindow].iter().any(|known| known.as_str() == kind)
}

/// Reads all files, `-` being the standard input.
pub(crate) fn read(files: &[PathBuf], input: &mut dyn Read) -> Result<Vec<Input>, DocumentsError> {
    let mut inputs = Vec::new();
    for path in files {
        let error = |source| DocumentsError::Read { path: path.clone(), source };
        let (name, text) = if path.as_path() == Path::new("-") {
            let mut text = String::new();
            input.read_to_string(&mut text).map_err(error)?;
            ("<stdin>".to_owned(), text)
        } else {
            (path.display().to_string(), std::fs::read_to_string(path).map_err(error)?)
        };
        inputs.push(Input { name, text });
    }
    Ok(inputs)
}

/// The definitions in files, all of them sound; else every problem is written to the error stream.
pub(crate) fn definitions(files: &[PathBuf], streams: &mut Streams<'_>) -> Result<Vec<FleetHealthCheck>, Error> {
    let mut findings = Vec::new();
    let mut definitions = Vec::new();
    let mut seen = BTreeMap::new();
    let mut of_folder = 0_usize;
    for input in read(files, streams.input)? {
        for object in objects(&input, &mut findings) {
            if object.api_version() == definition::API_VERSION && is_of_folder(object.kind()) {
                of_folder += 1;
                continue;
            }
            if object.kind() != definition::KIND {
                let message = format!("must be {}; other objects are for kubectl", definition::KIND);
                findings.push(object.finding(Severity::Error, "kind", message));
                continue;
            }
            match definition(&object) {
                Ok(definition) => {
                    let here = object.finding(Severity::Error, "metadata.name", "");
                    let place = format!("{}:{}", here.file, here.line);
                    if let Some(first) = seen.insert(definition.metadata.name.clone(), place) {
                        findings
                            .push(Finding { message: format!("is the name of the definition at {first} too"), ..here });
                    }
                    definitions.push(definition);
                }
                Err(more) => findings.extend(more),
            }
        }
    }
    refuse(&findings, streams)?;
    if of_folder > 0 {
        writeln!(
            streams.err,
            "{of_folder} FleetClusters and MaintenanceWindows left out: they are for the hub's watched folder, and for diff"
        )?;
    }
    if definitions.is_empty() { Err(DocumentsError::None.into()) } else { Ok(definitions) }
}

/// All that a folder of the hub's may have, each sound and once; else every problem is written to the error stream.
pub(crate) fn of_folder(files: &[PathBuf], streams: &mut Streams<'_>) -> Result<Documents, Error> {
    let (documents, findings) = match gitops::read(&read(files, streams.input)?) {
        Ok(documents) => (documents, Vec::new()),
        Err(findings) => (Documents::new(), findings),
    };
    refuse(&findings, streams)?;
    if documents.is_empty() { Err(DocumentsError::Nothing.into()) } else { Ok(documents) }
}

/// Every object of the files as `T`; else every problem is written to the error stream.
pub(crate) fn all<T: DeserializeOwned>(files: &[PathBuf], streams: &mut Streams<'_>) -> Result<Vec<T>, Error> {
    let (mut findings, mut all) = (Vec::new(), Vec::new());
    for input in read(files, streams.input)? {
        for object in objects(&input, &mut findings) {
            match object.read() {
                Ok(value) => all.push(value),
                Err(finding) => findings.push(finding),
            }
        }
    }
    refuse(&findings, streams)?;
    Ok(all)
}

fn refuse(findings: &[Finding], streams: &mut Streams<'_>) -> Result<(), Error> {
    for finding in findings {
        writeln!(streams.err, "{finding}")?;
    }
    if findings.is_empty() { Ok(()) } else { Err(DocumentsError::Problems { count: findings.len() }.into()) }
}
