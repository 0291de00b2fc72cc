//! Definitions that are resources of the hub's own cluster. Each stands for itself: one that is wrong, or whose name is
//! another's, is refused, and the others are done. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Kind;
use super::plan::{Existing, Owned, Plan};
use crate::definition::FleetHealthCheck;
use crate::document::{self, Finding, Object};

/// What a resource asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// `NAMESPACE/NAME`.
    pub place: String,
    /// The definition, or everything that is wrong with it.
    pub wanted: Result<FleetHealthCheck, Vec<Finding>>,
}

impl Resource {
    /// Reads and judges it as a document of Git's folder is.
    pub fn read(place: &str, document: Value) -> Resource {
        let wanted = document::definition(&Object::of_value(document, place));
        Resource { place: place.to_owned(), wanted }
    }
}

/// All that there are, by the definition's name.
pub type Resources = BTreeMap<String, Resource>;

/// Why a resource is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no definition; says which field and what is allowed.
    Invalid(String),
    /// Its name is another's.
    Conflict(String),
    /// The hub does not take it.
    Rejected(String),
}

/// Those that are not done, by name.
pub type Refusals = BTreeMap<String, Refusal>;

/// What to change so that `existing` has what each of the resources says, and which of them are refused. What a refused one
/// said before stays, and so does what one said that is not there and not known to be gone.
pub fn plan(
    owned: &[Owned],
    resources: &Resources,
    is_gone: impl Fn(&str) -> bool,
    existing: &Existing,
) -> (Plan, Refusals) {
    let owned: BTreeMap<&str, &Owned> = owned.iter().map(|owned| (owned.name.as_str(), owned)).collect();
    let (mut plan, mut refusals) = (Plan::default(), Refusals::new());
    for (name, Resource { place, wanted }) in resources {
        let before = owned.get(name.as_str());
        let there = existing.definitions.get(name);
        match wanted.as_ref().map_err(|findings| invalid(findings)).and_then(|wanted| {
            refuse(name, wanted, there.filter(|_| before.is_none()), existing).map_or(Ok(wanted), Err)
        }) {
            Err(refusal) => {
                refusals.insert(name.clone(), refusal);
                plan.owned.extend(before.map(|owned| (*owned).clone()));
            }
            Ok(wanted) => {
                if before.is_none() && there.is_some() {
                    plan.adopted.push((Kind::FleetHealthCheck, name.clone()));
                }
                if there.is_none_or(|there| serde_json::to_value(wanted).is_ok_and(|value| value != *there)) {
                    plan.put.push(wanted.clone());
                }
                plan.owned.push(owning(name, place));
            }
        }
    }
    for (name, before) in owned.into_iter().filter(|(name, _)| !resources.contains_key(*name)) {
        if !is_gone(name) {
            plan.owned.push(before.clone());
        } else if existing.definitions.contains_key(name) {
            plan.delete.push(name.to_owned());
        }
    }
    (plan, refusals)
}

/// The plan with only what is to be put under this name; the rest is for later.
pub fn put_only(plan: Plan, name: &str, before: &[Owned]) -> Plan {
    let (put, later): (Vec<_>, Vec<_>) = plan.put.into_iter().partition(|definition| definition.metadata.name == name);
    let is_later = |name: &str| later.iter().any(|definition| definition.metadata.name == name);
    let is_owned = |name: &str| before.iter().any(|owned| owned.name == name);
    let owned = plan.owned.into_iter().filter(|owned| !is_later(&owned.name) || is_owned(&owned.name)).collect();
    let adopted = plan.adopted.into_iter().filter(|(_, name)| !is_later(name)).collect();
    Plan { put, owned, adopted, delete: plan.delete, ..Plan::default() }
}

/// Why it cannot have its name; `others` is what is there under it and is not a resource's.
fn refuse(name: &str, wanted: &FleetHealthCheck, others: Option<&Value>, existing: &Existing) -> Option<Refusal> {
    if let Some(why) = existing.taken.get(&(Kind::FleetHealthCheck, name.to_owned())) {
        return Some(Refusal::Conflict(why.clone()));
    }
    // Labels are for people, and Argo CD and Flux add their own: with the same spec it is the same.
    let is_same = |there: &Value| serde_json::to_value(&wanted.spec).is_ok_and(|spec| spec == there["spec"]);
    others.filter(|there| !is_same(there)).map(|_| {
        let text = "a person made another FleetHealthCheck of this name; delete it, or make the spec the same";
        Refusal::Conflict(text.to_owned())
    })
}

fn invalid(findings: &[Finding]) -> Refusal {
    let texts = findings.iter().map(|Finding { field, message, .. }| match field.as_str() {
        "" => message.clone(),
        field => format!("{field}: {message}"),
    });
    Refusal::Invalid(texts.collect::<Vec<_>>().join("; "))
}

fn owning(name: &str, place: &str) -> Owned {
    let (kind, name, file) = (Kind::FleetHealthCheck, name.to_owned(), place.to_owned());
    Owned { kind, name, file, labels: BTreeSet::new(), annotations: BTreeSet::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definition::{API_VERSION, KIND};
    use crate::gitops::plan::{Owner, Ownership};

    fn document(name: &str, period: u32) -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name},
            "spec": {
                "clusterSelector": {"matchLabels": {"env": "prod"}},
                "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": period}},
            },
        })
    }

    fn resources<const N: usize>(documents: [Value; N]) -> Resources {
        let read = |document: Value| {
            let name = document["metadata"]["name"].as_str().unwrap().to_owned();
            (name.clone(), Resource::read(&format!("fleet/{name}"), document))
        };
        documents.map(read).into()
    }

    fn existing<const N: usize>(documents: [Value; N]) -> Existing {
        let named = |document: Value| (document["metadata"]["name"].as_str().unwrap().to_owned(), document);
        Existing { definitions: documents.map(named).into(), ..Existing::default() }
    }

    fn plan(owned: &[Owned], resources: &Resources, existing: &Existing) -> (Plan, Refusals) {
        super::plan(owned, resources, |_| true, existing)
    }

    fn puts(plan: &Plan) -> Vec<&str> {
        plan.put.iter().map(|definition| definition.metadata.name.as_str()).collect()
    }

    #[test]
    fn what_is_new_is_put_what_changed_is_put_again_and_what_is_gone_is_deleted() {
        let (plan1, refused) = plan(&[], &resources([document("dns", 60), document("tls", 60)]), &existing([]));
        assert_eq!((puts(&plan1), refused.len()), (vec!["dns", "tls"], 0));
        assert_eq!(plan1.owned[0].file, "fleet/dns");
        let there = existing([document("dns", 60), document("tls", 60), document("mine", 9)]);
        let (plan2, _) = plan(&plan1.owned, &resources([document("dns", 30), document("tls", 60)]), &there);
        assert_eq!((puts(&plan2), plan2.delete.len(), plan2.adopted.len()), (vec!["dns"], 0, 0));
        let (plan3, _) = plan(&plan2.owned, &resources([document("tls", 60)]), &there);
        assert_eq!((puts(&plan3), plan3.delete.as_slice()), (vec![], ["dns".to_owned()].as_slice()));
        assert_eq!(plan3.owned.len(), 1);
        // Somebody deleted it behind the hub's back.
        let (again, _) = plan(&plan2.owned, &resources([document("dns", 30), document("tls", 60)]), &existing([]));
        assert_eq!(puts(&again), ["dns", "tls"]);
    }

    #[test]
    fn what_is_not_there_is_not_therefore_gone() {
        let owned = [owning("dns", "fleet/dns"), owning("tls", "fleet/tls")];
        let there = existing([document("dns", 60), document("tls", 60)]);
        let (kept, _) = super::plan(&owned, &resources([]), |name| name == "tls", &there);
        assert_eq!((kept.delete.as_slice(), kept.owned.as_slice()), (["tls".to_owned()].as_slice(), &owned[..1]));
    }

    #[test]
    fn one_that_is_wrong_says_which_field_keeps_what_it_said_before_and_hinders_no_other() {
        let (plan1, _) = plan(&[], &resources([document("dns", 60)]), &existing([]));
        let mut wrong = document("dns", 30);
        wrong["spec"]["clusterSelector"] = json!({"matchLabel": {"env": "prod"}});
        let both = resources([wrong, document("tls", 60)]);
        let (plan2, refused) = plan(&plan1.owned, &both, &existing([document("dns", 60)]));
        let text = "spec.clusterSelector.matchLabel: unknown field; allowed are matchLabels and matchExpressions";
        assert_eq!(refused["dns"], Refusal::Invalid(text.to_owned()));
        assert_eq!((puts(&plan2), plan2.delete.len(), plan2.owned.len()), (vec!["tls"], 0, 2));
    }

    #[test]
    fn what_is_put_alone_owns_nothing_that_is_yet_to_be_put() {
        let all = resources([document("dns", 30), document("tls", 60), document("web", 60)]);
        let before = [owning("dns", "fleet/dns"), owning("old", "fleet/old")];
        let there = existing([document("dns", 60), document("old", 60)]);
        let alone = put_only(plan(&before, &all, &there).0, "tls", &before);
        assert_eq!((puts(&alone), alone.delete.as_slice()), (vec!["tls"], ["old".to_owned()].as_slice()));
        let names: Vec<&str> = alone.owned.iter().map(|owned| owned.name.as_str()).collect();
        assert_eq!(names, ["dns", "tls"]);
    }

    #[test]
    fn the_first_owner_of_a_name_stays() {
        let dns = resources([document("dns", 60)]);
        let (refusing, refused) = plan(&[], &dns, &existing([document("dns", 30)]));
        assert!(matches!(&refused["dns"], Refusal::Conflict(why) if why.contains("a person made another")));
        assert!(refusing.is_empty() && refusing.owned.is_empty());

        let ownership = Ownership { objects: vec![owning("dns", "a.yaml")], ..Ownership::default() };
        let taken = ownership.taken(Owner::Resources);
        let (_, refused) = plan(&[], &dns, &Existing { taken, ..existing([document("dns", 60)]) });
        let text = "the FleetHealthCheck dns is Git's: change a.yaml in the repository";
        assert_eq!(refused["dns"], Refusal::Conflict(text.to_owned()));
    }

    #[test]
    fn what_a_person_made_with_the_same_spec_is_the_resources_from_now_on() {
        let mut labelled = document("dns", 60);
        labelled["metadata"]["labels"] = json!({"app.kubernetes.io/instance": "checks"});
        let (adopting, refused) = plan(&[], &resources([labelled]), &existing([document("dns", 60)]));
        assert_eq!((puts(&adopting), refused.len()), (vec!["dns"], 0));
        assert_eq!(adopting.adopted, [(Kind::FleetHealthCheck, "dns".to_owned())]);
        let (same, _) = plan(&[], &resources([document("dns", 60)]), &existing([document("dns", 60)]));
        assert!(same.is_empty() && same.owned.len() == 1);
    }
}
