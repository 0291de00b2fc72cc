//! `fleetcheck incidents`: what is wrong, said once however many clusters it is wrong in.

use active_monitor_core::view::{Closed, Incident, IncidentPage, Prior};
use jiff::Timestamp;

use crate::args::{Format, IncidentsArgs};
use crate::client::{Client, IncidentQuery};
use crate::output::{self, Rows, Text, Tone};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    args: IncidentsArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let IncidentsArgs { all, limit, details } = args;
    let page = hub.incidents(&IncidentQuery { all, limit: all.then_some(limit) }).await?;
    output::show(format, world, streams, &page, |world, streams| {
        let IncidentPage { items, next: _ } = &page;
        if items.is_empty() {
            return Ok(writeln!(streams.err, "there are no {}incidents", if all { "" } else { "open " })?);
        }
        rows(items, (world.now)(), world.colour).write(streams.out)?;
        if details { items.iter().try_for_each(|incident| explain(incident, streams)) } else { Ok(()) }
    })?;
    Ok(Exit::Fine)
}

pub(super) fn rows(incidents: &[Incident], now: Timestamp, colour: bool) -> Rows {
    let mut rows = Rows::new(["INCIDENT", "STATE", "SINCE", "WHAT"], colour);
    for incident in incidents {
        let (state, tone) = state(incident);
        rows.add([
            Text::from(&incident.id),
            Text::toned(state, tone),
            output::age(now, Some(incident.first_seen)).into(),
            Text::from(&incident.title),
        ]);
    }
    rows
}

fn state(incident: &Incident) -> (&'static str, Tone) {
    match (incident.closed_at, incident.closed) {
        (Some(_), Some(Closed::Recovered) | None) => ("Recovered", Tone::Good),
        (Some(_), Some(Closed::Withdrawn)) => ("Withdrawn", Tone::Plain),
        (Some(_), Some(Closed::Merged)) => ("Merged", Tone::Plain),
        (None, _) if incident.recovered_at.is_some() => ("Recovering", Tone::Good),
        (None, _) if incident.silenced => ("Silenced", Tone::Doubtful),
        (None, _) if incident.flapping => ("Flapping", Tone::Bad),
        (None, _) if incident.widespread => ("Widespread", Tone::Bad),
        (None, _) => ("Open", Tone::Bad),
    }
}

/// What sets the failing clusters apart, and what changed before.
fn explain(incident: &Incident, streams: &mut Streams<'_>) -> Result<(), Error> {
    writeln!(streams.out, "\n{}: {}", incident.id, output::printable(&incident.title))?;
    let counts = incident.counts;
    writeln!(streams.out, "  {} failing, {} healthy, {} unknown", counts.failing, counts.healthy, counts.unknown)?;
    for difference in &incident.differences {
        let (of, failing, label) = (difference.of, difference.failing, &difference.is);
        let (outside, of_outside) = (difference.failing_outside, difference.of_outside);
        writeln!(
            streams.out,
            "  {}={}: {failing} of {of}, elsewhere {outside} of {of_outside}",
            label.label, label.value
        )?;
    }
    for Prior { at, kind: _, who, what, object } in &incident.changes {
        let who = if who.is_empty() { String::new() } else { format!(" by {who}") };
        writeln!(streams.out, "  before, at {at:.0}: {}", output::printable(&format!("{what} {object}{who}")))?;
    }
    Ok(())
}
