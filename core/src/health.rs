//! How a check is judged by more than its last result: since when it is as it is, whether one result stands against what is
//! said of it, and whether its results change too often to be believed one by one.
//!
//! A status is *hard*: the agent has seen as many results in a row as `failureThreshold` and `successThreshold` ask for. It
//! is *soft* while the last result says otherwise and is not followed by enough of its kind yet.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::run::Outcome;
use crate::state::{CheckState, Phase};
use crate::view::{CheckStatus, CheckView};

/// Results that are looked at; between them are the 20 changes of Icinga's formula.
pub const RESULTS: u32 = 21;
/// Changes of the result, in percent, above which a check is flapping. Icinga's default.
pub const FLAPPING_ABOVE: f64 = 30.0;
/// Changes of the result, in percent, down to which a check stays flapping. Icinga's default.
pub const FLAPPING_DOWN_TO: f64 = 25.0;

/// The last results of a check, at most [`RESULTS`]. As text: `S` and `F`, the newest last.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recent {
    /// A set bit is a failure, the lowest one the newest result.
    failures: u32,
    count: u32,
}

impl Recent {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The newest result.
    pub fn last(&self) -> Option<Outcome> {
        (self.count > 0).then(|| self.at(0))
    }

    /// How many of the newest results are equal.
    pub fn row(&self) -> u32 {
        (0..self.count).take_while(|back| self.at(*back) == self.at(0)).count() as u32
    }

    /// How much the results change, in percent; newer changes weigh more.
    ///
    /// Icinga's formula (icinga.com/docs/icinga-2, "Check Flapping"): of the last 20 changes, oldest first, change number i
    /// counts 0.8 + 0.02 i where there was one and 0 where there was none; the sum is divided by 20. Results that
    /// there are not yet count as no change.
    pub fn change_percent(&self) -> f64 {
        let changes = (0..RESULTS - 1).filter(|back| back + 1 < self.count && self.at(*back) != self.at(back + 1));
        let hundredths: u32 = changes.map(|back| 80 + 2 * (RESULTS - 2 - back)).sum();
        f64::from(hundredths) / f64::from(RESULTS - 1)
    }

    /// The result that came so many after it.
    fn at(&self, back: u32) -> Outcome {
        if self.failures >> back & 1 == 1 { Outcome::Failed } else { Outcome::Succeeded }
    }

    fn push(&mut self, outcome: Outcome) {
        let all = (1 << RESULTS) - 1;
        self.failures = (self.failures << 1 | u32::from(outcome == Outcome::Failed)) & all;
        self.count = (self.count + 1).min(RESULTS);
    }
}

impl fmt::Display for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.count).rev().try_for_each(|back| {
            f.write_str(match self.at(back) {
                Outcome::Succeeded => "S",
                Outcome::Failed => "F",
            })
        })
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Recent> for String {
    fn from(recent: Recent) -> String {
        recent.to_string()
    }
}

impl TryFrom<String> for Recent {
    type Error = String;

    fn try_from(text: String) -> Result<Recent, String> {
        let mut recent = Recent::default();
        for letter in text.chars() {
            recent.push(match letter {
                'S' => Outcome::Succeeded,
                'F' => Outcome::Failed,
                other => return Err(format!("{other:?} is no result: S or F")),
            });
        }
        Ok(recent)
    }
}

/// What the hub remembers of a check beside its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// When the status became what it is, by the hub's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// The last 21 results that the hub heard of: `S` and `F`, the newest last.
    #[serde(skip_serializing_if = "Recent::is_empty")]
    #[schema(value_type = String, required = false)]
    pub recent: Recent,
    /// The last result stands against the status; there were not yet enough of it in a row.
    pub soft: bool,
    /// The results change too often: more than 30 % of the last 20 changes, and not below 25 % since.
    pub flapping: bool,
    /// How much the results change, in percent; newer changes weigh more.
    pub change_percent: f64,
}

impl Health {
    /// The health of a check that is shown with this status and state from `now` on. `shown` is what was shown until now.
    pub fn next(now: Timestamp, shown: Option<&CheckView>, status: CheckStatus, state: &CheckState) -> Health {
        let mut next = shown.map(|shown| shown.health.clone()).unwrap_or_default();
        if let Some(shown) = shown {
            for outcome in results(&shown.state, state) {
                next.recent.push(outcome);
                next.change_percent = next.recent.change_percent();
                let limit = if next.flapping { FLAPPING_DOWN_TO } else { FLAPPING_ABOVE };
                next.flapping = next.change_percent > limit;
            }
        }
        next.soft = match (state.phase, next.recent.last()) {
            (Phase::Succeeded, last) => last == Some(Outcome::Failed),
            (Phase::Failed, last) => last == Some(Outcome::Succeeded),
            (Phase::Pending, last) => last.is_some(),
            (Phase::Stopped | Phase::Invalid, _) => false,
        };
        if shown.is_none_or(|shown| shown.status != status) {
            next.since = Some(now);
        }
        next
    }

    /// What was saved before the hub started, for a check that is shown already: the results go on, the status does not.
    pub fn remembered(self, shown: &Health) -> Health {
        let Health { since: _, recent, soft: _, flapping, change_percent } = self;
        Health { since: shown.since, recent, soft: shown.soft, flapping, change_percent }
    }
}

/// The results between two states of a check, oldest first, by its counters. Several that came unseen have lost their
/// order: they are taken to have changed once, so that a cut is never taken for flapping.
fn results(before: &CheckState, after: &CheckState) -> impl Iterator<Item = Outcome> + use<> {
    let new = |before: u64, after: u64| after.saturating_sub(before).min(RESULTS.into()) as usize;
    let went_back = after.check.succeeded < before.check.succeeded || after.check.failed < before.check.failed;
    let succeeded = if went_back { 0 } else { new(before.check.succeeded, after.check.succeeded) };
    let failed = if went_back { 0 } else { new(before.check.failed, after.check.failed) };
    let (first, last) = match after.phase {
        Phase::Succeeded => ((Outcome::Failed, failed), (Outcome::Succeeded, succeeded)),
        Phase::Failed | Phase::Pending | Phase::Stopped | Phase::Invalid => {
            ((Outcome::Succeeded, succeeded), (Outcome::Failed, failed))
        }
    };
    std::iter::repeat_n(first.0, first.1).chain(std::iter::repeat_n(last.0, last.1))
}

#[cfg(test)]
mod tests;
