//! The ServiceAccounts, roles and bindings that workflows run with: kept as the union of what the checks ask for, and
//! removed with the last check that asks.
//!
//! What somebody else made is used as it is: only objects with active-monitor's label are changed, and only those with
//! our own are deleted.

pub mod drift;
mod error;
mod known;
mod objects;
#[cfg(test)]
mod tests;
mod users;

use std::collections::BTreeSet;
use std::sync::Arc;

use active_monitor_core::check::{Check, Level};
use active_monitor_core::rbac::{
    ACCOUNT_ANNOTATION, ACCOUNT_NAMESPACE_LABEL, Account, CEILING_LABEL, Ceilings, OWNER, OWNER_LABEL, Refusal,
};
use active_monitor_core::run::RunKind;
use active_monitor_core::scope::Scope;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use parking_lot::Mutex;

pub use self::error::AccountError;
use self::known::{Applied, Known, depends};
use self::objects::{Kind, Object, Objects};
use crate::request::RequestError;

/// Keeps the accounts; clones share what they know.
#[derive(Clone)]
pub struct Accounts {
    objects: Objects,
    known: Arc<Mutex<Known>>,
}

/// What a look at an account came to.
struct Granted {
    /// Whether role and binding have the qualified name.
    qualified: bool,
    /// What had to be created or changed.
    written: Vec<(Kind, Object)>,
}

/// Whether the role's name is qualified, the role where it was written, and the binding that is there.
type FoundRole = (bool, Option<(Kind, Object)>, Option<Object>);

impl Accounts {
    /// Knows no checks.
    pub fn new(client: Client, scope: Scope) -> Accounts {
        Accounts { objects: Objects { client, scope }, known: Arc::default() }
    }

    /// Says that this check's job uses its account, from now until [`Accounts::leave`]. Gives the account that it used
    /// before, where that was another.
    pub fn enter(&self, check: &Check, kind: RunKind) -> Option<Account> {
        let job = check.job(kind)?;
        let account = Account::of(check, job);
        let user = (check.uid.clone(), kind);
        let mut known = self.known.lock();
        let left = if known.of_user.get(&user) == Some(&account) { None } else { known.leave(&user) };
        known.of_user.insert(user.clone(), account.clone());
        known.users.entry(account).or_default().enter(user, &job.rules);
        left
    }

    /// Says that this check's job of this kind needs no account any more; gives the one that it used.
    pub fn leave(&self, uid: &str, kind: RunKind) -> Option<Account> {
        self.known.lock().leave(&(uid.to_owned(), kind))
    }

    /// Makes the job's account have what its users ask for. Asks the cluster only where that changed since it last
    /// agreed. What is beyond the ceiling fails the jobs that ask for it, and no other of the same account.
    ///
    /// # Errors
    /// When the API server refuses what this job asks, or cannot be reached.
    pub async fn ensure(&self, check: &Check, kind: RunKind) -> Result<(), AccountError> {
        let Some(job) = check.job(kind) else { return Ok(()) };
        let account = Account::of(check, job);
        if self.known.lock().suits(&account, &job.rules) {
            return Ok(());
        }
        let turn = self.turn(&account);
        let _turn = turn.lock().await;
        if self.known.lock().suits(&account, &job.rules) {
            return Ok(());
        }
        let (applied, _) = self.make(&account).await?;
        match applied.refuses(&job.rules) {
            Some(refusal) => Err(AccountError::Refused(Box::new(refusal.clone()))),
            None => Ok(()),
        }
    }

    /// Changes of one account come one after the other: taking rights back must not meet giving them. Others go on.
    fn turn(&self, account: &Account) -> Arc<tokio::sync::Mutex<()>> {
        let key = (account.namespace.clone(), account.name.clone());
        let mut known = self.known.lock();
        // Where nobody holds one, nobody waits for it.
        known.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        known.turns.entry(key).or_default().clone()
    }

    async fn make(&self, account: &Account) -> Result<(Applied, Vec<(Kind, Object)>), AccountError> {
        let asked = self.known.lock().asked(account, |_| true);
        let (applied, written) = match self.grant(account, &asked).await {
            Ok(Granted { qualified, written }) => {
                let granted = asked.clone();
                (Applied { asked, granted, qualified, refusal: None, doubted: false }, written)
            }
            Err(error) => {
                let refusal = match self.refusal(account, error).await {
                    AccountError::Refused(refusal) if !refusal.rules.is_empty() => refusal,
                    other @ (AccountError::Refused(_) | AccountError::Request(_)) => return Err(other),
                };
                // The others of the account get theirs: one check that asks too much fails alone.
                let modest = |rules: &[PolicyRule]| !depends(rules, &refusal);
                if !self.known.lock().users.get(account).is_some_and(|users| users.rules().any(modest)) {
                    return Err(AccountError::Refused(refusal));
                }
                let granted = self.known.lock().asked(account, modest);
                let Granted { qualified, written } = match self.grant(account, &granted).await {
                    Ok(made) => made,
                    Err(error) => return Err(self.refusal(account, error).await),
                };
                (Applied { asked, granted, qualified, refusal: Some(*refusal), doubted: false }, written)
            }
        };
        self.known.lock().applied.insert(account.clone(), applied.clone());
        Ok((applied, written))
    }

    /// Makes the account hold these rules.
    async fn grant(&self, account: &Account, rules: &[PolicyRule]) -> Result<Granted, RequestError> {
        // Side by side where one does not need the other: the first run of a new account waits for all of it.
        let (made, (qualified, role, bound)) =
            tokio::try_join!(self.service_account(account), self.role(account, rules))?;
        let binding = self.objects.put(kinds(account).1, account, bound, Object::wanted(account.binding(qualified))?);
        let binding = binding.await?.map(|object| (kinds(account).1, object));
        Ok(Granted { qualified, written: [made, role, binding].into_iter().flatten().collect() })
    }

    /// Makes the ServiceAccount where there is none; one that is there stays as it is.
    async fn service_account(&self, account: &Account) -> Result<Option<(Kind, Object)>, RequestError> {
        if self.objects.exists(Kind::ServiceAccount, account, &account.name).await? {
            return Ok(None);
        }
        let wanted = Object::wanted(account.service_account())?;
        Ok(Some((Kind::ServiceAccount, self.objects.create(Kind::ServiceAccount, account, &wanted).await?)))
    }

    /// Makes the role hold these rules. Gives whether its name is the qualified one, what was written, and the binding
    /// that is there.
    async fn role(&self, account: &Account, rules: &[PolicyRule]) -> Result<FoundRole, RequestError> {
        let (role, binding) = kinds(account);
        let read = async |qualified: bool| -> Result<(Option<Object>, Option<Object>), RequestError> {
            let name = account.role_name(qualified);
            let bound = format!("{name}-binding");
            tokio::try_join!(self.objects.get(role, account, &name), self.objects.get(binding, account, &bound))
        };
        let mut found = read(false).await?;
        let qualified = is_anothers(account, found.0.as_ref(), found.1.as_ref());
        if qualified {
            found = read(true).await?;
        }
        let written = self.objects.put(role, account, found.0, Object::wanted(account.role(rules, qualified))?).await?;
        Ok((qualified, written.map(|object| (role, object)), found.1))
    }

    /// Makes an account that the cluster was seen to have as it should be so again; gives what had to be written.
    async fn put_right(&self, account: &Account) -> Result<Vec<(Kind, Object)>, AccountError> {
        let turn = self.turn(account);
        let _turn = turn.lock().await;
        if !self.known.lock().applied.contains_key(account) {
            return Ok(Vec::new());
        }
        self.make(account).await.map(|(_, written)| written)
    }

    /// Sorts a failure: a refusal that would come again says what lifts it.
    async fn refusal(&self, account: &Account, error: RequestError) -> AccountError {
        let Some(code) = error.code().filter(|_| error.is_final()) else { return error.into() };
        let remedies = self.known.lock().is_of_remedy(account);
        let ceilings = self.ceilings().await;
        AccountError::Refused(Box::new(Refusal::read(code, &error.to_string(), account, remedies, ceilings.as_ref())))
    }

    /// What the ceilings hold; `None` where the agent may not read them, as in a namespaced install.
    async fn ceilings(&self) -> Option<Ceilings> {
        if self.objects.scope != Scope::Cluster {
            return None;
        }
        match self.objects.labelled_rules(CEILING_LABEL).await {
            Ok(roles) => {
                let of = |value: &str| -> Vec<PolicyRule> {
                    roles.iter().filter(|(label, _)| label == value).flat_map(|(_, rules)| rules.clone()).collect()
                };
                Some(Ceilings { reading: of("reading"), remedying: of("remedying") })
            }
            Err(error) if error.is_forbidden() => None,
            Err(_) => Some(Ceilings::default()),
        }
    }

    /// Makes an account that somebody stopped using agree with who is left: with nobody left, it is removed.
    ///
    /// # Errors
    /// As [`Accounts::ensure`].
    pub async fn release(&self, account: &Account) -> Result<(), AccountError> {
        let turn = self.turn(account);
        let _turn = turn.lock().await;
        let (is_used, agrees) = {
            let known = self.known.lock();
            (known.users.contains_key(account), known.agrees(account))
        };
        if is_used {
            return if agrees { Ok(()) } else { self.make(account).await.map(drop) };
        }
        let applied = self.known.lock().applied.remove(account);
        let names = match applied {
            Some(Applied { qualified, .. }) => vec![qualified],
            None => vec![false, true],
        };
        let (role, binding) = kinds(account);
        for name in names.into_iter().map(|qualified| account.role_name(qualified)) {
            self.objects.delete_ours(binding, account, &format!("{name}-binding")).await?;
            self.objects.delete_ours(role, account, &name).await?;
        }
        if !self.known.lock().uses_name(account) {
            self.objects.delete_ours(Kind::ServiceAccount, account, &account.name).await?;
        }
        Ok(())
    }

    /// The accounts that an earlier life of the agent made and no check uses: it was away when the check was deleted.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn orphans(&self) -> Result<BTreeSet<Account>, RequestError> {
        let mut found = BTreeSet::new();
        for kind in [Kind::ServiceAccount, Kind::Role, Kind::ClusterRole] {
            for metadata in self.objects.list(kind, &format!("{OWNER_LABEL}={OWNER}")).await? {
                let account = metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT_ANNOTATION));
                found.extend(account.into_iter().flat_map(|account| accounts(kind, account)));
            }
        }
        let known = self.known.lock();
        let reachable = |level| level == Level::Namespace || self.objects.scope == Scope::Cluster;
        found.retain(|account| reachable(account.level) && !known.users.contains_key(account));
        Ok(found)
    }

    /// Looks at the account's rights again before the next run.
    pub fn doubt(&self, account: &Account) {
        if let Some(applied) = self.known.lock().applied.get_mut(account) {
            applied.doubted = true;
        }
    }
}

/// The kinds of the account's role and binding.
fn kinds(account: &Account) -> (Kind, Kind) {
    match account.level {
        Level::Cluster => (Kind::ClusterRole, Kind::ClusterRoleBinding),
        Level::Namespace => (Kind::Role, Kind::RoleBinding),
    }
}

/// The accounts that an object of this kind with this annotation may serve.
fn accounts(kind: Kind, annotation: &str) -> Vec<Account> {
    let levels: &[Level] = match kind {
        Kind::ServiceAccount => &[Level::Cluster, Level::Namespace],
        Kind::Role | Kind::RoleBinding => &[Level::Namespace],
        Kind::ClusterRole | Kind::ClusterRoleBinding => &[Level::Cluster],
    };
    let Some((namespace, name)) = annotation.split_once('/') else { return Vec::new() };
    levels.iter().map(|level| Account { namespace: namespace.into(), name: name.into(), level: *level }).collect()
}

/// Whether the plain name is another account's: its role says so by our label, or its binding by its subjects.
fn is_anothers(account: &Account, role: Option<&Object>, binding: Option<&Object>) -> bool {
    let namespace = role.and_then(|role| role.label(ACCOUNT_NAMESPACE_LABEL));
    let bound = binding.is_some_and(|binding| {
        // Ours whose subjects somebody changed is put right, not given up.
        let ours = binding.metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT_ANNOTATION));
        !binding.serves(account) && ours != Some(&account.key())
    });
    namespace.is_some_and(|namespace| namespace != account.namespace) || bound
}
