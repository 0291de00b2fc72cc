//! Definitions and other files, and what asks no hub.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// A file of YAML documents, or - for the standard input. Can be repeated.
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A file with FleetHealthChecks, FleetClusters and MaintenanceWindows, or - for the standard input. Can be repeated.
    #[arg(short, long = "file", required_unless_present = "routes", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The files are all of the folder: show also what is Git's at the hub and in none of them, which it would delete.
    #[arg(long, requires = "files")]
    pub(crate) prune: bool,
    /// A file of routes of alerts, as the hub's --routes-file; shown are the names of what would be others.
    #[arg(long, value_name = "FILE")]
    pub(crate) routes: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// Wait until the clusters have answered, at most this many seconds; exit code 1 if not all have applied it.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60")]
    pub(crate) wait: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// `definitions`, a definition's name, or both.
    #[arg(required = true, num_args = 1..=2, value_name = "definitions|NAME")]
    pub(crate) what: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// Its name.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Names of definitions.
    #[arg(required_unless_present = "files", conflicts_with = "files", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// A file whose definitions are deleted, or - for the standard input. Can be repeated.
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Context of the kubeconfig; its current one without.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Kubeconfig; without it $KUBECONFIG, else ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    /// Five cron fields, a descriptor such as @daily, or @every 1h30m; optionally after `CRON_TZ=Zone`.
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    pub(crate) expression: String,
    /// Times after this one, RFC 3339; without it, after the present. For @every, the start.
    #[arg(long, value_name = "RFC3339")]
    pub(crate) from: Option<Timestamp>,
    /// Time zone of the IANA database; the same as `CRON_TZ=ZONE` before the expression. UTC without one.
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
    /// How many times.
    #[arg(long, default_value = "5", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) count: u16,
}

#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Files of YAML documents, or - for the standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// A file of YAML documents, or - for the standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}
