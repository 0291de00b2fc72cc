//! `fleetcheck run`, `pause` and `resume`: commands to clusters, and what became of them in each.

use active_monitor_core::command::{Layer, Subject};
use active_monitor_core::view::{Action, CommandOutcome, CommandReport, CommandRequest, CommandResult};

use crate::args::{Format, PauseArgs, ResumeArgs, RunNowArgs, Scope, TargetArgs};
use crate::client::Client;
use crate::output::{self, Rows, Text, Tone};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    RunNowArgs { target }: RunNowArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    give(hub, request(Action::Run, target), format, world, streams).await
}

pub(super) async fn pause(
    hub: &Client,
    PauseArgs { target, remedies, length, reason }: PauseArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let request = CommandRequest {
        subject: Some(subject(remedies)),
        seconds: Some(length.as_secs()),
        reason,
        ..request(Action::Pause, target)
    };
    give(hub, request, format, world, streams).await
}

pub(super) async fn resume(
    hub: &Client,
    ResumeArgs { target, remedies }: ResumeArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let request = CommandRequest { subject: Some(subject(remedies)), ..request(Action::Resume, target) };
    give(hub, request, format, world, streams).await
}

fn subject(remedies: bool) -> Subject {
    if remedies { Subject::Remedies } else { Subject::Checks }
}

fn request(action: Action, target: TargetArgs) -> CommandRequest {
    let TargetArgs { scope, labels, all_clusters, namespace, check } = target;
    let (clusters, namespace, check) = match scope {
        Some(Scope { cluster, namespace, check }) => (vec![cluster], namespace, check),
        None => (Vec::new(), namespace, check),
    };
    CommandRequest {
        action,
        subject: None,
        clusters,
        labels: labels.into_iter().collect(),
        all_clusters,
        namespace,
        check,
        seconds: None,
        reason: String::new(),
    }
}

async fn give(
    hub: &Client,
    request: CommandRequest,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let report = hub.command(&request).await?;
    output::show(format, world, streams, &report, |world, streams| {
        let CommandReport { id: _, at: _, command, results } = &report;
        writeln!(streams.out, "{}", output::printable(command))?;
        rows(results, world.colour).write(streams.out)
    })?;
    let is_delivered = |result: &CommandResult| result.outcome == CommandOutcome::Delivered;
    Ok(if report.results.iter().all(is_delivered) { Exit::Fine } else { Exit::Found })
}

fn rows(results: &[CommandResult], colour: bool) -> Rows {
    let mut rows = Rows::new(["CLUSTER", "RESULT", "REFUSED BY", "MESSAGE"], colour);
    for CommandResult { cluster, outcome, layer, message } in results {
        let tone = match outcome {
            CommandOutcome::Delivered => Tone::Good,
            CommandOutcome::Refused | CommandOutcome::Unreachable => Tone::Bad,
            CommandOutcome::TimedOut => Tone::Doubtful,
        };
        rows.add([
            Text::from(cluster),
            Text::toned(outcome.as_str(), tone),
            layer.map(Layer::as_str).unwrap_or_default().into(),
            Text::from(message),
        ]);
    }
    rows
}
