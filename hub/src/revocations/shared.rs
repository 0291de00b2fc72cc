//! What was revoked at one replica of the hub, in the file of each: whichever data directory is left after a loss of the data
//! base knows all of it. The data base carries it from one to the other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{RevocationError, Revocations, Revoked, Subject};
use crate::store::StoreError;
use crate::store::postgres::replicas::{Replicas, Revocation};

/// After this the others' revocations are asked for again, where that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// The replicas' revocations are not brought together.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The data base fails.
    #[error("the data base does not say what other replicas revoked")]
    Store(#[from] StoreError),
    /// This replica's file cannot be written.
    #[error(transparent)]
    File(#[from] RevocationError),
}

impl Revoked {
    fn rows(&self) -> Vec<Revocation> {
        let Revoked { clusters, bindings, tokens } = self;
        let maps = [("cluster", clusters), ("binding", bindings), ("token", tokens)];
        let row = |subject: &str, key: &String, at: &Timestamp| Revocation {
            subject: subject.to_owned(),
            key: key.clone(),
            at: *at,
        };
        maps.into_iter().flat_map(|(subject, times)| times.iter().map(move |(key, at)| row(subject, key, at))).collect()
    }

    /// The later of two times counts; says whether anything is new.
    fn learn(&mut self, rows: Vec<Revocation>) -> bool {
        let mut is_news = false;
        for Revocation { subject, key, at } in rows {
            let times = match subject.as_str() {
                "cluster" => &mut self.clusters,
                "binding" => &mut self.bindings,
                "token" => &mut self.tokens,
                _ => {
                    tracing::warn!(subject, key, "another version of the hub revoked what this one does not know");
                    continue;
                }
            };
            if times.get(&key).is_none_or(|known| *known < at) {
                times.insert(key, at);
                is_news = true;
            }
        }
        is_news
    }
}

impl Revocations {
    /// With other replicas, where there are some.
    pub(crate) fn shared(self, replicas: Option<Arc<Replicas>>) -> Revocations {
        Revocations { replicas, ..self }
    }

    /// Takes over what others revoked.
    ///
    /// # Errors
    /// See [`SharedError`].
    pub(crate) async fn learn(&self) -> Result<(), SharedError> {
        let Some(replicas) = &self.replicas else { return Ok(()) };
        let rows = replicas.revocations().await?;
        let is_news = self.revoked.lock().clone().learn(rows.clone());
        if is_news {
            self.change(|revoked| revoked.learn(rows))?;
        }
        Ok(())
    }

    /// Gives the others all that is in the file.
    ///
    /// # Errors
    /// The data base fails.
    pub(crate) async fn teach(&self) -> Result<(), StoreError> {
        let Some(replicas) = &self.replicas else { return Ok(()) };
        let rows = self.revoked.lock().rows();
        replicas.put_revocations(&rows).await
    }

    /// Gives the others what is revoked now. Where that fails, the next start does it.
    pub(super) async fn share(&self, subject: Subject<'_>, at: Timestamp) {
        let Some(replicas) = &self.replicas else { return };
        let mut one = Revoked::default();
        one.set(subject, Some(at));
        if let Err(error) = replicas.put_revocations(&one.rows()).await {
            tracing::error!(%error, ?subject, "revoked, but other replicas do not have it in their files yet");
        }
    }

    /// Takes over what others revoke, until `stop`.
    pub(crate) async fn follow(
        self: Arc<Self>,
        mut changes: watch::Receiver<()>,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        loop {
            let learned = self.learn().await;
            if let Err(error) = &learned {
                tracing::error!(%error, "revocations of others not noted, trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN), if learned.is_err() => {}
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}
