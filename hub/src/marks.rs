//! Marks: by them the hub notices that its store came back from the past, whoever brought it back.
//!
//! Each set of definitions that goes to a cluster carries a mark, a number that grows, and the store has it before. The
//! agent says its latest in Hello. Is it later than what the store remembers, the store has forgotten something. A mark
//! is sealed for its cluster: no agent can make one up, and one of another hub means nothing.

use active_monitor_core::view::Restore;
use aws_lc_rs::hmac;
use jiff::Timestamp;
use rand::RngCore;

use crate::store::{Store, StoreError};

/// Name of the key that marks are sealed with.
const SECRET: &str = "marks";

/// Seals and opens marks.
#[derive(Debug)]
pub(crate) struct Marks {
    key: hmac::Key,
}

impl Marks {
    /// With the store's key, which is made at the first start.
    pub(crate) async fn load(store: &dyn Store) -> Result<Marks, StoreError> {
        let mut fresh = [0_u8; 32];
        rand::rng().fill_bytes(&mut fresh);
        let secret = store.secret(SECRET, fresh).await?;
        Ok(Marks { key: hmac::Key::new(hmac::HMAC_SHA256, &secret) })
    }

    /// The mark as the agent gets it.
    fn seal(&self, cluster: &str, mark: u64) -> String {
        let tag = hmac::sign(&self.key, format!("{cluster}/{mark}").as_bytes());
        format!("{mark}.{}", hex::encode(tag))
    }

    /// The number of a mark that was sealed here for this cluster.
    fn open(&self, cluster: &str, sealed: &str) -> Option<u64> {
        let (mark, tag) = sealed.split_once('.')?;
        let tag = hex::decode(tag).ok()?;
        hmac::verify(&self.key, format!("{cluster}/{mark}").as_bytes(), &tag).ok()?;
        mark.parse().ok()
    }

    /// A further mark for the cluster; the store has it when this returns.
    pub(crate) async fn next(&self, store: &dyn Store, cluster: &str) -> Result<String, StoreError> {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let mark = now.max(store.mark(cluster).await?.saturating_add(1));
        store.put_mark(cluster, mark).await?;
        Ok(self.seal(cluster, mark))
    }

    /// What an agent's Hello tells of this store: that it came back from the past.
    pub(crate) async fn forgotten(
        &self,
        store: &dyn Store,
        cluster: &str,
        sealed: &str,
    ) -> Result<Option<Restore>, StoreError> {
        let Some(said) = self.open(cluster, sealed) else { return Ok(None) };
        let known = store.mark(cluster).await?;
        if said <= known {
            return Ok(None);
        }
        let ago = said.saturating_sub(known) / 1000;
        let reason = match known {
            0 => format!("cluster {cluster} has definitions from this hub that it does not remember giving"),
            _ => format!("cluster {cluster} was given definitions {ago} s later than this hub remembers"),
        };
        Ok(Some(Restore { noticed_at: Timestamp::now(), reason }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_good_for_its_cluster_and_its_hub_and_for_no_other() {
        let marks = |secret: &[u8]| Marks { key: hmac::Key::new(hmac::HMAC_SHA256, secret) };
        let (ours, other) = (marks(&[1; 32]), marks(&[2; 32]));
        let sealed = ours.seal("c1", 1_800_000_000_000);
        assert_eq!(ours.open("c1", &sealed), Some(1_800_000_000_000));
        assert_eq!(ours.open("c10", &sealed), None);
        assert_eq!(other.open("c1", &sealed), None);
        let later = sealed.replace("1800", "1900");
        for made_up in ["", ".", "1", "1.", "1.zz", "18446744073709551615.00", later.as_str()] {
            assert_eq!(ours.open("c1", made_up), None, "{made_up}");
        }
    }
}
