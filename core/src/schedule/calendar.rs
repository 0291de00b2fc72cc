//! Calendar times as instants. The `cron` crate walks a calendar that knows no time zones; what a zone does to it is
//! decided here. Seconds since 1970 in, seconds since 1970 out.
//!
//! A zone is a row of stretches with one offset each, and within a stretch local time is the instant plus the offset.
//! So the times of a schedule are all instants whose local time the calendar has: a local time that a change of the
//! clocks leaves out does not fire, one that comes twice fires twice. robfig does the same, but for gaps at midnight and
//! changes of half an hour: there its answer depends on where the search began, which a stable slot cannot copy (the
//! table in tests/fixtures/robfig has such rows, marked as faults).

use chrono::{DateTime, Datelike, Utc};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::expression::{Field, Fields, ScheduleError, Set, WEEKDAYS};

/// As robfig: the search ends with the fifth calendar year after its start.
const SEARCH_YEARS: i32 = 5;
/// The years that the engine's calendar has.
const ENGINE_YEARS: std::ops::RangeInclusive<i32> = 1970..=2100;

/// The calendar times of one expression in one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    /// Their union. Two where either day field is enough, none where a field is empty.
    engines: Vec<cron::Schedule>,
    zone: TimeZone,
}

impl Calendar {
    pub(super) fn new(fields: &Fields, zone: TimeZone) -> Result<Calendar, ScheduleError> {
        let variants = if fields.both_days_restricted() {
            vec![
                Fields { weekday: Set::all(Field::DayOfWeek), ..*fields },
                Fields { day: Set::all(Field::DayOfMonth), ..*fields },
            ]
        } else {
            vec![*fields]
        };
        let engines = variants.iter().filter_map(engine_expression).map(|text| text.parse());
        let engines = engines.collect::<Result<_, cron::error::Error>>();
        Ok(Calendar { engines: engines.map_err(|error| ScheduleError::Engine { problem: error.to_string() })?, zone })
    }

    /// The first time strictly after `after`.
    pub(super) fn next_after(&self, after: i64) -> Option<i64> {
        let start = Timestamp::from_second(after + 1).ok()?;
        let mut offset = i64::from(self.zone.to_offset(start).seconds());
        let last_year = local(after + 1 + offset)?.year() + SEARCH_YEARS;
        let mut after = after;
        let mut changes = self.zone.following(start);
        loop {
            let change = changes.next();
            let end = change.as_ref().map_or(i64::MAX, |change| change.timestamp().as_second());
            if let Some(found) = self.local_after(after + offset).filter(|found| found.timestamp() - offset < end) {
                return (found.year() <= last_year).then(|| found.timestamp() - offset);
            }
            offset = i64::from(change?.offset().seconds());
            if local(end + offset)?.year() > last_year {
                return None;
            }
            after = end - 1;
        }
    }

    /// The latest time that is not after `at`; `None` if that is not after `floor`.
    pub(super) fn latest_at(&self, at: i64, floor: i64) -> Option<i64> {
        let mut at = at;
        let mut changes = self.zone.preceding(Timestamp::from_second(at + 1).ok()?);
        while at > floor {
            let offset = i64::from(self.zone.to_offset(Timestamp::from_second(at).ok()?).seconds());
            let start = changes.next().map(|change| change.timestamp().as_second());
            let found = self.local_at(at + offset).map(|found| found.timestamp() - offset);
            if let Some(found) = found.filter(|found| start.is_none_or(|start| *found >= start)) {
                return (found > floor).then_some(found);
            }
            at = start? - 1;
        }
        None
    }

    /// The first local time strictly after `after`.
    fn local_after(&self, after: i64) -> Option<DateTime<Utc>> {
        let after = local(after)?;
        self.engines.iter().filter_map(|engine| engine.after(&after).next()).min()
    }

    /// The latest local time that is not after `at`.
    fn local_at(&self, at: i64) -> Option<DateTime<Utc>> {
        // The engine's backward search excludes its start, and goes astray if that is outside its own years.
        let before = local(at + 1).filter(|_| local(at).is_some_and(|at| ENGINE_YEARS.contains(&at.year())))?;
        self.engines.iter().filter_map(|engine| engine.after(&before).next_back()).max()
    }
}

/// A local time, in the type that the engine takes; its zone means nothing.
fn local(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

/// The fields in the engine's own dialect, written so that nothing of it can differ: explicit lists, named weekdays (it
/// counts them from 1), no steps. `None` if a field is empty, which it cannot say.
fn engine_expression(fields: &Fields) -> Option<String> {
    let Fields { minute, hour, day, month, weekday } = *fields;
    Some(format!(
        "0 {} {} {} {} {}",
        engine_list(Field::Minute, minute)?,
        engine_list(Field::Hour, hour)?,
        engine_list(Field::DayOfMonth, day)?,
        engine_list(Field::Month, month)?,
        engine_list(Field::DayOfWeek, weekday)?,
    ))
}

fn engine_list(field: Field, set: Set) -> Option<String> {
    if set.is_empty() {
        return None;
    }
    if set == Set::all(field) {
        return Some("*".to_owned());
    }
    let values = (field.min()..=field.max()).filter(|value| set.contains(*value));
    let words = values.map(|value| match field {
        Field::DayOfWeek => usize::try_from(value).ok().and_then(|at| WEEKDAYS.get(at)).map(|name| (*name).to_owned()),
        Field::Minute | Field::Hour | Field::DayOfMonth | Field::Month => Some(value.to_string()),
    });
    Some(words.collect::<Option<Vec<_>>>()?.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::expression::{Parsed, parse};

    fn engines(expr: &str) -> Vec<String> {
        let Parsed::Calendar { fields, zone } = parse(expr).expect(expr) else { panic!("{expr} is an interval") };
        Calendar::new(&fields, zone).expect(expr).engines.iter().map(|engine| engine.source().to_owned()).collect()
    }

    #[test]
    fn the_engine_gets_lists_and_names_only() {
        assert_eq!(engines("*/20 9-11 ? JAN 1-5"), ["0 0,20,40 9,10,11 * 1 MON,TUE,WED,THU,FRI"]);
        assert_eq!(engines("@weekly"), ["0 0 0 * * SUN"]);
    }

    #[test]
    fn either_day_field_is_enough_where_both_are_restricted() {
        assert_eq!(engines("0 0 13 * 5"), ["0 0 0 13 * *", "0 0 0 * * FRI"]);
        assert_eq!(engines("0 0 13 * *"), ["0 0 0 13 * *"]);
        // An empty day field leaves the other one; any other empty field leaves nothing.
        assert_eq!(engines("0 0 , * 5"), ["0 0 0 * * FRI"]);
        assert!(engines(", * * * *").is_empty());
    }
}
