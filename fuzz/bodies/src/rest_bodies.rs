//! The bodies of the REST API, each text as each of them.

use active_monitor_core::care::{Window, WindowSpec};
use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::definition::validate::validate;
use active_monitor_core::view::{
    AcknowledgementAdd, CaRoll, ClusterAdd, ClusterPatch, CommandRequest, Login, TokenAdd,
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    let _ = (read::<ClusterAdd>(bytes), read::<ClusterPatch>(bytes), read::<Login>(bytes), read::<TokenAdd>(bytes));
    let _ = (read::<AcknowledgementAdd>(bytes), read::<CaRoll>(bytes));
    if let Some(request) = read::<CommandRequest>(bytes) {
        let _ = request.order("ann");
    }
    if let Some(definition) = read::<FleetHealthCheck>(bytes) {
        let _ = validate(&definition);
    }
    if let Some(window) = read::<WindowSpec>(bytes).and_then(|spec| Window::parse(spec).ok()) {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        assert!(window.ends(now).is_none_or(|end| end > now));
        assert!(window.changes(now).is_none_or(|change| change > now));
    }
}
