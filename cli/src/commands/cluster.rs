//! `fleetcheck cluster`: which clusters are in the fleet.

mod show;

use std::collections::BTreeMap;
use std::path::Path;

use active_monitor_core::names;
use active_monitor_core::view::{
    CheckStatus, ClusterAdd, ClusterPatch, ClusterStatus, ClusterToken, ClusterView, EnrolmentDecision, List,
};
use jiff::Timestamp;
use serde::Deserialize;

use super::enrolment;
use crate::args::{ChangeArgs, ClusterCommand, Format};
use crate::client::Client;
use crate::documents;
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
        ClusterCommand::Add { file: Some(file), wait, .. } => {
            let names = add_all(hub, &file, format, world, streams).await?;
            return wait_for(hub, names, wait, streams).await;
        }
        ClusterCommand::Approve(args) => {
            return enrolment::decide(hub, args, EnrolmentDecision::Approved, format, world, streams).await;
        }
        ClusterCommand::Deny(args) => {
            return enrolment::decide(hub, args, EnrolmentDecision::Denied, format, world, streams).await;
        }
        ClusterCommand::Test { name } => return enrolment::test(hub, &name, streams).await,
        ClusterCommand::Token { name } => {
            let token = hub.new_cluster_token(&name).await?;
            invite(format, world, streams, &token, "has a new token")?;
        }
        ClusterCommand::Rebind { name } => {
            let token = hub.rebind_cluster(&name).await?;
            invite(format, world, streams, &token, "is free for a rebuilt cluster")?;
        }
        ClusterCommand::Add { name, labels, annotations, file: None, wait } => {
            let name = name.unwrap_or_default();
            let (labels, annotations) = (labels.into_iter().collect(), annotations.into_iter().collect());
            let token = hub.add_cluster(&ClusterAdd { name, labels, annotations }).await?;
            invite(format, world, streams, &token, "added")?;
            return wait_for(hub, vec![token.cluster], wait, streams).await;
        }
        ClusterCommand::Show { name } => return show::run(hub, &name, format, world, streams).await,
        ClusterCommand::List => {
            let list = List { items: hub.clusters().await? };
            output::show(format, world, streams, &list, |world, streams| {
                if list.items.is_empty() {
                    return Ok(writeln!(
                        streams.err,
                        "there are no clusters; add one with `fleetcheck cluster add NAME`"
                    )?);
                }
                rows(&list.items, (world.now)(), world.colour).write(streams.out)?;
                enrolment::notes(&list.items, (world.now)(), streams)
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
        ClusterCommand::Cordon { name, reason } => {
            hub.patch_cluster(&name, &cordon(Some(reason))).await?;
            writeln!(streams.out, "cluster {name} cordoned: it keeps the definitions that it has")?;
        }
        ClusterCommand::Uncordon { name } => {
            hub.patch_cluster(&name, &cordon(None)).await?;
            writeln!(streams.out, "cluster {name} uncordoned")?;
        }
        ClusterCommand::Remove { name } => {
            hub.remove_cluster(&name).await?;
            writeln!(streams.out, "cluster {name} removed")?;
        }
    }
    Ok(Exit::Fine)
}

fn cordon(reason: Option<String>) -> ClusterPatch {
    ClusterPatch { labels: BTreeMap::new(), annotations: [(names::CORDON_ANNOTATION.to_owned(), reason)].into() }
}

/// As kubectl says it of a node.
fn status(cluster: &ClusterView) -> String {
    let is_cordoned = cluster.annotations.contains_key(names::CORDON_ANNOTATION);
    format!("{}{}", cluster.status.as_str(), if is_cordoned { ",Cordoned" } else { "" })
}

/// What a file of clusters has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClustersFile {
    clusters: Vec<ClusterAdd>,
}

async fn wait_for(
    hub: &Client,
    names: Vec<String>,
    seconds: Option<u64>,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    match seconds {
        Some(seconds) => enrolment::wait(hub, &names, None, seconds, streams).await,
        None => Ok(Exit::Fine),
    }
}

/// Adds the clusters of a file and gives their names. Those that are there get their labels and annotations and keep their tokens.
async fn add_all(
    hub: &Client,
    file: &Path,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Vec<String>, Error> {
    let wanted = documents::all::<ClustersFile>(&[file.to_owned()], streams)?;
    let there: BTreeMap<String, ClusterView> =
        hub.clusters().await?.into_iter().map(|cluster| (cluster.name.clone(), cluster)).collect();
    let (mut tokens, mut names) = (Vec::new(), Vec::new());
    for add in wanted.into_iter().flat_map(|file| file.clusters) {
        names.push(add.name.clone());
        let Some(known) = there.get(&add.name) else {
            let token = hub.add_cluster(&add).await?;
            if format == Format::Table {
                write!(streams.out, "{}", invitation(&token, "added", (world.now)()))?;
            }
            tokens.push(token);
            continue;
        };
        let (name, patch) = (add.name.clone(), missing(&add, known));
        let changed = if patch == ClusterPatch::default() { "unchanged" } else { "configured" };
        if patch != ClusterPatch::default() {
            hub.patch_cluster(&name, &patch).await?;
        }
        writeln!(streams.err, "cluster {name} is there ({}), {changed}", known.status.as_str())?;
    }
    output::show(format, world, streams, &List { items: tokens }, |_, _| Ok(()))?;
    Ok(names)
}

/// The labels and annotations that the cluster does not have.
fn missing(add: &ClusterAdd, known: &ClusterView) -> ClusterPatch {
    let missing = |wanted: &BTreeMap<String, String>, there: &BTreeMap<String, String>| {
        let wanted = wanted.iter().filter(|(key, value)| there.get(*key) != Some(value));
        wanted.map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
    };
    ClusterPatch {
        labels: missing(&add.labels, &known.labels),
        annotations: missing(&add.annotations, &known.annotations),
    }
}

fn invite(
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
    token: &ClusterToken,
    what: &str,
) -> Result<(), Error> {
    output::show(format, world, streams, token, |world, streams| {
        Ok(write!(streams.out, "{}", invitation(token, what, (world.now)()))?)
    })
}

/// What to do with a token: one command, ready to be copied, for each way to install an agent.
fn invitation(token: &ClusterToken, what: &str, now: Timestamp) -> String {
    let ClusterToken { cluster, token, expires_at, agent_address, enrolment_address } = token;
    let left = output::seconds(expires_at.as_second().saturating_sub(now.as_second()));
    format!(
        "cluster {cluster} {what}\n\n\
         Its token works once and for {left} (until {expires_at:.0}). Start the agent in the cluster with one of these:\n\n\
         # Helm; where the agent is not installed yet, add --set image.repository=REGISTRY/active-monitor-agent\n\
         helm upgrade --install agent deploy/charts/agent --namespace active-monitor --create-namespace --reuse-values \
         --set hub.address={agent_address},hub.enrolmentAddress={enrolment_address},hub.token={token}\n\n\
         # kubectl; the image is the one in deploy/agent/workload.yaml\n\
         kubectl apply -f deploy/crds -f deploy/agent && kubectl -n active-monitor create secret generic \
         active-monitor-hub --from-literal=ACTIVE_MONITOR_HUB_ADDRESS={agent_address} \
         --from-literal=ACTIVE_MONITOR_ENROLMENT_ADDRESS={enrolment_address} --from-literal=ACTIVE_MONITOR_TOKEN={token} \
         --dry-run=client -o yaml | kubectl apply -f - && kubectl -n active-monitor set env \
         statefulset/active-monitor-agent --from=secret/active-monitor-hub && kubectl -n active-monitor rollout restart \
         statefulset/active-monitor-agent\n\n\
         # Outside of the cluster\n\
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
    let headers =
        ["NAME", "STATUS", "SELF-TEST", "LAST HEARD", "CHECKS", "WRONG", "BACKLOG", "AGENT", "KUBERNETES", "LABELS"];
    let mut rows = Rows::new(headers, colour);
    for cluster in clusters {
        let wrong = CheckStatus::ALL.into_iter().filter(|status| status.is_wrong());
        let wrong: u64 = wrong.filter_map(|status| cluster.checks.get(status.as_str())).sum();
        let tone = if wrong > 0 { Tone::Bad } else { Tone::Plain };
        rows.add([
            Text::from(&cluster.name),
            Text::toned(&status(cluster), self::tone(cluster.status)),
            enrolment::cell(cluster),
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
