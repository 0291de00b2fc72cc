//! A HealthCheck as an API server may have it, whoever wrote it.

use active_monitor_core::check::Check;
use active_monitor_core::healthcheck::HealthCheck;

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    if let Ok(resource) = serde_json::from_slice::<HealthCheck>(bytes) {
        let _ = Check::parse(&resource);
    }
}
