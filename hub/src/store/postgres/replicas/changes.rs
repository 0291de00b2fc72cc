//! What was written, for the replicas that show it. Triggers of the tables note it (`0040_replicas.sql`).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use sqlx::postgres::{PgConnection, PgListener, PgPool};

use crate::store::StoreError;
use crate::store::rows::json;

/// Where the triggers say that there is something.
const CHANNEL: &str = "active_monitor_changes";
/// A replica that was away for longer reads everything again.
const KEPT: Duration = Duration::from_secs(600);
/// Rows that are deleted at once.
const BATCH: i64 = 10_000;

/// What was written, beside sessions and checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// A cluster's record: labels, keys, tokens; or it was removed.
    Clusters,
    /// Some definition.
    Definitions,
    /// What a cluster's agent said of its definitions.
    DefinitionStatuses,
    /// Some maintenance window.
    Windows,
    /// Some acknowledgement of a cluster's checks.
    Acknowledgements,
    /// Some incident.
    Incidents,
    /// Some API token.
    ApiTokens,
    /// Whether the store came back from the past.
    Restore,
    /// What Git owns, or what became of its folder.
    Source,
    /// What was revoked.
    Revocations,
    /// An agent of another cluster was refused under a cluster's identity.
    Foreign,
    /// A command to a cluster, that it was taken, or its answer.
    Commands,
}

impl Topic {
    /// By the table; none for one that is read as a whole by `follow`, or that a newer hub has.
    pub(super) fn of_table(table: &str) -> Option<Topic> {
        Some(match table {
            "clusters" => Topic::Clusters,
            "definitions" => Topic::Definitions,
            "definition_statuses" => Topic::DefinitionStatuses,
            "windows" => Topic::Windows,
            "acknowledgements" => Topic::Acknowledgements,
            "incidents" => Topic::Incidents,
            "api_tokens" => Topic::ApiTokens,
            "restores" => Topic::Restore,
            "source" | "replica_sources" => Topic::Source,
            "replica_revocations" => Topic::Revocations,
            "replica_foreign" => Topic::Foreign,
            "replica_commands" => Topic::Commands,
            _ => return None,
        })
    }
}

/// Takes the place among the writers before the first row's lock: in the other order two could wait for each other.
pub(in crate::store::postgres) async fn in_order(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(24941, 40)").execute(db).await.map(drop)
}

/// Notes the uids of checks that were written, by cluster.
pub(super) async fn note_checks(
    db: &mut PgConnection,
    written: &BTreeMap<String, Vec<String>>,
) -> Result<(), StoreError> {
    if written.is_empty() {
        return Ok(());
    }
    let clusters: Vec<&String> = written.keys().collect();
    let uids = written.values().map(json).collect::<Result<Vec<_>, _>>()?;
    let note = "INSERT INTO replica_changes (topic, cluster, uids) \
                SELECT 'check_states', * FROM unnest($1::text[], $2::text[])";
    sqlx::query(note).bind(clusters).bind(uids).execute(&mut *db).await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(db).await?;
    Ok(())
}

/// The newest stays: by it a reader knows that it missed nothing.
pub(in crate::store::postgres) async fn forget(pool: &PgPool) -> Result<(), StoreError> {
    let forget = "DELETE FROM replica_changes WHERE revision IN (SELECT revision FROM replica_changes \
                  WHERE at < replica_now() - $1 AND revision < (SELECT max(revision) FROM replica_changes) \
                  ORDER BY revision LIMIT $2)";
    loop {
        let forgotten = sqlx::query(forget).bind(micros(KEPT)).bind(BATCH).execute(pool).await?.rows_affected();
        if forgotten < BATCH.unsigned_abs() {
            return Ok(());
        }
    }
}

pub(super) async fn wakes(pool: &PgPool) -> Result<BoxStream<'static, ()>, StoreError> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    let wakes = stream::unfold(listener, |mut listener| async move {
        match listener.try_recv().await {
            Ok(heard) => heard.map(|_| ((), listener)),
            Err(error) => {
                tracing::warn!(%error, "what other replicas write is not heard of at once");
                None
            }
        }
    });
    Ok(wakes.boxed())
}

pub(super) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
