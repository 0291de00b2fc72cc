//! The frames of a session on their way to the agent. What it does not read waits, neither without bound nor for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use active_monitor_proto::v1;
use active_monitor_runtime::cut::{Progress, Written};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Frames that may wait for a slow agent.
const QUEUED: usize = 64;
/// How long an agent may leave the queue full.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take none of the frames that wait.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

type Frame = Result<v1::HubFrame, Status>;
/// The frames, as the connection takes them.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Frame> + Send>>;

/// The agent does not read.
#[derive(Debug)]
pub(super) struct Unread;

pub(super) struct Outgoing {
    frames: mpsc::Sender<Frame>,
    /// How many the connection has taken.
    taken: Arc<AtomicU64>,
    progress: Progress,
    /// That number when it was looked at last, and when one was taken last, or a part of one, or none waited.
    seen: u64,
    since: Instant,
}

impl Outgoing {
    pub(super) fn new(written: Written) -> (Outgoing, Frames) {
        let (frames, queued) = mpsc::channel(QUEUED);
        let taken = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&taken);
        let queued = ReceiverStream::new(queued).inspect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let progress = Progress::new(written);
        (Outgoing { frames, taken, progress, seen: 0, since: Instant::now() }, Box::pin(queued))
    }

    pub(super) async fn send(&mut self, frame: Frame) -> Result<(), Unread> {
        self.look();
        self.frames.send_timeout(frame, SEND_TIMEOUT).await.map_err(|_| Unread)
    }

    /// Ends once the agent has left what waits for it alone for too long.
    pub(super) async fn unread(&mut self) {
        loop {
            self.look();
            let end = self.since + UNREAD_TIMEOUT;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    fn look(&mut self) {
        let taken = self.taken.load(Ordering::Relaxed);
        // A large frame on a slow link takes its time.
        if self.progress.moved() || taken != self.seen || self.frames.capacity() == QUEUED {
            (self.seen, self.since) = (taken, Instant::now());
        }
    }

    /// A way to see how the queue stands while it is waited for.
    pub(super) fn queue(&self) -> Queue {
        Queue(self.frames.clone())
    }
}

pub(super) struct Queue(mpsc::Sender<Frame>);

impl Queue {
    /// Ends once no frame waits.
    pub(super) async fn emptied(&self) {
        // Err means that the connection is gone, as `closed` says.
        drop(self.0.reserve_many(QUEUED).await);
    }

    /// Ends once the connection is gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}
