//! The command line: what may be given, its help and its examples. No behaviour.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use active_monitor_core::run::{Outcome, RunKind};
use active_monitor_core::view::CheckStatus;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jiff::Timestamp;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and nothing is wrong, unknown or different
  1  the command worked, and what it found is wrong, unknown or different
  2  the command could not do or ask what it should

Configuration, ~/.config/fleetcheck/config.yaml (flags and environment go before it):
  hub: https://hub.example.com:8443
  token_file: token        # relative to this file's folder
  ca_file: ca.crt";

/// Health of a fleet of Kubernetes clusters, from the command line.
#[derive(Debug, Parser)]
#[command(name = "fleetcheck", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// How results are shown.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the hub is and who asks.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct ConnectionArgs {
    /// The hub's address, such as https://hub.example.com:8443; http:// only on this machine. [env: FLEETCHECK_HUB]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) hub: Option<String>,
    /// The token's text; others on this machine can see it, so a file is better. [env: FLEETCHECK_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file that holds the token.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// CA certificates (PEM) to trust for the hub in place of the system's.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// As the hub's API says it.
    Json,
    /// The same, as YAML.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What is wrong now, worst first, and the fleet in numbers.
    #[command(after_help = "Examples:\n  fleetcheck status\n  fleetcheck status -o json\n  \
        until fleetcheck status; do sleep 5; done\n\nA cluster that is not connected makes the exit code 1: nothing is \
        known of its checks.")]
    Status,
    /// Add, list, label and remove clusters.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// List the checks, worst first.
    #[command(after_help = "Examples:\n  fleetcheck checks\n  fleetcheck checks --cluster prod-eu-1 --status failed")]
    Checks(ChecksArgs),
    /// List the runs in the history, newest first.
    #[command(after_help = "Examples:\n  fleetcheck runs\n  fleetcheck runs prod-eu-1/health/dns\n  \
        fleetcheck runs prod-eu-1 --outcome failed --limit 100")]
    Runs(RunsArgs),
    /// Send fleet definitions (FleetHealthCheck) to the hub, which sends them to the clusters.
    #[command(
        after_help = "Examples:\n  fleetcheck apply -f checks.yaml\n  fleetcheck apply -f a.yaml -f b.yaml --wait\n  \
        helm template my-checks | fleetcheck apply -f -\n\nNothing is sent when any document has a problem."
    )]
    Apply(ApplyArgs),
    /// Show what apply would change, in the definitions and in the clusters.
    #[command(
        after_help = "Examples:\n  fleetcheck diff -f checks.yaml\n\nExit code 0: no difference, 1: differences, \
        2: error."
    )]
    Diff(FilesArgs),
    /// Show fleet definitions and what became of them.
    #[command(after_help = "Examples:\n  fleetcheck get definitions\n  fleetcheck get dns\n  \
        fleetcheck get dns -o yaml > dns.yaml    # can be applied again")]
    Get(GetArgs),
    /// Delete fleet definitions; the clusters withdraw the checks that were made from them.
    #[command(after_help = "Examples:\n  fleetcheck delete dns\n  fleetcheck delete -f checks.yaml")]
    Delete(DeleteArgs),
    /// Print the next times of a schedule. Asks no hub.
    #[command(after_help = "Examples:\n  fleetcheck schedule '*/15 9-17 * * MON-FRI' --tz Europe/Berlin\n  \
        fleetcheck schedule @every\\ 1h30m --from 2026-01-01T00:00:00Z --count 3")]
    Schedule(ScheduleArgs),
    /// Find every problem in files with HealthChecks and FleetHealthChecks. Asks no hub.
    #[command(after_help = "Examples:\n  fleetcheck lint checks/*.yaml\n  fleetcheck lint -o json checks.yaml\n  \
        kubectl get hc -A -o yaml | fleetcheck lint -\n\nExit code 0: no problems, 1: problems, 2: a file could not be read.")]
    Lint(LintArgs),
    /// Print the Workflows and the RBAC objects that an agent would create for a HealthCheck. Asks no hub.
    #[command(after_help = "Examples:\n  fleetcheck render check.yaml\n  \
        fleetcheck render check.yaml | kubectl create --dry-run=server -f -")]
    Render(RenderArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:\n  source <(fleetcheck completion bash)\n  \
        fleetcheck completion zsh > ~/.zfunc/_fleetcheck")]
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Add a cluster and print the one-time token for its agent.
    #[command(after_help = "Examples:\n  fleetcheck cluster add prod-eu-1 -l env=prod,region=eu\n  \
        fleetcheck cluster add prod-eu-1 --annotation dns.zone=eu.example.com\n\nAdding a cluster again that never \
        connected gives a new token.")]
    Add {
        /// A DNS label of at most 63 characters.
        name: String,
        /// Labels, which definitions select clusters by.
        #[arg(short, long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = pair)]
        labels: Vec<(String, String)>,
        /// An annotation, which definitions can take values from. Can be repeated.
        #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
        annotations: Vec<(String, String)>,
    },
    /// List the clusters.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  fleetcheck cluster list\n  fleetcheck cluster list -o yaml"
    )]
    List,
    /// Set and remove labels. Definitions move with them.
    #[command(after_help = "Examples:\n  fleetcheck cluster label prod-eu-1 env=prod tier=gold\n  \
        fleetcheck cluster label prod-eu-1 tier-    # removes the label")]
    Label(ChangeArgs),
    /// Set and remove annotations.
    #[command(after_help = "Examples:\n  fleetcheck cluster annotate prod-eu-1 dns.zone=eu.example.com\n  \
        fleetcheck cluster annotate prod-eu-1 dns.zone-    # removes the annotation")]
    Annotate(ChangeArgs),
    /// Remove a cluster: its agent's certificate is refused from then on.
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  fleetcheck cluster remove prod-eu-1\n\nThe checks in the \
        cluster go on; the hub no longer hears of them."
    )]
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Name of the cluster.
    pub(crate) name: String,
    /// KEY=VALUE sets, KEY- removes.
    #[arg(required = true, value_name = "CHANGE", value_parser = change)]
    pub(crate) changes: Vec<(String, Option<String>)>,
}

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
}

/// Part of the fleet whose runs are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) cluster: String,
    pub(crate) namespace: Option<String>,
    pub(crate) check: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// A file of YAML documents, or - for the standard input. Can be repeated.
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
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
pub(crate) struct DeleteArgs {
    /// Names of definitions.
    #[arg(required_unless_present = "files", conflicts_with = "files", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// A file whose definitions are deleted, or - for the standard input. Can be repeated.
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
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

/// Takes one of the texts, whatever the case of its letters, and gives it as written here.
fn one_of<const N: usize>(texts: [&'static str; N]) -> impl TypedValueParser<Value = &'static str> {
    PossibleValuesParser::new(texts.map(PossibleValue::new)).try_map(move |given| {
        texts.into_iter().find(|text| text.eq_ignore_ascii_case(&given)).ok_or("not one of the possible values")
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}

fn change(text: &str) -> Result<(String, Option<String>), String> {
    match (pair(text), text.strip_suffix('-')) {
        (Ok((key, value)), _) => Ok((key, Some(value))),
        (Err(_), Some(key)) if !key.is_empty() => Ok((key.to_owned(), None)),
        (Err(_), Some(_) | None) => Err("expected KEY=VALUE or KEY-".to_owned()),
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        return Err("expected CLUSTER, CLUSTER/NAMESPACE or CLUSTER/NAMESPACE/CHECK".to_owned());
    }
    let part = |index: usize| parts.get(index).map(|part| (*part).to_owned());
    Ok(Scope { cluster: part(0).unwrap_or_default(), namespace: part(1), check: part(2) })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn changes_set_and_remove() {
        assert_eq!(change("a=b=c-"), Ok(("a".to_owned(), Some("b=c-".to_owned()))));
        assert_eq!(change("a="), Ok(("a".to_owned(), Some(String::new()))));
        assert_eq!(change("a.b/c-"), Ok(("a.b/c".to_owned(), None)));
        for bad in ["a", "-", "=b", ""] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_has_up_to_three_parts() {
        let all = scope("c/n/k").unwrap();
        assert_eq!((all.cluster.as_str(), all.namespace.as_deref(), all.check.as_deref()), ("c", Some("n"), Some("k")));
        assert_eq!(scope("c").unwrap(), Scope { cluster: "c".to_owned(), namespace: None, check: None });
        for bad in ["", "/", "c/", "c//k", "a/b/c/d"] {
            assert!(scope(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_command_has_an_example() {
        fn look(command: &clap::Command) {
            for sub in command.get_subcommands() {
                let shown = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(sub.has_subcommands() || shown.starts_with("Examples:\n  "), "{}", sub.get_name());
                look(sub);
            }
        }
        look(&Cli::command());
    }
}
