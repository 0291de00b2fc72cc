//! Where a cluster gets its first certificate: a one-time token for a signed key; and where one whose certificate has
//! expired gets the next, by proving its key.
//!
//! Whoever has no valid token learns nothing here, not even which clusters there are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use active_monitor_core::names;
use active_monitor_core::view::{EnrolmentDecision, PendingEnrolment};
use active_monitor_proto::{CertificateReply, EnrolRequest, Enrolment, RenewRequest};
use active_monitor_runtime::tls::Peer;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tonic::{Request, Response, Status};

use crate::auth::limit::LoginLimit;
use crate::ca::{self, CaError, SigningRequest};
use crate::clock;
use crate::desired::Asks;
use crate::owner::ChangeError;
use crate::refusals::{Refusals, Refused};
use crate::store::{AuditEntry, EnrolmentToken, Spend, Store};
use crate::trust::{self, Distrust, Issuer};

/// The longest uid of a cluster; Kubernetes makes 36 characters.
const MAX_UID_BYTES: usize = 64;

/// Why a cluster does not get a certificate.
#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error("too many wrong tokens from this address; try again in {0} s")]
    TooMany(u64),
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("no such token")]
    NoSuchToken,
    #[error("the token has expired; make a new one")]
    Expired,
    #[error("the token was used already")]
    Used,
    #[error("the name is bound to another cluster (its kube-system namespace has another uid)")]
    OtherUid,
    #[error("a person has to approve this key: `fleetcheck cluster approve {0}`")]
    Waiting(String),
    #[error("another key waits for approval with this token; if you do not know it, deny it and make a new token")]
    OtherWaits,
    #[error("a person denied this enrolment; make a new token")]
    Denied,
    #[error("no certificate of a cluster was shown")]
    NoCertificate,
    #[error(transparent)]
    Distrusted(Distrust),
    #[error("the certificate cannot be made")]
    Certificate(#[source] CaError),
    #[error("the hub cannot store it")]
    Store(#[source] crate::store::StoreError),
    #[error("the hub is stopping")]
    Stopping,
}

impl From<EnrolError> for Status {
    fn from(error: EnrolError) -> Status {
        let text = error.to_string();
        match error {
            EnrolError::TooMany(_) => Status::resource_exhausted(text),
            EnrolError::BadRequest(_) => Status::invalid_argument(text),
            EnrolError::NoSuchToken | EnrolError::NoCertificate => Status::unauthenticated(text),
            EnrolError::Expired | EnrolError::Used | EnrolError::OtherWaits => Status::failed_precondition(text),
            EnrolError::Waiting(_) => Status::aborted(text),
            EnrolError::Denied => Status::permission_denied(text),
            EnrolError::OtherUid | EnrolError::Distrusted(_) => Status::permission_denied(text),
            EnrolError::Certificate(CaError::Request(_)) => Status::invalid_argument(text),
            EnrolError::Certificate(_) | EnrolError::Store(_) => Status::internal(text),
            EnrolError::Stopping => Status::unavailable(text),
        }
    }
}

/// The enrolment service.
pub struct EnrolmentService {
    issuer: Issuer,
    store: Arc<dyn Store>,
    refusals: Refusals,
    limit: LoginLimit,
    require_approval: bool,
}

impl EnrolmentService {
    /// The service over this CA and store.
    pub(crate) fn new(
        issuer: Issuer,
        store: Arc<dyn Store>,
        refusals: Refusals,
        require_approval: bool,
    ) -> EnrolmentService {
        EnrolmentService { issuer, store, refusals, limit: LoginLimit::default(), require_approval }
    }

    async fn try_enrol(&self, request: EnrolRequest) -> Result<CertificateReply, EnrolError> {
        let EnrolRequest { token, cluster, cluster_uid, csr } = request;
        names::dns_label(&cluster).map_err(|_| EnrolError::BadRequest("cluster is no DNS label"))?;
        if cluster_uid.is_empty() || cluster_uid.len() > MAX_UID_BYTES {
            return Err(EnrolError::BadRequest("cluster_uid must have 1 to 64 bytes"));
        }
        let now = clock::now();
        let known = self.token(&cluster, &token).await?;
        if known.expires_at <= now {
            return Err(EnrolError::Expired);
        }
        // No earlier than its last binding ended, by whichever clock: else that would seem to have ended it.
        let bound = self.issuer.fleet.records().get(&cluster).and_then(|record| record.valid_from);
        let now = bound.map_or(now, |bound| now.max(bound));
        let request = SigningRequest::parse(&csr).map_err(EnrolError::Certificate)?;
        self.approved(&cluster, &known, request.key_hash(), &cluster_uid, now).await?;
        // Made before the token is spent: a token must not be lost to a name that no certificate takes.
        let trust = self.issuer.authority.trust();
        let certificate = trust.ca.issue_agent(&cluster, &request, now).map_err(EnrolError::Certificate)?;
        let key = Issuer::key(&trust, &request, now);
        let spend = self.store.spend_enrolment_token(&cluster, known.hash, &key, &cluster_uid).await;
        match spend.map_err(EnrolError::Store)? {
            Spend::Spent => {}
            Spend::Taken => return Err(EnrolError::Used),
            Spend::OtherUid => return Err(EnrolError::OtherUid),
        }
        self.issuer.fleet.bound(&cluster, &cluster_uid, key).await.map_err(|_| EnrolError::Stopping)?;
        tracing::info!(cluster, cluster_uid, "enrolled");
        let entry = AuditEntry { at: now, who: "enrolment".into(), action: "cluster.enrol".into(), object: cluster };
        self.store.audit(&entry).await.map_err(EnrolError::Store)?;
        Ok(CertificateReply { certificate, ca: trust.bundle() })
    }

    /// Whether the key may have a certificate, where that takes a person's approval. What has spent the token was approved.
    async fn approved(
        &self,
        cluster: &str,
        token: &EnrolmentToken,
        key_hash: [u8; 32],
        cluster_uid: &str,
        now: Timestamp,
    ) -> Result<(), EnrolError> {
        if !self.require_approval || token.spent_by.is_some() {
            return Ok(());
        }
        let asks = PendingEnrolment {
            key_fingerprint: hex::encode(key_hash),
            cluster_uid: cluster_uid.to_owned(),
            since: now,
            expires_at: token.expires_at,
            decision: None,
        };
        let asked = self.issuer.fleet.ask_approval(Asks { cluster: cluster.to_owned(), pending: asks.clone() }).await;
        let first = asked.map_err(|error| match error {
            ChangeError::Store(error) => EnrolError::Store(error),
            ChangeError::NotFound { .. } => EnrolError::NoSuchToken,
            ChangeError::Conflict(_)
            | ChangeError::Unexpected(_)
            | ChangeError::Invalid(_)
            | ChangeError::Revocation(_)
            | ChangeError::Stopping => EnrolError::Stopping,
        })?;
        let is_same = (&first.key_fingerprint, &first.cluster_uid) == (&asks.key_fingerprint, &asks.cluster_uid);
        match first.decision {
            Some(EnrolmentDecision::Denied) => Err(EnrolError::Denied),
            _ if !is_same => Err(EnrolError::OtherWaits),
            Some(EnrolmentDecision::Approved) => Ok(()),
            None => Err(EnrolError::Waiting(cluster.to_owned())),
        }
    }

    /// The token of the cluster if the secret is its. Takes as long for a name that is not known.
    async fn token(&self, cluster: &str, secret: &str) -> Result<EnrolmentToken, EnrolError> {
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let known = self.store.enrolment_token(cluster).await.map_err(EnrolError::Store)?;
        let expected = known.as_ref().map_or([0; 32], |token| token.hash);
        let equal = bool::from(expected.ct_eq(&hash));
        known.filter(|_| equal).ok_or(EnrolError::NoSuchToken)
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<CertificateReply>, Status> {
        let peer = peer_address(request.extensions());
        let now = Instant::now();
        if let Some(wait) = peer.and_then(|peer| self.limit.wait(peer, now)) {
            self.refusals.count(Refused::TooManyTries);
            return Err(EnrolError::TooMany(wait.as_secs() + 1).into());
        }
        let request = request.into_inner();
        let cluster = request.cluster.clone();
        match self.try_enrol(request).await {
            Ok(reply) => Ok(Response::new(reply)),
            // Asked again and again, and no refusal.
            Err(error @ EnrolError::Waiting(_)) => Err(error.into()),
            Err(error) => {
                if let (EnrolError::NoSuchToken, Some(peer)) = (&error, peer) {
                    self.limit.failed(peer, now);
                }
                self.refusals.count(Refused::Enrolment);
                let cluster = active_monitor_core::run::clean_message(&cluster);
                tracing::warn!(cluster, ?peer, ?error, "not enrolled");
                Err(error.into())
            }
        }
    }

    async fn recover(&self, request: Request<RenewRequest>) -> Result<Response<CertificateReply>, Status> {
        let now = clock::now();
        let certificates = request.extensions().get::<Peer>().and_then(|peer| peer.tls.peer_certs());
        let identity = certificates.as_ref().and_then(|chain| chain.first()).and_then(ca::identity);
        let admitted = match identity {
            None => Err(EnrolError::NoCertificate),
            Some(identity) => {
                let judge = |record: Option<&_>, identity: &_| trust::admit_expired(record, identity, now);
                let admitted = trust::admitted(&self.issuer.fleet, &identity, judge).await;
                admitted.map(|()| identity).map_err(EnrolError::Distrusted)
            }
        };
        let identity = admitted.map_err(|error| {
            self.refusals.count(Refused::Certificate);
            tracing::warn!(?error, "no new certificate");
            Status::from(error)
        })?;
        let reply = self.issuer.next(&identity, &request.into_inner().csr).await?;
        tracing::info!(cluster = identity.cluster, expired = %identity.not_after, "certificate recovered");
        Ok(Response::new(reply))
    }
}

/// Address of the caller.
fn peer_address(extensions: &tonic::Extensions) -> Option<IpAddr> {
    let peer = extensions.get::<Peer>()?;
    peer.tls.get_ref().remote_addr().map(|address| address.ip())
}
