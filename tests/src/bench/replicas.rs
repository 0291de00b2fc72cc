//! How soon a replica of the hub shows what agents of another one say: two on a PostgreSQL server of this machine, each with
//! half of the fleet's agents.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::view::FleetSummary;
use anyhow::{Context as _, ensure};
use jiff::Timestamp;

use super::events::{Events, Shown};
use super::hub::CHECKS;
use super::progress::Progress;
use super::report::{Rows, Target};
use super::sim::Agents;
use super::stats::quantile;
use super::{Options, Part};
use crate::fleet::Hub;
use crate::postgres::Postgres;
use crate::run_dir::RunDir;
use crate::wait;

/// How long is measured.
const WINDOW: Duration = Duration::from_secs(30);
/// Until everything goes its way, and until the last of it is shown.
const SETTLE: Duration = Duration::from_secs(10);
/// What the start may take.
const LIMIT: Duration = Duration::from_secs(300);

/// A replica and the agents that are connected to it.
struct Replica {
    hub: Hub,
    agents: Agents,
    /// What the names of its clusters begin with.
    prefix: &'static str,
}

/// [`Part::Replicas`].
pub(super) async fn measure(options: &Options, progress: &Progress, rows: &mut Rows) -> anyhow::Result<()> {
    let part = Part::Replicas;
    let clusters = options.scaled(1000).max(2);
    progress.say(format!("replicas: {clusters} clusters at two hubs on PostgreSQL"));
    let (run, server) = (Arc::new(RunDir::create()?), Postgres::start().await?);
    let mut replicas: Vec<Replica> = Vec::new();
    for (prefix, count) in [("one", clusters - clusters / 2), ("two", clusters / 2)] {
        let hub = start(&run, prefix, &server.url(), replicas.first().map(|first| first.hub.token.as_str())).await?;
        let ca = std::fs::read_to_string(run.path().join(prefix).join("hub/ca.crt"))?;
        let names = (0..count).map(|number| format!("{prefix}-{number:04}")).collect();
        let agents = Agents::join_as(&hub, &ca, names, CHECKS).await?;
        replicas.push(Replica { hub, agents, prefix });
    }
    for Replica { hub, .. } in &replicas {
        until_whole(hub, clusters).await?;
    }
    tokio::time::sleep(SETTLE).await;

    let mut events = Vec::new();
    for Replica { hub, .. } in &replicas {
        events.push(Events::follow(hub).await?);
    }
    replicas.iter().for_each(|replica| replica.agents.run(true));
    let from = Timestamp::now() + SETTLE;
    progress.say("replicas: a run of each cluster every second");
    tokio::time::sleep(SETTLE + WINDOW).await;
    let to = Timestamp::now();
    replicas.iter().for_each(|replica| replica.agents.run(false));
    tokio::time::sleep(SETTLE).await;

    let mut shown = Vec::new();
    for (events, Replica { prefix, .. }) in events.iter().zip(&replicas) {
        shown.push((*prefix, events.take()?));
    }
    let found = compare(&shown, from, to);
    ensure!(!found.own.is_empty(), "there were no runs");
    rows.add(part, "runs", (found.own.len() as f64, ""), None);
    let not_shown = found.own.len() as f64 - found.others.len() as f64;
    rows.add(part, "of these, not shown by the other replica", (not_shown, ""), Some(Target::AtMost(0.0)));
    for (what, times, target) in [
        ("shown by its own replica", &found.own, None),
        ("shown by the other replica", &found.others, Some(Target::AtMost(1000.0))),
    ] {
        let at = |q| quantile(times, q).context("nothing was shown");
        rows.add(part, format!("a run's end to the check {what}, p50"), (at(0.5)?, "ms"), None);
        rows.add(part, format!("a run's end to the check {what}, p99"), (at(0.99)?, "ms"), target);
        rows.add(part, format!("a run's end to the check {what}, worst"), (at(1.0)?, "ms"), None);
    }
    Ok(())
}

/// The first one makes the admin's token, which the other is given.
async fn start(run: &Arc<RunDir>, name: &str, store: &str, token: Option<&str>) -> anyhow::Result<Hub> {
    let dir = run.path().join(name);
    std::fs::create_dir_all(dir.join("hub"))?;
    let file = dir.join("hub/admin-token").display().to_string();
    let mut more = vec!["--replicated", "--store", store];
    if let Some(token) = token {
        std::fs::write(&file, token)?;
        more.extend(["--admin-token-file", &file]);
    }
    Hub::start_with(run, &dir, &more).await
}

/// Until it shows every cluster as connected and every check.
async fn until_whole(hub: &Hub, clusters: usize) -> anyhow::Result<()> {
    let known = || async {
        let FleetSummary { clusters: links, checks, .. } = hub.get("/api/v1/fleet").await?;
        let is_whole = links.get("Connected") == Some(&(clusters as u64))
            && checks.get("Succeeded") == Some(&((clusters * CHECKS) as u64));
        Ok(is_whole.then_some(()))
    };
    wait::until("the whole fleet", LIMIT, known).await
}

/// From the end of each run until it was shown, milliseconds.
#[derive(Debug, Default, PartialEq)]
struct Times {
    /// By the replica that its agent is connected to.
    own: Vec<f64>,
    others: Vec<f64>,
}

/// What each replica, named by what the names of its own clusters begin with, has shown of the runs that ended in this time.
fn compare(shown: &[(&str, Vec<Shown>)], from: Timestamp, to: Timestamp) -> Times {
    let mut times = Times::default();
    for (prefix, shown) in shown {
        let mut seen = HashSet::new();
        for Shown { at, cluster, name, runs } in shown {
            let Some(end) = runs.finished_at.filter(|end| *end >= from && *end <= to) else { continue };
            // A check is shown again for other reasons than a run.
            if !seen.insert((cluster, name, end)) {
                continue;
            }
            let is_own = cluster.split('-').next() == Some(*prefix);
            let times = if is_own { &mut times.own } else { &mut times.others };
            times.push(at.duration_since(end).as_secs_f64() * 1e3);
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use active_monitor_core::state::Totals;

    use super::*;

    #[test]
    fn a_run_is_counted_once_where_it_is_said_and_once_where_it_is_not() {
        let at = |milliseconds: i64| Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap();
        let shown = |milliseconds, cluster: &str, end| Shown {
            at: at(milliseconds),
            cluster: cluster.into(),
            name: "dns".into(),
            runs: Totals { finished_at: Some(at(end)), ..Totals::default() },
        };
        let one = vec![
            shown(1010, "one-0001", 1000),
            shown(1020, "one-0001", 1000),
            shown(1300, "two-0001", 1000),
            shown(50, "one-0001", 40),
        ];
        let two = vec![shown(1400, "one-0001", 1000), shown(1005, "two-0001", 1000), shown(9000, "two-0001", 8900)];
        let times = compare(&[("one", one), ("two", two)], at(100), at(8000));
        assert_eq!(times, Times { own: vec![10.0, 5.0], others: vec![300.0, 400.0] });
    }
}
