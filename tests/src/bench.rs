//! Benchmarks: the figures that the project promises, measured on real control planes, and on a hub with simulated agents.
//! `make bench`, docs/benchmarks.md.
//!
//! Nothing here fails because a figure is bad: a report says what was measured, how far repetitions lie apart, and whether
//! the promise is met. May touch run folders, loopback ports and the programs that it starts.

mod agent;
mod calibration;
mod events;
mod federate;
mod figures;
mod flood;
mod history;
mod hub;
mod metrics;
pub mod proc;
mod progress;
mod replicas;
mod report;
pub mod sim;
mod stats;
mod stub;
mod visible;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;

pub use self::calibration::Calibration;
use self::hub::Fleet;
pub use self::metrics::serve_file;
use self::progress::Progress;
use self::report::Rows;
pub use self::report::{Machine, Report, Row, Target};
pub use self::sim::{Agents, Deaf};
pub use self::stub::Stub;
use crate::run_dir::RunDir;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// An agent with 1,000 checks of every 60 s: requests, latencies, memory, processor time
    Agent,
    /// An agent with 1,000 checks on the same minute
    Crons,
    /// 50 checks with Argo's own controller, and the same with the stub that the others use
    Argo,
    /// 90 days of a fleet on SQLite and on PostgreSQL: a check's history, uptime of the fleet
    History,
    /// The end of a workflow, until a hub shows its run
    Visible,
    /// What agents say to one of two replicas on PostgreSQL, until the other shows it
    Replicas,
    /// A hub with 1,000 clusters of 100 checks: its memory
    Rest,
    /// That hub's /metrics, beside the same bytes as a file
    Metrics,
    /// A definition, until all agents have it
    Push,
    /// Reports from all agents, until they are on the hub's disk
    Reports,
    /// An agent that floods and one that does harm, beside all others
    Flood,
    /// The hub is killed and started again, until all agents are back and all is as they say
    Storm,
}

impl Part {
    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Agent => "agent",
            Part::Crons => "crons",
            Part::Argo => "argo",
            Part::History => "history",
            Part::Visible => "visible",
            Part::Replicas => "replicas",
            Part::Rest => "rest",
            Part::Metrics => "metrics",
            Part::Push => "push",
            Part::Reports => "reports",
            Part::Flood => "flood",
            Part::Storm => "storm",
        }
    }
}

/// Where the hub with the simulated agents keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// In a file of its own
    Sqlite,
    /// In a server on this machine
    Postgresql,
}

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// The parts; all where there are none.
    pub only: Vec<Part>,
    /// Repetitions of each.
    pub repeat: u32,
    /// Of the numbers of checks and clusters that the targets speak of.
    pub scale: f64,
    /// Minutes for which an agent is watched.
    pub minutes: u64,
    /// The store of the parts with simulated agents; `history` measures both.
    pub store: StoreKind,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// A number at this scale.
    fn scaled(&self, number: usize) -> usize {
        ((number as f64 * self.scale).round() as usize).max(1)
    }
}

/// Measures. A part that fails is said in the report; the others go on.
///
/// # Errors
/// When there is no place to measure in.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    crate::init();
    open_files()?;
    let progress = Progress::new();
    let mut rows = Rows::default();
    let mut failures = Vec::new();
    let mut failed = |part: &str, error: anyhow::Error| {
        failures.push(format!("{part}: {error:#}"));
    };
    progress.say("calibration");
    let before = calibrate().await?;
    let single = [Part::Agent, Part::Crons, Part::Argo, Part::Visible, Part::Replicas, Part::History];
    for part in single.into_iter().filter(|part| options.wants(*part)) {
        // The history is filled once.
        for _ in 0..if part == Part::History { 1 } else { options.repeat } {
            if let Err(error) = measure(part, options, &progress, &mut rows).await {
                failed(part.as_str(), error);
            }
        }
    }
    let of_hub: Vec<Part> = hub::PARTS.into_iter().filter(|part| options.wants(*part)).collect();
    if !of_hub.is_empty() {
        match Fleet::start(options, &progress).await {
            Ok(mut fleet) => {
                for part in of_hub {
                    if let Err(error) = hub::measure(part, &mut fleet, options, &progress, &mut rows).await {
                        failed(part.as_str(), error);
                    }
                }
            }
            Err(error) => failed("hub", error),
        }
    }
    progress.say("calibration");
    let after = calibrate().await?;
    Ok(Report {
        machine: Machine::this()?,
        scale: options.scale,
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        calibration: [before, after],
        rows: rows.judged(options.scale >= 1.0),
        failures,
    })
}

async fn measure(part: Part, options: &Options, progress: &Progress, rows: &mut Rows) -> anyhow::Result<()> {
    match part {
        Part::Agent => agent::spread(options, progress, rows).await,
        Part::Crons => agent::bursts(options, progress, rows).await,
        Part::Argo => agent::beside_argo(options, progress, rows).await,
        Part::Visible => visible::measure(options, progress, rows).await,
        Part::Replicas => replicas::measure(options, progress, rows).await,
        Part::History => history::measure(options, progress, rows).await,
        Part::Rest | Part::Metrics | Part::Push | Part::Reports | Part::Flood | Part::Storm => Ok(()),
    }
}

/// A thousand agents are a thousand sockets here, and as many in the hub, which inherits what is allowed.
fn open_files() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

async fn calibrate() -> anyhow::Result<Calibration> {
    let folder = RunDir::create()?;
    let path: PathBuf = folder.path().to_owned();
    let measured = tokio::task::spawn_blocking(move || calibration::measure(&path)).await;
    measured.context("the calibration was cut short")?
}
