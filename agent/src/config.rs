//! The agent's flags. Each can also be given as an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;

use active_monitor_core::policy::Policy;
use active_monitor_runtime::logging::LogFormat;
use clap::Parser;

use crate::journal::DEFAULT_MAX_BYTES;

/// Runs the HealthChecks of a Kubernetes cluster, and tells the hub about them.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "active-monitor-agent",
    version,
    after_help = "Examples:
  # In the cluster, without a hub:
  active-monitor-agent --state-dir /var/lib/active-monitor-agent

  # Outside of it, joining a hub with the token that `fleetcheck cluster add` printed:
  active-monitor-agent --kubeconfig agent.kubeconfig --state-dir ./state \\
      --hub-address hub.example.com:7443 --enrolment-address hub.example.com:7444 --token-file token"
)]
pub struct Config {
    /// Kubeconfig to use instead of the pod's own service account.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Directory for the journal and the agent's key; it must survive restarts.
    #[arg(long, env = "ACTIVE_MONITOR_STATE_DIR", default_value = "/var/lib/active-monitor-agent")]
    pub state_dir: PathBuf,
    /// Bytes that the journal may take on disk.
    #[arg(long, env = "ACTIVE_MONITOR_JOURNAL_MAX_BYTES", default_value_t = DEFAULT_MAX_BYTES)]
    pub journal_max_bytes: u64,
    /// host:port of the hub for sessions. Without it the agent works alone.
    #[arg(long, env = "ACTIVE_MONITOR_HUB_ADDRESS", requires = "enrolment_address")]
    pub hub_address: Option<String>,
    /// host:port of the hub for enrolment.
    #[arg(long, env = "ACTIVE_MONITOR_ENROLMENT_ADDRESS", requires = "hub_address")]
    pub enrolment_address: Option<String>,
    /// One-time token, needed only until the agent has a certificate.
    #[arg(long, env = "ACTIVE_MONITOR_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub token: Option<String>,
    /// File with the one-time token.
    #[arg(long, env = "ACTIVE_MONITOR_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Namespace that the hub may push HealthChecks to, and their workflows may run in; repeatable. None by default.
    #[arg(long = "definitions-namespace", env = "ACTIVE_MONITOR_DEFINITIONS_NAMESPACES", value_delimiter = ',')]
    pub definitions_namespaces: Vec<String>,
    /// Let pushed HealthChecks carry a remedy.
    #[arg(long, env = "ACTIVE_MONITOR_DEFINITIONS_REMEDIES")]
    pub definitions_remedies: bool,
    /// Let workflows be fetched from private, link-local and loopback addresses.
    #[arg(long, env = "ACTIVE_MONITOR_SOURCE_ALLOW_PRIVATE")]
    pub source_allow_private: bool,
    /// Address of /metrics.
    #[arg(long, env = "ACTIVE_MONITOR_METRICS_BIND_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_bind_address: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "ACTIVE_MONITOR_HEALTH_PROBE_BIND_ADDRESS", default_value = "0.0.0.0:8081")]
    pub health_probe_bind_address: SocketAddr,
    /// HealthChecks that are looked at side by side. No worker waits for a workflow, so this bounds requests under way.
    #[arg(long, env = "ACTIVE_MONITOR_MAX_WORKERS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_workers: u16,
    /// Shape of the log: text or json.
    #[arg(long, env = "ACTIVE_MONITOR_LOG_FORMAT", value_enum, default_value_t = LogShape::Json)]
    pub log_format: LogShape,
}

/// Shape of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogShape {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogShape> for LogFormat {
    fn from(shape: LogShape) -> LogFormat {
        match shape {
            LogShape::Text => LogFormat::Text,
            LogShape::Json => LogFormat::Json,
        }
    }
}

impl Config {
    /// What the hub may push.
    pub fn policy(&self) -> Policy {
        Policy {
            namespaces: self.definitions_namespaces.iter().cloned().collect(),
            remedies: self.definitions_remedies,
        }
    }
}
