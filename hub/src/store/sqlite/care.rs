//! Maintenance windows and acknowledgements.

use active_monitor_core::care::{Acknowledgement, WindowSpec};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::rows::parse;
use crate::store::{CheckKey, StoreError};

pub(super) async fn windows(readers: &SqlitePool) -> Result<Vec<WindowSpec>, StoreError> {
    let rows = sqlx::query_scalar::<_, String>("SELECT spec FROM windows ORDER BY name").fetch_all(readers).await?;
    rows.iter().map(|text| parse("maintenance window", text)).collect()
}

pub(super) async fn put_window(db: &mut SqliteConnection, name: &str, spec: Option<&str>) -> Result<(), sqlx::Error> {
    let change = match spec {
        Some(spec) => sqlx::query("INSERT OR REPLACE INTO windows (name, spec) VALUES (?, ?)").bind(name).bind(spec),
        None => sqlx::query("DELETE FROM windows WHERE name = ?").bind(name),
    };
    change.execute(db).await.map(drop)
}

pub(super) async fn acknowledgements(readers: &SqlitePool) -> Result<Vec<(CheckKey, Acknowledgement)>, StoreError> {
    let rows = sqlx::query_as::<_, (String, String, String, String)>(
        "SELECT cluster, namespace, name, acknowledgement FROM acknowledgements",
    );
    let rows = rows.fetch_all(readers).await?.into_iter();
    let read = |(cluster, namespace, name, text): (String, String, String, String)| {
        Ok((CheckKey { cluster, namespace, name }, parse("acknowledgement", &text)?))
    };
    rows.map(read).collect()
}

pub(super) async fn put_acknowledgement(
    db: &mut SqliteConnection,
    key: &CheckKey,
    acknowledgement: Option<&str>,
) -> Result<(), sqlx::Error> {
    let CheckKey { cluster, namespace, name } = key;
    let change = match acknowledgement {
        Some(text) => sqlx::query(
            "INSERT OR REPLACE INTO acknowledgements (cluster, namespace, name, acknowledgement) VALUES (?, ?, ?, ?)",
        )
        .bind(cluster)
        .bind(namespace)
        .bind(name)
        .bind(text),
        None => sqlx::query("DELETE FROM acknowledgements WHERE cluster = ? AND namespace = ? AND name = ?")
            .bind(cluster)
            .bind(namespace)
            .bind(name),
    };
    change.execute(db).await.map(drop)
}
