//! `fleetcheck runs`: the history, newest first.

use active_monitor_core::run::{Outcome, Reason};
use active_monitor_core::view::{GapView, RunPage, RunView};
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
    let logs = args.logs;
    let list = read(hub, args).await?;
    output::show(format, world, streams, &list, |world, streams| {
        if list.items.is_empty() && list.gaps.is_empty() {
            return Ok(writeln!(streams.err, "no runs found")?);
        }
        rows(&list, (world.now)(), world.colour).write(streams.out)?;
        if logs { details(&list.items, streams) } else { Ok(()) }
    })?;
    Ok(Exit::Fine)
}

/// The most that the hub gives in one answer.
const MAX_PAGE: usize = 1000;

/// As many pages as the limit needs; the hub may give less at once than it is asked for.
async fn read(hub: &Client, args: RunsArgs) -> Result<RunPage, Error> {
    let RunsArgs { scope, kind, outcome, limit, logs: _ } = args;
    let (cluster, namespace, name) = match scope {
        Some(Scope { cluster, namespace, check }) => (Some(cluster), namespace, check),
        None => (None, None, None),
    };
    let limit = limit.get();
    let mut query = RunQuery { cluster, namespace, name, kind, outcome, limit: limit.min(MAX_PAGE), before: None };
    let (mut runs, mut gaps) = (Vec::new(), Vec::new());
    loop {
        let page = hub.runs(&query).await?;
        let empty = page.items.is_empty();
        runs.extend(page.items);
        gaps.extend(page.gaps);
        runs.truncate(limit);
        query.limit = (limit - runs.len()).min(MAX_PAGE);
        query.before = page.next;
        if query.limit == 0 || empty || query.before.is_none() {
            return Ok(RunPage { items: runs, gaps, next: None });
        }
    }
}

/// What does not fit a line: each run's warning and log tail, under its workflow.
pub(super) fn details(runs: &[RunView], streams: &mut Streams<'_>) -> Result<(), Error> {
    for RunView { id: _, cluster, recorded_at: _, run } in runs {
        if run.warning.is_empty() && run.log_tail.is_empty() {
            continue;
        }
        let workflow = run.workflow.as_deref().unwrap_or("no workflow");
        writeln!(streams.out, "\n{} {}", output::printable(cluster), output::printable(workflow))?;
        if !run.warning.is_empty() {
            writeln!(streams.out, "  warning: {}", output::printable(&run.warning))?;
        }
        for line in run.log_tail.lines() {
            writeln!(streams.out, "  {}", output::printable(line))?;
        }
    }
    Ok(())
}

/// Newest first; a gap stands before the run behind which it lies.
pub(super) fn rows(page: &RunPage, now: Timestamp, colour: bool) -> Rows {
    let headers = ["CLUSTER", "NAMESPACE", "NAME", "KIND", "OUTCOME", "REASON", "ENDED", "TOOK", "MESSAGE"];
    let mut rows = Rows::new(headers, colour);
    let mut gaps = page.gaps.iter().peekable();
    for RunView { id, cluster, recorded_at: _, run } in &page.items {
        while let Some(gap) = gaps.next_if(|gap| gap.after >= *id) {
            add_gap(&mut rows, gap, now);
        }
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
    gaps.for_each(|gap| add_gap(&mut rows, gap, now));
    rows
}

fn add_gap(rows: &mut Rows, GapView { cluster, after: _, reports, noticed_at }: &GapView, now: Timestamp) {
    let nothing = || Text::from("");
    let age = output::age(now, Some(*noticed_at));
    let message = match reports {
        0 => format!(
            "runs of this cluster had not come, nobody knows how many: their journal is lost, or that of another replica; \
             noticed {age} ago"
        ),
        reports => format!("{reports} runs of this cluster never came, noticed {age} ago"),
    };
    let gap = Text::toned("Gap", Tone::Bad);
    rows.add([
        Text::from(cluster),
        nothing(),
        nothing(),
        nothing(),
        gap,
        nothing(),
        nothing(),
        nothing(),
        message.into(),
    ]);
}
