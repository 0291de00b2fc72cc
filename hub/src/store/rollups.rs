//! Sums of uptime for each day, and the results that came late: what is asked of the store, and the words for it that
//! both data bases understand.

use active_monitor_core::run::Outcome;
use active_monitor_core::uptime::{Class, Day, Late, Transition, Uptime};
use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::queries::kept;
use super::rows::{Fields, corrupt, integer, micros, owned, text, time};
use super::{CheckKey, StoreError};

/// Rows in one INSERT: below what either data base allows in values.
pub(super) const ROWS_PER_INSERT: usize = 500;
/// Days that a statement marks: two values each.
const DAYS_PER_INSERT: usize = 5_000;
/// Microseconds after its end by which a run is late when it is recorded.
const LATE: i64 = 60 * 1_000_000;

/// Which checks are asked for; all where nothing is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckFilter {
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// Namespace of the check.
    pub namespace: Option<String>,
    /// Name of the check.
    pub name: Option<String>,
}

/// How far the store is rolled up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolledUp {
    /// The id of the last run that was looked at for late results.
    pub runs: i64,
    /// The last day of which there are sums.
    pub days: Option<Day>,
}

/// A run of a check that was recorded long after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRun {
    /// Its number.
    pub id: i64,
    /// Its check.
    pub key: CheckKey,
    /// Its slot.
    pub slot: Timestamp,
    /// Its end.
    pub finished_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
}

/// A check's day.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckDay {
    /// The check.
    pub key: CheckKey,
    /// What it was that day.
    pub time: Uptime,
    /// What was known of it when the day ended.
    pub ends: Class,
}

/// Days in sums. A cluster's sums are those of its checks, written together with them.
#[async_trait]
pub trait Rollups {
    /// How far it is.
    async fn rolled_up(&self) -> Result<RolledUp, StoreError>;
    /// The id of the newest run that was recorded before a time; 0 where there is none.
    async fn newest_run(&self, before: Timestamp) -> Result<i64, StoreError>;
    /// The first `limit` late runs of checks with ids after one and up to another.
    async fn late_runs(&self, after: i64, through: i64, limit: u32) -> Result<Vec<LateRun>, StoreError>;
    /// Keeps late results, and that their days have changed. One of the same check and time is replaced.
    async fn put_late(&self, results: Vec<(CheckKey, Late)>) -> Result<(), StoreError>;
    /// The runs up to that id were looked at, and what is late of them is kept.
    async fn looked_at(&self, run: i64) -> Result<(), StoreError>;
    /// Late results that say something of the time from `from` up to `to`.
    async fn late_results(
        &self,
        checks: &CheckFilter,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(CheckKey, Late)>, StoreError>;

    /// When the first transition was that is kept.
    async fn first_transition(&self) -> Result<Option<Timestamp>, StoreError>;
    /// Shows the transitions from `from` up to `to` one by one, the oldest first.
    async fn transitions_within(
        &self,
        checks: &CheckFilter,
        from: Timestamp,
        to: Timestamp,
        visit: &mut (dyn FnMut(CheckKey, Transition) + Send),
    ) -> Result<(), StoreError>;

    /// Replaces the sums of a cluster's day, which then has not changed.
    async fn put_days(&self, day: Day, cluster: &str, checks: Vec<CheckDay>) -> Result<(), StoreError>;
    /// There are sums of all clusters up to that day.
    async fn close_day(&self, day: Day) -> Result<(), StoreError>;
    /// Days of clusters that have changed.
    async fn changed_days(&self) -> Result<Vec<(Day, String)>, StoreError>;
    /// What was known of the checks when a day ended.
    async fn ends(&self, checks: &CheckFilter, day: Day) -> Result<Vec<(CheckKey, Class)>, StoreError>;
    /// The sums of checks over some days, both included.
    async fn check_sums(
        &self,
        checks: &CheckFilter,
        from: Day,
        through: Day,
    ) -> Result<Vec<(CheckKey, Uptime)>, StoreError>;
    /// The sums of clusters over some days, both included, with the most checks that they had on one of them.
    async fn cluster_sums(
        &self,
        cluster: Option<&str>,
        from: Day,
        through: Day,
    ) -> Result<Vec<(String, u64, Uptime)>, StoreError>;
}

pub(super) const POSITIONS: &str = "SELECT name, through FROM rollups";
pub(super) const RUNS: &str = "reports";
pub(super) const DAYS: &str = "days";
pub(super) const CHANGED: &str = "SELECT day, cluster FROM changed_days ORDER BY day, cluster";

pub(super) fn positions<R: Fields>(rows: &[R]) -> Result<RolledUp, StoreError> {
    let mut found = RolledUp::default();
    for row in rows {
        let through = integer(row, "through")?;
        match text(row, "name")? {
            RUNS => found.runs = through,
            DAYS => found.days = Some(Day(through)),
            other => return Err(corrupt("name of a roll-up", &other)),
        }
    }
    Ok(found)
}

pub(super) fn put_position<DB>(name: &'static str, through: i64) -> QueryBuilder<DB>
where
    DB: Database,
    &'static str: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql = QueryBuilder::new("INSERT INTO rollups (name, through) VALUES (");
    sql.push_bind(name).push(", ").push_bind(through);
    sql.push(") ON CONFLICT (name) DO UPDATE SET through = excluded.through");
    sql
}

pub(super) fn newest_run<DB>(before: Timestamp) -> QueryBuilder<DB>
where
    DB: Database,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql = QueryBuilder::new("SELECT id FROM runs WHERE recorded_at < ");
    sql.push_bind(micros(before)).push(" ORDER BY recorded_at DESC, id DESC LIMIT 1");
    sql
}

pub(super) fn late_runs<DB>(after: i64, through: i64, limit: u32) -> QueryBuilder<DB>
where
    DB: Database,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql = QueryBuilder::new(
        "SELECT id, cluster, namespace, name, slot, finished_at, outcome FROM runs WHERE kind = 'healthCheck' AND id > ",
    );
    sql.push_bind(after).push(" AND id <= ").push_bind(through);
    sql.push(" AND finished_at < recorded_at - ").push_bind(LATE);
    sql.push(" ORDER BY id LIMIT ").push_bind(i64::from(limit));
    sql
}

pub(super) fn late_run(row: &impl Fields) -> Result<LateRun, StoreError> {
    Ok(LateRun {
        id: integer(row, "id")?,
        key: key(row)?,
        slot: time(row, "slot")?,
        finished_at: time(row, "finished_at")?,
        outcome: outcome(row)?,
    })
}

/// What keeps late results, and what marks their days.
pub(super) fn put_late<DB>(results: &[(CheckKey, Late)]) -> Vec<QueryBuilder<DB>>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    &'static str: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut put = QueryBuilder::new("INSERT INTO late_results (cluster, namespace, name, since, until, outcome) ");
    put.push_values(results, |mut row, (CheckKey { cluster, namespace, name }, Late { from, until, outcome })| {
        row.push_bind(kept(cluster)).push_bind(kept(namespace)).push_bind(kept(name));
        row.push_bind(micros(*from)).push_bind(micros(*until)).push_bind(outcome.as_str());
    });
    put.push(" ON CONFLICT (cluster, namespace, name, since) DO UPDATE SET until = excluded.until, outcome = excluded.outcome");
    let mut days: Vec<(i64, String)> = Vec::new();
    for (key, late) in results {
        days.extend((Day::of(late.from).0..=Day::of(late.until).0).map(|day| (day, kept(&key.cluster))));
    }
    days.sort_unstable();
    days.dedup();
    let mark = |days: &[(i64, String)]| {
        let mut mark = QueryBuilder::new("INSERT INTO changed_days (day, cluster) ");
        mark.push_values(days, |mut row, (day, cluster)| {
            row.push_bind(*day).push_bind(cluster.clone());
        });
        mark.push(" ON CONFLICT (day, cluster) DO NOTHING");
        mark
    };
    std::iter::once(put).chain(days.chunks(DAYS_PER_INSERT).map(mark)).collect()
}

pub(super) fn late_results<DB>(checks: &CheckFilter, from: Timestamp, to: Timestamp) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql =
        QueryBuilder::new("SELECT cluster, namespace, name, since, until, outcome FROM late_results WHERE until >= ");
    sql.push_bind(micros(from)).push(" AND since < ").push_bind(micros(to));
    filter(&mut sql, checks);
    sql.push(" ORDER BY cluster, namespace, name, since");
    sql
}

pub(super) fn late(row: &impl Fields) -> Result<(CheckKey, Late), StoreError> {
    Ok((key(row)?, Late { from: time(row, "since")?, until: time(row, "until")?, outcome: outcome(row)? }))
}

pub(super) fn transitions_within<DB>(checks: &CheckFilter, from: Timestamp, to: Timestamp) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql =
        QueryBuilder::new("SELECT cluster, namespace, name, at, status, maintenance FROM transitions WHERE at >= ");
    sql.push_bind(micros(from)).push(" AND at < ").push_bind(micros(to));
    filter(&mut sql, checks);
    sql.push(" ORDER BY at, id");
    sql
}

/// What replaces the sums of a cluster's day, statement by statement.
pub(super) fn put_days<DB>(day: Day, cluster: &str, checks: &[CheckDay]) -> Vec<QueryBuilder<DB>>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    &'static str: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut statements: Vec<QueryBuilder<DB>> = ["check_days", "cluster_days", "changed_days"]
        .map(|table| {
            let mut sql = QueryBuilder::new(format!("DELETE FROM {table} WHERE day = "));
            sql.push_bind(day.0).push(" AND cluster = ").push_bind(kept(cluster));
            sql
        })
        .into();
    for chunk in checks.chunks(ROWS_PER_INSERT) {
        let mut sql = QueryBuilder::new(
            "INSERT INTO check_days (day, cluster, namespace, name, up, down, unknown, stopped, maintenance, outages, ends) ",
        );
        sql.push_values(chunk, |mut row, CheckDay { key, time, ends }| {
            row.push_bind(day.0).push_bind(kept(cluster)).push_bind(kept(&key.namespace)).push_bind(kept(&key.name));
            for value in stored(time) {
                row.push_bind(value);
            }
            row.push_bind(ends.as_str());
        });
        statements.push(sql);
    }
    if !checks.is_empty() {
        let mut sum = Uptime::default();
        checks.iter().for_each(|check| sum.add(&check.time));
        let mut sql = QueryBuilder::new(
            "INSERT INTO cluster_days (day, cluster, checks, up, down, unknown, stopped, maintenance, outages) VALUES (",
        );
        sql.push_bind(day.0).push(", ").push_bind(kept(cluster)).push(", ").push_bind(checks.len() as i64);
        for value in stored(&sum) {
            sql.push(", ").push_bind(value);
        }
        sql.push(")");
        statements.push(sql);
    }
    statements
}

pub(super) fn ends<DB>(checks: &CheckFilter, day: Day) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql = QueryBuilder::new("SELECT cluster, namespace, name, ends FROM check_days WHERE day = ");
    sql.push_bind(day.0);
    filter(&mut sql, checks);
    sql
}

pub(super) fn end(row: &impl Fields) -> Result<(CheckKey, Class), StoreError> {
    let ends = text(row, "ends")?;
    let known = Class::ALL.into_iter().find(|class| class.as_str() == ends);
    Ok((key(row)?, known.ok_or_else(|| corrupt("end of a day", &ends))?))
}

/// PostgreSQL's sum is of another type than what it adds up.
const SUMS: &str = "CAST(sum(up) AS BIGINT) AS up, CAST(sum(down) AS BIGINT) AS down, CAST(sum(unknown) AS BIGINT) AS unknown, \
    CAST(sum(stopped) AS BIGINT) AS stopped, CAST(sum(maintenance) AS BIGINT) AS maintenance, \
    CAST(sum(outages) AS BIGINT) AS outages";

pub(super) fn check_sums<DB>(checks: &CheckFilter, from: Day, through: Day) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql = QueryBuilder::new(format!("SELECT cluster, namespace, name, {SUMS} FROM check_days WHERE "));
    days(&mut sql, from, through);
    filter(&mut sql, checks);
    sql.push(" GROUP BY cluster, namespace, name");
    sql
}

pub(super) fn check_sum(row: &impl Fields) -> Result<(CheckKey, Uptime), StoreError> {
    Ok((key(row)?, sum(row)?))
}

pub(super) fn cluster_sums<DB>(cluster: Option<&str>, from: Day, through: Day) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut sql = QueryBuilder::new(format!("SELECT cluster, max(checks) AS checks, {SUMS} FROM cluster_days WHERE "));
    days(&mut sql, from, through);
    filter(&mut sql, &CheckFilter { cluster: cluster.map(str::to_owned), ..CheckFilter::default() });
    sql.push(" GROUP BY cluster");
    sql
}

pub(super) fn cluster_sum(row: &impl Fields) -> Result<(String, u64, Uptime), StoreError> {
    Ok((owned(row, "cluster")?, integer(row, "checks")?.unsigned_abs(), sum(row)?))
}

/// The days one by one: the key begins with them, and so it leads to a check on each.
fn days<DB>(sql: &mut QueryBuilder<DB>, from: Day, through: Day)
where
    DB: Database,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    sql.push("day IN (");
    let mut list = sql.separated(", ");
    for day in from.0..=through.0 {
        list.push_bind(day);
    }
    sql.push(")");
}

fn filter<DB>(sql: &mut QueryBuilder<DB>, CheckFilter { cluster, namespace, name }: &CheckFilter)
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
{
    for (condition, value) in [(" AND cluster = ", cluster), (" AND namespace = ", namespace), (" AND name = ", name)] {
        if let Some(value) = value {
            sql.push(condition).push_bind(kept(value));
        }
    }
}

fn key(row: &impl Fields) -> Result<CheckKey, StoreError> {
    Ok(CheckKey { cluster: owned(row, "cluster")?, namespace: owned(row, "namespace")?, name: owned(row, "name")? })
}

fn outcome(row: &impl Fields) -> Result<Outcome, StoreError> {
    match text(row, "outcome")? {
        "Succeeded" => Ok(Outcome::Succeeded),
        "Failed" => Ok(Outcome::Failed),
        other => Err(corrupt("outcome", &other)),
    }
}

/// As it is stored: microseconds, and outages.
fn stored(time: &Uptime) -> [i64; 6] {
    let Uptime { up_seconds, down_seconds, unknown_seconds, stopped_seconds, maintenance_seconds, outages } = time;
    let micros = |seconds: &f64| (seconds * 1e6).round() as i64;
    let outages = i64::try_from(*outages).unwrap_or(i64::MAX);
    [
        micros(up_seconds),
        micros(down_seconds),
        micros(unknown_seconds),
        micros(stopped_seconds),
        micros(maintenance_seconds),
        outages,
    ]
}

fn sum(row: &impl Fields) -> Result<Uptime, StoreError> {
    let seconds = |column| integer(row, column).map(|micros| micros as f64 / 1e6);
    Ok(Uptime {
        up_seconds: seconds("up")?,
        down_seconds: seconds("down")?,
        unknown_seconds: seconds("unknown")?,
        stopped_seconds: seconds("stopped")?,
        maintenance_seconds: seconds("maintenance")?,
        outages: integer(row, "outages")?.unsigned_abs(),
    })
}
