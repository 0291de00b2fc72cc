//! What Git owns.

use active_monitor_core::gitops::plan::Ownership;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::rows::parse;
use crate::store::StoreError;

pub(super) async fn ownership(readers: &SqlitePool) -> Result<Option<Ownership>, StoreError> {
    let text = sqlx::query_scalar::<_, String>("SELECT ownership FROM source").fetch_optional(readers).await?;
    text.map(|text| parse("ownership of Git", &text)).transpose()
}

pub(super) async fn put_ownership(db: &mut SqliteConnection, ownership: Option<&str>) -> Result<(), sqlx::Error> {
    let change = match ownership {
        Some(text) => sqlx::query("INSERT OR REPLACE INTO source (id, ownership) VALUES (0, ?)").bind(text),
        None => sqlx::query("DELETE FROM source"),
    };
    change.execute(db).await.map(drop)
}
