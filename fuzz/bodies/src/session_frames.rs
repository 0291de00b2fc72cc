//! Frames of the session, as bytes from the network: hub and agent each refuse what is no frame.

use active_monitor_core::session::frame::{AgentFrame, HubFrame};
use active_monitor_proto::v1;
use prost::Message;

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    if let Ok(frame) = v1::AgentFrame::decode(bytes) {
        let _ = AgentFrame::try_from(frame);
    }
    if let Ok(frame) = v1::HubFrame::decode(bytes) {
        let _ = HubFrame::try_from(frame);
    }
}
