//! The slots of one check: the instants at which it is to run. They follow from the schedule, the check's creation time
//! and its key alone, so every agent, at any time and after any restart, names the same ones.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::Schedule;

/// The jitter is below this.
const MAX_JITTER: Duration = Duration::from_secs(300);
/// The gap is at most this for calendar times.
const MAX_CALENDAR_GAP: Duration = Duration::from_secs(3600);

/// The slots of one check, all whole seconds.
///
/// - An interval runs at once when the check is created, then at `created + jitter + k * period`, k >= 1. The jitter
///   spreads checks that were created together; it is part of the slot.
/// - Calendar times are exact, without jitter; those after the creation count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    schedule: Schedule,
    created: Timestamp,
    jitter: Duration,
}

impl Slots {
    /// `created` is the check's creationTimestamp (a fraction of a second is dropped); `key` is what the jitter is drawn
    /// from: `namespace/name/uid`.
    pub fn new(schedule: Schedule, created: Timestamp, key: &str) -> Self {
        let created = Timestamp::from_second(super::floor_second(created)).unwrap_or(created);
        let jitter = schedule.period().map_or(Duration::ZERO, |period| jitter(key, period));
        Slots { schedule, created, jitter }
    }

    /// The schedule behind the slots.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whole seconds, the same for the same key and period: the first 8 bytes of SHA-256 of the key, as a big-endian
    /// number, modulo the lesser of half the period and 300 s. Zero for calendar times and for periods below 4 s.
    pub fn jitter(&self) -> Duration {
        self.jitter
    }

    /// The latest slot that is not after `now` and strictly after `floor`: however many were missed, one is made up for.
    pub fn due(&self, now: Timestamp, floor: Option<Timestamp>) -> Option<Timestamp> {
        match self.second_slot() {
            Interval::Yes(second) => {
                let latest = second.and_then(|second| {
                    self.schedule.latest_at(now, floor.unwrap_or(Timestamp::MIN), second)
                });
                let first = || (self.created <= now && floor.is_none_or(|floor| floor < self.created)).then_some(self.created);
                latest.or_else(first)
            }
            Interval::No => self.schedule.latest_at(now, self.not_before_creation(floor), self.created),
        }
    }
}
