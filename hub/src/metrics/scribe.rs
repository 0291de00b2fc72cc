//! The thread that makes the chunks of all expositions.
//!
//! There is one, and it stays: the C library has memory for each thread and keeps what was once needed there. A pool's
//! threads, of which any may make the next chunk, came to keep the labels of a whole fleet each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use axum::body::Bytes;
use tokio::sync::oneshot;

use super::Exposition;

/// Makes chunks, one after the other, of whatever exposition is next.
#[derive(Clone)]
pub(crate) struct Scribe(mpsc::Sender<Order>);

struct Order {
    exposition: Exposition,
    made: oneshot::Sender<Made>,
}

/// The next chunk, and what comes after it; nothing after the last.
pub(super) type Made = Option<(Bytes, Exposition)>;

impl Scribe {
    /// Starts the thread, which ends when the last of its clients does. Where the system has no thread to give, that is
    /// logged and every exposition is cut off.
    pub(crate) fn start() -> Scribe {
        let (orders, queue) = mpsc::channel();
        if let Err(error) = thread::Builder::new().name("exposition".to_owned()).spawn(move || work(&queue)) {
            tracing::error!(%error, "no thread for /metrics and /federate: they answer nothing until the hub is restarted");
        }
        Scribe(orders)
    }

    /// Makes the next chunk on the thread. An error of the receiver is an exposition that cannot go on.
    pub(super) fn next(&self, exposition: Exposition) -> oneshot::Receiver<Made> {
        let (made, receiver) = oneshot::channel();
        // Where the thread is gone the order is dropped, and with it what the receiver waits for.
        let _ = self.0.send(Order { exposition, made });
        receiver
    }
}

fn work(queue: &mpsc::Receiver<Order>) {
    while let Ok(Order { mut exposition, made }) = queue.recv() {
        if made.is_closed() {
            continue;
        }
        // A panic cuts off its own exposition and no other; it was logged where it happened.
        let chunk = catch_unwind(AssertUnwindSafe(move || {
            let chunk = exposition.find(|chunk| !chunk.is_empty())?;
            Some((chunk, exposition))
        }));
        if let Ok(chunk) = chunk {
            // Who asked may have left.
            let _ = made.send(chunk);
        }
    }
}
