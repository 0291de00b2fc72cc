//! `demo`: the whole product on real clusters, for a person to look at. `make demo` builds everything and runs it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_tests::demo::{self, Place, own, say, undo};
use active_monitor_tests::fleet::binary;
use active_monitor_tests::run_dir::RunDir;
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Parser)]
#[command(about = "Active-Monitor Fleet on three clusters of its own, or on yours", version)]
struct Args {
    /// Use these contexts of your kubeconfig in place of the demo's own clusters; only what the demo makes is removed
    #[arg(long, env = "CONTEXTS", value_delimiter = ',', value_name = "CONTEXT")]
    contexts: Vec<String>,
    /// End after so many seconds
    #[arg(long, hide = true)]
    seconds: Option<u64>,
    /// Remove what a killed demo left in the reader's clusters, by its record
    #[arg(long, hide = true)]
    undo: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(record) = args.undo {
        return undo::undo_record(&record).await.map(drop);
    }
    for name in ["active-monitor-hub", "active-monitor-agent", "fleetcheck"] {
        binary(name)?;
    }
    let contexts: Vec<String> = args.contexts.iter().map(|name| name.trim().to_owned()).collect();
    let contexts: Vec<String> = contexts.into_iter().filter(|name| !name.is_empty()).collect();
    // Before the signals are taken: Ctrl-C ends a build at once.
    let programs = if contexts.is_empty() { Some(demo::programs().await?) } else { None };
    let mut ends = Ends::new()?;
    let folder = Arc::new(RunDir::create()?);
    let path = folder.path().to_owned();
    let shown = {
        let show = async {
            let place = match programs {
                Some(programs) => Place::Testbed(programs),
                None => {
                    let checked = say::step("your clusters looked at", own::check(&folder, &contexts)).await?;
                    say::notes(&checked.1);
                    Place::Own(checked.0)
                }
            };
            demo::show(&folder, &place, args.seconds.map(Duration::from_secs)).await
        };
        // What `show` has started ends with it.
        tokio::select! {
            shown = show => shown,
            () = ends.asked() => Ok(()),
        }
    };
    let cleaned = clean(folder, &path).await;
    shown.and(cleaned).map(|()| say::say("stopped, nothing left"))
}

/// Removes what the demo made in the reader's clusters, and its folder.
async fn clean(folder: Arc<RunDir>, path: &Path) -> anyhow::Result<()> {
    if undo::is_due(path) {
        let kept = say::step("removed what the demo made in your clusters", undo::undo(path)).await?;
        say::notes(&kept);
    }
    drop(folder);
    demo::nothing_left(path)
}

/// The ways in which a person ends the demo.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> std::io::Result<Ends> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Ends([interrupt?, terminate?, hangup?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        say::say("\nstopping");
    }
}
