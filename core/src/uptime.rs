//! How much of a time a check was up, from the changes of its status.
//!
//! Up is what is known to be well, down what is known not to be: also a run that did not happen (Overdue). What nobody
//! knew, because the agent or the hub itself was away, is neither and is counted apart; so is a check that is stopped on
//! purpose, or in a maintenance window. Uptime is the share of up in up and down.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::view::CheckStatus;

/// A change of what is shown of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When, by the hub's clock.
    pub at: Timestamp,
    /// The status from then on; absent where the check is gone.
    pub status: Option<CheckStatus>,
    /// It is in a maintenance window from then on.
    pub maintenance: bool,
}

/// A time during which the hub was there to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it started.
    pub from: Timestamp,
    /// When it was there for the last time that is known.
    pub to: Timestamp,
}

/// How long a check, or several, were what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Uptime {
    /// Seconds known to be well.
    pub up_seconds: f64,
    /// Seconds known not to be: failed, invalid, or a run that did not happen.
    pub down_seconds: f64,
    /// Seconds of which nothing is known: the agent or the hub was away, or no run had ended yet.
    pub unknown_seconds: f64,
    /// Seconds stopped on purpose.
    pub stopped_seconds: f64,
    /// Seconds in a maintenance window, whatever the check said.
    #[serde(default)]
    pub maintenance_seconds: f64,
    /// How often it went down.
    pub outages: u64,
}

/// What a time counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Up,
    Down,
    Unknown,
    Stopped,
    Maintenance,
    /// There was no such check.
    Absent,
}

fn class(status: Option<CheckStatus>, maintenance: bool) -> Class {
    match status {
        None => Class::Absent,
        Some(_) if maintenance => Class::Maintenance,
        Some(CheckStatus::Succeeded) => Class::Up,
        Some(CheckStatus::Failed | CheckStatus::Invalid | CheckStatus::Overdue) => Class::Down,
        Some(CheckStatus::Stale | CheckStatus::Pending) => Class::Unknown,
        Some(CheckStatus::Stopped) => Class::Stopped,
    }
}

impl Uptime {
    /// The share of up in what is known, 0 to 1; absent where nothing is known.
    pub fn ratio(&self) -> Option<f64> {
        let known = self.up_seconds + self.down_seconds;
        (known > 0.0).then(|| self.up_seconds / known)
    }

    /// Adds another check's.
    pub fn add(&mut self, other: &Uptime) {
        let Uptime { up_seconds, down_seconds, unknown_seconds, stopped_seconds, maintenance_seconds, outages } = other;
        self.up_seconds += up_seconds;
        self.down_seconds += down_seconds;
        self.unknown_seconds += unknown_seconds;
        self.stopped_seconds += stopped_seconds;
        self.maintenance_seconds += maintenance_seconds;
        self.outages += outages;
    }

    fn spend(&mut self, class: Class, seconds: f64) {
        match class {
            Class::Up => self.up_seconds += seconds,
            Class::Down => self.down_seconds += seconds,
            Class::Unknown => self.unknown_seconds += seconds,
            Class::Stopped => self.stopped_seconds += seconds,
            Class::Maintenance => self.maintenance_seconds += seconds,
            Class::Absent => {}
        }
    }
}

/// Follows one check through its transitions.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    lives: &'a [Life],
    from: Timestamp,
    to: Timestamp,
    /// Up to where it is counted.
    at: Timestamp,
    class: Class,
    sum: Uptime,
}

impl<'a> Walk<'a> {
    /// Counts what lies between `from` and `to`. `lives` are all that are known, oldest first.
    pub fn new(lives: &'a [Life], from: Timestamp, to: Timestamp) -> Walk<'a> {
        Walk { lives, from, to, at: Timestamp::MIN, class: Class::Absent, sum: Uptime::default() }
    }

    /// The next transition; they come oldest first, also those before `from`.
    pub fn step(&mut self, transition: Transition) {
        let at = transition.at.min(self.to);
        self.advance(at);
        let next = class(transition.status, transition.maintenance);
        let is_within = transition.at >= self.from && transition.at < self.to;
        if is_within && next == Class::Down && self.class != Class::Down {
            self.sum.outages += 1;
        }
        self.class = next;
    }

    /// The sum.
    pub fn end(mut self) -> Uptime {
        self.advance(self.to);
        self.sum
    }

    /// Time passes up to `to`. Where the hub was away in it, nothing is known from then on.
    fn advance(&mut self, to: Timestamp) {
        if self.class != Class::Absent {
            // The life in which the last word was said.
            let life = self.lives.iter().rev().find(|life| life.from <= self.at);
            let seen = life.map_or(self.at, |life| life.to).clamp(self.at, to.max(self.at));
            self.spend(self.class, self.at, seen);
            self.spend(Class::Unknown, seen, to);
            if seen < to {
                self.class = Class::Unknown;
            }
        }
        self.at = self.at.max(to);
    }

    fn spend(&mut self, class: Class, from: Timestamp, to: Timestamp) {
        let (from, to) = (from.max(self.from), to.min(self.to));
        if from < to {
            self.sum.spend(class, to.duration_since(from).as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use CheckStatus::{Failed, Overdue, Pending, Stale, Stopped, Succeeded};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn life(from: i64, to: i64) -> Life {
        Life { from: at(from), to: at(to) }
    }

    /// Up, down, unknown, stopped, outages.
    fn sum(lives: &[Life], from: i64, to: i64, steps: &[(i64, Option<CheckStatus>)]) -> (f64, f64, f64, f64, u64) {
        let mut walk = Walk::new(lives, at(from), at(to));
        for (second, status) in steps {
            walk.step(Transition { at: at(*second), status: *status, maintenance: false });
        }
        let Uptime { up_seconds, down_seconds, unknown_seconds, stopped_seconds, maintenance_seconds: _, outages } =
            walk.end();
        (up_seconds, down_seconds, unknown_seconds, stopped_seconds, outages)
    }

    #[test]
    fn each_status_counts_as_what_it_is() {
        let lives = [life(0, 1000)];
        let steps = [
            (100, Some(Pending)),
            (110, Some(Succeeded)),
            (200, Some(Failed)),
            (230, Some(Overdue)),
            (240, Some(Succeeded)),
            (300, Some(Stale)),
            (350, Some(Stopped)),
            (400, None),
            (500, Some(Succeeded)),
        ];
        // There is nothing before 100 and between 400 and 500.
        assert_eq!(sum(&lives, 0, 600, &steps), (90.0 + 60.0 + 100.0, 40.0, 10.0 + 50.0, 50.0, 1));
        // A part of it: the status at the beginning is the last one before.
        assert_eq!(sum(&lives, 220, 250, &steps), (10.0, 20.0, 0.0, 0.0, 0));
    }

    #[test]
    fn while_the_hub_is_away_nothing_is_known_and_afterwards_until_somebody_speaks() {
        let lives = [life(0, 100), life(200, 300)];
        let steps = [(10, Some(Succeeded)), (220, Some(Failed))];
        assert_eq!(sum(&lives, 0, 300, &steps), (90.0, 80.0, 120.0, 0.0, 1));
        // Nobody spoke since.
        assert_eq!(sum(&lives, 0, 300, &steps[..1]), (90.0, 0.0, 200.0, 0.0, 0));
        assert_eq!(sum(&lives, 150, 300, &steps[..1]), (0.0, 0.0, 150.0, 0.0, 0));
        // A check that was gone before the hub went away is not unknown.
        assert_eq!(sum(&lives, 0, 300, &[(10, Some(Succeeded)), (50, None)]), (40.0, 0.0, 0.0, 0.0, 0));
        // The hub has just started, and is alive for longer than it has said.
        assert_eq!(sum(&lives, 290, 310, &steps), (0.0, 10.0, 10.0, 0.0, 0));
    }

    #[test]
    fn maintenance_is_neither_up_nor_down() {
        let lives = [life(0, 100)];
        let mut walk = Walk::new(&lives, at(0), at(100));
        let steps = [
            (0, Succeeded, false),
            (10, Succeeded, true),
            (20, Failed, true),
            (40, Failed, false),
            (50, Succeeded, false),
        ];
        for (second, status, maintenance) in steps {
            walk.step(Transition { at: at(second), status: Some(status), maintenance });
        }
        let sum = walk.end();
        assert_eq!((sum.up_seconds, sum.down_seconds, sum.maintenance_seconds), (60.0, 10.0, 30.0));
        assert_eq!((sum.outages, sum.ratio()), (1, Some(60.0 / 70.0)));
    }

    #[test]
    fn a_failure_that_goes_on_is_one_outage() {
        let steps =
            [(0, Some(Succeeded)), (10, Some(Failed)), (20, Some(Overdue)), (30, Some(Succeeded)), (40, Some(Failed))];
        assert_eq!(sum(&[life(0, 100)], 0, 100, &steps).4, 2);
        // One that was under way at the beginning is none of this time.
        assert_eq!(sum(&[life(0, 100)], 15, 100, &steps).4, 1);
    }

    #[test]
    fn the_ratio_is_of_what_is_known() {
        let (up_seconds, down_seconds) = (75.0, 25.0);
        let mut all = Uptime { up_seconds, down_seconds, unknown_seconds: 900.0, ..Uptime::default() };
        assert_eq!(all.ratio(), Some(0.75));
        all.add(&Uptime { up_seconds: 100.0, outages: 2, ..Uptime::default() });
        assert_eq!((all.ratio(), all.outages), (Some(0.875), 2));
        assert_eq!(Uptime { unknown_seconds: 5.0, ..Uptime::default() }.ratio(), None);
    }
}
