//! The agent's flags. Each can also be given as an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use active_monitor_core::capacity::Limits;
use active_monitor_core::command::{Kind, Obedience};
use active_monitor_core::manifest::policy::{Privilege, SourcePolicy};
use active_monitor_core::names;
use active_monitor_core::policy::{Policy, PolicySetting};
use active_monitor_core::scope::Scope;
use active_monitor_runtime::logging::LogFormat;
use anyhow::Context as _;
use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;

use crate::endpoints::Security;
use crate::journal::DEFAULT_MAX_BYTES;
use crate::ownership::{Mode, Remedies};
use crate::source::{Addresses, SourceConfig};

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
    /// YAML file with all that the hub may push, in place of the two flags before; docs/definitions.md has its fields.
    #[arg(long, env = "ACTIVE_MONITOR_POLICY_FILE", conflicts_with_all = ["definitions_namespaces", "definitions_remedies"])]
    pub policy_file: Option<PathBuf>,
    /// Commands of the hub that are obeyed; repeatable. None of them starts a remedy.
    #[arg(
        long = "obey",
        env = "ACTIVE_MONITOR_OBEY",
        value_enum,
        value_delimiter = ',',
        default_value = "run-now,pause,pause-remedies,self-test"
    )]
    pub obey: Vec<Obeyed>,
    /// The longest that a command of the hub may pause anything.
    #[arg(long, env = "ACTIVE_MONITOR_LONGEST_PAUSE_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=720))]
    pub longest_pause_hours: u16,
    /// Let workflows be fetched from private, link-local and loopback addresses.
    #[arg(long, env = "ACTIVE_MONITOR_SOURCE_ALLOW_PRIVATE")]
    pub source_allow_private: bool,
    /// Elect a leader among several agents of one cluster by a Lease in the agent's namespace: one acts, the others
    /// stand by.
    #[arg(long, env = "ACTIVE_MONITOR_LEADER_ELECT")]
    pub leader_elect: bool,
    /// Seconds after which a leader that is not heard of is replaced.
    #[arg(long, env = "ACTIVE_MONITOR_LEADER_ELECT_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(5..=300))]
    pub leader_elect_lease_seconds: u16,
    /// Secret in the agent's namespace that shares key and certificate between replicas; it must exist.
    #[arg(long, env = "ACTIVE_MONITOR_IDENTITY_SECRET", requires = "leader_elect")]
    pub identity_secret: Option<String>,
    /// Namespace to work in, without any right beyond; repeatable. The whole cluster by default.
    #[arg(long, env = "ACTIVE_MONITOR_WATCH_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,
    /// Whether this agent runs the checks, or only reports what another controller makes of them and changes nothing.
    #[arg(long, env = "ACTIVE_MONITOR_MODE", value_enum, default_value_t = Mode::Act)]
    pub mode: Mode,
    /// Whether remedies run; `observe` says of each what would have run.
    #[arg(long, env = "ACTIVE_MONITOR_REMEDIES", value_enum, default_value_t = Remedies::On)]
    pub remedies: Remedies,
    /// Network (CIDR) that workflows may be fetched from though it be private; repeatable.
    #[arg(long = "source-allow-cidr", env = "ACTIVE_MONITOR_SOURCE_ALLOW_CIDRS", value_delimiter = ',')]
    pub source_allow_cidrs: Vec<IpNet>,
    /// Network (CIDR) that no workflow may be fetched from, such as those of services and pods; repeatable.
    #[arg(long = "source-deny-cidr", env = "ACTIVE_MONITOR_SOURCE_DENY_CIDRS", value_delimiter = ',')]
    pub source_deny_cidrs: Vec<IpNet>,
    /// PEM file with certificate authorities that sources' servers are trusted by, beside the system's.
    #[arg(long, env = "ACTIVE_MONITOR_SOURCE_CA_FILE")]
    pub source_ca_file: Option<PathBuf>,
    /// Refuse URLs with `verifyCert: false`.
    #[arg(long, env = "ACTIVE_MONITOR_SOURCE_VERIFY_ALWAYS")]
    pub source_verify_always: bool,
    /// Folder that `source.file` is read from. None by default: then such checks are refused.
    #[arg(long, env = "ACTIVE_MONITOR_SOURCE_DIR")]
    pub source_dir: Option<PathBuf>,
    /// What workflows may ask for beyond ordinary pods of their check's account; repeatable. Nothing by default.
    #[arg(long = "workflow-allow", env = "ACTIVE_MONITOR_WORKFLOW_ALLOW", value_delimiter = ',', value_parser = privilege())]
    pub workflow_allow: Vec<Privilege>,
    /// Keep the last lines of failed pods' logs in the records of runs, which go to the hub.
    #[arg(long, env = "ACTIVE_MONITOR_LOG_TAILS", default_value_t = true, action = clap::ArgAction::Set)]
    pub log_tails: bool,
    /// Address of /metrics.
    #[arg(long, env = "ACTIVE_MONITOR_METRICS_BIND_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_bind_address: SocketAddr,
    /// Serve /metrics over TLS; with a certificate that the agent signs itself, unless --metrics-cert-dir names one.
    #[arg(long, env = "ACTIVE_MONITOR_METRICS_SECURE")]
    pub metrics_secure: bool,
    /// Folder with tls.crt and tls.key for /metrics; read again as they change.
    #[arg(long, env = "ACTIVE_MONITOR_METRICS_CERT_DIR", requires = "metrics_secure")]
    pub metrics_cert_dir: Option<PathBuf>,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "ACTIVE_MONITOR_HEALTH_PROBE_BIND_ADDRESS", default_value = "0.0.0.0:8081")]
    pub health_probe_bind_address: SocketAddr,
    /// HealthChecks that are looked at side by side. No worker waits for a workflow, so this bounds requests under way,
    /// and with them connections: some 50 KiB each.
    #[arg(long, env = "ACTIVE_MONITOR_MAX_WORKERS", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_workers: u16,
    /// Runs in flight in the whole cluster, checks and remedies; what is due beyond that waits. 0 is no limit.
    #[arg(long, env = "ACTIVE_MONITOR_MAX_RUNS_IN_FLIGHT", default_value_t = 500)]
    pub max_runs_in_flight: u32,
    /// Runs in flight of the HealthChecks of one namespace. 0 is no limit of their own.
    #[arg(long, env = "ACTIVE_MONITOR_MAX_RUNS_IN_FLIGHT_PER_NAMESPACE", default_value_t = 250)]
    pub max_runs_in_flight_per_namespace: u32,
    /// Shape of the log: text or json.
    #[arg(long, env = "ACTIVE_MONITOR_LOG_FORMAT", value_enum, default_value_t = LogShape::Json)]
    pub log_format: LogShape,
}

fn namespace(text: &str) -> Result<String, &'static str> {
    names::dns_label(text).map(|()| text.to_owned())
}

fn privilege() -> impl TypedValueParser<Value = Privilege> {
    let names = PossibleValuesParser::new(Privilege::ALL.map(Privilege::as_str));
    names.try_map(|name| Privilege::ALL.into_iter().find(|known| known.as_str() == name).ok_or("unknown"))
}

/// A kind of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Obeyed {
    /// A run of one check out of schedule.
    RunNow,
    /// A pause of checks and their remedies, which ends by itself.
    Pause,
    /// A pause of remedies alone, which ends by itself.
    PauseRemedies,
    /// A workflow that shows whether this cluster can run a check, as at the end of an enrolment.
    SelfTest,
    /// Nothing.
    None,
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
    /// Where this agent works.
    pub fn scope(&self) -> Scope {
        Scope::of(&self.watch_namespaces)
    }

    /// How many runs may be in flight.
    pub fn limits(&self) -> Limits {
        let limit = |n: u32| usize::try_from(n).ok().filter(|n| *n > 0);
        Limits { cluster: limit(self.max_runs_in_flight), namespace: limit(self.max_runs_in_flight_per_namespace) }
    }

    /// How /metrics is served.
    pub fn metrics_security(&self) -> Security {
        match (&self.metrics_cert_dir, self.metrics_secure) {
            (Some(folder), true) => Security::Folder(folder.clone()),
            (None, true) => Security::SelfSigned,
            (_, false) => Security::None,
        }
    }

    /// Where sources may come from.
    pub fn sources(&self) -> SourceConfig {
        let (allowed, denied) = (self.source_allow_cidrs.clone(), self.source_deny_cidrs.clone());
        SourceConfig {
            addresses: Addresses { allow_private: self.source_allow_private, allowed, denied },
            ca_file: self.source_ca_file.clone(),
            dir: self.source_dir.clone(),
            copies: Some(self.state_dir.join("sources")),
        }
    }

    /// What sources may be.
    pub fn source_policy(&self) -> SourcePolicy {
        SourcePolicy {
            allowed: self.workflow_allow.iter().copied().collect(),
            files: self.source_dir.is_some(),
            unverified: !self.source_verify_always,
        }
    }

    /// Which commands of the hub are obeyed.
    pub fn obedience(&self) -> Obedience {
        let kind = |obeyed: &Obeyed| match obeyed {
            Obeyed::RunNow => Some(Kind::RunNow),
            Obeyed::Pause => Some(Kind::Pause),
            Obeyed::PauseRemedies => Some(Kind::PauseRemedies),
            Obeyed::SelfTest => Some(Kind::SelfTest),
            Obeyed::None => None,
        };
        let longest_pause = Duration::from_secs(u64::from(self.longest_pause_hours) * 3600);
        Obedience { kinds: self.obey.iter().filter_map(kind).collect(), longest_pause }
    }

    /// What the hub may push.
    ///
    /// # Errors
    /// The file of `--policy-file` cannot be read, says what makes no sense, or opens a namespace that this agent does
    /// not work in.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        let policy = match &self.policy_file {
            None => Policy {
                namespaces: self.definitions_namespaces.iter().cloned().collect(),
                remedies: self.definitions_remedies,
                ..Policy::default()
            },
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("--policy-file: cannot read {}", path.display()))?;
                Policy::parse(&text).map_err(|why| anyhow::anyhow!("--policy-file: {}: {why}", path.display()))?
            }
        };
        let scope = self.scope();
        match policy.namespaces.iter().find(|namespace| !scope.includes(namespace)) {
            None => Ok(policy),
            Some(outside) => {
                anyhow::bail!("the namespace {outside}, open to the hub, is not among --watch-namespaces")
            }
        }
    }

    /// What the hub may push and ask, in words for those who look at the cluster there.
    pub fn settings(&self, policy: &Policy) -> Vec<PolicySetting> {
        match self.mode {
            Mode::Act => [policy.settings(), self.obedience().settings()].concat(),
            Mode::Observe => vec![PolicySetting::new("mode", "observe: nothing is pushed, and no command obeyed")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from(["agent"].iter().chain(flags))
    }

    #[test]
    fn the_hub_is_told_what_it_may_push_and_ask() {
        let told = |flags: &[&str]| {
            let config = config(flags).unwrap();
            let settings = config.settings(&config.policy().unwrap()).into_iter();
            settings.map(|PolicySetting { name, value }| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let all = told(&["--definitions-namespace=health", "--obey=run-now"]);
        assert_eq!(
            (all[0].as_str(), all.last().unwrap().as_str(), all.len()),
            ("namespaces=health", "obey=run-now", 9)
        );
        assert_eq!(told(&["--mode=observe"]), ["mode=observe: nothing is pushed, and no command obeyed"]);
    }

    #[test]
    fn the_policy_is_the_files_or_the_flags_and_never_a_mix() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.yaml");
        let path = file.to_str().unwrap();
        let flags = config(&["--definitions-namespace=health,shop", "--definitions-remedies"]).unwrap();
        let policy = flags.policy().unwrap();
        assert!(policy.namespaces.len() == 2 && policy.remedies && policy.max_checks == Policy::default().max_checks);
        assert!(config(&["--definitions-remedies", "--policy-file", path]).is_err());

        let given = config(&["--watch-namespaces=health", "--policy-file", path]).unwrap();
        assert!(given.policy().unwrap_err().to_string().starts_with("--policy-file: cannot read"));
        for (text, says) in [
            ("namespaces: [health]\nmaxChecks: 3", ""),
            ("namespaces: [health]\nmaxCheck: 3", "unknown field `maxCheck`"),
            ("namespaces: [shop]", "the namespace shop, open to the hub, is not among --watch-namespaces"),
        ] {
            std::fs::write(&file, text).unwrap();
            match given.policy() {
                Ok(policy) => assert!(says.is_empty() && policy.max_checks == 3),
                Err(error) => assert!(!says.is_empty() && error.to_string().contains(says), "{error}"),
            }
        }
    }
}
