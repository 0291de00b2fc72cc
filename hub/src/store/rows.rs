//! Between rows and types, for either data base.

use active_monitor_core::command::{Pause, Scope, Subject};
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{CheckStatus, GapView, Role, RunView};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::{ApiToken, AuditEntry, CheckKey, ClusterRecord, DefinitionRecord, EnrolmentToken, StoreError};

/// What a row of either data base gives, by the column's name.
pub(super) trait Fields {
    fn integer(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error>;
    fn text(&self, column: &'static str) -> Result<Option<&str>, sqlx::Error>;
    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, sqlx::Error>;
}

impl Fields for SqliteRow {
    fn integer(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn text(&self, column: &'static str) -> Result<Option<&str>, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, sqlx::Error> {
        self.try_get(column)
    }
}

impl Fields for PgRow {
    fn integer(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn text(&self, column: &'static str) -> Result<Option<&str>, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes(&self, column: &'static str) -> Result<Option<&[u8]>, sqlx::Error> {
        self.try_get(column)
    }
}

/// A column that cannot be NULL.
pub(super) fn integer(row: &impl Fields, column: &'static str) -> Result<i64, StoreError> {
    row.integer(column)?.ok_or_else(|| corrupt(column, &"it is NULL"))
}

/// A column that cannot be NULL.
pub(super) fn text<'r>(row: &'r impl Fields, column: &'static str) -> Result<&'r str, StoreError> {
    row.text(column)?.ok_or_else(|| corrupt(column, &"it is NULL"))
}

pub(super) fn owned(row: &impl Fields, column: &'static str) -> Result<String, StoreError> {
    text(row, column).map(str::to_owned)
}

/// A time as it is stored.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The inverse of [`micros`].
pub(super) fn time(row: &impl Fields, column: &'static str) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(integer(row, column)?).map_err(|error| corrupt("time", &error))
}

/// What is stored is not what can have been stored.
pub(super) fn corrupt(what: &'static str, detail: &dyn std::fmt::Display) -> StoreError {
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

fn hash(row: &impl Fields, column: &'static str) -> Result<[u8; 32], StoreError> {
    let bytes = row.bytes(column)?.unwrap_or_default();
    <[u8; 32]>::try_from(bytes).map_err(|error| corrupt("hash", &error))
}

pub(super) fn cluster(row: &impl Fields) -> Result<ClusterRecord, StoreError> {
    Ok(ClusterRecord {
        name: owned(row, "name")?,
        labels: parse("labels", text(row, "labels")?)?,
        annotations: parse("annotations", text(row, "annotations")?)?,
        cluster_uid: row.text("cluster_uid")?.map(str::to_owned),
        created_at: time(row, "created_at")?,
        valid_from: match row.integer("valid_from")? {
            Some(_) => Some(time(row, "valid_from")?),
            None => None,
        },
        agent_keys: parse("agent keys", text(row, "agent_keys")?)?,
        self_test: row.text("self_test")?.map(|text| parse("self-test", text)).transpose()?,
        pending_enrolment: row.text("token_pending")?.map(|text| parse("pending enrolment", text)).transpose()?,
    })
}

pub(super) fn enrolment_token(row: &impl Fields) -> Result<EnrolmentToken, StoreError> {
    let spent = row.bytes("token_spent_by")?.is_some();
    Ok(EnrolmentToken {
        hash: hash(row, "token_hash")?,
        expires_at: time(row, "token_expires_at")?,
        spent_by: if spent { Some(hash(row, "token_spent_by")?) } else { None },
    })
}

pub(super) fn run(row: &impl Fields) -> Result<RunView, StoreError> {
    let kind = text(row, "kind")?;
    let outcome = match text(row, "outcome")? {
        "Succeeded" => Outcome::Succeeded,
        "Failed" => Outcome::Failed,
        other => return Err(corrupt("outcome", &other)),
    };
    let reason = row.text("reason")?;
    let known = |text: &str| Reason::ALL.into_iter().find(|reason| reason.as_str() == text);
    Ok(RunView {
        id: integer(row, "id")?,
        cluster: owned(row, "cluster")?,
        recorded_at: time(row, "recorded_at")?,
        run: Run {
            key: RunKey {
                check_uid: owned(row, "check_uid")?,
                kind: RunKind::from_label(kind).ok_or_else(|| corrupt("kind", &kind))?,
                slot: time(row, "slot")?,
            },
            namespace: owned(row, "namespace")?,
            name: owned(row, "name")?,
            workflow: row.text("workflow")?.map(str::to_owned),
            outcome,
            reason: reason.map(|text| known(text).ok_or_else(|| corrupt("reason", &text))).transpose()?,
            message: owned(row, "message")?,
            started_at: time(row, "started_at")?,
            finished_at: time(row, "finished_at")?,
            warning: owned(row, "warning")?,
            log_tail: owned(row, "log_tail")?,
        },
    })
}

pub(super) fn gap(row: &impl Fields) -> Result<GapView, StoreError> {
    Ok(GapView {
        cluster: owned(row, "cluster")?,
        after: integer(row, "after_run")?,
        reports: integer(row, "reports")?.unsigned_abs(),
        noticed_at: time(row, "noticed_at")?,
    })
}

pub(super) fn definition(row: &impl Fields) -> Result<DefinitionRecord, StoreError> {
    let text = text(row, "definition")?;
    Ok(DefinitionRecord {
        name: owned(row, "name")?,
        generation: integer(row, "generation")?.unsigned_abs(),
        // One damaged definition must not keep the hub from starting: as a text it is shown, and fits no reader.
        definition: serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::String(text.to_owned())),
    })
}

pub(super) fn pause(row: &impl Fields) -> Result<Pause, StoreError> {
    let subject = match text(row, "subject")? {
        "checks" => Subject::Checks,
        "remedies" => Subject::Remedies,
        other => return Err(corrupt("subject", &other)),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let scope = Scope { namespace: some(text(row, "namespace")?), name: some(text(row, "name")?) };
    let until = time(row, "until")?;
    Ok(Pause { id: owned(row, "id")?, subject, scope, until, reason: owned(row, "reason")?, by: owned(row, "who")? })
}

pub(super) fn api_token(row: &impl Fields) -> Result<ApiToken, StoreError> {
    let role = match text(row, "role")? {
        "viewer" => Role::Viewer,
        "operator" => Role::Operator,
        "admin" => Role::Admin,
        other => return Err(corrupt("role", &other)),
    };
    Ok(ApiToken { name: owned(row, "name")?, role, hash: hash(row, "hash")?, created_at: time(row, "created_at")? })
}

pub(super) fn ended_session(row: &impl Fields) -> Result<(String, Timestamp), StoreError> {
    Ok((owned(row, "subject")?, time(row, "at")?))
}

pub(super) fn audit(row: &impl Fields) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        at: time(row, "at")?,
        who: owned(row, "who")?,
        action: owned(row, "action")?,
        object: owned(row, "object")?,
    })
}

/// None where the text is empty.
pub(super) fn check_status(text: &str) -> Result<Option<CheckStatus>, StoreError> {
    let known = || CheckStatus::ALL.into_iter().find(|status| status.as_str() == text);
    (!text.is_empty()).then(|| known().ok_or_else(|| corrupt("check status", &text))).transpose()
}

pub(super) fn transition(row: &impl Fields) -> Result<(CheckKey, Transition), StoreError> {
    let status = check_status(text(row, "status")?)?;
    let key =
        CheckKey { cluster: owned(row, "cluster")?, namespace: owned(row, "namespace")?, name: owned(row, "name")? };
    Ok((key, Transition { at: time(row, "at")?, status, maintenance: integer(row, "maintenance")? != 0 }))
}

pub(super) fn life(row: &impl Fields) -> Result<Life, StoreError> {
    Ok(Life { from: time(row, "started_at")?, to: time(row, "alive_at")? })
}
