//! The time that an agent goes by: its own clock as long as that agrees with the API server's, the API server's where it
//! does not, and between two answers neither but the time that passed.
//!
//! A slot that ran under a clock that was a day ahead would have used up that day, and one under a clock that was behind
//! would run a second time. The cluster's objects carry the API server's time, so that is the time to agree with.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// What the wall clock may gain or lose between two looks without having been set.
const DRIFT: Duration = Duration::from_secs(1);
/// How far the own clock may be from the API server's: its `Date` is cut to the second, and an answer takes a while.
const TOLERANCE: Duration = Duration::from_secs(3);
/// How far it may be to be believed again once it was contradicted: one that is off by about the tolerance must not be
/// believed and contradicted in turns.
const BELIEVED_AGAIN: Duration = Duration::from_millis(1500);

/// Tells the time from what the API server's answers said last. It knows nothing at first, and trusts its own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The monotonic time and the instant it was then.
    anchor: Option<(Duration, Timestamp)>,
    /// The last answer contradicted the own clock.
    is_contradicted: bool,
}

impl Clock {
    /// The time, where the monotonic clock (of any origin) and the own wall clock say this. Steps of the wall clock have
    /// no effect before the next answer is heard.
    pub fn now(&self, monotonic: Duration, wall: Timestamp) -> Timestamp {
        let Some((at, then)) = self.anchor else { return wall };
        then.saturating_add(monotonic.saturating_sub(at)).unwrap_or(wall)
    }

    /// An answer of the API server carried this time.
    pub fn heard(&mut self, monotonic: Duration, wall: Timestamp, server: Timestamp) {
        let agrees = |time: Timestamp, within| time.duration_since(server).unsigned_abs() <= within;
        let known = self.now(monotonic, wall);
        self.is_contradicted = !agrees(wall, if self.is_contradicted { BELIEVED_AGAIN } else { TOLERANCE });
        let time = match self.is_contradicted {
            false => wall,
            // What it went by so far is finer than the server's whole seconds.
            true if agrees(known, TOLERANCE) => known,
            true => server,
        };
        self.anchor = Some((monotonic, time));
    }
}

/// Notices when the wall clock is set: by a person, by NTP, or because the machine slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    monotonic: Duration,
    wall: Timestamp,
}

impl Steps {
    /// From here on, where the monotonic clock (of any origin) and the wall clock say this.
    pub fn new(monotonic: Duration, wall: Timestamp) -> Steps {
        Steps { monotonic, wall }
    }

    /// By how much the wall clock was set since the last look, ahead or back; None where it went on by itself.
    pub fn look(&mut self, monotonic: Duration, wall: Timestamp) -> Option<SignedDuration> {
        let passed = monotonic.saturating_sub(self.monotonic);
        let step = wall.duration_since(self.wall.saturating_add(passed).unwrap_or(wall));
        *self = Steps { monotonic, wall };
        (step.unsigned_abs() > DRIFT).then_some(step)
    }
}

/// Whether a clock may be behind: it says an earlier time than one that was written by it. It was ahead then, or is behind
/// now, and what `others` say of it decides: by how much each of their clocks is ahead of it. Where they do not, it may be.
pub fn may_be_behind(now: Timestamp, written: Timestamp, others: impl IntoIterator<Item = SignedDuration>) -> bool {
    let gap = written.duration_since(now);
    if !gap.is_positive() {
        return false;
    }
    let (mut agree, mut contradict) = (0_usize, 0_usize);
    for ahead in others {
        match ahead.unsigned_abs() * 2 < gap.unsigned_abs() {
            true => agree += 1,
            false => contradict += 1,
        }
    }
    agree <= contradict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_says_less_than_was_written_is_believed_where_most_others_agree_with_it() {
        let ahead =
            |seconds: &[i64]| seconds.iter().map(|second| SignedDuration::from_secs(*second)).collect::<Vec<_>>();
        let behind = |written, others: &[i64]| may_be_behind(at(0), at(written), ahead(others));
        assert!(!behind(0, &[]) && !behind(-1, &[3600]), "it says no less");
        assert!(behind(1, &[]), "nobody tells");
        let hour = 3_600_000;
        assert!(behind(hour, &[3_600, 3_700]) && behind(hour, &[3_600, 0]) && behind(hour, &[-3_600]));
        assert!(!behind(hour, &[0]) && !behind(hour, &[2, -2, 3_600]));
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_own_clock_counts_while_it_agrees_and_its_steps_do_not() {
        let mut clock = Clock::default();
        assert_eq!(clock.now(ms(0), at(250)), at(250));
        clock.heard(ms(0), at(250), at(0));
        assert_eq!(clock.now(ms(1_000), at(1_250)), at(1_250));
        assert_eq!(clock.now(ms(1_000), at(3_600_000)), at(1_250), "stepped, and nothing heard yet");
        clock.heard(ms(2_000), at(3_601_000), at(2_000));
        assert_eq!(clock.now(ms(3_000), at(3_602_000)), at(3_250), "stepped, and contradicted");
        clock.heard(ms(4_000), at(4_300), at(4_000));
        assert_eq!(clock.now(ms(4_000), at(4_300)), at(4_300), "put right");
    }

    #[test]
    fn a_clock_that_is_off_by_the_tolerance_is_not_believed_and_contradicted_in_turns() {
        let mut clock = Clock::default();
        let mut steps = 0;
        let mut before = at(2_800);
        for millis in (0..20_000).step_by(100) {
            // The server's whole seconds; the own clock is 2.8 s ahead.
            clock.heard(ms(millis as u64), at(millis + 2_800), at(millis / 1000 * 1000));
            let now = clock.now(ms(millis as u64), at(millis + 2_800));
            steps += i32::from(now.duration_since(before).as_millis().abs() > 200);
            before = now;
        }
        assert_eq!(steps, 1, "it is contradicted once");
    }

    #[test]
    fn a_clock_that_was_wrong_from_the_start_is_not_believed() {
        let mut clock = Clock::default();
        clock.heard(ms(5), at(86_400_000), at(1_000));
        assert_eq!(clock.now(ms(505), at(86_400_500)), at(1_500));
    }

    #[test]
    fn a_step_is_told_once_and_drift_is_none() {
        let mut steps = Steps::new(ms(0), at(0));
        assert_eq!(steps.look(ms(5_000), at(5_900)), None);
        assert_eq!(steps.look(ms(10_000), at(11_800)), None, "drift does not add up");
        assert_eq!(steps.look(ms(11_000), at(3_612_800)), Some(SignedDuration::from_secs(3600)));
        assert_eq!(steps.look(ms(12_000), at(3_613_800)), None);
        assert_eq!(steps.look(ms(12_000), at(13_800)), Some(SignedDuration::from_secs(-3600)));
    }
}
