//! `fleetcheck status`: what is wrong now, worst first, and before that what it comes down to.

use std::collections::{BTreeMap, BTreeSet};

use active_monitor_core::view::{
    CheckStatus, CheckView, ClusterStatus, ClusterView, FleetSummary, Incident, SourceState, SourceView,
};
use jiff::Timestamp;
use serde::Serialize;

use super::checks::{last_result, tone as check_tone};
use super::cluster::tone as cluster_tone;
use super::incidents;
use crate::args::Format;
use crate::client::{CheckQuery, Client, IncidentQuery};
use crate::output::{self, NOTHING, Rows, Text};
use crate::{Error, Exit, Streams, World};

/// What is wrong, and the fleet in numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    summary: FleetSummary,
    /// Open incidents, worst first.
    incidents: Vec<Incident>,
    /// Not connected, worst first.
    clusters: Vec<ClusterView>,
    /// Wrong now, worst first.
    checks: Vec<CheckView>,
    /// The folder that the hub keeps the fleet like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<SourceView>,
}

pub(super) async fn run(hub: &Client, format: Format, world: &World, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let status = ask(hub).await?;
    let exit = if status.is_fine() { Exit::Fine } else { Exit::Found };
    output::show(format, world, streams, &status, |world, streams| status.table(world, streams))?;
    Ok(exit)
}

/// Only what is wrong is asked for: a large fleet has far more checks than problems.
async fn ask(hub: &Client) -> Result<Status, Error> {
    let mut clusters = hub.clusters().await?;
    clusters.retain(|cluster| cluster.status != ClusterStatus::Connected);
    clusters.sort_by(|a, b| (a.status, &a.name).cmp(&(b.status, &b.name)));
    let mut checks = Vec::new();
    for status in CheckStatus::ALL.into_iter().filter(|status| status.is_wrong()) {
        let query = CheckQuery { status: Some(status.as_str()), ..CheckQuery::default() };
        checks.extend(hub.checks(&query).await?);
    }
    let incidents = match hub.incidents(&IncidentQuery::default()).await {
        Ok(page) => page.items,
        // A hub of an earlier version knows no incidents.
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(Status { summary: hub.fleet().await?, incidents, clusters, checks, sources: hub.sources().await? })
}

impl Status {
    /// The summary counts too: it may know of something that went wrong after the lists were read.
    fn is_fine(&self) -> bool {
        let wrong = |status: &CheckStatus| status.is_wrong() && self.summary.checks.get(status.as_str()) > Some(&0);
        let refused = |source: &SourceView| source.state == SourceState::Refused;
        self.summary.restore.is_none()
            && !self.sources.iter().any(refused)
            && self.clusters.is_empty()
            && self.checks.is_empty()
            && !CheckStatus::ALL.iter().any(wrong)
    }

    fn table(&self, world: &World, streams: &mut Streams<'_>) -> Result<(), Error> {
        if !self.incidents.is_empty() {
            incidents::rows(&self.incidents, (world.now)(), world.colour).write(streams.out)?;
            writeln!(streams.out)?;
        }
        let rows = self.rows((world.now)(), world.colour);
        if let Some(restore) = &self.summary.restore {
            writeln!(
                streams.out,
                "The hub came back from the past ({}): definitions are held back, see `fleetcheck hub restore`.\n",
                restore.reason
            )?;
        } else if rows.is_empty() {
            writeln!(streams.out, "nothing is wrong")?;
        }
        if !rows.is_empty() {
            rows.write(streams.out)?;
        }
        writeln!(streams.out, "\n{}", numbers(&self.summary))?;
        self.sources.iter().try_for_each(|source| writeln!(streams.out, "{}", super::sources::line(source)))?;
        if self.summary.clusters.values().all(|count| *count == 0) {
            writeln!(streams.err, "there are no clusters; add one with `fleetcheck cluster add NAME`")?;
        }
        Ok(())
    }

    /// An unreachable cluster is one line: that its checks are stale says nothing more about each of them.
    fn rows(&self, now: Timestamp, colour: bool) -> Rows {
        let mut rows = Rows::new(["STATUS", "CLUSTER", "CHECK", "LAST HEARD", "MESSAGE"], colour);
        let listed: BTreeSet<&str> = self.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let folded = |check: &CheckView| check.status == CheckStatus::Stale && listed.contains(check.cluster.as_str());
        for cluster in &self.clusters {
            let stale = self.checks.iter().filter(|check| folded(check) && check.cluster == cluster.name).count();
            rows.add([
                Text::toned(cluster.status.as_str(), cluster_tone(cluster.status)),
                Text::from(&cluster.name),
                NOTHING.into(),
                output::age(now, cluster.last_heard_at).into(),
                cluster_message(cluster, stale).into(),
            ]);
        }
        for check in self.checks.iter().filter(|check| !folded(check)) {
            rows.add([
                Text::toned(check.status.as_str(), check_tone(check.status)),
                Text::from(&check.cluster),
                format!("{}/{}", check.state.namespace, check.state.name).into(),
                output::age(now, last_result(check)).into(),
                check_message(check).into(),
            ]);
        }
        rows
    }
}

fn cluster_message(cluster: &ClusterView, stale: usize) -> String {
    let stale = match stale {
        0 => String::new(),
        1 => "1 check is stale".to_owned(),
        many => format!("{many} checks are stale"),
    };
    [cluster.message.as_str(), &stale].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

pub(super) fn check_message(check: &CheckView) -> String {
    let late = match check.overdue_seconds {
        0 => String::new(),
        late => format!("overdue by {}", output::seconds(i64::try_from(late).unwrap_or(i64::MAX))),
    };
    let flapping = if check.health.flapping { "flapping" } else { "" };
    let soft = if check.health.soft { "the last result says otherwise" } else { "" };
    [late.as_str(), flapping, soft, &check.state.message]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// `3 clusters (1 Unreachable, 2 Connected), 40 checks (1 Failed, 39 Succeeded), 1 definition`.
fn numbers(summary: &FleetSummary) -> String {
    let FleetSummary { hub_version: _, clusters, checks, definitions, restore: _ } = summary;
    let clusters = counted(clusters, "cluster", &ClusterStatus::ALL.map(ClusterStatus::as_str));
    let checks = counted(checks, "check", &CheckStatus::ALL.map(CheckStatus::as_str));
    format!("{clusters}, {checks}, {}", plural(*definitions, "definition"))
}

/// Worst first, as `order` says; a status that it lacks comes from a newer hub and goes last.
fn counted(counts: &BTreeMap<String, u64>, noun: &str, order: &[&str]) -> String {
    let rank = |name: &str| order.iter().position(|known| *known == name).unwrap_or(order.len());
    let mut present: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    present.sort_by_key(|(name, _)| rank(name));
    let total = plural(present.iter().map(|(_, count)| **count).sum(), noun);
    let parts: Vec<String> = present.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if parts.is_empty() { total } else { format!("{total} ({})", parts.join(", ")) }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
