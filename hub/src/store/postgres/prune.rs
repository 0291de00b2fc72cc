//! What is deleted for its age, a batch at a time, and how much there is.

use jiff::Timestamp;
use sqlx::postgres::PgPool;

use super::replicas::{Lease, fence};
use crate::store::rows::micros;
use crate::store::{Expired, Sizes, StoreError};

/// Deletes the oldest rows; the indexes by time lead to them.
fn statement(what: Expired) -> &'static str {
    match what {
        Expired::Runs => {
            "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE recorded_at < $1 ORDER BY recorded_at LIMIT $2)"
        }
        Expired::LogTails => {
            "UPDATE runs SET log_tail = '' WHERE id IN \
             (SELECT id FROM runs WHERE log_tail <> '' AND recorded_at < $1 ORDER BY recorded_at LIMIT $2)"
        }
        // Those that say nothing of the time that is kept: a later one does, or the check is gone.
        Expired::Transitions => {
            "DELETE FROM transitions WHERE id IN \
             (SELECT id FROM transitions AS old WHERE at < $1 AND (status = '' OR EXISTS (SELECT 1 FROM transitions \
             AS new WHERE new.cluster = old.cluster AND new.namespace = old.namespace AND new.name = old.name \
             AND new.at > old.at AND new.at < $1)) ORDER BY at LIMIT $2)"
        }
        Expired::Incidents => {
            "DELETE FROM incidents WHERE number IN \
             (SELECT number FROM incidents WHERE closed_at < $1 ORDER BY closed_at LIMIT $2)"
        }
        Expired::LateResults => {
            "DELETE FROM late_results WHERE (cluster, namespace, name, since) IN \
             (SELECT cluster, namespace, name, since FROM late_results WHERE until < $1 ORDER BY until LIMIT $2)"
        }
        Expired::CheckDays => {
            "DELETE FROM check_days WHERE (day, cluster, namespace, name) IN \
             (SELECT day, cluster, namespace, name FROM check_days WHERE day < $1 ORDER BY day LIMIT $2)"
        }
        Expired::ClusterDays => {
            "DELETE FROM cluster_days WHERE (day, cluster) IN \
             (SELECT day, cluster FROM cluster_days WHERE day < $1 ORDER BY day LIMIT $2)"
        }
        Expired::Audit => "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)",
    }
}

pub(super) async fn prune(
    pool: &PgPool,
    lease: Option<&Lease>,
    what: Expired,
    before: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    let mut transaction = pool.begin().await?;
    fence(&mut transaction, lease).await?;
    if what == Expired::Transitions {
        sqlx::query("DELETE FROM hub_lives WHERE alive_at < $1")
            .bind(micros(before))
            .execute(&mut *transaction)
            .await?;
    }
    if what == Expired::Audit {
        // The newest row of a cluster says what it has now.
        let old = "DELETE FROM agent_versions AS old WHERE at < $1 AND EXISTS (SELECT 1 FROM agent_versions AS new \
                   WHERE new.cluster = old.cluster AND new.id > old.id)";
        sqlx::query(old).bind(micros(before)).execute(&mut *transaction).await?;
    }
    let delete = sqlx::query(statement(what)).bind(what.key(before)).bind(i64::from(limit));
    let rows = delete.execute(&mut *transaction).await?.rows_affected();
    transaction.commit().await?;
    Ok(rows)
}

/// The server does not tell what of its files is free: all of them counts as used.
pub(super) async fn sizes(pool: &PgPool) -> Result<Sizes, StoreError> {
    let bytes = number(
        pool,
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class \
         WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace",
    );
    let bytes = bytes.await?;
    Ok(Sizes {
        rows: vec![
            ("runs", number(pool, "SELECT count(*) FROM runs").await?),
            ("transitions", number(pool, "SELECT count(*) FROM transitions").await?),
            ("late_results", number(pool, "SELECT count(*) FROM late_results").await?),
            ("check_days", number(pool, "SELECT CAST(coalesce(sum(checks), 0) AS BIGINT) FROM cluster_days").await?),
            ("incidents", number(pool, "SELECT count(*) FROM incidents").await?),
            ("audit", number(pool, "SELECT count(*) FROM audit").await?),
        ],
        file_bytes: bytes,
        used_bytes: bytes,
    })
}

async fn number(pool: &PgPool, sql: &'static str) -> Result<u64, StoreError> {
    Ok(sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await?.unsigned_abs())
}
