//! `fleetcheck why`: everything that is known of one check, and what silences it.

use active_monitor_core::state::RemedyBudget;
use active_monitor_core::view::{CheckView, ClusterView, RunPage, Silence, silences};
use jiff::Timestamp;
use serde::Serialize;

use super::checks::tone;
use super::status::check_message;
use crate::args::{Format, Scope};
use crate::client::{Client, RunQuery};
use crate::output::{self, Text};
use crate::{Error, Exit, Streams, World};

/// Runs that are shown.
const RUNS: usize = 5;

/// What is known of a check.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Why {
    check: CheckView,
    cluster: ClusterView,
    /// What keeps it from running, from being remedied or from being known about.
    silenced_by: Vec<Silence>,
    /// Seconds since its agent was heard; absent where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    known_seconds_ago: Option<i64>,
    /// The last runs, newest first, and what is missing between them.
    history: RunPage,
}

pub(super) async fn run(
    hub: &Client,
    scope: Scope,
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
) -> Result<Exit, Error> {
    let Scope { cluster, namespace, check } = scope;
    let (namespace, name) = (namespace.unwrap_or_default(), check.unwrap_or_default());
    let now = (world.now)();
    let check = hub.check(&cluster, &namespace, &name).await?;
    let of_check = (Some(cluster.clone()), Some(namespace), Some(name));
    let query =
        RunQuery { cluster: of_check.0, namespace: of_check.1, name: of_check.2, limit: RUNS, ..RunQuery::default() };
    let history = hub.runs(&query).await?;
    let cluster = hub.cluster(&cluster).await?;
    let silenced_by = silences(now, &check, &cluster);
    let known_seconds_ago = cluster.last_heard_at.map(|heard| now.as_second().saturating_sub(heard.as_second()));
    let is_fine = silenced_by.is_empty() && !check.status.is_wrong();
    let why = Why { check, cluster, silenced_by, known_seconds_ago, history };
    output::show(format, world, streams, &why, |world, streams| why.tell(now, world.colour, streams))?;
    Ok(if is_fine { Exit::Fine } else { Exit::Found })
}

impl Why {
    fn tell(&self, now: Timestamp, colour: bool, streams: &mut Streams<'_>) -> Result<(), Error> {
        let Why { check, cluster, silenced_by, known_seconds_ago, history } = self;
        let runs = &history.items;
        let state = &check.state;
        let mut rows = output::Rows::new(["CHECK", ""], colour);
        let name = format!("{}/{}/{}", check.cluster, state.namespace, state.name);
        rows.add([Text::from(name), Text::toned(check.status.as_str(), tone(check.status))]);
        let mut say = |what: &str, text: String| rows.add([what.into(), text.into()]);
        say("message", check_message(check));
        say(
            "heard",
            match known_seconds_ago {
                Some(ago) => format!("{} ago, cluster {}", output::seconds(*ago), cluster.status.as_str()),
                None => "never".to_owned(),
            },
        );
        say("schedule", state.schedule.clone());
        say(
            "next run",
            match &state.running {
                Some(running) => format!("running now: {}", running.workflow),
                None => output::until(now, state.next_slot),
            },
        );
        let remedy = state.remedy.as_ref().map(|_| remedy(now, state.remedy_budget));
        say("remedy", remedy.unwrap_or_else(|| "none".to_owned()));
        if silenced_by.is_empty() {
            say("silenced by", "nothing".to_owned());
        }
        for Silence { kind, message } in silenced_by {
            say("silenced by", format!("{}: {message}", kind.as_str()));
        }
        rows.write(streams.out)?;
        if runs.is_empty() {
            return Ok(writeln!(streams.out, "\nno runs in the history")?);
        }
        writeln!(streams.out)?;
        super::runs::rows(history, now, colour).write(streams.out)?;
        let last_log = runs.iter().position(|view| !view.run.log_tail.is_empty());
        last_log.map_or(Ok(()), |index| super::runs::details(&runs[index..=index], streams))
    }
}

/// What the remedy may still do.
fn remedy(now: Timestamp, budget: Option<RemedyBudget>) -> String {
    match budget {
        None => "may run, without a limit".to_owned(),
        Some(RemedyBudget { limit, left: 0, resets_at: Some(at) }) if at > now => {
            format!("0 of {limit} runs left, again {}", output::until(now, Some(at)))
        }
        Some(RemedyBudget { limit, left: 0, resets_at: Some(_) }) => format!("{limit} of {limit} runs left"),
        Some(RemedyBudget { limit, left, resets_at: _ }) => format!("{left} of {limit} runs left"),
    }
}
