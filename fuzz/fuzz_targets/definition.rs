//! A FleetHealthCheck, and what a cluster would get of it.

#![no_main]

use active_monitor_core::definition::parse::parse;
use active_monitor_core::definition::validate::validate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(definition) = parse(text) {
        let _ = validate(&definition);
    }
});
