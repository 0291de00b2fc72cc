//! When a check is due: intervals and cron expressions, as pure functions of instants that the caller gives.
//!
//! The syntax and the meaning of an expression are those of robfig/cron v3 `ParseStandard`, which Active-Monitor uses.
//! Three parts, each behind this module: `expression` reads the text, `calendar` finds the times (the `cron` crate walks
//! a calendar without time zones, the mapping to instants is ours), and [`Slots`] adds what is a check's own: its
//! creation time and its jitter. No clock is read and no zone database but the compiled-in one is used.

mod calendar;
mod duration;
mod expression;
mod slots;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

pub use self::duration::parse_go;
pub use self::expression::{Field, MAX_EXPRESSION_BYTES, ScheduleError};
pub use self::slots::{Slots, Spread};

use self::calendar::Calendar;
use self::expression::Parsed;

/// The longest interval, in seconds: the largest duration that Go's `time.Duration` holds (292 years).
const MAX_PERIOD_SECONDS: u64 = 9_223_372_036;

/// A rule that says when something happens: at a fixed interval, or at calendar times in a time zone.
///
/// All its times are whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Seconds, from 1 to [`MAX_PERIOD_SECONDS`].
    Every(i64),
    Calendar(Calendar),
}

impl Schedule {
    /// Reads an expression in the syntax of robfig/cron v3 `ParseStandard`: five fields, a descriptor such as `@daily`,
    /// or `@every 1h30m`, each with an optional `CRON_TZ=Zone ` or `TZ=Zone ` before it. UTC without a zone.
    ///
    /// As there, an expression may be valid and yet never fire (`0 0 30 2 *`): [`Schedule::next_after`] is then `None`.
    ///
    /// # Errors
    /// [`ScheduleError`] says which field is wrong and what is allowed. Expressions above [`MAX_EXPRESSION_BYTES`] are
    /// refused.
    pub fn parse_cron(expr: &str) -> Result<Schedule, ScheduleError> {
        let rule = match expression::parse(expr)? {
            Parsed::Every(period) => Rule::Every(clamp_period(period)),
            Parsed::Calendar { fields, zone } => Rule::Calendar(Calendar::new(&fields, zone)?),
        };
        Ok(Schedule { text: expr.to_owned(), rule })
    }

    /// A fixed interval. Like robfig's `Every`, it is at least one second and loses its fraction of a second; it is at
    /// most 292 years.
    pub fn every(period: Duration) -> Schedule {
        let seconds = clamp_period(period);
        Schedule { text: format!("@every {seconds}s"), rule: Rule::Every(seconds) }
    }

    /// The interval; `None` for calendar times.
    pub fn period(&self) -> Option<Duration> {
        match &self.rule {
            Rule::Every(seconds) => Some(Duration::from_secs(seconds.unsigned_abs())),
            Rule::Calendar(_) => None,
        }
    }

    /// The shortest time between two neighbours among the next `looked_at` times after `from`; `None` where there are
    /// not two. Of an interval it is the interval.
    pub fn shortest_gap(&self, from: Timestamp, looked_at: usize) -> Option<Duration> {
        if let Some(period) = self.period() {
            return Some(period);
        }
        let next = |time: &Timestamp| self.next_after(*time, from);
        let times: Vec<Timestamp> = std::iter::successors(next(&from), next).take(looked_at).collect();
        let gaps = times.windows(2).filter_map(|pair| match pair {
            [one, other] => Duration::try_from(other.duration_since(*one)).ok(),
            _ => None,
        });
        gaps.min()
    }

    /// The first time strictly after `after`.
    ///
    /// An interval has its times on the grid `anchor + k * period`, k >= 0; calendar times do not look at `anchor`.
    /// `None` if there is none: for calendar times up to the end of the fifth calendar year after `after`, and none
    /// after the year 2100.
    pub fn next_after(&self, after: Timestamp, anchor: Timestamp) -> Option<Timestamp> {
        let after = floor_second(after);
        let found = match &self.rule {
            Rule::Every(period) => next_on_grid(floor_second(anchor), *period, after),
            Rule::Calendar(calendar) => calendar.next_after(after)?,
        };
        Timestamp::from_second(found).ok()
    }

    /// The latest time that is not after `at` and strictly after `floor`; `anchor` as in [`Schedule::next_after`].
    ///
    /// The work does not grow with the number of times between `floor` and `at`, only with the changes of the zone's
    /// offset between them.
    pub fn latest_at(&self, at: Timestamp, floor: Timestamp, anchor: Timestamp) -> Option<Timestamp> {
        let (at, floor) = (floor_second(at), floor_second(floor));
        let found = match &self.rule {
            Rule::Every(period) => latest_on_grid(floor_second(anchor), *period, at)?,
            Rule::Calendar(calendar) => calendar.latest_at(at, floor)?,
        };
        (found > floor).then(|| Timestamp::from_second(found).ok()).flatten()
    }
}

/// The expression as it was given; an interval made by [`Schedule::every`] as `@every 90s`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whole seconds since 1970, rounded towards the past: for whole-second times, "after t" and "after its floor" are the
/// same. (`as_second` rounds towards 1970.)
fn floor_second(t: Timestamp) -> i64 {
    t.as_second() - i64::from(t.subsec_nanosecond() < 0)
}

fn clamp_period(period: Duration) -> i64 {
    i64::try_from(period.as_secs().clamp(1, MAX_PERIOD_SECONDS)).unwrap_or(i64::MAX)
}

fn next_on_grid(anchor: i64, period: i64, after: i64) -> i64 {
    if after < anchor { anchor } else { anchor + ((after - anchor) / period + 1) * period }
}

fn latest_on_grid(anchor: i64, period: i64, at: i64) -> Option<i64> {
    (at >= anchor).then(|| anchor + (at - anchor) / period * period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn an_interval_is_clamped_like_robfig_and_prints_what_it_parses() {
        for (given, seconds) in [(Duration::ZERO, 1), (Duration::from_millis(2900), 2), (Duration::from_secs(90), 90)] {
            let schedule = Schedule::every(given);
            assert_eq!(schedule.period(), Some(Duration::from_secs(seconds)));
            assert_eq!(Schedule::parse_cron(&schedule.to_string()), Ok(schedule));
        }
        assert_eq!(Schedule::every(Duration::MAX).period(), Some(Duration::from_secs(MAX_PERIOD_SECONDS)));
    }

    #[test]
    fn the_grid_holds_the_anchor_and_only_later_times() {
        let schedule = Schedule::every(Duration::from_secs(60));
        let anchor = at("2026-01-01T00:00:30Z");
        let next = |t: &str| schedule.next_after(at(t), anchor);
        assert_eq!(next("2025-01-01T00:00:00Z"), Some(anchor));
        assert_eq!(next("2026-01-01T00:00:29.999Z"), Some(anchor));
        assert_eq!(next("2026-01-01T00:00:30Z"), Some(at("2026-01-01T00:01:30Z")));
        let latest = |t: &str, floor: &str| schedule.latest_at(at(t), at(floor), anchor);
        assert_eq!(latest("2026-01-01T00:00:29Z", "2025-01-01T00:00:00Z"), None);
        assert_eq!(latest("2026-01-01T00:00:30Z", "2025-01-01T00:00:00Z"), Some(anchor));
        assert_eq!(latest("2026-01-01T00:01:29Z", "2026-01-01T00:00:30Z"), None);
        assert_eq!(latest("2026-01-01T00:01:30.5Z", "2026-01-01T00:00:30Z"), Some(at("2026-01-01T00:01:30Z")));
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        let ends = [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX];
        for expr in ["* * * * *", "CRON_TZ=Pacific/Apia 0 0 29 2 *", "0 0 30 2 *", "@every 1s", "@every 2562047h"] {
            let schedule = Schedule::parse_cron(expr).expect(expr);
            for (a, b) in ends.iter().flat_map(|a| ends.iter().map(move |b| (*a, *b))) {
                assert!(schedule.next_after(a, b).is_none_or(|next| next > a), "{expr}");
                assert!(schedule.latest_at(a, b, b).is_none_or(|latest| latest <= a && latest > b), "{expr}");
            }
        }
    }

    #[test]
    fn before_1970_the_fraction_is_rounded_to_the_past() {
        assert_eq!(floor_second(at("1969-12-31T23:59:59.5Z")), -1);
        assert_eq!(floor_second(at("1970-01-01T00:00:00.5Z")), 0);
    }
}
