#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| active_monitor_fuzz_bodies::samples::body(bytes));
