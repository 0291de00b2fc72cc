//! `fleetcheck diff`: what apply, or the hub's watched folder, would change.

use std::path::{Path, PathBuf};

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::gitops::{Document, Kind, Wanted};
use active_monitor_core::view::{Change, List, Preview, RoutePreview, RoutesFile};
use serde::Serialize;
use similar::TextDiff;

use crate::args::{DiffArgs, Format};
use crate::client::Client;
use crate::output::{self, Rows, Text};
use crate::{Error, Exit, Streams, World, documents};
use folder::Git;

mod folder;

/// What differs in one thing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    kind: &'static str,
    name: String,
    /// As `diff -u` shows them; empty when the hub has the same, and of a route.
    diff: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    /// Of a definition: what is there, and what would happen in the clusters.
    #[serde(flatten)]
    preview: Option<Preview>,
    /// Of a route.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
}

pub(super) async fn run(
    hub: &Client,
    args: DiffArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let DiffArgs { files, prune, routes } = args;
    let mut list = List { items: Vec::new() };
    if !files.is_empty() {
        list.items = of_files(hub, &files, prune, streams).await?;
    }
    if let Some(file) = routes {
        list.items.extend(of_routes(hub, &file, streams).await?);
    }
    output::show(format, world, streams, &list, |world, streams| {
        list.items.iter().try_for_each(|difference| difference.write(world, streams))
    })?;
    Ok(if list.items.iter().any(Difference::is_some) { Exit::Found } else { Exit::Fine })
}

async fn of_files(
    hub: &Client,
    files: &[PathBuf],
    prune: bool,
    streams: &mut Streams<'_>,
) -> Result<Vec<Difference>, Error> {
    let documents = documents::of_folder(files, streams)?;
    let has = |kind: Kind| documents.keys().any(|(of, _)| *of == kind);
    let git = if prune || has(Kind::FleetCluster) { Git::read(hub).await? } else { Git::default() };
    let windows = if prune || has(Kind::MaintenanceWindow) { hub.windows().await? } else { Vec::new() };
    let mut differences = Vec::new();
    for Document { wanted, .. } in documents.values() {
        differences.push(match wanted {
            Wanted::Definition(definition) => of_definition(hub, definition).await?,
            Wanted::Cluster(metadata) => folder::cluster(hub, &git, metadata).await?,
            Wanted::Window(spec) => folder::window(&windows, spec)?,
        });
    }
    if prune && !git.is_watched {
        writeln!(streams.err, "the hub watches no folder, so it would delete nothing; its flag is --git-folder")?;
    }
    if prune {
        differences.extend(folder::pruned(hub, &git, &documents, &windows).await?);
    }
    Ok(differences)
}

async fn of_definition(hub: &Client, definition: &FleetHealthCheck) -> Result<Difference, Error> {
    let preview = hub.preview(definition).await?;
    let (name, diff) = (&definition.metadata.name, diff(definition, &preview)?);
    Ok(Difference { preview: Some(preview), ..Difference::new(Kind::FleetHealthCheck.as_str(), name, diff) })
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
    Ok(unified(&old, &output::yaml(new)?, &new.metadata.name))
}

/// As `diff -u` shows it; an empty text is one that is not there.
fn unified(old: &str, new: &str, path: &str) -> String {
    let header =
        |side: &str, text: &str| if text.is_empty() { "/dev/null".to_owned() } else { format!("{side}/{path}") };
    TextDiff::from_lines(old, new).unified_diff().header(&header("hub", old), &header("file", new)).to_string()
}

/// The hub says which routes would be others, and of none where it goes: that is often a secret.
async fn of_routes(hub: &Client, file: &Path, streams: &mut Streams<'_>) -> Result<Vec<Difference>, Error> {
    let read = documents::read(&[file.to_owned()], streams.input)?;
    let text = read.into_iter().map(|input| input.text).collect();
    let preview = hub.preview_routes(&RoutesFile { text }).await?;
    if !preview.has_file {
        writeln!(streams.err, "the hub has no file of routes; its flag is --routes-file")?;
    }
    let one = |RoutePreview { name, change, fields }: RoutePreview| {
        let difference = Difference::new("Route", &name, String::new());
        Difference { change: Some(change), message: fields.join(", "), ..difference }
    };
    Ok(preview.routes.into_iter().map(one).collect())
}

impl Difference {
    fn new(kind: &'static str, name: &str, diff: String) -> Difference {
        Difference { kind, name: name.to_owned(), diff, message: String::new(), preview: None, change: None }
    }

    fn is_some(&self) -> bool {
        let clusters = self.preview.iter().flat_map(|preview| &preview.clusters);
        let mut changes = clusters.map(|cluster| cluster.change).chain(self.change);
        !self.diff.is_empty() || changes.any(|change| change != Change::Unchanged)
    }

    fn write(&self, world: &World, streams: &mut Streams<'_>) -> Result<(), Error> {
        if let Some(change) = self.change {
            return self.write_route(change, streams);
        }
        for line in self.diff.lines() {
            writeln!(streams.out, "{}", coloured(line, world.colour))?;
        }
        let mut rows = Rows::new(["DEFINITION", "CLUSTER", "CHANGE", "MESSAGE"], world.colour);
        for cluster in self.preview.iter().flat_map(|preview| &preview.clusters) {
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
        if !self.message.is_empty() {
            writeln!(streams.out, "{}", output::printable(&self.message))?;
        }
        if self.is_some() { Ok(writeln!(streams.out)?) } else { Ok(()) }
    }

    fn write_route(&self, change: Change, streams: &mut Streams<'_>) -> Result<(), Error> {
        if change == Change::Unchanged {
            return Ok(());
        }
        let (name, fields) = (output::printable(&self.name), output::printable(&self.message));
        let fields = if fields.is_empty() { fields } else { format!(": {fields}") };
        Ok(writeln!(streams.out, "route {name}: {}{fields}", word(change))?)
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
