//! Enrolment: trading a one-time token for a certificate, and a certificate for the next one.
//!
//! The key is made here and never leaves the state directory; the hub sees a signing request. The key is on disk before
//! it does, so that a lost answer can be asked for again. What is stored is enough to start again without a token, and to
//! come back after any time.

mod identity;
mod pending;
mod pin;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_proto::{CertificateReply, EnrolRequest, EnrolmentClient, FleetClient, RenewRequest};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::client::WebPkiServerVerifier;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tonic::transport::Channel;

pub use self::identity::{Identity, IdentityError};
use self::pin::PinnedCa;
pub use self::token::{Token, TokenError};
use crate::link::dial::{self, DialError};

/// An answer of the hub takes no longer than this.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no new certificate.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// There is neither an identity nor a token.
    #[error("there is no identity yet, and no token to get one")]
    NoToken,
    /// The token cannot be read.
    #[error("the token is not usable")]
    Token(#[source] TokenError),
    /// The hub could not be reached.
    #[error("no connection to the hub at {address}")]
    Dial {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: DialError,
    },
    /// The hub answered, and the answer is no: the token is spent, expired or for another cluster, or the cluster was
    /// removed.
    #[error("the hub refused: {}", .0.message())]
    Refused(tonic::Status),
    /// The hub waits for a person's approval of the key with this fingerprint (SHA-256, hex).
    #[error("the enrolment waits for approval; the fingerprint of this agent's key is {0}")]
    Waiting(String),
    /// The hub could not answer.
    #[error("the hub did not answer: {} ({})", .0.message(), .0.code())]
    Call(tonic::Status),
    /// The key or the signing request could not be made.
    #[error("the key could not be made")]
    Key(#[source] rcgen::Error),
    /// The answer or what is stored is no identity.
    #[error("the identity is not usable")]
    Identity(#[source] IdentityError),
    /// The process is shutting down.
    #[error("interrupted")]
    Interrupted,
}

/// Enrols with a token and stores the identity under `dir`.
pub(crate) async fn enrol(address: &str, token: &Token, cluster_uid: &str, dir: &Path) -> Result<Identity, EnrolError> {
    let (key, csr) = make_key(dir, &format!("enrol {}", token.digest()), &token.cluster).await?;
    let provider = Arc::clone(&dial::provider());
    let tls = dial::client_config(|tls| {
        let pin = PinnedCa::new(token.ca_fingerprint, provider);
        Ok(tls.dangerous().with_custom_certificate_verifier(Arc::new(pin)).with_no_client_auth())
    });
    let tls = tls.map_err(|source| EnrolError::Dial { address: address.to_owned(), source })?;
    let line = dial::connect(address, Arc::new(tls))
        .await
        .map_err(|source| EnrolError::Dial { address: address.to_owned(), source })?;
    let request = EnrolRequest {
        token: token.secret.clone(),
        cluster: token.cluster.clone(),
        cluster_uid: cluster_uid.to_owned(),
        csr,
    };
    let mut client = EnrolmentClient::new(line.channel.clone());
    let reply = match answer(client.enrol(request)).await {
        Err(EnrolError::Call(status)) if status.code() == tonic::Code::Aborted => {
            return Err(EnrolError::Waiting(hex::encode(Sha256::digest(key.public_key_raw()))));
        }
        answered => answered?,
    };
    keep(reply, key, &token.digest(), dir).await
}

/// Gets the next certificate, with a new key, over the connection that the present one opened.
pub(crate) async fn renew(
    mut client: FleetClient<Channel>,
    present: Arc<Identity>,
    dir: &Path,
) -> Result<Identity, EnrolError> {
    let (key, csr) = make_key(dir, &format!("renew {}", present.digest()), present.cluster()).await?;
    let reply = answer(client.renew(RenewRequest { csr })).await?;
    keep(reply, key, present.token_digest(), dir).await
}

/// Gets the next certificate where the present one has expired, by proving its key.
pub(crate) async fn recover(address: &str, present: &Identity, dir: &Path) -> Result<Identity, EnrolError> {
    let (key, csr) = make_key(dir, &format!("renew {}", present.digest()), present.cluster()).await?;
    let dialled = match present.client_config() {
        Ok(tls) => dial::connect(address, Arc::new(tls)).await,
        Err(error) => Err(error),
    };
    let line = dialled.map_err(|source| EnrolError::Dial { address: address.to_owned(), source })?;
    let reply = answer(EnrolmentClient::new(line.channel.clone()).recover(RenewRequest { csr })).await?;
    let next = keep(reply, key, present.token_digest(), dir).await?;
    tracing::info!(certificate_ends = %next.not_after(), "certificate recovered");
    Ok(next)
}

async fn answer(
    call: impl Future<Output = Result<tonic::Response<CertificateReply>, tonic::Status>>,
) -> Result<CertificateReply, EnrolError> {
    let reply = tokio::time::timeout(REPLY_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")));
    reply
        .map(tonic::Response::into_inner)
        .map_err(|status| if is_refusal(&status) { EnrolError::Refused(status) } else { EnrolError::Call(status) })
}

/// Whether asking again with the same request is of no use.
fn is_refusal(status: &tonic::Status) -> bool {
    use tonic::Code::{
        Aborted, AlreadyExists, Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument,
        NotFound, Ok, OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable, Unimplemented,
        Unknown,
    };
    match status.code() {
        InvalidArgument | NotFound | AlreadyExists | PermissionDenied | FailedPrecondition | Unauthenticated => true,
        Ok | Cancelled | Unknown | DeadlineExceeded | ResourceExhausted | Aborted | OutOfRange | Unimplemented
        | Internal | Unavailable | DataLoss => false,
    }
}

async fn make_key(dir: &Path, purpose: &str, cluster: &str) -> Result<(KeyPair, Vec<u8>), EnrolError> {
    let (dir, purpose) = (dir.to_owned(), purpose.to_owned());
    let made = tokio::task::spawn_blocking(move || pending::key(&dir, &purpose)).await;
    let key = made.map_err(|_| EnrolError::Interrupted)?.map_err(EnrolError::Identity)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, cluster);
    let request = params.serialize_request(&key).map_err(EnrolError::Key)?;
    Ok((key, request.der().to_vec()))
}

async fn keep(reply: CertificateReply, key: KeyPair, token_digest: &str, dir: &Path) -> Result<Identity, EnrolError> {
    let CertificateReply { certificate, ca } = reply;
    let identity =
        Identity::new(certificate, key.serialize_pem(), ca, token_digest.to_owned()).map_err(EnrolError::Identity)?;
    let (dir, stored) = (dir.to_owned(), identity.clone());
    let written = tokio::task::spawn_blocking(move || {
        stored.store(&dir)?;
        Ok(pending::done(&dir)?)
    });
    let written = written.await;
    written.map_err(|_| EnrolError::Interrupted)?.map_err(EnrolError::Identity)?;
    Ok(identity)
}

/// The verifier of rustls for these roots, with the process' one provider.
fn web_pki(roots: rustls::RootCertStore) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), dial::provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}
