//! Where an agent works: in the whole cluster, or only in some namespaces, beyond which it has no rights. Pure.

use std::collections::BTreeSet;

use crate::check::{Check, Invalid, Job, Level, Problem};
use crate::run::RunKind;

/// Where an agent works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    #[default]
    Cluster,
    /// In these namespaces.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// These namespaces; everywhere where there are none.
    pub fn of(namespaces: &[String]) -> Scope {
        if namespaces.is_empty() { Scope::Cluster } else { Scope::Namespaces(namespaces.iter().cloned().collect()) }
    }

    /// Whether it works in this namespace.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Scope::Cluster => true,
            Scope::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }

    /// One for the whole cluster, or one for each namespace.
    pub fn each<T>(&self, all: impl FnOnce() -> T, within: impl Fn(&str) -> T) -> Vec<T> {
        match self {
            Scope::Cluster => vec![all()],
            Scope::Namespaces(namespaces) => namespaces.iter().map(|namespace| within(namespace)).collect(),
        }
    }

    /// Refuses a check that takes rights beyond it.
    ///
    /// # Errors
    /// Every problem, by the field of the HealthCheck.
    pub fn admit(&self, check: Check) -> Result<Check, Invalid> {
        let Scope::Namespaces(namespaces) = self else { return Ok(check) };
        let open = namespaces.iter().cloned().collect::<Vec<_>>().join(", ");
        let mut problems = Vec::new();
        if check.level == Level::Cluster {
            let message = format!("cluster takes an agent of the whole cluster; this one has rights only in {open}");
            problems.push(Problem { field: "spec.level".into(), message });
        }
        let remedy = check.remedy.as_ref().map(|remedy| &remedy.job);
        for Job { kind, namespace, .. } in [&check.workflow].into_iter().chain(remedy) {
            if !namespaces.contains(namespace) {
                let base = match kind {
                    RunKind::HealthCheck => "spec.workflow",
                    RunKind::Remedy => "spec.remedyworkflow",
                };
                let message = format!("this agent has no rights in {namespace}, only in {open} (--watch-namespaces)");
                problems.push(Problem { field: format!("{base}.resource.namespace"), message });
            }
        }
        if problems.is_empty() { Ok(check) } else { Err(Invalid { problems }) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::healthcheck::HealthCheck;

    fn check(level: &str, workflow: &str, remedy: &str) -> Check {
        let source = json!({"inline": "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}"});
        let job = |namespace: &str| -> Value {
            json!({"resource": {"namespace": namespace, "serviceAccount": "sa", "source": source}})
        };
        let resource: HealthCheck = serde_json::from_value(json!({
            "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": "dns", "namespace": "a", "uid": "u"},
            "spec": {"repeatAfterSec": 60, "level": level, "workflow": job(workflow), "remedyworkflow": job(remedy)},
        }))
        .unwrap();
        Check::parse(&resource).unwrap()
    }

    #[test]
    fn what_reaches_beyond_the_namespaces_is_named() {
        let scope = Scope::of(&["a".to_owned(), "b".to_owned()]);
        assert!(scope.admit(check("", "a", "b")).is_ok());
        let problems = scope.admit(check("cluster", "c", "d")).unwrap_err().problems;
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            ["spec.level", "spec.workflow.resource.namespace", "spec.remedyworkflow.resource.namespace"]
        );
        assert!(problems.iter().all(|problem| problem.message.contains("only in a, b")), "{problems:?}");
        assert!(Scope::of(&[]).admit(check("cluster", "c", "d")).is_ok());
    }

    #[test]
    fn there_is_one_of_each_namespace_or_one_of_all() {
        let names = |scope: &Scope| scope.each(|| "all".to_owned(), ToOwned::to_owned);
        assert_eq!(names(&Scope::Cluster), ["all"]);
        let scope = Scope::of(&["b".to_owned(), "a".to_owned(), "b".to_owned()]);
        assert_eq!(names(&scope), ["a", "b"]);
        assert!(scope.includes("a") && !scope.includes("c") && Scope::Cluster.includes("c"));
    }
}
