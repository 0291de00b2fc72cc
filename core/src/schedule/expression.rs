//! The text of a cron expression, read as robfig/cron v3 `ParseStandard` reads it (its `parser.go` is the source of
//! every rule here): five fields, descriptors, `@every`, and a time zone before them. Text in, sets of numbers out.
//!
//! Taken over on purpose, so that an expression keeps its meaning: what follows a hyphen after `*` is not read (`*-5`
//! is `*`), empty members of a list are skipped (`1,,2` is `1,2`, and `,` is the empty set), and a step above 1 ends a
//! star's power to switch the other day field off (see [`Fields::both_days_restricted`]).
//! Narrower on purpose: the length is limited, and names are ASCII. `TZ=Local` is UTC, as is no zone at all.

use std::fmt;
use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::duration;

/// The longest expression that is read.
pub const MAX_EXPRESSION_BYTES: usize = 256;

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It is above [`MAX_EXPRESSION_BYTES`].
    #[error("the expression is {bytes} bytes long, at most {MAX_EXPRESSION_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not five fields.
    #[error(
        "{found} fields where exactly 5 are needed: minute, hour, day of month, month, day of week; \
         or a descriptor such as @daily or @every 5m"
    )]
    FieldCount {
        /// How many there are.
        found: usize,
    },
    /// One field is wrong.
    #[error("{field}: {problem}")]
    Field {
        /// Which one.
        field: Field,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// A zone name that the IANA database does not have.
    #[error("time zone {name:?} is not in the IANA database; names are case-sensitive, as in Europe/Berlin")]
    UnknownZone {
        /// The name.
        name: String,
    },
    /// A zone and nothing after it.
    #[error("a time zone must be followed by a space and an expression")]
    ZoneAlone,
    /// A word after `@` that is none of the descriptors.
    #[error(
        "{text:?} is not a descriptor; allowed are @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly \
         and @every with a duration"
    )]
    UnknownDescriptor {
        /// The whole descriptor.
        text: String,
    },
    /// `@every` with something that is not a Go duration.
    #[error("@every: {text:?} is not a duration such as 90s, 5m or 1h30m")]
    Every {
        /// What stands in the duration's place.
        text: String,
    },
    /// The calendar engine did not take what this module made of the expression.
    #[error("the calendar engine refused the expression: {problem}")]
    Engine {
        /// The engine's own words.
        problem: String,
    },
}

/// One of the five fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0-59.
    Minute,
    /// 0-23.
    Hour,
    /// 1-31.
    DayOfMonth,
    /// 1-12 or JAN-DEC.
    Month,
    /// 0-6 (Sunday is 0) or SUN-SAT.
    DayOfWeek,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Minute => "minute",
            Field::Hour => "hour",
            Field::DayOfMonth => "day of month",
            Field::Month => "month",
            Field::DayOfWeek => "day of week",
        })
    }
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
pub(super) const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Field {
    pub(super) fn min(self) -> u64 {
        match self {
            Field::Minute | Field::Hour | Field::DayOfWeek => 0,
            Field::DayOfMonth | Field::Month => 1,
        }
    }

    pub(super) fn max(self) -> u64 {
        match self {
            Field::Minute => 59,
            Field::Hour => 23,
            Field::DayOfMonth => 31,
            Field::Month => 12,
            Field::DayOfWeek => 6,
        }
    }

    /// Names of the values from `min` on; empty where there are none.
    fn names(self) -> &'static [&'static str] {
        match self {
            Field::Minute | Field::Hour | Field::DayOfMonth => &[],
            Field::Month => &MONTHS,
            Field::DayOfWeek => &WEEKDAYS,
        }
    }

    fn allowed(self) -> String {
        let numbers = format!("a number from {} to {}", self.min(), self.max());
        match self.names() {
            [first, .., last] => format!("{numbers} or a name from {first} to {last}"),
            _ => numbers,
        }
    }
}

/// The values of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set {
    bits: u64,
    /// A `*` or `?` without a step above 1 stands in the list.
    star: bool,
}

impl Set {
    const EMPTY: Set = Set { bits: 0, star: false };

    fn only(value: u64) -> Set {
        Set { bits: 1 << value, star: false }
    }

    pub(super) fn all(field: Field) -> Set {
        let bits = (field.min()..=field.max()).fold(0, |bits, value| bits | 1 << value);
        Set { bits, star: true }
    }

    pub(super) fn is_empty(self) -> bool {
        self.bits == 0
    }

    pub(super) fn contains(self, value: u64) -> bool {
        value < 64 && self.bits >> value & 1 == 1
    }

    fn union(self, other: Set) -> Set {
        Set { bits: self.bits | other.bits, star: self.star || other.star }
    }
}

/// The five fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) minute: Set,
    pub(super) hour: Set,
    pub(super) day: Set,
    pub(super) month: Set,
    pub(super) weekday: Set,
}

impl Fields {
    /// Whether a day counts if either day field has it; otherwise both must have it.
    pub(super) fn both_days_restricted(&self) -> bool {
        !self.day.star && !self.weekday.star
    }
}

/// What an expression says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parsed {
    Every(Duration),
    Calendar { fields: Fields, zone: TimeZone },
}

pub(super) fn parse(expr: &str) -> Result<Parsed, ScheduleError> {
    if expr.len() > MAX_EXPRESSION_BYTES {
        return Err(ScheduleError::TooLong { bytes: expr.len() });
    }
    let (zone, expr) = split_zone(expr)?;
    if let Some(duration) = expr.strip_prefix("@every ") {
        let parsed = duration::parse_go(duration);
        return parsed.map(Parsed::Every).ok_or_else(|| ScheduleError::Every { text: duration.to_owned() });
    }
    let fields = if expr.starts_with('@') { parse_descriptor(expr)? } else { parse_fields(expr)? };
    Ok(Parsed::Calendar { fields, zone })
}

/// The zone and what follows it; robfig wants the prefix at the very start and a space (no tab) after the name.
fn split_zone(expr: &str) -> Result<(TimeZone, &str), ScheduleError> {
    let Some(rest) = expr.strip_prefix("CRON_TZ=").or_else(|| expr.strip_prefix("TZ=")) else {
        return Ok((TimeZone::UTC, expr));
    };
    let (name, rest) = rest.split_once(' ').ok_or(ScheduleError::ZoneAlone)?;
    Ok((find_zone(name)?, rest.trim()))
}

fn find_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(TimeZone::UTC);
    }
    // Not `TimeZone::get`: another crate's features could make that one read the image's files.
    let zone = TimeZoneDatabase::bundled().get(name).ok();
    zone.filter(|zone| !zone.is_unknown() && zone.iana_name() == Some(name))
        .ok_or_else(|| ScheduleError::UnknownZone { name: name.to_owned() })
}

fn parse_descriptor(text: &str) -> Result<Fields, ScheduleError> {
    let hourly = Fields {
        minute: Set::only(0),
        hour: Set::all(Field::Hour),
        day: Set::all(Field::DayOfMonth),
        month: Set::all(Field::Month),
        weekday: Set::all(Field::DayOfWeek),
    };
    let daily = Fields { hour: Set::only(0), ..hourly };
    let monthly = Fields { day: Set::only(1), ..daily };
    match text {
        "@hourly" => Ok(hourly),
        "@daily" | "@midnight" => Ok(daily),
        "@weekly" => Ok(Fields { weekday: Set::only(0), ..daily }),
        "@monthly" => Ok(monthly),
        "@yearly" | "@annually" => Ok(Fields { month: Set::only(1), ..monthly }),
        _ => Err(ScheduleError::UnknownDescriptor { text: text.to_owned() }),
    }
}

fn parse_fields(expr: &str) -> Result<Fields, ScheduleError> {
    let words: Vec<&str> = expr.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = words[..] else {
        return Err(ScheduleError::FieldCount { found: words.len() });
    };
    Ok(Fields {
        minute: parse_field(Field::Minute, minute)?,
        hour: parse_field(Field::Hour, hour)?,
        day: parse_field(Field::DayOfMonth, day)?,
        month: parse_field(Field::Month, month)?,
        weekday: parse_field(Field::DayOfWeek, weekday)?,
    })
}

fn parse_field(field: Field, text: &str) -> Result<Set, ScheduleError> {
    let members = text.split(',').filter(|member| !member.is_empty());
    members
        .map(|member| parse_member(field, member))
        .try_fold(Set::EMPTY, |set, member| Ok(set.union(member?)))
        .map_err(|problem| ScheduleError::Field { field, problem })
}

/// One member of a list: `number`, `number-number` or a star, each with an optional `/step`.
fn parse_member(field: Field, text: &str) -> Result<Set, String> {
    let (range, step) = match text.split_once('/') {
        None => (text, None),
        Some((_, step)) if step.contains('/') => return Err(format!("{text:?} has more than one slash")),
        Some((range, step)) => (range, Some(parse_step(step)?)),
    };
    let bounds: Vec<&str> = range.split('-').collect();
    let (start, end, star) = match (&bounds[..], step) {
        (["*" | "?", ..], _) => (field.min(), field.max(), step.is_none_or(|step| step == 1)),
        ([start], None) => {
            let value = parse_value(field, start)?;
            (value, value, false)
        }
        // `N/step` means `N-max/step`.
        ([start], Some(_)) => (parse_value(field, start)?, field.max(), false),
        ([start, end], _) => (parse_value(field, start)?, parse_value(field, end)?, false),
        _ => return Err(format!("{text:?} has more than one hyphen")),
    };
    if start > end {
        return Err(format!("the range {start}-{end} runs backwards"));
    }
    let values = (start..=end).step_by(step.unwrap_or(1));
    Ok(Set { bits: values.fold(0, |bits, value| bits | 1 << value), star })
}

fn parse_step(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("the step {text:?} is not a number of at least 1")),
        Ok(step) => Ok(step),
    }
}

/// A number (a plus sign before it is allowed, as in Go) or a name, within the field's bounds.
fn parse_value(field: Field, text: &str) -> Result<u64, String> {
    let named = field.names().iter().position(|name| name.eq_ignore_ascii_case(text));
    if let Some(index) = named.and_then(|index| u64::try_from(index).ok()) {
        return Ok(field.min() + index);
    }
    let value: u64 = text.parse().map_err(|_| format!("{text:?} is not {}", field.allowed()))?;
    if value < field.min() {
        return Err(format!("{value} is below {}", field.min()));
    }
    if value > field.max() {
        let hint = if field == Field::DayOfWeek { " (Sunday is 0)" } else { "" };
        return Err(format!("{value} is above {}{hint}", field.max()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn values(field: Field, text: &str) -> Vec<u64> {
        let set = parse_field(field, text).expect(text);
        (0..64).filter(|value| set.contains(*value)).collect()
    }

    #[rstest]
    #[case("5", &[5])]
    #[case("+5", &[5])]
    #[case("20/15", &[20, 35, 50])]
    #[case("1-9/4,7", &[1, 5, 7, 9])]
    #[case("*/25", &[0, 25, 50])]
    #[case("?/25", &[0, 25, 50])]
    #[case("*/99", &[0])]
    #[case("3,,4,", &[3, 4])]
    #[case(",", &[])]
    fn minutes(#[case] text: &str, #[case] expected: &[u64]) {
        assert_eq!(values(Field::Minute, text), expected);
    }

    #[test]
    fn names_have_any_case_and_may_have_steps() {
        assert_eq!(values(Field::DayOfWeek, "mOn/2"), [1, 3, 5]);
        assert_eq!(values(Field::Month, "jan-3,DEC"), [1, 2, 3, 12]);
    }

    #[test]
    fn a_step_above_one_takes_the_star_away() {
        let star = |text| parse_field(Field::DayOfMonth, text).expect(text).star;
        for text in ["*", "?", "*/1", "1,*", "*-nonsense"] {
            assert!(star(text), "{text}");
        }
        for text in ["*/2", "1-31", "1/1"] {
            assert!(!star(text), "{text}");
        }
    }

    #[rstest]
    #[case("61 * * * *", "minute: 61 is above 59")]
    #[case("* 5-1 * * *", "hour: the range 5-1 runs backwards")]
    #[case("* * 0 * *", "day of month: 0 is below 1")]
    #[case("* * L * *", r#"day of month: "L" is not a number from 1 to 31"#)]
    #[case("* * * 1-2-3 *", r#"month: "1-2-3" has more than one hyphen"#)]
    #[case("* * * JUIN *", r#"month: "JUIN" is not a number from 1 to 12 or a name from JAN to DEC"#)]
    #[case("* * * * 7", "day of week: 7 is above 6 (Sunday is 0)")]
    #[case("*/0 * * * *", r#"minute: the step "0" is not a number of at least 1"#)]
    #[case("1/2/3 * * * *", r#"minute: "1/2/3" has more than one slash"#)]
    #[case("@every 5", r#"@every: "5" is not a duration such as 90s, 5m or 1h30m"#)]
    #[case("TZ=UTC", "a time zone must be followed by a space and an expression")]
    #[case(
        "TZ=europe/berlin @daily",
        r#"time zone "europe/berlin" is not in the IANA database; names are case-sensitive, as in Europe/Berlin"#
    )]
    fn errors_say_what_is_allowed(#[case] expr: &str, #[case] message: &str) {
        assert_eq!(parse(expr).expect_err(expr).to_string(), message);
    }

    #[test]
    fn the_count_of_fields_and_the_length_are_checked() {
        for (expr, found) in [("", 0), ("   ", 0), ("* * * *", 4), ("0 * * * * *", 6), (" TZ=UTC * * * * *", 6)] {
            assert_eq!(parse(expr), Err(ScheduleError::FieldCount { found }), "{expr}");
        }
        let long = format!("{} * * * *", ["0"; 150].join(","));
        assert_eq!(parse(&long), Err(ScheduleError::TooLong { bytes: long.len() }));
    }

    proptest! {
        #[test]
        fn no_text_panics(expr in "\\PC{0,80}") {
            let _ = parse(&expr);
        }

        #[test]
        fn no_near_miss_panics(expr in "(TZ=|CRON_TZ=|@every |@)?[A-Za-z0-9*?/,@.+µ\\- \t-]{0,40}") {
            let _ = parse(&expr);
        }
    }
}
