//! Days by which uptime is rolled up.

use jiff::Timestamp;

const MICROS: i64 = 24 * 3600 * 1_000_000;

/// A day in UTC, by its number since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

impl Day {
    /// The day that a time is in.
    pub fn of(at: Timestamp) -> Day {
        Day(at.as_microsecond().div_euclid(MICROS))
    }

    /// Its beginning; far outside the years that a time can have, the nearest.
    pub fn start(self) -> Timestamp {
        let nearest = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        self.0.checked_mul(MICROS).and_then(|micros| Timestamp::from_microsecond(micros).ok()).unwrap_or(nearest)
    }

    /// The day after.
    pub fn next(self) -> Day {
        Day(self.0.saturating_add(1))
    }

    /// The day before.
    pub fn before(self) -> Day {
        Day(self.0.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_utc() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let day = Day::of(at("2026-11-29T23:59:59.999999Z"));
        assert_eq!((day.start(), day.next().start()), (at("2026-11-29T00:00:00Z"), at("2026-11-30T00:00:00Z")));
        assert_eq!((Day::of(day.start()), Day::of(at("1969-12-31T12:00:00Z"))), (day, Day(-1)));
        assert_eq!((Day(i64::MAX).start(), Day(i64::MIN).start()), (Timestamp::MAX, Timestamp::MIN));
    }
}
