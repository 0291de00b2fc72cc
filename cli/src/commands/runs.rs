//! `fleetcheck runs`: the history, newest first.

use active_monitor_core::run::{Outcome, Reason};
use active_monitor_core::view::{List, RunView};
use jiff::Timestamp;

use crate::args::{Format, RunsArgs, Scope};
use crate::client::{Client, RunQuery};
use crate::output::{self, Rows, Text, Tone};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    args: RunsArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let list = List { items: read(hub, args).await? };
    output::show(format, world, streams, &list, |world, streams| {
        if list.items.is_empty() {
            return Ok(writeln!(streams.err, "no runs found")?);
        }
        rows(&list.items, (world.now)(), world.colour).write(streams.out)
    })?;
    Ok(Exit::Fine)
}

/// The most that the hub gives in one answer.
const MAX_PAGE: usize = 1000;

/// As many pages as the limit needs; the hub may give less at once than it is asked for.
async fn read(hub: &Client, args: RunsArgs) -> Result<Vec<RunView>, Error> {
    let RunsArgs { scope, kind, outcome, limit } = args;
    let (cluster, namespace, name) = match scope {
        Some(Scope { cluster, namespace, check }) => (Some(cluster), namespace, check),
        None => (None, None, None),
    };
    let limit = limit.get();
    let mut query = RunQuery { cluster, namespace, name, kind, outcome, limit: limit.min(MAX_PAGE), before: None };
    let mut runs = Vec::new();
    loop {
        let page = hub.runs(&query).await?;
        let empty = page.items.is_empty();
        runs.extend(page.items);
        runs.truncate(limit);
        query.limit = (limit - runs.len()).min(MAX_PAGE);
        query.before = page.next;
        if query.limit == 0 || empty || query.before.is_none() {
            return Ok(runs);
        }
    }
}

fn rows(runs: &[RunView], now: Timestamp, colour: bool) -> Rows {
    let headers = ["CLUSTER", "NAMESPACE", "NAME", "KIND", "OUTCOME", "REASON", "ENDED", "TOOK", "MESSAGE"];
    let mut rows = Rows::new(headers, colour);
    for RunView { id: _, cluster, recorded_at: _, run } in runs {
        let tone = match run.outcome {
            Outcome::Succeeded => Tone::Good,
            Outcome::Failed => Tone::Bad,
        };
        rows.add([
            Text::from(cluster),
            Text::from(&run.namespace),
            Text::from(&run.name),
            run.key.kind.as_str().into(),
            Text::toned(run.outcome.as_str(), tone),
            run.reason.map(Reason::as_str).unwrap_or_default().into(),
            output::age(now, Some(run.finished_at)).into(),
            output::age(run.finished_at, Some(run.started_at)).into(),
            Text::from(&run.message),
        ]);
    }
    rows
}
