//! What people, and agents that enrol, ask to be changed.

use std::sync::Arc;

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::view::{
    ClusterAdd, ClusterPatch, ClusterToken, ClusterView, DefinitionView, EnrolmentDecision, PendingEnrolment, Restore,
};
use jiff::Timestamp;

use super::FleetHandle;
use crate::desired::{Asks, Replacement, Request, Tested};
use crate::expected::Expected;
use crate::owner::ChangeError;
use crate::revocations::Subject as Revoked;
use crate::store::{AgentKey, StoreError};

impl FleetHandle {
    /// Adds a cluster, or makes a new token for one that never connected.
    ///
    /// # Errors
    /// The name or a label is not allowed, or the cluster is there and has connected.
    pub async fn add_cluster(&self, add: ClusterAdd) -> Result<ClusterToken, ChangeError> {
        let token = self.request(|answer| Request::AddCluster(add, answer)).await??;
        self.settled().await?;
        Ok(token)
    }

    /// Changes labels and annotations.
    ///
    /// # Errors
    /// There is no such cluster, or a label is not allowed.
    pub async fn patch_cluster(&self, name: &str, patch: ClusterPatch) -> Result<ClusterView, ChangeError> {
        self.patch_cluster_if(name, patch, Expected::Anything).await
    }

    /// Changes labels and annotations where they are as expected.
    ///
    /// # Errors
    /// There is no such cluster, they are others, or a label is not allowed.
    pub async fn patch_cluster_if(
        &self,
        name: &str,
        patch: ClusterPatch,
        expected: Expected,
    ) -> Result<ClusterView, ChangeError> {
        let () = self.request(|answer| Request::PatchCluster(name.to_owned(), patch, expected, answer)).await??;
        self.settled().await?;
        self.cluster(name)
    }

    /// A cluster as it is published.
    fn cluster(&self, name: &str) -> Result<ClusterView, ChangeError> {
        match self.view().clusters.get(name) {
            Some(entry) => Ok(entry.view.clone()),
            None => Err(ChangeError::NotFound { kind: "cluster", name: name.to_owned() }),
        }
    }

    /// Removes a cluster and cuts its session.
    ///
    /// # Errors
    /// There is no such cluster.
    pub async fn remove_cluster(&self, name: &str) -> Result<(), ChangeError> {
        self.request(|answer| Request::RemoveCluster(name.to_owned(), answer)).await??;
        self.settled().await
    }

    /// Adds or replaces a definition; true when it is new. The same content again changes nothing.
    ///
    /// # Errors
    /// The set of a cluster would become larger than a frame may be.
    pub async fn put_definition(
        &self,
        definition: FleetHealthCheck,
    ) -> Result<(Arc<DefinitionView>, bool), ChangeError> {
        self.put_definition_if(definition, Expected::Anything).await
    }

    /// Adds or replaces a definition where there is what is expected. True: it is new.
    ///
    /// # Errors
    /// There is something else, or the set of a cluster would become larger than a frame may be.
    pub async fn put_definition_if(
        &self,
        definition: FleetHealthCheck,
        expected: Expected,
    ) -> Result<(Arc<DefinitionView>, bool), ChangeError> {
        let put = self.request(|answer| Request::PutDefinition(Box::new(definition), expected, answer)).await??;
        self.settled().await?;
        Ok(put)
    }

    /// Deletes a definition and withdraws it from the clusters.
    ///
    /// # Errors
    /// There is no such definition.
    pub async fn delete_definition(&self, name: &str) -> Result<(), ChangeError> {
        self.delete_definition_if(name, Expected::Anything).await
    }

    /// Deletes a definition where it is as expected.
    ///
    /// # Errors
    /// There is no such definition, or it is another one.
    pub async fn delete_definition_if(&self, name: &str, expected: Expected) -> Result<(), ChangeError> {
        self.request(|answer| Request::DeleteDefinition(name.to_owned(), expected, answer)).await??;
        self.settled().await
    }

    /// Makes many changes as one.
    ///
    /// # Errors
    /// Other than the store's: nothing was changed.
    pub(crate) async fn replace(&self, replacement: Replacement) -> Result<(), ChangeError> {
        self.request(|answer| Request::Replace(replacement, answer)).await??;
        self.settled().await
    }

    /// Makes a new token for a cluster that is there. With `rebind` the name is free for a rebuilt cluster: its session
    /// is cut, and what was issued for it is void.
    ///
    /// # Errors
    /// There is no such cluster.
    pub async fn new_token(&self, name: &str, rebind: bool) -> Result<ClusterToken, ChangeError> {
        let token = self.request(|answer| Request::NewToken { name: name.to_owned(), rebind, answer }).await??;
        self.settled().await?;
        Ok(token)
    }

    /// A cluster has enrolled: the store has bound it to this uid and this key.
    pub(crate) async fn bound(&self, cluster: &str, cluster_uid: &str, key: AgentKey) -> Result<(), ChangeError> {
        let (cluster, uid) = (cluster.to_owned(), cluster_uid.to_owned());
        self.request(|answer| Request::Bound { cluster, uid, key, answer }).await?;
        self.settled().await
    }

    /// A key asks to enrol where that takes a person's approval: gives back who waits with this token, which may be
    /// another one, and what was decided.
    pub(crate) async fn ask_approval(&self, asks: Asks) -> Result<PendingEnrolment, ChangeError> {
        self.request(|answer| Request::AskApproval(asks, answer)).await?
    }

    /// A person decides upon the agent that waits under this name. It is in the audit log before it is in force.
    ///
    /// # Errors
    /// There is no such cluster, none waits, it waits with another key, or it was denied before.
    pub async fn decide_enrolment(
        &self,
        cluster: &str,
        key_fingerprint: &str,
        decision: EnrolmentDecision,
        who: &str,
    ) -> Result<ClusterView, ChangeError> {
        let (name, key_fingerprint, who) = (cluster.to_owned(), key_fingerprint.to_owned(), who.to_owned());
        self.request(|answer| Request::Decide { cluster: name, key_fingerprint, decision, who, answer }).await??;
        self.settled().await?;
        self.cluster(cluster)
    }

    /// Keeps what came of a self-test.
    pub(crate) async fn self_tested(&self, tested: Tested) -> Result<(), ChangeError> {
        self.request(|answer| Request::SelfTested(tested, answer)).await?
    }

    /// Keeps the key of a certificate that is about to be given out.
    pub(crate) async fn issued(&self, cluster: &str, key: AgentKey) -> Result<(), ChangeError> {
        self.request(|answer| Request::Issued { cluster: cluster.to_owned(), key, answer }).await?
    }

    /// The store came back from the past: definitions are held back until [`FleetHandle::confirm_restore`].
    pub(crate) async fn restored(&self, restore: Restore) -> Result<(), ChangeError> {
        self.request(|answer| Request::Restored(restore, answer)).await??;
        self.settled().await
    }

    /// Definitions are pushed and withdrawn again.
    ///
    /// # Errors
    /// There is nothing to confirm.
    pub async fn confirm_restore(&self) -> Result<(), ChangeError> {
        self.request(Request::ConfirmRestore).await??;
        self.settled().await
    }

    /// Deletes or replaces an API token, and keeps it from coming back with an older store.
    ///
    /// # Errors
    /// It cannot be kept, or the store fails.
    pub(crate) async fn revoke_token<T>(
        &self,
        hash: [u8; 32],
        deed: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ChangeError> {
        self.revocations.revoke(Revoked::Token(hash), Timestamp::now(), deed).await
    }
}
