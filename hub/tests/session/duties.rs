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
