//! From the end of a workflow until the hub shows its run: a real API server, agent and hub; the stub ends the workflows.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use active_monitor_core::view::RunPage;
use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::json;

use super::agent::{Controller, World};
use super::events::{Events, Shown};
use super::hub::CHECKS;
use super::progress::Progress;
use super::report::{Rows, Target};
use super::stats::quantile;
use super::{Options, Part};
use crate::fleet::{Agent, Hub};

const PERIOD: Duration = Duration::from_secs(10);
/// How long is measured; enough runs for a p99.
const WINDOW: Duration = Duration::from_secs(120);
/// Until the first runs, which are due at once, are over.
const SETTLE: Duration = Duration::from_secs(20);
/// Between two questions for the history.
const ASK: Duration = Duration::from_millis(10);
/// Runs that may come between two questions.
const PAGE: usize = 50;
/// When the last runs must be shown.
const END_LIMIT: Duration = Duration::from_secs(30);

/// The runs that a hub has in its history.
#[derive(Debug, Default)]
struct History {
    newest: i64,
    /// By workflow: the check, and when the run was found.
    found: HashMap<String, (String, Timestamp)>,
}

/// [`Part::Visible`].
pub(super) async fn measure(options: &Options, progress: &Progress, rows: &mut Rows) -> anyhow::Result<()> {
    let part = Part::Visible;
    let count = options.scaled(CHECKS);
    progress.say("visible: a cluster without Argo, a hub and an agent");
    let mut world = World::start(Controller::Stub).await?;
    world.make(count, &json!({"repeatAfterSec": PERIOD.as_secs()})).await?;
    let cluster = world.testbed.clusters.first().context("the testbed has no cluster")?;
    let hub = Hub::start(cluster.run(), &cluster.dir).await?;
    let token = hub.add_cluster("bench", &[]).await?;
    let agent = Agent::start(cluster, "bench", Some(&token)).await?;
    agent.wait_until_connected(&hub).await?;
    let (events, mut shown, mut history) = (Events::follow(&hub).await?, Vec::new(), History::default());

    let from = Timestamp::now() + SETTLE;
    let to = from + WINDOW;
    progress.say(format!("visible: {count} checks of every {} s, from {from} to {to}", PERIOD.as_secs()));
    while Timestamp::now() < to {
        history.read(&hub).await?;
        tokio::time::sleep(ASK).await;
    }
    let (in_events, in_history) = loop {
        history.read(&hub).await?;
        shown.extend(events.take()?);
        world.until(&agent, Timestamp::now(), |_| false).await?;
        let ends = world.log.ends(from, to);
        let (in_events, in_history) = times(&ends, &history, &shown);
        if [in_events.len(), in_history.len()] == [ends.len(); 2] {
            break (in_events, in_history);
        }
        ensure!(Timestamp::now() < to + END_LIMIT, "the hub does not show all runs: {}", agent.process.log_tail());
        tokio::time::sleep(ASK).await;
    };
    rows.add(part, "runs", (in_events.len() as f64, ""), None);
    for (what, times) in [("shown as an event", in_events), ("found in the history", in_history)] {
        let at = |q| quantile(&times, q).context("there were no runs");
        rows.add(part, format!("workflow end to the run {what}, p50"), (at(0.5)?, "ms"), None);
        let target = Some(Target::AtMost(500.0));
        rows.add(part, format!("workflow end to the run {what}, p99"), (at(0.99)?, "ms"), target);
        rows.add(part, format!("workflow end to the run {what}, worst"), (at(1.0)?, "ms"), None);
    }
    Ok(())
}

impl History {
    async fn read(&mut self, hub: &Hub) -> anyhow::Result<()> {
        let page: RunPage = hub.get(&format!("/api/v1/runs?limit={PAGE}")).await?;
        let at = Timestamp::now();
        let [newest, oldest] = [page.items.first(), page.items.last()].map(|run| run.map_or(0, |run| run.id));
        ensure!(page.next.is_none() || oldest <= self.newest + 1, "more than {PAGE} runs between two questions");
        for run in page.items.into_iter().filter(|run| run.id > self.newest) {
            if let Some((_, workflow)) = run.run.workflow.as_deref().and_then(|name| name.split_once('/')) {
                self.found.insert(workflow.to_owned(), (run.run.name, at));
            }
        }
        self.newest = self.newest.max(newest);
        Ok(())
    }
}

/// From each end until its run was shown as an event, and until it was in the history; milliseconds.
fn times(ends: &HashMap<String, Timestamp>, history: &History, shown: &[Shown]) -> (Vec<f64>, Vec<f64>) {
    let ms = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64() * 1e3;
    // A check that has counted one run more.
    let mut counted: HashMap<&str, (u64, BTreeSet<Timestamp>)> = HashMap::new();
    for Shown { at, name, runs, .. } in shown {
        let (count, times) = counted.entry(name).or_default();
        let ended = runs.succeeded + runs.failed;
        if ended > *count {
            times.insert(*at);
            *count = ended;
        }
    }
    let mut result = (Vec::new(), Vec::new());
    for (workflow, end) in ends {
        let Some((check, at)) = history.found.get(workflow) else { continue };
        result.1.push(ms(*end, *at));
        let first = counted.get(check.as_str()).and_then(|(_, times)| times.range(*end..).next());
        result.0.extend(first.map(|at| ms(*end, *at)));
    }
    result
}

#[cfg(test)]
mod tests {
    use active_monitor_core::state::Totals;

    use super::*;

    #[test]
    fn a_run_is_shown_by_the_first_event_after_its_end_that_counts_one_more() {
        let at = |seconds: f64| Timestamp::from_millisecond(1_800_000_000_000 + (seconds * 1e3) as i64).unwrap();
        let runs = |succeeded| Totals { succeeded, ..Totals::default() };
        let shown = [(1.0, 1), (11.0, 1), (11.2, 2), (21.3, 3)].map(|(seconds, count)| Shown {
            at: at(seconds),
            cluster: "bench".into(),
            name: "dns".into(),
            runs: runs(count),
        });
        let found = [("dns-b", 11.3), ("dns-c", 21.5)]
            .map(|(workflow, seconds)| (workflow.into(), ("dns".into(), at(seconds))));
        let history = History { newest: 3, found: found.into() };
        let ends = HashMap::from([("dns-b".to_owned(), at(10.9)), ("dns-c".to_owned(), at(21.0))]);
        let (mut in_events, mut in_history) = times(&ends, &history, &shown);
        in_events.sort_by(f64::total_cmp);
        in_history.sort_by(f64::total_cmp);
        assert_eq!((in_events, in_history), (vec![300.0, 300.0], vec![400.0, 500.0]));
        let unknown = HashMap::from([("dns-d".to_owned(), at(30.0))]);
        assert_eq!(times(&unknown, &history, &shown), (vec![], vec![]));
    }
}
