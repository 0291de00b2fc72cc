//! Incidents, open ones and those of the past, as rows of either data base.

use std::sync::Arc;

use active_monitor_core::view::{Incident, IncidentPage};
use jiff::Timestamp;
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::rows::{json, parse};
use super::{IncidentQuery, MAX_PAGE, StoreError};

/// The open ones, oldest first.
pub(super) const OPEN: &str = "SELECT incident FROM incidents WHERE closed_at IS NULL ORDER BY number";

/// A row that is ready to be written.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) first_seen: Timestamp,
    pub(super) closed_at: Option<Timestamp>,
    pub(super) incident: String,
}

pub(super) fn rows(incidents: &[Arc<Incident>]) -> Result<Vec<Row>, StoreError> {
    let row = |incident: &Arc<Incident>| {
        let Incident { id, kind, first_seen, closed_at, .. } = &**incident;
        let (first_seen, closed_at) = (*first_seen, *closed_at);
        Ok(Row { id: id.clone(), kind: kind.as_str(), first_seen, closed_at, incident: json(&**incident)? })
    };
    incidents.iter().map(row).collect()
}

/// Incidents of a page and one more, which tells whether there is another page.
pub(super) fn select<DB>(query: &IncidentQuery) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql = QueryBuilder::new("SELECT number, incident FROM incidents WHERE 1 = 1");
    if let Some(kind) = query.kind {
        sql.push(" AND kind = ").push_bind(kind.as_str().to_owned());
    }
    if let Some(before) = query.before {
        sql.push(" AND number < ").push_bind(before);
    }
    sql.push(" ORDER BY number DESC LIMIT ").push_bind(i64::from(limit(query)) + 1);
    sql
}

/// The page of what [`select`] found.
pub(super) fn page(query: &IncidentQuery, mut found: Vec<(i64, String)>) -> Result<IncidentPage, StoreError> {
    let limit = limit(query) as usize;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.last().map(|(number, _)| *number) } else { None };
    let items = found.iter().map(|(_, text)| parse("incident", text)).collect::<Result<_, _>>()?;
    Ok(IncidentPage { items, next })
}

fn limit(query: &IncidentQuery) -> u32 {
    query.limit.clamp(1, MAX_PAGE)
}
