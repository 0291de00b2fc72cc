//! The command line: what may be given, its help and its examples. No behaviour.

mod checks;
mod files;
mod fleet;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use self::checks::{
    AckArgs, CheckName, ChecksArgs, IncidentsArgs, PauseArgs, ResumeArgs, RunNowArgs, RunsArgs, Scope, TargetArgs,
    UptimeArgs, WindowArgs, WindowCommand,
};
pub(crate) use self::files::{
    ApplyArgs, DeleteArgs, DiffArgs, DoctorArgs, EditArgs, GetArgs, LintArgs, RenderArgs, ScheduleArgs,
};
pub(crate) use self::fleet::{
    CaCommand, ChangeArgs, ClusterCommand, DecideArgs, HubCommand, SessionCommand, TokenCommand,
};
use self::values::{check, one_check};

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
    /// Make, list and delete API tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// End sessions of people who log in at the OpenID provider.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Show who changed what, newest first.
    #[command(after_help = "Examples:\n  fleetcheck audit\n  fleetcheck audit --limit 1000 -o json")]
    Audit {
        /// The most lines, 1 to 1000.
        #[arg(long, default_value = "20", value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Show the hub's CA and change it for another, without locking an agent out.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Whether the hub came back from the past, and confirm it.
    #[command(subcommand)]
    Hub(HubCommand),
    /// List the checks, worst first.
    #[command(after_help = "Examples:\n  fleetcheck checks\n  fleetcheck checks --cluster prod-eu-1 --status failed")]
    Checks(ChecksArgs),
    /// List the runs in the history, newest first.
    #[command(after_help = "Examples:\n  fleetcheck runs\n  fleetcheck runs prod-eu-1/health/dns\n  \
        fleetcheck runs prod-eu-1 --outcome failed --limit 100")]
    Runs(RunsArgs),
    /// List what is wrong, once however many clusters it is wrong in: the open incidents, worst first.
    #[command(after_help = "Examples:\n  fleetcheck incidents --details\n  fleetcheck incidents --all --limit 100")]
    Incidents(IncidentsArgs),
    /// Run a check now, out of schedule.
    #[command(after_help = "Examples:\n  fleetcheck run prod-eu-1/health/dns\n  \
        fleetcheck run -l region=eu -n health --check dns\n\nExit code 1: some cluster does not do it; the table says why.")]
    Run(RunNowArgs),
    /// Pause checks, or remedies alone, for a time. Each cluster's own configuration says whether it obeys, and how long.
    #[command(after_help = "Examples:\n  fleetcheck pause prod-eu-1/health/dns --for 30m --reason 'new resolver'\n  \
        fleetcheck pause prod-eu-1 --for 1h\n  fleetcheck pause --remedies -l region=eu --for 2h --reason 'network work'\n\n\
        A run in flight goes on to its end. What passes meanwhile is made up by one run. Exit code 1: some cluster does \
        not do it; the table says why.")]
    Pause(PauseArgs),
    /// End pauses of checks, or of remedies.
    #[command(after_help = "Examples:\n  fleetcheck resume prod-eu-1/health/dns\n  \
        fleetcheck resume --remedies -l region=eu\n\nEvery pause within what is named ends; a wider one goes on, and the \
        table says so.")]
    Resume(ResumeArgs),
    /// Say everything that is known of a check: its runs and the last log, what its remedy may still do, when it runs next,
    /// what silences it, and how old that knowledge is.
    #[command(
        after_help = "Examples:\n  fleetcheck why prod-eu-1/health/dns\n  fleetcheck why prod-eu-1/health/dns -o json"
    )]
    Why {
        /// Which check.
        #[arg(value_name = "CLUSTER/NAMESPACE/CHECK", value_parser = one_check)]
        check: Scope,
    },
    /// Say that you know what is wrong with a check: it raises no alert until it succeeds again, or the time is over.
    #[command(after_help = "Examples:\n  fleetcheck ack prod-eu-1/health/dns --for 4h -m 'ticket 7'")]
    Ack(AckArgs),
    /// Take an acknowledgement back.
    #[command(after_help = "Examples:\n  fleetcheck unack prod-eu-1/health/dns")]
    Unack {
        /// The check.
        #[arg(value_name = "CLUSTER/NAMESPACE/CHECK", value_parser = check)]
        check: CheckName,
    },
    /// Maintenance windows: checks in one raise no alert, and its time is left out of their uptime.
    #[command(subcommand)]
    Window(WindowCommand),
    /// How much of a time checks were up, the lowest first.
    #[command(
        after_help = "Examples:\n  fleetcheck uptime --window 30d\n  fleetcheck uptime prod-eu-1/health/dns --window 90d\n  \
        fleetcheck uptime --by label.region -l env=prod\n  fleetcheck uptime --by cluster --window 30d --objective 99.9\n\nA run that did not happen counts against it. What nobody knew, \
        because agent or hub was away, is counted apart."
    )]
    Uptime(UptimeArgs),
    /// Send fleet definitions (FleetHealthCheck) to the hub, which sends them to the clusters.
    #[command(
        after_help = "Examples:\n  fleetcheck apply -f checks.yaml\n  fleetcheck apply -f a.yaml -f b.yaml --wait\n  \
        helm template my-checks | fleetcheck apply -f -\n\nNothing is sent when any document has a problem."
    )]
    Apply(ApplyArgs),
    /// Show what apply, or the hub's watched folder, would change: definitions and what it means for each cluster, labels of
    /// clusters, windows, routes of alerts. Changes nothing.
    #[command(
        after_help = "Examples:\n  fleetcheck diff -f checks.yaml\n  fleetcheck diff --prune $(printf -- '-f %s ' fleet/*.yaml)\n  \
        fleetcheck diff --routes alerts/routes.yaml\n\nExit code 0: no difference, 1: differences, 2: error."
    )]
    Diff(DiffArgs),
    /// Show fleet definitions and what became of them.
    #[command(after_help = "Examples:\n  fleetcheck get definitions\n  fleetcheck get dns\n  \
        fleetcheck get dns -o yaml > dns.yaml    # can be applied again")]
    Get(GetArgs),
    /// Change a fleet definition in $VISUAL or $EDITOR. Where somebody else changed it meanwhile, nothing is overwritten.
    #[command(after_help = "Examples:\n  fleetcheck edit dns\n  EDITOR='code --wait' fleetcheck edit dns\n\n\
        What cannot be applied stays in a file, whose name is printed.")]
    Edit(EditArgs),
    /// Delete fleet definitions; the clusters withdraw the checks that were made from them.
    #[command(after_help = "Examples:\n  fleetcheck delete dns\n  fleetcheck delete -f checks.yaml")]
    Delete(DeleteArgs),
    /// Say what would happen in a cluster if the agent ran its HealthChecks. Asks the cluster, not the hub; changes nothing.
    #[command(after_help = "Examples:\n  fleetcheck doctor\n  fleetcheck doctor --context prod-eu-1\n  \
        fleetcheck doctor --context prod-eu-1 -o json\n\nExit code 0: nothing in the way, 1: something to look at, \
        2: the cluster could not be asked.")]
    Doctor(DoctorArgs),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::values::{change, length, scope, seconds};
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
    fn a_command_says_which_clusters_and_a_pause_how_long() {
        let parses = |args: &[&str]| Cli::try_parse_from([&["fleetcheck"], args].concat()).is_ok();
        for good in [
            &["run", "c/n/k"][..],
            &["pause", "c", "--for", "2h"],
            &["pause", "--remedies", "-l", "region=eu,env=prod", "--for", "1h30m", "--reason", "x"],
            &["resume", "--all-clusters", "-n", "health"],
            &["why", "c/n/k"],
        ] {
            assert!(parses(good), "{good:?}");
        }
        for bad in [
            &["run"][..],
            &["run", "c/n/k", "-l", "a=b"],
            &["resume", "--all-clusters", "-l", "a=b"],
            &["resume", "c", "--check", "k"],
            &["pause", "c"],
            &["pause", "c", "--for", "0s"],
            &["pause", "c", "--for", "soon"],
            &["why", "c/n"],
        ] {
            assert!(!parses(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_length_has_a_unit() {
        for (text, expected) in [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172_800)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "h", "0h", "-1h", "4", "1.5d", "99999999999999999999d"] {
            assert!(length(bad).is_err(), "{bad}");
        }
        assert_eq!(check("c/n/k"), Ok(CheckName(["c", "n", "k"].map(str::to_owned))));
        assert!(check("c/n").is_err() && check("c").is_err());
    }

    #[test]
    fn a_window_is_once_or_again_and_again() {
        let parses =
            |args: &[&str]| Cli::try_parse_from([&["fleetcheck", "window", "set", "x"], args].concat()).is_ok();
        let (from, to) = (["--from", "2026-03-01T11:00:00Z"], ["--to", "2026-03-01T12:00:00Z"]);
        let (cron, lasts) = (["--cron", "@daily"], ["--for", "1h"]);
        assert!(parses(&[from, to].concat()) && parses(&[cron, lasts].concat()));
        assert!(parses(&[cron, lasts, ["--tz", "UTC"]].concat()));
        for bad in [
            &[][..],
            &from,
            &to,
            &cron,
            &lasts,
            &[from, to, cron, lasts].concat(),
            &[from, to, ["--tz", "UTC"]].concat(),
        ] {
            assert!(!parses(bad), "{bad:?}");
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
