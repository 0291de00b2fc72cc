//! Dependencies between the checks of a cluster: a check whose parent fails raises no alert of its own.
//!
//! A HealthCheck declares them by an annotation, so they travel with it and need no field that a CRD could lack.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::Checks;
use crate::healthcheck::HealthCheck;
use crate::names::DEPENDS_ON_ANNOTATION;
use crate::view::{CheckStatus, CheckView};

/// Most checks that a check may depend on directly; what is beyond is not heeded.
pub const MAX_PARENTS: usize = 16;
/// Most checks that a check may depend on directly or over others; where there are more, none is heeded.
const MAX_VISITED: usize = 256;
/// The longest entry: a namespace, a slash and a name.
const MAX_ENTRY_BYTES: usize = 63 + 1 + 253;

/// What its dependencies say of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// The failing parent, as `namespace/name`; the nearest one.
    pub by: Option<String>,
    /// What is wrong with what the check declares: then none of it is heeded.
    pub problem: Option<String>,
}

/// The checks that a HealthCheck declares to depend on, as `namespace/name`.
pub fn declared(resource: &HealthCheck) -> Vec<String> {
    let annotations = resource.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(DEPENDS_ON_ANNOTATION)).map_or("", String::as_str);
    let own = resource.metadata.namespace.as_deref().unwrap_or_default();
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty() && entry.len() <= MAX_ENTRY_BYTES);
    let named = entries.map(|entry| if entry.contains('/') { entry.to_owned() } else { format!("{own}/{entry}") });
    named.take(MAX_PARENTS).collect()
}

/// Whether a check that is wrong has a parent, near or far, that fails in the same cluster.
pub fn explain(checks: &Checks, check: &CheckView) -> Explained {
    if check.state.depends_on.is_empty() {
        return Explained::default();
    }
    let own = format!("{}/{}", check.state.namespace, check.state.name);
    let mut visited = BTreeSet::new();
    let mut level: Vec<&str> = check.state.depends_on.iter().map(String::as_str).collect();
    let mut by = None;
    while !level.is_empty() {
        let mut next = Vec::new();
        for name in level {
            if name == own {
                let problem = format!("{own} depends on itself, so that its dependencies are not heeded");
                return Explained { by: None, problem: Some(problem) };
            }
            if !visited.insert(name) {
                continue;
            }
            if visited.len() > MAX_VISITED {
                // There may be a circle behind them, in which each check would be explained by the others.
                let problem =
                    format!("{own} depends on more than {MAX_VISITED} checks, so that its dependencies are not heeded");
                return Explained { by: None, problem: Some(problem) };
            }
            let Some(parent) = find(checks, name) else {
                if check.state.depends_on.iter().any(|declared| declared == name) {
                    let problem = format!("there is no check {name}, which it depends on");
                    return Explained { by: None, problem: Some(problem) };
                }
                continue;
            };
            if by.is_none() && fails(parent.status) {
                by = Some(name.to_owned());
            }
            next.extend(parent.state.depends_on.iter().map(String::as_str));
        }
        level = next;
    }
    Explained { by: by.filter(|_| fails(check.status)), problem: None }
}

/// The checks that depend on one of `changed`, directly or over others.
pub fn dependants(checks: &Checks, changed: &BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
    let mut children: BTreeMap<&str, Vec<&(String, String)>> = BTreeMap::new();
    for (key, check) in checks.iter() {
        for parent in &check.state.depends_on {
            children.entry(parent).or_default().push(key);
        }
    }
    let mut found = BTreeSet::new();
    let mut left: Vec<&(String, String)> = changed.iter().collect();
    while let Some((namespace, name)) = left.pop() {
        let of = children.remove(format!("{namespace}/{name}").as_str()).unwrap_or_default();
        left.extend(of.into_iter().filter(|child| found.insert((*child).clone())));
    }
    found
}

fn find<'a>(checks: &'a Checks, name: &str) -> Option<&'a CheckView> {
    let (namespace, name) = name.split_once('/')?;
    checks.get(&(namespace.to_owned(), name.to_owned())).map(|check| &**check)
}

fn fails(status: CheckStatus) -> bool {
    match status {
        CheckStatus::Failed | CheckStatus::Invalid | CheckStatus::Overdue => true,
        CheckStatus::Stale | CheckStatus::Pending | CheckStatus::Stopped | CheckStatus::Succeeded => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::CheckState;

    fn check(name: &str, status: CheckStatus, depends_on: &[&str]) -> CheckView {
        let depends_on = depends_on.iter().map(|name| format!("health/{name}")).collect();
        let state = CheckState { name: name.into(), depends_on, ..crate::session::simulation::check(name, 1) };
        let (health, care) = Default::default();
        CheckView { cluster: "eu-1".into(), status, overdue_seconds: 0, health, care, state }
    }

    fn explained(all: &[CheckView], name: &str) -> Explained {
        let key = |check: &CheckView| (check.state.namespace.clone(), check.state.name.clone());
        let checks: Checks = all.iter().map(|check| (key(check), Arc::new(check.clone()))).collect();
        explain(&checks, find(&checks, &format!("health/{name}")).unwrap())
    }

    #[test]
    fn a_failed_parent_explains_its_children_and_theirs() {
        use CheckStatus::{Failed, Stale, Succeeded};
        let chain = |root, middle, leaf| {
            [check("net", root, &[]), check("dns", middle, &["net"]), check("web", leaf, &["dns"])]
        };
        let by = |all: &[CheckView], name| explained(all, name).by;
        assert_eq!(by(&chain(Failed, Failed, Failed), "web").as_deref(), Some("health/dns"));
        assert_eq!(by(&chain(Failed, Failed, Failed), "dns").as_deref(), Some("health/net"));
        assert_eq!(by(&chain(Failed, Succeeded, Failed), "web").as_deref(), Some("health/net"));
        assert_eq!(by(&chain(Failed, Failed, Failed), "net"), None);
        // What is well needs no explanation, and what is not known explains nothing.
        assert_eq!(by(&chain(Failed, Failed, Succeeded), "web"), None);
        assert_eq!(by(&chain(Stale, Stale, Failed), "web"), None);
    }

    #[test]
    fn a_circle_and_a_parent_that_is_not_there_are_not_heeded_and_said() {
        use CheckStatus::Failed;
        let circle = [check("a", Failed, &["b"]), check("b", Failed, &["c"]), check("c", Failed, &["a"])];
        for name in ["a", "b", "c"] {
            let Explained { by, problem } = explained(&circle, name);
            assert_eq!(by, None);
            assert!(problem.unwrap().starts_with(&format!("health/{name} depends on itself")));
        }
        // Who only looks into the circle is explained by it.
        let outside = [circle.to_vec(), vec![check("d", Failed, &["a"])]].concat();
        assert_eq!(explained(&outside, "d"), Explained { by: Some("health/a".into()), problem: None });
        let alone = [check("a", Failed, &["gone"])];
        assert_eq!(
            explained(&alone, "a").problem.as_deref(),
            Some("there is no check health/gone, which it depends on")
        );
    }

    #[test]
    fn a_circle_that_is_too_long_to_be_seen_explains_nothing() {
        let circle = |length: usize| -> Vec<CheckView> {
            let next = |n| format!("c{}", (n + 1) % length);
            (0..length).map(|n| check(&format!("c{n}"), CheckStatus::Failed, &[&next(n)])).collect()
        };
        for (length, problem) in
            [(257, "depends on itself"), (258, "depends on more than 256 checks"), (1000, "more than")]
        {
            let Explained { by, problem: said } = explained(&circle(length), "c7");
            assert_eq!(by, None);
            assert!(said.as_ref().is_some_and(|said| said.contains(problem)), "{length}: {said:?}");
        }
        let mut chain = circle(257);
        chain[256] = check("c256", CheckStatus::Failed, &[]);
        assert_eq!(explained(&chain, "c0").by.as_deref(), Some("health/c1"));
    }

    #[test]
    fn only_what_can_reach_a_check_depends_on_it() {
        use CheckStatus::Failed;
        let all = [
            check("net", Failed, &[]),
            check("dns", Failed, &["net"]),
            check("web", Failed, &["dns"]),
            check("disk", Failed, &[]),
            check("db", Failed, &["disk"]),
            check("a", Failed, &["b", "net"]),
            check("b", Failed, &["a"]),
        ];
        let key = |name: &str| ("health".to_owned(), name.to_owned());
        let checks: Checks = all.iter().map(|check| (key(&check.state.name), Arc::new(check.clone()))).collect();
        let of = |name| dependants(&checks, &[key(name)].into());
        assert_eq!(of("net"), ["dns", "web", "a", "b"].map(key).into());
        assert_eq!(of("disk"), [key("db")].into());
        assert!(of("web").is_empty());
    }

    #[test]
    fn they_are_declared_by_an_annotation_with_commas() {
        let mut resource = HealthCheck::new("web", Default::default());
        resource.metadata.namespace = Some("health".into());
        assert!(declared(&resource).is_empty());
        let text = " dns, kube-system/net ,,".to_owned();
        resource.metadata.annotations = Some([(DEPENDS_ON_ANNOTATION.to_owned(), text)].into());
        assert_eq!(declared(&resource), ["health/dns", "kube-system/net"]);
        let many = vec!["x"; 50].join(",");
        resource.metadata.annotations = Some([(DEPENDS_ON_ANNOTATION.to_owned(), many)].into());
        assert_eq!(declared(&resource).len(), MAX_PARENTS);
    }
}
