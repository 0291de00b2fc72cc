//! The hub's own certification authority: it vouches for the hub's listeners and for each agent.
//!
//! Its key never leaves the data directory, where [`authority`](crate::authority) keeps it. Of a signing request only the public key counts: names and rights in a
//! certificate are the hub's words. Times are arguments.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use active_monitor_core::names::IDENTITY_PREFIX;
use active_monitor_runtime::tls::Identity;
use jiff::Timestamp;
use rand::RngCore;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Life of an agent's certificate.
pub const AGENT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Life of a listener's certificate.
pub const SERVER_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates begin this much earlier than they are made, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Of a short life, only this part.
const BACKDATE_PART: u32 = 4;
/// The CA's certificate in the data directory.
pub const CERTIFICATE_FILE: &str = "ca.crt";
/// The CA's key in the data directory.
pub const KEY_FILE: &str = "ca.key";

/// Why the CA cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of it cannot be read or written.
    #[error("{path} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate file is no certificate.
    #[error("the CA's certificate is no PEM certificate")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    /// Key and certificate do not belong together.
    #[error("the CA's key is not that of its certificate")]
    Mismatch,
    /// A key or certificate cannot be made or read.
    #[error("a key or certificate cannot be made")]
    Generate(#[source] rcgen::Error),
    /// The signing request cannot be read, or its signature is not by its key.
    #[error("the signing request is not valid")]
    Request(#[source] rcgen::Error),
    /// A name that should stand in a certificate cannot.
    #[error("{name:?} cannot stand in a certificate")]
    Name {
        /// The name.
        name: String,
    },
}

/// The authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    agent_life: Duration,
}

/// A signing request whose signature was checked.
pub struct SigningRequest(CertificateSigningRequestParams);

impl SigningRequest {
    /// Reads a PKCS#10 request (DER).
    ///
    /// # Errors
    /// It cannot be read, or it is not signed by its own key.
    pub fn parse(der: &[u8]) -> Result<SigningRequest, CaError> {
        let der = CertificateSigningRequestDer::from(der);
        CertificateSigningRequestParams::from_der(&der).map(SigningRequest).map_err(CaError::Request)
    }

    /// SHA-256 of the public key.
    pub fn key_hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.public_key.der_bytes()).into()
    }
}

impl Ca {
    /// Reads a CA from the text of its files.
    ///
    /// # Errors
    /// They are no certificate and its key.
    pub fn read(pem: &str, key: &str) -> Result<Ca, CaError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(CaError::Certificate)?;
        let key = KeyPair::from_pem(key).map_err(CaError::Generate)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| CaError::Mismatch)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(CaError::Generate)?;
        Ok(Ca { issuer, certificate, pem: pem.to_owned(), agent_life: AGENT_LIFE })
    }

    /// The same CA, whose certificates for agents last so long.
    #[must_use]
    pub fn with_agent_life(self, agent_life: Duration) -> Ca {
        Ca { agent_life, ..self }
    }

    /// Life of an agent's certificate.
    pub fn agent_life(&self) -> Duration {
        self.agent_life
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When the CA ends.
    pub fn not_after(&self) -> Timestamp {
        let parsed = X509Certificate::from_der(&self.certificate).ok();
        let seconds = parsed.map(|(_, parsed)| parsed.validity().not_after.timestamp());
        seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(Timestamp::MAX)
    }

    /// SHA-256 of the CA's certificate (DER), in hex: what tokens carry.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    /// A certificate (PEM) for the agent of a cluster.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn issue_agent(&self, cluster: &str, request: &SigningRequest, now: Timestamp) -> Result<String, CaError> {
        let mut params = params(cluster, now, self.agent_life);
        params.subject_alt_names = vec![SanType::URI(ia5(&format!("{IDENTITY_PREFIX}{cluster}"))?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&request.0.public_key, &self.issuer).map_err(CaError::Generate)?;
        Ok(certificate.pem())
    }

    /// A new key and certificate for the hub's listeners, good for each of `names` (DNS names and IP addresses).
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> Result<Identity, CaError> {
        let mut params = params("active-monitor-hub", now, SERVER_LIFE);
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(ia5(name)?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(CaError::Generate)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Generate)?;
        Ok(Identity {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }
}

/// Who presents a certificate. That it is by this CA has been checked by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Name of the cluster.
    pub cluster: String,
    /// When the certificate was made, whole seconds.
    pub issued_at: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// SHA-256 of its public key.
    pub key_hash: [u8; 32],
}

/// Reads the identity from an agent's certificate: its only URI SAN. None for any other certificate.
pub fn identity(certificate: &CertificateDer<'_>) -> Option<AgentIdentity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = &parsed.subject_alternative_name().ok()??.value.general_names;
    let [GeneralName::URI(uri)] = names.as_slice() else { return None };
    let cluster = uri.strip_prefix(IDENTITY_PREFIX).filter(|name| !name.is_empty())?;
    let validity = parsed.validity();
    let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let span = Duration::from_secs(u64::try_from(ends.checked_sub(begins)?).ok()?);
    let backdate = BACKDATE.min(Duration::from_secs(span.as_secs() / u64::from(BACKDATE_PART + 1)));
    Some(AgentIdentity {
        cluster: cluster.to_owned(),
        issued_at: Timestamp::from_second(begins).ok()?.checked_add(backdate).ok()?,
        not_after: Timestamp::from_second(ends).ok()?,
        key_hash: Sha256::digest(&parsed.public_key().subject_public_key.data).into(),
    })
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, CaError> {
    text.try_into().map_err(|_| CaError::Name { name: text.to_owned() })
}

fn params(common_name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let backdate = BACKDATE.min(Duration::from_secs(life.as_secs() / u64::from(BACKDATE_PART)));
    params.not_before = epoch + now.saturating_sub(backdate);
    params.not_after = epoch + now + life;
    let mut serial = [0_u8; 16];
    rand::rng().fill_bytes(&mut serial);
    // A serial number is positive.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

/// A new CA: certificate and key, as PEM.
pub(crate) fn create(now: Timestamp) -> Result<(String, String), CaError> {
    let key = KeyPair::generate().map_err(CaError::Generate)?;
    let mut params = params("Active-Monitor Fleet CA", now, CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(CaError::Generate)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a file that only this user can read, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> SigningRequest {
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let der = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        SigningRequest::parse(der.der()).unwrap()
    }

    fn new_ca(now: Timestamp) -> Ca {
        let (pem, key) = create(now).unwrap();
        Ca::read(&pem, &key).unwrap()
    }

    #[test]
    fn a_key_of_another_ca_is_not_taken() {
        let now = Timestamp::now();
        let ((pem, _), (_, key)) = (create(now).unwrap(), create(now).unwrap());
        assert!(matches!(Ca::read(&pem, &key), Err(CaError::Mismatch)));
    }

    #[test]
    fn of_a_request_only_the_key_is_taken() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let ca = new_ca(now);
        let request = request();
        let pem = ca.issue_agent("berlin-1", &request, now).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let found = identity(&der).unwrap();
        assert_eq!((found.cluster.as_str(), found.issued_at), ("berlin-1", now));
        assert_eq!(found.not_after.as_second() - now.as_second(), 24 * 3600);
        assert_eq!(found.key_hash, request.key_hash());
        let ca = ca.with_agent_life(Duration::from_secs(62));
        let pem = ca.issue_agent("berlin-1", &request, now).unwrap();
        let der_of_short = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let short = identity(&der_of_short).unwrap();
        assert_eq!((short.issued_at, short.not_after.as_second() - now.as_second()), (now, 62));
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(identity(ca.certificate()).is_none());
    }

    #[test]
    fn a_request_with_a_wrong_signature_is_refused() {
        let params = CertificateParams::new(vec![]).unwrap();
        let der = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let mut bytes = der.der().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(SigningRequest::parse(&bytes), Err(CaError::Request(_))));
    }
}
