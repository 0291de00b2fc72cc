//! Cron expressions: what is read has a next time, or none, and never one in the past.

#![no_main]

use active_monitor_core::schedule::Schedule;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(schedule) = Schedule::parse_cron(text) else { return };
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let Some(next) = schedule.next_after(now, now) else { return };
    assert!(next > now);
    assert_eq!(schedule.latest_at(next, now, now), Some(next));
});
