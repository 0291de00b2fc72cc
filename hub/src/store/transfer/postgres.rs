//! The tables of a PostgreSQL store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use tokio::sync::mpsc;

use super::{BATCH, Batch, Column, Kind, Side, Table};
use crate::store::postgres::{Claim, Share};
use crate::store::queries::kept;
use crate::store::{StoreError, rows};

pub(super) struct PostgresSide {
    claim: Claim,
}

impl PostgresSide {
    pub(super) async fn claim(options: &PgConnectOptions) -> Result<PostgresSide, StoreError> {
        Ok(PostgresSide { claim: Claim::take(options, Share::Alone).await? })
    }

    fn connection(&mut self) -> &mut PgConnection {
        self.claim.connection()
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::query(sql).execute(self.connection()).await?;
        Ok(())
    }
}

#[async_trait]
impl Side for PostgresSide {
    async fn begin(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await
    }

    async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        let found = sqlx::query_as::<_, (String, String, String)>(
            "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_sqlx%' AND table_name NOT LIKE 'replica%' \
             ORDER BY table_name::text COLLATE \"C\", column_name::text COLLATE \"C\"",
        );
        let mut tables = BTreeMap::<String, Vec<(String, Kind)>>::new();
        for (table, column, kind) in found.fetch_all(self.connection()).await? {
            let kind = match kind.as_str() {
                "bigint" => Kind::Integer,
                "text" => Kind::Text,
                "bytea" => Kind::Bytes,
                other => return Err(rows::corrupt("column type", &other)),
            };
            tables.entry(table).or_default().push((column, kind));
        }
        Ok(tables.into_iter().map(|(name, columns)| Table { name, columns }).collect())
    }

    async fn count(&mut self, table: &Table) -> Result<u64, StoreError> {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM \"{}\"", table.name));
        Ok(sqlx::query_scalar::<_, i64>(sql).fetch_one(self.connection()).await?.unsigned_abs())
    }

    async fn last_id(&mut self, table: &Table) -> Result<Option<i64>, StoreError> {
        let Some(sequence) = self.sequence(table).await? else { return Ok(None) };
        let last = sqlx::query_scalar("SELECT pg_sequence_last_value($1::regclass)").bind(sequence);
        Ok(last.fetch_one(self.connection()).await?)
    }

    async fn put_last_id(&mut self, table: &Table, id: i64) -> Result<(), StoreError> {
        if let Some(sequence) = self.sequence(table).await?.filter(|_| id > 0) {
            let set = sqlx::query("SELECT setval($1::regclass, $2)").bind(sequence).bind(id);
            set.execute(self.connection()).await?;
        }
        Ok(())
    }

    async fn read(&mut self, table: &Table, batches: mpsc::Sender<Batch>) -> Result<(), StoreError> {
        let sql = AssertSqlSafe(format!("SELECT {} FROM \"{}\"", table.list(), table.name));
        let mut found = sqlx::query(sql).fetch(self.claim.connection());
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
        let mut arrays = Vec::with_capacity(table.columns.len());
        for (index, (_, kind)) in table.columns.iter().enumerate() {
            let array = match kind {
                Kind::Integer => "bigint",
                Kind::Text => "text",
                Kind::Bytes => "bytea",
            };
            arrays.push(format!("${}::{array}[]", index + 1));
        }
        let (columns, arrays) = (table.list(), arrays.join(", "));
        let sql = format!("INSERT INTO \"{}\" ({columns}) SELECT * FROM unnest({arrays})", table.name);
        let mut insert = sqlx::query(AssertSqlSafe(sql));
        for column in batch.columns {
            insert = match column {
                Column::Integers(column) => insert.bind(column),
                Column::Texts(column) => {
                    insert.bind(column.iter().map(|text| text.as_deref().map(kept)).collect::<Vec<_>>())
                }
                Column::Bytes(column) => insert.bind(column),
            };
        }
        insert.execute(self.connection()).await?;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT").await
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.claim.release().await;
        Ok(())
    }
}

impl PostgresSide {
    /// The name of the sequence that numbers a table's rows.
    async fn sequence(&mut self, table: &Table) -> Result<Option<String>, StoreError> {
        let name = sqlx::query_scalar(
            "SELECT pg_get_serial_sequence(quote_ident(table_name), column_name) FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1 AND is_identity = 'YES'",
        );
        Ok(name.bind(&table.name).fetch_optional(self.connection()).await?)
    }
}

fn add(batch: &mut Batch, row: &PgRow) -> Result<(), StoreError> {
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
