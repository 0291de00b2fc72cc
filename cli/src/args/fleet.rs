//! The fleet itself: clusters, tokens, sessions, the hub, its CA.

use std::path::PathBuf;

use active_monitor_core::view::Role;
use clap::{Args, Subcommand};

use super::values::{change, pair, role};

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
