//! Entry point of the hub.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use active_monitor_hub::config::{Cli, Command, ServeArgs, TokenArgs, TokenCommand};
use active_monitor_hub::serve;
use active_monitor_hub::store::sqlite::SqliteStore;
use active_monitor_runtime::tasks::Tasks;
use active_monitor_runtime::{logging, tls};
use anyhow::Context;
use clap::Parser;

/// Time for an orderly end; what is not done then is cut.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    tls::install_crypto_provider();
    let Cli { command, serve } = Cli::parse();
    let done = match command {
        None => run(serve).await,
        Some(Command::Serve(args)) => run(args).await,
        Some(Command::Token(TokenCommand::Create(args))) => create_token(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: ServeArgs) -> anyhow::Result<()> {
    logging::init(args.log_format, "info");
    let tasks = Tasks::new();
    // Held to the end: the store closes when the last who knows it is gone.
    let _hub = serve::start(&args, &tasks).await?;
    tasks.run(GRACE).await?;
    Ok(())
}

async fn create_token(args: TokenArgs) -> anyhow::Result<()> {
    let store = SqliteStore::open(&args.data_dir).await.context("the store does not open")?;
    let text = serve::create_token(&store, &args.name, args.role).await?;
    writeln!(std::io::stdout(), "{text}")?;
    store.close().await;
    Ok(())
}
