//! What is deleted for its age, a batch at a time, and how much there is.

use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::rows::micros;
use crate::store::{Expired, Sizes, StoreError};

/// Deletes the oldest rows; the indexes by time lead to them. None for transitions, whose age alone does not say it.
fn statement(what: Expired) -> Option<&'static str> {
    let statement = match what {
        Expired::Runs => {
            "DELETE FROM runs WHERE id IN \
                 (SELECT id FROM runs WHERE recorded_at < ? ORDER BY recorded_at LIMIT ?)"
        }
        Expired::LogTails => {
            "UPDATE runs SET log_tail = '' WHERE id IN \
                 (SELECT id FROM runs WHERE log_tail <> '' AND recorded_at < ? ORDER BY recorded_at LIMIT ?)"
        }
        Expired::Audit => "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? ORDER BY at LIMIT ?)",
        Expired::Incidents => {
            "DELETE FROM incidents WHERE number IN \
                 (SELECT number FROM incidents WHERE closed_at < ? ORDER BY closed_at LIMIT ?)"
        }
        Expired::LateResults => {
            "DELETE FROM late_results WHERE (cluster, namespace, name, since) IN \
                 (SELECT cluster, namespace, name, since FROM late_results WHERE until < ? ORDER BY until LIMIT ?)"
        }
        Expired::CheckDays => {
            "DELETE FROM check_days WHERE (day, cluster, namespace, name) IN \
                 (SELECT day, cluster, namespace, name FROM check_days WHERE day < ? ORDER BY day LIMIT ?)"
        }
        Expired::ClusterDays => {
            "DELETE FROM cluster_days WHERE (day, cluster) IN \
                 (SELECT day, cluster FROM cluster_days WHERE day < ? ORDER BY day LIMIT ?)"
        }
        Expired::Transitions => return None,
    };
    Some(statement)
}

pub(super) async fn prune(
    db: &mut SqliteConnection,
    what: Expired,
    before: Timestamp,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    let Some(statement) = statement(what) else { return Ok(0) };
    if what == Expired::Audit {
        // The newest row of a cluster says what it has now.
        let old = "DELETE FROM agent_versions WHERE at < ? AND EXISTS (SELECT 1 FROM agent_versions AS new \
                   WHERE new.cluster = agent_versions.cluster AND new.id > agent_versions.id)";
        sqlx::query(old).bind(micros(before)).execute(&mut *db).await?;
    }
    let delete = sqlx::query(statement).bind(what.key(before)).bind(i64::from(limit));
    Ok(delete.execute(db).await?.rows_affected())
}

pub(super) async fn sizes(readers: &SqlitePool) -> Result<Sizes, StoreError> {
    let page = number(readers, "PRAGMA page_size").await?;
    let pages = number(readers, "PRAGMA page_count").await?;
    let free = number(readers, "PRAGMA freelist_count").await?;
    Ok(Sizes {
        rows: vec![
            ("runs", number(readers, "SELECT count(*) FROM runs").await?),
            ("transitions", number(readers, "SELECT count(*) FROM transitions").await?),
            ("late_results", number(readers, "SELECT count(*) FROM late_results").await?),
            ("check_days", number(readers, "SELECT coalesce(sum(checks), 0) FROM cluster_days").await?),
            ("incidents", number(readers, "SELECT count(*) FROM incidents").await?),
            ("audit", number(readers, "SELECT count(*) FROM audit").await?),
        ],
        file_bytes: pages * page,
        used_bytes: pages.saturating_sub(free) * page,
    })
}

async fn number(readers: &SqlitePool, sql: &'static str) -> Result<u64, StoreError> {
    Ok(sqlx::query_scalar::<_, i64>(sql).fetch_one(readers).await?.unsigned_abs())
}
