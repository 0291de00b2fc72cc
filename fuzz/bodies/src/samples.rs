//! The JSON that a workflow publishes as custom metrics: bounded, whatever it says.

use active_monitor_core::samples::{MAX_SAMPLES, read};
use active_monitor_core::workflow::Parameter;

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parameter = Parameter { name: "any".into(), value: Some(text.into()) };
    let samples = read(&[parameter]);
    assert!(samples.samples.len() <= MAX_SAMPLES);
    assert!(samples.samples.iter().all(|sample| sample.value.is_finite()));
}
