//! `fleetcheck apply`: definitions to the hub, and with `--wait` what the clusters say to them.

use std::collections::BTreeSet;
use std::time::Duration;

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::session::frame::DefinitionResult;
use active_monitor_core::view::{DefinitionClusterStatus, List};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::definitions::{Answer, answer, answer_row};
use crate::args::{ApplyArgs, Format};
use crate::client::Client;
use crate::documents;
use crate::output::{self, Rows};
use crate::{Error, Exit, Streams, World};

/// Between two questions to the hub whether the clusters have answered.
const POLL: Duration = Duration::from_millis(500);

/// What became of a document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Applied {
    name: String,
    action: Action,
    generation: u64,
    /// Filled where the clusters were waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    clusters: Option<Vec<DefinitionClusterStatus>>,
}

/// kubectl's words.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Created,
    Configured,
    Unchanged,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::Created => "created",
            Action::Configured => "configured",
            Action::Unchanged => "unchanged",
        }
    }
}

pub(super) async fn run(
    hub: &Client,
    args: ApplyArgs,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let definitions = documents::definitions(&args.files.files, streams)?;
    let mut applied = Vec::new();
    for definition in &definitions {
        let one = put(hub, definition).await?;
        if format == Format::Table {
            writeln!(streams.out, "definition {} {}", one.name, one.action.as_str())?;
        }
        applied.push(one);
    }
    let mut everywhere = true;
    if let Some(seconds) = args.wait {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        for (definition, one) in definitions.iter().zip(&mut applied) {
            let clusters = answers(hub, definition, one.generation, deadline).await?;
            everywhere &= clusters.iter().all(|cluster| cluster.result == Some(DefinitionResult::Applied));
            one.clusters = Some(clusters);
        }
    }
    let list = List { items: applied };
    output::show(format, world, streams, &list, |world, streams| table(&list.items, world, streams))?;
    Ok(if everywhere { Exit::Fine } else { Exit::Found })
}

async fn put(hub: &Client, definition: &FleetHealthCheck) -> Result<Applied, Error> {
    let before = match hub.definition(&definition.metadata.name).await {
        Ok(view) => Some(view.generation),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let (created, view) = hub.put_definition(definition).await?;
    let action = match before {
        _ if created => Action::Created,
        Some(generation) if generation == view.generation => Action::Unchanged,
        Some(_) | None => Action::Configured,
    };
    Ok(Applied { name: view.name, action, generation: view.generation, clusters: None })
}

/// Asks until every cluster has settled, or until the deadline; then it is as far as it is.
async fn answers(
    hub: &Client,
    definition: &FleetHealthCheck,
    generation: u64,
    deadline: Instant,
) -> Result<Vec<DefinitionClusterStatus>, Error> {
    let selected = hub.preview(definition).await?.clusters.into_iter().map(|cluster| cluster.cluster).collect();
    loop {
        let view = hub.definition(&definition.metadata.name).await?;
        // Somebody else's newer definition is not what was applied here.
        let replaced = view.generation != generation;
        let done = view.clusters.iter().all(|cluster| is_settled(cluster, generation, &selected));
        if done || replaced || Instant::now() >= deadline {
            return Ok(view.clusters);
        }
        sleep_until(deadline.min(Instant::now() + POLL)).await;
    }
}

/// Whether waiting longer would say nothing new. A cluster that is no longer selected is listed until it has withdrawn
/// the check.
fn is_settled(cluster: &DefinitionClusterStatus, generation: u64, selected: &BTreeSet<String>) -> bool {
    match answer(cluster, generation) {
        Answer::Applied | Answer::Refused | Answer::Conflict => true,
        Answer::NotApplied => selected.contains(&cluster.cluster),
        // The agent tries again after a failure.
        Answer::Failed | Answer::Waiting => false,
    }
}

fn table(applied: &[Applied], world: &World, streams: &mut Streams<'_>) -> Result<(), Error> {
    let mut rows = Rows::new(["DEFINITION", "CLUSTER", "RESULT", "MESSAGE"], world.colour);
    for one in applied {
        for cluster in one.clusters.iter().flatten() {
            let [name, result, message] = answer_row(cluster, one.generation);
            rows.add([(&one.name).into(), name, result, message]);
        }
    }
    if !rows.is_empty() {
        writeln!(streams.out)?;
        rows.write(streams.out)?;
    } else if applied.iter().any(|one| one.clusters.is_some()) {
        writeln!(streams.err, "no cluster is selected")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withdrawal_is_waited_for_and_a_missing_value_is_not() {
        let selected = BTreeSet::from(["east".to_owned()]);
        let status = |cluster: &str, result, observed_generation, message: &str| DefinitionClusterStatus {
            cluster: cluster.to_owned(),
            result,
            observed_generation,
            message: message.to_owned(),
        };
        for (status, expected) in [
            (status("east", Some(DefinitionResult::Applied), 2, ""), true),
            (status("east", Some(DefinitionResult::Conflict), 2, "exists"), true),
            (status("east", Some(DefinitionResult::Applied), 1, ""), false),
            (status("east", Some(DefinitionResult::Failed), 2, "busy"), false),
            (status("east", None, 1, ""), false),
            (status("east", None, 1, "the cluster has no label \"env\""), true),
            (status("west", None, 1, "no longer selected; it is being withdrawn"), false),
        ] {
            assert_eq!(is_settled(&status, 2, &selected), expected, "{status:?}");
        }
    }
}
