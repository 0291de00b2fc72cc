//! What comes of an agent that breaks the rules of a session.

use active_monitor_core::session::hub::SessionError;
use tonic::Status;

use crate::refusals::Refused;

/// What it counts as.
pub(super) fn refused(error: &SessionError) -> Refused {
    match error {
        SessionError::WrongCluster { .. } | SessionError::BadHello { .. } => Refused::Hello,
        SessionError::TooManyChecks | SessionError::TooManyUnacked { .. } => Refused::AgentLimit,
        SessionError::OutOfOrder { .. }
        | SessionError::SeqNotGrowing { .. }
        | SessionError::SeqTooHigh { .. }
        | SessionError::UnknownNonce { .. }
        | SessionError::SelfTestNotAsked
        | SessionError::LackingTooOften
        | SessionError::UnknownCommand { .. } => Refused::Protocol,
    }
}

/// What the agent is told.
pub(super) fn status(error: &SessionError) -> Status {
    let text = error.to_string();
    match error {
        SessionError::WrongCluster { .. } => Status::permission_denied(text),
        SessionError::TooManyChecks | SessionError::TooManyUnacked { .. } => Status::resource_exhausted(text),
        SessionError::BadHello { .. } => Status::invalid_argument(text),
        SessionError::OutOfOrder { .. }
        | SessionError::SeqNotGrowing { .. }
        | SessionError::SeqTooHigh { .. }
        | SessionError::UnknownNonce { .. }
        | SessionError::SelfTestNotAsked
        | SessionError::LackingTooOften
        | SessionError::UnknownCommand { .. } => Status::failed_precondition(text),
    }
}
