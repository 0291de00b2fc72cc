//! Leader election over a Lease in the agent's own namespace. The decisions are `core::lease`'s; this asks and writes.
//!
//! The leader renews in time or stops: its fence (`gate.rs`) lets no write pass once others may take over, and the
//! process ends, since that is the one way to be sure that nothing of its term goes on. A standby waits as long as it
//! takes, so an API server that is away ends a process once and not again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::lease::{Election, Record, Turn};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::gate::Fence;

/// Name of the Lease.
pub const LEASE: &str = "active-monitor-agent";

/// Why a term is over.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Another one leads.
    #[error("the lease went to {0}")]
    Taken(String),
    /// It could not be renewed in time, so another one may lead.
    #[error("the lease could not be renewed in time")]
    RanOut,
}

/// A candidate for leadership; clones are handles on the same one.
#[derive(Clone)]
pub struct Candidate {
    api: Api<Lease>,
    fence: Fence,
    started: Instant,
    state: Arc<Mutex<State>>,
}

struct State {
    election: Election,
    /// The object as last read or written; `None` to be read again.
    known: Option<Lease>,
}

/// Why a look or a write came to nothing. It is tried again.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("no answer in time")]
    Timeout,
}

impl Candidate {
    /// A candidate whose leases are valid for `duration`. The client must not be one behind the fence itself.
    pub fn new(client: Client, duration: Duration, fence: Fence) -> Candidate {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "agent".into());
        let me = format!("{host}_{}", uuid::Uuid::new_v4());
        let state = State { election: Election::new(me, duration), known: None };
        let api = Api::default_namespaced(client);
        Candidate { api, fence, started: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    /// Waits until this one leads.
    pub async fn lead(&self) {
        let mut told = false;
        loop {
            let mut state = self.state.lock().await;
            match self.step(&mut state).await {
                Ok(_) if state.election.may_write().is_some() => {
                    tracing::info!(lease = LEASE, holder = state.election.me(), "leads");
                    return;
                }
                Ok(_) => {}
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(lease = LEASE, %error, "cannot ask for the lease, trying again");
                }
                Err(_) => {}
            }
            let pause = state.election.pause();
            drop(state);
            // Spread, so that candidates that wait for the same lease do not ask together.
            tokio::time::sleep(pause.mul_f64(0.75 + 0.25 * rand::random::<f64>())).await;
        }
    }

    /// Renews until `stop`.
    ///
    /// # Errors
    /// When the lease is lost: the process must end.
    pub async fn keep(&self, stop: CancellationToken) -> Result<(), Lost> {
        loop {
            let mut state = self.state.lock().await;
            let pause = state.election.pause();
            match self.step(&mut state).await {
                Ok(Turn::Lost) => {
                    self.fence.set(None);
                    let holder = state.known.as_ref().and_then(holder).unwrap_or_default();
                    return Err(Lost::Taken(holder.to_owned()));
                }
                Ok(Turn::Take | Turn::Wait) => {}
                Err(error) => tracing::warn!(lease = LEASE, %error, "cannot renew the lease, trying again"),
            }
            drop(state);
            if self.fence.left().is_none() {
                return Err(Lost::RanOut);
            }
            // Never past the end: a pause that begins late must not be found out later still.
            let pause = pause.min(self.fence.left().unwrap_or_default());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Gives the lease up, so that another one need not wait for its end. Nothing may write from here on.
    pub async fn release(&self) {
        let held = self.fence.left().is_some();
        self.fence.set(None);
        let mut state = self.state.lock().await;
        let Some(mut lease) = state.known.take().filter(|_| held) else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            spec.lease_duration_seconds = Some(1);
        }
        let pause = state.election.pause();
        match limited(pause, self.api.replace(LEASE, &PostParams::default(), &lease)).await {
            Ok(_) => tracing::info!(lease = LEASE, "released"),
            Err(error) => tracing::warn!(lease = LEASE, %error, "cannot release the lease, it runs out by itself"),
        }
    }

    /// One look, where the object is not known, and one write, where it is one's turn.
    async fn step(&self, state: &mut State) -> Result<Turn, LeaseError> {
        let pause = state.election.pause();
        let leads = state.election.may_write().is_some();
        // A leader goes by what it wrote itself, until that turns out not to be the newest.
        if !leads || state.known.is_none() {
            state.known = limited(pause, self.api.get_opt(LEASE)).await?;
        }
        let sent_at = self.started.elapsed();
        let turn = state.election.turn(sent_at, state.known.as_ref().map(record).as_ref());
        if turn != Turn::Take {
            return Ok(turn);
        }
        let next = held(state.known.take(), &state.election);
        let params = PostParams::default();
        let written = match &next.metadata.resource_version {
            Some(_) => limited(pause, self.api.replace(LEASE, &params, &next)).await,
            None => limited(pause, self.api.create(&params, &next)).await,
        };
        state.known = Some(written?);
        state.election.renewed(sent_at);
        self.fence.set(state.election.may_write().map(|until| self.started + until));
        Ok(turn)
    }
}

async fn limited<T>(limit: Duration, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
    tokio::time::timeout(limit, request).await.map_err(|_| LeaseError::Timeout)?.map_err(LeaseError::Kube)
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

fn record(lease: &Lease) -> Record {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
    Record {
        holder: holder(lease).unwrap_or_default().to_owned(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
    }
}

/// The Lease as this candidate holds it; with the version that was looked at, so that only one of two gets it.
fn held(known: Option<Lease>, election: &Election) -> Lease {
    let now = MicroTime(Timestamp::now());
    let mut lease = known.unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() },
        ..Lease::default()
    });
    let before = lease.spec.unwrap_or_default();
    let same = before.holder_identity.as_deref() == Some(election.me());
    let transitions = before.lease_transitions.unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(election.me().to_owned()),
        acquire_time: if same { before.acquire_time } else { Some(now.clone()) },
        lease_duration_seconds: i32::try_from((election.pause() * 5).as_secs()).ok(),
        lease_transitions: Some(if same { transitions } else { transitions.saturating_add(1) }),
        renew_time: Some(now),
        ..LeaseSpec::default()
    });
    lease
}
