//! Rows of: what Git owned, what it says, what there is.

use super::*;
use crate::document::Input;
use crate::gitops::read;

const HEAD: &str = "apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1";

fn definition(name: &str, period: u32) -> String {
    format!(
        "{HEAD}\nkind: FleetHealthCheck\nmetadata: {{name: {name}}}\nspec:\n  clusterSelector: {{}}\n  template:\n    \
         metadata: {{namespace: health}}\n    spec: {{repeatAfterSec: {period}}}\n"
    )
}

fn cluster(name: &str, labels: &str) -> String {
    format!("{HEAD}\nkind: FleetCluster\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

fn window(name: &str, seconds: u32) -> String {
    format!(
        "{HEAD}\nkind: MaintenanceWindow\nmetadata: {{name: {name}}}\nspec: {{cron: \"0 3 * * *\", durationSeconds: {seconds}}}\n"
    )
}

fn documents(texts: &[String]) -> Documents {
    read(&[Input { name: "fleet.yaml".into(), text: texts.join("---\n") }]).unwrap()
}

/// What there is after a plan.
fn applied(mut existing: Existing, plan: &Plan) -> Existing {
    for definition in &plan.put {
        existing.definitions.insert(definition.metadata.name.clone(), serde_json::to_value(definition).unwrap());
    }
    for name in &plan.delete {
        existing.definitions.remove(name).unwrap();
    }
    for (name, patch) in &plan.patches {
        let labels = &mut existing.clusters.get_mut(name).unwrap().labels;
        for (key, value) in &patch.labels {
            match value {
                Some(value) => drop(labels.insert(key.clone(), value.clone())),
                None => drop(labels.remove(key).unwrap()),
            }
        }
    }
    for (name, spec) in &plan.windows {
        match spec {
            Some(spec) => drop(existing.windows.insert(name.clone(), spec.clone())),
            None => drop(existing.windows.remove(name).unwrap()),
        }
    }
    existing
}

fn with_cluster(name: &str, labels: &[(&str, &str)]) -> Existing {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let metadata = DefinitionMeta { name: name.to_owned(), labels, ..DefinitionMeta::default() };
    Existing { clusters: BTreeMap::from([(name.to_owned(), metadata)]), ..Existing::default() }
}

#[test]
fn what_git_says_is_made_then_changed_then_deleted() {
    let first = documents(&[definition("dns", 60), window("night", 60), cluster("east", "env: prod, tier: a")]);
    let plan1 = plan(&[], &first, &with_cluster("east", &[("owner", "ann")]), false).unwrap();
    let existing = applied(with_cluster("east", &[("owner", "ann")]), &plan1);
    assert_eq!(existing.clusters["east"].labels.len(), 3);
    let again = plan(&plan1.owned, &first, &existing, false).unwrap();
    assert!(again.is_empty() && again.owned == plan1.owned && again.adopted.is_empty(), "{again:?}");

    let second = documents(&[definition("dns", 30), cluster("east", "env: test")]);
    let plan2 = plan(&plan1.owned, &second, &existing, false).unwrap();
    let existing = applied(existing, &plan2);
    assert_eq!(existing.definitions["dns"]["spec"]["template"]["spec"]["repeatAfterSec"], 30);
    assert!(existing.windows.is_empty());
    let labels: Vec<_> = existing.clusters["east"].labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["env=test", "owner=ann"]);

    let third = documents(&[window("night", 60)]);
    let plan3 = plan(&plan2.owned, &third, &existing, false).unwrap();
    let existing = applied(existing, &plan3);
    assert!(existing.definitions.is_empty() && existing.clusters["east"].labels.len() == 1);
}

#[test]
fn an_empty_folder_deletes_nothing_unless_that_is_allowed() {
    let first = plan(&[], &documents(&[definition("dns", 60)]), &Existing::default(), false).unwrap();
    let existing = applied(Existing::default(), &first);
    let refused = plan(&first.owned, &Documents::new(), &existing, false).unwrap_err();
    assert!(refused[0].to_string().starts_with(".: there are no documents"), "{}", refused[0]);
    let allowed = plan(&first.owned, &Documents::new(), &existing, true).unwrap();
    assert_eq!((allowed.delete.as_slice(), allowed.owned.len()), (["dns".to_owned()].as_slice(), 0));
    assert!(plan(&[], &Documents::new(), &existing, false).unwrap().is_empty());
}

#[test]
fn what_people_made_is_refused_where_it_differs_and_taken_over_where_it_is_the_same() {
    let by_hand = documents(&[definition("dns", 60), window("night", 60)]);
    let existing = applied(Existing::default(), &plan(&[], &by_hand, &Existing::default(), false).unwrap());
    let same = plan(&[], &by_hand, &existing, false).unwrap();
    assert!(same.is_empty() && same.owned.len() == 2 && same.adopted.len() == 2, "{same:?}");
    let other = documents(&[definition("dns", 30), window("night", 61)]);
    let refused = plan(&[], &other, &existing, false).unwrap_err();
    let texts: Vec<String> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].starts_with("fleet.yaml:3:12: metadata.name: is there and was not made by Git"), "{texts:?}");
    let label =
        plan(&[], &documents(&[cluster("east", "env: prod")]), &with_cluster("east", &[("env", "test")]), false);
    let text = label.unwrap_err()[0].to_string();
    assert!(text.starts_with("fleet.yaml:3:33: metadata.labels[env]: has another value"), "{text}");
}

#[test]
fn the_labels_of_a_cluster_wait_until_it_is_added() {
    let set = documents(&[cluster("east", "env: prod")]);
    let early = plan(&[], &set, &Existing::default(), false).unwrap();
    assert_eq!((early.waiting.as_slice(), early.is_empty()), (["east".to_owned()].as_slice(), true));
    let later = plan(&early.owned, &set, &with_cluster("east", &[]), false).unwrap();
    assert_eq!(later.patches.len(), 1);
    assert!(later.waiting.is_empty());
    // Removed, and added again by a person who sets the label: that is theirs.
    let removed = plan(&later.owned, &set, &Existing::default(), false).unwrap();
    assert!(plan(&removed.owned, &set, &with_cluster("east", &[("env", "x")]), false).is_err());
}

#[test]
fn what_a_crash_leaves_half_done_is_known_as_gits_own() {
    let first = documents(&[definition("dns", 60), cluster("east", "env: prod")]);
    let plan1 = plan(&[], &first, &with_cluster("east", &[]), false).unwrap();
    let done = applied(with_cluster("east", &[]), &plan1);
    // All changes were made, and the claim is all that was stored; then Git says something else.
    let claim = plan1.claim(&[]);
    let second = documents(&[definition("tls", 60), cluster("east", "tier: a")]);
    let plan2 = plan(&claim, &second, &done, false).unwrap();
    let after = applied(done, &plan2);
    assert_eq!(after.definitions.keys().collect::<Vec<_>>(), ["tls"]);
    assert_eq!(after.clusters["east"].labels, BTreeMap::from([("tier".to_owned(), "a".to_owned())]));
    // Nothing was made yet: what is claimed and not there is no obstacle.
    assert!(plan(&claim, &second, &with_cluster("east", &[]), false).unwrap().delete.is_empty());
    // Half of the second was done.
    let claim = plan2.claim(&claim);
    assert!(claim.iter().any(|owned| owned.name == "dns") && claim.iter().any(|owned| owned.name == "tls"));
    let east = claim.iter().find(|owned| owned.name == "east").unwrap();
    assert_eq!(east.labels.iter().collect::<Vec<_>>(), ["env", "tier"]);
}

#[test]
fn what_is_a_resources_is_not_gits_however_alike_it_is() {
    let set = documents(&[definition("dns", 60)]);
    let existing = applied(Existing::default(), &plan(&[], &set, &Existing::default(), false).unwrap());
    let owned = Owned {
        kind: Kind::FleetHealthCheck,
        name: "dns".into(),
        file: "fleet/dns".into(),
        labels: BTreeSet::new(),
        annotations: BTreeSet::new(),
    };
    let ownership = Ownership { resources: vec![owned], ..Ownership::default() };
    let existing = Existing { taken: ownership.taken(Owner::Git), ..existing };
    let refused = plan(&[], &set, &existing, false).unwrap_err();
    assert_eq!(
        refused[0].to_string(),
        "fleet.yaml:3:12: metadata.name: the FleetHealthCheck dns is a resource's: change fleet/dns in the hub's own cluster"
    );
    assert!(ownership.taken(Owner::Resources).is_empty());
}

#[test]
fn people_may_change_what_is_not_gits() {
    let plan = plan(
        &[],
        &documents(&[definition("dns", 60), cluster("east", "env: prod")]),
        &with_cluster("east", &[]),
        false,
    );
    let ownership = Ownership { objects: plan.unwrap().owned, ..Ownership::default() };
    let refused = ownership.refuses(Kind::FleetHealthCheck, "dns").unwrap();
    assert_eq!(refused, "the FleetHealthCheck dns is Git's: change fleet.yaml in the repository");
    assert_eq!(ownership.refuses(Kind::MaintenanceWindow, "dns"), None);
    let keys = |key: &str| ownership.refuses_keys("east", [key.to_owned()].iter(), [].iter());
    assert_eq!(keys("env").unwrap(), "the label env of cluster east is Git's: change fleet.yaml in the repository");
    assert_eq!(keys("owner"), None);
}
