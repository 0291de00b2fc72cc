//! What agents that do harm cost the hub and the others: one sends reports as fast as the hub takes them, one connects again
//! and again with frames that no hub takes, one reads nothing of what it is sent.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use reqwest::Method;

use super::Part;
use super::events::{Events, Shown};
use super::hub::{CHECKS, Fleet};
use super::proc;
use super::report::{Rows, Target};
use super::sim::{Agents, Deaf, Malformed};
use super::stats::quantile;
use crate::fleet::Hub;

/// How long is measured, without them, beside the first and beside all of them.
const WINDOW: Duration = Duration::from_secs(30);
/// Until everything goes its way.
const SETTLE: Duration = Duration::from_secs(5);
/// More than the hub takes of one agent while it is measured.
const FLOOD: u64 = 1_000_000;
const FLOODING: &str = "flooding";
const MALFORMED: &str = "malformed";
const DEAF: &str = "deaf";
const HARMFUL: [&str; 3] = [FLOODING, MALFORMED, DEAF];
/// The metric that counts what the hub refused.
const REFUSED: &str = "activemonitor_hub_refused_total";

/// What the others had in a window, milliseconds.
struct Times {
    acks: Vec<f64>,
    shown: Vec<f64>,
}

/// The runs that the hub has shown of the others: cluster, check, end.
type Runs = HashSet<(String, String, Timestamp)>;

/// [`Part::Flood`].
pub(super) async fn measure(fleet: &Fleet, rows: &mut Rows) -> anyhow::Result<()> {
    let (hub, agents) = (&fleet.hub, &fleet.agents);
    let (events, mut runs) = (Events::follow(hub).await?, Runs::new());
    let before = agents.reported();
    agents.run(true);
    let alone = window(agents, &events, &mut runs).await?;

    let (ca, pid) = (fleet.ca()?, fleet.pid()?);
    let resident = proc::memory(pid)?.resident;
    proc::reset_peak(pid)?;
    let flooding = Agents::join_as(hub, &ca, vec![FLOODING.to_owned()], CHECKS).await?;
    flooding.report(FLOOD);
    let taken = flooding.acked();
    let flooded = window(agents, &events, &mut runs).await?;
    let taken = flooding.acked() - taken;
    let (malformed, deaf) = (Malformed::join(hub, &ca, MALFORMED).await?, Deaf::join(hub, &ca, DEAF).await?);
    let counters = async || anyhow::Ok((refused(hub).await?, malformed.connections(), deaf.sessions()));
    let began = counters().await?;
    let beside = window(agents, &events, &mut runs).await?;
    let ended = counters().await?;
    let peak = proc::memory(pid)?.peak;
    drop((flooding, malformed, deaf));
    agents.run(false);
    fleet.until_acked(agents.reported()).await?;
    tokio::time::sleep(SETTLE).await;
    shown(&events, &mut runs)?;
    for name in HARMFUL {
        hub.request(Method::DELETE, &format!("/api/v1/clusters/{name}"), None::<&()>).await?;
    }

    let part = Part::Flood;
    let seconds = (WINDOW + SETTLE).as_secs_f64();
    for (what, pick) in [
        ("a run's end to its ack", (|times| &times.acks) as Pick),
        ("a run's end to the check shown as an event", |times| &times.shown),
    ] {
        let alone_p99 = add(rows, what, "alone", pick(&alone))?;
        for (harm, times) in [("beside the one that floods", &flooded), ("beside all three", &beside)] {
            let more = (add(rows, what, harm, pick(times))? / alone_p99 - 1.0) * 100.0;
            rows.add(part, format!("{what}, p99, {harm}, longer by"), (more, "%"), Some(Target::AtMost(10.0)));
        }
    }
    rows.add(part, "memory of the hub, VmRSS before, alone", (resident, "MiB"), None);
    rows.add(part, "its VmHWM beside them, more by", (peak - resident, "MiB"), Some(Target::AtMost(64.0)));
    let never = (agents.reported() - before) as f64 - runs.len() as f64;
    rows.add(part, "runs of the others that were never shown", (never, ""), Some(Target::AtMost(0.0)));
    let a_second = |from: u64, to: u64| ((to - from) as f64 / seconds, "/s");
    rows.add(part, "reports taken of the one that floods", a_second(0, taken), None);
    rows.add(part, "connections of the one that sends malformed frames", a_second(began.1, ended.1), None);
    rows.add(part, "sessions of the one that reads nothing", a_second(began.2, ended.2), None);
    for (what, count) in ended.0 {
        let more = count - began.0.get(&what).copied().unwrap_or(0.0);
        if more > 0.0 {
            rows.add(part, format!("refused, as the hub counts it: {what}"), (more / seconds, "/s"), None);
        }
    }
    Ok(())
}

/// Which times of a window.
type Pick = for<'t> fn(&'t Times) -> &'t Vec<f64>;

/// Figures of the others in a window; gives the p99.
fn add(rows: &mut Rows, what: &str, harm: &str, times: &[f64]) -> anyhow::Result<f64> {
    let at = |q| quantile(times, q).context("there were no runs");
    let (p50, p99) = (at(0.5)?, at(0.99)?);
    rows.add(Part::Flood, format!("{what}, p50, {harm}"), (p50, "ms"), None);
    rows.add(Part::Flood, format!("{what}, p99, {harm}"), (p99, "ms"), None);
    Ok(p99)
}

async fn window(agents: &Agents, events: &Events, runs: &mut Runs) -> anyhow::Result<Times> {
    tokio::time::sleep(SETTLE).await;
    agents.take_ack_times();
    shown(events, runs)?;
    tokio::time::sleep(WINDOW).await;
    let acks = agents.take_ack_times().into_iter().map(|time| time.as_secs_f64() * 1e3).collect();
    Ok(Times { acks, shown: shown(events, runs)? })
}

/// From the end of each run of the others until it was shown, milliseconds, for those that were not shown before.
fn shown(events: &Events, runs: &mut Runs) -> anyhow::Result<Vec<f64>> {
    let of_others = events.take()?.into_iter().filter(|shown| !HARMFUL.contains(&shown.cluster.as_str()));
    let times = of_others.filter_map(|Shown { at, cluster, name, runs: totals }| {
        let ended = totals.finished_at?;
        runs.insert((cluster, name, ended)).then(|| at.duration_since(ended).as_secs_f64() * 1e3)
    });
    Ok(times.collect())
}

/// What the hub has refused, by what it was.
async fn refused(hub: &Hub) -> anyhow::Result<BTreeMap<String, f64>> {
    let text = hub.request(Method::GET, "/metrics?only=hub", None::<&()>).await?;
    Ok(counters(&text))
}

fn counters(text: &str) -> BTreeMap<String, f64> {
    let refused = text.lines().filter_map(|line| line.strip_prefix(REFUSED)?.strip_prefix("{what=\""));
    refused
        .filter_map(|line| line.split_once("\"} "))
        .filter_map(|(what, count)| Some((what.to_owned(), count.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_read_by_what_it_was() {
        let text = "# TYPE activemonitor_hub_refused_total counter\nactivemonitor_hub_refused_total{what=\"frame\"} 3\n\
                    activemonitor_hub_refused_total{what=\"rate\"} 0\nactivemonitor_hub_store_writes_total 7\n";
        assert_eq!(counters(text), BTreeMap::from([("frame".to_owned(), 3.0), ("rate".to_owned(), 0.0)]));
    }
}
