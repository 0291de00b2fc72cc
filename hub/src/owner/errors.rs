//! Why the owner did not do what it was asked for.

use active_monitor_core::fleet::Refusal;
use serde::{Deserialize, Serialize};

use crate::revocations::RevocationError;
use crate::store::StoreError;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such object.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// `cluster` or `definition`.
        kind: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// It clashes with what is there.
    #[error("{0}")]
    Conflict(String),
    /// There is not what the caller expects.
    #[error("{0}")]
    Unexpected(String),
    /// The request makes no sense; says which field and what is allowed.
    #[error("{0}")]
    Invalid(String),
    /// The store failed: nothing was changed.
    #[error("the change could not be stored")]
    Store(#[source] StoreError),
    /// It could not be kept that something is revoked: nothing was changed.
    #[error("the revocation could not be kept")]
    Revocation(#[source] RevocationError),
    /// The hub is stopping.
    #[error("the hub is stopping")]
    Stopping,
}

/// Why a session is not opened.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// The agent is refused.
    Refused(Refusal),
    /// The store failed: no replica has the session.
    Store(StoreError),
    /// The hub is stopping.
    Stopping,
}

/// Why an agent gave no answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Undelivered {
    /// There is no session: nothing was sent.
    #[error("its agent is not connected")]
    NotConnected,
    /// The session ended first.
    #[error("the connection closed before the answer; it may be done all the same")]
    Closed,
    /// It did not reach the replica of the hub that has the session.
    #[error("it could not be passed on to the replica of the hub that its agent is connected to")]
    NotPassedOn,
}
