//! What is asked of the history, in the words that both data bases understand.

use active_monitor_core::view::RunView;
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::rows::micros;
use super::{MAX_PAGE, RunQuery, TransitionQuery};

/// Runs of a page and one more, which tells whether there is another page.
pub(super) fn runs<DB>(query: &RunQuery) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let RunQuery { cluster, namespace, name, kind, outcome, before, limit: _ } = query;
    let mut sql = QueryBuilder::new(
        "SELECT id, cluster, check_uid, kind, slot, namespace, name, workflow, outcome, reason, message, started_at, \
         finished_at, warning, log_tail, recorded_at FROM runs WHERE 1 = 1",
    );
    let texts = [
        (" AND cluster = ", cluster.as_deref()),
        (" AND namespace = ", namespace.as_deref()),
        (" AND name = ", name.as_deref()),
        (" AND kind = ", kind.map(|kind| kind.as_str())),
        (" AND outcome = ", outcome.map(|outcome| outcome.as_str())),
    ];
    for (condition, value) in texts {
        if let Some(value) = value {
            sql.push(condition).push_bind(kept(value));
        }
    }
    if let Some(before) = *before {
        sql.push(" AND id < ").push_bind(before);
    }
    sql.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit(query)) + 1);
    sql
}

/// The page of what [`runs`] found, and where the next one begins.
pub(super) fn page(query: &RunQuery, mut found: Vec<RunView>) -> (Vec<RunView>, Option<i64>) {
    let limit = limit(query) as usize;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.last().map(|run| run.id) } else { None };
    (found, next)
}

fn limit(query: &RunQuery) -> u32 {
    query.limit.clamp(1, MAX_PAGE)
}

/// Keeps a gap of unknown length: cluster, uid of a check, what the run left in its status, now, and the kind of a check's run.
/// `$n` is a parameter to both data bases.
pub(super) const RECORD_LACKING: &str = "\
    INSERT INTO gaps (cluster, after_run, reports, noticed_at) \
    SELECT $1, (SELECT coalesce(max(id), 0) FROM runs WHERE cluster = $1), 0, $4 \
    WHERE coalesce((SELECT CASE WHEN slot > started_at THEN slot ELSE started_at END FROM runs \
        WHERE cluster = $1 AND check_uid = $2 AND kind = $5 ORDER BY slot DESC LIMIT 1), $3) < $3 \
    AND NOT EXISTS (SELECT 1 FROM gaps WHERE cluster = $1 AND reports = 0 AND (noticed_at >= $3 \
        OR after_run = (SELECT coalesce(max(id), 0) FROM runs WHERE cluster = $1)))";

/// The gaps of a page. Between the pages nothing is left out: this one has what lies behind its runs.
pub(super) fn gaps<DB>(query: &RunQuery, next: Option<i64>) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql = QueryBuilder::new("SELECT cluster, after_run, reports, noticed_at FROM gaps WHERE after_run >= ");
    sql.push_bind(next.unwrap_or(0));
    if let Some(before) = query.before {
        sql.push(" AND after_run < ").push_bind(before);
    }
    if let Some(cluster) = &query.cluster {
        sql.push(" AND cluster = ").push_bind(kept(cluster));
    }
    sql.push(" ORDER BY after_run DESC, id DESC LIMIT ").push_bind(i64::from(MAX_PAGE));
    sql
}

pub(super) fn transitions<DB>(query: &TransitionQuery) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let TransitionQuery { cluster, namespace, name, from, to } = query;
    let mut sql =
        QueryBuilder::new("SELECT cluster, namespace, name, at, status, maintenance FROM transitions WHERE at < ");
    sql.push_bind(micros(*to));
    let filters = [(" AND cluster = ", cluster), (" AND namespace = ", namespace), (" AND name = ", name)];
    for (condition, value) in filters {
        if let Some(value) = value {
            sql.push(condition).push_bind(kept(value));
        }
    }
    if let (Some(cluster), Some(namespace), Some(name)) = (cluster, namespace, name) {
        // Of one check only the last one before the beginning matters, and the index leads to it.
        sql.push(" AND at >= coalesce((SELECT max(at) FROM transitions WHERE cluster = ").push_bind(kept(cluster));
        sql.push(" AND namespace = ").push_bind(kept(namespace)).push(" AND name = ").push_bind(kept(name));
        sql.push(" AND at <= ").push_bind(micros(*from)).push("), 0)");
    }
    sql.push(" ORDER BY cluster, namespace, name, at, id");
    sql
}

/// A text as PostgreSQL can keep it: NUL is the one character that it cannot.
pub(super) fn kept(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
