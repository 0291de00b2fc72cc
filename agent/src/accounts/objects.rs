//! The five kinds of objects that accounts consist of, in one slim type, and the few requests that change them. What
//! somebody else made is never changed here.

use active_monitor_core::rbac::{ACCOUNT_ANNOTATION, Account, MANAGED_BY, MANAGED_BY_LABEL, OWNER, OWNER_LABEL};
use active_monitor_core::scope::Scope;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{ApiResource, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions, TypeMeta};
use kube::core::{DynamicResourceScope, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::{RequestError, request};
use crate::watches;

/// Objects that a list page carries.
pub(super) const PAGE: u32 = 50;
/// The agent's own requests time out long before this; a watch that says nothing for so long is opened anew.
const WATCH_SECONDS: u32 = 240;

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    ServiceAccount,
    Role,
    RoleBinding,
    ClusterRole,
    ClusterRoleBinding,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] =
        [Kind::ServiceAccount, Kind::Role, Kind::RoleBinding, Kind::ClusterRole, Kind::ClusterRoleBinding];

    pub(super) fn resource(self) -> ApiResource {
        match self {
            Kind::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Kind::Role => ApiResource::erase::<Role>(&()),
            Kind::RoleBinding => ApiResource::erase::<RoleBinding>(&()),
            Kind::ClusterRole => ApiResource::erase::<ClusterRole>(&()),
            Kind::ClusterRoleBinding => ApiResource::erase::<ClusterRoleBinding>(&()),
        }
    }

    pub(super) fn is_namespaced(self) -> bool {
        matches!(self, Kind::ServiceAccount | Kind::Role | Kind::RoleBinding)
    }
}

/// An account, role or binding without what the agent has no use for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object {
    /// Absent in lists.
    #[serde(flatten, default)]
    types: Option<TypeMeta>,
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rules: Option<Vec<PolicyRule>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) role_ref: Option<RoleRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subjects: Option<Vec<Subject>>,
}

impl Resource for Object {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.kind.as_str().into()
    }
    fn group(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.group.as_str().into()
    }
    fn version(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.version.as_str().into()
    }
    fn plural(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Object {
    /// What the account needs, from its description.
    ///
    /// # Errors
    /// When the description is none of such an object.
    pub(super) fn wanted(description: Value) -> Result<Object, RequestError> {
        serde_json::from_value(description).map_err(RequestError::Encode)
    }

    pub(super) fn label(&self, label: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(label).map(String::as_str)
    }

    /// Whether active-monitor or this agent made it.
    pub(super) fn is_managed(&self) -> bool {
        self.label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
    }

    /// Whether a binding gives its role to this account.
    pub(super) fn serves(&self, account: &Account) -> bool {
        self.subjects.iter().flatten().any(|subject| {
            let here = subject.namespace.as_deref() == Some(&account.namespace);
            subject.kind == "ServiceAccount" && subject.name == account.name && here
        })
    }

    /// Whether it grants what the other does.
    pub(super) fn grants_as(&self, other: &Object) -> bool {
        let rules = |object: &Object| object.rules.clone().unwrap_or_default();
        let role = |object: &Object| object.role_ref.as_ref().map(|role| (role.kind.clone(), role.name.clone()));
        let subjects = |object: &Object| -> Vec<_> {
            let all = object.subjects.iter().flatten();
            all.map(|one| (one.kind.clone(), one.namespace.clone(), one.name.clone())).collect()
        };
        rules(self) == rules(other) && role(self) == role(other) && subjects(self) == subjects(other)
    }
}

/// The requests.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) client: Client,
    pub(super) scope: Scope,
}

impl Objects {
    fn api(&self, kind: Kind, namespace: &str) -> Api<Object> {
        if kind.is_namespaced() {
            Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
        } else {
            Api::all_with(self.client.clone(), &kind.resource())
        }
    }

    /// Wherever there may be objects of this kind.
    fn apis(&self, kind: Kind) -> Vec<Api<Object>> {
        let resource = kind.resource();
        let all = || Api::all_with(self.client.clone(), &resource);
        match (&self.scope, kind.is_namespaced()) {
            (Scope::Namespaces(_), false) => Vec::new(),
            (Scope::Cluster, false) => vec![all()],
            (scope, true) => {
                scope.each(all, |namespace| Api::namespaced_with(self.client.clone(), namespace, &resource))
            }
        }
    }

    /// An object of the account's namespace, or a cluster-wide one.
    pub(super) async fn get(&self, kind: Kind, account: &Account, name: &str) -> Result<Option<Object>, RequestError> {
        request(self.api(kind, &account.namespace).get_opt(name)).await
    }

    /// Whether there is one.
    pub(super) async fn exists(&self, kind: Kind, account: &Account, name: &str) -> Result<bool, RequestError> {
        Ok(request(self.api(kind, &account.namespace).get_metadata_opt(name)).await?.is_some())
    }

    /// Creates an object. That it exists by now is an error like any other: it is looked at again, since it may be
    /// another's.
    pub(super) async fn create(&self, kind: Kind, account: &Account, wanted: &Object) -> Result<Object, RequestError> {
        request(self.api(kind, &account.namespace).create(&PostParams::default(), wanted)).await
    }

    /// Creates an object, or makes the one that was read grant what is wanted, unless it is somebody else's. Gives what
    /// was written.
    pub(super) async fn put(
        &self,
        kind: Kind,
        account: &Account,
        current: Option<Object>,
        mut wanted: Object,
    ) -> Result<Option<Object>, RequestError> {
        let Some(current) = current else { return self.create(kind, account, &wanted).await.map(Some) };
        if !current.is_managed() || current.grants_as(&wanted) {
            return Ok(None);
        }
        let api = self.api(kind, &account.namespace);
        let name = current.metadata.name.clone().unwrap_or_default();
        if current.role_ref != wanted.role_ref {
            // The API server lets no binding change its role.
            delete_this(&api, &name, &current.metadata).await?;
            return self.create(kind, account, &wanted).await.map(Some);
        }
        // Whose it was stays visible: an object that active-monitor made is not claimed by changing it.
        wanted.metadata.labels = current.metadata.labels;
        wanted.metadata.resource_version = current.metadata.resource_version;
        request(api.replace(&name, &PostParams::default(), &wanted)).await.map(Some)
    }

    /// Deletes an object that carries our label and serves this account, exactly as it was read.
    pub(super) async fn delete_ours(&self, kind: Kind, account: &Account, name: &str) -> Result<(), RequestError> {
        let api = self.api(kind, &account.namespace);
        let Some(PartialObjectMeta { metadata, .. }) = request(api.get_metadata_opt(name)).await? else {
            return Ok(());
        };
        let found = Object { metadata, ..Object::default() };
        let serves = found.metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT_ANNOTATION));
        if found.label(OWNER_LABEL) != Some(OWNER) || serves != Some(&account.key()) {
            return Ok(());
        }
        delete_this(&api, name, &found.metadata).await
    }

    /// The value of this label and the rules of every ClusterRole that has it.
    pub(super) async fn labelled_rules(&self, label: &str) -> Result<Vec<(String, Vec<PolicyRule>)>, RequestError> {
        let api: Api<Object> = Api::all_with(self.client.clone(), &Kind::ClusterRole.resource());
        let list = request(api.list(&ListParams::default().labels(label).limit(PAGE))).await?;
        let rules = |role: Object| Some((role.label(label)?.to_owned(), role.rules.unwrap_or_default()));
        Ok(list.items.into_iter().filter_map(rules).collect())
    }

    /// Follows the objects with active-monitor's label.
    pub(super) fn watch(&self, kind: Kind) -> BoxStream<'static, watcher::Result<Event<Object>>> {
        let managed = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
        let config = watcher::Config::default().labels(&managed).page_size(PAGE).timeout(WATCH_SECONDS);
        watches::watch(self.apis(kind), &config)
    }

    /// The metadata of all that match a label selector, in pages.
    pub(super) async fn list(&self, kind: Kind, selector: &str) -> Result<Vec<ObjectMeta>, RequestError> {
        let mut found = Vec::new();
        for api in self.apis(kind) {
            let mut params = ListParams::default().labels(selector).limit(PAGE);
            loop {
                let page = request(api.list_metadata(&params)).await?;
                found.extend(page.items.into_iter().map(|item| item.metadata));
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params = params.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(found)
    }
}

async fn delete_this(api: &Api<Object>, name: &str, metadata: &ObjectMeta) -> Result<(), RequestError> {
    let only_this = Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
    let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    match request(api.delete(name, &params)).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}
