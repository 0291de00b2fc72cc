//! What changed, and the versions of the agents.

use active_monitor_core::view::Placed;
use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::rows::micros;
use crate::store::changes;
use crate::store::{AgentVersions, AuditEntry, AuditQuery, ChangeQuery, StoreError};

pub(super) async fn read(readers: &SqlitePool, query: &ChangeQuery) -> Result<Vec<Placed>, StoreError> {
    let rows = changes::changes(query).build().fetch_all(readers).await?;
    rows.iter().map(|row| changes::placed(query.source, row)).collect()
}

pub(super) async fn audit(readers: &SqlitePool, query: &AuditQuery) -> Result<Vec<(i64, AuditEntry)>, StoreError> {
    changes::audit(query).build().fetch_all(readers).await?.iter().map(changes::line).collect()
}

/// Nothing is written where the newest row says the same.
pub(super) async fn note_versions(
    db: &mut SqliteConnection,
    at: Timestamp,
    versions: &[AgentVersions],
) -> Result<(), sqlx::Error> {
    for AgentVersions { cluster, agent, kubernetes } in versions {
        let insert = "INSERT INTO agent_versions (cluster, at, agent, kubernetes) SELECT ?1, ?2, ?3, ?4 \
                      WHERE (?3, ?4) IS NOT (SELECT agent, kubernetes FROM agent_versions WHERE cluster = ?1 \
                      ORDER BY id DESC LIMIT 1)";
        let insert = sqlx::query(insert).bind(cluster).bind(micros(at)).bind(agent).bind(kubernetes);
        insert.execute(&mut *db).await?;
    }
    Ok(())
}
