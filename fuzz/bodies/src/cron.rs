//! Cron expressions: what is read has a next time, or none, and never one in the past.

use active_monitor_core::schedule::Schedule;
use jiff::Timestamp;

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(schedule) = Schedule::parse_cron(text) else { return };
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let Some(next) = schedule.next_after(now, now) else { return };
    assert!(next > now);
    assert_eq!(schedule.latest_at(next, now, now), Some(next));
}
