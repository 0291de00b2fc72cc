//! The API server's audit log, read back: who asked for what, when, with what answer.
//!
//! Events follow `audit.k8s.io/v1`; one is written for each request, when its answer is complete, before the client
//! has all of it. A watch is logged when it ends.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use parking_lot::Mutex;
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

/// A log that goes on: each line is parsed once, however often a test asks.
#[derive(Debug)]
pub struct Log(Mutex<(Tail, Vec<Event>)>);

impl Log {
    /// The log in this file.
    pub fn new(path: &Path) -> Log {
        Log(Mutex::new((Tail::new(path), Vec::new())))
    }

    /// All events so far; a line that is still being written is left for the next reading.
    ///
    /// # Errors
    /// When the file cannot be read, or a complete line is no event.
    pub fn events(&self) -> io::Result<Vec<Event>> {
        let mut known = self.0.lock();
        let (tail, events) = &mut *known;
        events.extend(tail.read()?);
        Ok(events.clone())
    }
}

/// Reads a log that grows: each event once.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
}

impl Tail {
    /// From the log's beginning.
    pub fn new(path: &Path) -> Tail {
        Tail { path: path.to_owned(), offset: 0 }
    }

    /// The events since the last reading; a line that is still being written is left for the next one.
    ///
    /// # Errors
    /// When the file cannot be read, or a complete line is no event.
    pub fn read(&mut self) -> io::Result<Vec<Event>> {
        let mut log = File::open(&self.path)?;
        log.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        let events = parse(&bytes)?;
        self.offset += complete(&bytes) as u64;
        Ok(events)
    }
}

fn parse(bytes: &[u8]) -> io::Result<Vec<Event>> {
    let lines = bytes[..complete(bytes)].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
}

/// The length of the complete lines.
fn complete(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/apis/argoproj.io/v1alpha1/namespaces/health/workflows","verb":"create","user":{"username":"admin","groups":["system:masters"]},"sourceIPs":["127.0.0.1"],"userAgent":"agent/1","objectRef":{"resource":"workflows","namespace":"health","name":"w","apiGroup":"argoproj.io","apiVersion":"v1alpha1"},"responseStatus":{"metadata":{},"code":201},"requestReceivedTimestamp":"2026-07-01T10:00:00.000001Z","stageTimestamp":"2026-07-01T10:00:00.002001Z"}"#;

    #[test]
    fn reads_complete_lines_once_and_leaves_a_partial_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = Log::new(&path);
        assert!(log.events().is_err());
        std::fs::write(&path, "").unwrap();
        assert!(log.events().unwrap().is_empty());
        std::fs::write(&path, format!("{LINE}\n{LINE}\n{}", &LINE[..200])).unwrap();
        let events = log.events().unwrap();
        assert_eq!(events.len(), 2);
        assert!(events[0].is("create", "workflows"));
        assert_eq!(events[0].code(), Some(201));
        assert_eq!(events[0].stage_timestamp.duration_since(events[0].request_received_timestamp).as_micros(), 2_000);
        std::fs::write(&path, format!("{LINE}\n{LINE}\n{LINE}\n")).unwrap();
        assert_eq!(log.events().unwrap().len(), 3);
        assert!(parse(b"nonsense\n").is_err());
    }

    #[test]
    fn a_tail_gives_each_event_once() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail::new(log.path());
        assert!(tail.read().unwrap().is_empty());
        let text = format!("{LINE}\n{LINE}\n{LINE}\n");
        for (written, new) in [(LINE.len() + 30, 1), (LINE.len() + 40, 0), (text.len(), 2), (text.len(), 0)] {
            std::fs::write(log.path(), &text[..written]).unwrap();
            assert_eq!(tail.read().unwrap().len(), new);
        }
    }
}
