//! Runs, how far each journal's reports are on disk, and the gaps between them.

use active_monitor_core::run::{Run, RunKind};
use active_monitor_core::session::frame::Counted;
use active_monitor_core::session::gaps::Gap;
use active_monitor_core::view::RunPage;
use jiff::Timestamp;
use sqlx::Postgres;
use sqlx::postgres::{PgConnection, PgPool};

use crate::store::queries::{self, kept};
use crate::store::rows::{self, micros};
use crate::store::{CURSOR_LIFE, Recorded, RunQuery, StoreError};

/// Rows in one INSERT: large enough that round trips do not count.
const ROWS_PER_INSERT: usize = 1000;

pub(super) async fn record(pool: &PgPool, cluster: &str, runs: &[Run], at: Timestamp) -> Result<Recorded, StoreError> {
    let mut recorded = Recorded::default();
    let mut transaction = pool.begin().await?;
    for chunk in runs.chunks(ROWS_PER_INSERT) {
        let new = insert(&mut transaction, cluster, chunk, at).await?;
        recorded.new += new;
        recorded.known += chunk.len().saturating_sub(new);
    }
    transaction.commit().await?;
    Ok(recorded)
}

/// Inserts runs, a column at a time; returns how many of them the history did not have.
async fn insert(db: &mut PgConnection, cluster: &str, runs: &[Run], at: Timestamp) -> Result<usize, sqlx::Error> {
    fn column<'r, T>(runs: &'r [Run], value: impl Fn(&'r Run) -> T) -> Vec<T> {
        runs.iter().map(value).collect()
    }
    let done = sqlx::query(
        "INSERT INTO runs (cluster, recorded_at, check_uid, kind, slot, namespace, name, workflow, outcome, reason, \
         message, started_at, finished_at, warning, log_tail) \
         SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], \
         $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::text[], $15::text[]) \
         ON CONFLICT (cluster, check_uid, kind, slot) DO NOTHING",
    )
    .bind(kept(cluster))
    .bind(micros(at))
    .bind(column(runs, |run| kept(&run.key.check_uid)))
    .bind(column(runs, |run| run.key.kind.as_str()))
    .bind(column(runs, |run| micros(run.key.slot)))
    .bind(column(runs, |run| kept(&run.namespace)))
    .bind(column(runs, |run| kept(&run.name)))
    .bind(column(runs, |run| run.workflow.as_deref().map(kept)))
    .bind(column(runs, |run| run.outcome.as_str()))
    .bind(column(runs, |run| run.reason.map(|reason| reason.as_str())))
    .bind(column(runs, |run| kept(&run.message)))
    .bind(column(runs, |run| micros(run.started_at)))
    .bind(column(runs, |run| micros(run.finished_at)))
    .bind(column(runs, |run| kept(&run.warning)))
    .bind(column(runs, |run| kept(&run.log_tail)))
    .execute(db)
    .await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

pub(super) async fn cursor(pool: &PgPool, cluster: &str, journal: &str) -> Result<Option<u64>, StoreError> {
    let seq = sqlx::query_scalar::<_, i64>("SELECT seq FROM report_cursors WHERE cluster = $1 AND journal = $2");
    let seq = seq.bind(kept(cluster)).bind(kept(journal)).fetch_optional(pool).await?;
    Ok(seq.map(i64::cast_unsigned))
}

pub(super) async fn put_cursor(
    pool: &PgPool,
    cluster: &str,
    journal: &str,
    seq: u64,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    move_cursor(&mut transaction, cluster, journal, seq, at).await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn forget_cursor(pool: &PgPool, cluster: &str, journal: &str) -> Result<(), StoreError> {
    let delete = sqlx::query("DELETE FROM report_cursors WHERE cluster = $1 AND journal = $2");
    delete.bind(kept(cluster)).bind(kept(journal)).execute(pool).await?;
    Ok(())
}

pub(super) async fn record_gap(
    pool: &PgPool,
    cluster: &str,
    journal: &str,
    gap: Gap,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "INSERT INTO gaps (cluster, after_run, reports, noticed_at) \
         SELECT $1, coalesce(max(id), 0), $2, $3 FROM runs WHERE cluster = $1",
    )
    .bind(kept(cluster))
    .bind(i64::try_from(gap.reports).unwrap_or(i64::MAX))
    .bind(micros(at))
    .execute(&mut *transaction)
    .await?;
    move_cursor(&mut transaction, cluster, journal, gap.through_seq, at).await?;
    Ok(transaction.commit().await?)
}

pub(super) async fn record_lacking(
    pool: &PgPool,
    cluster: &str,
    runs: &[Counted],
    at: Timestamp,
) -> Result<bool, StoreError> {
    let mut transaction = pool.begin().await?;
    let mut noted = false;
    for Counted { check_uid, mark } in runs {
        let insert = sqlx::query(queries::RECORD_LACKING).bind(kept(cluster)).bind(kept(check_uid)).bind(micros(*mark));
        let insert = insert.bind(micros(at)).bind(RunKind::HealthCheck.as_str());
        noted = insert.execute(&mut *transaction).await?.rows_affected() > 0;
        if noted {
            break;
        }
    }
    transaction.commit().await?;
    Ok(noted)
}

/// The commits of a session overtake each other, so the cursor only grows. The largest numbers are kept as negative ones.
async fn move_cursor(
    db: &mut PgConnection,
    cluster: &str,
    journal: &str,
    seq: u64,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let forgotten = at.saturating_sub(CURSOR_LIFE).unwrap_or(Timestamp::MIN);
    let delete = sqlx::query("DELETE FROM report_cursors WHERE cluster = $1 AND at < $2");
    delete.bind(kept(cluster)).bind(micros(forgotten)).execute(&mut *db).await?;
    sqlx::query(
        "INSERT INTO report_cursors (cluster, journal, seq, at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (cluster, journal) DO UPDATE SET at = excluded.at, \
         seq = CASE WHEN (report_cursors.seq < 0, report_cursors.seq) < (excluded.seq < 0, excluded.seq) \
         THEN excluded.seq ELSE report_cursors.seq END",
    )
    .bind(kept(cluster))
    .bind(kept(journal))
    .bind(seq.cast_signed())
    .bind(micros(at))
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn runs(pool: &PgPool, query: &RunQuery) -> Result<RunPage, StoreError> {
    let found = queries::runs::<Postgres>(query).build().fetch_all(pool).await?;
    let (items, next) = queries::page(query, found.iter().map(rows::run).collect::<Result<_, _>>()?);
    let gaps = queries::gaps::<Postgres>(query, next).build().fetch_all(pool).await?;
    let gaps = gaps.iter().map(rows::gap).collect::<Result<_, _>>()?;
    Ok(RunPage { items, gaps, next })
}
