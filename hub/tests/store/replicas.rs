//! What replicas tell each other through PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::uptime::Life;
use active_monitor_core::view::CheckStatus;
use active_monitor_hub::store::postgres::replicas::{
    Command, Followed, FollowedCluster, Lease, Publication, Replicas, Shown, Topic,
};
use active_monitor_hub::store::postgres::{PostgresStore, Share};
use active_monitor_hub::store::{CheckKey, ClusterRecord, EnrolmentToken, Expired, Store, StoreError};
use futures::StreamExt;
use serde_json::json;
use sqlx::Connection;

use crate::backends::Backend;
use crate::postgres::Database;
use crate::samples::{at, cluster, key, saved, status};

const LONG: Duration = Duration::from_secs(3600);

/// What must not wait for anything.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}

/// A data base with two replicas on it.
struct Shared {
    database: Database,
    store: Arc<PostgresStore>,
    one: Arc<Replicas>,
    two: Arc<Replicas>,
}

impl Shared {
    async fn open(test: &str) -> Option<Shared> {
        let database = Database::create(test).await?;
        let (store, _) = PostgresStore::open(database.options(), Share::Replicas).await.unwrap();
        let (one, two) = (Arc::new(Replicas::new(&store)), Arc::new(Replicas::new(&store)));
        Some(Shared { database, store: Arc::new(store), one, two })
    }

    /// Waits until so many statements wait for a lock.
    async fn until_waiting(&self, count: i64) {
        let mut connection = self.database.connect().await;
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
        soon(async {
            while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut connection).await.unwrap() != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut self.database.connect().await).await.unwrap();
    }

    /// Adds a cluster that has enrolled.
    async fn enrol(&self, name: &str) {
        self.store.put_cluster(&ClusterRecord { cluster_uid: Some("uid".into()), ..cluster(name) }).await.unwrap();
    }
}

fn publication(epoch: u64, checks: &[&str], removed: &[&str]) -> Publication {
    Publication {
        cluster: "a".into(),
        epoch,
        link: Some(r#"{"status":"Connected"}"#.into()),
        checks: checks.iter().map(|uid| shown(uid)).collect(),
        removed: removed.iter().map(|uid| (*uid).to_owned()).collect(),
        is_whole: false,
    }
}

fn shown(uid: &str) -> Shown {
    let (state, health) = saved(uid);
    Shown { state, health, status: CheckStatus::Succeeded }
}

#[tokio::test]
async fn a_file_is_not_shared() {
    let sqlite = Backend::sqlite();
    assert!(matches!(sqlite.location().share().await.err(), Some(StoreError::NotShared)));
    assert!(sqlite.location().open().await.unwrap().replicas.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_a_data_base_with_each_other_and_with_nobody_else() {
    let Some(backend) = Backend::postgres("replicas_share_a_data_base_with_each_other").await else { return };
    let location = backend.location();
    let (one, two) = (location.share().await.unwrap(), location.share().await.unwrap());
    assert!(matches!(location.open().await.err(), Some(StoreError::InUse)));
    drop((one, two));
    let alone = backend.open().await;
    assert!(matches!(location.share().await.err(), Some(StoreError::InUse)));
    alone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_does_is_refused_once_another_has_taken_over() {
    let Some(shared) = Shared::open("what_one_replica_does_is_refused_once_another_has_taken_over").await else {
        return;
    };
    let lease = shared.one.take_lease("singletons", LONG).await.unwrap().unwrap();
    let fenced = shared.one.fenced(&lease);
    let life = |to| Life { from: at(0), to: at(to) };
    fenced.record_transitions(life(1), vec![]).await.unwrap();
    shared.run("UPDATE replica_leases SET until = 0").await;
    // Nobody has it yet.
    fenced.record_transitions(life(2), vec![]).await.unwrap();
    shared.two.take_lease("singletons", LONG).await.unwrap().unwrap();
    let refused = |error| matches!(error, Some(StoreError::Fenced("singletons")));
    assert!(refused(fenced.record_transitions(life(3), vec![]).await.err()));
    assert!(refused(fenced.note_versions(at(3), vec![]).await.err()));
    assert!(refused(fenced.prune(Expired::Runs, at(3), 1).await.err()));
    assert!(refused(fenced.put_incidents(&[]).await.err()));
    let check = CheckKey { cluster: "a".into(), namespace: "health".into(), name: "dns".into() };
    assert!(refused(fenced.put_acknowledgement(&check, None).await.err()));
    assert_eq!(shared.store.lives().await.unwrap(), [life(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_one_holder_and_a_larger_fence_for_each_new_one() {
    let Some(shared) = Shared::open("a_lease_has_one_holder_and_a_larger_fence_for_each_new_one").await else { return };
    let take = async |replica: &Replicas| replica.take_lease("singletons", LONG).await.unwrap();
    let lease = |replica: &Replicas, fence| Lease { name: "singletons", holder: replica.id().to_owned(), fence };
    let (one, two) = (shared.one.as_ref(), shared.two.as_ref());
    assert_eq!(take(one).await, Some(lease(one, 1)));
    assert_eq!(take(two).await, None);
    // Prolonged.
    assert_eq!(take(one).await, Some(lease(one, 1)));
    shared.run("UPDATE replica_leases SET until = replica_now() - 1").await;
    assert_eq!(take(two).await, Some(lease(two, 2)));
    assert_eq!(take(one).await, None);
    // An old one cannot be ended; what is ended is free at once.
    one.end_lease(&lease(one, 1)).await.unwrap();
    assert_eq!(take(one).await, None);
    two.end_lease(&lease(two, 2)).await.unwrap();
    assert_eq!(take(one).await, Some(lease(one, 3)));
    // Another name is another lease.
    assert_eq!(two.take_lease("authority", LONG).await.unwrap().unwrap().fence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_prolonged_while_a_write_under_it_goes_on_and_taken_over_only_after_it() {
    let Some(shared) = Shared::open("a_lease_is_prolonged_while_a_write_under_it_goes_on").await else { return };
    let Shared { one, two, store, .. } = &shared;
    let take = async |replica: &Replicas| soon(replica.take_lease("singletons", LONG)).await.unwrap();
    let lease = take(one).await.unwrap();
    for is_prolonged in [true, false] {
        // A write that does not get on.
        let mut blocker = shared.database.connect().await;
        let mut blocked = blocker.begin().await.unwrap();
        sqlx::query("LOCK TABLE hub_lives IN EXCLUSIVE MODE").execute(&mut *blocked).await.unwrap();
        let (fenced, life) = (one.fenced(&lease), Life { from: at(i64::from(is_prolonged)), to: at(2) });
        let write = tokio::spawn(async move { fenced.record_transitions(life, vec![]).await });
        shared.until_waiting(1).await;
        assert_eq!(take(two).await, None);
        assert_eq!(take(one).await, Some(lease.clone()));

        shared.run("UPDATE replica_leases SET until = replica_now() - 1").await;
        let waits = tokio::spawn({
            let two = Arc::clone(two);
            async move { two.take_lease("singletons", LONG).await.unwrap() }
        });
        shared.until_waiting(2).await;
        if is_prolonged {
            assert_eq!(take(one).await, Some(lease.clone()));
        }
        assert!(!waits.is_finished() && !write.is_finished());
        blocked.rollback().await.unwrap();
        let next = soon(waits).await.unwrap();
        // What was written under the lease is there before the next one has it.
        assert!(store.lives().await.unwrap().contains(&life));
        soon(write).await.unwrap().unwrap();
        assert_eq!(next.map(|next| next.fence), (!is_prolonged).then_some(2));
    }
    let late = one.fenced(&lease).record_transitions(Life { from: at(3), to: at(4) }, vec![]).await;
    assert!(matches!(late, Err(StoreError::Fenced("singletons"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_for_another_s_change_is_told_whose_it_waits_for() {
    let Some(shared) = Shared::open("who_waits_too_long_for_another_s_change_is_told").await else { return };
    let held = soon(shared.one.hold_ownership()).await.unwrap();
    let refused = soon(shared.two.hold_ownership()).await.err();
    assert!(matches!(refused, Some(StoreError::Busy { .. })), "{refused:?}");
    // The other one is not waited for.
    soon(shared.two.alone()).await.unwrap().end().await;
    held.end().await;
    soon(shared.two.hold_ownership()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_alone_forgets_what_nobody_follows() {
    let Some(backend) = Backend::postgres("a_hub_that_is_alone_forgets_what_nobody_follows").await else { return };
    let Backend::Postgres(database) = &backend else { return };
    let mut connection = database.connect().await;
    let alone = backend.open().await;
    for name in ["a", "b", "c"] {
        alone.store.put_cluster(&cluster(name)).await.unwrap();
    }
    alone.close().await;
    sqlx::query("UPDATE replica_changes SET at = 0").execute(&mut connection).await.unwrap();
    let alone = backend.open().await;
    soon(async {
        let count = "SELECT count(*) FROM replica_changes";
        while sqlx::query_scalar::<_, i64>(count).fetch_one(&mut connection).await.unwrap() != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    alone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_lease_at_once_one_gets_it() {
    let Some(shared) = Shared::open("of_many_who_want_a_lease_at_once_one_gets_it").await else { return };
    let all = (0..16).map(|_| {
        let replica = Replicas::new(&shared.store);
        async move { replica.take_lease("singletons", LONG).await.unwrap() }
    });
    assert_eq!(futures::future::join_all(all).await.into_iter().flatten().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_the_beat_of_its_replica() {
    let Some(shared) = Shared::open("a_publication_is_the_beat_of_its_replica").await else { return };
    shared.one.publish(&[]).await.unwrap();
    shared.run("UPDATE replicas SET alive_at = alive_at - 60000000").await;
    shared.two.publish(&[]).await.unwrap();
    let silent = async || {
        let replicas = shared.one.follow(1).await.unwrap().replicas;
        let minute = Duration::from_secs(60);
        replicas.into_iter().map(|(id, silent)| (id, silent >= minute)).collect::<BTreeSet<_>>()
    };
    let (one, two) = (shared.one.id().to_owned(), shared.two.id().to_owned());
    assert_eq!(silent().await, [(one.clone(), true), (two.clone(), false)].into());
    shared.one.publish(&[]).await.unwrap();
    assert_eq!(silent().await, [(one.clone(), false), (two.clone(), false)].into());
    shared.run("UPDATE replicas SET alive_at = 0").await;
    assert!(silent().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_opened_for_the_cluster_that_enrolled_and_for_no_other() {
    let Some(shared) = Shared::open("a_session_is_opened_for_the_cluster_that_enrolled").await else { return };
    let open = async |uid| shared.one.open_session("a", uid).await.unwrap();
    assert_eq!(open("uid").await, None);
    shared.store.put_cluster(&cluster("a")).await.unwrap();
    assert_eq!(open("uid").await, None);
    let token = EnrolmentToken { hash: [1; 32], expires_at: at(9), spent_by: None };
    shared.store.put_enrolment_token("a", &token).await.unwrap();
    shared.store.spend_enrolment_token("a", [1; 32], &key(1), "uid").await.unwrap();
    let first = open("uid").await.unwrap();
    assert_eq!(open("other").await, None);
    assert!(open("uid").await.unwrap() > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_taken_over_publishes_nothing() {
    let Some(shared) = Shared::open("a_session_that_was_taken_over_publishes_nothing").await else { return };
    shared.enrol("a").await;
    let first = shared.one.open_session("a", "uid").await.unwrap().unwrap();
    assert!(shared.one.publish(&[publication(first, &["dns", "web"], &[])]).await.unwrap().is_empty());
    let second = shared.two.open_session("a", "uid").await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(shared.one.publish(&[publication(first, &["late"], &["dns"])]).await.unwrap(), ["a"]);
    // Neither does the same replica under an old epoch, nor another under the new one.
    assert_eq!(shared.two.publish(&[publication(first, &["late"], &[])]).await.unwrap(), ["a"]);
    assert_eq!(shared.one.publish(&[publication(second, &["late"], &[])]).await.unwrap(), ["a"]);
    assert_eq!(shared.store.check_states("a").await.unwrap(), [saved("dns"), saved("web")]);
    // Nor does it say what became of definitions.
    let say = async |replica: &Replicas, epoch, names: &[&str]| {
        let statuses: Vec<_> = names.iter().map(|name| status(name)).collect();
        replica.put_definition_statuses("a", epoch, &statuses).await.unwrap()
    };
    assert!(say(&shared.two, second, &["dns"]).await);
    for (replica, epoch) in [(&shared.one, first), (&shared.two, first), (&shared.one, second)] {
        assert!(!say(replica, epoch, &["dns", "late"]).await);
    }
    let said = async || shared.one.definition_statuses(&["a".to_owned()].into()).await.unwrap();
    assert_eq!(said().await, [("a".to_owned(), status("dns"))]);
    let revision = async || shared.one.follow(1).await.unwrap().revision;
    let before = revision().await;
    assert!(say(&shared.two, second, &["dns"]).await);
    assert_eq!(revision().await, before, "what is there already wakes nobody");
    assert!(say(&shared.two, second, &[]).await);
    assert!(said().await.is_empty());

    let whole = Publication { is_whole: true, link: None, ..publication(second, &["web"], &[]) };
    assert!(shared.two.publish(&[whole]).await.unwrap().is_empty());
    assert_eq!(shared.store.check_states("a").await.unwrap(), [saved("web")]);
    // Nothing of a removed cluster comes back, and its next namesake's sessions are newer.
    shared.store.remove_cluster("a").await.unwrap();
    assert_eq!(shared.two.publish(&[publication(second, &["ghost"], &[])]).await.unwrap(), ["a"]);
    shared.enrol("a").await;
    assert!(shared.one.open_session("a", "uid").await.unwrap().unwrap() > second);
    assert!(shared.store.check_states("a").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_follows_what_the_others_show() {
    let Some(shared) = Shared::open("a_replica_follows_what_the_others_show").await else { return };
    shared.enrol("a").await;
    let epoch = shared.one.open_session("a", "uid").await.unwrap().unwrap();
    shared.one.publish(&[publication(epoch, &["dns", "web"], &[])]).await.unwrap();
    let cluster = |checks: &[&str], removed: &[&str], is_whole| FollowedCluster {
        cluster: "a".into(),
        replica: shared.one.id().to_owned(),
        epoch,
        link: Some(r#"{"status":"Connected"}"#.into()),
        checks: checks.iter().map(|uid| shown(uid)).collect(),
        removed: removed.iter().map(|uid| (*uid).to_owned()).collect(),
        is_whole,
    };
    let follow = async |after| shared.two.follow(after).await.unwrap();
    let first = follow(0).await;
    assert_eq!((first.clusters, first.is_gap), (vec![cluster(&["dns", "web"], &[], true)], false));
    // What is as before is not written again.
    shared.one.publish(&[publication(epoch, &["dns", "web"], &[])]).await.unwrap();
    let Followed { clusters, topics, .. } = follow(first.revision).await;
    assert!(clusters.is_empty() && topics.is_empty(), "{clusters:?} {topics:?}");

    shared.one.publish(&[publication(epoch, &["dns", "new"], &["web"])]).await.unwrap();
    let second = follow(first.revision).await;
    assert_eq!(second.clusters, [cluster(&["new"], &["web"], false)]);
    // Who comes late begins anew.
    shared.run("UPDATE replica_changes SET at = 0").await;
    shared.store.forget_changes().await.unwrap();
    assert!(follow(second.revision).await.clusters.is_empty());
    let late = follow(1).await;
    assert_eq!((late.is_gap, late.clusters), (true, vec![cluster(&["dns", "new"], &[], true)]));
    // With the first word after a takeover the cluster is read as a whole, though no check differs.
    let epoch = shared.two.open_session("a", "uid").await.unwrap().unwrap();
    let opened = follow(late.revision).await;
    let told = |followed: &Followed| {
        let FollowedCluster { replica, link, is_whole, checks, .. } = followed.clusters[0].clone();
        (replica, link.is_some(), is_whole, checks.len())
    };
    assert_eq!(told(&opened), (shared.two.id().to_owned(), false, false, 0));
    let whole = Publication { is_whole: true, ..publication(epoch, &["dns", "new"], &[]) };
    shared.two.publish(&[whole]).await.unwrap();
    let others = shared.one.follow(opened.revision).await.unwrap();
    assert_eq!(told(&others), (shared.two.id().to_owned(), true, true, 2));
    assert_eq!(follow(opened.revision).await.clusters, [], "who published it knows it");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clusters_are_published_at_once_and_each_by_itself() {
    let Some(shared) = Shared::open("many_clusters_are_published_at_once_and_each_by_itself").await else { return };
    let names = ["lost", "some", "whole", "link", "same"];
    let mut epochs = BTreeMap::new();
    for name in names {
        shared.enrol(name).await;
        epochs.insert(name, shared.one.open_session(name, "uid").await.unwrap().unwrap());
    }
    let of = |name: &str, checks: &[&str], removed: &[&str]| Publication {
        cluster: name.into(),
        ..publication(epochs[name], checks, removed)
    };
    let first: Vec<_> = names.iter().map(|name| of(name, &["dns", "web"], &[])).collect();
    assert!(shared.one.publish(&first).await.unwrap().is_empty());
    let start = shared.two.follow(0).await.unwrap();
    assert_eq!(start.clusters.len(), names.len());

    shared.two.open_session("lost", "uid").await.unwrap().unwrap();
    let opened = shared.two.follow(start.revision).await.unwrap().revision;
    // More checks than one INSERT takes.
    let many: Vec<String> = (0..2500).map(|number| format!("check-{number:04}")).collect();
    let uids: Vec<&str> = many.iter().map(String::as_str).collect();
    let link = || Some(r#"{"status":"Reconnecting"}"#.to_owned());
    let second = [
        of("lost", &["late"], &["dns"]),
        of("some", &["new"], &["web", "never"]),
        Publication { is_whole: true, ..of("whole", &uids, &[]) },
        Publication { link: link(), ..of("link", &[], &[]) },
        of("same", &["dns", "web"], &[]),
    ];
    assert_eq!(shared.one.publish(&second).await.unwrap(), ["lost"]);
    let stored = async |name: &str| {
        let states = shared.store.check_states(name).await.unwrap();
        states.into_iter().map(|(state, _)| state.uid).collect::<Vec<_>>()
    };
    assert_eq!((stored("lost").await, stored("same").await), (stored("link").await, stored("link").await));
    assert_eq!(
        (stored("link").await, stored("some").await),
        (vec!["dns".into(), "web".into()], vec!["dns".into(), "new".into()])
    );
    assert_eq!(stored("whole").await, many);
    let followed = shared.two.follow(opened).await.unwrap().clusters;
    let told = |there: &FollowedCluster| {
        let is_link_new = there.link == link();
        (there.cluster.clone(), is_link_new, there.checks.len(), there.removed.clone(), there.is_whole)
    };
    let expected = [
        ("link".to_owned(), true, 0, vec![], false),
        ("some".to_owned(), false, 1, vec!["web".to_owned()], false),
        ("whole".to_owned(), false, many.len(), vec![], true),
    ];
    assert_eq!(followed.iter().map(told).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_write_is_told_and_wakes_who_listens() {
    let Some(shared) = Shared::open("what_people_write_is_told_and_wakes_who_listens").await else { return };
    let mut wakes = shared.two.wakes().await.unwrap();
    let start = shared.two.follow(0).await.unwrap().revision;
    shared.store.put_cluster(&cluster("a")).await.unwrap();
    shared.store.put_definition("dns", &json!({})).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), wakes.next()).await.unwrap().unwrap();
    let followed = shared.two.follow(start).await.unwrap();
    let topics = [(Topic::Clusters, "a".to_owned()), (Topic::Definitions, String::new())];
    assert_eq!(followed.topics, topics.into());
    assert!(shared.two.follow(followed.revision).await.unwrap().topics.is_empty());
}

/// The numbers are given out before the commit: without an order a reader would go past one that is not there yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_misses_nothing_of_many_writers() {
    let Some(shared) = Shared::open("a_reader_misses_nothing_of_many_writers").await else { return };
    let names: BTreeSet<String> = (0..60).map(|number| format!("c{number}")).collect();
    let writers = names.iter().cloned().map(|name| {
        let store = Arc::clone(&shared.store);
        tokio::spawn(async move { store.put_cluster(&cluster(&name)).await.unwrap() })
    });
    let writers: Vec<_> = writers.collect();
    let (mut told, mut after) = (BTreeSet::new(), 1);
    let read = async {
        while told.len() < names.len() {
            let followed = shared.two.follow(after).await.unwrap();
            told.extend(followed.topics.into_iter().map(|(_, cluster)| cluster));
            after = followed.revision;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.expect("every writer is told of");
    futures::future::join_all(writers).await;
    assert_eq!(told, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_taken_once_where_the_session_is_and_its_answer_comes_back() {
    let Some(shared) = Shared::open("a_command_is_taken_once_where_the_session_is").await else { return };
    let Shared { one, two, .. } = &shared;
    shared.enrol("a").await;
    one.open_session("a", "uid").await.unwrap();
    let command = Command { cluster: "a".into(), id: "1".into(), text: r#""run""#.into() };
    let elsewhere = Command { cluster: "b".into(), ..command.clone() };
    for command in [&command, &elsewhere] {
        two.put_command(command, LONG).await.unwrap();
    }
    assert!(two.take_commands().await.unwrap().is_empty());
    assert_eq!(one.take_commands().await.unwrap(), std::slice::from_ref(&command));
    assert!(one.take_commands().await.unwrap().is_empty());
    // The same command again is the same command.
    two.put_command(&command, LONG).await.unwrap();
    assert!(one.take_commands().await.unwrap().is_empty());
    let asked = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "1".to_owned())];
    assert!(two.answers(&asked).await.unwrap().is_empty());
    one.answer_command("a", "1", "true").await.unwrap();
    assert_eq!(two.answers(&asked).await.unwrap(), [("a".to_owned(), "1".to_owned(), "true".to_owned())]);

    let late = Command { id: "2".into(), ..command };
    two.put_command(&late, Duration::ZERO).await.unwrap();
    assert!(one.take_commands().await.unwrap().is_empty());
}
