//! A certificate and its key in files that something else replaces, such as a Secret that is mounted into a pod. They are
//! looked at every few seconds: a mount replaces a link to a folder, which watches of files miss.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use super::{Clients, Identity, TlsError, server_config};

/// Why the files are not used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// One cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// One does not hold what it should.
    #[error("{path} must hold {expected} as PEM")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What belongs in it.
        expected: &'static str,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// The two do not make a server.
    #[error("the certificate in {certificate} and the key in {key} cannot be used")]
    Tls {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: TlsError,
    },
}

/// The files of a server without client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// What was in the files: certificate and key.
type Content = (Vec<u8>, Vec<u8>);

/// What became of files that changed.
#[derive(Debug)]
pub enum Change {
    /// Callers get the new certificate from now on.
    Replaced,
    /// They are no good: callers go on getting the one before.
    Refused(FilesError),
}

impl IdentityFiles {
    /// The server that they make now.
    ///
    /// # Errors
    /// They make none.
    pub fn load(&self, alpn: &[&[u8]]) -> Result<ServerConfig, FilesError> {
        self.server(&self.read()?, alpn)
    }

    /// Replaces `config` when the files change, until `stop`; `changed` hears of it. Files that are no good are told once,
    /// and looked at again all the same: the two may have been read in the midst of their change.
    pub async fn follow(
        self,
        alpn: &[&[u8]],
        every: Duration,
        config: Arc<ArcSwap<ServerConfig>>,
        mut changed: impl FnMut(Change) + Send,
        stop: CancellationToken,
    ) {
        // What is served was loaded a moment ago; to load it again changes nothing.
        let mut seen: Option<Content> = None;
        let mut unreadable = false;
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let content = match self.read() {
                Ok(content) => content,
                Err(error) => {
                    if !std::mem::replace(&mut unreadable, true) {
                        changed(Change::Refused(error));
                    }
                    continue;
                }
            };
            unreadable = false;
            if seen.as_ref() == Some(&content) {
                continue;
            }
            match self.server(&content, alpn) {
                Ok(server) => {
                    config.store(Arc::new(server));
                    if seen.is_some() {
                        changed(Change::Replaced);
                    }
                }
                Err(error) => changed(Change::Refused(error)),
            }
            seen = Some(content);
        }
    }

    fn read(&self) -> Result<Content, FilesError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| FilesError::Read { path: path.to_owned(), source });
        Ok((read(&self.certificate)?, read(&self.key)?))
    }

    fn server(&self, (certificate, key): &Content, alpn: &[&[u8]]) -> Result<ServerConfig, FilesError> {
        let no_pem = |path: &Path, expected, source| FilesError::Pem { path: path.to_owned(), expected, source };
        let no_chain = |source| no_pem(&self.certificate, "certificates", source);
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(no_chain)?;
        if chain.is_empty() {
            return Err(no_chain(pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|source| no_pem(&self.key, "a private key", source))?;
        server_config(Identity { chain, key }, Clients::Anonymous, alpn).map_err(|source| FilesError::Tls {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })
    }
}
