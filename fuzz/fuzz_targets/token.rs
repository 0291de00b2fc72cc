//! Enrolment tokens as people paste them.

#![no_main]

use active_monitor_agent::enrol::Token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(token) = Token::parse(text) {
        let secret = text.trim().split('.').nth(1).unwrap_or_default();
        assert!(!format!("{token:?}").contains(secret), "a log must not have it");
    }
});
