//! The API server's audit log, read back: who asked for what, when, with what answer.
//!
//! Events follow `audit.k8s.io/v1`; one is written for each request, when its answer is complete, before the client
//! has all of it. A watch is logged when it ends.

use std::{fs, io, path::Path};

use jiff::Timestamp;
use serde::Deserialize;

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The request's path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Such as `get`, `list`, `watch`, `create`, `patch`.
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// The client's name for itself.
    #[serde(default)]
    pub user_agent: String,
    /// What it was about; none for paths such as `/readyz`.
    pub object_ref: Option<ObjectRef>,
    /// The answer; none when the connection broke first.
    pub response_status: Option<ResponseStatus>,
    /// When the request came in.
    pub request_received_timestamp: Timestamp,
    /// When it was done.
    pub stage_timestamp: Timestamp,
}

/// The authenticated user of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Such as `system:serviceaccount:health:agent`.
    pub username: String,
    /// The groups it is in.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// The object or collection of a request; a field that does not apply is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// The plural, such as `workflows`.
    pub resource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The API group; empty for the core group.
    pub api_group: String,
    /// Such as `v1`.
    pub api_version: String,
    /// Such as `status`.
    pub subresource: String,
}

/// The answer to a request.
#[derive(Clone, Debug, Deserialize)]
pub struct ResponseStatus {
    /// The HTTP status code.
    pub code: u16,
}

impl Event {
    /// Whether it is about this resource, by its plural.
    pub fn is(&self, verb: &str, resource: &str) -> bool {
        self.verb == verb && self.object_ref.as_ref().is_some_and(|object| object.resource == resource)
    }

    /// The HTTP status code of the answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        self.response_status.as_ref().map(|status| status.code)
    }
}

/// Reads all events of a log; a line that is still being written is left for the next reading.
///
/// # Errors
/// When the file cannot be read, or a complete line is no event.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    parse(&fs::read(path)?)
}

fn parse(bytes: &[u8]) -> io::Result<Vec<Event>> {
    let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes[..complete].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/apis/argoproj.io/v1alpha1/namespaces/health/workflows","verb":"create","user":{"username":"admin","groups":["system:masters"]},"sourceIPs":["127.0.0.1"],"userAgent":"agent/1","objectRef":{"resource":"workflows","namespace":"health","name":"w","apiGroup":"argoproj.io","apiVersion":"v1alpha1"},"responseStatus":{"metadata":{},"code":201},"requestReceivedTimestamp":"2026-07-01T10:00:00.000001Z","stageTimestamp":"2026-07-01T10:00:00.002001Z"}"#;

    #[test]
    fn reads_complete_lines_and_leaves_a_partial_one() {
        let text = format!("{LINE}\n{LINE}\n{}", &LINE[..200]);
        let events = parse(text.as_bytes()).unwrap();
        assert_eq!(events.len(), 2);
        assert!(events[0].is("create", "workflows"));
        assert_eq!(events[0].code(), Some(201));
        assert_eq!(events[0].stage_timestamp.duration_since(events[0].request_received_timestamp).as_micros(), 2_000);
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(b"nonsense\n").is_err());
    }
}
