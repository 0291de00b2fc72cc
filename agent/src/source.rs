//! Reads the text of a workflow: from the HealthCheck itself, over HTTPS, or from a folder of the operator's. What it
//! reads is hostile until `core::manifest` has looked at it.

use std::path::PathBuf;
use std::sync::Arc;

use active_monitor_core::check::Source;
use active_monitor_core::redact::redact;
use jiff::Timestamp;
use parking_lot::Mutex;

mod address;
mod copies;
mod fetch;
mod file;
#[cfg(test)]
mod tests;

pub use address::Addresses;
pub use fetch::FetchError;
pub use file::FileError;

use copies::{Change, Copies};
use fetch::{Fetcher, Limits};

/// Where sources may come from.
#[derive(Clone, Debug, Default)]
pub struct SourceConfig {
    /// Addresses that URLs may be fetched from.
    pub addresses: Addresses,
    /// PEM file with certificate authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Folder that files are read from.
    pub dir: Option<PathBuf>,
    /// Folder of the copies of URLs' texts; without one they are in memory only.
    pub copies: Option<PathBuf>,
}

/// Why nothing can be fetched at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with certificate authorities.
    #[error("cannot read the certificates in {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate, or the TLS machinery.
    #[error("cannot set up TLS for sources")]
    Tls(#[from] reqwest::Error),
}

/// Why a text could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// From a URL.
    #[error("cannot fetch {url}: {source}")]
    Url {
        /// The address, without what is secret in it.
        url: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// From a file.
    #[error("cannot read {path:?} in the agent's folder of sources: {source}")]
    File {
        /// As the HealthCheck has it.
        path: String,
        /// Why.
        #[source]
        source: FileError,
    },
}

/// A text that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Set where it is not what the source says now.
    pub warning: Option<String>,
}

/// Reads sources; clones share the copies.
#[derive(Clone)]
pub struct Sources {
    fetcher: Fetcher,
    dir: Option<PathBuf>,
    copies: Arc<Mutex<Copies>>,
}

impl Sources {
    /// Reads the certificates and sets up the clients.
    ///
    /// # Errors
    /// When the certificates cannot be read or TLS cannot be set up.
    pub async fn new(config: SourceConfig) -> Result<Sources, SetupError> {
        Self::with(config, Limits::default(), address::system_lookup()).await
    }

    async fn with(config: SourceConfig, limits: Limits, lookup: address::Lookup) -> Result<Sources, SetupError> {
        let SourceConfig { addresses, ca_file, dir, copies } = config;
        let authorities = match ca_file {
            None => Vec::new(),
            Some(path) => {
                let pem = tokio::fs::read(&path).await.map_err(|source| SetupError::CaFile { path, source })?;
                reqwest::Certificate::from_pem_bundle(&pem)?
            }
        };
        let fetcher = Fetcher::new(addresses, &authorities, limits, lookup)?;
        let copies = match copies {
            None => Copies::default(),
            Some(dir) => tokio::task::spawn_blocking(|| Copies::open(dir)).await.unwrap_or_default(),
        };
        Ok(Sources { fetcher, dir, copies: Arc::new(Mutex::new(copies)) })
    }

    /// The text of a workflow. Where a URL's server is away it is the copy that [`Sources::keep`] kept, with a warning.
    ///
    /// # Errors
    /// When it is not there, too large, too slow, or somewhere it must not be.
    pub async fn text(&self, source: &Source) -> Result<Text, SourceError> {
        match source {
            Source::Inline(text) => Ok(Text { text: text.clone(), warning: None }),
            Source::File { path } => match file::read(self.dir.as_deref(), path).await {
                Ok(text) => Ok(Text { text, warning: None }),
                Err(source) => Err(SourceError::File { path: path.clone(), source }),
            },
            Source::Url { url, verify_cert } => match self.fetcher.fetch(url, *verify_cert).await {
                Ok(text) => Ok(Text { text, warning: None }),
                Err(source) => self.stand_in(url, *verify_cert, source),
            },
        }
    }

    fn stand_in(&self, url: &str, verified: bool, source: FetchError) -> Result<Text, SourceError> {
        let copy = self.copies.lock().get(Timestamp::now(), url, verified).filter(|_| source.is_outage());
        let error = SourceError::Url { url: redact(url).into_owned(), source };
        let Some(copy) = copy else { return Err(error) };
        let warning = format!("ran the copy that was fetched at {:.0}: {error}", copy.at);
        Ok(Text { text: copy.text.to_string(), warning: Some(warning) })
    }

    /// Remembers a text that was fetched and found good.
    pub async fn keep(&self, source: &Source, text: &Text) {
        let (Source::Url { url, verify_cert }, None) = (source, &text.warning) else { return };
        let changes = self.copies.lock().keep(Timestamp::now(), url, *verify_cert, &text.text);
        if !changes.is_empty() {
            let changes = tokio::task::spawn_blocking(|| changes.into_iter().for_each(Change::apply));
            let _ended_with_the_process = changes.await;
        }
    }
}
