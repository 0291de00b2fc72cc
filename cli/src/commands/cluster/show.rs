//! `fleetcheck cluster show`: one cluster, its link and what it lets the hub do.

use active_monitor_core::policy::PolicySetting;
use active_monitor_core::view::{CheckStatus, ClusterView};
use jiff::Timestamp;

use super::{status, tone};
use crate::args::Format;
use crate::client::Client;
use crate::commands::enrolment;
use crate::output::{self, Rows, Text};
use crate::{Error, Exit, Streams, World};

pub(super) async fn run(
    hub: &Client,
    name: &str,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let cluster = hub.cluster(name).await?;
    output::show(format, world, streams, &cluster, |world, streams| {
        rows(&cluster, (world.now)(), world.colour).write(streams.out)
    })?;
    Ok(Exit::Fine)
}

fn rows(cluster: &ClusterView, now: Timestamp, colour: bool) -> Rows {
    let mut rows = Rows::new(["CLUSTER", cluster.name.as_str()], colour);
    rows.add(["status".into(), Text::toned(&status(cluster), tone(cluster.status))]);
    let mut say = |what: &str, text: String| rows.add([what.into(), text.into()]);
    say("message", cluster.message.clone());
    say("last heard", output::age(now, cluster.last_heard_at));
    say("agent", cluster.agent_version.clone());
    say("kubernetes", cluster.kubernetes_version.clone());
    say("labels", output::pairs(&cluster.labels));
    say("annotations", output::pairs(&cluster.annotations));
    let of =
        |status: CheckStatus| Some((status, *cluster.checks.get(status.as_str())?)).filter(|(_, count)| *count > 0);
    let counts =
        CheckStatus::ALL.into_iter().filter_map(of).map(|(status, count)| format!("{count} {}", status.as_str()));
    say("checks", counts.collect::<Vec<_>>().join(", "));
    say("backlog", cluster.backlog.to_string());
    say("dropped reports", cluster.dropped_reports.to_string());
    say("clock skew", format!("{} ms", cluster.clock_skew_ms));
    let certificate = cluster.certificate_ends_at.map(|at| match at > now {
        true => format!("ends {}", output::until(now, Some(at))),
        false => "has ended".to_owned(),
    });
    say("certificate", certificate.unwrap_or_default());
    rows.add(["self-test".into(), enrolment::cell(cluster)]);
    if cluster.policy.is_empty() {
        rows.add(["policy".into(), "its agent does not say".into()]);
    }
    for PolicySetting { name, value } in &cluster.policy {
        rows.add([Text::from(format!("policy {name}")), value.into()]);
    }
    rows
}
