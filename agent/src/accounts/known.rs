//! What is known of the accounts: who uses each, what its users ask for, and what the cluster was last seen to have of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use active_monitor_core::rbac::{Account, Refusal, overlaps, union};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::ObjectMeta;

use super::kinds;
use super::objects::{Kind, Object};
use super::users::{User, Users};

#[derive(Default)]
pub(super) struct Known {
    pub(super) users: HashMap<Account, Users>,
    pub(super) of_user: HashMap<User, Account>,
    pub(super) applied: HashMap<Account, Applied>,
    /// By namespace and name: both levels share the ServiceAccount.
    pub(super) turns: HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>,
}

/// What the cluster was last seen to have for an account.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    /// What its users asked for then.
    pub(super) asked: Vec<PolicyRule>,
    /// What of it they got.
    pub(super) granted: Vec<PolicyRule>,
    /// Whether role and binding have the qualified name.
    pub(super) qualified: bool,
    pub(super) refusal: Option<Refusal>,
    /// It is looked at again before the next run.
    pub(super) doubted: bool,
}

impl Applied {
    /// Why a user that asks for these rules has not got them.
    pub(super) fn refuses(&self, rules: &[PolicyRule]) -> Option<&Refusal> {
        self.refusal.as_ref().filter(|refusal| depends(rules, refusal))
    }
}

/// Whether any of the rules is among those refused.
pub(super) fn depends(rules: &[PolicyRule], refusal: &Refusal) -> bool {
    rules.iter().any(|rule| refusal.rules.iter().any(|refused| overlaps(rule, refused)))
}

impl Known {
    /// The union of what the account's users ask for, as far as `with` takes them.
    pub(super) fn asked(&self, account: &Account, with: impl Fn(&[PolicyRule]) -> bool) -> Vec<PolicyRule> {
        let rules = self.users.get(account).into_iter().flat_map(Users::rules);
        union(rules.filter(|rules| with(rules)).flatten())
    }

    /// Whether the cluster is known to have what the account's users ask for, or as much of it as it lets.
    pub(super) fn agrees(&self, account: &Account) -> bool {
        let applied = self.applied.get(account).filter(|applied| !applied.doubted);
        let users = self.users.get(account);
        applied.zip(users).is_some_and(|(applied, users)| applied.asked == users.asked())
    }

    /// The same, with all of these rules.
    pub(super) fn suits(&self, account: &Account, rules: &[PolicyRule]) -> bool {
        self.agrees(account) && self.applied.get(account).is_some_and(|applied| applied.refuses(rules).is_none())
    }

    /// The user uses its account no more; gives that.
    pub(super) fn leave(&mut self, user: &User) -> Option<Account> {
        let account = self.of_user.remove(user)?;
        if let Some(users) = self.users.get_mut(&account) {
            users.leave(user);
            if users.is_empty() {
                self.users.remove(&account);
            }
        }
        Some(account)
    }

    /// Whether the account's name is used at either level.
    pub(super) fn uses_name(&self, account: &Account) -> bool {
        self.users.keys().any(|used| used.namespace == account.namespace && used.name == account.name)
    }

    /// The accounts that an object of this kind and name is part of.
    pub(super) fn of_object(&self, kind: Kind, metadata: &ObjectMeta) -> impl Iterator<Item = (&Account, &Applied)> {
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref();
        self.applied.iter().filter(move |(account, applied)| {
            // The first two are cheap, and rule out nearly all.
            name.contains(&account.name)
                && (!kind.is_namespaced() || namespace == Some(account.namespace.as_str()))
                && object_name(account, kind, applied.qualified).as_deref() == Some(name)
        })
    }

    /// The accounts of which an object with active-monitor's label is not as they need it.
    pub(super) fn differing(&self, kind: Kind, object: &Object) -> Vec<Account> {
        let differs = |account: &Account, applied: &Applied| {
            wanted(account, kind, applied).is_some_and(|wanted| !object.grants_as(&wanted))
        };
        let found = self.of_object(kind, &object.metadata).filter(|(account, applied)| differs(account, applied));
        found.map(|(account, _)| account.clone()).collect()
    }

    /// The accounts whose object of this kind is not among these, by namespace and name.
    pub(super) fn lacking(&self, kind: Kind, there: &BTreeSet<(String, String)>) -> Vec<Account> {
        let lacks = |(account, applied): &(&Account, &Applied)| {
            let namespace = if kind.is_namespaced() { account.namespace.clone() } else { String::new() };
            object_name(account, kind, applied.qualified).is_some_and(|name| !there.contains(&(namespace, name)))
        };
        self.applied.iter().filter(lacks).map(|(account, _)| account.clone()).collect()
    }

    /// Whether a remedy uses the account.
    pub(super) fn is_of_remedy(&self, account: &Account) -> bool {
        self.users.get(account).is_some_and(|users| users.has_remedy())
    }
}

/// Name of the account's object of this kind; its level may have none.
fn object_name(account: &Account, kind: Kind, qualified: bool) -> Option<String> {
    let (role, binding) = kinds(account);
    match kind {
        Kind::ServiceAccount => Some(account.name.clone()),
        kind if kind == role => Some(account.role_name(qualified)),
        kind if kind == binding => Some(format!("{}-binding", account.role_name(qualified))),
        Kind::Role | Kind::RoleBinding | Kind::ClusterRole | Kind::ClusterRoleBinding => None,
    }
}

/// The account's object of this kind as it should be.
fn wanted(account: &Account, kind: Kind, applied: &Applied) -> Option<Object> {
    let described = match kind {
        Kind::ServiceAccount => account.service_account(),
        Kind::Role | Kind::ClusterRole => account.role(&applied.granted, applied.qualified),
        Kind::RoleBinding | Kind::ClusterRoleBinding => account.binding(applied.qualified),
    };
    Object::wanted(described).ok()
}
