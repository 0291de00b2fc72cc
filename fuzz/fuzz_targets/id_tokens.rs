#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| active_monitor_fuzz_bodies::id_tokens::body(bytes));
