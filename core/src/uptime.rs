//! How much of a time a check was up, from the changes of its status.
//!
//! Up is what is known to be well, down what is known not to be: also a run that did not happen (Overdue). What nobody
//! knew, because the agent or the hub itself was away, is neither and is counted apart; so is a check that is stopped on
//! purpose, or in a maintenance window. Uptime is the share of up in up and down.
//!
//! A result that an agent reports after a cut says what its check was meanwhile: it fills time of which nothing was known,
//! and changes none that was.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::run::Outcome;
use crate::view::CheckStatus;

mod day;
mod objective;

pub use day::Day;
pub use objective::{Budget, Objective};

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

/// What a check was by a result that was reported late, or by several of them that follow on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// When it had the result.
    pub from: Timestamp,
    /// When the next result was due: nothing is known from then on.
    pub until: Timestamp,
    /// The result.
    pub outcome: Outcome,
}

impl Late {
    /// Adds a result to those of its check, as they arrive. One that says the same and comes in time prolongs the last one.
    pub fn join(self, results: &mut Vec<Late>) {
        match results.last_mut() {
            Some(last) if last.outcome == self.outcome && (last.from..=last.until).contains(&self.from) => {
                last.until = last.until.max(self.until);
            }
            Some(_) | None => results.push(self),
        }
    }
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
pub enum Class {
    /// Known to be well.
    Up,
    /// Known not to be.
    Down,
    /// Nothing is known.
    Unknown,
    /// Stopped on purpose.
    Stopped,
    /// In a maintenance window.
    Maintenance,
    /// There was no such check.
    Absent,
}

impl Class {
    /// Every class, in the order of declaration.
    pub const ALL: [Class; 6] =
        [Class::Up, Class::Down, Class::Unknown, Class::Stopped, Class::Maintenance, Class::Absent];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Up => "Up",
            Class::Down => "Down",
            Class::Unknown => "Unknown",
            Class::Stopped => "Stopped",
            Class::Maintenance => "Maintenance",
            Class::Absent => "Absent",
        }
    }
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
    late: Vec<Late>,
    from: Timestamp,
    to: Timestamp,
    /// Up to where it is counted.
    at: Timestamp,
    /// What was known then, when it was.
    class: Class,
    /// What the last time counted as.
    last: Class,
    sum: Uptime,
}

impl<'a> Walk<'a> {
    /// Counts what lies between `from` and `to`. `lives` are all that are known, oldest first; `late` are the results of
    /// the check that came late and concern that time.
    pub fn new(lives: &'a [Life], mut late: Vec<Late>, from: Timestamp, to: Timestamp) -> Walk<'a> {
        late.sort_by_key(|late| late.from);
        // A result holds until the next one.
        let next: Vec<Timestamp> = late.iter().skip(1).map(|next| next.from).collect();
        for (late, next) in late.iter_mut().zip(next) {
            late.until = late.until.min(next);
        }
        let (class, sum) = (Class::Absent, Uptime::default());
        Walk { lives, late, from, to, at: Timestamp::MIN, class, last: class, sum }
    }

    /// Begins at `at` with what another walk said of the time up to there; for the first step.
    pub fn resume(&mut self, at: Timestamp, class: Class) {
        (self.at, self.class, self.last) = (at, class, class);
        let late = self.late.iter().find(|late| late.from < at && late.until >= at);
        if let Some(late) = late.filter(|_| class == Class::Unknown) {
            self.last = late.class();
        }
    }

    /// The next transition; they come oldest first, also those before `from`.
    pub fn step(&mut self, transition: Transition) {
        self.advance(transition.at.min(self.to));
        self.class = class(transition.status, transition.maintenance);
    }

    /// The sum, and what was known at the end without any late results.
    pub fn end(mut self) -> (Uptime, Class) {
        self.advance(self.to);
        (self.sum, self.class)
    }

    /// Time passes up to `to`. Where the hub was away in it, nothing is known from then on.
    fn advance(&mut self, to: Timestamp) {
        if self.class != Class::Absent {
            // The life in which the last word was said.
            let life = self.lives.iter().rev().find(|life| life.from <= self.at);
            let seen = life.map_or(self.at, |life| life.to).clamp(self.at, to.max(self.at));
            self.pass(self.class, self.at, seen);
            self.pass(Class::Unknown, seen, to);
            if seen < to {
                self.class = Class::Unknown;
            }
        }
        self.at = self.at.max(to);
    }

    /// Time passes of which late results may say more.
    fn pass(&mut self, class: Class, from: Timestamp, to: Timestamp) {
        let mut at = from;
        if class == Class::Unknown {
            for late in self.late.clone() {
                let (begin, end) = (late.from.max(at), late.until.min(to));
                if begin < end {
                    self.spend(Class::Unknown, at, begin);
                    self.spend(late.class(), begin, end);
                    at = end;
                }
            }
        }
        self.spend(class, at, to);
    }

    fn spend(&mut self, class: Class, from: Timestamp, to: Timestamp) {
        if from >= to {
            return;
        }
        let is_outage = class == Class::Down && self.last != Class::Down && from < self.to;
        self.sum.outages += u64::from(is_outage && from >= self.from);
        self.last = class;
        let (from, to) = (from.max(self.from), to.min(self.to));
        if from < to {
            self.sum.spend(class, to.duration_since(from).as_secs_f64());
        }
    }
}

impl Late {
    fn class(&self) -> Class {
        match self.outcome {
            Outcome::Succeeded => Class::Up,
            Outcome::Failed => Class::Down,
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
        let mut walk = Walk::new(lives, Vec::new(), at(from), at(to));
        for (second, status) in steps {
            walk.step(Transition { at: at(*second), status: *status, maintenance: false });
        }
        let Uptime { up_seconds, down_seconds, unknown_seconds, stopped_seconds, maintenance_seconds: _, outages } =
            walk.end().0;
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
        let mut walk = Walk::new(&lives, Vec::new(), at(0), at(100));
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
        let sum = walk.end().0;
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

    fn late(from: i64, until: i64, outcome: Outcome) -> Late {
        Late { from: at(from), until: at(until), outcome }
    }

    #[test]
    fn late_results_that_follow_on_each_other_are_one() {
        use Outcome::{Failed, Succeeded};
        let mut results = Vec::new();
        for (from, until, outcome) in
            [(0, 70, Succeeded), (60, 130, Succeeded), (120, 190, Failed), (300, 370, Failed), (50, 120, Failed)]
        {
            late(from, until, outcome).join(&mut results);
        }
        // There is a gap before the fourth, and the fifth is not in its place.
        let expected = [(0, 130, Succeeded), (120, 190, Failed), (300, 370, Failed), (50, 120, Failed)]
            .map(|(f, u, o)| late(f, u, o));
        assert_eq!(results, expected);
    }

    #[test]
    fn late_results_fill_what_was_unknown_and_change_nothing_else() {
        use Outcome::{Failed as No, Succeeded as Yes};
        let lives = [life(0, 400), life(600, 1000)];
        let steps = [(0, Some(Succeeded)), (100, Some(Stale)), (300, Some(Succeeded)), (700, Some(Succeeded))];
        let sum = |late: Vec<Late>| {
            let mut walk = Walk::new(&lives, late, at(0), at(1000));
            for (second, status) in steps {
                walk.step(Transition { at: at(second), status, maintenance: false });
            }
            let (Uptime { up_seconds, down_seconds, unknown_seconds, outages, .. }, class) = walk.end();
            assert_eq!(class, Class::Up);
            (up_seconds, down_seconds, unknown_seconds, outages)
        };
        assert_eq!(sum(vec![]), (500.0, 0.0, 500.0, 0));
        // Both in the cut of the cluster, the first one only from there on; the second holds until the third.
        let cut = vec![late(50, 150, Yes), late(160, 260, No), late(220, 290, Yes)];
        assert_eq!(sum(cut.clone()), (500.0 + 50.0 + 70.0, 60.0, 320.0, 1));
        // Their order does not matter.
        assert_eq!(sum(cut.into_iter().rev().collect()), (620.0, 60.0, 320.0, 1));
        // While the hub itself was away, and before anybody spoke after that; not while it was known.
        assert_eq!(sum(vec![late(390, 800, No)]), (500.0, 300.0, 200.0, 1));
        assert_eq!(sum(vec![late(0, 90, No), late(310, 390, No)]), (500.0, 0.0, 500.0, 0));
    }

    #[test]
    fn the_days_of_a_walk_add_up_to_the_walk() {
        let lives = [life(0, 250), life(320, 1000)];
        let late_results = vec![late(180, 240, Outcome::Failed), late(255, 310, Outcome::Failed)];
        let steps = [(10, Failed), (150, Stale), (330, Failed), (600, Succeeded), (700, Overdue)];
        let steps =
            steps.map(|(second, status)| Transition { at: at(second), status: Some(status), maintenance: false });
        let mut whole = Walk::new(&lives, late_results.clone(), at(0), at(1000));
        steps.iter().for_each(|step| whole.step(*step));
        let (whole, _) = whole.end();
        let (mut sum, mut class) = (Uptime::default(), Class::Absent);
        for day in (0..1000).step_by(100) {
            let (from, to) = (at(day), at(day + 100));
            let mut walk = Walk::new(&lives, late_results.clone(), from, to);
            walk.resume(from, class);
            steps.iter().filter(|step| (from..to).contains(&step.at)).for_each(|step| walk.step(*step));
            let (day, ends) = walk.end();
            sum.add(&day);
            class = ends;
        }
        assert_eq!((sum, class), (whole.clone(), Class::Down));
        // 10; 180, after nothing was known; 255; 330; 700.
        assert_eq!(whole.outages, 5);
    }
}
