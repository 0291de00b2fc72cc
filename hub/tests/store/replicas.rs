//! What replicas tell each other through PostgreSQL.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::uptime::Life;
use active_monitor_core::view::CheckStatus;
use active_monitor_hub::store::postgres::replicas::{
    Command, Followed, FollowedCluster, Lease, Publication, Replicas, Shown, Topic,
};
use active_monitor_hub::store::postgres::{PostgresStore, Share};
use active_monitor_hub::store::{ClusterRecord, EnrolmentToken, Expired, Store, StoreError};
use futures::StreamExt;
use serde_json::json;

use crate::backends::Backend;
use crate::postgres::Database;
use crate::samples::{at, cluster, key, saved};

const LONG: Duration = Duration::from_secs(3600);

/// A data base with two replicas on it.
struct Shared {
    database: Database,
    store: Arc<PostgresStore>,
    one: Arc<Replicas>,
    two: Replicas,
}

impl Shared {
    async fn open(test: &str) -> Option<Shared> {
        let database = Database::create(test).await?;
        let (store, _) = PostgresStore::open(database.options(), Share::Replicas).await.unwrap();
        let (one, two) = (Arc::new(Replicas::new(&store)), Replicas::new(&store));
        Some(Shared { database, store: Arc::new(store), one, two })
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
    assert_eq!(shared.store.lives().await.unwrap(), [life(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_one_holder_and_a_larger_fence_for_each_new_one() {
    let Some(shared) = Shared::open("a_lease_has_one_holder_and_a_larger_fence_for_each_new_one").await else { return };
    let take = async |replica: &Replicas| replica.take_lease("singletons", LONG).await.unwrap();
    let lease = |replica: &Replicas, fence| Lease { name: "singletons", holder: replica.id().to_owned(), fence };
    let (one, two) = (shared.one.as_ref(), &shared.two);
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
    shared.one.forget_changes().await.unwrap();
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
    assert_eq!(told(&follow(opened.revision).await), (shared.two.id().to_owned(), true, true, 2));
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
