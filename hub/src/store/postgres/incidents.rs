//! Incidents.

use active_monitor_core::view::{Incident, IncidentPage};
use sqlx::postgres::PgPool;

use super::replicas::{Lease, fence};
use crate::store::incidents::{self, OPEN, Row};
use crate::store::queries::kept;
use crate::store::rows::{micros, parse};
use crate::store::{IncidentQuery, StoreError};

pub(super) async fn put(pool: &PgPool, lease: Option<&Lease>, rows: Vec<Row>) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    fence(&mut transaction, lease).await?;
    for Row { id, kind, first_seen, closed_at, incident } in rows {
        sqlx::query(
            "INSERT INTO incidents (id, kind, first_seen, closed_at, incident) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (id, first_seen) DO UPDATE SET closed_at = excluded.closed_at, incident = excluded.incident",
        )
        .bind(kept(&id))
        .bind(kind)
        .bind(micros(first_seen))
        .bind(closed_at.map(micros))
        .bind(incident)
        .execute(&mut *transaction)
        .await?;
    }
    Ok(transaction.commit().await?)
}

pub(super) async fn open(pool: &PgPool) -> Result<Vec<Incident>, StoreError> {
    let rows = sqlx::query_scalar::<_, String>(OPEN).fetch_all(pool).await?;
    rows.iter().map(|text| parse("incident", text)).collect()
}

pub(super) async fn page(pool: &PgPool, query: &IncidentQuery) -> Result<IncidentPage, StoreError> {
    incidents::page(query, incidents::select(query).build_query_as().fetch_all(pool).await?)
}
