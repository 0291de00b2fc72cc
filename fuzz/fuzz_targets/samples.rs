//! The JSON that a workflow publishes as custom metrics: bounded, whatever it says.

#![no_main]

use active_monitor_core::samples::{MAX_SAMPLES, read};
use active_monitor_core::workflow::Parameter;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parameter = Parameter { name: "any".into(), value: Some(text.into()) };
    let samples = read(&[parameter]);
    assert!(samples.samples.len() <= MAX_SAMPLES);
    assert!(samples.samples.iter().all(|sample| sample.value.is_finite()));
});
