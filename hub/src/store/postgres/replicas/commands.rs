//! Commands on their way to the replica that has the session.

use std::time::Duration;

use sqlx::postgres::PgPool;

use super::changes::micros;
use crate::store::StoreError;
use crate::store::queries::kept;

/// Time in which the answer to a command that is over can still be read.
const READABLE: Duration = Duration::from_secs(60);

/// A command to a cluster whose session another replica has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Name of the cluster.
    pub cluster: String,
    /// Drawn by whoever asks; the same for each of the clusters that are asked.
    pub id: String,
    /// What is asked, as JSON.
    pub text: String,
}

pub(super) async fn put(pool: &PgPool, command: &Command, life: Duration) -> Result<(), StoreError> {
    let Command { cluster, id, text } = command;
    let mut transaction = pool.begin().await?;
    let forget = sqlx::query("DELETE FROM replica_commands WHERE expires_at < replica_now() - $1");
    forget.bind(micros(READABLE)).execute(&mut *transaction).await?;
    sqlx::query(
        "INSERT INTO replica_commands (cluster, id, command, expires_at) VALUES ($1, $2, $3, replica_now() + $4) \
         ON CONFLICT (cluster, id) DO NOTHING",
    )
    .bind(kept(cluster))
    .bind(kept(id))
    .bind(kept(text))
    .bind(micros(life))
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

/// Whoever takes one marks it in the same statement, so nobody else does.
pub(super) async fn take(pool: &PgPool, replica: &str) -> Result<Vec<Command>, StoreError> {
    let taken = sqlx::query_as::<_, (String, String, String)>(
        "UPDATE replica_commands SET taken_by = $1 WHERE taken_by IS NULL AND expires_at > replica_now() \
         AND cluster IN (SELECT cluster FROM replica_sessions WHERE replica = $1) RETURNING cluster, id, command",
    );
    let taken = taken.bind(replica).fetch_all(pool).await?.into_iter();
    Ok(taken.map(|(cluster, id, text)| Command { cluster, id, text }).collect())
}

pub(super) async fn answer(pool: &PgPool, cluster: &str, id: &str, answer: &str) -> Result<(), StoreError> {
    let update = sqlx::query("UPDATE replica_commands SET answer = $3 WHERE cluster = $1 AND id = $2");
    update.bind(kept(cluster)).bind(kept(id)).bind(kept(answer)).execute(pool).await?;
    Ok(())
}

pub(super) async fn answers(
    pool: &PgPool,
    asked: &[(String, String)],
) -> Result<Vec<(String, String, String)>, StoreError> {
    let (clusters, ids): (Vec<String>, Vec<String>) =
        asked.iter().map(|(cluster, id)| (kept(cluster), kept(id))).unzip();
    let answers = sqlx::query_as(
        "SELECT cluster, id, answer FROM replica_commands JOIN unnest($1::text[], $2::text[]) AS asked (cluster, id) \
         USING (cluster, id) WHERE answer IS NOT NULL",
    );
    Ok(answers.bind(clusters).bind(ids).fetch_all(pool).await?)
}
