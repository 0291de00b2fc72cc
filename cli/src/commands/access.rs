//! `fleetcheck token`, `session` and `audit`: who may ask the hub, and who changed what.

use active_monitor_core::view::{List, TokenAdd};

use crate::args::{Format, SessionCommand, TokenCommand};
use crate::client::Client;
use crate::output::{self, Rows, Text};
use crate::{Error, Exit, Streams, World};

pub(super) async fn token(
    hub: &Client,
    command: TokenCommand,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    match command {
        TokenCommand::Create { name, role } => {
            let secret = hub.add_token(&TokenAdd { name, role }).await?;
            // Only the token on the output, so that it can go into a file.
            output::show(format, world, streams, &secret, |_, streams| Ok(writeln!(streams.out, "{}", secret.token)?))?;
        }
        TokenCommand::List => {
            let list = List { items: hub.tokens().await? };
            output::show(format, world, streams, &list, |world, streams| {
                let mut rows = Rows::new(["NAME", "ROLE", "AGE"], world.colour);
                for token in &list.items {
                    let age = output::age((world.now)(), Some(token.created_at));
                    rows.add([Text::from(&token.name), token.role.as_str().into(), age.into()]);
                }
                rows.write(streams.out)
            })?;
        }
        TokenCommand::Delete { name } => {
            hub.remove_token(&name).await?;
            writeln!(streams.out, "token {name} deleted")?;
        }
    }
    Ok(Exit::Fine)
}

pub(super) async fn session(hub: &Client, command: SessionCommand, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let SessionCommand::End { person } = command;
    hub.end_sessions(&person).await?;
    writeln!(streams.out, "every session of {person} has ended")?;
    Ok(Exit::Fine)
}

pub(super) async fn audit(
    hub: &Client,
    limit: u16,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let list = List { items: hub.audit(limit).await? };
    output::show(format, world, streams, &list, |world, streams| {
        let mut rows = Rows::new(["AT", "WHO", "ACTION", "OBJECT"], world.colour);
        for line in &list.items {
            let at = format!("{:.0}", line.at);
            rows.add([at.into(), Text::from(&line.who), Text::from(&line.action), Text::from(&line.object)]);
        }
        rows.write(streams.out)
    })?;
    Ok(Exit::Fine)
}
