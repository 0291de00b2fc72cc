//! A FleetHealthCheck, and what a cluster would get of it.

use active_monitor_core::definition::parse::parse;
use active_monitor_core::definition::validate::validate;

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(definition) = parse(text) {
        let _ = validate(&definition);
    }
}
