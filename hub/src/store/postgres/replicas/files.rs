//! The files of the data directory that replicas share.

use std::collections::BTreeMap;

use sqlx::postgres::{PgExecutor, PgPool};

use crate::store::StoreError;

pub(super) async fn all(db: impl PgExecutor<'_>) -> Result<BTreeMap<String, String>, StoreError> {
    let files = sqlx::query_as::<_, (String, String)>("SELECT name, content FROM replica_files").fetch_all(db).await?;
    Ok(files.into_iter().collect())
}

pub(super) async fn put(
    pool: &PgPool,
    before: &BTreeMap<String, String>,
    files: &BTreeMap<String, String>,
) -> Result<bool, StoreError> {
    let mut transaction = pool.begin().await?;
    // One after the other; who reads is not held up.
    sqlx::query("LOCK TABLE replica_files IN EXCLUSIVE MODE").execute(&mut *transaction).await?;
    if all(&mut *transaction).await? != *before {
        return Ok(false);
    }
    sqlx::query("DELETE FROM replica_files").execute(&mut *transaction).await?;
    let (names, contents): (Vec<&String>, Vec<&String>) = files.iter().unzip();
    let insert = "INSERT INTO replica_files (name, content) SELECT * FROM unnest($1::text[], $2::text[])";
    sqlx::query(insert).bind(names).bind(contents).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}
