//! Makes the HealthChecks that the hub defines for this cluster, within the cluster's own policy, and withdraws those
//! that it defines no more. A HealthCheck that no definition made is never touched.

use std::collections::BTreeMap;
use std::time::Duration;

use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::policy::Policy;
use active_monitor_core::report::{DEFINITION_GENERATION_ANNOTATION, DEFINITION_LABEL};
use active_monitor_core::session::frame::{Definition, DefinitionResult, DefinitionStatus};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, watch};

use crate::link::PushedDefinitions;
use crate::request::{RequestError, request};

/// Who the API server's managed fields say wrote it.
const FIELD_MANAGER: &str = "active-monitor-agent-definitions";
/// What could not be applied is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);
/// Everything is looked at again after this time: a namespace may have come, a conflict gone, a change been undone.
const RESYNC: Duration = Duration::from_secs(300);
const PAGE: u32 = 50;

/// Applies what the hub pushes, and answers, until either channel's end.
pub async fn run(
    client: Client,
    policy: Policy,
    mut pushed: watch::Receiver<Option<PushedDefinitions>>,
    statuses: mpsc::Sender<(u64, Vec<DefinitionStatus>)>,
) {
    loop {
        let current = pushed.borrow_and_update().clone();
        let mut settled = true;
        if let Some(PushedDefinitions { nonce, definitions }) = current {
            let answer = apply_all(&client, &policy, &definitions).await;
            settled = answer.iter().all(|status| status.result != DefinitionResult::Failed);
            if statuses.send((nonce, answer)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = pushed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(if settled { RESYNC } else { RETRY }) => {}
        }
    }
}

async fn apply_all(client: &Client, policy: &Policy, definitions: &[Definition]) -> Vec<DefinitionStatus> {
    let mut statuses = Vec::with_capacity(definitions.len());
    let mut applied = BTreeMap::new();
    for definition in definitions {
        let outcome = apply(client, policy, definition, &mut applied).await;
        let (result, message) = outcome.unwrap_or_else(|error| sort(&error));
        if result != DefinitionResult::Applied {
            tracing::warn!(definition = definition.name, ?result, message, "definition is not applied");
        }
        let (name, generation) = (definition.name.clone(), definition.generation);
        statuses.push(DefinitionStatus { name, generation, result, message });
    }
    let kept = |definition: &str, target: &Target| match applied.get(definition) {
        Some(now) => now == target,
        // What cannot be applied for the moment keeps its last good version.
        None => definitions.iter().any(|known| known.name == definition),
    };
    if let Err(error) = withdraw(client, kept).await {
        tracing::warn!(%error, "cannot withdraw HealthChecks that the hub defines no more");
    }
    statuses
}

/// What the API server's answer means: a refusal of the object as it is, or something that may pass.
fn sort(error: &RequestError) -> (DefinitionResult, String) {
    let result = if error.is_final() { DefinitionResult::Refused } else { DefinitionResult::Failed };
    (result, error.to_string())
}

/// Namespace and name of a HealthCheck.
type Target = (String, String);

async fn apply(
    client: &Client,
    policy: &Policy,
    definition: &Definition,
    applied: &mut BTreeMap<String, Target>,
) -> Result<(DefinitionResult, String), RequestError> {
    if definition.health_check.is_empty() {
        let message = "the hub cannot fill it in for this cluster; what is there stays as it is".to_owned();
        return Ok((DefinitionResult::Refused, message));
    }
    let mut wanted = match policy.admit(&definition.name, &definition.health_check) {
        Ok(wanted) => wanted,
        Err(message) => return Ok((DefinitionResult::Refused, message)),
    };
    let generation = definition.generation.to_string();
    wanted.annotations_mut().insert(DEFINITION_GENERATION_ANNOTATION.into(), generation);
    let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
    let api: Api<HealthCheck> = Api::namespaced(client.clone(), &namespace);
    let existing = request(api.get_opt(&name)).await?;
    if existing.as_ref().is_some_and(|existing| existing.labels().get(DEFINITION_LABEL) != Some(&definition.name)) {
        return Ok(conflict(&namespace, &name));
    }
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    match existing {
        None => match request(api.create(&params, &wanted)).await {
            Err(error) if error.is_conflict() => return Ok(conflict(&namespace, &name)),
            other => other.map(|_| ())?,
        },
        Some(existing) => {
            if let Some(changed) = changed(existing, wanted) {
                request(api.replace(&name, &params, &changed)).await?;
            }
        }
    }
    applied.insert(definition.name.clone(), (namespace, name));
    Ok((DefinitionResult::Applied, String::new()))
}

fn conflict(namespace: &str, name: &str) -> (DefinitionResult, String) {
    let message =
        format!("HealthCheck {namespace}/{name} exists and was not made by this definition; it is left alone");
    (DefinitionResult::Conflict, message)
}

/// The existing object with what is wanted in it; `None` where it is there already. Labels and annotations of others
/// stay.
fn changed(existing: HealthCheck, wanted: HealthCheck) -> Option<HealthCheck> {
    let mut next = existing.clone();
    next.spec = wanted.spec;
    next.labels_mut().extend(wanted.metadata.labels.unwrap_or_default());
    next.annotations_mut().extend(wanted.metadata.annotations.unwrap_or_default());
    (next != existing).then_some(next)
}

/// Deletes what definitions made and none stands behind any more.
async fn withdraw(client: &Client, kept: impl Fn(&str, &Target) -> bool) -> Result<(), RequestError> {
    let all: Api<HealthCheck> = Api::all(client.clone());
    let mut params = ListParams::default().labels(DEFINITION_LABEL).limit(PAGE);
    loop {
        let page = request(all.list(&params)).await?;
        for made in &page.items {
            let target = (made.namespace().unwrap_or_default(), made.name_any());
            let definition = made.labels().get(DEFINITION_LABEL).cloned().unwrap_or_default();
            if kept(&definition, &target) {
                continue;
            }
            let (namespace, name) = target;
            let only_this = Preconditions { uid: made.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
            let api: Api<HealthCheck> = Api::namespaced(client.clone(), &namespace);
            match request(api.delete(&name, &params)).await {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(_) | Err(_) => tracing::info!(check = format!("{namespace}/{name}"), definition, "withdrawn"),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}
