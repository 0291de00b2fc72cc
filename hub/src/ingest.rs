//! The agents' side of the hub: sessions and the renewal of certificates, over mTLS.
//!
//! Who calls is read from the certificate and from nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_proto::{CertificateReply, Fleet, RenewRequest, v1};
use active_monitor_runtime::tasks::Tasks;
use futures::Stream;
use jiff::Timestamp;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::ca::{self, AgentIdentity, Ca, SigningRequest};
use crate::enrolment::PeerInfo;
use crate::owner::FleetHandle;
use crate::store::Store;

mod session;

/// Frames that may wait for a slow agent.
const OUTGOING: usize = 64;

/// The fleet service.
pub struct FleetService {
    ca: Arc<Ca>,
    shared: Arc<Shared>,
    tasks: Tasks,
}

/// What every session needs.
struct Shared {
    fleet: FleetHandle,
    store: Arc<dyn Store>,
    lease: Duration,
    stop: CancellationToken,
}

impl FleetService {
    /// The service; its sessions are among `tasks` and end with a GoAway when those are asked to stop.
    pub fn new(ca: Arc<Ca>, store: Arc<dyn Store>, fleet: FleetHandle, lease: Duration, tasks: Tasks) -> FleetService {
        FleetService { ca, shared: Arc::new(Shared { fleet, store, lease, stop: tasks.stop_token() }), tasks }
    }

    /// Who calls, if it is the agent of a cluster that is known, with a certificate made for this one and not for a
    /// removed namesake.
    fn caller(&self, extensions: &tonic::Extensions) -> Result<AgentIdentity, Status> {
        let certificates = extensions.get::<PeerInfo>().and_then(|info| info.peer_certs());
        let leaf = certificates.as_ref().and_then(|chain| chain.first());
        let identity = leaf
            .and_then(ca::identity)
            .ok_or_else(|| Status::unauthenticated("the client certificate is not one of an agent"))?;
        let records = self.shared.fleet.records();
        let known = records.get(&identity.cluster);
        match known {
            Some(record) if identity.issued_at.as_second() >= record.created_at.as_second() => Ok(identity),
            Some(_) | None => {
                tracing::warn!(cluster = identity.cluster, "refused: removed or unknown");
                Err(Status::permission_denied("the hub does not know this cluster, or removed it"))
            }
        }
    }
}

type Outgoing = Pin<Box<dyn Stream<Item = Result<v1::HubFrame, Status>> + Send>>;

#[tonic::async_trait]
impl Fleet for FleetService {
    type SessionStream = Outgoing;

    async fn session(&self, request: Request<Streaming<v1::AgentFrame>>) -> Result<Response<Outgoing>, Status> {
        let identity = self.caller(request.extensions())?;
        if self.shared.stop.is_cancelled() {
            return Err(Status::unavailable("the hub is stopping"));
        }
        let (outgoing, frames) = tokio::sync::mpsc::channel(OUTGOING);
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(session::run(shared, identity, request.into_inner(), outgoing));
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateReply>, Status> {
        let identity = self.caller(request.extensions())?;
        let request = SigningRequest::parse(&request.into_inner().csr)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let certificate = self.ca.issue_agent(&identity.cluster, &request, Timestamp::now()).map_err(|error| {
            tracing::error!(cluster = identity.cluster, ?error, "certificate not renewed");
            Status::internal(error.to_string())
        })?;
        tracing::info!(cluster = identity.cluster, "certificate renewed");
        Ok(Response::new(CertificateReply { certificate, ca: self.ca.pem().to_owned() }))
    }
}
