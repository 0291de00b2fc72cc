//! What the accounts of checks may do: a desired state per (namespace, account, level), the union of what all the checks
//! that use the account ask for.

mod refusal;
mod repairs;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

pub use refusal::{Ceilings, Layer, Refusal};
pub use repairs::Repairs;

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

/// Label of the ClusterRoles that a ceiling is aggregated from; its value is `reading` or `remedying`.
pub const CEILING_LABEL: &str = "activemonitor.keikoproj.io/ceiling";
/// The ClusterRole that is bound where a namespace is open for remedies.
pub const REMEDYING_CEILING: &str = "active-monitor-ceiling-remedying";

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

    /// `namespace/name`, as the annotation has it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
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
        json!({ ACCOUNT_ANNOTATION: self.key() })
    }

    fn labels(&self) -> Value {
        json!({ MANAGED_BY_LABEL: MANAGED_BY, OWNER_LABEL: OWNER, ACCOUNT_NAMESPACE_LABEL: self.namespace })
    }
}

/// The union of what the jobs ask for, and what Argo's executor needs in every pod; sorted, so that the same jobs in
/// another order ask for the same.
pub fn union<'a>(rules: impl Iterator<Item = &'a PolicyRule>) -> Vec<PolicyRule> {
    // A thousand checks with one account mostly ask for the same: what is equal is told apart before it is copied.
    let mut seen: HashMap<u64, Vec<&PolicyRule>> = HashMap::new();
    let mut all: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let alike = seen.entry(fingerprint(rule)).or_default();
        if !alike.contains(&rule) {
            alike.push(rule);
            all.push(rule.clone());
        }
    }
    all.push(rule("argoproj.io", &["workflowtaskresults"], &["create", "patch"]));
    all.sort_by_cached_key(|rule| serde_json::to_string(rule).unwrap_or_default());
    all.dedup();
    all
}

/// The rules of a job that gives none: active-monitor's. Nearly all give none, and share these.
pub fn default_rules(kind: RunKind) -> Arc<[PolicyRule]> {
    static OF_CHECKS: LazyLock<Arc<[PolicyRule]>> = LazyLock::new(|| defaults(RunKind::HealthCheck).into());
    static OF_REMEDIES: LazyLock<Arc<[PolicyRule]>> = LazyLock::new(|| defaults(RunKind::Remedy).into());
    match kind {
        RunKind::HealthCheck => Arc::clone(&OF_CHECKS),
        RunKind::Remedy => Arc::clone(&OF_REMEDIES),
    }
}

fn defaults(kind: RunKind) -> Vec<PolicyRule> {
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

/// Whether the API server takes it as a rule: with verbs, and with groups and resources together, or with URLs.
pub fn is_complete(rule: &PolicyRule) -> bool {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let of_resources = some(&rule.api_groups) && some(&rule.resources);
    let of_nothing_else = !some(&rule.api_groups) && !some(&rule.resources) && some(&rule.non_resource_urls);
    !rule.verbs.is_empty() && (of_resources || of_nothing_else)
}

/// Whether every right of a rule is among those held, as the API server's escalation check has it.
pub fn covers(held: &[PolicyRule], asked: &PolicyRule) -> bool {
    let has = |list: &Option<Vec<String>>, what: &str| list.iter().flatten().any(|one| one == "*" || one == what);
    let verb = |rule: &PolicyRule, verb: &str| rule.verbs.iter().any(|one| one == "*" || one == verb);
    let named = |rule: &PolicyRule, name: Option<&String>| match rule.resource_names.as_deref() {
        None | Some([]) => true,
        Some(names) => name.is_some_and(|name| names.contains(name)),
    };
    let names = asked.resource_names.as_deref().unwrap_or_default();
    let names: Vec<Option<&String>> = if names.is_empty() { vec![None] } else { names.iter().map(Some).collect() };
    let groups: Vec<&String> = asked.api_groups.iter().flatten().collect();
    let holds = |verb_asked: &str, group: &str, resource: &str, name: Option<&String>| {
        held.iter().any(|rule| {
            let of_sub = resource.split_once('/').is_some_and(|(_, sub)| has(&rule.resources, &format!("*/{sub}")));
            let of_resource = of_sub || has(&rule.resources, resource);
            verb(rule, verb_asked) && has(&rule.api_groups, group) && of_resource && named(rule, name)
        })
    };
    if !is_complete(asked) {
        return false;
    }
    asked.verbs.iter().all(|asked_verb| {
        let mut urls = asked.non_resource_urls.iter().flatten();
        let mut resources = asked.resources.iter().flatten();
        resources.all(|one| groups.iter().all(|group| names.iter().all(|name| holds(asked_verb, group, one, *name))))
            && urls.all(|url| held.iter().any(|rule| verb(rule, asked_verb) && has(&rule.non_resource_urls, url)))
    })
}

/// Whether two rules have a right in common.
pub fn overlaps(a: &PolicyRule, b: &PolicyRule) -> bool {
    fn common(a: &[String], b: &[String]) -> bool {
        let any = |list: &[String]| list.iter().any(|one| one == "*");
        !a.is_empty() && !b.is_empty() && (any(a) || any(b) || a.iter().any(|one| b.contains(one)))
    }
    fn list(list: &Option<Vec<String>>) -> &[String] {
        list.as_deref().unwrap_or_default()
    }
    let (names_a, names_b) = (list(&a.resource_names), list(&b.resource_names));
    let resources = common(list(&a.api_groups), list(&b.api_groups))
        && common(list(&a.resources), list(&b.resources))
        && (names_a.is_empty() || names_b.is_empty() || common(names_a, names_b));
    common(&a.verbs, &b.verbs) && (resources || common(list(&a.non_resource_urls), list(&b.non_resource_urls)))
}

fn fingerprint(rule: &PolicyRule) -> u64 {
    let PolicyRule { api_groups, non_resource_urls, resource_names, resources, verbs } = rule;
    let mut hasher = DefaultHasher::new();
    (api_groups, non_resource_urls, resource_names, resources, verbs).hash(&mut hasher);
    hasher.finish()
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
        let one = union(a.iter().chain(&*b));
        assert_eq!(one, union(b.iter().chain(&*a).chain(&*a)));
        assert_eq!(one.len(), 7);
    }

    #[test]
    fn a_ceiling_covers_what_the_escalation_check_lets_pass() {
        let named = |names: &[&str], mut rule: PolicyRule| {
            rule.resource_names = Some(names.iter().map(|name| (*name).to_owned()).collect());
            rule
        };
        let held = [
            rule("", &["pods", "*/scale"], &["get", "list"]),
            rule("", &["pods"], &["delete"]),
            named(&["a", "b"], rule("", &["secrets"], &["get"])),
        ];
        for (asked, covered) in [
            (rule("", &["pods"], &["get", "delete"]), true),
            (rule("", &["pods"], &["*"]), false),
            (rule("apps", &["pods"], &["get"]), false),
            (rule("", &["things/scale"], &["get"]), true),
            (rule("", &["pods", "secrets"], &["get"]), false),
            (named(&["a"], rule("", &["secrets"], &["get"])), true),
            (named(&["a", "c"], rule("", &["secrets"], &["get"])), false),
            (rule("", &["pods", "nodes"], &["get", "delete"]), false),
            (rule("", &["pods"], &[]), false),
            (rule("", &[], &["get"]), false),
            (PolicyRule { api_groups: None, ..rule("", &["pods"], &["get"]) }, false),
        ] {
            assert_eq!(covers(&held, &asked), covered, "{asked:?}");
        }
        assert!(covers(&[rule("*", &["*"], &["*"])], &rule("x", &["y/z"], &["w"])));
    }

    #[test]
    fn rules_overlap_where_they_share_a_right() {
        let one = rule("", &["pods", "secrets"], &["get"]);
        assert!(overlaps(&one, &rule("", &["secrets"], &["get", "list"])));
        assert!(overlaps(&one, &rule("*", &["*"], &["*"])));
        assert!(!overlaps(&one, &rule("", &["secrets"], &["list"])));
        assert!(!overlaps(&one, &rule("apps", &["secrets"], &["get"])));
        let url = PolicyRule { non_resource_urls: Some(vec!["/x".into()]), ..rule("", &[], &["get"]) };
        assert!(!overlaps(&one, &url) && overlaps(&url, &url));
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
