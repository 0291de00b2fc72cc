//! What only one of the replicas does, on a real PostgreSQL server.

use active_monitor_hub::store::postgres::{PostgresStore, Share};
use sqlx::Connection;

use super::killed::Replica;
use super::*;
use crate::postgres::Database;

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_prolonged_while_its_duties_start() {
    let Some(database) = Database::create("the_lease_is_prolonged_while_its_duties_start").await else { return };
    let (_store, _claim) = PostgresStore::open(database.options(), Share::Replicas).await.unwrap();
    // Duties begin with a look at the open incidents.
    let mut blocker = database.connect().await;
    let mut blocked = blocker.begin().await.unwrap();
    sqlx::query("LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE").execute(&mut *blocked).await.unwrap();
    let mut replica = Replica::new(database.url());
    replica.spawn();
    let mut connection = database.connect().await;
    let mut first = None;
    within("lease that is prolonged for longer than it is good for", async {
        loop {
            let until = "SELECT until FROM replica_leases WHERE name = 'singletons' AND fence = 1";
            let until: Option<i64> = sqlx::query_scalar(until).fetch_optional(&mut connection).await.unwrap();
            if let Some(until) = until
                && until - *first.get_or_insert(until) > 7_000_000
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    blocked.rollback().await.unwrap();
}

/// The first replica that wants the lease is answered after 3 s each time.
const SLOW: &str = "\
    CREATE TABLE slow (holder TEXT);
    CREATE FUNCTION slow() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
      IF NOT EXISTS (SELECT FROM slow) THEN INSERT INTO slow VALUES (NEW.holder); END IF;
      IF NEW.until > 0 AND EXISTS (SELECT FROM slow WHERE holder = NEW.holder) THEN PERFORM pg_sleep(3); END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON replica_leases FOR EACH ROW
      WHEN (NEW.name = 'singletons') EXECUTE FUNCTION slow()";

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_answered_too_slowly_to_hold_the_lease_leaves_it_to_another() {
    let test = "a_replica_that_is_answered_too_slowly_to_hold_the_lease_leaves_it_to_another";
    let Some(database) = Database::create(test).await else { return };
    let (_store, _claim) = PostgresStore::open(database.options(), Share::Replicas).await.unwrap();
    let mut connection = database.connect().await;
    sqlx::raw_sql(SLOW).execute(&mut connection).await.unwrap();
    let mut until = async |what, holds: &'static str| {
        within(what, async {
            while !sqlx::query_scalar::<_, bool>(holds).fetch_one(&mut connection).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    let (mut slow, mut other) = (Replica::new(database.url()), Replica::new(database.url()));
    slow.spawn();
    until("a slow holder", "SELECT EXISTS (SELECT FROM replica_leases WHERE name = 'singletons')").await;
    other.spawn();
    let moved = "SELECT EXISTS (SELECT FROM replica_leases WHERE name = 'singletons' AND fence > 1 \
                 AND holder <> (SELECT holder FROM slow))";
    until("another holder", moved).await;
    until("what it records", "SELECT EXISTS (SELECT FROM hub_lives)").await;
}
