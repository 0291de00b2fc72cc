//! The agent's certificate, its key and the CAs it trusts: one file, replaced as a whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use active_monitor_core::names::IDENTITY_PREFIX;
use jiff::{SignedDuration, Timestamp};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::link::dial::{self, DialError};

const FILE: &str = "identity.json";

/// Who the agent is to the hub, and whom it takes for the hub. The key is in here: no `Debug`, no log.
#[derive(Clone)]
pub struct Identity {
    stored: Stored,
    cluster: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    /// PEM, the leaf first.
    certificate: String,
    /// PEM.
    key: String,
    /// PEM, any number.
    ca: String,
    /// Of the token that it began with: a token that is not this one is a wish to enrol anew.
    token_sha256: String,
    /// SHA-256 of the others, hex: a certificate with one bit flipped may still be read, and name another cluster. What was
    /// stored before there were checksums has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    checksum: String,
}

impl Stored {
    fn sealed(self) -> Stored {
        Stored { checksum: self.digest(), ..self }
    }

    fn digest(&self) -> String {
        let Stored { certificate, key, ca, token_sha256, checksum: _ } = self;
        let mut digest = Sha256::new();
        for text in [certificate, key, ca, token_sha256] {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        }
        hex::encode(digest.finalize())
    }
}

/// What is wrong with an identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error("{FILE} could not be read or written")]
    Io(#[from] io::Error),
    /// The file is damaged.
    #[error("{FILE} is damaged")]
    Format(#[from] serde_json::Error),
    /// The file is damaged, though it can be read.
    #[error("{FILE} is damaged: it is not what was stored")]
    Checksum,
    /// No certificate, or one that does not parse.
    #[error("the certificate cannot be read")]
    Certificate,
    /// The certificate names no cluster of this fleet.
    #[error("the certificate names no cluster")]
    Name,
    /// No key can be made.
    #[error("the key could not be made")]
    Key(#[source] rcgen::Error),
}

impl Identity {
    pub(super) fn new(
        certificate: String,
        key: String,
        ca: String,
        token_sha256: String,
    ) -> Result<Identity, IdentityError> {
        Identity::read(Stored { certificate, key, ca, token_sha256, checksum: String::new() }.sealed())
    }

    /// What `dir` holds, if anything.
    pub(crate) fn load(dir: &Path) -> Result<Option<Identity>, IdentityError> {
        match fs::read(dir.join(FILE)) {
            Ok(bytes) => Identity::read(serde_json::from_slice(&bytes)?).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// An identity in the form of the file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Identity, IdentityError> {
        Identity::read(serde_json::from_slice(bytes)?)
    }

    /// Replaces what `dir` holds. Only the owner can read it, at every moment.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), IdentityError> {
        Ok(write_private(dir, FILE, &serde_json::to_vec(&self.stored)?)?)
    }

    /// The name in the certificate.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// When two thirds of its life are over.
    pub(crate) fn renew_at(&self) -> Timestamp {
        self.not_before + self.life() * 2 / 3
    }

    pub(crate) fn life(&self) -> SignedDuration {
        self.not_after.duration_since(self.not_before)
    }

    pub(crate) fn token_digest(&self) -> &str {
        &self.stored.token_sha256
    }

    /// Tells this certificate from every other: SHA-256 of its PEM, hex.
    pub(super) fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.stored.certificate.as_bytes()))
    }

    /// TLS as this identity, trusting its CAs and no others.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, DialError> {
        let chain = certificates(&self.stored.certificate);
        let key = PrivateKeyDer::from_pem_slice(self.stored.key.as_bytes()).map_err(DialError::Pem)?;
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.stored.ca) {
            roots.add(ca).map_err(DialError::Tls)?;
        }
        let verifier = super::web_pki(roots).map_err(DialError::Tls)?;
        dial::client_config(|tls| {
            tls.with_webpki_verifier(verifier).with_client_auth_cert(chain, key).map_err(DialError::Tls)
        })
    }

    fn read(stored: Stored) -> Result<Identity, IdentityError> {
        if !stored.checksum.is_empty() && stored.checksum != stored.digest() {
            return Err(IdentityError::Checksum);
        }
        let chain = certificates(&stored.certificate);
        let leaf = chain.first().ok_or(IdentityError::Certificate)?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| IdentityError::Certificate)?;
        let cluster = cluster_name(&leaf).ok_or(IdentityError::Name)?;
        let validity = leaf.validity();
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| IdentityError::Certificate);
        let (not_before, not_after) = (time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?);
        Ok(Identity { stored, cluster, not_before, not_after })
    }
}

/// Writes a file as a whole, on disk when this returns, for nobody but its owner.
pub(super) fn write_private(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let half_made = dir.join(format!("{name}.tmp"));
    match fs::remove_file(&half_made) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half_made)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&half_made, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

/// The cluster in the URI SAN: exactly one URI, exactly this form.
fn cluster_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        Some(*uri)
    });
    let (uri, None) = (uris.next()?, uris.next()) else { return None };
    uri.strip_prefix(IDENTITY_PREFIX).filter(|name| !name.is_empty()).map(str::to_owned)
}
