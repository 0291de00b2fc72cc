//! Moves everything from one store into another, a table after the other.
//!
//! It knows no table by name: it copies those that the stores have, which must be the same. The target gets all of it in
//! one transaction, so it is empty until it is complete. Both are claimed meanwhile: no hub runs on them.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::StoreError;
use super::location::Location;

mod postgres;
mod sqlite;

/// Rows that are read before they are written.
const BATCH: usize = 1000;

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store to be read failed.
    #[error("the store that is read ({location}) failed")]
    Source {
        /// Where it is.
        location: String,
        /// What failed.
        #[source]
        source: StoreError,
    },
    /// The store to be written failed.
    #[error("the store that is written ({location}) failed; it is as it was")]
    Target {
        /// Where it is.
        location: String,
        /// What failed.
        #[source]
        source: StoreError,
    },
    /// There is no store to be read.
    #[error("{0} holds no hub's data base")]
    NoSource(String),
    /// The target holds something.
    #[error("the store that is written is not empty: {table} has {rows} rows; nothing was moved")]
    NotEmpty {
        /// A table that has rows.
        table: String,
        /// How many.
        rows: u64,
    },
    /// The stores' tables are not the same.
    #[error("the stores do not have the same tables: {0} differs; nothing was moved")]
    Differs(String),
    /// The target has not what the source has.
    #[error("{table} has {read} rows and {written} arrived; nothing was moved")]
    Lost {
        /// The table.
        table: String,
        /// Rows of the source.
        read: u64,
        /// Rows of the target.
        written: u64,
    },
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Text,
    Bytes,
}

/// A table with its columns in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    name: String,
    columns: Vec<(String, Kind)>,
}

impl Table {
    /// Names of the columns, as SQL has them.
    fn list(&self) -> String {
        self.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
    }
}

/// Values of one column in some rows.
enum Column {
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    fn new(kind: Kind) -> Column {
        match kind {
            Kind::Integer => Column::Integers(Vec::with_capacity(BATCH)),
            Kind::Text => Column::Texts(Vec::with_capacity(BATCH)),
            Kind::Bytes => Column::Bytes(Vec::with_capacity(BATCH)),
        }
    }
}

/// Some rows of a table, a column at a time.
struct Batch {
    rows: usize,
    columns: Vec<Column>,
}

impl Batch {
    fn new(table: &Table) -> Batch {
        Batch { rows: 0, columns: table.columns.iter().map(|(_, kind)| Column::new(*kind)).collect() }
    }
}

/// A claimed store, by its tables.
#[async_trait]
trait Side: Send {
    async fn begin(&mut self) -> Result<(), StoreError>;
    async fn tables(&mut self) -> Result<Vec<Table>, StoreError>;
    async fn count(&mut self, table: &Table) -> Result<u64, StoreError>;
    /// The highest id that was ever given in a table that numbers its rows.
    async fn last_id(&mut self, table: &Table) -> Result<Option<i64>, StoreError>;
    async fn put_last_id(&mut self, table: &Table, id: i64) -> Result<(), StoreError>;
    /// Sends every row; ends early where nobody takes them.
    async fn read(&mut self, table: &Table, batches: mpsc::Sender<Batch>) -> Result<(), StoreError>;
    async fn write(&mut self, table: &Table, batch: Batch) -> Result<(), StoreError>;
    async fn commit(&mut self) -> Result<(), StoreError>;
    async fn close(self: Box<Self>) -> Result<(), StoreError>;
}

async fn claim(location: &Location) -> Result<Box<dyn Side>, StoreError> {
    Ok(match location {
        Location::Sqlite(directory) => Box::new(sqlite::SqliteSide::claim(directory).await?),
        Location::Postgres(options) => Box::new(postgres::PostgresSide::claim(options).await?),
    })
}

/// How far it is: a table, its rows, and how many of them are written.
pub type Progress<'p> = &'p mut (dyn FnMut(&str, u64, u64) + Send);

/// Moves everything. A SQLite source is renamed to `hub.sqlite.moved` then, lest a hub starts on it by mistake.
///
/// # Errors
/// A hub runs on one of them, the target is not empty, or one fails; the target is empty then, and the source untouched.
pub async fn transfer(from: &Location, to: &Location, progress: Progress<'_>) -> Result<(), TransferError> {
    let reading = |source| TransferError::Source { location: from.to_string(), source };
    let writing = |source| TransferError::Target { location: to.to_string(), source };
    if let Location::Sqlite(directory) = from
        && !directory.join(super::sqlite::FILE_NAME).is_file()
    {
        return Err(TransferError::NoSource(from.to_string()));
    }
    let mut source = claim(from).await.map_err(reading)?;
    let mut target = claim(to).await.map_err(writing)?;
    let tables = source.tables().await.map_err(reading)?;
    same(&tables, &target.tables().await.map_err(writing)?)?;
    for table in &tables {
        let rows = target.count(table).await.map_err(writing)?;
        if rows > 0 {
            return Err(TransferError::NotEmpty { table: table.name.clone(), rows });
        }
    }
    source.begin().await.map_err(reading)?;
    target.begin().await.map_err(writing)?;
    for table in &tables {
        let rows = source.count(table).await.map_err(reading)?;
        let (sender, mut batches) = mpsc::channel::<Batch>(2);
        let read = async { source.read(table, sender).await.map_err(reading) };
        let write = async {
            let mut done = 0;
            progress(&table.name, rows, done);
            while let Some(batch) = batches.recv().await {
                done += batch.rows as u64;
                target.write(table, batch).await.map_err(writing)?;
                progress(&table.name, rows, done);
            }
            Ok(())
        };
        tokio::try_join!(read, write)?;
        let written = target.count(table).await.map_err(writing)?;
        if written != rows {
            return Err(TransferError::Lost { table: table.name.clone(), read: rows, written });
        }
        if let Some(id) = source.last_id(table).await.map_err(reading)? {
            target.put_last_id(table, id).await.map_err(writing)?;
        }
    }
    target.commit().await.map_err(writing)?;
    target.close().await.map_err(writing)?;
    source.commit().await.map_err(reading)?;
    source.close().await.map_err(reading)?;
    if let Location::Sqlite(directory) = from {
        let file = directory.join(super::sqlite::FILE_NAME);
        let moved = std::fs::rename(&file, file.with_extension("sqlite.moved"));
        moved.map_err(|error| reading(StoreError::Database(sqlx::Error::Io(error))))?;
    }
    Ok(())
}

fn same(source: &[Table], target: &[Table]) -> Result<(), TransferError> {
    let differs = |table: &Table| Err(TransferError::Differs(table.name.clone()));
    if let Some(table) = source.iter().find(|table| !target.contains(table)) {
        return differs(table);
    }
    target.iter().find(|table| !source.contains(table)).map_or(Ok(()), differs)
}
