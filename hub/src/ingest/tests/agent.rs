//! An agent made by hand, over the network in memory: it dials, speaks, reports, renews its certificate and dials again. Its
//! clock is right, whatever the hub's is set to.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::run::{Outcome, Run, RunKey, RunKind};
use active_monitor_core::session::frame::{AgentFrame, Heartbeat, Hello, HubFrame, Report};
use active_monitor_core::state::{CheckState, Phase, Totals};
use active_monitor_proto::{FleetClient, RenewRequest, v1};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use super::super::session::MAX_UNACKED;
use super::wire::{self, Open, Weather};
use super::world::Doorway;
use crate::ca::{self, AgentIdentity};
use crate::clock::virtual_time;

/// As the agent's own: between dials, for a dial, and for an answer to a ping.
const PAUSE: Duration = Duration::from_secs(1);
const DIAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Reports in a frame of a flood, and a time before all others.
const FLOOD: u64 = 128;
const FLOOD_BEGAN: Timestamp = Timestamp::UNIX_EPOCH;

pub(super) struct Agent {
    pub(super) cluster: String,
    pub(super) weather: watch::Sender<Weather>,
    pub(super) known: Mutex<Known>,
    door: Doorway,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the agent knows and did.
pub(super) struct Known {
    pub(super) identity: AgentIdentity,
    /// Whether it renews its certificate, and says that it is alive.
    pub(super) renews: bool,
    pub(super) speaks: bool,
    pub(super) next_slot: Timestamp,
    /// Reports without an ack.
    pub(super) reports: Vec<Report>,
    pub(super) reported: u64,
    pub(super) sessions: u32,
    pub(super) renewals: u32,
    /// Why sessions ended, and when, as far as the hub said it.
    pub(super) farewells: Vec<(Timestamp, String)>,
    pub(super) connection: Option<Open>,
}

pub(super) fn signing_request() -> Vec<u8> {
    CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

pub(super) fn identity(certificate: &str) -> AgentIdentity {
    ca::identity(&CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap()
}

impl Agent {
    pub(super) fn start(cluster: &str, identity: AgentIdentity, door: Doorway) -> Arc<Agent> {
        let known = Known {
            identity,
            renews: true,
            speaks: true,
            next_slot: virtual_time::unset() + Duration::from_secs(30 * 24 * 3600),
            reports: Vec::new(),
            reported: 0,
            sessions: 0,
            renewals: 0,
            farewells: Vec::new(),
            connection: None,
        };
        let agent = Arc::new(Agent {
            cluster: cluster.to_owned(),
            weather: watch::channel(Weather::Up).0,
            known: Mutex::new(known),
            door,
            task: Mutex::default(),
        });
        agent.restart();
        agent
    }

    /// The process dies without a word and another begins.
    pub(super) fn restart(self: &Arc<Agent>) {
        let agent = Arc::clone(self);
        let task = tokio::spawn(async move {
            loop {
                // Err means that there is no connection, or no longer.
                let _ = agent.session().await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        if let Some(before) = self.task.lock().replace(task) {
            before.abort();
        }
    }

    /// The process dies without a word, and none comes after it.
    pub(super) fn stop(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }

    /// Dials with this for the first frame; what the hub says to that.
    pub(super) async fn begin_with(&self, frame: v1::AgentFrame) -> Result<v1::HubFrame, Status> {
        let mut client = FleetClient::new(self.dial().await.unwrap());
        let (frames, queued) = mpsc::channel(1);
        frames.send(frame).await.unwrap();
        let mut answers = client.session(ReceiverStream::new(queued)).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::aborted("nothing"))
    }

    /// In a session of its own reports so many runs, as fast as the hub takes them; how long until the last ack.
    pub(super) async fn flood(&self, count: u64) -> anyhow::Result<Duration> {
        let first = self.known.lock().reported + 1;
        let mut client = FleetClient::new(self.dial().await?);
        let (frames, queued) = mpsc::channel(1);
        frames.send(AgentFrame::Hello(self.hello()).into()).await?;
        let began = Instant::now();
        let mut answers = client.session(ReceiverStream::new(queued)).await?.into_inner();
        frames.send(AgentFrame::Snapshot { checks: vec![self.check()], last: true }.into()).await?;
        self.known.lock().reported += count;
        let (mut next, mut acked, last) = (first, first - 1, first + count - 1);
        while acked < last {
            while next <= last && next + FLOOD <= acked + 1 + u64::from(MAX_UNACKED) {
                let through = last.min(next + FLOOD - 1);
                let report = |seq| Report { seq, run: run(FLOOD_BEGAN + Duration::from_secs(seq)) };
                frames.send(AgentFrame::reports((next..=through).map(report).collect()).into()).await?;
                next = through + 1;
            }
            match HubFrame::try_from(answers.message().await?.ok_or(std::fmt::Error)?)? {
                HubFrame::Ack(through) => acked = through,
                HubFrame::GoAway { reason, .. } => anyhow::bail!("{reason}"),
                HubFrame::Welcome(_) | HubFrame::Definitions { .. } | HubFrame::Command(_) | HubFrame::Mark(_) => {}
            }
        }
        Ok(began.elapsed())
    }

    /// In a session of its own reads nothing, although it answers pings, and says that it lives, or reports as much, until the
    /// connection has ended.
    pub(super) async fn reads_nothing(&self, reports: bool) -> anyhow::Result<()> {
        let mut client = FleetClient::new(self.dial_with(Some(0)).await?);
        let (frames, queued) = mpsc::channel(1);
        frames.send(AgentFrame::Hello(self.hello()).into()).await?;
        let _unread = client.session(ReceiverStream::new(queued)).await?.into_inner();
        frames.send(AgentFrame::Snapshot { checks: vec![self.check()], last: true }.into()).await?;
        loop {
            if reports {
                self.report();
                let fresh = self.known.lock().reports.last().cloned();
                frames.send(AgentFrame::reports(fresh.into_iter().collect()).into()).await?;
            } else {
                frames.send(self.words(u64::MAX).0.into()).await?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A run ends.
    pub(super) fn report(&self) {
        let mut known = self.known.lock();
        known.reported += 1;
        let (seq, slot) = (known.reported, virtual_time::unset());
        known.reports.push(Report { seq, run: run(slot) });
    }

    async fn dial(&self) -> anyhow::Result<Channel> {
        self.dial_with(None).await
    }

    /// With so many bytes that may be sent to it ahead of what it has read.
    async fn dial_with(&self, window: Option<u32>) -> anyhow::Result<Channel> {
        let mut weather = self.weather.subscribe();
        weather.wait_for(|weather| *weather != Weather::Cut).await?;
        let (near, far, open) = wire::connection(self.known.lock().identity.clone(), &weather);
        self.known.lock().connection = Some(open);
        self.door.knock(far)?;
        Ok(over(near, window).await?)
    }

    async fn session(&self) -> anyhow::Result<()> {
        let mut client = FleetClient::new(tokio::time::timeout(DIAL, self.dial()).await??);
        let (frames, queued) = mpsc::channel(64);
        frames.send(AgentFrame::Hello(self.hello()).into()).await?;
        let mut answers = client.session(ReceiverStream::new(queued)).await?.into_inner();
        let first = answers.message().await?.ok_or(std::fmt::Error)?;
        let first = HubFrame::try_from(first)?;
        let HubFrame::Welcome(welcome) = first else { return self.farewell(first) };
        self.known.lock().sessions += 1;
        let snapshot = AgentFrame::Snapshot { checks: vec![self.check()], last: true };
        frames.send(snapshot.into()).await?;
        let mut sent = 0;
        let mut beat = tokio::time::interval(Duration::from_millis(u64::from(welcome.heartbeat_ms)));
        loop {
            tokio::select! {
                answer = answers.message() => match HubFrame::try_from(answer?.ok_or(std::fmt::Error)?)? {
                    HubFrame::Ack(through) => self.known.lock().reports.retain(|report| report.seq > through),
                    HubFrame::Definitions { .. } | HubFrame::Command(_) | HubFrame::Mark(_) => {}
                    other @ (HubFrame::Welcome(_) | HubFrame::GoAway { .. }) => return self.farewell(other),
                },
                _ = beat.tick(), if self.known.lock().speaks => {
                    self.renew(&mut client).await?;
                    let (beat, fresh) = self.words(sent);
                    frames.send(beat.into()).await?;
                    if let Some(last) = fresh.last() {
                        sent = last.seq;
                        frames.send(AgentFrame::reports(fresh).into()).await?;
                    }
                }
            }
        }
    }

    fn farewell(&self, frame: HubFrame) -> anyhow::Result<()> {
        let HubFrame::GoAway { reason, .. } = frame else { anyhow::bail!("out of order: {frame:?}") };
        self.known.lock().farewells.push((virtual_time::unset(), reason));
        Ok(())
    }

    /// A sign of life, and the reports after the last one that was sent.
    fn words(&self, sent: u64) -> (AgentFrame, Vec<Report>) {
        let known = self.known.lock();
        let beat =
            Heartbeat { sent_at: virtual_time::unset(), backlog: known.reports.len() as u64, dropped_reports: 0 };
        (AgentFrame::Heartbeat(beat), known.reports.iter().filter(|report| report.seq > sent).cloned().collect())
    }

    /// At two thirds of the certificate's life.
    async fn renew(&self, client: &mut FleetClient<Channel>) -> anyhow::Result<()> {
        let AgentIdentity { issued_at, not_after, .. } = self.known.lock().identity.clone();
        let life = not_after.duration_since(issued_at);
        if !self.known.lock().renews || virtual_time::unset() < issued_at + life * 2 / 3 {
            return Ok(());
        }
        let reply = client.renew(RenewRequest { csr: signing_request() }).await?.into_inner();
        let mut known = self.known.lock();
        known.identity = identity(&reply.certificate);
        known.renewals += 1;
        Ok(())
    }

    pub(super) fn hello(&self) -> Hello {
        let known = self.known.lock();
        Hello {
            cluster: self.cluster.clone(),
            cluster_uid: format!("uid-{}", self.cluster),
            incarnation: "i".into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            kubernetes_version: "v1.33.0".into(),
            oldest_seq: known.reports.first().map_or(known.reported + 1, |report| report.seq),
            next_seq: known.reported + 1,
            sent_at: virtual_time::unset(),
            dropped_reports: 0,
            journal_id: "j".into(),
            hub_mark: String::new(),
            policy: Vec::new(),
        }
    }

    fn check(&self) -> CheckState {
        CheckState {
            uid: "uid-dns".into(),
            namespace: "health".into(),
            name: "dns".into(),
            description: String::new(),
            phase: Phase::Succeeded,
            message: String::new(),
            schedule: "@every 60s".into(),
            running: None,
            next_slot: Some(self.known.lock().next_slot),
            timeout_seconds: 60,
            check: Totals::default(),
            remedy: None,
            remedy_status: String::new(),
            samples: Vec::new(),
            refused_samples: 0,
            pauses: Vec::new(),
            remedy_budget: None,
            depends_on: Vec::new(),
            definition: None,
        }
    }
}

/// HTTP/2 over this wire, and over no other once that has ended.
pub(super) async fn over(near: DuplexStream, window: Option<u32>) -> Result<Channel, tonic::transport::Error> {
    let near = Mutex::new(Some(near));
    let once = tower::service_fn(move |_: Uri| {
        let near = near.lock().take().map(TokioIo::new).ok_or(std::io::ErrorKind::NotConnected);
        std::future::ready(near.map_err(std::io::Error::from))
    });
    let endpoint = Endpoint::from_static("http://hub")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(window);
    endpoint.connect_with_connector(once).await
}

fn run(slot: Timestamp) -> Run {
    Run {
        key: RunKey { check_uid: "uid-dns".into(), kind: RunKind::HealthCheck, slot },
        namespace: "health".into(),
        name: "dns".into(),
        workflow: None,
        outcome: Outcome::Succeeded,
        reason: None,
        message: String::new(),
        started_at: slot,
        finished_at: slot,
        warning: String::new(),
        log_tail: String::new(),
    }
}
