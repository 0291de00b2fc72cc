//! The slots of one check: the instants at which it is to run. They follow from the schedule, the check's creation time
//! and its key alone, so every agent, at any time and after any restart, names the same ones.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Schedule, floor_second};

/// The jitter is below this.
const MAX_JITTER: Duration = Duration::from_secs(300);
/// The gap is at most this for calendar times.
const MAX_CALENDAR_GAP: Duration = Duration::from_secs(3600);

/// The slots of one check, all whole seconds.
///
/// - An interval runs at once when the check is created, then at `created + jitter + k * period`, k >= 1. The jitter
///   spreads checks that were created together; it is part of the slot.
/// - Calendar times are exact, but for a jitter that the check asks for; those after the creation count.
///
/// A delay that the check asks for moves the creation, for both. Runs of slots with a jitter start within their second, at
/// [`Slots::start`]: checks that share a second do not all come to the API server at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    schedule: Schedule,
    created: Timestamp,
    jitter: Duration,
    /// From a slot with a jitter to the start of its run; below a second.
    within_second: Duration,
    /// An interval's second slot, from which on they lie on a grid; `None` for calendar times.
    grid: Option<Timestamp>,
}

/// What a check asks for beside its schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Time after the creation before which there is no slot.
    pub delay: Duration,
    /// The jitter is drawn below this, instead of the default.
    pub jitter_below: Option<Duration>,
}

impl Slots {
    /// `created` is the check's creationTimestamp (a fraction of a second is dropped); `key` is what the jitter is drawn
    /// from: `namespace/name/uid`.
    pub fn new(schedule: Schedule, created: Timestamp, key: &str, spread: Spread) -> Self {
        let created = created.saturating_add(spread.delay).unwrap_or(created);
        let created = Timestamp::from_second(floor_second(created)).unwrap_or(created);
        let period = schedule.period();
        let default = period.map_or(Duration::ZERO, |period| (period / 2).min(MAX_JITTER));
        let (jitter, within_second) = draw_jitter(key, spread.jitter_below.unwrap_or(default));
        let grid = period.map(|period| created.saturating_add(period + jitter).unwrap_or(Timestamp::MAX));
        Slots { schedule, created, jitter, within_second, grid }
    }

    /// The schedule behind the slots.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whole seconds, the same for the same key and period: the first 8 bytes of SHA-256 of the key, as a big-endian
    /// number, modulo the lesser of half the period and 300 s, or what the check asks for. Without that it is zero for
    /// calendar times and for periods below 4 s.
    pub fn jitter(&self) -> Duration {
        self.jitter
    }

    /// The latest slot that is not after `now` and strictly after `floor`: however many were missed, one is made up for.
    pub fn due(&self, now: Timestamp, floor: Option<Timestamp>) -> Option<Timestamp> {
        let Some(grid) = self.grid else {
            let floor = floor.unwrap_or(Timestamp::MIN);
            let (now, floor) = (before(now, self.jitter), before(floor, self.jitter).max(self.created));
            return self.schedule.latest_at(now, floor, self.created).map(|time| after(time, self.jitter));
        };
        let first_is_due = self.created <= now && floor.is_none_or(|floor| floor < self.created);
        self.schedule
            .latest_at(now, floor.unwrap_or(Timestamp::MIN), grid)
            .or_else(|| first_is_due.then_some(self.created))
    }

    /// The first slot strictly after `at`. `None` only for calendar times, as in [`Schedule::next_after`].
    pub fn next(&self, at: Timestamp) -> Option<Timestamp> {
        match self.grid {
            None => {
                let from = before(at, self.jitter).max(self.created);
                self.schedule.next_after(from, self.created).map(|time| after(time, self.jitter))
            }
            Some(_) if at < self.created => Some(self.created),
            Some(grid) => self.schedule.next_after(at, grid),
        }
    }

    /// When the run of `slot` is to start: the next 8 bytes of the jitter's digest, modulo 1,000, in milliseconds after it.
    /// At once where there is no jitter, and for an interval's first slot.
    pub fn start(&self, slot: Timestamp) -> Timestamp {
        let at_once = self.grid.is_some() && slot == self.created;
        if at_once { slot } else { after(slot, self.within_second) }
    }

    /// How long a run of `slot` may take if nothing else says so: the interval, or the time to the calendar's next slot,
    /// but there at most an hour.
    pub fn gap(&self, slot: Timestamp) -> Duration {
        self.schedule.period().unwrap_or_else(|| {
            let slot = before(slot, self.jitter);
            let next = self.schedule.next_after(slot, self.created);
            let gap = next.and_then(|next| Duration::try_from(next.duration_since(slot)).ok());
            gap.map_or(MAX_CALENDAR_GAP, |gap| gap.min(MAX_CALENDAR_GAP))
        })
    }
}

fn before(instant: Timestamp, jitter: Duration) -> Timestamp {
    instant.saturating_sub(jitter).unwrap_or(instant)
}

fn after(instant: Timestamp, jitter: Duration) -> Timestamp {
    instant.saturating_add(jitter).unwrap_or(instant)
}

/// Whole seconds below `below`, and a part of a second where that leaves room for any.
fn draw_jitter(key: &str, below: Duration) -> (Duration, Duration) {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let mut draws =
        digest.chunks_exact(8).map(|bytes| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)));
    let mut draw = |below: u64| draws.next().and_then(|drawn| drawn.checked_rem(below)).unwrap_or(0);
    let seconds = draw(below.as_secs());
    let milliseconds = if below < Duration::from_secs(1) { 0 } else { draw(1000) };
    (Duration::from_secs(seconds), Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "health/inline-hello/8a1e6a6e-7f1e-4f5e-9c1b-3b1f0f3f4a11";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn every(period: u64) -> Slots {
        Slots::new(Schedule::every(seconds(period)), at("2026-03-01T00:00:00.7Z"), KEY, Spread::default())
    }

    fn cron(expr: &str) -> Slots {
        Slots::new(Schedule::parse_cron(expr).expect(expr), at("2026-03-01T00:00:00Z"), KEY, Spread::default())
    }

    /// Frozen: a changed jitter would move every slot of every fleet.
    #[test]
    fn the_jitter_is_stable_and_bounded() {
        assert_eq!(every(3600).jitter(), seconds(173));
        assert_eq!(cron("* * * * *").jitter(), Duration::ZERO);
        for period in 1..=3 {
            assert_eq!(every(period).jitter(), Duration::ZERO);
        }
    }

    /// Frozen as well.
    #[test]
    fn a_run_with_a_jitter_starts_within_its_second() {
        let created = at("2026-03-01T00:00:00Z");
        let slots = every(60);
        let second = slots.next(created).expect("a slot");
        assert_eq!((slots.start(created), slots.start(second)), (created, second + Duration::from_millis(350)));
        let (exact, whole) = (cron("* * * * *"), every(1));
        assert_eq!((exact.start(second), whole.start(second)), (second, second));
        let spread = Spread { jitter_below: Some(seconds(1)), ..Spread::default() };
        let spread = Slots::new(Schedule::parse_cron("* * * * *").expect("cron"), created, KEY, spread);
        assert_eq!(spread.start(second), slots.start(second));
    }

    #[test]
    fn an_interval_runs_at_once_then_on_its_grid() {
        let slots = every(3600);
        let created = at("2026-03-01T00:00:00Z");
        let second = created + seconds(3600) + slots.jitter();
        assert_eq!(slots.due(created - seconds(1), None), None);
        assert_eq!(slots.due(created, None), Some(created));
        assert_eq!(slots.due(created, Some(created)), None);
        assert_eq!(slots.next(created - seconds(99)), Some(created));
        assert_eq!(slots.next(created), Some(second));
        assert_eq!(slots.due(second - seconds(1), None), Some(created));
        assert_eq!(slots.due(second, Some(created)), Some(second));
        assert_eq!(slots.next(second), Some(second + seconds(3600)));
        assert_eq!(slots.gap(created), seconds(3600));
        // `@every` is the same as the interval it names.
        assert_eq!(cron("@every 1h").next(second), slots.next(second));
    }

    #[test]
    fn a_delay_and_a_jitter_that_are_asked_for_count() {
        let created = at("2026-03-01T00:00:00Z");
        let spread = |delay, below| Spread { delay: seconds(delay), jitter_below: Some(seconds(below)) };
        let hourly = |spread| Slots::new(Schedule::every(seconds(3600)), created, KEY, spread);
        let exact = hourly(spread(90, 0));
        assert_eq!((exact.jitter(), exact.due(created + seconds(89), None)), (Duration::ZERO, None));
        assert_eq!(exact.due(created + seconds(90), None), Some(created + seconds(90)));
        assert_eq!(exact.next(created + seconds(90)), Some(created + seconds(3690)));
        // The same draw, another bound: 173 was drawn below 300.
        let wide = hourly(spread(0, 3600)).jitter();
        assert_eq!(wide.as_secs() % 300, 173);

        let daily = Schedule::parse_cron("0 0 * * *").expect("cron");
        let spread = Slots::new(daily, created, KEY, spread(36 * 3600, 600));
        let first = at("2026-03-03T00:00:00Z") + spread.jitter();
        assert!(spread.jitter() > Duration::ZERO && spread.jitter() < seconds(600));
        assert_eq!(spread.next(created), Some(first));
        assert_eq!((spread.due(first - seconds(1), None), spread.due(first, None)), (None, Some(first)));
        assert_eq!((spread.due(first, Some(first)), spread.gap(first)), (None, seconds(3600)));
        assert_eq!(spread.next(first), Some(first + seconds(86_400)));
    }

    #[test]
    fn calendar_slots_start_after_the_creation() {
        let slots = cron("0 0 * * *");
        assert_eq!(slots.next(at("2020-01-01T00:00:00Z")), Some(at("2026-03-02T00:00:00Z")));
        assert_eq!(slots.due(at("2026-03-01T23:59:59Z"), None), None);
        assert_eq!(slots.due(at("2026-03-09T10:00:00Z"), None), Some(at("2026-03-09T00:00:00Z")));
        assert_eq!(slots.due(at("2026-03-09T10:00:00Z"), Some(at("2026-03-09T00:00:00Z"))), None);
    }

    #[test]
    fn the_gap_of_calendar_slots_is_at_most_an_hour() {
        assert_eq!(cron("*/7 * * * *").gap(at("2026-03-01T00:56:00Z")), seconds(240));
        assert_eq!(cron("@daily").gap(at("2026-03-02T00:00:00Z")), seconds(3600));
        assert_eq!(cron("0 0 29 2 *").gap(at("2096-02-29T00:00:00Z")), seconds(3600));
    }

    #[test]
    fn years_of_missed_slots_cost_no_more_than_one() {
        let now = at("2036-02-29T12:00:30Z");
        let started = Instant::now();
        for slots in [every(1), cron("* * * * *"), cron("CRON_TZ=Europe/Berlin * * * * *"), cron("0 0 30 2 *")] {
            for _ in 0..100 {
                slots.due(now, None);
            }
        }
        assert_eq!(every(1).due(now, None), Some(now));
        assert_eq!(cron("CRON_TZ=Europe/Berlin * * * * *").due(now, None), Some(at("2036-02-29T12:00:00Z")));
        // 400 searches; walking through the 315 million seconds would take minutes.
        assert!(started.elapsed() < seconds(20), "{:?}", started.elapsed());
    }

    proptest! {
        /// What is due is what `next` would have named last.
        #[test]
        fn due_and_next_agree(period in 1_u64..100_000, ago in 0_u64..1_000_000, floor in 0_u64..1_000_000) {
            let slots = every(period);
            let created = at("2026-03-01T00:00:00Z");
            let (now, floor) = (created + seconds(ago), created + seconds(floor));
            match slots.due(now, Some(floor)) {
                Some(slot) => {
                    prop_assert!(floor < slot && slot <= now);
                    prop_assert!(slots.next(slot).is_some_and(|next| next > now));
                }
                None => prop_assert!(slots.next(floor).is_some_and(|next| next > now)),
            }
        }
    }
}
