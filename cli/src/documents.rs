//! The objects in YAML files, and where each of their fields stands. Reads files and the standard input.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use active_monitor_core::definition::{self, FleetHealthCheck, parse, validate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::position::{self, Node, Position};
use crate::{Error, Streams, output};

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{count} in the files; nothing was sent", count = if *count == 1 { "1 problem".to_owned() } else { format!("{count} problems") })]
    Problems { count: usize },
    #[error("the files have no FleetHealthCheck")]
    None,
}

/// A file's text, and the name that it is shown under.
pub(crate) struct Input {
    pub(crate) name: String,
    text: String,
}

/// Whether something keeps an object from working.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// It does.
    Error,
    /// It does not, but it does nothing either.
    Warning,
}

/// Something about one field, and where it stands.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) severity: Severity,
    /// Empty where it is about the whole text.
    pub(crate) field: String,
    pub(crate) message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { file, line, column, severity, field, message } = self;
        let severity = match severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        let colon = if field.is_empty() { "" } else { ": " };
        let text = format!("{file}:{line}:{column}: {severity}{field}{colon}{message}");
        f.write_str(&output::printable(&text))
    }
}

/// One object of a file.
pub(crate) struct Object {
    pub(crate) value: Value,
    file: String,
    document: Rc<Node>,
    /// Path of the object in its document: empty, or as `items[0]`.
    path: String,
}

impl Object {
    pub(crate) fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }

    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// About a field of this object.
    pub(crate) fn finding(&self, severity: Severity, field: &str, message: impl Into<String>) -> Finding {
        let dot = if self.path.is_empty() || field.is_empty() { "" } else { "." };
        let field = format!("{}{dot}{field}", self.path);
        let Position { line, column } = self.document.find(&field);
        Finding { file: self.file.clone(), line, column, severity, field, message: message.into() }
    }

    /// Reads the object as `T`; what is wrong is said of the field that it was found in.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let field = error.path().to_string();
            let field = if field == "." { String::new() } else { field };
            self.finding(Severity::Error, &field, error.inner().to_string())
        })
    }
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

/// The objects of a file; those in a List each for itself. What is no object is added to the findings.
pub(crate) fn objects(input: &Input, findings: &mut Vec<Finding>) -> Vec<Object> {
    let file = &input.name;
    let broken = |position: Position, message: String| {
        let Position { line, column } = position;
        Finding { file: file.clone(), line, column, severity: Severity::Error, field: String::new(), message }
    };
    let (regions, syntax_error) = position::documents(&input.text);
    let mut objects = Vec::new();
    for region in regions {
        let start = region.root.position();
        match value(&input.text[region.bytes], region.first_line, start) {
            Ok(value @ Value::Object(_)) => {
                let whole = Object { value, file: file.clone(), document: Rc::new(region.root), path: String::new() };
                objects.extend(unpacked(whole));
            }
            Ok(_) => findings.push(broken(start, "this is no object: it has no apiVersion and no kind".to_owned())),
            Err((position, message)) => findings.push(broken(position, message)),
        }
    }
    findings.extend(syntax_error.map(|error| broken(error.position, error.message)));
    objects
}

fn value(text: &str, first_line: usize, start: Position) -> Result<Value, (Position, String)> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = |line: u64| usize::try_from(line).unwrap_or(usize::MAX).saturating_add(first_line - 1);
        let column = |column| usize::try_from(column).unwrap_or(usize::MAX);
        let position = error.location().filter(|at| at.line() > 0);
        let position = position.map_or(start, |at| Position { line: line(at.line()), column: column(at.column()) });
        (position, without_place(&error.to_string()))
    })
}

/// The parser's message names the place within the document, which is not that in the file.
fn without_place(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let rest = first.strip_prefix("error: ").unwrap_or(first);
    let rest = match rest.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        Some(_) | None => rest,
    };
    let rest = rest.rsplit_once(" at line ").map_or(rest, |(message, _)| message);
    // A remark to programmers.
    rest.split_once(", set DuplicateKeyPolicy").map_or(rest, |(message, _)| message).to_owned()
}

fn unpacked(whole: Object) -> Vec<Object> {
    let Some(items) = whole.value["items"].as_array().filter(|_| whole.kind().ends_with("List")) else {
        return vec![whole];
    };
    let item = |(index, value): (usize, &Value)| Object {
        value: value.clone(),
        file: whole.file.clone(),
        document: Rc::clone(&whole.document),
        path: format!("items[{index}]"),
    };
    items.iter().enumerate().map(item).collect()
}

/// Reads a definition as the hub does, with every problem that the hub would find.
pub(crate) fn definition(object: &Object) -> Result<FleetHealthCheck, Vec<Finding>> {
    let definition = match parse::from_value(object.value.clone()) {
        Ok(definition) => definition,
        Err(parse::ParseError::UnknownField { field, allowed }) => {
            return Err(vec![object.finding(Severity::Error, &field, format!("unknown field; allowed are {allowed}"))]);
        }
        Err(other) => {
            let precise = object.read::<FleetHealthCheck>().err();
            return Err(vec![precise.unwrap_or_else(|| object.finding(Severity::Error, "", crate::chain(&other)))]);
        }
    };
    validate::validate(&definition).map_err(|problems| {
        let finding = |problem: validate::Problem| object.finding(Severity::Error, &problem.field, problem.message);
        problems.into_iter().map(finding).collect::<Vec<_>>()
    })?;
    Ok(definition)
}

/// The definitions in files, all of them sound; else every problem is written to the error stream.
pub(crate) fn definitions(files: &[PathBuf], streams: &mut Streams<'_>) -> Result<Vec<FleetHealthCheck>, Error> {
    let mut findings = Vec::new();
    let mut definitions = Vec::new();
    let mut seen = BTreeMap::new();
    for input in read(files, streams.input)? {
        for object in objects(&input, &mut findings) {
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
    if !findings.is_empty() {
        for finding in &findings {
            writeln!(streams.err, "{finding}")?;
        }
        return Err(DocumentsError::Problems { count: findings.len() }.into());
    }
    if definitions.is_empty() { Err(DocumentsError::None.into()) } else { Ok(definitions) }
}
