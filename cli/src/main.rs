//! `fleetcheck`: the process around the library. The only place that reads the clock and the environment.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use active_monitor_cli::{Cli, Streams, World};
use clap::Parser;
use jiff::Timestamp;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let stdout = std::io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let world = World { now: Timestamp::now, env: |name| std::env::var(name).ok(), colour };
    let (mut out, mut err) = (stdout.lock(), std::io::stderr().lock());
    let mut streams = Streams { input: &mut std::io::stdin().lock(), out: &mut out, err: &mut err };
    let exit = active_monitor_cli::run(cli, &world, &mut streams);
    match out.flush() {
        Ok(()) => exit.into(),
        Err(_) => ExitCode::from(2),
    }
}
