//! Which of several agents acts: leader election over one Lease, as decisions without a clock.
//!
//! `now` is time since any fixed moment of the deciding process, monotonic. Wall clocks are never compared: a foreign
//! lease has run out when it has not changed for its own duration while this process watched. A lease cannot fence, so a
//! leader stops writing ([`Election::may_write`]) well before others may take it for gone.

use std::time::Duration;

/// What the stored Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty where nobody does.
    pub holder: String,
    /// Changes with every write of the object (`metadata.resourceVersion`).
    pub version: String,
    /// How long it is valid after a renewal, by its holder's word.
    pub duration: Duration,
}

/// What to do after a look at the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Write it as one's own, if it is still the version that was looked at.
    Take,
    /// It is another's: look again later.
    Wait,
    /// It was held, and is another's: stop.
    Lost,
}

/// One candidate's view of the election.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    duration: Duration,
    /// The foreign version last seen, and since when.
    seen: Option<(String, Duration)>,
    /// While held: when the last renewal that succeeded was sent.
    renewed: Option<Duration>,
}

impl Election {
    /// A candidate by this name, unique to the process, whose leases are valid for `duration`.
    pub fn new(me: String, duration: Duration) -> Election {
        Election { me, duration, seen: None, renewed: None }
    }

    /// The candidate's name.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// Time between two looks or renewals, and the limit of each request: so small that one that is lost ends nothing.
    pub fn pause(&self) -> Duration {
        self.duration / 5
    }

    /// Decides after a look; `None` where there is no Lease.
    pub fn turn(&mut self, now: Duration, lease: Option<&Record>) -> Turn {
        let (version, duration) = match lease {
            Some(lease) if lease.holder.is_empty() || lease.holder == self.me => return Turn::Take,
            Some(_) if self.renewed.is_some() => return Turn::Lost,
            Some(lease) => (lease.version.as_str(), lease.duration),
            // Somebody deleted it: whoever held it may still write.
            None if self.renewed.is_none() && self.seen.is_some() => ("", self.duration),
            None => return Turn::Take,
        };
        match &self.seen {
            Some((known, since)) if known == version => {
                if now.saturating_sub(*since) >= duration {
                    Turn::Take
                } else {
                    Turn::Wait
                }
            }
            Some(_) | None => {
                self.seen = Some((version.to_owned(), now));
                Turn::Wait
            }
        }
    }

    /// A write of the Lease, sent at `sent_at`, has succeeded.
    pub fn renewed(&mut self, sent_at: Duration) {
        self.renewed = Some(sent_at);
    }

    /// Until when this leader may write: a fifth of the duration before anybody may take over, for what was sent at the
    /// last moment and for clocks that run at different speeds. `None` for who does not lead.
    pub fn may_write(&self) -> Option<Duration> {
        self.renewed.map(|sent_at| sent_at + self.duration - self.duration / 5)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn held_by(holder: &str, version: &str) -> Record {
        Record { holder: holder.into(), version: version.into(), duration: DURATION }
    }

    #[test]
    fn a_foreign_lease_is_taken_when_it_has_stood_still_for_its_duration() {
        let mut election = Election::new("b".into(), DURATION);
        assert_eq!(election.turn(seconds(0), Some(&held_by("a", "1"))), Turn::Wait);
        assert_eq!(election.turn(seconds(14), Some(&held_by("a", "1"))), Turn::Wait);
        assert_eq!(election.turn(seconds(14), Some(&held_by("a", "2"))), Turn::Wait, "renewed in between");
        assert_eq!(election.turn(seconds(28), Some(&held_by("a", "2"))), Turn::Wait);
        assert_eq!(election.turn(seconds(29), Some(&held_by("a", "2"))), Turn::Take);
        assert_eq!(election.may_write(), None, "taken is what the API server has stored");
    }

    #[test]
    fn a_lease_that_somebody_deletes_is_given_its_time_all_the_same() {
        let mut election = Election::new("b".into(), DURATION);
        assert_eq!(election.turn(seconds(0), Some(&held_by("a", "1"))), Turn::Wait);
        assert_eq!(election.turn(seconds(3), None), Turn::Wait);
        assert_eq!(election.turn(seconds(17), None), Turn::Wait);
        assert_eq!(election.turn(seconds(18), None), Turn::Take);
    }

    #[test]
    fn a_free_or_released_lease_is_taken_at_once_and_one_that_went_to_another_is_lost() {
        let mut election = Election::new("a".into(), DURATION);
        assert_eq!(election.turn(seconds(0), None), Turn::Take);
        assert_eq!(election.turn(seconds(0), Some(&held_by("", "1"))), Turn::Take);
        election.renewed(seconds(1));
        assert_eq!(election.may_write(), Some(seconds(13)));
        assert_eq!(election.turn(seconds(3), Some(&held_by("a", "2"))), Turn::Take, "its own is renewed");
        assert_eq!(election.turn(seconds(3), Some(&held_by("b", "3"))), Turn::Lost);
    }

    /// One candidate in a simulated world: stopped and continued, its requests delayed or lost.
    struct Candidate {
        election: Election,
        lost: bool,
    }

    proptest! {
        /// However two candidates are stopped, and whichever of their requests get lost: never may both write.
        #[test]
        fn two_candidates_never_write_at_the_same_time(
            steps in proptest::collection::vec((0..2usize, 1..9u64, 0..4u64, any::<bool>()), 1..400)
        ) {
            let mut candidates = ["a", "b"].map(|me| Candidate { election: Election::new(me.into(), DURATION), lost: false });
            let mut lease: Option<Record> = None;
            let mut version = 0;
            let mut now = 0;
            for (who, pause, delay, answered) in steps {
                now += pause;
                let candidate = &mut candidates[who];
                if candidate.lost {
                    continue;
                }
                let sent_at = seconds(now);
                match candidate.election.turn(sent_at, lease.as_ref()) {
                    Turn::Wait => {}
                    Turn::Lost => candidate.lost = true,
                    Turn::Take => {
                        // It takes effect at the API server after `delay`; the answer may get lost.
                        now += delay;
                        version += 1;
                        lease = Some(held_by(candidate.election.me(), &version.to_string()));
                        if answered {
                            candidate.election.renewed(sent_at);
                        }
                    }
                }
                let may = |c: &Candidate| !c.lost && c.election.may_write().is_some_and(|until| seconds(now) < until);
                prop_assert!(!(may(&candidates[0]) && may(&candidates[1])), "both write at {now} s");
            }
        }
    }
}
