//! The hub's CA over its lives. One CA signs; while another takes its place, both are trusted, so that nobody is locked out:
//!
//! | stage | signs | agents trust | agents' certificates that are taken |
//! |---|---|---|---|
//! | `Stable` | the CA | it | its |
//! | `Introduced` | the CA | it and the next one | its |
//! | `Switched` | what was the next one | it | its, and those of the previous one |
//!
//! An agent hears what to trust with each certificate, so within a life of those all have heard. A stage is left when every
//! agent has, or when a person says that it is to be left all the same.

mod files;
mod shared;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::view::CaStage;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::ca::{Ca, CaError};
use crate::owner::{FleetHandle, Records};
use crate::store::postgres::replicas::Replicas;
use files::Files;

/// Names of the files of a CA in the data directory. The optional ones are there while one CA takes another's place.
pub use files::{NEXT_CERTIFICATE, NEXT_KEY, PREVIOUS_CERTIFICATE};
pub use shared::SharedError;

/// Why the CA's stage stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// Somebody else was faster, or the caller looked at an old answer.
    #[error("the CA is at the stage {} now, not {}; look again", .now.as_str(), .expected.as_str())]
    Stage {
        /// What the caller believed.
        expected: CaStage,
        /// What is.
        now: CaStage,
    },
    /// Agents would be locked out.
    #[error("{} would be locked out, since their agents have not heard of the new CA yet: {}; wait until they have \
             renewed their certificates, or give `force` and enrol them anew", plural(.0.len()), .0.join(", "))]
    Waiting(Vec<String>),
    /// Files cannot be written.
    #[error("the CA's files cannot be changed")]
    Ca(#[from] CaError),
    /// What the replicas share cannot be changed, or it is not known whether it is.
    #[error("the CA that the replicas share cannot be changed")]
    Shared(#[from] SharedError),
    /// The task that changes them was ended.
    #[error("the hub is stopping")]
    Stopping,
}

fn plural(clusters: usize) -> String {
    if clusters == 1 { "1 cluster".to_owned() } else { format!("{clusters} clusters") }
}

/// The CAs of one moment.
pub struct Trust {
    /// Signs.
    pub ca: Ca,
    /// PEM of the CA that agents trust already and that signs nothing yet.
    next: Option<String>,
    /// PEM of the CA that signs no more.
    previous: Option<String>,
}

impl Trust {
    /// Where the change of the CA stands.
    pub fn stage(&self) -> CaStage {
        match (&self.next, &self.previous) {
            (None, None) => CaStage::Stable,
            (Some(_), _) => CaStage::Introduced,
            (None, Some(_)) => CaStage::Switched,
        }
    }

    /// PEM of every CA that agents and people are to trust.
    pub fn bundle(&self) -> String {
        format!("{}{}", self.ca.pem(), self.next.as_deref().unwrap_or_default())
    }

    /// Tells this bundle from every other: SHA-256.
    pub fn bundle_hash(&self) -> [u8; 32] {
        Sha256::digest(self.bundle()).into()
    }

    /// The CAs whose certificates agents may show.
    pub fn client_roots(&self) -> Vec<CertificateDer<'static>> {
        let previous = self.previous.as_deref().and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
        [Some(self.ca.certificate().clone()), previous].into_iter().flatten().collect()
    }

    /// SHA-256 of the other CA, in hex: the next one or the previous one.
    pub fn other_fingerprint(&self) -> Option<String> {
        let pem = self.next.as_deref().or(self.previous.as_deref())?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        Some(hex::encode(Sha256::digest(certificate)))
    }

    /// The enrolled clusters whose agents have not heard of today's bundle, by name; none while nothing changes.
    pub(crate) fn waiting_for(&self, records: &Records) -> Vec<String> {
        if self.stage() == CaStage::Stable {
            return Vec::new();
        }
        let hash = self.bundle_hash();
        let newest = records.values().filter_map(|record| Some((record, record.agent_keys.last()?)));
        newest.filter(|(_, key)| key.bundle != Some(hash)).map(|(record, _)| record.name.clone()).collect()
    }
}

/// Holds the CAs and changes them.
pub struct Authority {
    files: Files,
    agent_life: Duration,
    trust: watch::Sender<Arc<Trust>>,
    changing: tokio::sync::Mutex<()>,
    /// None where the hub is alone.
    replicas: Option<Arc<Replicas>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("stage", &self.trust().stage()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads the CAs in the data directory, or makes the first one.
    ///
    /// # Errors
    /// Files cannot be read or written, or are no CA.
    pub fn load(data_dir: &Path, agent_life: Duration, now: Timestamp) -> Result<Authority, CaError> {
        let files = Files::new(data_dir);
        let trust = files.load_or_create(agent_life, now)?;
        let (trust, _) = watch::channel(Arc::new(trust));
        Ok(Authority { files, agent_life, trust, changing: tokio::sync::Mutex::default(), replicas: None })
    }

    /// The CAs as they are now.
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.borrow())
    }

    /// Sees each change.
    pub fn changes(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// Goes to the stage after `from`; gives it.
    ///
    /// # Errors
    /// See [`RollError`]; nothing has changed then.
    pub async fn roll(&self, from: CaStage, force: bool, fleet: &FleetHandle) -> Result<Arc<Trust>, RollError> {
        let _one_at_a_time = self.changing.lock().await;
        if let Some(replicas) = &self.replicas {
            self.take_over(replicas).await?;
        }
        let (trust, before) = (self.trust(), self.files.all()?);
        if trust.stage() != from {
            return Err(RollError::Stage { expected: from, now: trust.stage() });
        }
        let waiting = trust.waiting_for(&fleet.records());
        if !waiting.is_empty() && !force {
            return Err(RollError::Waiting(waiting));
        }
        let (files, life) = (self.files.clone(), self.agent_life);
        let changed = tokio::task::spawn_blocking(move || {
            let now = Timestamp::now();
            match from {
                CaStage::Stable => files.introduce(now)?,
                CaStage::Introduced => files.switch()?,
                CaStage::Switched => files.end()?,
            }
            files.load_or_create(life, now)
        });
        let next = Arc::new(changed.await.map_err(|_| RollError::Stopping)??);
        if let Some(replicas) = &self.replicas
            && !replicas.put_files(&before, &self.files.all()?).await.map_err(SharedError::Store)?
        {
            self.take_over(replicas).await?;
            return Err(RollError::Stage { expected: from, now: self.trust().stage() });
        }
        self.trust.send_replace(Arc::clone(&next));
        tracing::info!(stage = next.stage().as_str(), fingerprint = next.ca.fingerprint(), "CA changed");
        Ok(next)
    }
}
