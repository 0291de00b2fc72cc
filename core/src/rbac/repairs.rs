//! How often an account is put right that somebody changes again and again. Pure; times are read from a monotonic clock.

use std::time::Duration;

/// Repairs in a row that are made at once.
const AT_ONCE: u32 = 5;
/// The pause after those; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// What was before is forgotten after so long without a repair.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The repairs of one account in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    count: u32,
    last: Duration,
}

impl Repairs {
    /// Notes one that was made.
    pub fn made(&mut self, now: Duration) {
        let before = if self.is_over(now) { 0 } else { self.count };
        *self = Repairs { count: before.saturating_add(1), last: now };
    }

    /// When the next one may be made.
    pub fn next(&self) -> Duration {
        self.last + self.pause()
    }

    /// Time between the last one and the next.
    pub fn pause(&self) -> Duration {
        match self.count.checked_sub(AT_ONCE) {
            Some(doublings) => FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE),
            None => Duration::ZERO,
        }
    }

    /// Whether somebody else means what he does.
    pub fn is_contest(&self) -> bool {
        self.count >= AT_ONCE
    }

    /// Whether they are forgotten.
    pub fn is_over(&self, now: Duration) -> bool {
        self.count == 0 || now.saturating_sub(self.last) >= FORGOTTEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_changes_are_undone_at_once_and_a_contest_is_slowed_down_and_forgotten() {
        let mut repairs = Repairs::default();
        let mut now = Duration::from_secs(100);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            now = now.max(repairs.next());
            repairs.made(now);
            pauses.push(repairs.pause().as_secs());
            assert_eq!(repairs.is_contest(), pauses.len() >= 5);
        }
        assert_eq!(pauses, [0, 0, 0, 0, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(!repairs.is_over(repairs.next()));
        now += FORGOTTEN;
        assert!(repairs.is_over(now));
        repairs.made(now);
        assert!(!repairs.is_contest() && repairs.next() == now);
    }

    #[test]
    fn an_hour_of_contest_is_a_bounded_number_of_writes() {
        let (mut repairs, mut now, mut made) = (Repairs::default(), Duration::ZERO, 0);
        while now < Duration::from_secs(3600) {
            repairs.made(now);
            made += 1;
            now = repairs.next();
        }
        assert_eq!(made, 21);
    }
}
