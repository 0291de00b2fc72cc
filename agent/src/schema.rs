//! Which status fields the installed CRD keeps. The API server prunes the rest without a word, so a status is written,
//! and compared, only in the fields that stay.

use std::collections::BTreeSet;
use std::sync::Arc;

use active_monitor_core::healthcheck::{CRD_NAME, HealthCheckStatus};
use arc_swap::ArcSwap;
use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Map, Value};

/// The fields that the installed CRD keeps; clones share them.
#[derive(Clone)]
pub struct StatusFields(Arc<ArcSwap<BTreeSet<String>>>);

impl StatusFields {
    /// Reads the installed CRD once.
    ///
    /// # Errors
    /// When the API server does not give it: it is not installed, or the agent may not read it.
    pub async fn read(client: &Client) -> Result<StatusFields, kube::Error> {
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let fields = fields_of(&crds.get(CRD_NAME).await?);
        Ok(StatusFields(Arc::new(ArcSwap::from_pointee(fields))))
    }

    /// Follows changes of the CRD until the stream's end.
    pub async fn follow(self, client: Client) {
        let crds: Api<CustomResourceDefinition> = Api::all(client);
        let changes = watcher::watch_object(crds, CRD_NAME).default_backoff();
        let mut changes = std::pin::pin!(changes);
        while let Some(change) = changes.next().await {
            match change {
                Ok(Some(crd)) => self.0.store(Arc::new(fields_of(&crd))),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "watch of the HealthCheck CRD failed, trying again"),
            }
        }
    }

    /// Whether the status keeps `conditions`.
    pub fn has_conditions(&self) -> bool {
        self.0.load().contains("conditions")
    }

    /// A merge patch that turns `before` into `after`, as far as the fields are kept; empty where nothing changes.
    pub fn patch(&self, before: &HealthCheckStatus, after: &HealthCheckStatus) -> Map<String, Value> {
        let (before, after) = (fields(before), fields(after));
        let kept = self.0.load();
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).filter(|name| kept.contains(*name)).collect();
        let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
        changed.map(|name| (name.clone(), after.get(name).cloned().unwrap_or(Value::Null))).collect()
    }
}

fn fields(status: &HealthCheckStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

fn fields_of(crd: &CustomResourceDefinition) -> BTreeSet<String> {
    let version = crd.spec.versions.iter().find(|version| version.name == "v1alpha1");
    let schema = version.and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    let status = schema.and_then(|schema| schema.properties.as_ref()?.get("status"));
    status.and_then(|status| status.properties.as_ref()).map(|p| p.keys().cloned().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_only_what_changes_and_is_kept() {
        let kept = ["status", "errorMessage", "failedCount"].map(str::to_owned);
        let fields = StatusFields(Arc::new(ArcSwap::from_pointee(BTreeSet::from(kept))));
        let before = HealthCheckStatus {
            status: Some("Failed".into()),
            error_message: Some("no".into()),
            failed_count: Some(1),
            ..HealthCheckStatus::default()
        };
        let after = HealthCheckStatus {
            status: Some("Succeeded".into()),
            failed_count: Some(1),
            observed_generation: Some(2),
            ..HealthCheckStatus::default()
        };
        let patch = Value::Object(fields.patch(&before, &after));
        assert_eq!(patch, serde_json::json!({"errorMessage": null, "status": "Succeeded"}));
        assert!(!fields.has_conditions());
    }
}
