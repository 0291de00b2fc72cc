//! The command line: what may be given, its help and its examples. No behaviour.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use active_monitor_core::run::{Outcome, RunKind};
use active_monitor_core::schedule::parse_go;
use active_monitor_core::uptime::Objective;
use active_monitor_core::view::{CheckStatus, Role};
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

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Add a cluster, or all of a file, and print the commands that install their agents.
    #[command(after_help = "Examples:\n  fleetcheck cluster add prod-eu-1 -l env=prod,region=eu\n  \
        fleetcheck cluster add prod-eu-1 --annotation dns.zone=eu.example.com\n  \
        fleetcheck cluster add -f clusters.yaml\n\nThe file:\n  clusters:\n  - name: prod-eu-1\n    labels: {env: prod}\n    \
        annotations: {dns.zone: eu.example.com}\n\nAdding a cluster again that never connected gives a new token. With a \
        file, clusters that are there get their labels and annotations and keep their tokens, so that it can be repeated.\n\n\
        With --wait the exit code is 0 once each cluster has passed its self-test, and else 1.")]
    Add {
        /// A DNS label of at most 63 characters.
        #[arg(required_unless_present = "file")]
        name: Option<String>,
        /// A file with clusters, or - for the standard input.
        #[arg(short, long, value_name = "FILE", conflicts_with_all = ["name", "labels", "annotations"])]
        file: Option<PathBuf>,
        /// Labels, which definitions select clusters by.
        #[arg(short, long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = pair)]
        labels: Vec<(String, String)>,
        /// An annotation, which definitions can take values from. Can be repeated.
        #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
        annotations: Vec<(String, String)>,
        /// Wait until the agents have connected and tested their clusters, at most this many seconds.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "3600")]
        wait: Option<u64>,
    },
    /// Let an agent that waits for approval have its certificate, where the hub asks for that (require-approval).
    #[command(
        after_help = "Examples:\n  fleetcheck cluster list                  # shows who waits, and the fingerprint of \
        its key\n  fleetcheck cluster approve prod-eu-1\n\nThe agent's log and its /readyz say the fingerprint too: compare \
        them before."
    )]
    Approve(DecideArgs),
    /// Refuse an agent that waits for approval, and whoever else has its token.
    #[command(after_help = "Examples:\n  fleetcheck cluster deny prod-eu-1")]
    Deny(DecideArgs),
    /// Have a cluster run its self-test now: a workflow without a pod, by the agent's own rights.
    #[command(
        after_help = "Examples:\n  fleetcheck cluster test prod-eu-1\n\nIt shows that the agent may make workflows and \
        that Argo carries them out. It starts no pod and pulls no image. Exit code 1: it did not pass, or was not run."
    )]
    Test {
        /// Its name.
        name: String,
    },
    /// Print a new one-time token for a cluster that is there: its agent lost its state, say.
    #[command(
        after_help = "Examples:\n  fleetcheck cluster token prod-eu-1\n\nWhat the agent has stays good until the \
        token is used. For a cluster that was rebuilt: fleetcheck cluster rebind."
    )]
    Token {
        /// Its name.
        name: String,
    },
    /// Free the name for a rebuilt cluster, and print a token for it.
    #[command(
        after_help = "Examples:\n  fleetcheck cluster rebind prod-eu-1\n\nThe session is cut, and every certificate \
        that was issued for the name is refused from then on. Labels and history stay."
    )]
    Rebind {
        /// Its name.
        name: String,
    },
    /// List the clusters.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  fleetcheck cluster list\n  fleetcheck cluster list -o yaml"
    )]
    List,
    /// Show one cluster: its link, its versions, and what its own policy lets the hub do.
    #[command(
        after_help = "Examples:\n  fleetcheck cluster show prod-eu-1\n  fleetcheck cluster show prod-eu-1 -o json"
    )]
    Show {
        /// Its name.
        name: String,
    },
    /// Set and remove labels. Definitions move with them.
    #[command(after_help = "Examples:\n  fleetcheck cluster label prod-eu-1 env=prod tier=gold\n  \
        fleetcheck cluster label prod-eu-1 tier-    # removes the label")]
    Label(ChangeArgs),
    /// Set and remove annotations.
    #[command(after_help = "Examples:\n  fleetcheck cluster annotate prod-eu-1 dns.zone=eu.example.com\n  \
        fleetcheck cluster annotate prod-eu-1 dns.zone-    # removes the annotation")]
    Annotate(ChangeArgs),
    /// Hold definitions back from a cluster: it keeps what it has, and its checks run on, until it is uncordoned.
    #[command(after_help = "Examples:\n  fleetcheck cluster cordon prod-eu-1 --reason 'node upgrade, ticket 7'\n\n\
        Nothing is pushed and nothing withdrawn. Alerts go on: for those see `fleetcheck window set`.")]
    Cordon {
        /// Its name.
        name: String,
        /// For people: who looks at a definition sees it.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a cordoned cluster have its definitions again, as they are then.
    #[command(after_help = "Examples:\n  fleetcheck cluster uncordon prod-eu-1")]
    Uncordon {
        /// Its name.
        name: String,
    },
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

/// Upon which agent is decided.
#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    /// Name of the cluster.
    pub(crate) name: String,
    /// Only if the agent's key has this fingerprint; without it, the key that waits now.
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an API token and print it; one of that name is replaced.
    #[command(after_help = "Examples:\n  fleetcheck token create prometheus --role viewer > token")]
    Create {
        /// For people and the audit log.
        name: String,
        /// What it may do.
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// List the API tokens.
    #[command(visible_alias = "ls", after_help = "Examples:\n  fleetcheck token list")]
    List,
    /// Delete an API token; it works no more at once.
    #[command(visible_alias = "rm", after_help = "Examples:\n  fleetcheck token delete prometheus")]
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// End every session of a person, at once.
    #[command(
        after_help = "Examples:\n  fleetcheck session end oidc:ann@example.com\n\nWho may still log in at the provider \
        can do so again: take the role away there first."
    )]
    End {
        /// As the audit log names them; it begins with oidc:
        person: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HubCommand {
    /// Whether the hub came back from a backup or a snapshot, and which definitions it knows less of than the clusters.
    #[command(after_help = "Examples:\n  fleetcheck hub restore\n\nExit code 1: it did, and nobody has confirmed it.")]
    Restore,
    /// Let a hub that came back push and withdraw definitions again.
    #[command(after_help = "Examples:\n  fleetcheck apply -f definitions.yaml && fleetcheck hub confirm-restore")]
    ConfirmRestore,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Where the change of the CA stands, and whom it waits for.
    #[command(after_help = "Examples:\n  fleetcheck ca status")]
    Status,
    /// Go one stage further: introduce the next CA, switch to it, forget the previous one.
    #[command(
        after_help = "Examples:\n  fleetcheck ca roll      # three times, when `fleetcheck ca status` waits for \
        nobody\n\nAgents hear of a change when they renew their certificates, within a day by default."
    )]
    Roll {
        /// Go on although clusters are waited for. Their agents must then be enrolled anew.
        #[arg(long)]
        force: bool,
    },
    /// Print every CA to trust for the hub (PEM), for --ca-file, Prometheus and browsers.
    #[command(after_help = "Examples:\n  fleetcheck ca bundle > ca.crt")]
    Bundle,
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

/// Takes one of the texts, whatever the case of its letters, and gives it as written here.
fn one_of<const N: usize>(texts: [&'static str; N]) -> impl TypedValueParser<Value = &'static str> {
    PossibleValuesParser::new(texts.map(PossibleValue::new)).try_map(move |given| {
        texts.into_iter().find(|text| text.eq_ignore_ascii_case(&given)).ok_or("not one of the possible values")
    })
}

fn role(text: &str) -> Result<Role, String> {
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    roles.into_iter().find(|role| role.as_str() == text).ok_or("expected viewer, operator or admin".to_owned())
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

fn one_check(text: &str) -> Result<Scope, String> {
    scope(text).ok().filter(|scope| scope.check.is_some()).ok_or("expected CLUSTER/NAMESPACE/CHECK".to_owned())
}

/// Whole seconds, in Go's form, or whole days.
fn length(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()?.checked_mul(86_400));
    let seconds = days.or_else(|| Some(parse_go(text)?.as_secs()));
    seconds
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or("expected a duration of a second or more, such as 30m, 1h30m or 2d".to_owned())
}

fn check(text: &str) -> Result<CheckName, String> {
    let Scope { cluster, namespace, check } = one_check(text)?;
    Ok(CheckName([cluster, namespace.unwrap_or_default(), check.unwrap_or_default()]))
}

fn seconds(text: &str) -> Result<u64, String> {
    length(text).map(|length| length.as_secs())
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
