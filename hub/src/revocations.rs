//! What was revoked, in a file of its own that no backup holds: a hub that is restored from a backup learns from it which
//! of the clusters and API tokens in there are no longer good.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::ca::write_private;
use crate::owner::ChangeError;
use crate::store::postgres::replicas::Replicas;
use crate::store::{Store, StoreError};
pub use shared::SharedError;

mod shared;

/// Name of the file in the data directory, where no other is given.
pub const FILE_NAME: &str = "revoked.json";
/// How much later than a removal a namesake is added at least: the store keeps no shorter time.
const TICK: Duration = Duration::from_millis(1);

/// Now, but later than what came before: clocks of replicas differ, and are set back.
pub(crate) fn later(now: Timestamp, before: Timestamp) -> Timestamp {
    now.max(before.saturating_add(TICK).unwrap_or(Timestamp::MAX))
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the revocations in {path} cannot be used")]
pub struct RevocationError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub source: io::Error,
}

/// When what was revoked. A namesake that was made later is another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Revoked {
    /// Clusters that were removed.
    #[serde(default)]
    clusters: BTreeMap<String, Timestamp>,
    /// Clusters whose identity was freed for a rebuilt one.
    #[serde(default)]
    bindings: BTreeMap<String, Timestamp>,
    /// API tokens that were deleted or replaced, by the SHA-256 of their text, in hex.
    #[serde(default)]
    tokens: BTreeMap<String, Timestamp>,
}

/// One thing that is revoked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// A cluster is removed.
    Cluster(&'a str),
    /// A cluster's identity is freed.
    Binding(&'a str),
    /// The API token with this hash is deleted or replaced.
    Token([u8; 32]),
}

impl Revoked {
    /// Where it is noted.
    fn place(&mut self, subject: Subject<'_>) -> (&mut BTreeMap<String, Timestamp>, String) {
        match subject {
            Subject::Cluster(name) => (&mut self.clusters, name.to_owned()),
            Subject::Binding(cluster) => (&mut self.bindings, cluster.to_owned()),
            Subject::Token(hash) => (&mut self.tokens, hex::encode(hash)),
        }
    }

    /// Notes a time, or none; returns what was noted before.
    fn set(&mut self, subject: Subject<'_>, at: Option<Timestamp>) -> Option<Timestamp> {
        let (times, key) = self.place(subject);
        match at {
            Some(at) => times.insert(key, at),
            None => times.remove(&key),
        }
    }

    /// Undoes what was noted at this time; another's later note stays.
    fn take_back(&mut self, subject: Subject<'_>, at: Timestamp, before: Option<Timestamp>) {
        let (times, key) = self.place(subject);
        if times.get(&key) == Some(&at) {
            self.set(subject, before);
        }
    }
}

/// The file, and what is in it.
#[derive(Debug)]
pub struct Revocations {
    path: PathBuf,
    revoked: Mutex<Revoked>,
    /// None where the hub is alone.
    replicas: Option<Arc<Replicas>>,
}

impl Revocations {
    /// Reads the file; there need not be one.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn load(path: &Path) -> Result<Revocations, RevocationError> {
        let failed = |source| RevocationError { path: path.to_owned(), source };
        let revoked = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Revoked::default(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Revocations { path: path.to_owned(), revoked: Mutex::new(revoked), replicas: None })
    }

    /// Notes what is revoked, then does it. The note is on the disk before: what a crash leaves undone, the next start does.
    /// It is taken back where the store has certainly not done it.
    ///
    /// # Errors
    /// It cannot be noted, and is not done; or the store fails.
    pub(crate) async fn revoke<T>(
        &self,
        subject: Subject<'_>,
        at: Timestamp,
        deed: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ChangeError> {
        let before = self.change(|revoked| revoked.set(subject, Some(at))).map_err(ChangeError::Revocation)?;
        let done = deed.await;
        if !done.as_ref().err().is_some_and(StoreError::is_undone) {
            self.share(subject, at).await;
        } else if let Err(error) = self.change(|revoked| revoked.take_back(subject, at, before)) {
            tracing::error!(%error, ?subject, "not revoked, but the next start will do it");
        }
        done.map_err(ChangeError::Store)
    }

    /// When a cluster that is added now is added: later than what was noted of a namesake also where the clock stepped back.
    /// The note itself stays, since an older store has that namesake.
    pub(crate) fn addition(&self, name: &str, now: Timestamp) -> Timestamp {
        let revoked = self.revoked.lock();
        let noted =
            [&revoked.clusters, &revoked.bindings].into_iter().filter_map(|times| times.get(name).copied()).max();
        noted.map_or(now, |noted| later(now, noted))
    }

    /// It is on the disk when this returns.
    fn change<T>(&self, change: impl FnOnce(&mut Revoked) -> T) -> Result<T, RevocationError> {
        let mut revoked = self.revoked.lock();
        let mut next = revoked.clone();
        let changed = change(&mut next);
        let failed = |source| RevocationError { path: self.path.clone(), source };
        let text = serde_json::to_vec_pretty(&next).map_err(|error| failed(error.into()))?;
        write_private(&self.path, &text).map_err(failed)?;
        *revoked = next;
        Ok(changed)
    }

    /// Does to the store what was revoked and is in it all the same: it is back from a time before.
    ///
    /// # Errors
    /// The store fails.
    pub async fn enforce(&self, store: &dyn Store) -> Result<(), StoreError> {
        let Revoked { clusters, bindings, tokens } = self.revoked.lock().clone();
        for record in store.clusters().await? {
            let name = &record.name;
            if clusters.get(name).is_some_and(|removed| record.created_at < *removed) {
                tracing::warn!(cluster = name, "removed again: it was revoked after this store's time");
                store.remove_cluster(name).await?;
                continue;
            }
            // One that was added since is another, whatever the clock said when it enrolled.
            let valid_from = record.valid_from.map_or(record.created_at, |from| from.max(record.created_at));
            if let Some(at) = bindings.get(name).filter(|at| valid_from < **at) {
                tracing::warn!(cluster = name, "its identity was freed after this store's time");
                store.unbind_cluster(name, *at).await?;
            }
        }
        for token in store.api_tokens().await? {
            if tokens.contains_key(&hex::encode(token.hash)) {
                tracing::warn!(token = token.name, "API token deleted again: it was revoked after this store's time");
                store.delete_api_token(&token.name).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use active_monitor_core::view::Role;

    use super::*;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{ApiToken, ClusterRecord};

    fn cluster(name: &str, created_at: Timestamp) -> ClusterRecord {
        let cluster_uid = Some("uid".to_owned());
        ClusterRecord { name: name.into(), created_at, cluster_uid, ..ClusterRecord::default() }
    }

    #[tokio::test]
    async fn what_was_revoked_stays_so_over_a_restore_and_a_later_namesake_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let store = SqliteStore::open(dir.path()).await.unwrap();
        let before = Timestamp::now() - Duration::from_secs(60);
        for name in ["kept", "removed", "rebound", "again"] {
            store.put_cluster(&cluster(name, before)).await.unwrap();
        }
        for (name, id) in [("ann", 1), ("bob", 2)] {
            let token = ApiToken { name: name.into(), role: Role::Admin, hash: [id; 32], created_at: before };
            store.put_api_token(&token).await.unwrap();
        }
        let revocations = Revocations::load(&path).unwrap();
        for subject in [Subject::Cluster("removed"), Subject::Binding("rebound"), Subject::Token([2; 32])] {
            revocations.revoke(subject, Timestamp::now(), async { Ok(()) }).await.unwrap();
        }
        let removed = store.remove_cluster("again");
        revocations.revoke(Subject::Cluster("again"), Timestamp::now(), removed).await.unwrap();
        let later = Timestamp::now() + Duration::from_secs(1);
        store.put_cluster(&cluster("again", later)).await.unwrap();

        let read = Revocations::load(&path).unwrap();
        for _ in 0..2 {
            read.enforce(&store).await.unwrap();
            let clusters = store.clusters().await.unwrap();
            let bound: Vec<(&str, bool)> =
                clusters.iter().map(|record| (record.name.as_str(), record.cluster_uid.is_some())).collect();
            assert_eq!(bound, [("again", true), ("kept", true), ("rebound", false)]);
            let tokens = store.api_tokens().await.unwrap();
            assert!(matches!(&tokens[..], [token] if token.name == "ann"), "{tokens:?}");
        }
        std::fs::write(&path, "{\"clusters\": 1}").unwrap();
        assert!(Revocations::load(&path).is_err(), "a hub does not start without knowing what was revoked");
    }

    #[tokio::test]
    async fn what_the_store_refused_is_not_done_at_the_next_start_and_what_it_may_have_done_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let revocations = Revocations::load(&path).unwrap();
        let (earlier, now) = (Timestamp::UNIX_EPOCH, Timestamp::now());
        let noted = || Revocations::load(&path).unwrap().revoked.lock().clone();
        let refused = || async { Err::<(), _>(StoreError::Commit("disk full".into())) };
        for subject in [Subject::Cluster("a"), Subject::Binding("a"), Subject::Token([1; 32])] {
            assert!(matches!(revocations.revoke(subject, now, refused()).await, Err(ChangeError::Store(_))));
            assert_eq!(noted(), Revoked::default(), "{subject:?}");
        }
        // What was noted for a namesake before stays noted.
        revocations.revoke(Subject::Cluster("a"), earlier, async { Ok(()) }).await.unwrap();
        revocations.revoke(Subject::Cluster("a"), now, refused()).await.unwrap_err();
        assert_eq!(noted().clusters["a"], earlier);
        let late = async { Err::<(), _>(StoreError::Late(Duration::from_secs(60))) };
        revocations.revoke(Subject::Cluster("a"), now, late).await.unwrap_err();
        assert_eq!(noted().clusters["a"], now, "perhaps it was done");
    }

    #[tokio::test]
    async fn a_namesake_stays_though_the_clock_stepped_back_and_the_removed_one_stays_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).await.unwrap();
        let revocations = Revocations::load(&dir.path().join(FILE_NAME)).unwrap();
        let removed = Timestamp::now();
        let stepped_back = removed - Duration::from_secs(3600);
        revocations.revoke(Subject::Cluster("a"), removed, async { Ok(()) }).await.unwrap();
        assert_eq!(revocations.addition("b", stepped_back), stepped_back);
        store.put_cluster(&cluster("a", revocations.addition("a", stepped_back))).await.unwrap();
        revocations.enforce(&store).await.unwrap();
        assert_eq!(store.clusters().await.unwrap().len(), 1);
        // The data base of a backup has the one that was removed.
        store.remove_cluster("a").await.unwrap();
        store.put_cluster(&cluster("a", stepped_back)).await.unwrap();
        revocations.enforce(&store).await.unwrap();
        assert_eq!(store.clusters().await.unwrap(), []);
    }
}
