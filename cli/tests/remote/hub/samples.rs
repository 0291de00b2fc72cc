//! What a hub can have: clusters, checks, definitions, runs.

use super::*;

pub(crate) fn cluster(name: &str, status: ClusterStatus) -> ClusterView {
    ClusterView {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        status,
        message: String::new(),
        last_heard_at: None,
        agent_version: String::new(),
        kubernetes_version: String::new(),
        backlog: 0,
        dropped_reports: 0,
        refused_checks: 0,
        clock_skew_ms: 0,
        certificate_ends_at: None,
        self_test: None,
        pending_enrolment: None,
        policy: Vec::new(),
        checks: BTreeMap::new(),
    }
}

/// A definition that no cluster has.
pub(crate) fn definition(name: &str) -> DefinitionView {
    DefinitionView {
        name: name.to_owned(),
        generation: 1,
        definition: Value::Null,
        message: String::new(),
        git: None,
        resource: None,
        clusters: Vec::new(),
    }
}

pub(crate) fn check(cluster: &str, name: &str, status: CheckStatus, message: &str) -> CheckView {
    let totals = Totals { succeeded: 40, failed: 2, started_at: Some(ago(190)), finished_at: Some(ago(180)) };
    CheckView {
        cluster: cluster.to_owned(),
        status,
        overdue_seconds: if status == CheckStatus::Overdue { 600 } else { 0 },
        health: Health::default(),
        care: Care::default(),
        state: CheckState {
            uid: format!("uid-{name}"),
            namespace: "health".to_owned(),
            name: name.to_owned(),
            description: String::new(),
            phase: Phase::Succeeded,
            message: message.to_owned(),
            schedule: "@every 60s".to_owned(),
            running: None,
            next_slot: Some(now() + SignedDuration::from_secs(60)),
            timeout_seconds: 60,
            check: totals,
            remedy: None,
            remedy_status: String::new(),
            samples: Vec::new(),
            refused_samples: 0,
            pauses: Vec::new(),
            remedy_budget: None,
            depends_on: Vec::new(),
            definition: None,
        },
    }
}

pub(crate) fn ran(id: i64, cluster: &str, outcome: Outcome) -> RunView {
    let failed = outcome == Outcome::Failed;
    RunView {
        id,
        cluster: cluster.to_owned(),
        recorded_at: now(),
        run: Run {
            key: RunKey { check_uid: "uid-dns".to_owned(), kind: RunKind::HealthCheck, slot: ago(600 - id) },
            namespace: "health".to_owned(),
            name: "dns".to_owned(),
            workflow: Some("health/dns-0a1b".to_owned()),
            outcome,
            reason: failed.then_some(Reason::WorkflowFailed),
            message: if failed { "lookup failed:\x1b[2J no such host".to_owned() } else { String::new() },
            started_at: ago(600 - id),
            finished_at: ago(590 - id),
            warning: String::new(),
            log_tail: if failed { "dns-0a1b:\nlookup failed:\x1b[2J no such host".to_owned() } else { String::new() },
        },
    }
}

/// Three clusters, one of them silent, and six checks.
pub(crate) fn fleet() -> Fleet {
    let mut east = cluster("east", ClusterStatus::Connected);
    east.last_heard_at = Some(ago(2));
    (east.agent_version, east.kubernetes_version) = ("0.1.0".to_owned(), "v1.36.1".to_owned());
    east.policy =
        vec![PolicySetting::new("namespaces", "health, shop"), PolicySetting::new("remedies", "false\x1b[2J")];
    (east.clock_skew_ms, east.certificate_ends_at) = (-12, Some(now() + SignedDuration::from_hours(20)));
    east.labels = BTreeMap::from([("env".to_owned(), "prod".to_owned()), ("region".to_owned(), "eu".to_owned())]);
    east.checks = BTreeMap::from([("Failed".to_owned(), 1), ("Succeeded".to_owned(), 1), ("Overdue".to_owned(), 1)]);
    let mut west = cluster("west", ClusterStatus::Unreachable);
    (west.last_heard_at, west.message, west.backlog) = (Some(ago(4000)), "silent for longer than 15 s".to_owned(), 7);
    west.checks = BTreeMap::from([("Stale".to_owned(), 2)]);
    let new = cluster("new", ClusterStatus::Pending);
    Fleet {
        clusters: [east, west, new].into_iter().map(|cluster| (cluster.name.clone(), cluster)).collect(),
        checks: vec![
            check("east", "api", CheckStatus::Succeeded, ""),
            check("east", "dns", CheckStatus::Failed, "WorkflowFailed: no such\nhost"),
            check("east", "etcd", CheckStatus::Overdue, ""),
            check("west", "api", CheckStatus::Stale, ""),
            check("west", "dns", CheckStatus::Stale, ""),
        ],
        runs: (1..=5)
            .map(|id| {
                ran(
                    id,
                    if id == 4 { "west" } else { "east" },
                    if id == 3 { Outcome::Failed } else { Outcome::Succeeded },
                )
            })
            .collect(),
        ..Fleet::default()
    }
}
