//! A HealthCheck as an API server may have it, whoever wrote it.

#![no_main]

use active_monitor_core::check::Check;
use active_monitor_core::healthcheck::HealthCheck;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(resource) = serde_json::from_slice::<HealthCheck>(bytes) {
        let _ = Check::parse(&resource);
    }
});
