//! Sums of uptime for each day, and the results that came late.

use active_monitor_core::uptime::{Class, Day, Late, Transition, Uptime};
use async_trait::async_trait;
use futures::{FutureExt, TryStreamExt};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{SqliteStore, rows};
use crate::store::rollups::{self, CheckDay, CheckFilter, LateRun, RolledUp, Rollups};
use crate::store::{CheckKey, StoreError};

impl SqliteStore {
    /// Statements that belong together.
    async fn all(&self, mut statements: Vec<QueryBuilder<Sqlite>>) -> Result<(), StoreError> {
        let write = self.write(move |db| {
            async move {
                for sql in &mut statements {
                    sql.build().execute(&mut *db).await?;
                }
                Ok(())
            }
            .boxed()
        });
        write.await
    }
}

#[async_trait]
impl Rollups for SqliteStore {
    async fn rolled_up(&self) -> Result<RolledUp, StoreError> {
        rollups::positions(&sqlx::query(rollups::POSITIONS).fetch_all(&self.readers).await?)
    }

    async fn newest_run(&self, before: Timestamp) -> Result<i64, StoreError> {
        let row = rollups::newest_run::<Sqlite>(before).build().fetch_optional(&self.readers).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }

    async fn late_runs(&self, after: i64, through: i64, limit: u32) -> Result<Vec<LateRun>, StoreError> {
        let mut sql = rollups::late_runs::<Sqlite>(after, through, limit);
        sql.build().fetch_all(&self.readers).await?.iter().map(rollups::late_run).collect()
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
        let mut sql = rollups::late_results::<Sqlite>(checks, from, to);
        sql.build().fetch_all(&self.readers).await?.iter().map(rollups::late).collect()
    }

    async fn first_transition(&self) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query("SELECT at FROM transitions ORDER BY at LIMIT 1").fetch_optional(&self.readers).await?;
        row.map(|row| rows::time(&row, "at")).transpose()
    }

    async fn transitions_within(
        &self,
        checks: &CheckFilter,
        from: Timestamp,
        to: Timestamp,
        visit: &mut (dyn FnMut(CheckKey, Transition) + Send),
    ) -> Result<(), StoreError> {
        let mut sql = rollups::transitions_within::<Sqlite>(checks, from, to);
        let mut found = sql.build().fetch(&self.readers);
        while let Some(row) = found.try_next().await? {
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
        let found = sqlx::query(rollups::CHANGED).fetch_all(&self.readers).await?;
        found.iter().map(|row| Ok((Day(rows::integer(row, "day")?), rows::owned(row, "cluster")?))).collect()
    }

    async fn ends(&self, checks: &CheckFilter, day: Day) -> Result<Vec<(CheckKey, Class)>, StoreError> {
        let mut sql = rollups::ends::<Sqlite>(checks, day);
        sql.build().fetch_all(&self.readers).await?.iter().map(rollups::end).collect()
    }

    async fn check_sums(
        &self,
        checks: &CheckFilter,
        from: Day,
        through: Day,
    ) -> Result<Vec<(CheckKey, Uptime)>, StoreError> {
        let mut sql = rollups::check_sums::<Sqlite>(checks, from, through);
        sql.build().fetch_all(&self.readers).await?.iter().map(rollups::check_sum).collect()
    }

    async fn cluster_sums(
        &self,
        cluster: Option<&str>,
        from: Day,
        through: Day,
    ) -> Result<Vec<(String, u64, Uptime)>, StoreError> {
        let mut sql = rollups::cluster_sums::<Sqlite>(cluster, from, through);
        sql.build().fetch_all(&self.readers).await?.iter().map(rollups::cluster_sum).collect()
    }
}
