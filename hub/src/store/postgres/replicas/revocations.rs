//! What was revoked at one replica and belongs into the file of each.

use jiff::Timestamp;
use sqlx::postgres::{PgPool, PgRow};

use crate::store::StoreError;
use crate::store::queries::kept;
use crate::store::rows::{micros, owned, time};

/// That something was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Of what kind it is.
    pub subject: String,
    /// Which one of these.
    pub key: String,
    /// When.
    pub at: Timestamp,
}

pub(super) async fn all(pool: &PgPool) -> Result<Vec<Revocation>, StoreError> {
    let rows = sqlx::query("SELECT subject, key, at FROM replica_revocations").fetch_all(pool).await?;
    let read =
        |row: &PgRow| Ok(Revocation { subject: owned(row, "subject")?, key: owned(row, "key")?, at: time(row, "at")? });
    rows.iter().map(read).collect()
}

/// The latest time stays.
pub(super) async fn put(pool: &PgPool, revoked: &[Revocation]) -> Result<(), StoreError> {
    if revoked.is_empty() {
        return Ok(());
    }
    let (mut subjects, mut keys, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for Revocation { subject, key, at } in revoked {
        subjects.push(kept(subject));
        keys.push(kept(key));
        times.push(micros(*at));
    }
    let put = "INSERT INTO replica_revocations AS old (subject, key, at) \
               SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) \
               ON CONFLICT (subject, key) DO UPDATE SET at = excluded.at WHERE old.at < excluded.at";
    sqlx::query(put).bind(subjects).bind(keys).bind(times).execute(pool).await?;
    Ok(())
}
