//! Checks: what is shown of them, and what is asked of them.

use std::num::NonZeroUsize;
use std::time::Duration;

use active_monitor_core::run::{Outcome, RunKind};
use active_monitor_core::uptime::Objective;
use active_monitor_core::view::CheckStatus;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::values::{check, length, one_of, pair, scope, seconds};

#[derive(Debug, Args)]
pub(crate) struct ChecksArgs {
    /// Only of this cluster.
    #[arg(long)]
    pub(crate) cluster: Option<String>,
    /// Only in this namespace.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Only with this status.
    #[arg(long, ignore_case = true, value_parser = one_of(CheckStatus::ALL.map(CheckStatus::as_str)))]
    pub(crate) status: Option<&'static str>,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Only of these: CLUSTER, CLUSTER/NAMESPACE or CLUSTER/NAMESPACE/CHECK.
    #[arg(value_name = "CLUSTER[/NAMESPACE[/CHECK]]", value_parser = scope)]
    pub(crate) scope: Option<Scope>,
    /// Only of this kind.
    #[arg(long, ignore_case = true, value_parser = one_of([RunKind::HealthCheck, RunKind::Remedy].map(RunKind::as_str)))]
    pub(crate) kind: Option<&'static str>,
    /// Only with this outcome.
    #[arg(long, ignore_case = true, value_parser = one_of([Outcome::Succeeded, Outcome::Failed].map(Outcome::as_str)))]
    pub(crate) outcome: Option<&'static str>,
    /// The most runs to list.
    #[arg(long, default_value = "20")]
    pub(crate) limit: NonZeroUsize,
    /// Below the table, the warnings of these runs and the last lines that their failed pods wrote.
    #[arg(long)]
    pub(crate) logs: bool,
}

/// Which incidents to list.
#[derive(Debug, Args)]
pub(crate) struct IncidentsArgs {
    /// Closed ones too, newest first.
    #[arg(long)]
    pub(crate) all: bool,
    /// The most incidents to list, with --all.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
    /// Below the table, what sets the failing clusters apart, and what changed before.
    #[arg(long)]
    pub(crate) details: bool,
}

/// Which clusters a command is for, and which of their checks.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// A cluster, one of its namespaces, or one check.
    #[arg(
        value_name = "CLUSTER[/NAMESPACE[/CHECK]]", value_parser = scope,
        required_unless_present_any = ["labels", "all_clusters"],
        conflicts_with_all = ["labels", "all_clusters", "namespace", "check"],
    )]
    pub(crate) scope: Option<Scope>,
    /// The clusters that have all these labels.
    #[arg(short, long = "selector", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = pair, conflicts_with = "all_clusters")]
    pub(crate) labels: Vec<(String, String)>,
    /// Every cluster.
    #[arg(long)]
    pub(crate) all_clusters: bool,
    /// Only in this namespace.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Only this check.
    #[arg(long, requires = "namespace")]
    pub(crate) check: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RunNowArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Remedies alone: the checks go on.
    #[arg(long)]
    pub(crate) remedies: bool,
    /// How long: 30m, 2h, 1h30m.
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    pub(crate) length: Duration,
    /// Why, for those who meet the pause.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Remedies alone.
    #[arg(long)]
    pub(crate) remedies: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AckArgs {
    /// The check.
    #[arg(value_name = "CLUSTER/NAMESPACE/CHECK", value_parser = check)]
    pub(crate) check: CheckName,
    /// How long at most, such as 90m, 4h or 2d.
    #[arg(long = "for", default_value = "4h", value_name = "TIME", value_parser = seconds)]
    pub(crate) seconds: u64,
    /// For people.
    #[arg(short, long = "message", default_value = "")]
    pub(crate) message: String,
}

/// Cluster, namespace and name of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckName(pub(crate) [String; 3]);

#[derive(Debug, Subcommand)]
pub(crate) enum WindowCommand {
    /// Add a window, or replace the one of that name.
    #[command(
        after_help = "Examples:\n  fleetcheck window set patch-day -l env=prod --cron '0 2 * * SUN' --tz Europe/Berlin --for 2h\n  \
        fleetcheck window set move --cluster prod-eu-1 --from 2026-03-01T10:00:00Z --to 2026-03-01T12:00:00Z"
    )]
    Set(Box<WindowArgs>),
    /// List the windows.
    #[command(visible_alias = "ls", after_help = "Examples:\n  fleetcheck window list")]
    List,
    /// Delete a window; where it is open, it ends now.
    #[command(visible_alias = "rm", after_help = "Examples:\n  fleetcheck window delete patch-day")]
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct WindowArgs {
    /// A DNS label of at most 63 characters.
    pub(crate) name: String,
    /// Only clusters with these labels: env=prod,region in (eu,us).
    #[arg(short = 'l', long, default_value = "", value_name = "LABELS")]
    pub(crate) selector: String,
    /// Only this cluster.
    #[arg(long)]
    pub(crate) cluster: Option<String>,
    /// Only checks in this namespace.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Only checks of this name.
    #[arg(long)]
    pub(crate) check: Option<String>,
    /// When it begins, once.
    #[arg(long, value_name = "RFC3339", requires = "to", conflicts_with_all = ["cron", "lasts", "tz"])]
    pub(crate) from: Option<Timestamp>,
    /// When it ends, once.
    #[arg(long, value_name = "RFC3339", requires = "from")]
    pub(crate) to: Option<Timestamp>,
    /// When it begins, again and again: five cron fields.
    #[arg(long, value_name = "EXPR", requires = "lasts", required_unless_present = "from")]
    pub(crate) cron: Option<String>,
    /// The time zone of --cron; UTC without one.
    #[arg(long, value_name = "ZONE", requires = "cron")]
    pub(crate) tz: Option<String>,
    /// How long it lasts each time, such as 90m, 4h or 2d.
    #[arg(long = "for", value_name = "TIME", requires = "cron", value_parser = seconds)]
    pub(crate) lasts: Option<u64>,
    /// For people.
    #[arg(short, long = "message", default_value = "")]
    pub(crate) message: String,
}

#[derive(Debug, Args)]
pub(crate) struct UptimeArgs {
    /// Only of these: CLUSTER, CLUSTER/NAMESPACE or CLUSTER/NAMESPACE/CHECK.
    #[arg(value_name = "CLUSTER[/NAMESPACE[/CHECK]]", value_parser = scope)]
    pub(crate) scope: Option<Scope>,
    /// Only of clusters with these labels: env=prod,region in (eu,us).
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// The time until now, 1h to 90d.
    #[arg(long, default_value = "24h", value_name = "HOURS|DAYS")]
    pub(crate) window: String,
    /// What it is summed up by: check, cluster, fleet, or label.KEY for a label of the clusters.
    #[arg(long, default_value = "check")]
    pub(crate) by: String,
    /// A service level objective, in percent such as 99.9: shows how much of the time that may be down is left.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) objective: Option<Objective>,
    /// The most lines, 1 to 1000.
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
}

/// Part of the fleet whose runs are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) cluster: String,
    pub(crate) namespace: Option<String>,
    pub(crate) check: Option<String>,
}
