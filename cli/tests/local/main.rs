//! The commands that ask no hub.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use active_monitor_cli::{Cli, Exit, Streams, World};
use clap::Parser;

mod completion;
mod lint;
mod render;
mod schedule;

/// What a run of `fleetcheck` gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `fleetcheck` in this process, without an environment, at 2026-03-01T12:00:00Z.
pub(crate) fn run(args: &[&str], input: &str) -> Ran {
    let cli = Cli::try_parse_from([&["fleetcheck"], args].concat()).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let now = || "2026-03-01T12:00:00.5Z".parse().unwrap();
    let world = World { now, env: |_| None, colour: false };
    let exit = active_monitor_cli::run(
        cli,
        &world,
        &mut Streams { input: &mut input.as_bytes(), out: &mut out, err: &mut err },
    );
    Ran { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}
