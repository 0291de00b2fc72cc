//! The tables of a SQLite store.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, QueryBuilder, Row, Sqlite, SqliteConnection};
use tokio::sync::mpsc;

use super::{BATCH, Batch, Column, Kind, Side, Table};
use crate::store::{StoreError, rows, sqlite};

/// Values in one statement; SQLite takes 32766.
const VALUES: usize = 30_000;

pub(super) struct SqliteSide {
    connection: SqliteConnection,
    _lock: File,
}

impl SqliteSide {
    pub(super) async fn claim(directory: &Path) -> Result<SqliteSide, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(sqlx::Error::Io)?;
        let (lock, _, connection) = sqlite::claim(directory).await?;
        Ok(SqliteSide { connection, _lock: lock })
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::query(sql).execute(&mut self.connection).await?;
        Ok(())
    }
}

#[async_trait]
impl Side for SqliteSide {
    async fn begin(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE").await
    }

    async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        let found = sqlx::query_as::<_, (String, String, String)>(
            "SELECT m.name, c.name, c.type FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c \
             WHERE m.type = 'table' AND m.name NOT GLOB 'sqlite_*' AND m.name NOT GLOB '_sqlx*' ORDER BY m.name, c.name",
        );
        let mut tables = BTreeMap::<String, Vec<(String, Kind)>>::new();
        for (table, column, kind) in found.fetch_all(&mut self.connection).await? {
            let kind = match kind.as_str() {
                "INTEGER" => Kind::Integer,
                "TEXT" => Kind::Text,
                "BLOB" => Kind::Bytes,
                other => return Err(rows::corrupt("column type", &other)),
            };
            tables.entry(table).or_default().push((column, kind));
        }
        Ok(tables.into_iter().map(|(name, columns)| Table { name, columns }).collect())
    }

    async fn count(&mut self, table: &Table) -> Result<u64, StoreError> {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM \"{}\"", table.name));
        Ok(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut self.connection).await?.unsigned_abs())
    }

    async fn last_id(&mut self, table: &Table) -> Result<Option<i64>, StoreError> {
        let last = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = ?").bind(&table.name);
        Ok(last.fetch_optional(&mut self.connection).await?)
    }

    async fn put_last_id(&mut self, table: &Table, id: i64) -> Result<(), StoreError> {
        for statement in [
            "DELETE FROM sqlite_sequence WHERE name = ?1 AND seq <= ?2",
            "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
        ] {
            sqlx::query(statement).bind(&table.name).bind(id).execute(&mut self.connection).await?;
        }
        Ok(())
    }

    async fn read(&mut self, table: &Table, batches: mpsc::Sender<Batch>) -> Result<(), StoreError> {
        let sql = AssertSqlSafe(format!("SELECT {} FROM \"{}\"", table.list(), table.name));
        let mut found = sqlx::query(sql).fetch(&mut self.connection);
        let mut batch = Batch::new(table);
        while let Some(row) = found.try_next().await? {
            add(&mut batch, &row)?;
            if batch.rows == BATCH && batches.send(std::mem::replace(&mut batch, Batch::new(table))).await.is_err() {
                return Ok(());
            }
        }
        if batch.rows > 0 {
            // A receiver that is gone has failed, and says so itself.
            let _ = batches.send(batch).await;
        }
        Ok(())
    }

    async fn write(&mut self, table: &Table, batch: Batch) -> Result<(), StoreError> {
        let rows: Vec<usize> = (0..batch.rows).collect();
        for chunk in rows.chunks(VALUES / table.columns.len().max(1)) {
            let mut sql = QueryBuilder::<Sqlite>::new(format!("INSERT INTO \"{}\" ({}) ", table.name, table.list()));
            sql.push_values(chunk, |mut values, row| {
                for column in &batch.columns {
                    match column {
                        Column::Integers(column) => values.push_bind(column.get(*row).copied().flatten()),
                        Column::Texts(column) => values.push_bind(column.get(*row).cloned().flatten()),
                        Column::Bytes(column) => values.push_bind(column.get(*row).cloned().flatten()),
                    };
                }
            });
            sql.build().persistent(false).execute(&mut self.connection).await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT").await
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }
}

fn add(batch: &mut Batch, row: &SqliteRow) -> Result<(), StoreError> {
    for (index, column) in batch.columns.iter_mut().enumerate() {
        match column {
            Column::Integers(column) => column.push(row.try_get(index)?),
            Column::Texts(column) => column.push(row.try_get(index)?),
            Column::Bytes(column) => column.push(row.try_get(index)?),
        }
    }
    batch.rows += 1;
    Ok(())
}
