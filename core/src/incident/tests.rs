use crate::state::{CheckState, DefinitionRef};
use crate::view::{ClusterView, FleetSummary};

use super::*;
use crate::view::ClusterStatus;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A fleet of clusters `eu-0..` and `us-0..` with the check health/dns, all of them well.
struct World {
    view: FleetView,
    incidents: Incidents,
}

impl World {
    fn new(eu: usize, us: usize) -> World {
        let names = (0..eu).map(|n| ("eu", n)).chain((0..us).map(|n| ("us", n)));
        let clusters = names.map(|(region, n)| {
            let name = format!("{region}-{n}");
            let labels = [("region".to_owned(), region.to_owned()), ("name".to_owned(), name.clone())].into();
            let view = ClusterView {
                name: name.clone(),
                labels,
                annotations: BTreeMap::new(),
                status: ClusterStatus::Connected,
                message: String::new(),
                last_heard_at: Some(at(0)),
                agent_version: "0.1.0".into(),
                kubernetes_version: if n % 2 == 0 { "v1.33.1".into() } else { "v1.32.4".into() },
                backlog: 0,
                dropped_reports: 0,
                refused_checks: 0,
                clock_skew_ms: 0,
                checks: BTreeMap::new(),
                certificate_ends_at: None,
                self_test: None,
                pending_enrolment: None,
                policy: Vec::new(),
            };
            let check = Arc::new(check(&name, "dns", CheckStatus::Succeeded));
            let checks = Checks::from([(("health".to_owned(), "dns".to_owned()), check)]);
            (name, Arc::new(ClusterEntry::new(view, checks)))
        });
        let (hub_version, counts) = (String::new(), BTreeMap::new());
        let summary =
            FleetSummary { hub_version, clusters: counts.clone(), checks: counts, definitions: 0, restore: None };
        let view = FleetView { revision: 0, summary, clusters: clusters.collect() };
        let mut world = World { view, incidents: Incidents::default() };
        assert!(world.at(0).is_empty() && world.incidents.open().is_empty());
        world
    }

    fn at(&mut self, second: i64) -> Vec<Arc<Incident>> {
        self.incidents.evaluate(at(second), &self.view)
    }

    fn edit(&mut self, cluster: &str, edit: impl FnOnce(&mut CheckView)) {
        let entry = Arc::make_mut(self.view.clusters.get_mut(cluster).unwrap());
        let checks = Arc::make_mut(&mut entry.checks);
        edit(Arc::make_mut(checks.get_mut(&("health".to_owned(), "dns".to_owned())).unwrap()));
    }

    fn set(&mut self, clusters: &[&str], status: CheckStatus) {
        for cluster in clusters {
            self.edit(cluster, |check| check.status = status);
        }
    }

    fn link(&mut self, cluster: &str, status: ClusterStatus) {
        Arc::make_mut(self.view.clusters.get_mut(cluster).unwrap()).view.status = status;
        let stale = status == ClusterStatus::Unreachable;
        self.set(&[cluster], if stale { CheckStatus::Stale } else { CheckStatus::Succeeded });
    }

    fn titles(&self) -> Vec<String> {
        self.incidents.open().iter().map(|incident| incident.title.clone()).collect()
    }
}

fn check(cluster: &str, name: &str, status: CheckStatus) -> CheckView {
    let state =
        CheckState { namespace: "health".into(), name: name.into(), ..crate::session::simulation::check(name, 1) };
    let (health, care) = Default::default();
    CheckView { cluster: cluster.into(), status, overdue_seconds: 0, health, care, state }
}

/// One that is open since a second, of health/dns in eu-0.
pub(crate) fn open_incident() -> Incident {
    let mut world = World::new(2, 2);
    world.set(&["eu-0"], CheckStatus::Failed);
    Incident::clone(&world.at(1)[0])
}

fn names(region: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{region}-{n}")).collect()
}

fn all(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[test]
fn a_check_that_fails_in_most_clusters_of_a_region_is_one_incident_that_says_so() {
    let mut world = World::new(40, 60);
    world.set(&all(&names("eu", 37)), CheckStatus::Failed);
    world.set(&["us-0", "us-1"], CheckStatus::Stale);
    let changed = world.at(1);
    let [incident] = changed.as_slice() else { panic!("{changed:?}") };
    assert_eq!(incident.title, "health/dns fails in 37 of 40 clusters with region=eu");
    let counts = IncidentCounts { failing: 37, healthy: 61, unknown: 2, failing_in_scope: 37, in_scope: 40 };
    assert_eq!(incident.counts, counts);
    assert!(incident.widespread && !incident.silenced);
    let region = LabelValue { label: "region".into(), value: "eu".into() };
    assert_eq!(incident.scope, Some(region.clone()));
    let first = &incident.differences[0];
    assert_eq!((&first.is, first.failing, first.of, first.failing_outside, first.of_outside), (&region, 37, 40, 0, 58));
    // The version is spread evenly, and a label that each cluster has for itself says nothing.
    assert_eq!(incident.differences.len(), 1);
    assert_eq!((incident.members.len(), incident.shown().members.len()), (37, 37));
}

#[test]
fn a_version_explains_what_no_label_does() {
    let mut world = World::new(10, 10);
    let even: Vec<String> =
        ["eu", "us"].iter().flat_map(|region| (0..5).map(move |n| format!("{region}-{}", 2 * n))).collect();
    world.set(&all(&even), CheckStatus::Failed);
    world.at(1);
    assert_eq!(world.titles(), ["health/dns fails in 10 of 10 clusters with kubernetesVersion=v1.33.1"]);
}

#[test]
fn its_id_stays_while_clusters_come_and_go_and_when_it_comes_back() {
    let mut world = World::new(10, 10);
    world.set(&["us-3"], CheckStatus::Failed);
    let first = world.at(1)[0].clone();
    assert_eq!((first.title.as_str(), first.widespread), ("health/dns fails in us-3", false));
    world.set(&all(&names("eu", 10)), CheckStatus::Failed);
    world.set(&["us-3"], CheckStatus::Succeeded);
    let grown = world.at(2)[0].clone();
    assert_eq!((&grown.id, grown.first_seen, grown.widespread), (&first.id, at(1), true));
    world.set(&all(&names("eu", 10)), CheckStatus::Succeeded);
    assert_eq!(world.at(3)[0].recovered_at, Some(at(3)));
    // Within the minute it is the same incident again, after it another with the same id.
    world.set(&["eu-1"], CheckStatus::Failed);
    assert_eq!((world.at(30)[0].recovered_at, world.incidents.open().len()), (None, 1));
    world.set(&["eu-1"], CheckStatus::Succeeded);
    world.at(40);
    assert!(world.at(99).is_empty());
    let closed = world.at(100)[0].clone();
    assert_eq!((closed.closed_at, closed.closed), (Some(at(100)), Some(Closed::Recovered)));
    assert!(world.incidents.open().is_empty() && world.at(101).is_empty());
    world.set(&["eu-1"], CheckStatus::Failed);
    let again = world.at(200)[0].clone();
    assert_eq!((&again.id, again.first_seen), (&first.id, at(200)));
}

#[test]
fn an_incident_is_closed_after_a_minute_whatever_the_clock_is_set_to() {
    for step in [3600, -3600] {
        let mut world = World::new(4, 4);
        world.set(&["eu-0"], CheckStatus::Failed);
        world.at(1);
        world.set(&["eu-0"], CheckStatus::Succeeded);
        world.at(2);
        world.incidents.stepped(SignedDuration::from_secs(step));
        world.at(61 + step);
        assert_eq!(world.titles().len(), 1, "{step}");
        assert_eq!(world.at(62 + step)[0].closed, Some(Closed::Recovered), "{step}");
    }
}

#[test]
fn missing_data_resolves_nothing_and_a_restart_keeps_what_is_open() {
    let mut world = World::new(4, 4);
    world.set(&["eu-0"], CheckStatus::Failed);
    world.at(1);
    for (second, status) in [(2, CheckStatus::Stale), (3, CheckStatus::Pending), (4, CheckStatus::Overdue)] {
        world.set(&["eu-0"], status);
        world.at(second);
        assert_eq!(world.titles(), ["health/dns fails in eu-0"], "{status:?}");
        assert_eq!(world.incidents.open()[0].recovered_at, None);
    }
    let kept: Vec<Incident> = world.incidents.open().iter().map(|incident| Incident::clone(incident)).collect();
    world.incidents = Incidents::restore(kept);
    world.set(&["eu-0"], CheckStatus::Stale);
    world.at(1000);
    world.at(2000);
    assert_eq!((world.titles().len(), world.incidents.open()[0].first_seen), (1, at(1)));
    world.set(&["eu-0"], CheckStatus::Succeeded);
    world.at(2001);
    assert_eq!(world.at(2061)[0].closed, Some(Closed::Recovered));
}

#[test]
fn a_check_that_is_stopped_or_gone_is_withdrawn() {
    let mut world = World::new(2, 0);
    world.set(&["eu-0", "eu-1"], CheckStatus::Failed);
    world.at(1);
    world.set(&["eu-0"], CheckStatus::Stopped);
    world.view.clusters.remove("eu-1");
    world.at(2);
    assert_eq!(world.at(62)[0].closed, Some(Closed::Withdrawn));
}

#[test]
fn what_went_while_the_hub_was_away_is_withdrawn_too() {
    let mut world = World::new(2, 0);
    world.set(&["eu-0"], CheckStatus::Failed);
    world.at(1);
    let kept: Vec<Incident> = world.incidents.open().iter().map(|incident| Incident::clone(incident)).collect();
    world.incidents = Incidents::restore(kept);
    world.view.clusters.remove("eu-0");
    world.at(100);
    assert_eq!(world.at(160)[0].closed, Some(Closed::Withdrawn));
}

#[test]
fn a_flapping_check_stays_one_incident_until_it_is_steady() {
    let mut world = World::new(2, 2);
    world.set(&["eu-0"], CheckStatus::Failed);
    world.edit("eu-0", |check| check.health.flapping = true);
    world.at(1);
    for second in [100, 200, 300] {
        world.set(&["eu-0"], CheckStatus::Succeeded);
        world.at(second);
        world.set(&["eu-0"], CheckStatus::Failed);
        world.at(second + 70);
        let open = world.incidents.open();
        assert!(open.len() == 1 && open[0].flapping && open[0].first_seen == at(1), "{open:?}");
    }
    world.edit("eu-0", |check| (check.status, check.health.flapping) = (CheckStatus::Succeeded, false));
    world.at(400);
    assert_eq!(world.at(460)[0].closed, Some(Closed::Recovered));
}

#[test]
fn what_is_maintained_or_acknowledged_everywhere_is_silenced() {
    let mut world = World::new(2, 2);
    world.set(&["eu-0", "eu-1"], CheckStatus::Failed);
    world.edit("eu-0", |check| check.care.maintenance = Some("patch-day".into()));
    world.at(1);
    assert!(!world.incidents.open()[0].silenced);
    world.edit("eu-1", |check| check.care.maintenance = Some("patch-day".into()));
    let silenced = world.at(2)[0].clone();
    assert!(silenced.silenced && silenced.members.iter().all(|m| m.silenced_by == Some(SilencedBy::Maintenance)));
}

#[test]
fn checks_of_one_definition_belong_together_whatever_their_names() {
    let mut world = World::new(3, 1);
    for cluster in names("eu", 3) {
        world.edit(&cluster, |check| {
            check.state.definition = Some(DefinitionRef { name: "dns".into(), generation: 2 });
            check.status = CheckStatus::Failed;
        });
    }
    let entry = Arc::make_mut(world.view.clusters.get_mut("eu-2").unwrap());
    let mut other = check("eu-2", "dns-eu-2", CheckStatus::Failed);
    other.state.definition = Some(DefinitionRef { name: "dns".into(), generation: 2 });
    entry.checks = Arc::new(Checks::from([(("health".to_owned(), "dns-eu-2".to_owned()), Arc::new(other))]));
    world.at(1);
    let open = world.incidents.open();
    assert_eq!((open.len(), open[0].counts.failing, open[0].definition.as_deref()), (1, 3, Some("dns")));
    assert_eq!((open[0].namespace.as_deref(), &open[0].name), (Some("health"), &None));
    assert_eq!(open[0].title, "definition/dns fails in 3 of 3 clusters");
}

#[test]
fn a_definition_that_gives_its_check_another_name_resolves_nothing() {
    let mut world = World::new(2, 0);
    let definition = Some(DefinitionRef { name: "dns".into(), generation: 2 });
    let named = |names: &[(&str, CheckStatus)]| {
        let checks = names.iter().map(|(name, status)| {
            let mut check = check("eu-0", name, *status);
            check.state.definition = definition.clone();
            (("health".to_owned(), (*name).to_owned()), Arc::new(check))
        });
        Arc::new(checks.collect::<Checks>())
    };
    use CheckStatus::{Failed, Succeeded};
    let steps: [&[(&str, CheckStatus)]; 5] = [
        &[("a", Failed)],
        &[("b", Failed)],
        &[("b", Failed), ("c", Succeeded)],
        &[("a", Failed), ("c", Succeeded)],
        &[("a", Failed)],
    ];
    for (second, step) in (1..).zip(steps) {
        Arc::make_mut(world.view.clusters.get_mut("eu-0").unwrap()).checks = named(step);
        world.at(second);
        let open = world.incidents.open();
        assert_eq!((open.len(), open[0].recovered_at, open[0].members.len()), (1, None, 1), "{step:?}");
    }
    Arc::make_mut(world.view.clusters.get_mut("eu-0").unwrap()).checks = named(&[("a", Succeeded)]);
    assert_eq!(world.at(10)[0].closed, Some(Closed::Recovered));
}

#[test]
fn an_unreachable_cluster_is_one_incident_and_not_one_for_each_check() {
    let mut world = World::new(4, 8);
    world.link("eu-0", ClusterStatus::Unreachable);
    world.at(1);
    assert_eq!(world.titles(), ["eu-0 is unreachable"]);
    // Reconnecting is not back.
    world.link("eu-0", ClusterStatus::Reconnecting);
    world.at(2);
    assert_eq!(world.incidents.open()[0].recovered_at, None);
    world.link("eu-0", ClusterStatus::Connected);
    world.at(3);
    assert_eq!(world.at(63)[0].closed, Some(Closed::Recovered));
}

#[test]
fn unreachable_clusters_with_a_label_in_common_become_one_and_stay_so() {
    let mut world = World::new(4, 8);
    world.link("us-7", ClusterStatus::Unreachable);
    world.link("eu-0", ClusterStatus::Unreachable);
    world.at(1);
    assert_eq!(world.incidents.open().len(), 2);
    for name in ["eu-1", "eu-2"] {
        world.link(name, ClusterStatus::Unreachable);
    }
    let changed = world.at(5);
    let merged: Vec<_> = changed.iter().filter(|incident| incident.closed == Some(Closed::Merged)).collect();
    assert_eq!(world.titles(), ["3 of 4 clusters with region=eu are unreachable", "us-7 is unreachable"]);
    let group = world.incidents.open()[0].clone();
    assert_eq!((merged.len(), merged[0].merged_into.as_ref()), (1, Some(&group.id)));
    assert_eq!((group.first_seen, group.counts.failing), (at(1), 3));
    // One more joins, others come back: it is the same incident until the last is back.
    world.link("eu-3", ClusterStatus::Unreachable);
    for name in ["eu-0", "eu-1", "eu-2"] {
        world.link(name, ClusterStatus::Connected);
    }
    world.at(10);
    let open = world.incidents.open();
    assert_eq!(
        open.iter().filter(|i| i.recovered_at.is_none()).map(|i| i.id.clone()).filter(|id| *id == group.id).count(),
        1
    );
    world.link("eu-3", ClusterStatus::Connected);
    world.at(11);
    assert!(world.at(71).iter().any(|i| i.id == group.id && i.closed == Some(Closed::Recovered)));
}

#[test]
fn a_fleet_that_is_gone_without_a_label_in_common_is_one_incident() {
    let mut world = World::new(4, 4);
    for name in ["eu-0", "eu-1", "eu-2", "us-0", "us-1", "us-2"] {
        world.link(name, ClusterStatus::Unreachable);
    }
    world.at(1);
    assert_eq!(world.titles(), ["6 of 8 clusters are unreachable"]);
}

#[test]
fn what_changed_before_is_said_as_far_as_it_concerns_a_member() {
    let mut world = World::new(2, 1);
    Arc::make_mut(world.view.clusters.get_mut("eu-0").unwrap()).view.agent_version = "0.2.0".into();
    Arc::make_mut(world.view.clusters.get_mut("us-0").unwrap()).view.agent_version = "0.2.0".into();
    world.at(100);
    world.set(&["eu-0"], CheckStatus::Failed);
    let subject = world.at(200)[0].subject.clone();
    let told = |second, kind, object: &str| {
        let (who, what, object) = ("alice".into(), "done".into(), object.into());
        Prior { at: at(second), kind, who, what, object }
    };
    use crate::view::PriorKind::{AgentVersion, Command, Window};
    let told = [
        told(150, Command, "eu-0: run now"),
        told(160, Command, "us-0: run now"),
        told(170, Window, "patch"),
        told(201, Window, "late"),
    ];
    let explained = world.incidents.explain(&subject, &told).unwrap();
    let changes: Vec<_> = explained.changes.iter().map(|change| (change.kind, change.object.as_str())).collect();
    assert_eq!(changes, [(Window, "patch"), (Command, "eu-0: run now"), (AgentVersion, "eu-0")]);
    assert_eq!(explained.changes[2].what, "0.1.0 -> 0.2.0");
}

/// Gives a cluster so many checks of names that no other has, and no others.
fn fill(world: &mut World, cluster: &str, count: usize, status: CheckStatus) {
    let checks = (0..count).map(|n| {
        let name = format!("{cluster}-{n:04}");
        (("health".to_owned(), name.clone()), Arc::new(check(cluster, &name, status)))
    });
    Arc::make_mut(world.view.clusters.get_mut(cluster).unwrap()).checks = Arc::new(checks.collect());
}

#[test]
fn one_cluster_does_not_take_every_place_and_what_waits_gets_one_that_is_free() {
    let mut world = World::new(1, 2);
    fill(&mut world, "eu-0", MAX_OPEN + 3, CheckStatus::Failed);
    world.at(1);
    world.link("us-0", ClusterStatus::Unreachable);
    world.set(&["us-1"], CheckStatus::Failed);
    world.at(2);
    let refused = MAX_OPEN + 3 - MAX_OF_ONE_CLUSTER;
    let numbers = |world: &World| (world.incidents.open().len(), world.incidents.refused_total());
    assert_eq!(numbers(&world), (MAX_OF_ONE_CLUSTER + 2, refused as u64));
    let titles = world.titles();
    assert!(titles.iter().any(|title| title == "us-0 is unreachable"), "{titles:?}");
    assert!(titles.iter().any(|title| title == "health/dns fails in us-1"), "{titles:?}");

    let well = |world: &mut World, of: std::ops::Range<usize>| {
        let checks = Arc::make_mut(&mut Arc::make_mut(world.view.clusters.get_mut("eu-0").unwrap()).checks);
        for check in checks.values_mut().skip(of.start).take(of.len()) {
            Arc::make_mut(check).status = CheckStatus::Succeeded;
        }
    };
    well(&mut world, 0..10);
    world.at(3);
    assert!(!world.titles().contains(&"health/eu-0-0100 fails in eu-0".to_owned()), "they stay for a minute");
    let opened = world.at(63).into_iter().filter(|incident| incident.first_seen == at(63)).count();
    assert_eq!(opened, 10);
    assert!(world.titles().contains(&"health/eu-0-0100 fails in eu-0".to_owned()));
    assert_eq!(numbers(&world), (MAX_OF_ONE_CLUSTER + 2, refused as u64), "nothing is refused twice");
    // What is well again, or gone, waits no longer.
    well(&mut world, 500..MAX_OPEN + 3);
    world.at(64);
    assert_eq!(world.incidents.refused.len(), 500 - 10 - MAX_OF_ONE_CLUSTER);
    fill(&mut world, "eu-0", 0, CheckStatus::Failed);
    world.at(65);
    assert!(world.incidents.refused.is_empty());
}

#[test]
fn checks_leave_places_for_clusters_that_cannot_be_reached() {
    let mut world = World::new(20, 0);
    for cluster in names("eu", 15) {
        fill(&mut world, &cluster, 70, CheckStatus::Failed);
    }
    world.at(1);
    world.link("eu-19", ClusterStatus::Unreachable);
    world.at(2);
    assert_eq!(world.incidents.open().len(), MAX_OPEN - KEPT_FOR_REACH + 1);
    assert!(world.titles().contains(&"eu-19 is unreachable".to_owned()));
    assert_eq!(world.incidents.refused_total(), 15 * 70 - 900);
    // A restart of the hub knows whose they are.
    let kept: Vec<Incident> = world.incidents.open().iter().map(|incident| Incident::clone(incident)).collect();
    world.incidents = Incidents::restore(kept);
    fill(&mut world, "eu-0", MAX_OPEN, CheckStatus::Failed);
    for cluster in &names("eu", 15)[1..] {
        fill(&mut world, cluster, 0, CheckStatus::Failed);
    }
    world.at(3);
    world.at(63);
    let open = world.incidents.open();
    assert_eq!(open.iter().filter(|incident| incident.kind == IncidentKind::Check).count(), MAX_OF_ONE_CLUSTER);
}

#[test]
fn what_a_parent_explains_opens_no_incident_of_its_own_and_silences_one_that_is_open() {
    let mut world = World::new(2, 2);
    world.edit("eu-0", |check| {
        check.status = CheckStatus::Failed;
        check.care.explained_by = Some("health/net".into());
    });
    assert!(world.at(1).is_empty());
    // The parent is well and it still fails: now it is its own fault.
    world.edit("eu-0", |check| check.care.explained_by = None);
    assert_eq!(world.at(2)[0].title, "health/dns fails in eu-0");
    world.edit("eu-0", |check| check.care.explained_by = Some("health/net".into()));
    let silenced = world.at(3)[0].clone();
    assert_eq!((silenced.silenced, silenced.members[0].silenced_by), (true, Some(SilencedBy::Dependency)));
    assert_eq!(silenced.recovered_at, None);
}
