//! `fleetcheck ca`: the hub's CA, and its change for another.

use active_monitor_core::view::{CaRoll, CaStage, CaView};

use crate::args::{CaCommand, Format};
use crate::client::Client;
use crate::output::{self, Rows, Text};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    command: CaCommand,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let ca = hub.ca().await?;
    let ca = match command {
        CaCommand::Status => ca,
        CaCommand::Roll { force } => hub.roll_ca(&CaRoll { from: ca.stage, force }).await?,
        CaCommand::Bundle => {
            write!(streams.out, "{}", ca.bundle)?;
            return Ok(Exit::Fine);
        }
    };
    output::show(format, world, streams, &ca, |world, streams| {
        let mut rows = Rows::new(["STAGE", "CA", "ENDS", "OTHER CA", "WAITING FOR"], world.colour);
        let other = ca.other_fingerprint.as_deref().map_or("-", short);
        let waiting = if ca.waiting_for.is_empty() { "-".to_owned() } else { ca.waiting_for.join(", ") };
        let ends = format!("{:.0}", ca.not_after);
        rows.add([
            ca.stage.as_str().into(),
            short(&ca.fingerprint).into(),
            ends.into(),
            other.into(),
            Text::from(&waiting),
        ]);
        rows.write(streams.out)?;
        writeln!(streams.out, "\n{}", next_step(&ca))?;
        Ok(())
    })?;
    Ok(Exit::Fine)
}

/// Enough of a fingerprint to tell two apart.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}

fn next_step(ca: &CaView) -> &'static str {
    match (ca.stage, ca.waiting_for.is_empty()) {
        (CaStage::Stable, _) => "`fleetcheck ca roll` introduces another CA; nothing is signed by it yet.",
        (CaStage::Introduced, false) => {
            "Agents hear of the next CA when they renew their certificates. Meanwhile give people and Prometheus \
             `fleetcheck ca bundle`."
        }
        (CaStage::Introduced, true) => "Every agent trusts both: `fleetcheck ca roll` lets the next CA sign.",
        (CaStage::Switched, false) => {
            "Agents get certificates of the new CA when they renew theirs; those of the previous one are still taken."
        }
        (CaStage::Switched, true) => {
            "Every agent has a certificate of the new CA: `fleetcheck ca roll` forgets the previous one."
        }
    }
}
