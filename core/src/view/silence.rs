//! What keeps a check from running, from being remedied, from being known about, or from raising an alert.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{CheckView, ClusterStatus, ClusterView};
use crate::command::Subject;
use crate::state::Phase;
use crate::{ownership, report};

/// A kind of silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum SilenceKind {
    /// The hub does not hear of it: what is said of the check is old.
    Unreachable,
    /// A command paused it.
    Paused,
    /// A command paused its remedies.
    RemediesPaused,
    /// Its own specification says so: suspended, or without a schedule.
    Suspended,
    /// Another controller writes it, so that the agent does not.
    OtherController,
    /// Its specification cannot be run.
    Invalid,
    /// As many runs as allowed are in flight: it waits.
    Capacity,
    /// Its remedy has no runs left.
    RemedyLimit,
    /// It is in a maintenance window: it raises no alert.
    Maintenance,
    /// Somebody knows of it: it raises no alert.
    Acknowledged,
    /// What it depends on fails: it raises no alert.
    Explained,
}

impl SilenceKind {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            SilenceKind::Unreachable => "unreachable",
            SilenceKind::Paused => "paused",
            SilenceKind::RemediesPaused => "remediesPaused",
            SilenceKind::Suspended => "suspended",
            SilenceKind::OtherController => "otherController",
            SilenceKind::Invalid => "invalid",
            SilenceKind::Capacity => "capacity",
            SilenceKind::RemedyLimit => "remedyLimit",
            SilenceKind::Maintenance => "maintenance",
            SilenceKind::Acknowledged => "acknowledged",
            SilenceKind::Explained => "explained",
        }
    }
}

/// One reason why a check is silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Silence {
    /// Its kind.
    pub kind: SilenceKind,
    /// In words.
    pub message: String,
}

/// Everything that silences a check, as far as it is known.
pub fn silences(now: Timestamp, check: &CheckView, cluster: &ClusterView) -> Vec<Silence> {
    let mut found = Vec::new();
    let mut add = |kind, message: String| found.push(Silence { kind, message });
    if cluster.status != ClusterStatus::Connected {
        let message = format!("cluster {} is {}: {}", cluster.name, cluster.status.as_str(), cluster.message);
        add(SilenceKind::Unreachable, message);
    }
    let state = &check.state;
    let pauses = state.pauses.iter().filter(|pause| pause.until > now);
    let mut is_paused = false;
    for pause in pauses {
        is_paused |= pause.subject == Subject::Checks;
        let kind = if pause.subject == Subject::Checks { SilenceKind::Paused } else { SilenceKind::RemediesPaused };
        add(kind, pause.to_string());
    }
    match state.phase {
        Phase::Stopped if state.message.starts_with(ownership::HELD) => {
            add(SilenceKind::OtherController, state.message.clone());
        }
        Phase::Stopped if !is_paused => add(SilenceKind::Suspended, state.message.clone()),
        Phase::Invalid => add(SilenceKind::Invalid, state.message.clone()),
        Phase::Pending | Phase::Succeeded | Phase::Failed if state.message.contains(report::WAITING) => {
            add(SilenceKind::Capacity, state.message.clone());
        }
        Phase::Pending | Phase::Succeeded | Phase::Failed | Phase::Stopped => {}
    }
    if let Some(window) = &check.care.maintenance {
        add(SilenceKind::Maintenance, format!("in the maintenance window {window}: no alert is raised"));
    }
    if let Some(known) = check.care.acknowledgement.as_ref().filter(|known| known.expires_at > now) {
        let comment = if known.comment.is_empty() { String::new() } else { format!(": {}", known.comment) };
        let until = format!("until it succeeds, {:.0} at the latest", known.expires_at);
        add(SilenceKind::Acknowledged, format!("acknowledged by {}, {until}{comment}", known.by));
    }
    if let Some(parent) = &check.care.explained_by {
        add(SilenceKind::Explained, format!("{parent}, which it depends on, fails: no alert is raised"));
    }
    if let Some(budget) = state.remedy_budget.filter(|budget| budget.left == 0) {
        let again = match budget.resets_at {
            Some(at) if at <= now => return found,
            Some(at) => format!("a failure from {at:.0} on is remedied again"),
            None => "only a success of the check brings new ones".to_owned(),
        };
        add(SilenceKind::RemedyLimit, format!("its remedy has run {} times, its limit; {again}", budget.limit));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::care::{Acknowledgement, Care};
    use crate::command::{Pause, Scope};
    use crate::health::Health;
    use crate::session::simulation::check as state;
    use crate::state::RemedyBudget;
    use crate::view::CheckStatus;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cluster(status: ClusterStatus) -> ClusterView {
        ClusterView {
            name: "eu-1".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            status,
            message: "silent for longer than the lease".into(),
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

    fn kinds(check: &CheckView, status: ClusterStatus) -> Vec<SilenceKind> {
        silences(at(100), check, &cluster(status)).into_iter().map(|silence| silence.kind).collect()
    }

    #[test]
    fn everything_that_silences_a_check_is_named() {
        use ClusterStatus::{Connected, Unreachable};
        use SilenceKind as Kind;
        let well = CheckView {
            cluster: "eu-1".into(),
            status: CheckStatus::Succeeded,
            overdue_seconds: 0,
            health: Health::default(),
            care: Care::default(),
            state: state("dns", 1),
        };
        assert_eq!(kinds(&well, Connected), []);
        assert_eq!(kinds(&well, Unreachable), [Kind::Unreachable]);
        let with = |phase, message: String| {
            let mut check = well.clone();
            (check.state.phase, check.state.message) = (phase, message);
            check
        };
        let held = ownership::Hold { manager: "active-monitor".into(), wrote: at(1), until: at(2) };
        assert_eq!(kinds(&with(Phase::Stopped, held.to_string()), Connected), [Kind::OtherController]);
        assert_eq!(
            kinds(&with(Phase::Stopped, "suspended: spec.suspend is true".into()), Connected),
            [Kind::Suspended]
        );
        assert_eq!(kinds(&with(Phase::Invalid, "spec.workflow: missing".into()), Connected), [Kind::Invalid]);
        let waits = format!("{} since {}", report::WAITING, at(1));
        assert_eq!(kinds(&with(Phase::Failed, waits), Connected), [Kind::Capacity]);

        let pause = |subject, until| {
            let (reason, by) = ("release".into(), "ann".into());
            Pause { id: "1".into(), subject, scope: Scope::default(), until: at(until), reason, by }
        };
        let mut paused = with(Phase::Stopped, "paused".into());
        paused.state.pauses = vec![pause(Subject::Checks, 101), pause(Subject::Remedies, 101)];
        assert_eq!(kinds(&paused, Connected), [Kind::Paused, Kind::RemediesPaused]);
        let mut over = well.clone();
        over.state.pauses = vec![pause(Subject::Checks, 100)];
        assert_eq!(kinds(&over, Connected), [], "a pause that has ended silences nothing, however old the knowledge");

        let mut cared_for = well.clone();
        let (by, comment) = ("ann".to_owned(), "ticket 7".to_owned());
        let acknowledgement = Some(Acknowledgement { by, comment, at: at(1), expires_at: at(101) });
        cared_for.care = Care { maintenance: Some("patch-day".into()), acknowledgement, ..Care::default() };
        assert_eq!(kinds(&cared_for, Connected), [Kind::Maintenance, Kind::Acknowledged]);

        let budget = |left, resets_at| {
            let mut check = well.clone();
            check.state.remedy_budget = Some(RemedyBudget { limit: 3, left, resets_at });
            kinds(&check, Connected)
        };
        assert_eq!(budget(1, None), []);
        assert_eq!(budget(0, None), [Kind::RemedyLimit]);
        assert_eq!(budget(0, Some(at(101))), [Kind::RemedyLimit]);
        assert_eq!(budget(0, Some(at(100))), []);
    }
}
