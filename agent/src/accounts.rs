//! The ServiceAccounts, roles and bindings that workflows run with: kept as the union of what the checks ask for, and
//! removed with the last check that asks.
//!
//! What somebody else made is used as it is: only objects with active-monitor's label are changed, and only those with
//! our own are deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use active_monitor_core::check::{Check, Level};
use active_monitor_core::rbac::{
    ACCOUNT_ANNOTATION, ACCOUNT_NAMESPACE_LABEL, Account, MANAGED_BY, MANAGED_BY_LABEL, OWNER, OWNER_LABEL, union,
};
use active_monitor_core::run::RunKind;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::request::{RequestError, request};

/// Who asks for an account: a check's workflow, or its remedy while that runs.
type User = (String, RunKind);

/// Keeps the accounts; clones share what they know.
#[derive(Clone)]
pub struct Accounts {
    client: Client,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    users: HashMap<Account, BTreeMap<User, Vec<PolicyRule>>>,
    of_user: HashMap<User, Account>,
    /// The rules that the cluster was last seen to have for an account.
    applied: HashMap<Account, Vec<PolicyRule>>,
    /// By namespace and name: both levels share the ServiceAccount.
    turns: HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>,
}

impl Accounts {
    /// Knows no checks.
    pub fn new(client: Client) -> Accounts {
        Accounts { client, known: Arc::default() }
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
        known.users.entry(account).or_default().insert(user, job.rules.clone());
        left
    }

    /// Says that this check's job of this kind needs no account any more; gives the one that it used.
    pub fn leave(&self, uid: &str, kind: RunKind) -> Option<Account> {
        self.known.lock().leave(&(uid.to_owned(), kind))
    }

    /// Makes the account have what its users ask for. Asks the cluster only where that changed since it last agreed.
    ///
    /// # Errors
    /// When the API server refuses, which for rights beyond the agent's own it does, or cannot be reached.
    pub async fn ensure(&self, account: &Account) -> Result<(), RequestError> {
        if self.known.lock().missing(account).is_none() {
            return Ok(());
        }
        let turn = self.turn(account);
        let _turn = turn.lock().await;
        let Some(rules) = self.known.lock().missing(account) else { return Ok(()) };
        self.make(account, rules).await
    }

    /// Changes of one account come one after the other: taking rights back must not meet giving them. Others go on.
    fn turn(&self, account: &Account) -> Arc<tokio::sync::Mutex<()>> {
        let key = (account.namespace.clone(), account.name.clone());
        self.known.lock().turns.entry(key).or_default().clone()
    }

    async fn make(&self, account: &Account, rules: Vec<PolicyRule>) -> Result<(), RequestError> {
        self.service_account(account).await?;
        match account.level {
            Level::Cluster => self.cluster_role(account, &rules).await?,
            Level::Namespace => self.namespace_role(account, &rules).await?,
        }
        self.known.lock().applied.insert(account.clone(), rules);
        Ok(())
    }

    /// Makes an account that somebody stopped using agree with who is left: with nobody left, it is removed.
    ///
    /// # Errors
    /// As [`Accounts::ensure`].
    pub async fn release(&self, account: &Account) -> Result<(), RequestError> {
        let turn = self.turn(account);
        let _turn = turn.lock().await;
        if self.known.lock().users.contains_key(account) {
            let missing = self.known.lock().missing(account);
            return match missing {
                Some(rules) => self.make(account, rules).await,
                None => Ok(()),
            };
        }
        self.known.lock().applied.remove(account);
        for qualified in [false, true] {
            let role = account.role_name(qualified);
            let binding = format!("{role}-binding");
            match account.level {
                Level::Cluster => {
                    delete_ours(&Api::<ClusterRoleBinding>::all(self.client.clone()), &binding, account).await?;
                    delete_ours(&Api::<ClusterRole>::all(self.client.clone()), &role, account).await?;
                }
                Level::Namespace if qualified => {}
                Level::Namespace => {
                    delete_ours(&self.namespaced::<RoleBinding>(account), &binding, account).await?;
                    delete_ours(&self.namespaced::<Role>(account), &role, account).await?;
                }
            }
        }
        if !self.known.lock().uses_name(account) {
            delete_ours(&self.namespaced::<ServiceAccount>(account), &account.name, account).await?;
        }
        Ok(())
    }

    /// The accounts that an earlier life of the agent made and no check uses: it was away when the check was deleted.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn orphans(&self) -> Result<BTreeSet<Account>, RequestError> {
        let client = || self.client.clone();
        let mut found = BTreeSet::new();
        for (metadata, levels) in [
            (list_ours::<ServiceAccount>(Api::all(client())).await?, &[Level::Cluster, Level::Namespace][..]),
            (list_ours::<Role>(Api::all(client())).await?, &[Level::Namespace]),
            (list_ours::<ClusterRole>(Api::all(client())).await?, &[Level::Cluster]),
        ] {
            for account in metadata.iter().filter_map(|metadata| metadata.annotations.as_ref()?.get(ACCOUNT_ANNOTATION))
            {
                let Some((namespace, name)) = account.split_once('/') else { continue };
                let of = |level: &Level| Account { namespace: namespace.into(), name: name.into(), level: *level };
                found.extend(levels.iter().map(of));
            }
        }
        let known = self.known.lock();
        found.retain(|account| !known.users.contains_key(account));
        Ok(found)
    }

    /// Looks at the account's rights again before the next run.
    pub fn doubt(&self, account: &Account) {
        self.known.lock().applied.remove(account);
    }

    fn namespaced<K>(&self, account: &Account) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &account.namespace)
    }

    async fn service_account(&self, account: &Account) -> Result<(), RequestError> {
        let api = self.namespaced::<ServiceAccount>(account);
        if request(api.get_metadata_opt(&account.name)).await?.is_none() {
            create(&api, account.service_account()).await?;
        }
        Ok(())
    }

    async fn cluster_role(&self, account: &Account, rules: &[PolicyRule]) -> Result<(), RequestError> {
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        let plain = request(roles.get_opt(&account.role_name(false))).await?;
        // Another namespace's account of the same name may hold the plain name.
        let taken = plain.as_ref().is_some_and(|role| {
            let label = role.metadata.labels.as_ref().and_then(|labels| labels.get(ACCOUNT_NAMESPACE_LABEL));
            label.is_some_and(|namespace| *namespace != account.namespace)
        });
        let current = if taken { request(roles.get_opt(&account.role_name(true))).await? } else { plain };
        let current = current.map(|role| (role.metadata, role.rules.unwrap_or_default()));
        ensure_role(&roles, current, account.role(rules, taken), rules).await?;
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        ensure_exists(&bindings, account.binding(taken)).await
    }

    async fn namespace_role(&self, account: &Account, rules: &[PolicyRule]) -> Result<(), RequestError> {
        let roles = self.namespaced::<Role>(account);
        let current = request(roles.get_opt(&account.role_name(false))).await?;
        let current = current.map(|role| (role.metadata, role.rules.unwrap_or_default()));
        ensure_role(&roles, current, account.role(rules, false), rules).await?;
        ensure_exists(&self.namespaced::<RoleBinding>(account), account.binding(false)).await
    }
}

impl Known {
    /// What the account's users ask for, where the cluster is not known to have just that.
    fn missing(&self, account: &Account) -> Option<Vec<PolicyRule>> {
        let users = self.users.get(account);
        let rules = union(users.into_iter().flat_map(|users| users.values()).flatten());
        (self.applied.get(account) != Some(&rules)).then_some(rules)
    }

    fn leave(&mut self, user: &User) -> Option<Account> {
        let account = self.of_user.remove(user)?;
        if let Some(users) = self.users.get_mut(&account) {
            users.remove(user);
            if users.is_empty() {
                self.users.remove(&account);
            }
        }
        Some(account)
    }

    /// Whether the account's name is used at either level.
    fn uses_name(&self, account: &Account) -> bool {
        self.users.keys().any(|used| used.namespace == account.namespace && used.name == account.name)
    }
}

fn labelled(metadata: &ObjectMeta, label: &str, value: &str) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|found| found == value)
}

/// What carries our label.
async fn list_ours<K>(api: Api<K>) -> Result<Vec<ObjectMeta>, RequestError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let params = ListParams::default().labels(&format!("{OWNER_LABEL}={OWNER}"));
    let list = request(api.list_metadata(&params)).await?;
    Ok(list.items.into_iter().map(|item| item.metadata).collect())
}

/// Creates or changes a role, unless it is somebody else's.
async fn ensure_role<K>(
    api: &Api<K>,
    current: Option<(ObjectMeta, Vec<PolicyRule>)>,
    mut wanted: serde_json::Value,
    rules: &[PolicyRule],
) -> Result<(), RequestError>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let Some((metadata, known)) = current else { return create(api, wanted).await };
    if known == rules || !labelled(&metadata, MANAGED_BY_LABEL, MANAGED_BY) {
        return Ok(());
    }
    // Whose it was stays visible: an object that active-monitor made is not claimed by changing it.
    wanted["metadata"]["labels"] = serde_json::json!(metadata.labels);
    wanted["metadata"]["resourceVersion"] = serde_json::json!(metadata.resource_version);
    let object: K = serde_json::from_value(wanted).map_err(RequestError::Encode)?;
    request(api.replace(&metadata.name.unwrap_or_default(), &PostParams::default(), &object)).await.map(|_| ())
}

async fn ensure_exists<K>(api: &Api<K>, wanted: serde_json::Value) -> Result<(), RequestError>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if request(api.get_metadata_opt(&name)).await?.is_none() {
        create(api, wanted).await?;
    }
    Ok(())
}

/// Creates an object. That it exists by now is an error like any other: it is looked at again, since it may be another's.
async fn create<K>(api: &Api<K>, wanted: serde_json::Value) -> Result<(), RequestError>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let object: K = serde_json::from_value(wanted).map_err(RequestError::Encode)?;
    request(api.create(&PostParams::default(), &object)).await.map(|_| ())
}

/// Deletes an object that carries our label and serves this account, exactly as it was read.
async fn delete_ours<K>(api: &Api<K>, name: &str, account: &Account) -> Result<(), RequestError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let Some(found) = request(api.get_metadata_opt(name)).await? else { return Ok(()) };
    let ours = labelled(&found.metadata, OWNER_LABEL, OWNER);
    let serves = found.metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT_ANNOTATION));
    if !ours || serves != Some(&format!("{}/{}", account.namespace, account.name)) {
        return Ok(());
    }
    let only_this = Preconditions { uid: found.metadata.uid, resource_version: found.metadata.resource_version };
    let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    match request(api.delete(name, &params)).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}
