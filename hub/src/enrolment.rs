//! Where a cluster gets its first certificate: a one-time token for a signed key.
//!
//! Whoever has no valid token learns nothing here, not even which clusters there are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use active_monitor_core::definition::names;
use active_monitor_proto::{CertificateReply, EnrolRequest, Enrolment};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Response, Status};

use crate::auth::limit::LoginLimit;
use crate::ca::{Ca, CaError, SigningRequest};
use crate::owner::FleetHandle;
use crate::store::{AuditEntry, EnrolmentToken, Spend, Store};

/// What a connection of the agents' listeners says of its peer.
pub(crate) type PeerInfo = <TlsStream<TcpStream> as Connected>::ConnectInfo;

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
            EnrolError::NoSuchToken => Status::unauthenticated(text),
            EnrolError::Expired | EnrolError::Used => Status::failed_precondition(text),
            EnrolError::OtherUid => Status::permission_denied(text),
            EnrolError::Certificate(CaError::Request(_)) => Status::invalid_argument(text),
            EnrolError::Certificate(_) | EnrolError::Store(_) => Status::internal(text),
            EnrolError::Stopping => Status::unavailable(text),
        }
    }
}

/// The enrolment service.
pub struct EnrolmentService {
    ca: Arc<Ca>,
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    limit: LoginLimit,
}

impl EnrolmentService {
    /// The service over this CA and store.
    pub fn new(ca: Arc<Ca>, store: Arc<dyn Store>, fleet: FleetHandle) -> EnrolmentService {
        EnrolmentService { ca, store, fleet, limit: LoginLimit::default() }
    }

    async fn try_enrol(&self, request: EnrolRequest) -> Result<CertificateReply, EnrolError> {
        let EnrolRequest { token, cluster, cluster_uid, csr } = request;
        names::dns_label(&cluster).map_err(|_| EnrolError::BadRequest("cluster is no DNS label"))?;
        if cluster_uid.is_empty() || cluster_uid.len() > MAX_UID_BYTES {
            return Err(EnrolError::BadRequest("cluster_uid must have 1 to 64 bytes"));
        }
        let now = Timestamp::now();
        let known = self.token(&cluster, &token).await?;
        if known.expires_at <= now {
            return Err(EnrolError::Expired);
        }
        let request = SigningRequest::parse(&csr).map_err(EnrolError::Certificate)?;
        // Made before the token is spent: a token must not be lost to a name that no certificate takes.
        let certificate = self.ca.issue_agent(&cluster, &request, now).map_err(EnrolError::Certificate)?;
        let spend = self.store.spend_enrolment_token(&cluster, known.hash, request.key_hash(), &cluster_uid).await;
        match spend.map_err(EnrolError::Store)? {
            Spend::Spent => {}
            Spend::Taken => return Err(EnrolError::Used),
            Spend::OtherUid => return Err(EnrolError::OtherUid),
        }
        self.fleet.bound(&cluster, &cluster_uid).await.map_err(|_| EnrolError::Stopping)?;
        tracing::info!(cluster, cluster_uid, "enrolled");
        let entry = AuditEntry { at: now, who: "enrolment".into(), action: "cluster.enrol".into(), object: cluster };
        self.store.audit(&entry).await.map_err(EnrolError::Store)?;
        Ok(CertificateReply { certificate, ca: self.ca.pem().to_owned() })
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
            return Err(EnrolError::TooMany(wait.as_secs() + 1).into());
        }
        let request = request.into_inner();
        let cluster = request.cluster.clone();
        match self.try_enrol(request).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(error) => {
                if let (EnrolError::NoSuchToken, Some(peer)) = (&error, peer) {
                    self.limit.failed(peer, now);
                }
                tracing::warn!(
                    cluster = active_monitor_core::run::clean_message(&cluster),
                    ?peer,
                    ?error,
                    "not enrolled"
                );
                Err(error.into())
            }
        }
    }
}

/// Address of the caller.
fn peer_address(extensions: &tonic::Extensions) -> Option<IpAddr> {
    let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
    info.get_ref().remote_addr().map(|address| address.ip())
}
