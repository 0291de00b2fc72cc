//! `testbed`: real Kubernetes clusters with Argo Workflows on loopback, from the command line.

use std::{env, io::IsTerminal as _, time::Duration};

use active_monitor_tests::{
    Options, Program, Programs,
    daemon::{self, State},
};
use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Parser)]
#[command(about = "Real Kubernetes clusters with Argo Workflows on loopback", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the programs into the cache, unless they are there
    Build,
    /// Start clusters in the background and print how to reach them
    Up(Size),
    /// Show each part of what is up
    Status {
        /// The form of the answer
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// End what is up and leave nothing
    Down,
    /// Hold the clusters; started by `up`
    #[command(hide = true)]
    Daemon(Size),
}

#[derive(clap::Args)]
struct Size {
    /// How many clusters; each takes about 500 MB
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    clusters: u8,
    /// Give the first cluster a node, so that its pods run; needs root
    #[arg(long)]
    node: bool,
}

impl Size {
    fn options(&self) -> Options {
        Options { clusters: self.clusters.into(), node: self.node }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Build => {
            build(&[Program::CONTROL_PLANE, Program::NODE, Program::CHARTS, Program::SCRIPTS].concat()).await
        }
        Command::Up(size) => up(&size).await,
        Command::Status { output } => status(output),
        Command::Down => {
            println!("{}", if daemon::down().await? { "the testbed is down" } else { "no testbed was up" });
            Ok(())
        }
        Command::Daemon(size) => daemon::run(size.options()).await,
    }
}

async fn build(programs: &[Program]) -> anyhow::Result<()> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} building programs {pos}/{len} {bar:20} {elapsed} {msg}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    if !std::io::stderr().is_terminal() {
        eprintln!("building the programs that are not cached; minutes each the first time");
    }
    Programs::ensure_shown(programs, &bar).await?;
    Ok(())
}

async fn up(size: &Size) -> anyhow::Result<()> {
    // In the foreground, where progress is seen and Ctrl-C ends it.
    build(&size.options().programs()).await?;
    let program = env::current_exe().context("cannot find this program's file")?;
    let mut args = vec!["daemon".to_owned(), format!("--clusters={}", size.clusters)];
    args.extend(size.node.then(|| "--node".to_owned()));
    let state = daemon::up(&program, &args).await?;
    print_table(&state);
    for cluster in &state.clusters {
        println!("export KUBECONFIG={}  # {}", cluster.kubeconfig.display(), cluster.name);
    }
    println!("kubectl: {}", state.kubectl.display());
    Ok(())
}

fn status(output: Output) -> anyhow::Result<()> {
    let state = daemon::status()?;
    match (output, state) {
        (Output::Json, state) => println!("{}", serde_json::to_string_pretty(&state)?),
        (Output::Table, None) => println!("no testbed is up"),
        (Output::Table, Some(state)) => print_table(&state),
    }
    Ok(())
}

fn print_table(state: &State) {
    let mut table = Table::new();
    table.set_header(["cluster", "server", "part", "pid", "state"]);
    for cluster in &state.clusters {
        for part in &cluster.parts {
            let pid = part.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let state = if part.running { "running" } else { "ended" };
            table.add_row([&cluster.name, &cluster.server, &part.name, &pid, state]);
        }
    }
    println!("{table}");
}
