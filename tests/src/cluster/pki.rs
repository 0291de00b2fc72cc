//! The certificates of one cluster: its authority, the API server's own, and those of clients.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A name or key is refused.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// It cannot be written.
    #[error("cannot write a certificate")]
    Write(#[from] io::Error),
}

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct CertFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key, PKCS #8.
    pub key: PathBuf,
}

/// The key pair that signs and verifies service account tokens, in PEM files.
#[derive(Clone, Debug)]
pub struct TokenKey {
    /// The private key, PKCS #8.
    pub private: PathBuf,
    /// The public key.
    pub public: PathBuf,
}

/// The cluster's certificate authority.
pub struct Pki {
    dir: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Makes a new authority and writes its certificate to `<dir>/ca.crt`.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn new(dir: &Path) -> Result<Self, PkiError> {
        fs::create_dir_all(dir)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("testbed-ca", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let pki = Self { dir: dir.to_owned(), ca: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? };
        fs::write(pki.ca_file(), pki.ca.as_ref().pem())?;
        Ok(pki)
    }

    /// The authority's certificate, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Makes a server certificate for the names, which are DNS names or IP addresses.
    ///
    /// # Errors
    /// When a name is not valid, or the files cannot be written.
    pub fn server(&self, file_stem: &str, names: &[&str]) -> Result<CertFiles, PkiError> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = name(file_stem, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file_stem, params)
    }

    /// Makes a client certificate, which the API server takes as the user in the group.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn client(&self, file_stem: &str, user: &str, group: &str) -> Result<CertFiles, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, Some(group));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file_stem, params)
    }

    /// Makes the key pair of service account tokens.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn token_key(&self) -> Result<TokenKey, PkiError> {
        let key = KeyPair::generate()?;
        let stem = self.dir.join("service-account");
        let files = TokenKey { private: stem.with_added_extension("key"), public: stem.with_added_extension("pub") };
        fs::write(&files.private, key.serialize_pem())?;
        fs::write(&files.public, key.public_key_pem())?;
        Ok(files)
    }

    fn sign(&self, file_stem: &str, mut params: CertificateParams) -> Result<CertFiles, PkiError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.ca)?;
        let stem = self.dir.join(file_stem);
        let files = CertFiles { cert: stem.with_added_extension("crt"), key: stem.with_added_extension("key") };
        fs::write(&files.cert, cert.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }
}

fn name(common: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}
