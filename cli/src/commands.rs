//! One module for each command. The remote ones get a [`Client`]; nothing else knows whether a hub is asked.

mod access;
mod apply;
mod ca;
mod care;
mod checks;
mod cluster;
mod definitions;
mod diff;
pub(crate) mod doctor;
pub(crate) mod edit;
mod enrolment;
mod hub;
mod incidents;
mod lint;
mod order;
mod render;
mod runs;
pub(crate) mod schedule;
mod sources;
mod status;
mod uptime;
mod why;

use std::future::Future;

use clap::CommandFactory;

use crate::args::{Cli, Command, ConnectionArgs};
use crate::client::Client;
use crate::{Error, Exit, Streams, World, connection};

/// Runs the command that the arguments name.
pub(crate) fn run(cli: Cli, world: &World, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let Cli { connection: at, output: format, command } = cli;
    match command {
        Command::Status => remote(&at, world, async |hub| status::run(&hub, format, world, streams).await),
        Command::Cluster(what) => {
            remote(&at, world, async |hub| cluster::run(&hub, what, format, world, streams).await)
        }
        Command::Token(what) => remote(&at, world, async |hub| access::token(&hub, what, format, world, streams).await),
        Command::Session(what) => remote(&at, world, async |hub| access::session(&hub, what, streams).await),
        Command::Audit { limit } => {
            remote(&at, world, async |hub| access::audit(&hub, limit, format, world, streams).await)
        }
        Command::Ca(what) => remote(&at, world, async |hub| ca::run(&hub, what, format, world, streams).await),
        Command::Hub(what) => remote(&at, world, async |client| hub::run(&client, what, format, world, streams).await),
        Command::Checks(args) => remote(&at, world, async |hub| checks::run(&hub, args, format, world, streams).await),
        Command::Runs(args) => remote(&at, world, async |hub| runs::run(&hub, args, format, world, streams).await),
        Command::Incidents(args) => {
            remote(&at, world, async |hub| incidents::run(&hub, args, format, world, streams).await)
        }
        Command::Run(args) => remote(&at, world, async |hub| order::run(&hub, args, format, world, streams).await),
        Command::Pause(args) => remote(&at, world, async |hub| order::pause(&hub, args, format, world, streams).await),
        Command::Resume(args) => {
            remote(&at, world, async |hub| order::resume(&hub, args, format, world, streams).await)
        }
        Command::Why { check } => remote(&at, world, async |hub| why::run(&hub, check, format, world, streams).await),
        Command::Ack(args) => remote(&at, world, async |hub| care::acknowledge(&hub, args, streams).await),
        Command::Unack { check } => remote(&at, world, async |hub| care::unacknowledge(&hub, check, streams).await),
        Command::Window(what) => remote(&at, world, async |hub| care::window(&hub, what, format, world, streams).await),
        Command::Uptime(args) => remote(&at, world, async |hub| uptime::run(&hub, args, format, world, streams).await),
        Command::Apply(args) => remote(&at, world, async |hub| apply::run(&hub, args, format, world, streams).await),
        Command::Diff(args) => remote(&at, world, async |hub| diff::run(&hub, args, format, world, streams).await),
        Command::Get(args) => {
            remote(&at, world, async |hub| definitions::get(&hub, args, format, world, streams).await)
        }
        Command::Edit(args) => remote(&at, world, async |hub| edit::run(&hub, args, world, streams).await),
        Command::Delete(args) => remote(&at, world, async |hub| definitions::delete(&hub, args, streams).await),
        Command::Doctor(args) => doctor::run(&args, format, world, streams),
        Command::Schedule(args) => schedule::run(&args, format, world, streams),
        Command::Lint(args) => lint::run(&args, format, world, streams),
        Command::Render(args) => render::run(&args, format, world, streams),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "fleetcheck", &mut script);
            streams.out.write_all(&script)?;
            Ok(Exit::Fine)
        }
    }
}

/// Connects and runs to the end on this thread.
fn remote<F, R>(at: &ConnectionArgs, world: &World, command: F) -> Result<Exit, Error>
where
    F: FnOnce(Client) -> R,
    R: Future<Output = Result<Exit, Error>>,
{
    let hub = Client::new(connection::resolve(at, world.env)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(command(hub))
}
