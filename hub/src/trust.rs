//! Whose certificate is taken, and who gets the next one. Reads the clusters' records; the store has the keys.
//!
//! A certificate of the hub's CA is not enough: it must be the newest that the cluster has, or the one before it, since
//! the answer that carried a newer one may be lost. What a removal, a new token or a rebind has replaced is refused.

use std::sync::Arc;

use active_monitor_proto::CertificateReply;
use jiff::Timestamp;
use tonic::Status;

use crate::authority::{Authority, Trust};
use crate::ca::{AgentIdentity, SigningRequest};
use crate::clock;
use crate::desired::Stale;
use crate::owner::FleetHandle;
use crate::store::{AgentKey, ClusterRecord};

/// Why a certificate is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrust {
    /// No such cluster.
    #[error("the hub does not know this cluster, or removed it")]
    Unknown,
    /// The cluster was added again, bound again or enrolled again since.
    #[error("the certificate was replaced by a new enrolment of this cluster")]
    Replaced,
    /// It has expired, and the cluster has a newer one.
    #[error("the certificate has expired, and another key has taken its place")]
    Superseded,
}

/// Whether a certificate may speak for its cluster. TLS has checked its time when the connection was made; the connection
/// may outlive it.
pub(crate) fn admit(record: Option<&ClusterRecord>, identity: &AgentIdentity) -> Result<(), Distrust> {
    let record = record.ok_or(Distrust::Unknown)?;
    // Which keys are the cluster's is known, whatever the clock said when their certificates were made. A hub that was
    // restored from a backup knows the older ones only: a later certificate is of the same cluster.
    let is_later = identity.issued_at.as_second() > valid_from(record);
    if is_later || has_key(&record.agent_keys, identity) { Ok(()) } else { Err(Distrust::Replaced) }
}

/// Whether `judge` admits a certificate. Another replica may have bound the cluster a moment ago: before this one refuses,
/// it reads the records again.
pub(crate) async fn admitted(
    fleet: &FleetHandle,
    identity: &AgentIdentity,
    judge: impl Fn(Option<&ClusterRecord>, &AgentIdentity) -> Result<(), Distrust>,
) -> Result<(), Distrust> {
    let admitted = judge(fleet.records().get(&identity.cluster), identity);
    if admitted.is_ok() || fleet.peers().is_none() {
        return admitted;
    }
    if let Err(error) = fleet.reload(Stale { clusters: true, ..Stale::default() }).await {
        tracing::warn!(%error, "the records of clusters are not read again");
    }
    judge(fleet.records().get(&identity.cluster), identity)
}

/// The second before which no certificate of the cluster counts.
fn valid_from(record: &ClusterRecord) -> i64 {
    record.valid_from.unwrap_or(record.created_at).max(record.created_at).as_second()
}

/// The keys that are kept once a certificate is issued for this one: it and the one before it, since the answer that
/// carries it may be lost; that of the enrolment, which the session that it opened goes by for as long as it lasts; and the
/// latest by a clock that was ahead, so that what ends all of them is later still. The same key again is the same answer
/// asked for again.
pub(crate) fn keys_with(record: &ClusterRecord, key: AgentKey) -> Vec<AgentKey> {
    let enrolled = record.valid_from.map(Timestamp::as_second);
    let latest = record.agent_keys.iter().map(|known| known.issued_at).max().filter(|latest| *latest > key.issued_at);
    let mut keys: Vec<AgentKey> = record.agent_keys.iter().filter(|known| known.hash != key.hash).cloned().collect();
    let before = keys.pop();
    keys.retain(|known| Some(known.issued_at.as_second()) == enrolled || Some(known.issued_at) == latest);
    keys.extend(before);
    keys.push(key);
    keys
}

/// The same for a certificate whose time may be over.
pub(crate) fn admit_expired(
    record: Option<&ClusterRecord>,
    identity: &AgentIdentity,
    now: Timestamp,
) -> Result<(), Distrust> {
    admit(record, identity)?;
    let record = record.ok_or(Distrust::Unknown)?;
    // A hub that was restored from a backup does not know the newest key: issued later than all it knows, it is that.
    let newest = record.agent_keys.last().map(|key| key.issued_at.as_second());
    let is_newest = newest.is_none_or(|newest| identity.issued_at.as_second() > newest);
    let recent = &record.agent_keys[record.agent_keys.len().saturating_sub(2)..];
    if identity.not_after <= now && !has_key(recent, identity) && !is_newest {
        return Err(Distrust::Superseded);
    }
    Ok(())
}

fn has_key(keys: &[AgentKey], identity: &AgentIdentity) -> bool {
    keys.iter().any(|key| key.hash == identity.key_hash)
}

/// Signs the next certificates.
#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) authority: Arc<Authority>,
    pub(crate) fleet: FleetHandle,
}

impl Issuer {
    /// A certificate for the key of a signing request, for a cluster whose present certificate was admitted. It is on
    /// the hub's disk which key that is before the answer goes out.
    pub(crate) async fn next(&self, identity: &AgentIdentity, csr: &[u8]) -> Result<CertificateReply, Status> {
        let cluster = &identity.cluster;
        let request = SigningRequest::parse(csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let now = clock::now();
        let trust = self.authority.trust();
        let certificate = trust.ca.issue_agent(cluster, &request, now).map_err(|error| {
            tracing::error!(cluster, ?error, "certificate not made");
            Status::internal(error.to_string())
        })?;
        let key = Self::key(&trust, &request, now);
        self.fleet.issued(cluster, key).await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(CertificateReply { certificate, ca: trust.bundle() })
    }

    /// What is kept of a certificate that is issued at `now`.
    pub(crate) fn key(trust: &Trust, request: &SigningRequest, now: Timestamp) -> AgentKey {
        let not_after = now.checked_add(trust.ca.agent_life()).unwrap_or(Timestamp::MAX);
        AgentKey { hash: request.key_hash(), issued_at: now, not_after, bundle: Some(trust.bundle_hash()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn key(id: u8, issued: i64) -> AgentKey {
        AgentKey { hash: [id; 32], issued_at: at(issued), not_after: at(issued + 100), bundle: None }
    }

    fn certificate(id: u8, issued: i64) -> AgentIdentity {
        AgentIdentity { cluster: "c1".into(), issued_at: at(issued), not_after: at(issued + 100), key_hash: [id; 32] }
    }

    #[test]
    fn the_newest_key_and_the_one_before_it_come_back_after_any_time() {
        let record =
            ClusterRecord { created_at: at(0), agent_keys: vec![key(2, 60), key(3, 120)], ..ClusterRecord::default() };
        let late = at(1_000_000);
        for (certificate, now, expected) in [
            (certificate(3, 120), at(130), Ok(())),
            (certificate(3, 120), late, Ok(())),
            (certificate(2, 60), late, Ok(())),
            (certificate(1, 10), at(100), Ok(())),
            (certificate(1, 10), late, Err(Distrust::Superseded)),
            // Issued after the backup that this hub was restored from.
            (certificate(9, 500), late, Ok(())),
            (certificate(9, -1), at(5), Err(Distrust::Replaced)),
            // The clock was set back in between.
            (certificate(3, -1), at(5), Ok(())),
            (certificate(9, 0), at(5), Err(Distrust::Replaced)),
        ] {
            assert_eq!(admit_expired(Some(&record), &certificate, now), expected, "{certificate:?}");
        }
        assert_eq!(admit(None, &certificate(3, 120)), Err(Distrust::Unknown));
    }

    /// A session goes by the certificate that opened it, however often it was renewed since.
    #[test]
    fn the_session_of_the_enrolment_renews_for_as_long_as_it_lasts() {
        let enrolment = key(1, 0);
        let mut record =
            ClusterRecord { valid_from: Some(at(0)), agent_keys: vec![enrolment], ..ClusterRecord::default() };
        for id in 2..9 {
            record.agent_keys = keys_with(&record, key(id, i64::from(id) * 60));
            assert_eq!(admit(Some(&record), &certificate(1, 0)), Ok(()), "after renewal {id}");
        }
        let ids: Vec<u8> = record.agent_keys.iter().map(|key| key.hash[0]).collect();
        assert_eq!(ids, [1, 7, 8]);
        let late = admit_expired(Some(&record), &certificate(1, 0), at(1_000_000));
        assert_eq!(late, Err(Distrust::Superseded), "but a new connection needs a newer key");
        assert_eq!(keys_with(&record, key(8, 480)).len(), 3, "asked for again");
    }

    #[test]
    fn a_cluster_that_enrols_after_the_clock_was_set_back_is_admitted_and_its_first_session_renews() {
        let mut record = ClusterRecord {
            created_at: at(3600),
            valid_from: Some(at(5)),
            agent_keys: vec![key(1, 5)],
            ..ClusterRecord::default()
        };
        for id in 2..5 {
            assert_eq!(admit(Some(&record), &certificate(1, 5)), Ok(()), "before renewal {id}");
            record.agent_keys = keys_with(&record, key(id, i64::from(id) * 10));
            assert_eq!(admit(Some(&record), &certificate(id, i64::from(id) * 10)), Ok(()), "renewal {id}");
        }
        assert_eq!(admit(Some(&record), &certificate(9, 5)), Err(Distrust::Replaced), "a removed namesake's");
    }

    #[test]
    fn a_key_of_a_clock_that_was_ahead_is_remembered_so_that_a_rebind_is_later() {
        let mut record =
            ClusterRecord { valid_from: Some(at(0)), agent_keys: vec![key(1, 0)], ..ClusterRecord::default() };
        for (id, issued) in [(2, 3600), (3, 3660), (4, 120), (5, 180), (6, 240)] {
            record.agent_keys = keys_with(&record, key(id, issued));
        }
        let ids: Vec<u8> = record.agent_keys.iter().map(|key| key.hash[0]).collect();
        assert_eq!(ids, [1, 3, 5, 6]);
        record.agent_keys = keys_with(&record, key(7, 3700));
        record.agent_keys = keys_with(&record, key(8, 3760));
        assert_eq!(record.agent_keys.len(), 3, "the clock has come that far");
    }

    #[test]
    fn what_a_rebind_replaced_is_refused_whatever_its_age() {
        let record = ClusterRecord {
            created_at: at(0),
            valid_from: Some(at(200)),
            agent_keys: vec![key(4, 200)],
            ..ClusterRecord::default()
        };
        assert_eq!(admit(Some(&record), &certificate(3, 199)), Err(Distrust::Replaced));
        assert_eq!(admit(Some(&record), &certificate(3, 200)), Err(Distrust::Replaced));
        assert_eq!(admit(Some(&record), &certificate(4, 200)), Ok(()));
    }
}
