//! The owner's loop.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::command::{self, Answer, Layer};
use active_monitor_core::fleet::{Change, Fleet, FleetView, Refusal};
use active_monitor_core::session::frame::Hello;
use active_monitor_core::view::Event;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Given, Message, Opened, Published};
use crate::clock;

/// Messages that share one publication.
const BATCH: usize = 1024;
/// Commands that may wait for a session to take them up.
const COMMANDS: usize = 64;

/// How an open session is reached.
struct Open {
    cut: oneshot::Sender<&'static str>,
    commands: mpsc::Sender<Given>,
}

struct Owner {
    fleet: Fleet,
    /// The newest session of each cluster, as far as it is not known to be over.
    sessions: BTreeMap<String, Open>,
    view: watch::Sender<Arc<FleetView>>,
    events: broadcast::Sender<Published>,
    watch: clock::Watch,
}

pub(super) async fn run(
    fleet: Fleet,
    mut queue: mpsc::Receiver<Message>,
    view: watch::Sender<Arc<FleetView>>,
    events: broadcast::Sender<Published>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut owner = Owner { fleet, sessions: BTreeMap::new(), view, events, watch: clock::Watch::new() };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let due = due_in(owner.fleet.next_wake());
        tokio::select! {
            // First what agents say: a word that waits here must not be overtaken by the end of its lease.
            biased;
            // None means that everybody who could say something is gone: only at the end of the process.
            received = queue.recv_many(&mut batch, BATCH) => if received == 0 { return Ok(()) },
            () = tokio::time::sleep(due) => {}
            () = stop.cancelled() => return Ok(()),
        }
        owner.turn(&mut batch);
    }
}

/// Time until a deadline; an hour where there is none, which costs nothing.
fn due_in(wake: Option<Timestamp>) -> Duration {
    let Some(wake) = wake else { return Duration::from_secs(3600) };
    // One more millisecond, since the deadline may lie within the current one.
    (clock::until(wake) + Duration::from_millis(1)).min(Duration::from_secs(3600))
}

impl Owner {
    /// Applies what waits, lets time pass, publishes.
    fn turn(&mut self, batch: &mut Vec<Message>) {
        let (now, step) = self.watch.look();
        let mut events = Vec::new();
        if let Some(by) = step {
            let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            tracing::warn!(by_ms, "the hub's clock was set while it ran: leases go on as they were");
            events.extend(self.fleet.stepped(now, by));
        }
        let mut settled = Vec::new();
        let mut opened = Vec::new();
        let messages = batch.len();
        for message in batch.drain(..) {
            match message {
                Message::Open(hello, epoch, answer) => {
                    opened.push((answer, self.open(now, &hello, epoch, &mut events)));
                }
                Message::Change(change) => {
                    if let Change::ClusterRemoved { name } = &change {
                        self.cut(name, "the cluster was removed");
                    }
                    let followed = if let Change::Followed(followed) = &change { &followed.clusters[..] } else { &[] };
                    let moving: Vec<String> = followed.iter().map(|there| there.cluster.clone()).collect();
                    events.extend(self.fleet.apply(now, change));
                    for cluster in moving {
                        if self.fleet.open_epoch(&cluster).is_none() {
                            self.cut(&cluster, "another session of this cluster took over");
                        }
                    }
                }
                Message::Command(cluster, given) => self.command(&cluster, given),
                Message::Cut(cluster, reason) => self.cut(&cluster, reason),
                Message::Announce(event) => events.push(event),
                Message::Settle(answer) => settled.push(answer),
            }
        }
        events.extend(self.fleet.tick(now));
        if messages > 0 || !events.is_empty() {
            self.publish(events);
        }
        // Whoever went away meanwhile does not need the answer.
        for (answer, result) in opened {
            let _ = answer.send(result);
        }
        for answer in settled {
            let _ = answer.send(());
        }
    }

    fn open(
        &mut self,
        now: Timestamp,
        hello: &Hello,
        epoch: Option<u64>,
        events: &mut Vec<Event>,
    ) -> Result<Opened, Refusal> {
        let (result, changed) = match epoch {
            Some(epoch) => self.fleet.open_as(now, hello, epoch),
            None => self.fleet.open(now, hello),
        };
        events.extend(changed);
        let epoch = result?;
        self.cut(&hello.cluster, "another session of this cluster took over");
        let ((cutter, cut), (sender, commands)) = (oneshot::channel(), mpsc::channel(COMMANDS));
        self.sessions.insert(hello.cluster.clone(), Open { cut: cutter, commands: sender });
        Ok(Opened { epoch, cut, commands })
    }

    fn cut(&mut self, cluster: &str, reason: &'static str) {
        if let Some(session) = self.sessions.remove(cluster) {
            // Err means that the session is over already.
            let _ = session.cut.send(reason);
        }
    }

    /// Where the session is over, the dropped sender says so to who waits.
    fn command(&self, cluster: &str, given: Given) {
        let Some(session) = self.sessions.get(cluster) else { return };
        if let Err(mpsc::error::TrySendError::Full(Given { command, answer })) = session.commands.try_send(given) {
            let reason = format!("{COMMANDS} commands wait for its session, which is the most");
            let refused = Err(command::Refusal::new(Layer::Hub, reason));
            // Err means that nobody waits any more.
            let _ = answer.send(Answer { id: command.id, verdict: refused });
        }
    }

    fn publish(&mut self, events: Vec<Event>) {
        let view = self.fleet.publish();
        let revision = view.revision;
        self.view.send_replace(view);
        for event in events {
            // Err means that nobody listens.
            let _ = self.events.send((revision, Arc::new(event)));
        }
    }
}
