//! The objects in a YAML text, and where each of their fields stands. Pure.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::definition::{FleetHealthCheck, parse, validate};
use position::{Node, Position};

mod position;

/// A file's text, and the name that it is shown under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its path, or what stands for it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Whether something keeps an object from working.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but it does nothing either.
    Warning,
}

/// Something about one field, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Its name.
    pub file: String,
    /// From 1; 0 where it is about no line of it.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// Whether it can stay.
    pub severity: Severity,
    /// Empty where it is about the whole text.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { file, line, column, severity, field, message } = self;
        let severity = match severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        let colon = if field.is_empty() { "" } else { ": " };
        let place = if *line == 0 { file.clone() } else { format!("{file}:{line}:{column}") };
        let text = format!("{place}: {severity}{field}{colon}{message}");
        // It comes from a file: it must not steer a terminal or break a line.
        f.write_str(&text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>())
    }
}

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Object {
    /// What is in it.
    pub value: Value,
    file: String,
    document: Arc<Node>,
    /// Path of the object in its document: empty, or as `items[0]`.
    path: String,
}

impl Object {
    /// An object that was read from no text, so that its fields are on no line; it is shown under this name.
    pub fn of_value(value: Value, name: &str) -> Object {
        Object { value, file: name.to_owned(), document: Arc::new(Node::nowhere()), path: String::new() }
    }

    /// Its `apiVersion`; empty where it has none.
    pub fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }

    /// Its `kind`; empty where it has none.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// The name of its file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// About a field of this object.
    pub fn finding(&self, severity: Severity, field: &str, message: impl Into<String>) -> Finding {
        let dot = if self.path.is_empty() || field.is_empty() { "" } else { "." };
        let field = format!("{}{dot}{field}", self.path);
        let Position { line, column } = self.document.find(&field);
        Finding { file: self.file.clone(), line, column, severity, field, message: message.into() }
    }

    /// What is wrong with a field of this object, and what is allowed.
    pub fn error(&self, field: &str, message: impl Into<String>) -> Finding {
        self.finding(Severity::Error, field, message)
    }

    /// Reads the object as `T`; what is wrong is said of the field that it was found in.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let field = error.path().to_string();
            let field = if field == "." { String::new() } else { field };
            self.finding(Severity::Error, &field, error.inner().to_string())
        })
    }
}

/// The objects of a file; those in a List each for itself. What is no object is added to the findings.
pub fn objects(input: &Input, findings: &mut Vec<Finding>) -> Vec<Object> {
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
                let whole = Object { value, file: file.clone(), document: Arc::new(region.root), path: String::new() };
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
        document: Arc::clone(&whole.document),
        path: format!("items[{index}]"),
    };
    items.iter().enumerate().map(item).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// Reads a definition as the hub does, with every problem that the hub would find.
///
/// # Errors
/// Every problem.
pub fn definition(object: &Object) -> Result<FleetHealthCheck, Vec<Finding>> {
    let definition = match parse::from_value(object.value.clone()) {
        Ok(definition) => definition,
        Err(parse::ParseError::UnknownField { field, allowed }) => {
            return Err(vec![object.finding(Severity::Error, &field, format!("unknown field; allowed are {allowed}"))]);
        }
        Err(other) => {
            let precise = object.read::<FleetHealthCheck>().err();
            return Err(vec![precise.unwrap_or_else(|| object.finding(Severity::Error, "", chain(&other)))]);
        }
    };
    validate::validate(&definition).map_err(|problems| {
        let finding = |problem: validate::Problem| object.finding(Severity::Error, &problem.field, problem.message);
        problems.into_iter().map(finding).collect::<Vec<_>>()
    })?;
    Ok(definition)
}
