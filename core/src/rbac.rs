//! What the accounts of checks may do: a desired state per (namespace, account, level), the union of what all the checks
//! that use the account ask for.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use crate::check::{Check, Job, Level};
use crate::run::RunKind;

/// Rules that one workflow may ask for.
pub const MAX_RULES: usize = 100;
/// Label that active-monitor puts on what it makes; ours carry it too, so that either recognises the other's.
pub const MANAGED_BY_LABEL: &str = "workflows.argoproj.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "active-monitor";
/// Label of our own: only what carries it is ever deleted.
pub const OWNER_LABEL: &str = "activemonitor.keikoproj.io/owner";
/// Its value.
pub const OWNER: &str = "active-monitor-agent";
/// Label with the namespace of the account that a cluster-wide object serves.
pub const ACCOUNT_NAMESPACE_LABEL: &str = "activemonitor.keikoproj.io/account-namespace";

/// Annotation with the `namespace/name` of the account that an object serves; a label is too short for some names.
pub const ACCOUNT_ANNOTATION: &str = "activemonitor.keikoproj.io/account";

/// Identifies the rights of an account at one level.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Reach of its rights.
    pub level: Level,
}

impl Account {
    /// The account that a job of this check runs as.
    pub fn of(check: &Check, job: &Job) -> Account {
        Account { namespace: job.namespace.clone(), name: job.account.clone(), level: check.level }
    }

    /// Name of its role, as active-monitor has it; qualified by the namespace where another namespace's account of the
    /// same name holds the plain one.
    pub fn role_name(&self, qualified: bool) -> String {
        let suffix = match self.level {
            Level::Cluster => "cluster-role",
            Level::Namespace => "ns-role",
        };
        if qualified { format!("{}-{}-{suffix}", self.namespace, self.name) } else { format!("{}-{suffix}", self.name) }
    }

    /// The ServiceAccount to make where there is none.
    pub fn service_account(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {
                "name": self.name, "namespace": self.namespace,
                "labels": self.labels(), "annotations": self.annotations(),
            },
        })
    }

    /// The Role or ClusterRole.
    pub fn role(&self, rules: &[PolicyRule], qualified: bool) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": self.role_kind(),
            "metadata": self.metadata(&self.role_name(qualified)),
            "rules": rules,
        })
    }

    /// The binding of that role to the account.
    pub fn binding(&self, qualified: bool) -> Value {
        let role = self.role_name(qualified);
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{}Binding", self.role_kind()),
            "metadata": self.metadata(&format!("{role}-binding")),
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": self.role_kind(), "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": self.name, "namespace": self.namespace }],
        })
    }

    fn role_kind(&self) -> &'static str {
        match self.level {
            Level::Cluster => "ClusterRole",
            Level::Namespace => "Role",
        }
    }

    fn metadata(&self, name: &str) -> Value {
        let mut metadata = json!({ "name": name, "labels": self.labels(), "annotations": self.annotations() });
        if self.level == Level::Namespace {
            metadata["namespace"] = self.namespace.clone().into();
        }
        metadata
    }

    fn annotations(&self) -> Value {
        json!({ ACCOUNT_ANNOTATION: format!("{}/{}", self.namespace, self.name) })
    }

    fn labels(&self) -> Value {
        json!({ MANAGED_BY_LABEL: MANAGED_BY, OWNER_LABEL: OWNER, ACCOUNT_NAMESPACE_LABEL: self.namespace })
    }
}

/// The union of what the jobs ask for, and what Argo's executor needs in every pod; sorted, so that the same jobs in
/// another order ask for the same.
pub fn union<'a>(rules: impl Iterator<Item = &'a PolicyRule>) -> Vec<PolicyRule> {
    let mut all: Vec<PolicyRule> = rules.cloned().collect();
    all.push(rule("argoproj.io", &["workflowtaskresults"], &["create", "patch"]));
    all.sort_by_cached_key(|rule| serde_json::to_string(rule).unwrap_or_default());
    all.dedup();
    all
}

/// The rules of a job that gives none: active-monitor's.
pub fn default_rules(kind: RunKind) -> Vec<PolicyRule> {
    let read = ["get", "list", "watch"];
    let change = ["create", "update", "patch", "delete"];
    let core = ["pods", "nodes", "events", "services", "configmaps", "namespaces", "endpoints"];
    let mut rules = vec![
        rule("", &core, &read),
        rule("apps", &["deployments", "replicasets", "statefulsets", "daemonsets"], &read),
        rule("argoproj.io", &["workflows"], &read),
    ];
    match kind {
        RunKind::HealthCheck => {}
        RunKind::Remedy => rules.extend([
            rule("", &["pods", "events", "services", "configmaps", "endpoints"], &change),
            rule("apps", &["deployments", "replicasets", "statefulsets"], &change),
            rule("argoproj.io", &["workflows"], &change),
        ]),
    }
    rules
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(texts(resources)),
        verbs: texts(verbs),
        ..PolicyRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_has_no_double_and_no_order() {
        let (a, b) = (default_rules(RunKind::HealthCheck), default_rules(RunKind::Remedy));
        let one = union(a.iter().chain(&b));
        assert_eq!(one, union(b.iter().chain(&a).chain(&a)));
        assert_eq!(one.len(), 7);
    }

    #[test]
    fn names_are_active_monitors() {
        let account = Account { namespace: "health".into(), name: "sa".into(), level: Level::Cluster };
        assert_eq!(account.role_name(false), "sa-cluster-role");
        assert_eq!(account.binding(false)["metadata"]["name"], "sa-cluster-role-binding");
        let account = Account { level: Level::Namespace, ..account };
        assert_eq!(account.role_name(false), "sa-ns-role");
        assert_eq!(account.role_name(true), "health-sa-ns-role");
    }
}
