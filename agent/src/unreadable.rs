//! Objects that cannot be read as a HealthCheck, as another CRD than ours may let them in: what stands in for them, so
//! that their status says so and a run in flight is followed.

use active_monitor_core::check::{Invalid, Problem};
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckSpec, HealthCheckStatus};
use active_monitor_core::run::clean_message;
use kube::Api;
use kube::core::{ApiResource, DynamicObject, ObjectMeta};
use serde_json::{Map, Value};

use crate::context::Context;
use crate::request::{RequestError, request};

/// Reads the object as it is: its metadata, and of its status what can be read. `None` where it is gone.
///
/// # Errors
/// When the API server does not give it.
pub(crate) async fn stand_in(context: &Context, meta: &ObjectMeta) -> Result<Option<HealthCheck>, RequestError> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let resource = ApiResource::erase::<HealthCheck>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    let name = meta.name.as_deref().unwrap_or_default();
    let Some(object) = request(api.get_opt(name)).await? else { return Ok(None) };
    let mut check = HealthCheck::new(name, HealthCheckSpec::default());
    check.metadata = ObjectMeta { managed_fields: None, ..object.metadata };
    check.status = object.data.get("status").map(readable);
    Ok(Some(check))
}

/// What is wrong with it.
pub(crate) fn problem(error: &impl std::fmt::Display) -> Invalid {
    let message = clean_message(&format!("cannot be read as a HealthCheck: {error}"));
    Invalid { problems: vec![Problem { field: "object".into(), message }] }
}

/// The fields that can be read, each by itself: counters must not start anew for a time that nobody can read.
fn readable(status: &Value) -> HealthCheckStatus {
    let alone = |name: &String, value: &Value| Value::Object(Map::from_iter([(name.clone(), value.clone())]));
    let fields = status.as_object().into_iter().flatten();
    let readable =
        fields.filter(|(name, value)| serde_json::from_value::<HealthCheckStatus>(alone(name, value)).is_ok());
    let readable: Map<String, Value> = readable.map(|(name, value)| (name.clone(), value.clone())).collect();
    serde_json::from_value(Value::Object(readable)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_status_what_can_be_read_is_kept() {
        let status = readable(&serde_json::json!({"successCount": 7, "startedAt": "tomorrow", "status": "Failed"}));
        assert_eq!(
            (status.success_count, status.started_at, status.status.as_deref()),
            (Some(7), None, Some("Failed"))
        );
        assert_eq!(readable(&Value::from("no object")), HealthCheckStatus::default());
    }
}
