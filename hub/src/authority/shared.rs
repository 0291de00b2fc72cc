//! The CA of a hub with replicas: its files are in the data base, and each replica's data directory has a copy of them.
//!
//! A change is made to the copy and then put into the data base, where it is in force; of two at once the second is
//! refused. The copy of a replica that dies in between is replaced at its next start.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Authority;
use super::files::Files;
use crate::ca::CaError;
use crate::store::StoreError;
use crate::store::postgres::replicas::Replicas;

/// How often a replica looks for a change that another has made.
const POLL: Duration = Duration::from_secs(2);

/// Why the shared CA cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The copy cannot be used.
    #[error("the copy of the CA cannot be used")]
    Ca(#[from] CaError),
    /// The data base fails.
    #[error("the shared CA cannot be read")]
    Store(#[from] StoreError),
}

impl Authority {
    /// Takes the CA that the replicas share, or gives them that of the data directory, which is made where there is none.
    ///
    /// # Errors
    /// See [`SharedError`].
    pub async fn share(
        replicas: Arc<Replicas>,
        data_dir: &Path,
        agent_life: Duration,
        now: Timestamp,
    ) -> Result<Authority, SharedError> {
        let files = Files::new(data_dir);
        if replicas.files().await?.is_empty() {
            files.load_or_create(agent_life, now)?;
            // Another replica may be faster: then its CA is the one.
            replicas.put_files(&BTreeMap::new(), &files.all()?).await?;
        }
        files.replace(&replicas.files().await?)?;
        let mut authority = Authority::load(data_dir, agent_life, now)?;
        authority.replicas = Some(replicas);
        Ok(authority)
    }

    /// Takes over what other replicas change, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) -> Result<(), Infallible> {
        let Some(replicas) = &self.replicas else { return Ok(()) };
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let _one_at_a_time = self.changing.lock().await;
            if let Err(error) = self.take_over(replicas).await {
                tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "changes of the CA are not seen");
            }
        }
    }

    /// Makes the copy, and what is in force here, what the data base has.
    pub(super) async fn take_over(&self, replicas: &Replicas) -> Result<(), SharedError> {
        let shared = replicas.files().await?;
        // None at all is what a data base says that somebody is restoring.
        if !shared.is_empty() && self.files.all()? != shared {
            self.files.replace(&shared)?;
            let trust = Arc::new(self.files.load_or_create(self.agent_life, Timestamp::now())?);
            tracing::info!(stage = trust.stage().as_str(), "another replica changed the CA");
            self.trust.send_replace(trust);
        }
        Ok(())
    }
}
