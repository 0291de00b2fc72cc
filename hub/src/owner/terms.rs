//! What the hub is told once, at its start.

use std::sync::Arc;
use std::time::Duration;

use crate::authority::Authority;
use crate::replicas::Peers;
use crate::revocations::Revocations;

/// What the hub promises and offers.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Silence after which a cluster is Unreachable.
    pub lease: Duration,
    /// Its CA, whose fingerprint is in tokens.
    pub authority: Arc<Authority>,
    /// `host:port` that agents dial for the session.
    pub agent_address: String,
    /// `host:port` that agents dial to enrol.
    pub enrolment_address: String,
    /// What was revoked.
    pub revocations: Arc<Revocations>,
    /// Shows whether the hub came back from the past and nobody has confirmed it.
    pub restore_unconfirmed: prometheus::IntGauge,
    /// The other replicas; none where the hub is alone.
    pub peers: Option<Arc<Peers>>,
}

#[cfg(test)]
impl Terms {
    /// Those of a hub whose data directory is this one.
    pub(crate) fn of_a_test(data: &std::path::Path) -> Terms {
        let authority = Authority::load(data, crate::ca::AGENT_LIFE, jiff::Timestamp::now()).unwrap();
        let revocations = Revocations::load(&data.join(crate::revocations::FILE_NAME)).unwrap();
        Terms {
            lease: Duration::from_secs(15),
            authority: Arc::new(authority),
            agent_address: "hub:7443".to_owned(),
            enrolment_address: "hub:7444".to_owned(),
            restore_unconfirmed: prometheus::IntGauge::new("unconfirmed", "1 or 0").unwrap(),
            revocations: Arc::new(revocations),
            peers: None,
        }
    }
}
