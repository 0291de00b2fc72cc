//! `fleetcheck hub`: a hub that came back from the past.

use active_monitor_core::view::RestoreView;

use crate::args::{Format, HubCommand};
use crate::client::Client;
use crate::output::{self, NOTHING, Rows, Text};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    command: HubCommand,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    match command {
        HubCommand::Restore => {
            let view = hub.restore().await?;
            output::show(format, world, streams, &view, |world, streams| table(&view, world, streams))?;
            Ok(if view.restore.is_none() { Exit::Fine } else { Exit::Found })
        }
        HubCommand::ConfirmRestore => {
            hub.confirm_restore().await?;
            writeln!(streams.out, "confirmed; definitions are pushed and withdrawn again")?;
            Ok(Exit::Fine)
        }
    }
}

fn table(view: &RestoreView, world: &World, streams: &mut Streams<'_>) -> Result<(), Error> {
    let Some(restore) = &view.restore else {
        writeln!(streams.out, "the hub knows all that it ever did")?;
        return Ok(());
    };
    writeln!(streams.out, "since {:.0}: {}\n", restore.noticed_at, restore.reason)?;
    let mut rows = Rows::new(["DEFINITION", "HUB", "CLUSTERS HAVE", "IN"], world.colour);
    for difference in &view.differences {
        let hub = difference.hub_generation.map_or(NOTHING.to_owned(), |generation| generation.to_string());
        rows.add([
            Text::from(&difference.definition),
            hub.into(),
            difference.newest_generation.to_string().into(),
            difference.clusters.join(", ").into(),
        ]);
    }
    if !rows.is_empty() {
        rows.write(streams.out)?;
        writeln!(streams.out)?;
    }
    writeln!(
        streams.out,
        "Apply the latest definitions and remove what was deleted, then `fleetcheck hub confirm-restore`: from then on\n\
         clusters get what the hub has, and what it does not know is withdrawn."
    )?;
    Ok(())
}
