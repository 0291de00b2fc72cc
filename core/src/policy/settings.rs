//! What a cluster lets the hub do, in words: the agent says it of itself, and the hub shows it. It decides nothing.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Policy;
use crate::command::{Kind, Obedience};
use crate::run::clean_message;

/// The most settings of one cluster.
pub const MAX_SETTINGS: usize = 16;
/// A list is cut where it would be longer, in bytes; how many more there are is said.
const MAX_LIST_BYTES: usize = 512;

/// One setting of a cluster's policy, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySetting {
    /// As the policy's file or the agent's flag calls it.
    pub name: String,
    /// What is open.
    pub value: String,
}

impl PolicySetting {
    /// One of these.
    pub fn new(name: &str, value: impl Into<String>) -> PolicySetting {
        PolicySetting { name: name.to_owned(), value: value.into() }
    }

    /// As it may be shown, whoever says it.
    pub fn clean(&self) -> PolicySetting {
        PolicySetting { name: clean_message(&self.name), value: clean_message(&self.value) }
    }
}

impl Policy {
    /// What the hub may push.
    pub fn settings(&self) -> Vec<PolicySetting> {
        let Policy { namespaces, remedies, levels, accounts, sources, rules, min_period_seconds, max_checks } = self;
        let open = if namespaces.is_empty() { "none: nothing is taken".to_owned() } else { list(namespaces, ", ") };
        let accounts = accounts.as_ref().map_or_else(|| "any".to_owned(), |accounts| list(accounts, ", "));
        let rules: Vec<String> = rules.iter().map(rule).collect();
        vec![
            PolicySetting::new("namespaces", open),
            PolicySetting::new("remedies", remedies.to_string()),
            PolicySetting::new("levels", list(levels.iter().map(|level| level.as_str()), ", ")),
            PolicySetting::new("accounts", accounts),
            PolicySetting::new("sources", list(sources.iter().map(|source| source.as_str()), ", ")),
            PolicySetting::new("rules", list(&rules, "; ")),
            PolicySetting::new("minPeriodSeconds", min_period_seconds.to_string()),
            PolicySetting::new("maxChecks", max_checks.to_string()),
        ]
    }
}

impl Obedience {
    /// Which commands are obeyed.
    pub fn settings(&self) -> Vec<PolicySetting> {
        let Obedience { kinds, longest_pause } = self;
        let mut settings = vec![PolicySetting::new("obey", list(kinds.iter().map(|kind| kind.as_str()), ", "))];
        if kinds.iter().any(|kind| matches!(kind, Kind::Pause | Kind::PauseRemedies)) {
            let hours = longest_pause.as_secs() / 3600;
            settings.push(PolicySetting::new("longest-pause-hours", hours.to_string()));
        }
        settings
    }
}

fn list(items: impl IntoIterator<Item = impl AsRef<str>>, between: &str) -> String {
    let (mut text, mut left) = (String::new(), 0_usize);
    for item in items {
        let item = item.as_ref();
        if left > 0 || text.len() + between.len() + item.len() > MAX_LIST_BYTES {
            left += 1;
            continue;
        }
        if !text.is_empty() {
            text.push_str(between);
        }
        text.push_str(item);
    }
    match (text.is_empty(), left) {
        (true, 0) => "none".to_owned(),
        (true, left) => format!("{left}, too long to be shown"),
        (false, 0) => text,
        (false, left) => format!("{text}{between}and {left} more"),
    }
}

fn rule(rule: &PolicyRule) -> String {
    let PolicyRule { api_groups, non_resource_urls, resource_names, resources, verbs } = rule;
    let all = |parts: &Option<Vec<String>>| parts.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(",");
    let mut text = verbs.join(",");
    for (before, parts) in
        [(" ", resources), (" ", non_resource_urls), (" of ", api_groups), (" named ", resource_names)]
    {
        let parts = all(parts);
        if !parts.is_empty() {
            text.extend([before, &parts]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(settings: &[PolicySetting]) -> Vec<String> {
        settings.iter().map(|PolicySetting { name, value }| format!("{name}: {value}")).collect()
    }

    #[test]
    fn each_field_of_a_policy_is_said_in_words() {
        let closed = "namespaces: none: nothing is taken, remedies: false, levels: namespace, accounts: any, sources: inline, \
                      rules: none, minPeriodSeconds: 10, maxChecks: 200";
        assert_eq!(shown(&Policy::default().settings()).join(", "), closed);
        let text = "{namespaces: [shop, health], remedies: true, levels: [namespace, cluster], accounts: [dns], \
                    sources: [inline, url], maxChecks: 3, minPeriodSeconds: 30, rules: [{apiGroups: [coordination.k8s.io], \
                    resources: [leases], verbs: [get, list]}, {nonResourceURLs: [/healthz], verbs: [get]}, \
                    {apiGroups: [''], resources: [secrets], resourceNames: [a], verbs: [get]}]}";
        let open = shown(&Policy::parse(text).unwrap().settings());
        assert_eq!(open[0], "namespaces: health, shop");
        assert_eq!(open[2..5], ["levels: cluster, namespace", "accounts: dns", "sources: inline, url"]);
        assert_eq!(open[5], "rules: get,list leases of coordination.k8s.io; get /healthz; get secrets named a");
        let longest_pause = Duration::from_secs(7200);
        let obeyed = |kinds: &[Kind]| shown(&Obedience { kinds: kinds.to_vec(), longest_pause }.settings());
        assert_eq!(obeyed(&[]), ["obey: none"]);
        assert_eq!(obeyed(&[Kind::RunNow, Kind::Pause]), ["obey: run-now, pause", "longest-pause-hours: 2"]);
    }

    #[test]
    fn a_long_list_is_cut_and_what_anybody_says_is_cleaned() {
        let policy =
            Policy { namespaces: (0..1000).map(|n| format!("namespace-{n:04}")).collect(), ..Policy::default() };
        let PolicySetting { value, .. } = &policy.settings()[0];
        assert!(value.len() < MAX_LIST_BYTES + 20 && value.ends_with(", and 968 more"), "{value}");
        assert_eq!(list(["x".repeat(600)], ", "), "1, too long to be shown");
        let hostile = PolicySetting::new("a\x1b[2Jb\n", "x".repeat(5000)).clean();
        assert_eq!(hostile.name, "ab");
        assert!(hostile.value.len() <= crate::run::MAX_MESSAGE_BYTES && hostile.value.ends_with('…'));
        assert!(Policy::default().settings().len() + obedient().len() <= MAX_SETTINGS);
    }

    fn obedient() -> Vec<PolicySetting> {
        Obedience { kinds: vec![Kind::Pause], longest_pause: Duration::from_secs(3600) }.settings()
    }
}
