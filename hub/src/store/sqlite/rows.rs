//! Between rows and types.

use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::view::{Role, RunView};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{ApiToken, AuditEntry, ClusterRecord, DefinitionRecord, EnrolmentToken, StoreError};

/// A time as it is stored.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(row.try_get(column)?).map_err(|error| corrupt("time", &error))
}

fn corrupt(what: &'static str, detail: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { what, detail: detail.to_string() }
}

/// A value as it is stored.
pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt("value", &error))
}

/// The inverse of [`json`].
pub(super) fn parse<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(what, &error))
}

fn hash(row: &SqliteRow, column: &'static str) -> Result<[u8; 32], StoreError> {
    <[u8; 32]>::try_from(row.try_get::<&[u8], _>(column)?).map_err(|error| corrupt("hash", &error))
}

pub(super) fn cluster(row: &SqliteRow) -> Result<ClusterRecord, StoreError> {
    Ok(ClusterRecord {
        name: row.try_get("name")?,
        labels: parse("labels", row.try_get("labels")?)?,
        annotations: parse("annotations", row.try_get("annotations")?)?,
        cluster_uid: row.try_get("cluster_uid")?,
        created_at: time(row, "created_at")?,
    })
}

pub(super) fn enrolment_token(row: &SqliteRow) -> Result<EnrolmentToken, StoreError> {
    let spent = row.try_get::<Option<&[u8]>, _>("token_spent_by")?.is_some();
    Ok(EnrolmentToken {
        hash: hash(row, "token_hash")?,
        expires_at: time(row, "token_expires_at")?,
        spent_by: if spent { Some(hash(row, "token_spent_by")?) } else { None },
    })
}

pub(super) fn run(row: &SqliteRow) -> Result<RunView, StoreError> {
    let kind: &str = row.try_get("kind")?;
    let outcome = match row.try_get("outcome")? {
        "Succeeded" => Outcome::Succeeded,
        "Failed" => Outcome::Failed,
        other => return Err(corrupt("outcome", &other)),
    };
    let reason: Option<&str> = row.try_get("reason")?;
    let known = |text: &str| Reason::ALL.into_iter().find(|reason| reason.as_str() == text);
    Ok(RunView {
        id: row.try_get("id")?,
        cluster: row.try_get("cluster")?,
        recorded_at: time(row, "recorded_at")?,
        run: Run {
            key: RunKey {
                check_uid: row.try_get("check_uid")?,
                kind: RunKind::from_label(kind).ok_or_else(|| corrupt("kind", &kind))?,
                slot: time(row, "slot")?,
            },
            namespace: row.try_get("namespace")?,
            name: row.try_get("name")?,
            workflow: row.try_get("workflow")?,
            outcome,
            reason: reason.map(|text| known(text).ok_or_else(|| corrupt("reason", &text))).transpose()?,
            message: row.try_get("message")?,
            started_at: time(row, "started_at")?,
            finished_at: time(row, "finished_at")?,
        },
    })
}

pub(super) fn definition(row: &SqliteRow) -> Result<DefinitionRecord, StoreError> {
    Ok(DefinitionRecord {
        name: row.try_get("name")?,
        generation: row.try_get::<i64, _>("generation")?.unsigned_abs(),
        definition: parse("definition", row.try_get("definition")?)?,
    })
}

pub(super) fn role_text(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

pub(super) fn api_token(row: &SqliteRow) -> Result<ApiToken, StoreError> {
    let role = match row.try_get("role")? {
        "viewer" => Role::Viewer,
        "operator" => Role::Operator,
        "admin" => Role::Admin,
        other => return Err(corrupt("role", &other)),
    };
    Ok(ApiToken { name: row.try_get("name")?, role, hash: hash(row, "hash")?, created_at: time(row, "created_at")? })
}

pub(super) fn audit(row: &SqliteRow) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        at: time(row, "at")?,
        who: row.try_get("who")?,
        action: row.try_get("action")?,
        object: row.try_get("object")?,
    })
}
