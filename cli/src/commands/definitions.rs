//! `fleetcheck get` and `fleetcheck delete`: the definitions that the hub has.

use active_monitor_core::session::frame::DefinitionResult;
use active_monitor_core::view::{DefinitionClusterStatus, DefinitionView, List};

use super::sources;
use crate::args::{DeleteArgs, Format, GetArgs};
use crate::client::{Client, ClientError};
use crate::documents;
use crate::output::{self, Rows, Text, Tone};
use crate::{Error, Exit, Streams, World};

/// Words that may stand before a definition's name.
const NOUNS: [&str; 2] = ["definitions", "definition"];

pub(super) async fn get(
    hub: &Client,
    args: GetArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let what: Vec<&str> = args.what.iter().map(String::as_str).collect();
    match what.as_slice() {
        ["source" | "sources"] => return sources::get(hub, format, world, streams).await,
        [noun] if NOUNS.contains(noun) => list(hub, format, world, streams).await?,
        [name] => one(hub, name, format, world, streams).await?,
        [noun, name] if NOUNS.contains(noun) => one(hub, name, format, world, streams).await?,
        _ => {
            let detail =
                "only definitions and sources can be got: `fleetcheck get definitions`, `get NAME` or `get sources`";
            return Err(ClientError::NotFound { detail: detail.to_owned() }.into());
        }
    }
    Ok(Exit::Fine)
}

async fn list(hub: &Client, format: Format, world: &World, streams: &mut Streams<'_>) -> Result<(), Error> {
    let list = List { items: hub.definitions().await? };
    output::show(format, world, streams, &list, |world, streams| {
        if list.items.is_empty() {
            return Ok(writeln!(streams.err, "there are no definitions; `fleetcheck apply -f FILE` makes some")?);
        }
        let mut rows =
            Rows::new(["NAME", "GENERATION", "CLUSTERS", "APPLIED", "WAITING", "PROBLEMS", "SOURCE"], world.colour);
        for view in &list.items {
            let count = |wanted: fn(Answer) -> bool| {
                view.clusters.iter().filter(|cluster| wanted(answer(cluster, view.generation))).count()
            };
            let problems = count(Answer::is_problem);
            rows.add([
                Text::from(&view.name),
                view.generation.to_string().into(),
                view.clusters.len().to_string().into(),
                count(|answer| answer == Answer::Applied).to_string().into(),
                count(|answer| answer == Answer::Waiting).to_string().into(),
                Text::toned(&problems.to_string(), if problems > 0 { Tone::Bad } else { Tone::Plain }),
                view.git
                    .as_ref()
                    .map(|origin| &origin.file)
                    .or(view.resource.as_ref())
                    .cloned()
                    .unwrap_or_default()
                    .into(),
            ]);
        }
        rows.write(streams.out)
    })
}

/// As data it is the definition as it was written, so that it can be applied again.
async fn one(hub: &Client, name: &str, format: Format, world: &World, streams: &mut Streams<'_>) -> Result<(), Error> {
    let view = hub.definition(name).await?;
    output::show(format, world, streams, &view.definition, |world, streams| {
        let DefinitionView { name, generation, definition: _, message, git, resource, clusters } = &view;
        writeln!(streams.out, "definition {name}, generation {generation}")?;
        if let Some(origin) = git {
            writeln!(streams.out, "{}", output::printable(&format!("Git's: {}", origin.in_words())))?;
        }
        if let Some(place) = resource {
            writeln!(streams.out, "{}", output::printable(&format!("a resource's: {place}")))?;
        }
        if !message.is_empty() {
            writeln!(streams.out, "{}", output::printable(message))?;
        }
        if clusters.is_empty() {
            return Ok(writeln!(streams.out, "no cluster is selected")?);
        }
        writeln!(streams.out)?;
        let mut rows = Rows::new(["CLUSTER", "RESULT", "MESSAGE"], world.colour);
        clusters.iter().for_each(|cluster| rows.add(answer_row(cluster, *generation)));
        rows.write(streams.out)
    })
}

pub(super) async fn delete(hub: &Client, args: DeleteArgs, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let names = if args.files.is_empty() {
        args.names
    } else {
        let definitions = documents::definitions(&args.files, streams)?;
        definitions.into_iter().map(|definition| definition.metadata.name).collect()
    };
    for name in names {
        hub.delete_definition(&name).await?;
        writeln!(streams.out, "definition {name} deleted")?;
    }
    Ok(Exit::Fine)
}

/// What a cluster says to a definition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Applied,
    Refused,
    Conflict,
    Failed,
    /// It cannot be made for this cluster, or is not meant for it any more; the hub's message says which.
    NotApplied,
    /// Nothing yet.
    Waiting,
}

impl Answer {
    fn is_problem(self) -> bool {
        match self {
            Answer::Applied | Answer::Waiting => false,
            Answer::Refused | Answer::Conflict | Answer::Failed | Answer::NotApplied => true,
        }
    }

    fn show(self) -> Text {
        let (text, tone) = match self {
            Answer::Applied => ("Applied", Tone::Good),
            Answer::Refused => ("Refused", Tone::Bad),
            Answer::Conflict => ("Conflict", Tone::Bad),
            Answer::Failed => ("Failed", Tone::Bad),
            Answer::NotApplied => ("NotApplied", Tone::Bad),
            Answer::Waiting => ("Waiting", Tone::Doubtful),
        };
        Text::toned(text, tone)
    }
}

/// An answer to an older generation is none.
pub(super) fn answer(cluster: &DefinitionClusterStatus, generation: u64) -> Answer {
    match cluster.result.filter(|_| cluster.observed_generation >= generation) {
        Some(DefinitionResult::Applied) => Answer::Applied,
        Some(DefinitionResult::Refused) => Answer::Refused,
        Some(DefinitionResult::Conflict) => Answer::Conflict,
        Some(DefinitionResult::Failed) => Answer::Failed,
        None if cluster.result.is_none() && !cluster.message.is_empty() => Answer::NotApplied,
        None => Answer::Waiting,
    }
}

/// Cluster, result, message.
pub(super) fn answer_row(cluster: &DefinitionClusterStatus, generation: u64) -> [Text; 3] {
    [Text::from(&cluster.cluster), answer(cluster, generation).show(), Text::from(&cluster.message)]
}
