//! How fast the hub may have checks made and rescheduled. Either lets a check run at once, so a hub that renames its checks
//! again and again would have more runs than the policy's shortest period lets it.

use std::time::Duration;

use super::Policy;

/// Credit for as many as there may be, which comes back evenly over the shortest period.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When all of it is back, as `now` is.
    full_at: Duration,
}

impl Pace {
    /// Takes credit for one that is to be made or rescheduled where there are `made` already. `now` is of a clock that
    /// never goes back.
    ///
    /// # Errors
    /// One sentence, as of [`Policy::admit`]: there is none left, and when there is.
    pub fn take(&mut self, now: Duration, policy: &Policy, made: usize) -> Result<(), String> {
        // What is there is kept where `maxChecks` was lowered, and so may be rescheduled.
        let (most, period) = (most(policy, made), period(policy));
        let full_at = self.full_at.max(now) + period / most;
        let early = full_at.saturating_sub(now + period);
        if early.is_zero() {
            self.full_at = full_at;
            return Ok(());
        }
        Err(format!(
            "one more pushed HealthCheck that is new or has another schedule: this cluster takes {most} in {} s, and the \
             next in {:.1} s; `minPeriodSeconds` in its --policy-file says so",
            period.as_secs(),
            early.as_secs_f64()
        ))
    }

    /// Gives back what the last [`Pace::take`] took, with the same policy and number: nothing was made of it.
    pub fn give_back(&mut self, policy: &Policy, made: usize) {
        self.full_at = self.full_at.saturating_sub(period(policy) / most(policy, made));
    }
}

/// How many there may be made and rescheduled in a period.
fn most(policy: &Policy, made: usize) -> u32 {
    policy.max_checks.max(u32::try_from(made).unwrap_or(u32::MAX)).max(1)
}

fn period(policy: &Policy) -> Duration {
    Duration::from_secs(policy.min_period_seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_checks: u32, min_period_seconds: u32) -> Policy {
        Policy { max_checks, min_period_seconds, ..Policy::default() }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// How many of `asked` are taken at this time.
    fn taken(pace: &mut Pace, now: Duration, policy: &Policy, asked: usize) -> usize {
        (0..asked).filter(|_| pace.take(now, policy, 0).is_ok()).count()
    }

    #[test]
    fn a_whole_set_is_taken_at_once_and_another_one_a_period_later() {
        for (max, period) in [(200, 10), (10, 3600), (7, 3), (1, 1)] {
            let (policy, mut pace) = (policy(max, period), Pace::default());
            let (max, period) = (max as usize, seconds(period.into()));
            assert_eq!(taken(&mut pace, seconds(5), &policy, max + 1), max);
            assert_eq!(taken(&mut pace, seconds(5) + period / 2, &policy, max), max / 2);
            assert_eq!(taken(&mut pace, seconds(5) + 3 * period, &policy, 2 * max), max, "what is not used is no more");
        }
    }

    #[test]
    fn over_a_long_time_there_are_no_more_than_one_set_a_period() {
        let (policy, mut pace) = (policy(10, 60), Pace::default());
        let all: usize = (0..3600).map(|second| taken(&mut pace, seconds(second), &policy, 3)).sum();
        assert!((600..=610).contains(&all), "{all}");
    }

    #[test]
    fn a_refusal_says_when_there_is_room_and_is_right() {
        let (policy, mut pace) = (policy(10, 3600), Pace::default());
        taken(&mut pace, seconds(0), &policy, 10);
        let refusal = pace.take(seconds(100), &policy, 10).unwrap_err();
        assert!(refusal.contains("takes 10 in 3600 s, and the next in 260.0 s"), "{refusal}");
        assert!(pace.take(seconds(360), &policy, 10).is_ok());
    }

    #[test]
    fn what_came_to_nothing_costs_nothing_and_gives_no_more_than_was_taken() {
        let (policy, mut pace) = (policy(7, 3600), Pace::default());
        for second in 0..1000 {
            assert!(pace.take(seconds(second), &policy, 0).is_ok());
            pace.give_back(&policy, 0);
        }
        assert_eq!(taken(&mut pace, seconds(1000), &policy, 20), 7);
    }

    #[test]
    fn what_a_lowered_limit_kept_may_be_rescheduled_and_no_least_period_is_no_pace() {
        let (lowered, mut pace) = (policy(0, 10), Pace::default());
        assert_eq!((0..9).filter(|_| pace.take(seconds(0), &lowered, 4).is_ok()).count(), 4);
        assert_eq!(taken(&mut Pace::default(), seconds(0), &policy(2, 0), 1000), 1000);
    }
}
