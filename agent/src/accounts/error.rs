//! Why an account does not have its rights.

use active_monitor_core::rbac::Refusal;

use crate::request::RequestError;

/// Why an account does not have its rights.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The API server refuses, and would again: says who refused what, and what lifts it.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// It could not be asked, or something changed in between: the same request may pass later.
    #[error(transparent)]
    Request(#[from] RequestError),
}
