//! The text of a workflow, inline or from a URL.

#![no_main]

use active_monitor_core::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(manifest) = Manifest::parse(text) {
        let _ = manifest.deadline_seconds();
    }
});
