//! The time, and steps of it. Whatever must hold in virtual time too asks here.

use std::time::Duration;

use active_monitor_core::clock::Steps;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Time between two looks of [`set_back`].
const LOOK: Duration = Duration::from_secs(1);

/// The time.
#[cfg(not(test))]
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    // No finer than the store keeps it: what was read back must be the same.
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

#[cfg(test)]
pub(crate) use virtual_time::now;

/// From now until then; nothing where that is over.
pub(crate) fn until(at: Timestamp) -> Duration {
    let left = at.as_millisecond().saturating_sub(now().as_millisecond());
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

/// Looks at the wall clock beside the monotonic one.
pub(crate) struct Watch {
    began: Instant,
    steps: Steps,
}

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch { began: Instant::now(), steps: Steps::new(Duration::ZERO, now()) }
    }

    /// The time, and by how much the clock was set since the last look.
    pub(crate) fn look(&mut self) -> (Timestamp, Option<SignedDuration>) {
        let now = now();
        (now, self.steps.look(self.began.elapsed(), now))
    }
}

/// Returns when the clock was set back.
pub(crate) async fn set_back() {
    let mut watch = Watch::new();
    while watch.look().1.is_none_or(|by| by.is_positive()) {
        tokio::time::sleep(LOOK).await;
    }
}

/// A wall clock that goes with tokio's, for tests whose time is virtual and whose tasks share the test's thread.
#[cfg(test)]
pub(crate) mod virtual_time {
    use std::cell::Cell;

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    thread_local! {
        /// When it began and what the time was then, and by how much the clock was set since.
        static ANCHOR: Cell<Option<(Instant, Timestamp, SignedDuration)>> = const { Cell::new(None) };
    }

    pub(crate) fn now() -> Timestamp {
        let by = ANCHOR.get().map_or(SignedDuration::ZERO, |(.., by)| by);
        unset() + by
    }

    /// The time as it is, whatever the clock was set to.
    pub(crate) fn unset() -> Timestamp {
        match ANCHOR.get() {
            Some((began, then, _)) => then + began.elapsed(),
            None => Timestamp::now(),
        }
    }

    /// From here on this thread's time is virtual.
    pub(crate) fn begin(then: Timestamp) {
        ANCHOR.set(Some((Instant::now(), then, SignedDuration::ZERO)));
    }

    /// Somebody sets the clock.
    pub(crate) fn step(by: SignedDuration) {
        let (began, then, before) = ANCHOR.get().expect("virtual time");
        ANCHOR.set(Some((began, then, before + by)));
    }
}
