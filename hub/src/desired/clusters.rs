//! The clusters that were added: labels, tokens, keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::definition::validate;
use active_monitor_core::fleet::Change;
use active_monitor_core::names;
use active_monitor_core::view::{ClusterAdd, ClusterPatch, ClusterStatus, ClusterToken};
use jiff::Timestamp;
use rand::RngCore;
use sha2::{Digest, Sha256};

use super::{ChangeError, Desired, FleetHandle, not_found, readable};
use crate::clock;
use crate::expected::{Expected, version};
use crate::owner::known;
use crate::revocations::{Subject, later};
use crate::store::{AgentKey, ClusterRecord, EnrolmentToken};
use crate::trust;

/// How long a token may be used.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

impl Desired {
    pub(super) async fn add_cluster(
        &mut self,
        add: ClusterAdd,
        fleet: &FleetHandle,
    ) -> Result<ClusterToken, ChangeError> {
        let ClusterAdd { name, labels, annotations } = add;
        names::dns_label(&name).map_err(|rule| ChangeError::Invalid(format!("name {rule}")))?;
        let now = clock::now();
        let mut record = match self.records.get(&name) {
            None => {
                let created_at = self.terms.revocations.addition(&name, now);
                ClusterRecord { name: name.clone(), created_at, ..ClusterRecord::default() }
            }
            Some(record) => {
                let view = fleet.view();
                let pending = view.clusters.get(&name).is_some_and(|entry| entry.view.status == ClusterStatus::Pending);
                if !pending {
                    let text = format!(
                        "the cluster {name} is there and has connected; `fleetcheck cluster token {name}` makes a new \
                         token for it"
                    );
                    return Err(ChangeError::Conflict(text));
                }
                record.clone()
            }
        };
        record.labels.extend(labels);
        record.annotations.extend(annotations);
        check_metadata(&record)?;
        self.store.put_cluster(&record).await.map_err(ChangeError::Store)?;
        let token = self.make_token(&name, now).await?;
        record.pending_enrolment = None;
        self.set_record(record, fleet).await;
        Ok(token)
    }

    pub(super) async fn new_token(
        &mut self,
        name: &str,
        rebind: bool,
        fleet: &FleetHandle,
    ) -> Result<ClusterToken, ChangeError> {
        let mut record = self.records.get(name).cloned().ok_or_else(|| not_found("cluster", name))?;
        let now = clock::now();
        if rebind {
            let at = later(now, last_told(&record));
            let unbound = self.store.unbind_cluster(name, at);
            self.terms.revocations.revoke(Subject::Binding(name), at, unbound).await?;
            record.cluster_uid = None;
            record.agent_keys = Vec::new();
            record.self_test = None;
            record.valid_from = Some(at);
            self.records.insert(name.to_owned(), record.clone());
            self.publish_record(&record, fleet).await;
            fleet.cut(name, "the cluster was bound anew").await?;
        }
        let token = self.make_token(name, now).await?;
        record.pending_enrolment = None;
        self.records.insert(name.to_owned(), record.clone());
        self.publish_record(&record, fleet).await;
        Ok(token)
    }

    async fn make_token(&self, name: &str, now: Timestamp) -> Result<ClusterToken, ChangeError> {
        let mut secret = [0_u8; 32];
        rand::rng().fill_bytes(&mut secret);
        let secret = hex::encode(secret);
        let expires_at = now.checked_add(TOKEN_LIFE).unwrap_or(Timestamp::MAX);
        let token = EnrolmentToken { hash: Sha256::digest(secret.as_bytes()).into(), expires_at, spent_by: None };
        self.store.put_enrolment_token(name, &token).await.map_err(ChangeError::Store)?;
        Ok(ClusterToken {
            token: format!("{name}.{secret}.{}", self.terms.authority.trust().ca.fingerprint()),
            cluster: name.to_owned(),
            expires_at,
            agent_address: self.terms.agent_address.clone(),
            enrolment_address: self.terms.enrolment_address.clone(),
        })
    }

    /// A cluster has enrolled: the store has it already.
    pub(super) async fn bound(&mut self, cluster: &str, uid: String, key: AgentKey, fleet: &FleetHandle) {
        let Some(record) = self.records.get_mut(cluster) else { return };
        record.cluster_uid = Some(uid);
        record.valid_from = record.valid_from.max(Some(key.issued_at));
        record.agent_keys = vec![key];
        record.self_test = None;
        record.pending_enrolment = None;
        let record = record.clone();
        self.publish_record(&record, fleet).await;
    }

    /// Keeps the key of the newest certificate.
    pub(super) async fn issued(&mut self, cluster: &str, key: AgentKey) -> Result<(), ChangeError> {
        let record = self.records.get_mut(cluster).ok_or_else(|| not_found("cluster", cluster))?;
        let keys = trust::keys_with(record, key);
        self.store.put_agent_keys(cluster, &keys).await.map_err(ChangeError::Store)?;
        record.agent_keys = keys;
        self.published_records.send_replace(Arc::new(self.records.clone()));
        Ok(())
    }

    pub(super) async fn patch_cluster(
        &mut self,
        name: &str,
        patch: ClusterPatch,
        expected: &Expected,
        fleet: &FleetHandle,
    ) -> Result<(), ChangeError> {
        let mut record = self.records.get(name).cloned().ok_or_else(|| not_found("cluster", name))?;
        expected.check("cluster", name, Some(&cluster_version(&record.labels, &record.annotations)))?;
        let ClusterPatch { labels, annotations } = patch;
        apply_patch(&mut record.labels, labels);
        apply_patch(&mut record.annotations, annotations);
        check_metadata(&record)?;
        self.store.put_cluster(&record).await.map_err(ChangeError::Store)?;
        self.set_record(record, fleet).await;
        Ok(())
    }

    pub(super) async fn remove_cluster(&mut self, name: &str, fleet: &FleetHandle) -> Result<(), ChangeError> {
        let record = self.records.get(name).ok_or_else(|| not_found("cluster", name))?;
        let at = later(clock::now(), last_told(record));
        let removed = self.store.remove_cluster(name);
        self.terms.revocations.revoke(Subject::Cluster(name), at, removed).await?;
        let removed = self.forget_cluster(name, fleet).await;
        self.republish(fleet).await;
        removed
    }

    async fn set_record(&mut self, record: ClusterRecord, fleet: &FleetHandle) {
        self.rendered.put_cluster(&record, readable(&self.stored));
        self.records.insert(record.name.clone(), record.clone());
        self.publish_record(&record, fleet).await;
        self.republish(fleet).await;
    }

    pub(super) async fn publish_record(&mut self, record: &ClusterRecord, fleet: &FleetHandle) {
        self.published_records.send_replace(Arc::new(self.records.clone()));
        if let Err(error) = fleet.change(Change::Cluster(known(record))).await {
            tracing::debug!(%error, "cluster not published");
        }
    }
}

/// The version of what people set of a cluster.
pub(crate) fn cluster_version(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> String {
    version(&(labels, annotations))
}

/// The latest that a clock said of a cluster, perhaps one that was ahead: what is revoked of it is revoked later than that.
fn last_told(record: &ClusterRecord) -> Timestamp {
    let issued = record.agent_keys.iter().map(|key| key.issued_at);
    issued.chain(record.valid_from).fold(record.created_at, Timestamp::max)
}

pub(super) fn apply_patch(values: &mut BTreeMap<String, String>, patch: BTreeMap<String, Option<String>>) {
    for (key, value) in patch {
        match value {
            Some(value) => drop(values.insert(key, value)),
            None => drop(values.remove(&key)),
        }
    }
}

pub(super) fn check_metadata(record: &ClusterRecord) -> Result<(), ChangeError> {
    let say = |problems: Vec<validate::Problem>| {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        ChangeError::Invalid(texts.join("; "))
    };
    validate::labels("labels", &record.labels).map_err(say)?;
    validate::annotations("annotations", &record.annotations).map_err(say)
}
