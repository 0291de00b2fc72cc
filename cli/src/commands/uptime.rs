//! `fleetcheck uptime`: how much of a time checks were up.

use active_monitor_core::uptime::{Budget, Objective};
use active_monitor_core::view::{UptimePage, UptimeView};

use crate::args::{Format, Scope, UptimeArgs};
use crate::client::{Client, UptimeQuery};
use crate::output::{self, Rows, Text, Tone};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    args: UptimeArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let UptimeArgs { scope, selector, window, by, objective, limit } = args;
    let (cluster, namespace, name) = match scope {
        Some(Scope { cluster, namespace, check }) => (Some(cluster), namespace, check),
        None => (None, None, None),
    };
    let objective = objective.map(Objective::percent);
    let page = hub.uptime(&UptimeQuery { cluster, namespace, name, selector, window, by, objective, limit }).await?;
    output::show(format, world, streams, &page, |world, streams| {
        if page.items.is_empty() {
            return Ok(writeln!(streams.err, "nothing is known of that time")?);
        }
        rows(&page, objective.is_some(), world.colour).write(streams.out)?;
        let left = page.total.saturating_sub(page.items.len() as u64);
        if left > 0 {
            writeln!(streams.err, "{left} more; see --limit")?;
        }
        Ok(())
    })?;
    Ok(Exit::Fine)
}

fn rows(page: &UptimePage, has_objective: bool, colour: bool) -> Rows {
    let budget_left = has_objective.then_some("BUDGET LEFT");
    let headers = ["UPTIME", "OF", "CHECKS", "OUTAGES", "DOWN", "UNKNOWN", "LEFT OUT"].into_iter().chain(budget_left);
    let mut rows = Rows::new(headers, colour);
    for item in &page.items {
        let UptimeView { checks, ratio, time, .. } = item;
        let tone = if time.outages == 0 { Tone::Good } else { Tone::Bad };
        let budget = has_objective.then(|| item.budget.map_or(Text::from(""), budget));
        let cells = [
            ratio.map_or(Text::from(""), |ratio| Text::toned(&percent(ratio), tone)),
            Text::from(of(item)),
            checks.to_string().into(),
            time.outages.to_string().into(),
            length(time.down_seconds).into(),
            length(time.unknown_seconds).into(),
            length(time.stopped_seconds + time.maintenance_seconds).into(),
        ];
        rows.add(cells.into_iter().chain(budget));
    }
    rows
}

/// Cut, not rounded: only what was never down is 100 %.
fn percent(ratio: f64) -> String {
    format!("{:.3}%", (ratio * 100_000.0 + 1e-6).floor() / 1000.0)
}

/// What is left of what may be down; never rounded in favour of what was up.
fn budget(Budget { seconds, left_seconds }: Budget) -> Text {
    let whole = output::seconds(seconds.floor() as i64);
    if left_seconds < 0.0 {
        Text::toned(&format!("-{} of {whole}", output::seconds((-left_seconds).ceil() as i64)), Tone::Bad)
    } else {
        Text::toned(&format!("{} of {whole}", output::seconds(left_seconds.floor() as i64)), Tone::Good)
    }
}

fn of(item: &UptimeView) -> String {
    match (&item.cluster, &item.namespace, &item.name, &item.label) {
        (Some(cluster), Some(namespace), Some(name), _) => format!("{cluster}/{namespace}/{name}"),
        (Some(cluster), _, _, _) => cluster.clone(),
        (None, _, _, Some(label)) => label.clone(),
        (None, _, _, None) => "the fleet".to_owned(),
    }
}

fn length(seconds: f64) -> String {
    if seconds <= 0.0 { String::new() } else { output::seconds(seconds.ceil() as i64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_never_rounded_up() {
        assert_eq!(
            (percent(1.0), percent(0.999_999_9), percent(0.5)),
            ("100.000%".into(), "99.999%".into(), "50.000%".into())
        );
    }
}
