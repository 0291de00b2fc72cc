//! Who uses an account, and what they ask for together.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use active_monitor_core::rbac::union;
use active_monitor_core::run::RunKind;
use k8s_openapi::api::rbac::v1::PolicyRule;

/// Who asks for an account: a check's workflow, or its remedy while that runs.
pub(super) type User = (String, RunKind);

/// The users of one account.
#[derive(Default)]
pub(super) struct Users {
    rules: BTreeMap<User, Arc<[PolicyRule]>>,
    /// The union of these, once it was asked for: each run asks, and there may be a thousand users.
    asked: OnceCell<Vec<PolicyRule>>,
}

impl Users {
    pub(super) fn enter(&mut self, user: User, rules: &Arc<[PolicyRule]>) {
        if self.rules.get(&user) != Some(rules) {
            self.rules.insert(user, Arc::clone(rules));
            self.asked.take();
        }
    }

    pub(super) fn leave(&mut self, user: &User) {
        if self.rules.remove(user).is_some() {
            self.asked.take();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn has_remedy(&self) -> bool {
        self.rules.keys().any(|(_, kind)| *kind == RunKind::Remedy)
    }

    /// What they ask for, each that several share once.
    pub(super) fn rules(&self) -> impl Iterator<Item = &[PolicyRule]> {
        let mut known = HashSet::new();
        self.rules.values().filter(move |rules| known.insert(rules.as_ptr())).map(|rules| &**rules)
    }

    /// The union of what they ask for.
    pub(super) fn asked(&self) -> &[PolicyRule] {
        self.asked.get_or_init(|| union(self.rules().flatten()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_follows_who_comes_and_goes() {
        let rules = |resource: &str| -> Arc<[PolicyRule]> {
            let rule = PolicyRule { resources: Some(vec![resource.to_owned()]), ..PolicyRule::default() };
            vec![rule].into()
        };
        let user = |uid: &str| (uid.to_owned(), RunKind::HealthCheck);
        let (pods, nodes) = (rules("pods"), rules("nodes"));
        let asked = |of: &[&Arc<[PolicyRule]>]| union(of.iter().flat_map(|rules| rules.iter()));
        let mut users = Users::default();
        for uid in ["a", "b"] {
            users.enter(user(uid), &pods);
            assert_eq!(users.asked(), asked(&[&pods]));
        }
        assert_eq!(users.rules().count(), 1, "both share them");
        users.enter(user("b"), &nodes);
        assert_eq!(users.asked(), asked(&[&pods, &nodes]));
        users.leave(&user("a"));
        assert_eq!(users.asked(), asked(&[&nodes]));
        users.leave(&user("b"));
        assert!(users.is_empty() && users.asked() == asked(&[]));
    }
}
