//! Signing requests and certificates (DER) as a caller sends them: of a request only the key counts.

use std::sync::LazyLock;

use active_monitor_hub::ca::{Ca, SigningRequest, identity};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

static CA: LazyLock<Ca> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = params.self_signed(&key).expect("a certificate");
    Ca::read(&certificate.pem(), &key.serialize_pem()).expect("a CA")
});

/// Runs the target on one input: as a request, and as a certificate.
pub fn body(bytes: &[u8]) {
    if let Some(found) = identity(&CertificateDer::from(bytes)) {
        assert!(!found.cluster.is_empty() && found.issued_at <= found.not_after);
    }
    let Ok(request) = SigningRequest::parse(bytes) else { return };
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let pem = CA.issue_agent("eu-1", &request, now).expect("a key that signed its request can be vouched for");
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let found = identity(&certificate).expect("an agent's certificate");
    assert_eq!((found.cluster.as_str(), found.issued_at, found.key_hash), ("eu-1", now, request.key_hash()));
}
