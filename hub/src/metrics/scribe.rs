//! The threads that make the chunks of expositions: one for all of `/metrics`, one for all of `/federate`, whose
//! selectors can cost much more, so that who asks for those keeps no scrape waiting.
//!
//! They stay: the C library has memory for each thread and keeps what was once needed there. A pool's threads, of which any
//! may make the next chunk, came to keep the labels of a whole fleet each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use axum::body::Bytes;
use tokio::sync::oneshot;

use super::Exposition;

/// Makes chunks of whatever expositions are under way, in turns.
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
    pub(crate) fn start(name: &str) -> Scribe {
        let (orders, queue) = mpsc::channel();
        if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(move || work(&queue)) {
            tracing::error!(%error, "no thread for /{name}: it answers nothing until the hub is restarted");
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
    let mut waiting = VecDeque::new();
    loop {
        waiting.extend(queue.try_iter());
        let Some(order) = waiting.pop_front().or_else(|| queue.recv().ok()) else { return };
        waiting.extend(step(order));
    }
}

/// Takes one turn of an order; what is left of it where there is no text yet.
fn step(order: Order) -> Option<Order> {
    let Order { mut exposition, made } = order;
    if made.is_closed() {
        return None;
    }
    // A panic cuts off its own exposition and no other; it was logged where it happened.
    let turn = catch_unwind(AssertUnwindSafe(move || (exposition.next(), exposition)));
    let (chunk, exposition) = turn.ok()?;
    if chunk.as_ref().is_some_and(Bytes::is_empty) {
        return Some(Order { exposition, made });
    }
    // Who asked may have left.
    let _ = made.send(chunk.map(|chunk| (chunk, exposition)));
    None
}
