//! Clusters, their enrolment and their keys.

use active_monitor_core::self_test::SelfTest;
use active_monitor_core::view::PendingEnrolment;
use jiff::Timestamp;
use sqlx::postgres::PgPool;

use super::replicas::changes;
use crate::store::queries::kept;
use crate::store::rows::{self, json, micros};
use crate::store::{AgentKey, ClusterRecord, EnrolmentToken, Spend, StoreError};

pub(super) async fn all(pool: &PgPool) -> Result<Vec<ClusterRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT name, labels, annotations, cluster_uid, created_at, valid_from, agent_keys, self_test, token_pending \
         FROM clusters ORDER BY name",
    );
    rows.fetch_all(pool).await?.iter().map(rows::cluster).collect()
}

pub(super) async fn put(pool: &PgPool, cluster: &ClusterRecord) -> Result<(), StoreError> {
    let ClusterRecord {
        name,
        labels,
        annotations,
        cluster_uid,
        created_at,
        valid_from,
        agent_keys,
        self_test: _,
        pending_enrolment: _,
    } = cluster;
    sqlx::query(
        "INSERT INTO clusters (name, labels, annotations, cluster_uid, created_at, valid_from, agent_keys) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (name) DO UPDATE SET labels = excluded.labels, annotations = excluded.annotations",
    )
    .bind(kept(name))
    .bind(json(labels)?)
    .bind(json(annotations)?)
    .bind(cluster_uid.as_deref().map(kept))
    .bind(micros(*created_at))
    .bind(valid_from.map(micros))
    .bind(json(agent_keys)?)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn remove(pool: &PgPool, name: &str) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    for statement in [
        "DELETE FROM clusters WHERE name = $1",
        "DELETE FROM check_states WHERE cluster = $1",
        "DELETE FROM definition_statuses WHERE cluster = $1",
        "DELETE FROM pauses WHERE cluster = $1",
        "DELETE FROM report_cursors WHERE cluster = $1",
        "DELETE FROM replica_sessions WHERE cluster = $1",
        "DELETE FROM replica_commands WHERE cluster = $1",
        "DELETE FROM replica_foreign WHERE cluster = $1",
    ] {
        sqlx::query(statement).bind(kept(name)).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

pub(super) async fn put_token(pool: &PgPool, cluster: &str, token: &EnrolmentToken) -> Result<(), StoreError> {
    let EnrolmentToken { hash, expires_at, spent_by } = token;
    sqlx::query(
        "UPDATE clusters SET token_hash = $2, token_expires_at = $3, token_spent_by = $4, token_pending = NULL \
         WHERE name = $1",
    )
    .bind(kept(cluster))
    .bind(hash.to_vec())
    .bind(micros(*expires_at))
    .bind(spent_by.map(|key| key.to_vec()))
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn token(pool: &PgPool, cluster: &str) -> Result<Option<EnrolmentToken>, StoreError> {
    let row = sqlx::query(
        "SELECT token_hash, token_expires_at, token_spent_by FROM clusters WHERE name = $1 AND token_hash IS NOT NULL",
    );
    row.bind(kept(cluster)).fetch_optional(pool).await?.map(|row| rows::enrolment_token(&row)).transpose()
}

pub(super) async fn spend_token(
    pool: &PgPool,
    cluster: &str,
    hash: [u8; 32],
    key: &AgentKey,
    cluster_uid: &str,
) -> Result<Spend, StoreError> {
    let mut transaction = pool.begin().await?;
    changes::in_order(&mut transaction).await?;
    // The row is locked until the commit: of two keys at once the second sees what the first did.
    let bound: Option<(Option<String>,)> =
        sqlx::query_as("SELECT cluster_uid FROM clusters WHERE name = $1 AND token_hash = $2 FOR UPDATE")
            .bind(kept(cluster))
            .bind(hash.to_vec())
            .fetch_optional(&mut *transaction)
            .await?;
    match bound {
        None => return Ok(Spend::Taken),
        Some((Some(uid),)) if uid != cluster_uid => return Ok(Spend::OtherUid),
        Some(_) => {}
    }
    let done = sqlx::query(
        "UPDATE clusters SET token_spent_by = $2, cluster_uid = $3, valid_from = greatest(valid_from, $4), agent_keys = $5, \
         self_test = NULL, token_pending = NULL \
         WHERE name = $1 AND (token_spent_by IS NULL OR token_spent_by = $2)",
    )
    .bind(kept(cluster))
    .bind(key.hash.to_vec())
    .bind(kept(cluster_uid))
    .bind(micros(key.issued_at))
    .bind(json(&[key])?)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(if done.rows_affected() == 1 { Spend::Spent } else { Spend::Taken })
}

pub(super) async fn put_pending(pool: &PgPool, cluster: &str, pending: &PendingEnrolment) -> Result<(), StoreError> {
    let update = sqlx::query("UPDATE clusters SET token_pending = $2 WHERE name = $1 AND token_expires_at = $3");
    update.bind(kept(cluster)).bind(json(pending)?).bind(micros(pending.expires_at)).execute(pool).await?;
    Ok(())
}

pub(super) async fn put_self_test(pool: &PgPool, cluster: &str, self_test: &SelfTest) -> Result<(), StoreError> {
    let update = sqlx::query("UPDATE clusters SET self_test = $2 WHERE name = $1");
    update.bind(kept(cluster)).bind(json(self_test)?).execute(pool).await?;
    Ok(())
}

pub(super) async fn put_keys(pool: &PgPool, cluster: &str, keys: &[AgentKey]) -> Result<(), StoreError> {
    let update = sqlx::query("UPDATE clusters SET agent_keys = $2 WHERE name = $1");
    update.bind(kept(cluster)).bind(json(&keys)?).execute(pool).await?;
    Ok(())
}

pub(super) async fn unbind(pool: &PgPool, cluster: &str, valid_from: Timestamp) -> Result<(), StoreError> {
    let update = sqlx::query(
        "UPDATE clusters SET cluster_uid = NULL, agent_keys = '[]', self_test = NULL, valid_from = $2 WHERE name = $1",
    );
    update.bind(kept(cluster)).bind(micros(valid_from)).execute(pool).await?;
    Ok(())
}
