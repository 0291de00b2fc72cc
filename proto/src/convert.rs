//! Conversions between the wire's messages and the domain's frames.
//!
//! Towards the wire they cannot fail: texts for people that are too long are cut, so that one odd check never ends a
//! session. From the wire everything is checked, and the error names the field: the peer may be of another version, or
//! no friend at all. What only a newer version can mean costs no session: fields are passed over, a frame of an unknown
//! kind is to be ignored, and an unknown number in an enum costs what it stands in, as docs/versions.md says.

mod check;
mod command;
mod frame;
mod run;

use jiff::Timestamp;
use thiserror::Error;

/// The longest text of any field but messages, bytes.
pub const MAX_TEXT_BYTES: usize = 4096;
/// The longest message of a run, check or definition, bytes.
pub const MAX_MESSAGE_BYTES: usize = active_monitor_core::run::MAX_MESSAGE_BYTES;
/// The longest log tail of a run, bytes.
pub const MAX_LOG_TAIL_BYTES: usize = active_monitor_core::run::MAX_LOG_TAIL_BYTES;
/// The most custom metrics of one check.
pub const MAX_SAMPLES: usize = 50;
/// The most pauses that concern one check: of either subject, one of its own, its namespace's and its cluster's.
pub const MAX_PAUSES: usize = 6;
/// Checks that a check may depend on.
pub const MAX_DEPENDENCIES: usize = active_monitor_core::dependency::MAX_PARENTS;
/// The largest HealthCheck of a definition, bytes of JSON.
pub const MAX_HEALTH_CHECK_BYTES: usize = 256 * 1024;

/// What is wrong with a message from the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// `Message.field`.
        field: &'static str,
    },
    /// An enum is unspecified or has a number that this version does not know.
    #[error("{field} has the unknown value {value}")]
    Unknown {
        /// `Message.field`.
        field: &'static str,
        /// The number on the wire.
        value: i32,
    },
    /// A text is longer than its limit.
    #[error("{field} is {bytes} bytes long, the limit is {limit}")]
    TooLong {
        /// `Message.field`.
        field: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A list is longer than its limit.
    #[error("{field} has {count} items, the limit is {limit}")]
    TooMany {
        /// `Message.field`.
        field: &'static str,
        /// Its length.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A time outside the calendar, or a number that is not finite.
    #[error("{field} is out of range")]
    OutOfRange {
        /// `Message.field`.
        field: &'static str,
    },
    /// The frame is of a kind that this version does not know, or empty. It is to be ignored and counted.
    #[error("the frame is of an unknown kind")]
    UnknownFrame,
}

impl WireError {
    /// Whether a newer peer may well have meant it: an enum has a number that is not known here.
    pub fn is_of_a_newer_version(&self) -> bool {
        match self {
            WireError::Unknown { value, .. } => *value > 0,
            WireError::UnknownFrame => true,
            WireError::Missing { .. }
            | WireError::TooLong { .. }
            | WireError::TooMany { .. }
            | WireError::OutOfRange { .. } => false,
        }
    }
}

/// The wire's form of an instant.
pub fn to_wire_time(time: Timestamp) -> prost_types::Timestamp {
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}

/// An instant from the wire; `None` outside the years -9999 to 9999.
pub fn from_wire_time(time: prost_types::Timestamp) -> Option<Timestamp> {
    if !(0..1_000_000_000).contains(&time.nanos) {
        return None;
    }
    Timestamp::new(time.seconds, time.nanos).ok()
}

fn time(field: &'static str, value: Option<prost_types::Timestamp>) -> Result<Timestamp, WireError> {
    optional_time(field, value)?.ok_or(WireError::Missing { field })
}

fn optional_time(field: &'static str, value: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, WireError> {
    value.map(|time| from_wire_time(time).ok_or(WireError::OutOfRange { field })).transpose()
}

fn bounded(field: &'static str, value: String, limit: usize) -> Result<String, WireError> {
    if value.len() > limit { Err(WireError::TooLong { field, bytes: value.len(), limit }) } else { Ok(value) }
}

fn text(field: &'static str, value: String) -> Result<String, WireError> {
    bounded(field, value, MAX_TEXT_BYTES)
}

fn message(field: &'static str, value: String) -> Result<String, WireError> {
    bounded(field, value, MAX_MESSAGE_BYTES)
}

/// A text that identifies something: bounded, and not empty.
fn identity(field: &'static str, value: String) -> Result<String, WireError> {
    if value.is_empty() { Err(WireError::Missing { field }) } else { text(field, value) }
}

/// Cuts a text to `limit` bytes at a character's boundary.
fn cut(mut value: String, limit: usize) -> String {
    value.truncate(value.floor_char_boundary(limit));
    value
}

/// The items that this version can read: what only a newer one knows is left out, anything else that is wrong is refused.
fn known<T, U>(items: Vec<T>) -> Result<Vec<U>, WireError>
where
    U: TryFrom<T, Error = WireError>,
{
    let read = items.into_iter().map(U::try_from);
    read.filter(|item| !item.as_ref().is_err_and(WireError::is_of_a_newer_version)).collect()
}

fn list<T, U>(items: Vec<T>) -> Result<Vec<U>, WireError>
where
    U: TryFrom<T, Error = WireError>,
{
    items.into_iter().map(U::try_from).collect()
}
