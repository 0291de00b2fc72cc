//! How fast the hub takes what an agent says: a bucket for each cluster. Where it is empty the hub does not read on, so
//! the agent waits, and nothing is lost.

use std::time::Duration;

use super::frame::AgentFrame;

/// Tokens a second: a report and a changed check cost one each.
pub const RATE: u64 = 2_000;
/// Tokens of a full bucket: the snapshot of the largest cluster goes through in one go.
pub const BURST: u64 = 6_000;
/// Checks of a snapshot for one token: they are taken together.
const SNAPSHOT_CHECKS: u64 = 10;
/// Tokens of a session, paid before its first frame is read and whatever that is: an agent that dials again and again is
/// slowed down too.
pub const SESSION_COST: u64 = 100;

/// The bucket.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Billionths of a token. Below zero while what was taken is not paid for.
    nano_tokens: i128,
    at: Duration,
}

const NANO: i128 = 1_000_000_000;

impl Pace {
    /// A full bucket. `now` is of a clock that never goes back, as in all that follows.
    pub fn new(now: Duration) -> Pace {
        Pace { nano_tokens: i128::from(BURST) * NANO, at: now }
    }

    /// Pays for what was read; gives how long to wait before the next is read, zero mostly.
    pub fn take(&mut self, now: Duration, tokens: u64) -> Duration {
        self.fill(now);
        self.nano_tokens -= i128::from(tokens) * NANO;
        let nanos = (-self.nano_tokens).max(0) / i128::from(RATE);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Whether nothing would be lost if the bucket were made anew.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.nano_tokens == i128::from(BURST) * NANO
    }

    fn fill(&mut self, now: Duration) {
        let passed = i128::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(0);
        self.at = self.at.max(now);
        self.nano_tokens = (self.nano_tokens + passed * i128::from(RATE)).min(i128::from(BURST) * NANO);
    }
}

/// What a frame costs, tokens. [`SESSION_COST`] has paid for Hello.
pub fn cost(frame: &AgentFrame) -> u64 {
    match frame {
        AgentFrame::Hello(_) => 0,
        AgentFrame::Snapshot { checks, last: _ } => 1 + checks.len() as u64 / SNAPSHOT_CHECKS,
        AgentFrame::Reports { reports, through_seq: _ } => (reports.len() as u64).max(1),
        AgentFrame::Lacking(runs) => (runs.len() as u64).max(1),
        AgentFrame::DefinitionsStatus { nonce: _, statuses } => 1 + statuses.len() as u64 / SNAPSHOT_CHECKS,
        AgentFrame::CheckUpsert(_)
        | AgentFrame::CheckRemoved(_)
        | AgentFrame::Heartbeat(_)
        | AgentFrame::CommandAnswer(_)
        | AgentFrame::SelfTest(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::hub::MAX_CHECKS;
    use crate::session::simulation::check;

    #[test]
    fn a_flood_goes_at_the_rate_and_the_bucket_fills_again() {
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.take(Duration::ZERO, BURST), Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut taken = 0;
        while now < Duration::from_secs(60) {
            now += pace.take(now, 128);
            taken += 128;
        }
        assert!((60 * RATE..60 * RATE + 256).contains(&taken), "{taken}");
        assert!(!pace.is_full(now));
        assert!(pace.is_full(now + Duration::from_secs(4)));
        assert_eq!(pace.take(Duration::ZERO, 1), Duration::ZERO, "a clock that goes back takes nothing away");
    }

    #[test]
    fn the_largest_cluster_connects_without_a_pause() {
        let mut pace = Pace::new(Duration::ZERO);
        let chunk = AgentFrame::Snapshot { checks: vec![check("a", 1); 100], last: false };
        for _ in 0..MAX_CHECKS / 100 {
            assert_eq!(pace.take(Duration::ZERO, cost(&chunk)), Duration::ZERO);
        }
    }
}
