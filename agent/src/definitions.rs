//! Makes the HealthChecks that the hub defines for this cluster, within the cluster's own policy, and withdraws those
//! that it defines no more. A HealthCheck that no definition made is never touched.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use active_monitor_core::check::Check;
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::names::DEFINITION_LABEL;
use active_monitor_core::policy::{Pace, Policy};
use active_monitor_core::report::DEFINITION_GENERATION_ANNOTATION;
use active_monitor_core::scope::Scope;
use active_monitor_core::session::frame::{Definition, DefinitionResult, DefinitionStatus};
use backon::{BackoffBuilder, ExponentialBuilder};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, watch};

use crate::counters::{PACED, count};
use crate::link::PushedDefinitions;
use crate::request::{RequestError, request};
use crate::watches;

/// Who the API server's managed fields say wrote it.
const FIELD_MANAGER: &str = "active-monitor-agent-definitions";
/// What could not be applied is tried again after this time, then after twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Everything is looked at again after this time: a namespace may have come, a conflict gone, a change been undone.
const RESYNC: Duration = Duration::from_secs(300);
const PAGE: u32 = 50;

/// Applies what the hub pushes, and answers, until either channel's end.
pub async fn run(
    client: Client,
    scope: Scope,
    policy: Policy,
    mut pushed: watch::Receiver<Option<PushedDefinitions>>,
    statuses: mpsc::Sender<(u64, Vec<DefinitionStatus>)>,
) {
    let (mut retries, mut allowed) = (retries(), Allowed::by(policy));
    loop {
        let current = pushed.borrow_and_update().clone();
        let mut settled = true;
        if let Some(PushedDefinitions { nonce, definitions }) = current {
            let answer = apply_all(&client, &scope, &mut allowed, &definitions).await;
            settled = answer.iter().all(|status| status.result != DefinitionResult::Failed);
            if statuses.send((nonce, answer)).await.is_err() {
                return;
            }
        }
        if settled {
            retries = self::retries();
        }
        let wait = if settled { RESYNC } else { retries.next().unwrap_or(LAST_RETRY) };
        tokio::select! {
            changed = pushed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The pauses between tries; an API server that is only starting costs a definition no half minute.
fn retries() -> impl Iterator<Item = Duration> {
    let growing = ExponentialBuilder::default().with_min_delay(FIRST_RETRY).with_max_delay(LAST_RETRY);
    growing.with_jitter().without_max_times().build()
}

/// Answers what the hub pushes without applying any of it, until either channel's end.
pub async fn refuse(
    message: &str,
    mut pushed: watch::Receiver<Option<PushedDefinitions>>,
    statuses: mpsc::Sender<(u64, Vec<DefinitionStatus>)>,
) {
    loop {
        let current = pushed.borrow_and_update().clone();
        if let Some(PushedDefinitions { nonce, definitions }) = current {
            let refused = definitions.into_iter().map(|definition| DefinitionStatus {
                name: definition.name,
                generation: definition.generation,
                result: DefinitionResult::Refused,
                message: message.to_owned(),
            });
            if statuses.send((nonce, refused.collect())).await.is_err() {
                return;
            }
        }
        if pushed.changed().await.is_err() {
            return;
        }
    }
}

/// What the cluster allows, and how much of it was used of late.
struct Allowed {
    policy: Policy,
    pace: Pace,
    since: Instant,
}

impl Allowed {
    fn by(policy: Policy) -> Allowed {
        Allowed { policy, pace: Pace::default(), since: Instant::now() }
    }

    /// Whether one may be made or rescheduled now where there are `made`.
    fn take(&mut self, made: usize) -> Result<(), String> {
        self.pace.take(self.since.elapsed(), &self.policy, made).inspect_err(|_| count(&PACED))
    }

    /// What was taken last came to nothing if this is the API server's answer. Without one, or where it failed in the
    /// middle, nobody knows.
    fn give_back(&mut self, made: usize, error: &RequestError) {
        if matches!(error.code(), Some(400..500)) {
            self.pace.give_back(&self.policy, made);
        }
    }
}

async fn apply_all(
    client: &Client,
    scope: &Scope,
    allowed: &mut Allowed,
    definitions: &[Definition],
) -> Vec<DefinitionStatus> {
    let mut statuses = Vec::with_capacity(definitions.len());
    let mut applied = BTreeMap::new();
    // What is no longer defined makes room first.
    let defined = |definition: &str| definitions.iter().any(|known| known.name == definition);
    let mut made = withdraw_all(client, scope, |definition, _| defined(definition)).await;
    for definition in definitions {
        let outcome = match &mut made {
            Ok(made) => {
                apply(client, allowed, definition, made, &mut applied).await.unwrap_or_else(|error| sort(&error))
            }
            // How many there are is not known, and so neither whether there may be one more.
            Err(error) => (DefinitionResult::Failed, error.to_string()),
        };
        let (result, message) = outcome;
        if result != DefinitionResult::Applied {
            tracing::warn!(definition = definition.name, ?result, message, "definition is not applied");
        }
        let (name, generation) = (definition.name.clone(), definition.generation);
        statuses.push(DefinitionStatus { name, generation, result, message });
    }
    // What cannot be applied for the moment keeps its last good version.
    let kept = |definition: &str, target: &Target| applied.get(definition).is_none_or(|now| now == target);
    let moved = |made: &Made| made.iter().any(|(definition, old)| old.iter().any(|target| !kept(definition, target)));
    if made.as_ref().is_ok_and(moved)
        && let Err(error) = withdraw_all(client, scope, kept).await
    {
        tracing::warn!(%error, "cannot withdraw HealthChecks that the hub defines elsewhere now");
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
/// The HealthChecks that were made, by their definition.
type Made = BTreeMap<String, Vec<Target>>;

async fn apply(
    client: &Client,
    allowed: &mut Allowed,
    definition: &Definition,
    made: &mut Made,
    applied: &mut BTreeMap<String, Target>,
) -> Result<(DefinitionResult, String), RequestError> {
    if definition.health_check.is_empty() {
        let message = "the hub cannot fill it in for this cluster; what is there stays as it is".to_owned();
        return Ok((DefinitionResult::Refused, message));
    }
    let mut wanted = match allowed.policy.admit(&definition.name, &definition.health_check) {
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
    // One that only moves to another name takes no more room.
    if existing.is_none()
        && !made.contains_key(&definition.name)
        && let Err(message) = allowed.policy.admit_another(made.len())
    {
        return Ok((DefinitionResult::Refused, message));
    }
    let runs_sooner = existing.as_ref().is_none_or(|existing| is_rescheduled(existing, &wanted));
    if runs_sooner && let Err(message) = allowed.take(made.len()) {
        return Ok((DefinitionResult::Failed, message));
    }
    let is_new = existing.is_none();
    if let Err(error) = write(&api, existing, wanted).await {
        if runs_sooner {
            allowed.give_back(made.len(), &error);
        }
        return if is_new && error.is_conflict() { Ok(conflict(&namespace, &name)) } else { Err(error) };
    }
    made.entry(definition.name.clone()).or_default();
    applied.insert(definition.name.clone(), (namespace, name));
    Ok((DefinitionResult::Applied, String::new()))
}

/// Makes it, or makes what exists agree with it.
async fn write(api: &Api<HealthCheck>, existing: Option<HealthCheck>, wanted: HealthCheck) -> Result<(), RequestError> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    match existing {
        None => request(api.create(&params, &wanted)).await.map(drop),
        Some(existing) => match changed(existing, wanted) {
            Some(changed) => request(api.replace(&changed.name_any(), &params, &changed)).await.map(drop),
            None => Ok(()),
        },
    }
}

fn conflict(namespace: &str, name: &str) -> (DefinitionResult, String) {
    let message =
        format!("HealthCheck {namespace}/{name} exists and was not made by this definition; it is left alone");
    (DefinitionResult::Conflict, message)
}

/// Whether a check gets other slots, one of which may be due at once.
fn is_rescheduled(existing: &HealthCheck, wanted: &HealthCheck) -> bool {
    let next = HealthCheck { spec: wanted.spec.clone(), ..existing.clone() };
    let timing = |check: &HealthCheck| Check::parse(check).ok().map(|check| check.timing);
    timing(existing) != timing(&next)
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

/// Deletes what definitions made and is not kept. Returns what stays.
async fn withdraw_all(
    client: &Client,
    scope: &Scope,
    kept: impl Fn(&str, &Target) -> bool,
) -> Result<Made, RequestError> {
    let mut made = Made::new();
    for all in watches::apis(scope, client) {
        withdraw(client, &all, &kept, &mut made).await?;
    }
    Ok(made)
}

async fn withdraw(
    client: &Client,
    all: &Api<HealthCheck>,
    kept: impl Fn(&str, &Target) -> bool,
    made: &mut Made,
) -> Result<(), RequestError> {
    let mut params = ListParams::default().labels(DEFINITION_LABEL).limit(PAGE);
    loop {
        let page = request(all.list(&params)).await?;
        for found in &page.items {
            let target = (found.namespace().unwrap_or_default(), found.name_any());
            let definition = found.labels().get(DEFINITION_LABEL).cloned().unwrap_or_default();
            if kept(&definition, &target) {
                made.entry(definition).or_default().push(target);
                continue;
            }
            let (namespace, name) = &target;
            let only_this = Preconditions { uid: found.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
            let (api, check) =
                (Api::<HealthCheck>::namespaced(client.clone(), namespace), format!("{namespace}/{name}"));
            match request(api.delete(name, &params)).await {
                // What stays is looked at again with the next set; it keeps no other from being applied.
                Err(error) if !error.is_not_found() => {
                    tracing::warn!(%error, check, definition, "cannot be withdrawn");
                    made.entry(definition).or_default().push(target);
                }
                Ok(_) | Err(_) => tracing::info!(check, definition, "withdrawn"),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
