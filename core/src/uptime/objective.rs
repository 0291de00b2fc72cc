//! A service level objective and its error budget, as Google's SRE workbook tells them: of the time that is known, what the
//! objective leaves over may be down. Unknown time spends nothing, and is shown apart.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Uptime;

/// The share of the known time that checks ought to be up, in percent: above 0 and below 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective(f64);

/// What an objective leaves of a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Seconds that may be down.
    pub seconds: f64,
    /// Seconds of them that are left; below 0 where more was down.
    pub left_seconds: f64,
}

impl FromStr for Objective {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.parse() {
            Ok(percent) if percent > 0.0 && percent < 100.0 => Ok(Objective(percent)),
            _ => Err("must be a percentage above 0 and below 100, such as 99.9"),
        }
    }
}

impl Objective {
    /// In percent.
    pub fn percent(self) -> f64 {
        self.0
    }

    /// What it leaves of this time; absent where nothing of it is known.
    pub fn budget(self, time: &Uptime) -> Option<Budget> {
        time.ratio()?;
        let seconds = (time.up_seconds + time.down_seconds) * (100.0 - self.0) / 100.0;
        Some(Budget { seconds, left_seconds: seconds - time.down_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_lies_between_nothing_and_always() {
        for good in ["99.9", "99", "0.1", "99.999"] {
            assert_eq!(good.parse::<Objective>().map(Objective::percent), Ok(good.parse().unwrap()));
        }
        for bad in ["", "100", "0", "-1", "101", "nan", "inf", "99,9", "99.9%"] {
            assert!(bad.parse::<Objective>().is_err(), "{bad}");
        }
    }

    #[test]
    fn its_budget_is_of_the_known_time_and_can_be_overspent() {
        let objective: Objective = "99".parse().unwrap();
        let time =
            |up_seconds, down_seconds| Uptime { up_seconds, down_seconds, unknown_seconds: 1e6, ..Uptime::default() };
        let budget = |up, down| objective.budget(&time(up, down)).map(|left| (left.seconds, left.left_seconds));
        assert_eq!(budget(900.0, 100.0), Some((10.0, -90.0)));
        assert_eq!(budget(1000.0, 0.0), Some((10.0, 10.0)));
        assert_eq!(budget(0.0, 0.0), None, "nothing is known");
    }
}
