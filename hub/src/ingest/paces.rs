//! How fast each cluster is read: a bucket that lasts longer than a session, so that dialling again fills none.

use std::collections::BTreeMap;
use std::time::Duration;

use active_monitor_core::session::pace::Pace;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(super) struct Paces {
    began: Instant,
    clusters: Mutex<BTreeMap<String, Pace>>,
}

impl Paces {
    pub(super) fn new() -> Paces {
        Paces { began: Instant::now(), clusters: Mutex::default() }
    }

    /// Pays for what was read of a cluster; how long to wait before the next is read.
    pub(super) fn take(&self, cluster: &str, tokens: u64) -> Duration {
        let now = self.began.elapsed();
        let mut clusters = self.clusters.lock();
        match clusters.get_mut(cluster) {
            Some(pace) => pace.take(now, tokens),
            None => clusters.entry(cluster.to_owned()).or_insert_with(|| Pace::new(now)).take(now, tokens),
        }
    }

    /// A session of the cluster is over: a full bucket need not be kept.
    pub(super) fn forget_full(&self, cluster: &str) {
        let now = self.began.elapsed();
        let mut clusters = self.clusters.lock();
        if clusters.get_mut(cluster).is_some_and(|pace| pace.is_full(now)) {
            clusters.remove(cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use active_monitor_core::session::pace::BURST;

    use super::*;

    #[test]
    fn dialling_again_fills_no_bucket_and_one_cluster_pays_for_no_other() {
        let paces = Paces::new();
        assert!(paces.take("a", BURST * 100) > Duration::from_secs(60));
        paces.forget_full("a");
        assert!(paces.take("a", 1) > Duration::from_secs(60));
        assert_eq!(paces.take("b", BURST), Duration::ZERO);
    }
}
