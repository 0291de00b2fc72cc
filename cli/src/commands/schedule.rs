//! `fleetcheck schedule`: the next times of an expression, as an agent would see them.

use active_monitor_core::schedule::{Schedule, ScheduleError};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::args::{Format, ScheduleArgs};
use crate::{Error, Exit, Streams, World, output};

/// Why there are no times.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScheduleCommandError {
    #[error("{expression:?} is no schedule")]
    Expression { expression: String, source: ScheduleError },
    #[error("the expression has a time zone of its own; give it there or with --tz, not both")]
    TwoZones,
}

pub(super) fn run(
    args: &ScheduleArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let from = args.from.unwrap_or_else(world.now);
    let times = times(args, from)?;
    output::show(format, world, streams, &times, |_, streams| {
        times.iter().try_for_each(|time| Ok(writeln!(streams.out, "{time}")?))
    })?;
    if times.len() < usize::from(args.count) {
        writeln!(streams.err, "it comes no more often within the five years after that")?;
        return Ok(Exit::Found);
    }
    Ok(Exit::Fine)
}

/// RFC 3339, with the zone's offset.
fn times(args: &ScheduleArgs, from: Timestamp) -> Result<Vec<String>, ScheduleCommandError> {
    let given = args.expression.trim();
    let expression = match (&args.tz, own_zone(given)) {
        (Some(_), Some(_)) => return Err(ScheduleCommandError::TwoZones),
        (Some(zone), None) => format!("CRON_TZ={zone} {given}"),
        (None, _) => given.to_owned(),
    };
    let schedule = Schedule::parse_cron(&expression)
        .map_err(|source| ScheduleCommandError::Expression { expression: given.to_owned(), source })?;
    // What the schedule took as a zone exists; "Local" is UTC to it.
    let zone = own_zone(&expression).and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
    let times = std::iter::successors(schedule.next_after(from, from), |last| schedule.next_after(*last, from));
    Ok(times.take(usize::from(args.count)).map(|time| rfc3339(time, &zone)).collect())
}

fn own_zone(expression: &str) -> Option<&str> {
    let rest = expression.strip_prefix("CRON_TZ=").or_else(|| expression.strip_prefix("TZ="))?;
    rest.split_whitespace().next()
}

fn rfc3339(time: Timestamp, zone: &TimeZone) -> String {
    if *zone == TimeZone::UTC { time.to_string() } else { time.display_with_offset(zone.to_offset(time)).to_string() }
}
