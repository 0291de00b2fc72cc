//! `fleetcheck cluster`: which clusters are in the fleet.

use std::collections::BTreeMap;

use active_monitor_core::view::{
    CheckStatus, ClusterAdd, ClusterPatch, ClusterStatus, ClusterToken, ClusterView, List,
};
use jiff::Timestamp;

use crate::args::{ChangeArgs, ClusterCommand, Format};
use crate::client::Client;
use crate::output::{self, Rows, Text, Tone};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    command: ClusterCommand,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    match command {
        ClusterCommand::Add { name, labels, annotations } => {
            let (labels, annotations) = (labels.into_iter().collect(), annotations.into_iter().collect());
            let token = hub.add_cluster(&ClusterAdd { name, labels, annotations }).await?;
            output::show(format, world, streams, &token, |world, streams| {
                Ok(write!(streams.out, "{}", invitation(&token, (world.now)()))?)
            })?;
        }
        ClusterCommand::List => {
            let list = List { items: hub.clusters().await? };
            output::show(format, world, streams, &list, |world, streams| {
                if list.items.is_empty() {
                    return Ok(writeln!(
                        streams.err,
                        "there are no clusters; add one with `fleetcheck cluster add NAME`"
                    )?);
                }
                rows(&list.items, (world.now)(), world.colour).write(streams.out)
            })?;
        }
        ClusterCommand::Label(ChangeArgs { name, changes }) => {
            let patch = ClusterPatch { labels: changes.into_iter().collect(), annotations: BTreeMap::new() };
            let cluster = hub.patch_cluster(&name, &patch).await?;
            changed(format, world, streams, &cluster, "labels", &cluster.labels)?;
        }
        ClusterCommand::Annotate(ChangeArgs { name, changes }) => {
            let patch = ClusterPatch { labels: BTreeMap::new(), annotations: changes.into_iter().collect() };
            let cluster = hub.patch_cluster(&name, &patch).await?;
            changed(format, world, streams, &cluster, "annotations", &cluster.annotations)?;
        }
        ClusterCommand::Remove { name } => {
            hub.remove_cluster(&name).await?;
            writeln!(streams.out, "cluster {name} removed")?;
        }
    }
    Ok(Exit::Fine)
}

/// What to do with a token: one command, ready to be copied.
fn invitation(token: &ClusterToken, now: Timestamp) -> String {
    let ClusterToken { cluster, token, expires_at, agent_address, enrolment_address } = token;
    let left = output::seconds(expires_at.as_second().saturating_sub(now.as_second()));
    format!(
        "cluster {cluster} added\n\n\
         Its token, which works once and for {left} (until {expires_at:.0}):\n\n  {token}\n\n\
         Start the agent in the cluster with it:\n\n  \
         active-monitor-agent --hub-address {agent_address} --enrolment-address {enrolment_address} --token {token}\n"
    )
}

fn changed(
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
    cluster: &ClusterView,
    what: &str,
    map: &BTreeMap<String, String>,
) -> Result<(), Error> {
    output::show(format, world, streams, cluster, |_, streams| {
        let shown = if map.is_empty() { "none".to_owned() } else { output::printable(&output::pairs(map)) };
        Ok(writeln!(streams.out, "cluster {} changed; its {what}: {shown}", cluster.name)?)
    })
}

fn rows(clusters: &[ClusterView], now: Timestamp, colour: bool) -> Rows {
    let headers = ["NAME", "STATUS", "LAST HEARD", "CHECKS", "WRONG", "BACKLOG", "AGENT", "KUBERNETES", "LABELS"];
    let mut rows = Rows::new(headers, colour);
    for cluster in clusters {
        let wrong = CheckStatus::ALL.into_iter().filter(|status| status.is_wrong());
        let wrong: u64 = wrong.filter_map(|status| cluster.checks.get(status.as_str())).sum();
        let tone = if wrong > 0 { Tone::Bad } else { Tone::Plain };
        rows.add([
            Text::from(&cluster.name),
            Text::toned(cluster.status.as_str(), self::tone(cluster.status)),
            output::age(now, cluster.last_heard_at).into(),
            cluster.checks.values().sum::<u64>().to_string().into(),
            Text::toned(&wrong.to_string(), tone),
            cluster.backlog.to_string().into(),
            Text::from(&cluster.agent_version),
            Text::from(&cluster.kubernetes_version),
            output::pairs(&cluster.labels).into(),
        ]);
    }
    rows
}

pub(super) fn tone(status: ClusterStatus) -> Tone {
    match status {
        ClusterStatus::Unreachable => Tone::Bad,
        ClusterStatus::Reconnecting | ClusterStatus::Pending => Tone::Doubtful,
        ClusterStatus::Connected => Tone::Good,
    }
}
