//! The text of a workflow, inline or from a URL.

use active_monitor_core::manifest::Manifest;

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(manifest) = Manifest::parse(text) {
        let _ = manifest.deadline_seconds();
    }
}
