//! Which of the rights that a check asks for the agent cannot hand out, since it does not hold them. Pure; the API
//! server's own check of escalation says the same.

use active_monitor_core::check::{Check, Job, Level};
use active_monitor_core::rbac;
use active_monitor_core::run::RunKind;
use k8s_openapi::api::rbac::v1::PolicyRule;

use super::facts::Ceilings;

impl Ceilings {
    /// What an installation has from the start: active-monitor's default rights, remedies in the namespace `health`.
    pub(super) fn from_the_start() -> Ceilings {
        let held = rbac::Ceilings {
            // The union adds what Argo's executor needs.
            reading: rbac::union(rbac::default_rules(RunKind::HealthCheck).iter()),
            remedying: rbac::default_rules(RunKind::Remedy).to_vec(),
        };
        Ceilings { held, open: Some(vec!["health".to_owned()]) }
    }

    /// What is beyond the ceilings of what a job asks for, as `verb resource.group`, sorted.
    pub(super) fn beyond(&self, check: &Check, job: &Job) -> Vec<String> {
        let open = match (&self.open, check.level) {
            (None, _) => true,
            (Some(open), Level::Namespace) => open.contains(&job.namespace),
            (Some(_), Level::Cluster) => false,
        };
        let remedying = if open { self.held.remedying.as_slice() } else { &[] };
        let held = [self.held.reading.as_slice(), remedying].concat();
        let mut beyond: Vec<String> = job.rules.iter().flat_map(|rule| missing(rule, &held)).collect();
        beyond.sort();
        beyond.dedup();
        beyond
    }
}

/// Each single right of a rule that `held` does not cover.
fn missing(rule: &PolicyRule, held: &[PolicyRule]) -> Vec<String> {
    let single = |verb: &String| PolicyRule { verbs: vec![verb.clone()], ..PolicyRule::default() };
    let urls = |verb: &String| {
        let verb = verb.clone();
        let of_url = move |url: &String| {
            let asked = PolicyRule { non_resource_urls: Some(vec![url.clone()]), ..single(&verb) };
            (format!("{verb} {url}"), asked)
        };
        rule.non_resource_urls.iter().flatten().map(of_url).collect::<Vec<_>>()
    };
    let resources = |verb: &String| {
        let groups = rule.api_groups.iter().flatten();
        let pairs = groups.flat_map(|group| rule.resources.iter().flatten().map(move |resource| (group, resource)));
        let of_pair = |(group, resource): (&String, &String)| {
            let asked = PolicyRule {
                api_groups: Some(vec![group.clone()]),
                resources: Some(vec![resource.clone()]),
                resource_names: rule.resource_names.clone(),
                ..single(verb)
            };
            let dot = if group.is_empty() { "" } else { "." };
            (format!("{verb} {resource}{dot}{group}"), asked)
        };
        pairs.map(of_pair).collect::<Vec<_>>()
    };
    let asked = rule.verbs.iter().flat_map(|verb| [urls(verb), resources(verb)].concat());
    asked.filter(|(_, asked)| !rbac::covers(held, asked)).map(|(text, _)| text).collect()
}
