//! Maintenance windows and acknowledgements.

use active_monitor_core::care::{Acknowledgement, WindowSpec};
use sqlx::postgres::PgPool;

use super::replicas::{Lease, fence};
use crate::store::queries::kept;
use crate::store::rows::{json, parse};
use crate::store::{CheckKey, StoreError};

pub(super) async fn windows(pool: &PgPool) -> Result<Vec<WindowSpec>, StoreError> {
    let rows = sqlx::query_scalar::<_, String>("SELECT spec FROM windows ORDER BY name").fetch_all(pool).await?;
    rows.iter().map(|text| parse("maintenance window", text)).collect()
}

pub(super) async fn put_window(pool: &PgPool, name: &str, spec: Option<&WindowSpec>) -> Result<(), StoreError> {
    let change = match spec {
        Some(spec) => sqlx::query(
            "INSERT INTO windows (name, spec) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET spec = excluded.spec",
        )
        .bind(kept(name))
        .bind(json(spec)?),
        None => sqlx::query("DELETE FROM windows WHERE name = $1").bind(kept(name)),
    };
    change.execute(pool).await?;
    Ok(())
}

pub(super) async fn acknowledgements(pool: &PgPool) -> Result<Vec<(CheckKey, Acknowledgement)>, StoreError> {
    let rows = sqlx::query_as::<_, (String, String, String, String)>(
        "SELECT cluster, namespace, name, acknowledgement FROM acknowledgements",
    );
    let rows = rows.fetch_all(pool).await?.into_iter();
    let read = |(cluster, namespace, name, text): (String, String, String, String)| {
        Ok((CheckKey { cluster, namespace, name }, parse("acknowledgement", &text)?))
    };
    rows.map(read).collect()
}

pub(super) async fn put_acknowledgement(
    pool: &PgPool,
    lease: Option<&Lease>,
    key: &CheckKey,
    acknowledgement: Option<&Acknowledgement>,
) -> Result<(), StoreError> {
    let change = match acknowledgement {
        Some(_) => sqlx::query(
            "INSERT INTO acknowledgements (cluster, namespace, name, acknowledgement) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (cluster, namespace, name) DO UPDATE SET acknowledgement = excluded.acknowledgement",
        ),
        None => sqlx::query("DELETE FROM acknowledgements WHERE cluster = $1 AND namespace = $2 AND name = $3"),
    };
    let CheckKey { cluster, namespace, name } = key;
    let change = change.bind(kept(cluster)).bind(kept(namespace)).bind(kept(name));
    let change = match acknowledgement {
        Some(acknowledgement) => change.bind(json(acknowledgement)?),
        None => change,
    };
    let mut transaction = pool.begin().await?;
    fence(&mut transaction, lease).await?;
    change.execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}
