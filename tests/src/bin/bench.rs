//! `bench`: measures what docs/benchmarks.md says. `make bench` builds everything and runs it.

use std::path::PathBuf;
use std::process::ExitCode;

use active_monitor_tests::bench::{self, Options, Part, StoreKind};
use active_monitor_tests::fleet::binary;
use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(
    about = "Measures the agent and the hub beside what is promised of them",
    version,
    args_conflicts_with_subcommands = true
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// Measure each part so many times
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Part of the checks and clusters that the targets speak of; below 1 targets are not judged
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Watch an agent for so many minutes; finished workflows are kept for ten, so its memory is at rest only after those
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Store of the hub with the simulated agents; `history` measures both
    #[arg(long, value_enum, default_value = "sqlite")]
    store: StoreKind,
    /// Form of the report
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a file on a loopback port; started by `metrics`
    #[command(hide = true)]
    ServeFile { file: PathBuf, port: u16 },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { command, only, repeat, scale, minutes, store, output } = args;
    if let Some(Command::ServeFile { file, port }) = command {
        return bench::serve_file(&file, port).await.map(|()| ExitCode::SUCCESS);
    }
    for name in ["active-monitor-hub", "active-monitor-agent"] {
        binary(name)?;
    }
    let report = bench::run(&Options { only, repeat, scale, minutes, store }).await?;
    match output {
        Output::Table => println!("{}", report.table()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
