//! The shell of one session: it carries frames between the stream, the session's state machine, the owner and the store.
//!
//! Nothing in it grows without bound: the machine limits the reports that are under way, the owner's queue and the
//! outgoing one make this task wait, and a waiting task does not read its stream.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::fleet::Said;
use active_monitor_core::session::frame::{AgentFrame, Hello, HubFrame, Report, Welcome};
use active_monitor_core::session::hub::{HubSession, Input, Output, SessionError};
use active_monitor_proto::v1;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Status, Streaming};

use super::Shared;
use crate::ca::AgentIdentity;
use crate::owner::{DefinitionSet, Opened};
use crate::store::{Recorded, StoreError};

/// Reports that may be under way without an ack.
const MAX_UNACKED: u32 = 512;
/// Heartbeats in a lease.
const HEARTBEATS_PER_LEASE: u32 = 3;
/// How long an agent may leave a frame unread before its session ends.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the first frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait before dialling again, by the reason to go.
const RETRY_SOON_MS: u32 = 1_000;
const RETRY_LATER_MS: u32 = 60_000;

type Outgoing = mpsc::Sender<Result<v1::HubFrame, Status>>;
type Commit = (u64, Result<Recorded, StoreError>);

/// Why the loop ends; what the agent must hear is sent already.
struct Ended;

struct Session {
    shared: Arc<Shared>,
    cluster: String,
    machine: HubSession,
    outgoing: Outgoing,
    /// Set while the owner has the session open.
    epoch: Option<u64>,
    cut: Option<oneshot::Receiver<&'static str>>,
    definitions: Option<watch::Receiver<DefinitionSet>>,
    /// In the order of the reports: an ack covers everything before it.
    commits: FuturesOrdered<BoxFuture<'static, Commit>>,
}

/// Runs a session to its end.
pub(super) async fn run(
    shared: Arc<Shared>,
    identity: AgentIdentity,
    frames: Streaming<v1::AgentFrame>,
    outgoing: Outgoing,
) {
    let cluster = identity.cluster.clone();
    let mut session = Session {
        machine: HubSession::new(cluster.clone()),
        shared,
        cluster,
        outgoing,
        epoch: None,
        cut: None,
        definitions: None,
        commits: FuturesOrdered::new(),
    };
    let Ended = session.serve(identity, frames).await;
    if let Some(epoch) = session.epoch {
        // Err means that the hub stops: then nobody looks any more.
        let _ = session.shared.fleet.said(&session.cluster, epoch, Said::Closed).await;
    }
    tracing::info!(cluster = session.cluster, epoch = session.epoch, "session ended");
}

impl Session {
    async fn serve(&mut self, identity: AgentIdentity, mut frames: Streaming<v1::AgentFrame>) -> Ended {
        let expires = tokio::time::sleep(until(identity.not_after));
        let hello = tokio::time::sleep(HELLO_TIMEOUT);
        tokio::pin!(expires, hello);
        let stop = self.shared.stop.clone();
        loop {
            let input = tokio::select! {
                frame = frames.next() => match self.frame(frame).await {
                    Ok(frame) => Input::Frame(frame),
                    Err(ended) => return ended,
                },
                Some((seq, result)) = self.commits.next() => match result {
                    Ok(recorded) => {
                        tracing::debug!(cluster = self.cluster, seq, new = recorded.new, known = recorded.known, "recorded");
                        Input::Committed { seq }
                    }
                    Err(error) => {
                        tracing::error!(cluster = self.cluster, %error, "reports not recorded");
                        go_away("the hub cannot store reports", RETRY_SOON_MS)
                    }
                },
                Some(set) = changed(&mut self.definitions) => Input::PushDefinitions(set.to_vec()),
                reason = cut(&mut self.cut) => go_away(reason, RETRY_SOON_MS),
                () = &mut expires => go_away("the certificate has expired", RETRY_SOON_MS),
                () = &mut hello, if self.epoch.is_none() => go_away("no Hello came", RETRY_SOON_MS),
                () = stop.cancelled() => go_away("the hub is stopping", RETRY_SOON_MS),
            };
            if let Err(ended) = self.take(input).await {
                return ended;
            }
        }
    }

    /// Converts what came from the stream.
    async fn frame(&mut self, frame: Option<Result<v1::AgentFrame, Status>>) -> Result<AgentFrame, Ended> {
        match frame {
            None => Err(Ended),
            Some(Err(status)) => {
                tracing::debug!(cluster = self.cluster, code = ?status.code(), message = status.message(), "stream broke");
                Err(Ended)
            }
            Some(Ok(frame)) => match AgentFrame::try_from(frame) {
                Ok(frame) => Ok(frame),
                Err(error) => {
                    tracing::warn!(cluster = self.cluster, %error, "bad frame");
                    Err(self.end(Status::invalid_argument(error.to_string())).await)
                }
            },
        }
    }

    /// Feeds the machine and carries out what it says.
    async fn take(&mut self, input: Input) -> Result<(), Ended> {
        // The other frames reach the owner themselves.
        let heard = matches!(
            &input,
            Input::Frame(AgentFrame::Reports(_) | AgentFrame::DefinitionsStatus { .. } | AgentFrame::Snapshot { .. })
        );
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.machine.handle(input) {
                if let Some(next) = self.carry_out(output).await? {
                    inputs.push(next);
                }
            }
        }
        if heard { self.say(Said::Heard).await } else { Ok(()) }
    }

    async fn carry_out(&mut self, output: Output) -> Result<Option<Input>, Ended> {
        match output {
            Output::Send(frame) => self.send(frame).await?,
            Output::Register(hello) => return Ok(Some(self.register(hello).await?)),
            Output::Snapshot(checks) => self.say(Said::Snapshot { checks, last: true }).await?,
            Output::Upsert(state) => self.say(Said::Upsert(state)).await?,
            Output::Removed(uid) => self.say(Said::Removed(uid)).await?,
            Output::Heartbeat(beat) => self.say(Said::Heartbeat(beat)).await?,
            Output::Record { reports, through_seq } => self.record(reports, through_seq),
            Output::DefinitionsStatus(statuses) => {
                self.shared.fleet.definition_statuses(&self.cluster, statuses).await.map_err(|_| Ended)?;
            }
            Output::DefinitionsTooLarge { bytes } => {
                tracing::error!(cluster = self.cluster, bytes, "definitions are too large to send");
            }
            Output::End(None) => return Err(Ended),
            Output::End(Some(error)) => {
                tracing::warn!(cluster = self.cluster, %error, "session refused");
                return Err(self.end(status(&error)).await);
            }
        }
        Ok(None)
    }

    /// Has the owner open the session.
    async fn register(&mut self, hello: Hello) -> Result<Input, Ended> {
        let (incarnation, version) = (hello.incarnation.clone(), hello.agent_version.clone());
        let Opened { epoch, cut } = match self.shared.fleet.open(hello).await {
            Ok(opened) => opened,
            Err(None) => return Ok(go_away("the hub is stopping", RETRY_SOON_MS)),
            Err(Some(refusal)) => {
                tracing::warn!(cluster = self.cluster, %refusal, "session refused");
                return Ok(go_away(&refusal.to_string(), RETRY_LATER_MS));
            }
        };
        tracing::info!(cluster = self.cluster, epoch, incarnation, agent_version = version, "session opened");
        self.epoch = Some(epoch);
        self.cut = Some(cut);
        let mut definitions = self.shared.fleet.definition_set(&self.cluster).await.map_err(|_| Ended)?;
        // A new session gets the set as it is.
        definitions.mark_changed();
        self.definitions = Some(definitions);
        let lease_ms = u32::try_from(self.shared.lease.as_millis()).unwrap_or(u32::MAX);
        Ok(Input::Accepted(Welcome {
            session_epoch: epoch,
            heartbeat_ms: lease_ms / HEARTBEATS_PER_LEASE,
            lease_ms,
            max_unacked_reports: MAX_UNACKED,
            hub_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    fn record(&mut self, reports: Vec<Report>, through_seq: u64) {
        let (store, cluster) = (Arc::clone(&self.shared.store), self.cluster.clone());
        let runs = reports.into_iter().map(|report| report.run).collect();
        self.commits.push_back(Box::pin(async move {
            let result = store.record_runs(&cluster, runs, Timestamp::now()).await;
            (through_seq, result)
        }));
    }

    async fn say(&mut self, what: Said) -> Result<(), Ended> {
        match self.epoch {
            Some(epoch) => self.shared.fleet.said(&self.cluster, epoch, what).await.map_err(|_| Ended),
            None => Ok(()),
        }
    }

    async fn send(&mut self, frame: HubFrame) -> Result<(), Ended> {
        let sent = self.outgoing.send_timeout(Ok(frame.into()), SEND_TIMEOUT).await;
        sent.map_err(|_| {
            tracing::warn!(cluster = self.cluster, "the agent does not read");
            Ended
        })
    }

    async fn end(&mut self, status: Status) -> Ended {
        // Err means that the agent is gone: then it needs no reason.
        let _ = self.outgoing.send_timeout(Err(status), SEND_TIMEOUT).await;
        Ended
    }
}

fn go_away(reason: &str, retry_after_ms: u32) -> Input {
    Input::GoAway { reason: reason.to_owned(), retry_after_ms }
}

fn until(at: Timestamp) -> Duration {
    let left = at.as_millisecond().saturating_sub(Timestamp::now().as_millisecond());
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

/// The next set of definitions; never, while there is none to follow.
async fn changed(definitions: &mut Option<watch::Receiver<DefinitionSet>>) -> Option<DefinitionSet> {
    let Some(receiver) = definitions else { return std::future::pending().await };
    match receiver.changed().await {
        Ok(()) => Some(receiver.borrow_and_update().clone()),
        // The cluster was removed: the session is cut elsewhere.
        Err(_) => std::future::pending().await,
    }
}

/// Why the owner ends the session; never, while it has none.
async fn cut(cut: &mut Option<oneshot::Receiver<&'static str>>) -> &'static str {
    match cut {
        Some(receiver) => receiver.await.unwrap_or("the hub is stopping"),
        None => std::future::pending().await,
    }
}

fn status(error: &SessionError) -> Status {
    let text = error.to_string();
    match error {
        SessionError::WrongCluster { .. } => Status::permission_denied(text),
        SessionError::TooManyChecks | SessionError::TooManyUnacked { .. } => Status::resource_exhausted(text),
        SessionError::BadHello { .. } => Status::invalid_argument(text),
        SessionError::OutOfOrder { .. } | SessionError::SeqNotGrowing { .. } | SessionError::UnknownNonce { .. } => {
            Status::failed_precondition(text)
        }
    }
}
