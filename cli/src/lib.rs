//! `fleetcheck`, the fleet from the command line: arguments in, text and an exit code out.
//!
//! Everything but the process itself is here, so that tests can give the time, the environment and the streams. Remote
//! commands speak the hub's REST API, whose types are in [`active_monitor_core::view`]; local ones use only the core.

mod args;
mod client;
mod commands;
mod connection;
mod documents;
mod output;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use jiff::Timestamp;

pub use self::args::Cli;

/// What the process knows of the world around it.
#[derive(Clone, Copy)]
pub struct World {
    /// The clock.
    pub now: fn() -> Timestamp,
    /// An environment variable by name.
    pub env: fn(&str) -> Option<String>,
    /// Whether the output is for a terminal that shows colours.
    pub colour: bool,
}

/// Where input comes from and output goes.
pub struct Streams<'a> {
    /// Read for `-f -`.
    pub input: &'a mut dyn Read,
    /// For results.
    pub out: &'a mut dyn Write,
    /// For errors and remarks.
    pub err: &'a mut dyn Write,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, and nothing is wrong or different.
    Fine,
    /// 1: the command worked, and what it found is wrong, unknown or different.
    Found,
    /// 2: the command could not do or ask what it should.
    Error,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Found => 1,
            Exit::Error => 2,
        })
    }
}

/// Everything that ends a command early.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Connection(#[from] connection::ConnectionError),
    #[error(transparent)]
    Client(#[from] client::ClientError),
    #[error(transparent)]
    Documents(#[from] documents::DocumentsError),
    #[error(transparent)]
    Edit(#[from] commands::edit::EditError),
    #[error(transparent)]
    Doctor(#[from] commands::doctor::DoctorError),
    #[error(transparent)]
    Schedule(#[from] commands::schedule::ScheduleCommandError),
    #[error("cannot write YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("cannot start the network runtime")]
    Runtime(#[source] io::Error),
}

/// Runs one command. Errors are written to the error stream.
pub fn run(cli: Cli, world: &World, streams: &mut Streams<'_>) -> Exit {
    match commands::run(cli, world, streams) {
        Ok(exit) => exit,
        // The reader went away, as `head` does: nobody is left to be told.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Fine,
        Err(error) => {
            // An error stream that cannot be written leaves only the exit code.
            let _ = writeln!(streams.err, "error: {}", output::printable(&chain(&error)));
            Exit::Error
        }
    }
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
