//! `fleetcheck checks`: the live state of the checks.

use active_monitor_core::view::{CheckStatus, CheckView, List};
use jiff::Timestamp;

use super::status::check_message;
use crate::args::{ChecksArgs, Format};
use crate::client::{CheckQuery, Client};
use crate::output::{self, Rows, Text, Tone};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    args: ChecksArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let ChecksArgs { cluster, namespace, status } = args;
    let list = List { items: hub.checks(&CheckQuery { cluster, namespace, status }).await? };
    output::show(format, world, streams, &list, |world, streams| {
        if list.items.is_empty() {
            return Ok(writeln!(streams.err, "no checks found")?);
        }
        rows(&list.items, (world.now)(), world.colour).write(streams.out)
    })?;
    Ok(Exit::Fine)
}

fn rows(checks: &[CheckView], now: Timestamp, colour: bool) -> Rows {
    let headers = ["CLUSTER", "NAMESPACE", "NAME", "STATUS", "OK", "FAILED", "LAST RUN", "NEXT RUN", "MESSAGE"];
    let mut rows = Rows::new(headers, colour);
    for check in checks {
        let state = &check.state;
        let next = if state.running.is_some() { "running".to_owned() } else { next_run(check, now) };
        rows.add([
            Text::from(&check.cluster),
            Text::from(&state.namespace),
            Text::from(&state.name),
            Text::toned(check.status.as_str(), tone(check.status)),
            state.check.succeeded.to_string().into(),
            state.check.failed.to_string().into(),
            output::age(now, last_result(check)).into(),
            next.into(),
            check_message(check).into(),
        ]);
    }
    rows
}

/// Of a stale check nobody knows when it runs.
fn next_run(check: &CheckView, now: Timestamp) -> String {
    match check.status {
        CheckStatus::Stale => String::new(),
        CheckStatus::Failed
        | CheckStatus::Invalid
        | CheckStatus::Overdue
        | CheckStatus::Pending
        | CheckStatus::Stopped
        | CheckStatus::Succeeded => output::until(now, check.state.next_slot),
    }
}

/// The end of the last run.
pub(super) fn last_result(check: &CheckView) -> Option<Timestamp> {
    check.state.check.finished_at
}

pub(super) fn tone(status: CheckStatus) -> Tone {
    match status {
        CheckStatus::Failed | CheckStatus::Invalid | CheckStatus::Overdue => Tone::Bad,
        CheckStatus::Stale | CheckStatus::Pending => Tone::Doubtful,
        CheckStatus::Stopped => Tone::Plain,
        CheckStatus::Succeeded => Tone::Good,
    }
}
