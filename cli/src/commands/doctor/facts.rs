//! What is read of a cluster: slim, in pages, each request bounded in time. What the reader may not see is remembered as
//! such, and does not end the look.

use std::time::Duration;

use active_monitor_core::healthcheck::{CRD_NAME, HealthCheck};
use active_monitor_core::rbac::{self, CEILING_LABEL, REMEDYING_CEILING};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DoctorError;

/// Objects that a page carries.
const PAGE: u32 = 100;
const TIMEOUT: Duration = Duration::from_secs(20);
/// The lease of active-monitor's leader election.
const LEASE: &str = "689451f8.keikoproj.io";
/// Where Argo's controllers keep their instance id.
const ARGO_CONFIG: &str = "workflow-controller-configmap";

/// What a cluster is like, as far as the reader may see it; `None` where he may not.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Such as `v1.36.3`.
    pub(super) kubernetes: String,
    /// The HealthCheck CRD; `Some(None)` where it is not installed.
    pub(super) crd: Option<Option<Value>>,
    /// Whether there are Workflows.
    pub(super) has_workflows: Option<bool>,
    /// Deployments of active-monitor and of Argo's workflow controller.
    pub(super) deployments: Option<Vec<Program>>,
    /// When active-monitor's leader last renewed its lease, Unix seconds.
    pub(super) lease_renewed: Option<i64>,
    /// The instance ids that Argo's controllers answer to; empty for the one without.
    pub(super) instance_ids: Option<Vec<String>>,
    /// The checks; those that cannot be read by their error.
    pub(super) checks: Vec<Result<HealthCheck, (String, String)>>,
    /// What the agent may hand out; `None` where it is not installed.
    pub(super) ceilings: Option<Ceilings>,
}

/// A deployment's program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// `namespace/name`.
    pub(super) name: String,
    pub(super) image: String,
    pub(super) replicas: i32,
}

/// What the agent may hand out to the accounts of checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Ceilings {
    pub(super) held: rbac::Ceilings,
    /// Namespaces that are open for remedies; `None` stands for all.
    pub(super) open: Option<Vec<String>>,
}

/// Reads everything. Only the version and the checks must be readable.
pub(super) async fn read(client: Client) -> Result<Facts, DoctorError> {
    let version = ask("the version", client.apiserver_version()).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = seen(ask("the HealthCheck CRD", crds.get_opt(CRD_NAME)).await)?;
    let crd = crd.map(|crd| crd.and_then(|crd| serde_json::to_value(crd).ok()));
    let workflows = seen(ask("the Workflow CRD", crds.get_opt("workflows.argoproj.io")).await)?;
    let checks = match &crd {
        Some(None) => Vec::new(),
        Some(Some(_)) | None => checks(&client).await?,
    };
    Ok(Facts {
        kubernetes: version.git_version,
        crd,
        has_workflows: workflows.map(|crd| crd.is_some()),
        deployments: deployments(&client).await?,
        lease_renewed: lease(&client).await?,
        instance_ids: instance_ids(&client).await?,
        checks,
        ceilings: ceilings(&client).await?,
    })
}

async fn checks(client: &Client) -> Result<Vec<Result<HealthCheck, (String, String)>>, DoctorError> {
    let api: Api<DeserializeGuard<HealthCheck>> = Api::all(client.clone());
    let mut checks = Vec::new();
    each(&api, "the HealthChecks", ListParams::default(), |guarded: DeserializeGuard<HealthCheck>| {
        let key = format!("{}/{}", guarded.namespace().unwrap_or_default(), guarded.name_any());
        checks.push(guarded.0.map_err(|error| (key, error.to_string())));
    })
    .await?;
    Ok(checks)
}

async fn deployments(client: &Client) -> Result<Option<Vec<Program>>, DoctorError> {
    let mut found = Vec::new();
    let look = |deployment: Deployment| {
        let name = format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any());
        let spec = deployment.spec.unwrap_or_default();
        let replicas = spec.replicas.unwrap_or(1);
        let images = spec.template.spec.into_iter().flat_map(|pod| pod.containers).filter_map(|c| c.image);
        let programs = images.filter(|image| image.contains("active-monitor") || image.contains("workflow-controller"));
        found.extend(programs.map(|image| Program { name: name.clone(), image, replicas }));
    };
    let listed = each(&Api::all(client.clone()), "the deployments", ListParams::default(), look).await;
    Ok(seen(listed)?.map(|()| found))
}

async fn lease(client: &Client) -> Result<Option<i64>, DoctorError> {
    let params = ListParams::default().fields(&format!("metadata.name={LEASE}"));
    let mut renewed = None;
    let look = |lease: Lease| {
        let at = lease.spec.and_then(|spec| spec.renew_time).map(|time| time.0.as_second());
        renewed = renewed.max(at);
    };
    seen(each(&Api::all(client.clone()), "the leases", params, look).await)?;
    Ok(renewed)
}

async fn instance_ids(client: &Client) -> Result<Option<Vec<String>>, DoctorError> {
    let params = ListParams::default().fields(&format!("metadata.name={ARGO_CONFIG}"));
    let mut ids = Vec::new();
    let look = |config: ConfigMap| {
        let data = config.data.unwrap_or_default();
        // Older releases keep everything under one key.
        let nested = data.get("config").and_then(|text| serde_saphyr::from_str::<Value>(text).ok());
        let nested = nested.and_then(|config| config["instanceID"].as_str().map(str::to_owned));
        ids.push(data.get("instanceID").cloned().or(nested).unwrap_or_default());
    };
    let listed = each(&Api::all(client.clone()), "the configurations of Argo", params, look).await;
    Ok(seen(listed)?.map(|()| ids))
}

async fn ceilings(client: &Client) -> Result<Option<Ceilings>, DoctorError> {
    let mut ceilings = Ceilings { open: Some(Vec::new()), ..Ceilings::default() };
    let look = |role: ClusterRole| {
        let level = role.labels().get(CEILING_LABEL).cloned().unwrap_or_default();
        let rules = role.rules.unwrap_or_default();
        match level.as_str() {
            "reading" => ceilings.held.reading.extend(rules),
            "remedying" => ceilings.held.remedying.extend(rules),
            _ => {}
        }
    };
    let labelled = ListParams::default().labels(CEILING_LABEL);
    if seen(each(&Api::all(client.clone()), "the ceilings", labelled, look).await)?.is_none() {
        return Ok(None);
    }
    let mut open = Vec::new();
    let look = |binding: RoleBinding| {
        if binding.role_ref.name == REMEDYING_CEILING {
            open.extend(binding.metadata.namespace);
        }
    };
    seen(each(&Api::all(client.clone()), "the bindings of the ceiling", ListParams::default(), look).await)?;
    let mut everywhere = false;
    let look = |binding: ClusterRoleBinding| everywhere |= binding.role_ref.name == REMEDYING_CEILING;
    seen(each(&Api::all(client.clone()), "the bindings of the ceiling", ListParams::default(), look).await)?;
    ceilings.open = (!everywhere).then_some(open);
    Ok((!ceilings.held.reading.is_empty()).then_some(ceilings))
}

/// Takes each object of a list, page by page.
async fn each<K>(
    api: &Api<K>,
    what: &'static str,
    params: ListParams,
    mut take: impl FnMut(K),
) -> Result<(), DoctorError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut params = params.limit(PAGE);
    loop {
        let page = ask(what, api.list(&params)).await?;
        page.items.into_iter().for_each(&mut take);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

async fn ask<T>(what: &'static str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, DoctorError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|source| DoctorError::Read { what, source }),
        Err(_) => Err(DoctorError::Timeout { seconds: TIMEOUT.as_secs() }),
    }
}

/// `None` where the reader may not see it.
fn seen<T>(answer: Result<T, DoctorError>) -> Result<Option<T>, DoctorError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(DoctorError::Read { source: kube::Error::Api(status), .. }) if matches!(status.code, 401 | 403) => Ok(None),
        Err(error) => Err(error),
    }
}
