//! What changed, out of each place that keeps it: what is asked in the words that both data bases understand, and what a
//! row says.

use active_monitor_core::view::{ChangeKind, ChangeSource, ChangeView, CheckStatus, Placed, Position};
use jiff::Timestamp;
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::queries::kept;
use super::rows::{self, Fields, corrupt, integer, micros, owned, text, time};
use super::{AuditEntry, AuditQuery, ChangeQuery, StoreError};

pub(super) fn changes<DB>(query: &ChangeQuery) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let ChangeQuery { source, from, to, before, cluster, action_prefix, limit } = query;
    let mut sql = QueryBuilder::new(select(*source));
    sql.push(" WHERE at >= ").push_bind(micros(*from)).push(" AND at < ").push_bind(micros(*to));
    if let Some((at, id)) = before {
        sql.push(" AND (at, id) < (").push_bind(*at).push(", ").push_bind(*id).push(")");
    }
    match (source, cluster, action_prefix) {
        (ChangeSource::Versions | ChangeSource::Statuses, Some(cluster), _) => {
            sql.push(" AND cluster = ").push_bind(kept(cluster));
        }
        (ChangeSource::Audit, _, Some(prefix)) => begins_with(&mut sql, prefix),
        (ChangeSource::Versions | ChangeSource::Statuses, None, _) | (ChangeSource::Audit, _, None) => {}
    }
    sql.push(" ORDER BY at DESC, id DESC LIMIT ").push_bind(i64::from(*limit));
    sql
}

fn begins_with<DB>(sql: &mut QueryBuilder<DB>, prefix: &str)
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
{
    sql.push(" AND substr(action, 1, length(").push_bind(kept(prefix)).push(")) = ").push_bind(kept(prefix));
}

/// The row before of the same check or cluster is one step in its index.
fn select(source: ChangeSource) -> &'static str {
    match source {
        ChangeSource::Audit => "SELECT id, at, who, action, object FROM audit",
        ChangeSource::Versions => {
            "SELECT id, at, cluster, agent, kubernetes, (SELECT agent || ' ' || kubernetes FROM agent_versions AS old \
             WHERE old.cluster = new.cluster AND old.id < new.id ORDER BY old.id DESC LIMIT 1) AS was \
             FROM agent_versions AS new"
        }
        ChangeSource::Statuses => {
            "SELECT id, at, cluster, namespace, name, status, maintenance, (SELECT status FROM transitions AS old \
             WHERE old.cluster = new.cluster AND old.namespace = new.namespace AND old.name = new.name \
             AND (old.at, old.id) < (new.at, new.id) ORDER BY old.at DESC, old.id DESC LIMIT 1) AS was \
             FROM transitions AS new"
        }
    }
}

pub(super) fn placed(source: ChangeSource, row: &impl Fields) -> Result<Placed, StoreError> {
    let at = time(row, "at")?;
    let position = Position { at: micros(at), source, id: integer(row, "id")? };
    let change = match source {
        ChangeSource::Audit => ChangeView::of_audit(at, text(row, "who")?, text(row, "action")?, text(row, "object")?),
        ChangeSource::Versions => Some(version(at, row)?),
        ChangeSource::Statuses => Some(ChangeView {
            cluster: Some(owned(row, "cluster")?),
            namespace: Some(owned(row, "namespace")?),
            name: Some(owned(row, "name")?),
            status: status(text(row, "status")?)?,
            was: status(row.text("was")?.unwrap_or_default())?,
            maintenance: integer(row, "maintenance")? != 0,
            ..ChangeView::new(at, ChangeKind::Status)
        }),
    };
    Ok((position, change))
}

fn version(at: Timestamp, row: &impl Fields) -> Result<ChangeView, StoreError> {
    let (agent, kubernetes) = (text(row, "agent")?, text(row, "kubernetes")?);
    let was = match row.text("was")?.and_then(|was| was.split_once(' ')) {
        Some((agent, kubernetes)) => format!("; before: agent {agent}, Kubernetes {kubernetes}"),
        None => String::new(),
    };
    Ok(ChangeView {
        cluster: Some(owned(row, "cluster")?),
        message: format!("agent {agent}, Kubernetes {kubernetes}{was}"),
        ..ChangeView::new(at, ChangeKind::Version)
    })
}

fn status(text: &str) -> Result<Option<CheckStatus>, StoreError> {
    let known = |text: &str| CheckStatus::ALL.into_iter().find(|status| status.as_str() == text);
    (!text.is_empty()).then(|| known(text).ok_or_else(|| corrupt("check status", &text))).transpose()
}

pub(super) fn audit<DB>(query: &AuditQuery) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let AuditQuery { from, to, who, action, before, limit } = query;
    let mut sql = QueryBuilder::new("SELECT id, at, who, action, object FROM audit WHERE at >= ");
    sql.push_bind(micros(*from)).push(" AND at < ").push_bind(micros(*to));
    if let Some(who) = who {
        sql.push(" AND who = ").push_bind(kept(who));
    }
    if let Some(action) = action {
        begins_with(&mut sql, action);
    }
    if let Some(before) = before {
        sql.push(" AND id < ").push_bind(*before);
    }
    sql.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(*limit));
    sql
}

pub(super) fn line(row: &impl Fields) -> Result<(i64, AuditEntry), StoreError> {
    Ok((integer(row, "id")?, rows::audit(row)?))
}
