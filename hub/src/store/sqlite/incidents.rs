//! Incidents.

use active_monitor_core::view::{Incident, IncidentPage};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::rows::{micros, parse};
use crate::store::incidents::{self, OPEN, Row};
use crate::store::{IncidentQuery, StoreError};

pub(super) async fn put(db: &mut SqliteConnection, rows: Vec<Row>) -> Result<(), sqlx::Error> {
    for Row { id, kind, first_seen, closed_at, incident } in rows {
        sqlx::query(
            "INSERT INTO incidents (id, kind, first_seen, closed_at, incident) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (id, first_seen) DO UPDATE SET closed_at = excluded.closed_at, incident = excluded.incident",
        )
        .bind(id)
        .bind(kind)
        .bind(micros(first_seen))
        .bind(closed_at.map(micros))
        .bind(incident)
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

pub(super) async fn open(readers: &SqlitePool) -> Result<Vec<Incident>, StoreError> {
    let rows = sqlx::query_scalar::<_, String>(OPEN).fetch_all(readers).await?;
    rows.iter().map(|text| parse("incident", text)).collect()
}

pub(super) async fn page(readers: &SqlitePool, query: &IncidentQuery) -> Result<IncidentPage, StoreError> {
    incidents::page(query, incidents::select(query).build_query_as().fetch_all(readers).await?)
}
