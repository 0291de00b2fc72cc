//! Whose certificates are taken, by their age.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

struct Ca(CertificateDer<'static>, Issuer<'static, KeyPair>);

impl Ca {
    fn new() -> Ca {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Ca(certificate, Issuer::new(params, key))
    }

    /// Good for a day from so many hours after the beginning of 2026 on.
    fn issue(&self, hours: u32) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1) + HOUR * hours;
        params.not_after = params.not_before + HOUR * 24;
        params.signed_by(&KeyPair::generate().unwrap(), &self.1).unwrap().der().clone()
    }
}

#[test]
fn a_certificate_that_begins_later_is_taken_and_one_of_another_ca_is_not() {
    install_crypto_provider();
    let (ca, other) = (Ca::new(), Ca::new());
    // The beginning of 2026, and 12 hours.
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600) + HOUR * 12);
    let taken = |is_mandatory, certificate: &CertificateDer<'_>| {
        let verifier = verifier(std::slice::from_ref(&ca.0), is_mandatory).unwrap();
        assert_eq!(verifier.client_auth_mandatory(), is_mandatory);
        verifier.verify_client_cert(certificate, &[], now).is_ok()
    };
    for is_mandatory in [true, false] {
        assert!(taken(is_mandatory, &ca.issue(0)));
        assert!(taken(is_mandatory, &ca.issue(13)), "made by a clock that was ahead");
        for hours in [0, 13] {
            assert!(!taken(is_mandatory, &other.issue(hours)), "{hours}");
        }
    }
    let over = Ca::issue(&ca, 0);
    let later = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600) + HOUR * 25);
    for (is_mandatory, is_taken) in [(true, false), (false, true)] {
        let verifier = verifier(std::slice::from_ref(&ca.0), is_mandatory).unwrap();
        assert_eq!(verifier.verify_client_cert(&over, &[], later).is_ok(), is_taken);
    }
}
