//! A store that can be opened and opened again, whatever is behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_hub::store::location::{Location, Opened, StoreUrl};
use active_monitor_hub::store::{Store, StoreError};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::postgres::Database;

/// What a migration of a newer version may do, whose hub has the version before it for a neighbour.
pub(crate) const NEWER: &str = "\
    DO $$ DECLARE name TEXT; BEGIN
      FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations' LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN newer BIGINT NOT NULL DEFAULT 7', name);
      END LOOP;
    END $$;
    CREATE TABLE newer (id BIGINT PRIMARY KEY)";

/// Where a store of a test is.
pub(crate) enum Backend {
    Sqlite(TempDir),
    Postgres(Database),
}

/// A store that is open until it is closed or dropped.
pub(crate) struct Open {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) claim: Option<tokio::task::JoinHandle<Result<(), StoreError>>>,
    stop: CancellationToken,
}

impl Backend {
    pub(crate) fn sqlite() -> Backend {
        Backend::Sqlite(TempDir::new().unwrap())
    }

    pub(crate) async fn postgres(test: &str) -> Option<Backend> {
        Some(Backend::Postgres(Database::create(test).await?))
    }

    /// Each table has a column that this version knows nothing of.
    pub(crate) async fn of_a_newer_version(test: &str) -> Option<Backend> {
        let backend = Backend::postgres(test).await?;
        backend.open().await.close().await;
        if let Backend::Postgres(database) = &backend {
            sqlx::raw_sql(NEWER).execute(&mut database.connect().await).await.unwrap();
        }
        Some(backend)
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Backend::Sqlite(directory) => format!("sqlite:{}", directory.path().display()),
            Backend::Postgres(database) => database.url(),
        }
    }

    pub(crate) fn location(&self) -> Location {
        self.url().parse::<StoreUrl>().unwrap().location().unwrap()
    }

    /// Opens the store; one that was just closed may take a moment to be free.
    pub(crate) async fn open(&self) -> Open {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.location().open().await {
                Ok(opened) => return Open::of(opened),
                Err(StoreError::InUse | StoreError::Locked { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("not opened: {error:?}"),
            }
        }
    }
}

impl Open {
    fn of(opened: Opened) -> Open {
        let stop = CancellationToken::new();
        let claim = opened.claim.map(|hold| tokio::spawn(hold(stop.clone())));
        Open { store: opened.store, claim, stop }
    }

    /// Ends the claim as a hub does that stops.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        drop(self.store);
        if let Some(claim) = self.claim {
            claim.await.unwrap().unwrap();
        }
    }
}
