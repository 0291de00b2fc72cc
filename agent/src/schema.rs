//! Which fields the installed CRD keeps. The API server prunes the rest without a word: a status is written, and
//! compared, only in the fields that stay, and of the specification the agent says what does not reach it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::healthcheck::{CRD_NAME, HealthCheck, HealthCheckStatus};
use active_monitor_core::scope::Scope;
use arc_swap::ArcSwap;
use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::error::DiscoveryError;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, CustomResourceExt};
use serde_json::{Map, Value};

use crate::counters::UNKNOWN_FIELDS;
use crate::request::request;
use crate::watches;

/// Where `kubectl apply` leaves what it was given, with the fields that were dropped.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Where the API server publishes the schema of HealthChecks.
const PUBLISHED: &str = "/openapi/v3/apis/activemonitor.keikoproj.io/v1alpha1";
const KIND: &str = "HealthCheck";
/// What is watched, by its plural name.
const CRDS: &str = "customresourcedefinitions";
/// How often the published schema is read.
const LOOK: Duration = Duration::from_secs(60);

/// The fields that the installed CRD keeps; clones share them.
#[derive(Clone)]
pub struct StatusFields(Arc<ArcSwap<Fields>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fields {
    /// Of the status, at its top.
    status: BTreeSet<String>,
    /// Of the specification, those of ours that are dropped: `spec.suspend`.
    dropped: BTreeSet<String>,
}

impl StatusFields {
    /// Reads the installed CRD once; where the agent has rights in some namespaces only, what the API server publishes of
    /// it to everybody.
    ///
    /// # Errors
    /// When the API server does not give it: it is not installed, or the agent may not read it.
    pub async fn read(client: &Client, scope: &Scope) -> Result<StatusFields, kube::Error> {
        let schema = match scope {
            Scope::Cluster => {
                let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
                schema_of(&crds.get(CRD_NAME).await?)
            }
            Scope::Namespaces(_) => published(client).await?,
        };
        let fields = StatusFields(Arc::default());
        fields.take(&schema);
        Ok(fields)
    }

    /// The fields of this CRD.
    pub fn of(crd: &CustomResourceDefinition) -> StatusFields {
        let fields = StatusFields(Arc::default());
        fields.take(&schema_of(crd));
        fields
    }

    /// Follows changes of the CRD until the stream's end.
    pub async fn follow(self, client: Client, scope: Scope) {
        match scope {
            Scope::Cluster => self.watch(client).await,
            Scope::Namespaces(_) => self.look(client).await,
        }
    }

    /// What is published cannot be watched.
    async fn look(&self, client: Client) {
        loop {
            tokio::time::sleep(LOOK).await;
            match request(published(&client)).await {
                Ok(schema) => self.take(&schema),
                Err(error) => tracing::warn!(%error, "cannot read the schema of HealthChecks, trying again"),
            }
        }
    }

    async fn watch(&self, client: Client) {
        let crds: Api<CustomResourceDefinition> = Api::all(client);
        let changes = watcher::watch_object(crds, CRD_NAME).default_backoff();
        let mut changes = std::pin::pin!(changes);
        watches::begin(CRDS);
        while let Some(change) = changes.next().await {
            match change {
                Ok(Some(crd)) => self.take(&schema_of(&crd)),
                Ok(None) => {}
                Err(error) => {
                    watches::count_error(CRDS, &error);
                    tracing::warn!(%error, "watch of the HealthCheck CRD failed, trying again");
                }
            }
        }
    }

    fn take(&self, schema: &JSONSchemaProps) {
        let fields = fields_of(schema);
        if fields.dropped != self.0.load().dropped {
            if let Some(unknown) = UNKNOWN_FIELDS.as_ref() {
                unknown.reset();
                fields.dropped.iter().for_each(|field| unknown.with_label_values(&[field]).set(1));
            }
            let dropped = fields.dropped.iter().cloned().collect::<Vec<_>>().join(", ");
            if dropped.is_empty() {
                tracing::info!("the installed HealthCheck CRD knows every field");
            } else {
                tracing::warn!(dropped, "the installed HealthCheck CRD is not ours: it drops fields of checks");
            }
        }
        self.0.store(Arc::new(fields));
    }

    /// Whether the status keeps `conditions`.
    pub fn has_conditions(&self) -> bool {
        self.0.load().status.contains("conditions")
    }

    /// The fields that a person gave this check and the installed CRD dropped, as far as `kubectl apply` tells.
    pub fn dropped_of(&self, check: &HealthCheck) -> Vec<String> {
        let fields = self.0.load();
        if fields.dropped.is_empty() {
            return Vec::new();
        }
        let applied = check.metadata.annotations.as_ref().and_then(|all| all.get(LAST_APPLIED));
        let Some(Ok(applied)) = applied.map(|text| serde_json::from_str::<Value>(text)) else { return Vec::new() };
        let given =
            |path: &String| !applied.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null).is_null();
        fields.dropped.iter().filter(|path| given(path)).cloned().collect()
    }

    /// A merge patch that turns `before` into `after`, as far as the fields are kept; empty where nothing changes.
    pub fn patch(&self, before: &HealthCheckStatus, after: &HealthCheckStatus) -> Map<String, Value> {
        let (before, after) = (fields(before), fields(after));
        let kept = self.0.load();
        let kept = |name: &&String| kept.status.contains(*name);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).filter(kept).collect();
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

/// What the API server tells everybody of the HealthCheck, in its OpenAPI document.
async fn published(client: &Client) -> Result<JSONSchemaProps, kube::Error> {
    let request = http::Request::get(PUBLISHED).body(Vec::new()).map_err(kube::Error::HttpError)?;
    let document: Value = client.request(request).await?;
    let schemas = document["components"]["schemas"].as_object();
    let is_ours = |schema: &&Value| {
        schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten().any(|of| of["kind"] == KIND)
    };
    let schema = schemas.and_then(|schemas| schemas.values().find(is_ours));
    let schema = schema.ok_or_else(|| kube::Error::Discovery(DiscoveryError::MissingKind(KIND.to_owned())))?;
    serde_json::from_value(schema.clone()).map_err(kube::Error::SerdeError)
}

/// The schema of v1alpha1.
fn schema_of(crd: &CustomResourceDefinition) -> JSONSchemaProps {
    let version = crd.spec.versions.iter().find(|version| version.name == "v1alpha1");
    version.and_then(|version| version.schema.clone()?.open_api_v3_schema).unwrap_or_default()
}

fn fields_of(schema: &JSONSchemaProps) -> Fields {
    let part = |schema: &JSONSchemaProps, name: &str| schema.properties.as_ref()?.get(name).cloned();
    let status = part(schema, "status").and_then(|status| status.properties).unwrap_or_default();
    let mut dropped = BTreeSet::new();
    if let Some(ours) = part(&schema_of(&HealthCheck::crd()), "spec") {
        missing(&ours, part(schema, "spec").as_ref(), "spec", &mut dropped);
    }
    Fields { status: status.into_keys().collect(), dropped }
}

/// The topmost paths that `ours` has and `theirs` does not keep.
fn missing(ours: &JSONSchemaProps, theirs: Option<&JSONSchemaProps>, path: &str, found: &mut BTreeSet<String>) {
    let Some(theirs) = theirs else {
        found.insert(path.to_owned());
        return;
    };
    if theirs.x_kubernetes_preserve_unknown_fields == Some(true) {
        return;
    }
    for (name, field) in ours.properties.iter().flatten() {
        let known = theirs.properties.as_ref().and_then(|all| all.get(name));
        missing(field, known, &format!("{path}.{name}"), found);
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(ours)), Some(JSONSchemaPropsOrArray::Schema(theirs))) =
        (&ours.items, &theirs.items)
    {
        missing(ours, Some(theirs), &format!("{path}[]"), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_only_what_changes_and_is_kept() {
        let kept = ["status", "errorMessage", "failedCount"].map(str::to_owned);
        let fields = Fields { status: kept.into(), dropped: BTreeSet::new() };
        let fields = StatusFields(Arc::new(ArcSwap::from_pointee(fields)));
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

    #[test]
    fn fields_that_the_installed_crd_drops_are_named_where_somebody_gave_them() {
        let mut crd = serde_json::to_value(HealthCheck::crd()).unwrap();
        let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        spec["properties"].as_object_mut().unwrap().remove("suspend");
        let source = &mut spec["properties"]["workflow"]["properties"]["resource"]["properties"]["source"];
        source["properties"]["url"]["properties"].as_object_mut().unwrap().remove("verifyCert");
        let fields = fields_of(&schema_of(&serde_json::from_value(crd).unwrap()));
        let dropped = ["spec.suspend", "spec.workflow.resource.source.url.verifyCert"].map(str::to_owned);
        assert_eq!(fields.dropped, BTreeSet::from(dropped));
        let fields = StatusFields(Arc::new(ArcSwap::from_pointee(fields)));
        assert!(fields.has_conditions());

        let mut check = HealthCheck::default();
        assert_eq!(fields.dropped_of(&check), Vec::<String>::new());
        let applied = r#"{"spec": {"suspend": true, "repeatAfterSec": 5}}"#.to_owned();
        check.metadata.annotations = Some([(LAST_APPLIED.to_owned(), applied)].into());
        assert_eq!(fields.dropped_of(&check), ["spec.suspend"]);
        assert_eq!(fields_of(&schema_of(&HealthCheck::crd())).dropped, BTreeSet::new());
    }
}
