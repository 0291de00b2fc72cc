//! What changed, and the versions of the agents.

use active_monitor_core::view::Placed;
use jiff::Timestamp;
use sqlx::postgres::PgPool;

use super::replicas::{Lease, fence};
use crate::store::queries::kept;
use crate::store::rows::micros;
use crate::store::{AgentVersions, AuditEntry, AuditQuery, ChangeQuery, StoreError, changes};

pub(super) async fn read(pool: &PgPool, query: &ChangeQuery) -> Result<Vec<Placed>, StoreError> {
    let rows = changes::changes(query).build().fetch_all(pool).await?;
    rows.iter().map(|row| changes::placed(query.source, row)).collect()
}

pub(super) async fn audit(pool: &PgPool, query: &AuditQuery) -> Result<Vec<(i64, AuditEntry)>, StoreError> {
    changes::audit(query).build().fetch_all(pool).await?.iter().map(changes::line).collect()
}

/// Nothing is written where the newest row says the same.
pub(super) async fn note_versions(
    pool: &PgPool,
    lease: Option<&Lease>,
    at: Timestamp,
    versions: &[AgentVersions],
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    fence(&mut transaction, lease).await?;
    for AgentVersions { cluster, agent, kubernetes } in versions {
        let insert = sqlx::query(
            "INSERT INTO agent_versions (cluster, at, agent, kubernetes) SELECT $1, $2, $3, $4 WHERE NOT EXISTS \
             (SELECT 1 FROM (SELECT agent, kubernetes FROM agent_versions WHERE cluster = $1 ORDER BY id DESC LIMIT 1) \
             AS newest WHERE newest.agent = $3 AND newest.kubernetes = $4)",
        );
        let insert = insert.bind(kept(cluster)).bind(micros(at)).bind(kept(agent)).bind(kept(kubernetes));
        insert.execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}
