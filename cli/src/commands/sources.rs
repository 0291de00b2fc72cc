//! `fleetcheck get sources`: the folder that the hub keeps the fleet like, and what became of it.

use active_monitor_core::view::{List, SourceState, SourceView};

use crate::args::Format;
use crate::client::Client;
use crate::output::{self, Rows, Text, Tone};
use crate::{Error, Exit, Streams, World};

/// Found is that what the folder says is refused.
pub(super) async fn get(hub: &Client, format: Format, world: &World, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let list = List { items: hub.sources().await? };
    output::show(format, world, streams, &list, |world, streams| {
        if list.items.is_empty() {
            return Ok(writeln!(streams.err, "the hub watches no folder; its flag is --git-folder")?);
        }
        let mut rows = Rows::new(["FOLDER", "STATE", "REVISION", "OBJECTS", "WAITING"], world.colour);
        for source in &list.items {
            let tone = match source.state {
                SourceState::Pending => Tone::Doubtful,
                SourceState::InForce => Tone::Good,
                SourceState::Refused => Tone::Bad,
            };
            rows.add([
                Text::from(&source.folder),
                Text::toned(source.state.as_str(), tone),
                Text::from(source.revision.as_deref().unwrap_or_default()),
                source.objects.len().to_string().into(),
                source.waiting.join(",").into(),
            ]);
        }
        rows.write(streams.out)?;
        let problems = list.items.iter().flat_map(|source| &source.problems);
        problems.into_iter().try_for_each(|problem| Ok(writeln!(streams.out, "{problem}")?))
    })?;
    Ok(if list.items.iter().any(|source| source.state == SourceState::Refused) { Exit::Found } else { Exit::Fine })
}

/// One line of `fleetcheck status`.
pub(super) fn line(source: &SourceView) -> String {
    let commit =
        |revision: &Option<String>| revision.as_ref().map(|revision| format!(" {revision}")).unwrap_or_default();
    let (folder, in_force) = (&source.folder, commit(&source.revision));
    let text = match source.state {
        SourceState::Pending => format!("Git: {folder} was not read yet"),
        SourceState::InForce => format!("Git: {folder}{in_force} is in force"),
        SourceState::Refused => {
            let refused = commit(&source.refused_revision);
            let first = source.problems.first().map(ToString::to_string).unwrap_or_default();
            format!("Git: {folder}{refused} is refused, what was before it stays in force: {first}")
        }
    };
    output::printable(&text)
}
