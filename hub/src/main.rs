//! Entry point of the hub.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use active_monitor_hub::config::file::{self, CliError};
use active_monitor_hub::config::{
    BackupArgs, Cli, Command, DataArgs, MigrateStoreArgs, RevokedArgs, ServeArgs, TokenArgs, TokenCommand,
};
use active_monitor_hub::store::location::{Location, Opened};
use active_monitor_hub::store::transfer;
use active_monitor_hub::{authority, backup, ca, serve};
use active_monitor_runtime::tasks::Tasks;
use active_monitor_runtime::traces::Collector;
use active_monitor_runtime::{logging, tls};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

/// Time for an orderly end; what is not done then is cut.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    tls::install_crypto_provider();
    let Cli { command, serve } = match file::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(CliError::Clap(error)) => error.exit(),
        Err(error @ (CliError::Read { .. } | CliError::Wrong(_))) => {
            let _ = writeln!(std::io::stderr(), "Error: {:#}", anyhow::Error::from(error));
            return ExitCode::FAILURE;
        }
    };
    let done = match command {
        None => run(serve).await,
        Some(Command::Serve(args)) => run(*args).await,
        Some(Command::Ca(args)) => print_ca(&args),
        Some(Command::Backup(args)) => backup_hub(&args).await,
        Some(Command::Restore(args)) => backup::restore(&args.data_dir, std::io::stdin()).await.map_err(Into::into),
        Some(Command::Revoked(args)) => print_revoked(&args),
        Some(Command::MigrateStore(args)) => migrate_store(&args).await,
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
    // To the end: what waits is sent when it is dropped.
    let _traces = logging::init(args.log_format, "info", "active-monitor-hub", Collector::from_env());
    let tasks = Tasks::new();
    // Held to the end: the store closes when the last who knows it is gone.
    let _hub = serve::start(&args, &tasks).await?;
    tasks.run(GRACE).await?;
    Ok(())
}

fn print_ca(args: &DataArgs) -> anyhow::Result<()> {
    let path = args.data_dir.join(ca::CERTIFICATE_FILE);
    let pem = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    std::io::stdout().write_all(&pem)?;
    // While another CA is to take its place, both are to be trusted.
    if let Ok(next) = std::fs::read(args.data_dir.join(authority::NEXT_CERTIFICATE)) {
        std::io::stdout().write_all(&next)?;
    }
    Ok(())
}

fn print_revoked(RevokedArgs { data, revocations }: &RevokedArgs) -> anyhow::Result<()> {
    let path = revocations.path(&data.data_dir);
    let may_be_missing = revocations.revocations_file.is_none();
    match std::fs::read(&path) {
        Ok(text) => std::io::stdout().write_all(&text)?,
        // The hub makes it with the first revocation. Where another is named, a copy of nothing would pass for one.
        Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => {
            writeln!(std::io::stdout(), "{{}}")?
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    Ok(())
}

async fn backup_hub(args: &BackupArgs) -> anyhow::Result<()> {
    let data_dir = &args.data.data_dir;
    match args.store.location(data_dir).context("--store")? {
        Location::Sqlite(directory) if directory == *data_dir => Ok(backup::backup(data_dir, std::io::stdout()).await?),
        elsewhere @ (Location::Sqlite(_) | Location::Postgres(_)) => anyhow::bail!(
            "the data base is not in {} but is {elsewhere}: back it up with its own tools (pg_dump), and copy ca.crt and \
             ca.key of the data directory",
            data_dir.display()
        ),
    }
}

async fn migrate_store(args: &MigrateStoreArgs) -> anyhow::Result<()> {
    let (from, to) = (args.from.location().context("--from")?, args.to.location().context("--to")?);
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} rows")?);
    let mut told = 0;
    let mut show = |table: &str, rows: u64, done: u64| {
        bar.set_message(table.to_owned());
        bar.set_length(rows);
        bar.set_position(done);
        told += if done == rows { rows } else { 0 };
    };
    transfer::transfer(&from, &to, &mut show).await?;
    bar.finish_and_clear();
    writeln!(std::io::stderr(), "moved {told} rows from {from} to {to}; each table has as many as before")?;
    Ok(())
}

async fn create_token(args: TokenArgs) -> anyhow::Result<()> {
    let location = args.store.location(&args.data.data_dir).context("--store")?;
    // The claim is held until the token is there.
    let Opened { store, claim: _claim, .. } = location.open().await.context("the store does not open")?;
    let text = serve::create_token(store.as_ref(), &args.name, args.role).await?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
