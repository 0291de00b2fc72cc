//! Git's folder where the hub has replicas: the one with the lease keeps the fleet as the folder says, and what Git owns is
//! the data base's word, read under a lock whenever a person or the folder changes something.

use std::convert::Infallible;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::gitops::plan::Ownership;
use active_monitor_core::view::SourceView;
use tokio::sync::{MutexGuard, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Source;
use crate::store::StoreError;
use crate::store::postgres::replicas::{Alone, Lease, Replicas};

/// So often the others are told when the folder was last found to be in force.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// What Git and resources own; nobody changes what may be theirs or a person's while this is held.
pub(crate) struct Held<'a> {
    ownership: MutexGuard<'a, Ownership>,
    /// The other replicas wait for its end.
    _alone: Option<Alone>,
}

impl Deref for Held<'_> {
    type Target = Ownership;

    fn deref(&self) -> &Ownership {
        &self.ownership
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Ownership {
        &mut self.ownership
    }
}

impl Source {
    /// With other replicas, where there are some.
    pub(crate) fn shared(self, replicas: Option<Arc<Replicas>>) -> Source {
        Source { replicas, ..self }
    }

    /// What is to be shown of what another than people owns.
    pub(super) fn learn(&self, ownership: &Ownership) {
        if **self.resources.load() != ownership.resources {
            self.resources.store(Arc::new(ownership.resources.clone()));
        }
    }

    /// What Git and resources own, held for as long as a change takes; it waits for changes at other replicas for 5 s at most.
    ///
    /// # Errors
    /// The data base fails.
    pub(crate) async fn ownership(&self) -> Result<Held<'_>, StoreError> {
        let mut ownership = self.ownership.lock().await;
        let Some(replicas) = &self.replicas else { return Ok(Held { ownership, _alone: None }) };
        let alone = replicas.hold_ownership().await?;
        *ownership = replicas.ownership().await?.unwrap_or_default();
        self.learn(&ownership);
        Ok(Held { ownership, _alone: Some(alone) })
    }

    /// Shows what the replica shows that keeps the fleet as folder and resources say, until `stop`.
    pub(crate) async fn follow(
        self: Arc<Self>,
        replicas: Arc<Replicas>,
        mut changes: watch::Receiver<()>,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        loop {
            match replicas.source().await {
                Ok(Some((replica, told))) if replica != replicas.id() => match serde_json::from_str(&told) {
                    Ok(told) => self.show(|_| told),
                    Err(error) => tracing::error!(%error, "what another replica shows of Git's folder is not read"),
                },
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "what another replica shows of Git's folder is not known"),
            }
            match replicas.ownership().await {
                Ok(ownership) => self.learn(&ownership.unwrap_or_default()),
                Err(error) => tracing::warn!(%error, "what resources own is not known"),
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}

/// Tells the other replicas what became of the folder.
pub(crate) struct Teller {
    replicas: Arc<Replicas>,
    lease: Lease,
    told: Option<(Instant, SourceView)>,
}

impl Teller {
    pub(crate) fn new(replicas: Arc<Replicas>, lease: Lease) -> Teller {
        Teller { replicas, lease, told: None }
    }

    /// Tells what is new.
    pub(super) async fn tell(&mut self, view: Option<SourceView>) {
        let Some(view) = view else { return };
        let is_known = self.told.as_ref().is_some_and(|(at, told)| {
            at.elapsed() < TELL_EVERY && SourceView { synced_at: view.synced_at, ..told.clone() } == view
        });
        if is_known {
            return;
        }
        // Every type in it can be written as JSON.
        let text = serde_json::to_string(&view).unwrap_or_default();
        match self.replicas.tell_source(&self.lease, &text).await {
            Ok(()) => self.told = Some((Instant::now(), view)),
            Err(error) => tracing::warn!(%error, "what became of Git's folder is not told to other replicas"),
        }
    }
}
