//! Why an account did not get its rights: which layer refused, which rules are beyond it, and the command that lifts it.
//! Read from the API server's own words. Pure.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::rbac::v1::PolicyRule;
use sha2::{Digest, Sha256};

use super::{Account, CEILING_LABEL, REMEDYING_CEILING, covers};
use crate::check::Level;

/// Rules that a message names; the rest is counted.
const NAMED_RULES: usize = 6;
/// Characters of one rule, and of the API server's words, in a message.
const SAID_CHARS: usize = 300;
/// More roles than this are not made by a command to copy: a manifest is the better place.
const COMMAND_ROLES: usize = 3;

/// Which layer refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The API server's escalation check: the agent does not hold the rules itself.
    Ceiling,
    /// The same check, where the remedying ceiling has the rules and is not bound in the account's namespace.
    RemediesClosed,
    /// The API server's authorizer: the agent may not write such objects there.
    AgentRights,
    /// The admission policy or webhook of this name.
    Admission(String),
    /// The namespace is not there, or is being deleted.
    Namespace,
    /// The API server's validation: the object is not one that could be stored.
    Object,
}

impl Layer {
    /// The word for conditions and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Layer::Ceiling => "BeyondCeiling",
            Layer::RemediesClosed => "RemediesNotOpen",
            Layer::AgentRights => "AgentLacksRights",
            Layer::Admission(_) => "AdmissionDenied",
            Layer::Namespace => "NamespaceMissing",
            Layer::Object => "ObjectInvalid",
        }
    }
}

/// What the two ceilings hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ceilings {
    /// What checks may be given.
    pub reading: Vec<PolicyRule>,
    /// What remedies may be given where a namespace is open for them.
    pub remedying: Vec<PolicyRule>,
}

/// A refusal, as its message shows it: at most about 2,000 characters, without control characters.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Who refused.
    pub layer: Layer,
    /// The account.
    pub account: Account,
    /// The rules that are beyond the ceiling; empty for the other layers.
    pub rules: Vec<PolicyRule>,
    /// What lifts it: commands to copy, or a sentence where no command can be given.
    pub remedy: String,
    /// The API server's own words, cut.
    pub said: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { namespace, name, .. } = &self.account;
        write!(f, "account {namespace}/{name} does not get its rights: ")?;
        match &self.layer {
            Layer::Ceiling => {
                write!(f, "the API server's escalation check refuses what the agent does not hold itself: ")?;
                write!(f, "{}", listed(&self.rules))?;
            }
            Layer::RemediesClosed => {
                write!(f, "the remedying ceiling is not bound {}, so the agent cannot give: ", place(&self.account))?;
                write!(f, "{}", listed(&self.rules))?;
            }
            Layer::AgentRights => write!(f, "the agent itself lacks a right: {}", self.said)?,
            Layer::Admission(by) => write!(f, "admission by {by:?} refuses it: {}", self.said)?,
            Layer::Namespace | Layer::Object => write!(f, "{}", self.said)?,
        }
        write!(f, ". {}", self.remedy)
    }
}

impl Refusal {
    /// Reads a final refusal of the API server. `remedies`: whether a remedy uses the account. `ceilings`: what they
    /// hold; `None` where the agent cannot see them, as in a namespaced install.
    pub fn read(code: u16, said: &str, account: &Account, remedies: bool, ceilings: Option<&Ceilings>) -> Refusal {
        let rules = missing_rules(said);
        let layer = match () {
            () if said.contains("denied request") || said.contains("denied the request") => {
                Layer::Admission(denier(said))
            }
            () if code == 404 || said.contains("because it is being terminated") => Layer::Namespace,
            () if !rules.is_empty() => match ceilings {
                Some(ceilings) if remedies && closed(&rules, ceilings) => Layer::RemediesClosed,
                Some(_) | None => Layer::Ceiling,
            },
            () if code == 403 => Layer::AgentRights,
            () => Layer::Object,
        };
        let remedy = match &layer {
            Layer::Ceiling | Layer::RemediesClosed => widen(&rules, account, remedies, ceilings, agent_of(said)),
            Layer::AgentRights => "To allow it, install the agent's rights again: deploy/agent, or its chart".into(),
            Layer::Admission(_) => "Who keeps that policy can allow it".into(),
            Layer::Namespace => format!("To make it: kubectl create namespace {}", account.namespace),
            Layer::Object => "Mend the rules in the HealthCheck".into(),
        };
        Refusal { layer, account: account.clone(), rules, remedy, said: cut(said) }
    }
}

/// Whether the remedying ceiling has all that is missing: then only its binding is.
fn closed(rules: &[PolicyRule], ceilings: &Ceilings) -> bool {
    rules.iter().all(|rule| covers(&ceilings.remedying, rule))
}

fn place(account: &Account) -> String {
    match account.level {
        Level::Cluster => "cluster-wide".into(),
        Level::Namespace => format!("in namespace {}", account.namespace),
    }
}

/// The commands that let the agent give these rules.
fn widen(
    rules: &[PolicyRule],
    account: &Account,
    remedies: bool,
    ceilings: Option<&Ceilings>,
    agent: Option<(&str, &str)>,
) -> String {
    let (agent_namespace, agent_name) = agent.unwrap_or(("active-monitor", "active-monitor-agent"));
    let agent = format!("--serviceaccount={agent_namespace}:{agent_name}");
    let namespace = &account.namespace;
    let Some(ceilings) = ceilings else {
        let roles = roles(rules, account, "ceiling");
        let bind = |role: &String| {
            let name = role.split(' ').next().unwrap_or_default();
            format!(
                "kubectl create role {role} -n {namespace} && kubectl create rolebinding {name} --role={name} {agent} -n {namespace}"
            )
        };
        return match roles {
            Some(roles) => format!("To allow it: {}", roles.iter().map(bind).collect::<Vec<_>>().join(" && ")),
            None => format!("To allow it, give {agent_name} a Role with these rules in namespace {namespace}"),
        };
    };
    let mut commands = Vec::new();
    let ceiling = if remedies { "remedying" } else { "reading" };
    let held = if remedies { &ceilings.remedying } else { &ceilings.reading };
    let beyond: Vec<PolicyRule> = rules.iter().filter(|rule| !covers(held, rule)).cloned().collect();
    if !beyond.is_empty() {
        let Some(roles) = roles(&beyond, account, ceiling) else {
            return format!("To allow it, label a ClusterRole that has these rules with {CEILING_LABEL}={ceiling}");
        };
        let names: Vec<&str> = roles.iter().filter_map(|role| role.split(' ').next()).collect();
        let label = format!("kubectl label clusterrole {} {CEILING_LABEL}={ceiling}", names.join(" "));
        commands.extend(roles.iter().map(|role| format!("kubectl create clusterrole {role}")));
        commands.push(label);
    }
    // What the remedying ceiling has and the agent does not hold here: its binding is missing.
    if remedies && beyond.len() < rules.len() {
        let (kind, place) = match account.level {
            Level::Cluster => ("clusterrolebinding", String::new()),
            Level::Namespace => ("rolebinding", format!(" -n {namespace}")),
        };
        commands.push(format!(
            "kubectl create {kind} {REMEDYING_CEILING} --clusterrole={REMEDYING_CEILING} {agent}{place}"
        ));
    }
    if commands.is_empty() {
        return "The ceiling has these rules: it is not aggregated yet, or not bound to the agent".into();
    }
    format!("To allow it: {}", commands.join(" && "))
}

/// `NAME --verb=.. --resource=..` for each role that these rules need; `None` where that is too much, or holds what a
/// shell could take for something else.
fn roles(rules: &[PolicyRule], account: &Account, ceiling: &str) -> Option<Vec<String>> {
    let mut grouped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in rules {
        let verbs = format!("--verb={}", safe(&rule.verbs, "")?);
        if let Some(urls) = rule.non_resource_urls.as_ref().filter(|urls| !urls.is_empty()) {
            grouped.entry(format!("{verbs} --non-resource-url={}", safe(urls, "/")?)).or_default();
            continue;
        }
        let names = rule.resource_names.as_deref().unwrap_or_default();
        let names = if names.is_empty() { String::new() } else { format!(" --resource-name={}", safe(names, ":_")?) };
        let group = rule.api_groups.as_ref()?.first()?;
        let resources = safe(rule.resources.as_ref()?, "/")?;
        let resources = resources.split(',').map(|resource| of_group(resource, group));
        safe(std::slice::from_ref(group), "").or(group.is_empty().then(String::new))?;
        grouped.entry(format!("{verbs}{names}")).or_default().extend(resources);
    }
    if grouped.len() > COMMAND_ROLES {
        return None;
    }
    let role = |(what, resources): (String, Vec<String>)| {
        let resources =
            if resources.is_empty() { String::new() } else { format!(" --resource={}", resources.join(",")) };
        let hash = hex::encode(Sha256::digest(format!("{what}{resources}")));
        let stem: String = format!("{ceiling}-{}-{}", account.namespace, account.name).chars().take(56).collect();
        format!("{}-{} {what}{resources}", stem.trim_end_matches(['-', '.']), hash.get(..6).unwrap_or_default())
    };
    Some(grouped.into_iter().map(role).collect())
}

/// As kubectl has it: `deployments.apps/scale`.
fn of_group(resource: &str, group: &str) -> String {
    match resource.split_once('/') {
        _ if group.is_empty() => resource.to_owned(),
        Some((resource, sub)) => format!("{resource}.{group}/{sub}"),
        None => format!("{resource}.{group}"),
    }
}

/// The words, comma-separated, if each is one that a shell takes as it is.
fn safe(words: &[String], more: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || more.contains(c);
    let plain =
        |word: &String| !word.is_empty() && word.len() <= 100 && !word.starts_with('-') && word.chars().all(allowed);
    words.iter().all(plain).then(|| words.join(","))
}

/// The rules for people: `get, list on pods, deployments.apps; ... and 3 more`.
fn listed(rules: &[PolicyRule]) -> String {
    let mut text = rules.iter().take(NAMED_RULES).map(described).collect::<Vec<_>>().join("; ");
    if rules.len() > NAMED_RULES {
        text.push_str(&format!("; and {} more", rules.len() - NAMED_RULES));
    }
    text
}

fn described(rule: &PolicyRule) -> String {
    let group = rule.api_groups.as_ref().and_then(|groups| groups.first()).map(String::as_str).unwrap_or_default();
    let resources = rule.resources.iter().flatten().map(|resource| of_group(resource, group));
    let what: Vec<String> = resources.chain(rule.non_resource_urls.iter().flatten().cloned()).collect();
    let mut text = format!("{} on {}", rule.verbs.join(", "), what.join(", "));
    if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
        text.push_str(&format!(" named {}", names.join(", ")));
    }
    cut(&text)
}

fn cut(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = clean.take(SAID_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Namespace and name of the account that the API server says was refused.
fn agent_of(said: &str) -> Option<(&str, &str)> {
    let (_, rest) = said.split_once("\"system:serviceaccount:")?;
    let (namespace, name) = rest.split_once('"')?.0.split_once(':')?;
    let plain = |text: &str| safe(&[text.to_owned()], "").is_some();
    (plain(namespace) && plain(name)).then_some((namespace, name))
}

/// Name of the policy or webhook in the API server's words.
fn denier(said: &str) -> String {
    let after = |word: &str, end: char| {
        let (_, rest) = said.split_once(word)?;
        Some(rest.split_once(end)?.0)
    };
    let name = after("ValidatingAdmissionPolicy '", '\'').or_else(|| after("admission webhook \"", '"'));
    name.unwrap_or("admission").chars().take(100).collect()
}

/// Rules that differ only in their resources as one.
fn merged(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut all: Vec<PolicyRule> = Vec::new();
    for mut rule in rules {
        let like = |one: &&mut PolicyRule| {
            let resources = one.resources.is_some() && rule.resources.is_some();
            let same = one.api_groups == rule.api_groups && one.resource_names == rule.resource_names;
            resources && same && one.verbs == rule.verbs && one.non_resource_urls == rule.non_resource_urls
        };
        match all.iter_mut().find(like) {
            Some(one) => one.resources.get_or_insert_default().append(rule.resources.get_or_insert_default()),
            None => all.push(rule),
        }
    }
    all
}

/// The rules that an escalation error lists, one a line: `{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`, the
/// format of `CompactString` in Kubernetes' pkg/apis/rbac/v1/helpers.go.
fn missing_rules(said: &str) -> Vec<PolicyRule> {
    let Some((_, list)) = said.split_once("RBAC permissions not currently held:") else { return Vec::new() };
    merged(list.lines().filter_map(|line| compact_rule(line.trim())).collect())
}

fn compact_rule(line: &str) -> Option<PolicyRule> {
    let mut rest = line.strip_prefix('{')?;
    let mut rule = PolicyRule::default();
    while let Some((key, values)) = rest.split_once(":[") {
        let (words, after) = quoted_words(values)?;
        match key {
            "APIGroups" => rule.api_groups = Some(words),
            "Resources" => rule.resources = Some(words),
            "NonResourceURLs" => rule.non_resource_urls = Some(words),
            "ResourceNames" => rule.resource_names = Some(words),
            "Verbs" => rule.verbs = words,
            _ => return None,
        }
        match after.strip_prefix(", ") {
            Some(next) => rest = next,
            None => return after.starts_with('}').then_some(rule),
        }
    }
    None
}

/// Go's `%q` of a list, behind its bracket: `"a" "b"]`; with what follows.
fn quoted_words(text: &str) -> Option<(Vec<String>, &str)> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix(']') {
            return Some((words, after));
        }
        let body = rest.strip_prefix('"')?;
        let mut word = String::new();
        let mut chars = body.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => word.push(chars.next()?.1),
                (_, c) => word.push(c),
            }
        };
        words.push(word);
        rest = body.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests;
