//! An agent that does harm: it connects as fast as it can, and each time sends a frame that no hub takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use active_monitor_proto::{FleetClient, v1};
use futures::StreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Endpoint;

use super::{CONNECT_TIMEOUT, enrol, enrolment};
use crate::fleet::Hub;

/// The agent; it ends when this is dropped.
pub(in crate::bench) struct Malformed {
    connections: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Malformed {
    /// Adds the cluster, enrols it and begins.
    pub(in crate::bench) async fn join(hub: &Hub, ca: &str, name: &str) -> anyhow::Result<Malformed> {
        let enrolment = enrolment(hub, ca, name).await?;
        let endpoint = enrol(hub, enrolment, name).await?;
        let (connections, stop) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let harm = harm(endpoint, Arc::clone(&connections));
        tokio::spawn(stop.clone().run_until_cancelled_owned(harm));
        Ok(Malformed { connections, _stop: stop.drop_guard() })
    }

    /// How often it has connected.
    pub(in crate::bench) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn harm(endpoint: Endpoint, connections: Arc<AtomicU64>) {
    loop {
        let Ok(Ok(channel)) = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await else { continue };
        connections.fetch_add(1, Ordering::Relaxed);
        // Open until the hub ends it.
        let frames = futures::stream::iter([malformed()]).chain(futures::stream::pending());
        if let Ok(answer) = FleetClient::new(channel).session(frames).await {
            let mut answers = answer.into_inner();
            while let Ok(Some(_)) = answers.message().await {}
        }
    }
}

/// A check without a name, uid or state, before any Hello.
fn malformed() -> v1::AgentFrame {
    let snapshot = v1::Snapshot { checks: vec![v1::CheckState::default()], last: true };
    v1::AgentFrame { frame: Some(v1::agent_frame::Frame::Snapshot(snapshot)) }
}
