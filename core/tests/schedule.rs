//! Cron expressions mean what they mean to robfig/cron v3, which Active-Monitor uses: its answers are the table
//! `fixtures/robfig/table.jsonl`, printed by the Go program beside it. What the table cannot ask, a brute-force search
//! over minutes answers.

#![allow(clippy::expect_used, reason = "a test's helper may fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use active_monitor_core::schedule::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    expr: String,
    after: Option<Timestamp>,
    #[serde(default)]
    next: Vec<Timestamp>,
    every: Option<u64>,
    reject: Option<String>,
    fault: Option<String>,
}

fn table() -> Vec<Row> {
    let lines = include_str!("fixtures/robfig/table.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn next_times(schedule: &Schedule, after: Timestamp, count: usize) -> Vec<Timestamp> {
    let next = |t: &Timestamp| schedule.next_after(*t, Timestamp::UNIX_EPOCH);
    std::iter::successors(next(&after), next).take(count).collect()
}

/// How our answer differs from the row's, if it does.
fn difference(row: &Row) -> Option<String> {
    let schedule = match (Schedule::parse_cron(&row.expr), &row.reject) {
        (Err(_), Some(_)) => return None,
        (Ok(_), Some(message)) => return Some(format!("we accept it, robfig says: {message}")),
        (Err(error), None) => return Some(format!("we reject it: {error}")),
        (Ok(schedule), None) => schedule,
    };
    if let Some(seconds) = row.every {
        let ours = schedule.period();
        return (ours != Some(Duration::from_secs(seconds))).then(|| format!("we say {ours:?}, robfig {seconds} s"));
    }
    let ours = next_times(&schedule, row.after.expect("a start"), 6);
    (ours != row.next).then(|| format!("after {:?}\n  we say {ours:?}\n  robfig {:?}", row.after, row.next))
}

#[test]
fn the_table_is_rich_enough() {
    let rows = table();
    let count = |keep: fn(&Row) -> bool| {
        rows.iter().filter(|row| keep(row)).map(|row| &row.expr).collect::<BTreeSet<_>>().len()
    };
    assert!(count(|row| row.after.is_some()) >= 69);
    assert!(count(|row| row.reject.is_some()) >= 69);
    assert!(count(|row| row.every.is_some()) >= 10);
}

#[test]
fn every_answer_is_robfigs() {
    let rows = table();
    let correct = rows.iter().filter(|row| row.fault.is_none());
    let differences: Vec<String> =
        correct.filter_map(|row| Some(format!("{:?}: {}", row.expr, difference(row)?))).collect();
    assert!(differences.is_empty(), "{} rows differ:\n{}", differences.len(), differences.join("\n"));
}

/// The times are a fixed set of instants, whatever the search starts from; robfig's are not where it has to step across
/// a gap at midnight or of half an hour. These are the rows that the table marks so.
#[test]
fn robfigs_faults_are_not_copied() {
    let ours = BTreeMap::from([
        ("CRON_TZ=Australia/Lord_Howe 0 3 * * *", "2026-10-03T16:00:00Z"),
        ("CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-04-04T15:45:00Z"),
        ("CRON_TZ=Australia/Lord_Howe 45 1 * * *", "2026-10-04T14:45:00Z"),
        ("CRON_TZ=Asia/Beirut 30 5 29 3 *", "2026-03-29T02:30:00Z"),
        ("CRON_TZ=America/Santiago 30 1 5 9 *", "2027-09-05T04:30:00Z"),
    ]);
    let rows = table();
    let faults: Vec<&Row> = rows.iter().filter(|row| row.fault.is_some()).collect();
    assert_eq!(faults.len(), ours.len());
    for row in faults {
        let schedule = Schedule::parse_cron(&row.expr).expect("accepted");
        let next = next_times(&schedule, row.after.expect("a start"), 1);
        assert_eq!(next, [ours[row.expr.as_str()].parse().expect("a timestamp")], "{}", row.expr);
        assert_ne!(next, row.next[..1], "{} is no fault any more", row.expr);
    }
}

/// Going back from a row's last time with `latest_at` visits the row's times in reverse.
#[test]
fn the_way_back_is_the_way_forth() {
    for row in table().iter().filter(|row| row.fault.is_none() && !row.next.is_empty()) {
        let schedule = Schedule::parse_cron(&row.expr).expect("accepted");
        let floor = row.after.expect("a start");
        let previous = |at: Timestamp| schedule.latest_at(at, floor, floor);
        let step = |t: &Timestamp| previous(*t - SignedDuration::from_secs(1));
        let mut back: Vec<Timestamp> = std::iter::successors(previous(row.next[row.next.len() - 1]), step).collect();
        back.reverse();
        assert_eq!(back, row.next, "{:?} after {floor}", row.expr);
    }
}

fn any_subset(min: i8, max: i8) -> impl Strategy<Value = Option<BTreeSet<i8>>> {
    proptest::option::of(proptest::collection::btree_set(min..=max, 1..4))
}

fn field(set: &Option<BTreeSet<i8>>) -> String {
    let list = |set: &BTreeSet<i8>| set.iter().map(i8::to_string).collect::<Vec<_>>().join(",");
    set.as_ref().map_or_else(|| "*".to_owned(), list)
}

/// Changes of the clocks of every kind: at 02:00, at midnight, of half an hour, over the date line, and none.
const CHANGES: [(&str, &str); 9] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/Santiago", "2026-09-06T04:00:00Z"),
    ("Asia/Beirut", "2026-03-28T22:00:00Z"),
    ("Africa/Cairo", "2026-10-29T21:00:00Z"),
    ("America/Havana", "2026-11-01T05:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("UTC", "2028-02-29T00:00:00Z"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn times_are_the_minutes_whose_local_time_matches(
        (zone, change) in proptest::sample::select(CHANGES.to_vec()),
        start in -3_000_i64..1_000,
        (minutes, hours) in (any_subset(0, 59), any_subset(0, 23)),
        (days, weekdays) in (any_subset(1, 31), any_subset(0, 6)),
    ) {
        let expr = format!(
            "CRON_TZ={zone} {} {} {} * {}", field(&minutes), field(&hours), field(&days), field(&weekdays)
        );
        let schedule = Schedule::parse_cron(&expr).expect("a valid expression");
        let tz = TimeZone::get(zone).expect("a zone");
        let has = |set: &Option<BTreeSet<i8>>, value| set.as_ref().is_none_or(|set| set.contains(&value));
        let matches = |t: &Timestamp| {
            let local = tz.to_datetime(*t);
            let weekday = has(&weekdays, local.weekday().to_sunday_zero_offset());
            let day = has(&days, local.day());
            let date = if days.is_some() && weekdays.is_some() { day || weekday } else { day && weekday };
            date && has(&hours, local.hour()) && has(&minutes, local.minute())
        };
        // Every zone here is whole minutes from UTC, so the minutes of UTC are the minutes of the zone.
        let minute = |n: i64| change.parse::<Timestamp>().expect("a timestamp") + SignedDuration::from_mins(n);
        let (first, last) = (minute(start), minute(start + 3_000));
        let expected: Vec<Timestamp> = (start + 1..=start + 3_000).map(minute).filter(matches).collect();

        let mut forth = next_times(&schedule, first, expected.len() + 1);
        forth.retain(|t| *t <= last);
        prop_assert_eq!(&forth, &expected, "{}", expr);
        prop_assert_eq!(schedule.latest_at(last, first, first), expected.last().copied(), "{}", expr);
    }
}
