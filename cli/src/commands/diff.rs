//! `fleetcheck diff`: what apply would change.

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::view::{Change, List, Preview};
use serde::Serialize;
use similar::TextDiff;

use crate::args::{FilesArgs, Format};
use crate::client::Client;
use crate::output::{self, Rows, Text};
use crate::{Error, Exit, Streams, World, documents};

/// One definition's differences.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    name: String,
    /// As `diff -u` shows them; empty when the hub has the same.
    diff: String,
    #[serde(flatten)]
    preview: Preview,
}

pub(super) async fn run(
    hub: &Client,
    args: FilesArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let mut list = List { items: Vec::new() };
    for definition in documents::definitions(&args.files, streams)? {
        let preview = hub.preview(&definition).await?;
        list.items.push(Difference { diff: diff(&definition, &preview)?, name: definition.metadata.name, preview });
    }
    output::show(format, world, streams, &list, |world, streams| {
        list.items.iter().try_for_each(|difference| difference.write(world, streams))
    })?;
    Ok(if list.items.iter().any(Difference::is_some) { Exit::Found } else { Exit::Fine })
}

/// Both sides go through the same type, so that only their meaning is compared, not how they were written.
fn diff(new: &FleetHealthCheck, preview: &Preview) -> Result<String, Error> {
    let old = match &preview.current {
        Some(current) => match serde_json::from_value::<FleetHealthCheck>(current.clone()) {
            Ok(current) => output::yaml(&current)?,
            // A newer hub's fields; shown as they are.
            Err(_) => output::yaml(current)?,
        },
        None => String::new(),
    };
    let new_text = output::yaml(new)?;
    let (name, differences) = (&new.metadata.name, TextDiff::from_lines(&old, &new_text));
    let left = if preview.current.is_some() { format!("hub/{name}") } else { "/dev/null".to_owned() };
    Ok(differences.unified_diff().header(&left, &format!("file/{name}")).to_string())
}

impl Difference {
    fn is_some(&self) -> bool {
        !self.diff.is_empty() || self.preview.clusters.iter().any(|cluster| cluster.change != Change::Unchanged)
    }

    fn write(&self, world: &World, streams: &mut Streams<'_>) -> Result<(), Error> {
        for line in self.diff.lines() {
            writeln!(streams.out, "{}", coloured(line, world.colour))?;
        }
        let mut rows = Rows::new(["DEFINITION", "CLUSTER", "CHANGE", "MESSAGE"], world.colour);
        for cluster in &self.preview.clusters {
            if cluster.change != Change::Unchanged || !cluster.message.is_empty() {
                rows.add([
                    Text::from(&self.name),
                    (&cluster.cluster).into(),
                    word(cluster.change).into(),
                    (&cluster.message).into(),
                ]);
            }
        }
        if !rows.is_empty() {
            if !self.diff.is_empty() {
                writeln!(streams.out)?;
            }
            rows.write(streams.out)?;
        }
        if self.is_some() { Ok(writeln!(streams.out)?) } else { Ok(()) }
    }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Create => "create",
        Change::Update => "update",
        Change::Unchanged => "unchanged",
        Change::Withdraw => "withdraw",
    }
}

fn coloured(line: &str, colour: bool) -> String {
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.as_bytes().first() {
        Some(b'+') if colour => format!("\x1b[32m{line}\x1b[0m"),
        Some(b'-') if colour => format!("\x1b[31m{line}\x1b[0m"),
        Some(b'@') if colour => format!("\x1b[36m{line}\x1b[0m"),
        Some(_) | None => line,
    }
}
