//! Sums of uptime for each day, and the results that came late.

use active_monitor_core::uptime::{Class, Day, Late, Transition, Uptime};
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder, Row};

use super::replicas::fence;
use super::{PostgresStore, within};
use crate::store::rollups::{self, CheckDay, CheckFilter, LateRun, RolledUp, Rollups};
use crate::store::{CheckKey, StoreError, rows};

impl PostgresStore {
    /// Statements that belong together.
    async fn all(&self, statements: Vec<QueryBuilder<Postgres>>) -> Result<(), StoreError> {
        let together = async {
            let mut transaction = self.pool.begin().await?;
            fence(&mut transaction, self.fence.as_ref()).await?;
            for mut sql in statements {
                sql.build().execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        };
        self.write(together).await
    }

    async fn found(&self, mut sql: QueryBuilder<Postgres>) -> Result<Vec<PgRow>, StoreError> {
        within(async { Ok(sql.build().fetch_all(&self.readers).await?) }).await
    }
}

#[async_trait]
impl Rollups for PostgresStore {
    async fn rolled_up(&self) -> Result<RolledUp, StoreError> {
        rollups::positions(&self.found(QueryBuilder::new(rollups::POSITIONS)).await?)
    }

    async fn newest_run(&self, before: Timestamp) -> Result<i64, StoreError> {
        let found = self.found(rollups::newest_run::<Postgres>(before)).await?;
        Ok(found.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }

    async fn late_runs(&self, after: i64, through: i64, limit: u32) -> Result<Vec<LateRun>, StoreError> {
        self.found(rollups::late_runs::<Postgres>(after, through, limit)).await?.iter().map(rollups::late_run).collect()
    }

    async fn put_late(&self, results: Vec<(CheckKey, Late)>) -> Result<(), StoreError> {
        let chunks = results.chunks(rollups::ROWS_PER_INSERT);
        self.all(chunks.flat_map(rollups::put_late).collect()).await
    }

    async fn looked_at(&self, run: i64) -> Result<(), StoreError> {
        self.all(vec![rollups::put_position(rollups::RUNS, run)]).await
    }

    async fn late_results(
        &self,
        checks: &CheckFilter,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(CheckKey, Late)>, StoreError> {
        self.found(rollups::late_results::<Postgres>(checks, from, to)).await?.iter().map(rollups::late).collect()
    }

    async fn first_transition(&self) -> Result<Option<Timestamp>, StoreError> {
        let found = self.found(QueryBuilder::new("SELECT at FROM transitions ORDER BY at LIMIT 1")).await?;
        found.first().map(|row| rows::time(row, "at")).transpose()
    }

    async fn transitions_within(
        &self,
        checks: &CheckFilter,
        from: Timestamp,
        to: Timestamp,
        visit: &mut (dyn FnMut(CheckKey, Transition) + Send),
    ) -> Result<(), StoreError> {
        let mut sql = rollups::transitions_within::<Postgres>(checks, from, to);
        let mut found = sql.build().fetch(&self.readers);
        while let Some(row) = within(async { Ok(found.try_next().await?) }).await? {
            let (key, transition) = rows::transition(&row)?;
            visit(key, transition);
        }
        Ok(())
    }

    async fn put_days(&self, day: Day, cluster: &str, checks: Vec<CheckDay>) -> Result<(), StoreError> {
        self.all(rollups::put_days(day, cluster, &checks)).await
    }

    async fn close_day(&self, day: Day) -> Result<(), StoreError> {
        self.all(vec![rollups::put_position(rollups::DAYS, day.0)]).await
    }

    async fn changed_days(&self) -> Result<Vec<(Day, String)>, StoreError> {
        let found = self.found(QueryBuilder::new(rollups::CHANGED)).await?;
        found.iter().map(|row| Ok((Day(rows::integer(row, "day")?), rows::owned(row, "cluster")?))).collect()
    }

    async fn ends(&self, checks: &CheckFilter, day: Day) -> Result<Vec<(CheckKey, Class)>, StoreError> {
        self.found(rollups::ends::<Postgres>(checks, day)).await?.iter().map(rollups::end).collect()
    }

    async fn check_sums(
        &self,
        checks: &CheckFilter,
        from: Day,
        through: Day,
    ) -> Result<Vec<(CheckKey, Uptime)>, StoreError> {
        self.found(rollups::check_sums::<Postgres>(checks, from, through))
            .await?
            .iter()
            .map(rollups::check_sum)
            .collect()
    }

    async fn cluster_sums(
        &self,
        cluster: Option<&str>,
        from: Day,
        through: Day,
    ) -> Result<Vec<(String, u64, Uptime)>, StoreError> {
        self.found(rollups::cluster_sums::<Postgres>(cluster, from, through))
            .await?
            .iter()
            .map(rollups::cluster_sum)
            .collect()
    }
}
