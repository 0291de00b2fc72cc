//! `fleetcheck ack`, `unack` and `window`: who knows of what is wrong, and when nobody is to be called.

use active_monitor_core::care::WindowSpec;
use active_monitor_core::view::{AcknowledgementAdd, List, WindowView};
use jiff::Timestamp;

use crate::args::{AckArgs, CheckName, Format, WindowArgs, WindowCommand};
use crate::client::Client;
use crate::output::{self, Rows, Text};
use crate::{Error, Exit, Streams, World};

pub(super) async fn acknowledge(hub: &Client, args: AckArgs, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let AckArgs { check: CheckName(names), seconds, message } = args;
    let body = AcknowledgementAdd { comment: message, expires_in_seconds: seconds };
    let check = hub.acknowledge(names.each_ref().map(String::as_str), &body).await?;
    let until = check.care.acknowledgement.map(|known| format!(" until {:.0}", known.expires_at));
    writeln!(streams.out, "{} acknowledged{}", names.join("/"), until.unwrap_or_default())?;
    Ok(Exit::Fine)
}

pub(super) async fn unacknowledge(hub: &Client, check: CheckName, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let CheckName(names) = check;
    hub.unacknowledge(names.each_ref().map(String::as_str)).await?;
    writeln!(streams.out, "{} is no longer acknowledged", names.join("/"))?;
    Ok(Exit::Fine)
}

pub(super) async fn window(
    hub: &Client,
    command: WindowCommand,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    match command {
        WindowCommand::Set(args) => {
            let window = hub.put_window(&spec(*args)).await?;
            output::show(format, world, streams, &window, |world, streams| {
                Ok(writeln!(streams.out, "window {} set, {}", window.spec.name, state(&window, (world.now)()))?)
            })?;
        }
        WindowCommand::List => {
            let list = List { items: hub.windows().await? };
            output::show(format, world, streams, &list, |world, streams| {
                if list.items.is_empty() {
                    return Ok(writeln!(streams.err, "there are no windows")?);
                }
                rows(&list.items, (world.now)(), world.colour).write(streams.out)
            })?;
        }
        WindowCommand::Delete { name } => {
            hub.remove_window(&name).await?;
            writeln!(streams.out, "window {name} deleted")?;
        }
    }
    Ok(Exit::Fine)
}

fn spec(args: WindowArgs) -> WindowSpec {
    let WindowArgs { name, selector, cluster, namespace, check, from, to, cron, tz, lasts, message } = args;
    let (time_zone, duration_seconds, comment) = (tz, lasts, message);
    WindowSpec { name, selector, cluster, namespace, check, from, to, cron, time_zone, duration_seconds, comment }
}

fn rows(windows: &[WindowView], now: Timestamp, colour: bool) -> Rows {
    let mut rows = Rows::new(["NAME", "STATE", "WHEN", "OF", "COMMENT", "GIT"], colour);
    for window in windows {
        let spec = &window.spec;
        rows.add([
            Text::from(&spec.name),
            state(window, now).into(),
            when(spec).into(),
            of(spec).into(),
            Text::from(&spec.comment),
            window.git.as_ref().map(|origin| origin.file.clone()).unwrap_or_default().into(),
        ]);
    }
    rows
}

fn state(window: &WindowView, now: Timestamp) -> String {
    match (window.open_until, window.changes_at) {
        (Some(until), _) => format!("open, ends {}", output::until(now, Some(until))),
        (None, Some(at)) => format!("begins {}", output::until(now, Some(at))),
        (None, None) => "over".to_owned(),
    }
}

fn when(spec: &WindowSpec) -> String {
    match (spec.from, spec.to, &spec.cron, spec.duration_seconds) {
        (Some(from), Some(to), _, _) => format!("{from:.0} to {to:.0}"),
        (_, _, Some(cron), Some(seconds)) => {
            let zone = spec.time_zone.as_ref().map(|zone| format!(" {zone}")).unwrap_or_default();
            format!("{cron}{zone} for {}", output::seconds(i64::try_from(seconds).unwrap_or(i64::MAX)))
        }
        _ => String::new(),
    }
}

/// `env=prod cluster/namespace/check`, a `*` for what is not given.
fn of(spec: &WindowSpec) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "*".to_owned());
    let names = format!("{}/{}/{}", part(&spec.cluster), part(&spec.namespace), part(&spec.check));
    if spec.selector.is_empty() { names } else { format!("{names} {}", spec.selector) }
}
