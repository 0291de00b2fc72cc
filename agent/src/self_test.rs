//! Runs the self-test of the cluster: makes its workflow by the agent's own rights and waits until Argo has ended it. What
//! the workflow is, and what its end means, is `core::self_test`'s.

use std::time::Duration;

use active_monitor_core::policy::Policy;
use active_monitor_core::scope::Scope;
use active_monitor_core::self_test::{DEADLINE, SelfTest, SelfTestOutcome, judge, workflow};
use jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::request::{RequestError, request};
use crate::workflows::SlimWorkflow;

/// Between two looks at the workflow.
const LOOK: Duration = Duration::from_secs(1);

/// What a self-test needs.
#[derive(Clone)]
pub struct Tester {
    /// The API server.
    pub client: Client,
    /// Where the workflow runs.
    pub namespace: String,
}

/// The namespace to test: one that the hub's checks may run in, or one that the agent works in, or its own.
pub fn namespace(policy: &Policy, scope: &Scope, own: &str) -> String {
    let watched = match scope {
        Scope::Cluster => None,
        Scope::Namespaces(namespaces) => namespaces.iter().next(),
    };
    policy.namespaces.iter().next().or(watched).map_or_else(|| own.to_owned(), Clone::clone)
}

impl Tester {
    /// Runs it to its end, which takes a minute and a half at most. Whatever comes in between is the result.
    pub async fn run(&self) -> SelfTest {
        let (outcome, message) = match self.make().await {
            Ok(name) => self.end(&name).await,
            Err(message) => (SelfTestOutcome::Failed, message),
        };
        let ended = SelfTest::new(outcome, &message, Timestamp::now());
        tracing::info!(outcome = outcome.as_str(), reason = ended.message, "self-test");
        ended
    }

    /// Makes the workflow; its name, or why there is none.
    async fn make(&self) -> Result<String, String> {
        let gvk = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Workflow");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "workflows");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let workflow = workflow(&self.namespace, &uuid::Uuid::new_v4().simple().to_string());
        let workflow: DynamicObject = serde_json::from_value(workflow).map_err(|error| error.to_string())?;
        let made = request(api.create(&PostParams::default(), &workflow)).await;
        made.map_err(|error| not_made(&self.namespace, &error))?;
        Ok(workflow.metadata.name.unwrap_or_default())
    }

    async fn end(&self, name: &str) -> (SelfTestOutcome, String) {
        let api: Api<SlimWorkflow> = Api::namespaced(self.client.clone(), &self.namespace);
        let full_name = format!("{}/{name}", self.namespace);
        let deadline = Instant::now() + DEADLINE;
        loop {
            tokio::time::sleep(LOOK).await;
            let is_late = Instant::now() >= deadline;
            let ended = match request(api.get(name)).await {
                Ok(found) => judge(&full_name, &found.status(), is_late),
                Err(error) if error.is_not_found() => {
                    Some((SelfTestOutcome::Failed, format!("somebody deleted the workflow {full_name}; try again")))
                }
                Err(error) if is_late => {
                    let message = format!("the workflow {full_name} could not be looked at: {error}; try again");
                    Some((SelfTestOutcome::Failed, message))
                }
                Err(_) => None,
            };
            let Some((outcome, message)) = ended else { continue };
            // Nobody else takes away what Argo has not ended.
            if outcome == SelfTestOutcome::TimedOut
                && let Err(error) = request(api.delete(name, &DeleteParams::background())).await
            {
                tracing::warn!(workflow = full_name, %error, "cannot delete the workflow of a self-test");
            }
            return (outcome, message);
        }
    }
}

/// Why there is no workflow, and what to do about it.
fn not_made(namespace: &str, error: &RequestError) -> String {
    let said = error.to_string();
    if error.is_not_found() && said.contains("namespaces") {
        return format!("the namespace {namespace} does not exist: make it, or open another one to the hub");
    }
    if error.is_not_found() {
        return "Argo Workflows is not installed: the cluster has no kind Workflow in argoproj.io/v1alpha1".to_owned();
    }
    if error.is_forbidden() {
        return format!(
            "the agent may not make a workflow in {namespace}: {said}; compare its rights with deploy/agent, and look for an \
             admission policy"
        );
    }
    format!("the workflow could not be made in {namespace}: {said}; try again with `fleetcheck cluster test`")
}

#[cfg(test)]
mod tests;
