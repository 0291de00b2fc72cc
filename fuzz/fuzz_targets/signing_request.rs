//! PKCS#10 requests, as whoever has a token or a certificate may send them.

#![no_main]

use active_monitor_hub::ca::SigningRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    if let Ok(request) = SigningRequest::parse(der) {
        let _ = request.key_hash();
    }
});
