//! What the watch has shown, and what may be taken from what it has not shown.

use std::collections::{BTreeMap, BTreeSet};

use active_monitor_core::definition::{API_VERSION, KIND};
use active_monitor_core::gitops::resources::{Resource, Resources};
use kube::runtime::watcher::Event;
use serde_json::json;

use super::crd::{FleetHealthCheck, FleetHealthCheckSpec, FleetHealthCheckStatus};

/// A resource, read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) generation: i64,
    pub(super) status: FleetHealthCheckStatus,
    pub(super) resource: Resource,
}

impl Item {
    /// Annotations are what kubectl, Argo CD and Flux write for themselves: they are not the definition's.
    fn read(object: FleetHealthCheck) -> (String, Item) {
        let FleetHealthCheck { metadata, spec: FleetHealthCheckSpec(spec), status } = object;
        let name = metadata.name.unwrap_or_default();
        let place = format!("{}/{name}", metadata.namespace.unwrap_or_default());
        let labels = metadata.labels.unwrap_or_default();
        let document = json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name, "labels": labels}, "spec": spec,
        });
        let item = Item {
            generation: metadata.generation.unwrap_or_default(),
            status: status.unwrap_or_default(),
            resource: Resource::read(&place, document),
        };
        (name, item)
    }
}

/// All that the watch has shown.
///
/// What a list does not have is gone, but a list without anything says nothing: so is that of an API server that has lost its
/// data, or of another one under the same address. A deletion that was watched is one in any case.
#[derive(Debug, Default)]
pub(super) struct Listed {
    known: BTreeMap<String, Item>,
    /// A list that has not ended.
    listing: BTreeMap<String, Item>,
    /// Lists that have ended.
    lists: u64,
    /// Whether the last list has shown something.
    is_complete: bool,
    deleted: BTreeSet<String>,
}

impl Listed {
    pub(super) fn take(&mut self, event: Event<FleetHealthCheck>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => self.listing.extend([Item::read(object)]),
            Event::InitDone => {
                let listing = std::mem::take(&mut self.listing);
                self.lists += 1;
                self.is_complete = !listing.is_empty();
                if self.is_complete {
                    (self.known, self.deleted) = (listing, BTreeSet::new());
                }
            }
            Event::Apply(object) => {
                let (name, item) = Item::read(object);
                self.deleted.remove(&name);
                self.known.insert(name, item);
            }
            Event::Delete(object) => {
                let (name, _) = Item::read(object);
                self.known.remove(&name);
                self.deleted.insert(name);
            }
        }
    }

    /// Lists that have ended. Before the first one nothing is known.
    pub(super) fn lists(&self) -> u64 {
        self.lists
    }

    /// Whether the last list has shown nothing, though there was something.
    pub(super) fn is_doubtful(&self) -> bool {
        self.lists > 0 && !self.is_complete && !self.known.is_empty()
    }

    /// Whether a resource is known not to be there.
    pub(super) fn is_gone(&self, name: &str) -> bool {
        !self.known.contains_key(name) && (self.is_complete || self.deleted.contains(name))
    }

    pub(super) fn items(&self) -> &BTreeMap<String, Item> {
        &self.known
    }

    /// What the resources ask for.
    pub(super) fn resources(&self) -> Resources {
        self.known.iter().map(|(name, item)| (name.clone(), item.resource.clone())).collect()
    }

    /// The status that was written is there; the watch will say so.
    pub(super) fn written(&mut self, name: &str, status: FleetHealthCheckStatus) {
        if let Some(item) = self.known.get_mut(name) {
            item.status = status;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> FleetHealthCheck {
        let spec = json!({"clusterSelector": {}, "template": {"metadata": {"namespace": "health"}, "spec": {}}});
        let mut object = FleetHealthCheck::new(name, FleetHealthCheckSpec(spec));
        object.metadata.namespace = Some("fleet".to_owned());
        object
    }

    fn names(listed: &Listed) -> Vec<&str> {
        listed.items().keys().map(String::as_str).collect()
    }

    fn list(listed: &mut Listed, names: &[&str]) {
        listed.take(Event::Init);
        names.iter().for_each(|name| listed.take(Event::InitApply(object(name))));
        listed.take(Event::InitDone);
    }

    #[test]
    fn a_list_counts_once_it_has_ended() {
        let mut listed = Listed::default();
        listed.take(Event::Init);
        listed.take(Event::InitApply(object("dns")));
        assert!(listed.lists() == 0 && listed.items().is_empty() && !listed.is_gone("tls"));
        listed.take(Event::InitDone);
        assert!(listed.lists() == 1 && listed.is_gone("tls") && !listed.is_gone("dns"));
        assert_eq!(listed.items()["dns"].resource.place, "fleet/dns");
        // The watch broke off in the middle of the next list, which begins again.
        listed.take(Event::Init);
        listed.take(Event::InitApply(object("old")));
        list(&mut listed, &["tls"]);
        assert!(names(&listed) == ["tls"] && listed.is_gone("dns") && listed.is_gone("old"));
    }

    #[test]
    fn a_list_without_anything_says_nothing_and_a_deletion_that_was_watched_is_one() {
        let mut listed = Listed::default();
        list(&mut listed, &[]);
        assert!(listed.lists() == 1 && !listed.is_gone("dns"));
        list(&mut listed, &["dns", "tls"]);
        assert!(!listed.is_doubtful());
        list(&mut listed, &[]);
        assert_eq!((names(&listed), listed.is_doubtful()), (vec!["dns", "tls"], true));
        listed.take(Event::Delete(object("tls")));
        assert!(names(&listed) == ["dns"] && listed.is_gone("tls") && !listed.is_gone("other"));
        listed.take(Event::Apply(object("tls")));
        assert!(!listed.is_gone("tls"));
        listed.take(Event::Delete(object("dns")));
        listed.take(Event::Delete(object("tls")));
        assert!(
            listed.items().is_empty() && listed.is_gone("dns") && !listed.is_doubtful(),
            "the last one may be deleted"
        );
    }

    #[test]
    fn labels_are_the_definitions_and_annotations_are_not() {
        let mut labelled = object("dns");
        labelled.metadata.labels = Some([("team".to_owned(), "shop".to_owned())].into());
        labelled.metadata.annotations = Some([("argocd.argoproj.io/tracking-id".to_owned(), "a".to_owned())].into());
        let definition = Item::read(labelled).1.resource.wanted.unwrap();
        assert_eq!((definition.metadata.labels.len(), definition.metadata.annotations.len()), (1, 0));
    }
}
