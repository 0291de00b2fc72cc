//! The agents' side of the hub: sessions and the renewal of certificates, over mTLS.
//!
//! Who calls is read from the certificate and from nothing else.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_proto::{CertificateReply, Fleet, RenewRequest, v1};
use active_monitor_runtime::cut::Written;
use active_monitor_runtime::tasks::Tasks;
use active_monitor_runtime::tls::Peer;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use crate::ca::{self, AgentIdentity};
use crate::marks::Marks;
use crate::owner::FleetHandle;
use crate::refusals::{Refusals, Refused};
use crate::store::Store;
use crate::trust::{self, Issuer};
pub use figures::Figures;
use outgoing::{Frames, Outgoing};
use paces::Paces;

mod figures;
mod outgoing;
mod paces;
mod session;
#[cfg(test)]
mod tests;
mod violations;

/// The fleet service.
pub struct FleetService {
    issuer: Issuer,
    shared: Arc<Shared>,
    tasks: Tasks,
}

/// Who calls, and the end of the connection on which it does.
struct Caller {
    identity: AgentIdentity,
    connection: CancellationToken,
    written: Written,
}

/// What every session needs.
struct Shared {
    fleet: FleetHandle,
    store: Arc<dyn Store>,
    lease: Duration,
    refusals: Refusals,
    marks: Marks,
    figures: Figures,
    paces: Paces,
    stop: CancellationToken,
}

impl Shared {
    /// Shows when the newest certificate of a cluster ends.
    fn show_certificate(&self, cluster: &str) {
        let records = self.fleet.records();
        if let Some(newest) = records.get(cluster).and_then(|record| record.agent_keys.last()) {
            self.figures.certified(cluster, newest.not_after);
        }
    }
}

impl FleetService {
    /// The service; its sessions are among `tasks` and end with a GoAway when those are asked to stop.
    pub(crate) fn new(
        issuer: Issuer,
        store: Arc<dyn Store>,
        lease: Duration,
        refusals: Refusals,
        marks: Marks,
        figures: Figures,
        tasks: Tasks,
    ) -> FleetService {
        let fleet = issuer.fleet.clone();
        FleetService {
            issuer,
            shared: Arc::new(Shared {
                fleet,
                store,
                lease,
                refusals,
                marks,
                figures,
                paces: Paces::new(),
                stop: tasks.stop_token(),
            }),
            tasks,
        }
    }

    /// Who calls, as the certificate says it.
    fn caller(&self, extensions: &tonic::Extensions) -> Result<Caller, Status> {
        let caller = extensions.get::<Peer>().and_then(|peer| {
            let identity = ca::identity(peer.tls.peer_certs()?.first()?)?;
            Some(Caller { identity, connection: peer.cut.clone(), written: peer.written.clone() })
        });
        caller.ok_or_else(|| {
            self.shared.refusals.count(Refused::Certificate);
            Status::unauthenticated("the client certificate is not one of an agent")
        })
    }

    /// Takes the agent of a cluster that is known, with a certificate made for this one and not for a removed namesake.
    async fn admit(&self, identity: &AgentIdentity) -> Result<(), Status> {
        let admitted = trust::admitted(&self.shared.fleet, identity, trust::admit).await;
        admitted.map_err(|distrust| {
            self.shared.refusals.count(Refused::Certificate);
            tracing::warn!(cluster = identity.cluster, %distrust, "certificate refused");
            Status::permission_denied(distrust.to_string())
        })
    }

    async fn open(&self, caller: Caller, frames: Streaming<v1::AgentFrame>) -> Result<Response<Frames>, Status> {
        self.admit(&caller.identity).await?;
        if self.shared.stop.is_cancelled() {
            return Err(Status::unavailable("the hub is stopping"));
        }
        let (outgoing, answers) = Outgoing::new(caller.written.clone());
        let shared = Arc::clone(&self.shared);
        let span = tracing::info_span!("session", cluster = caller.identity.cluster);
        self.tasks.spawn(session::run(shared, caller, frames, outgoing).instrument(span));
        Ok(Response::new(answers))
    }

    async fn issue(&self, identity: AgentIdentity, csr: &[u8]) -> Result<Response<CertificateReply>, Status> {
        self.admit(&identity).await?;
        let reply = self.issuer.next(&identity, csr).await?;
        self.shared.show_certificate(&identity.cluster);
        tracing::info!(cluster = identity.cluster, "certificate renewed");
        Ok(Response::new(reply))
    }
}

#[tonic::async_trait]
impl Fleet for FleetService {
    type SessionStream = Frames;

    async fn session(&self, request: Request<Streaming<v1::AgentFrame>>) -> Result<Response<Frames>, Status> {
        self.open(self.caller(request.extensions())?, request.into_inner()).await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<CertificateReply>, Status> {
        self.issue(self.caller(request.extensions())?.identity, &request.into_inner().csr).await
    }
}
