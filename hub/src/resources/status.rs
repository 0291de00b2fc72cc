//! What became of a resource, as its status says. Pure.

use active_monitor_core::gitops::resources::Refusal;
use active_monitor_core::healthcheck::whole_seconds;
use active_monitor_core::session::frame::DefinitionResult;
use active_monitor_core::view::{DefinitionClusterStatus, DefinitionView};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::crd::{ClusterCounts, ClusterProblem, FleetHealthCheckStatus};

/// Clusters that are named.
const SHOWN: usize = 10;
/// Characters of a cluster's words, and of a condition's.
const MAX_WORDS: usize = 512;
const MAX_MESSAGE: usize = 4096;

/// What is known of a resource.
pub(super) struct Known<'a> {
    pub(super) generation: i64,
    /// Why it is not done.
    pub(super) refusal: Option<&'a Refusal>,
    /// What became of its definition.
    pub(super) view: Option<&'a DefinitionView>,
}

/// The status; of `before` only the times of conditions that stay are kept.
pub(super) fn status(
    known: &Known<'_>,
    is_selected: impl Fn(&str) -> bool,
    before: &FleetHealthCheckStatus,
    now: Timestamp,
) -> FleetHealthCheckStatus {
    let answers = known.view.filter(|_| known.refusal.is_none()).map(|view| view.clusters.as_slice());
    let answers: Vec<_> = answers.unwrap_or_default().iter().filter(|answer| is_selected(&answer.cluster)).collect();
    let clusters = count(&answers);
    let problems: Vec<_> = answers.iter().filter_map(|answer| problem(answer)).take(SHOWN).collect();
    let ready = match (known.refusal, known.view) {
        (Some(_), _) => Says::new("False", "NotAccepted", "the hub has not taken it; what it said before is in force"),
        (None, None) => Says::new("False", "Pending", "the hub takes it"),
        (None, Some(view)) if !view.message.is_empty() => Says::new("False", "HeldBack", &view.message),
        (None, Some(_)) => spread(clusters, &problems),
    };
    let accepted = match known.refusal {
        None => Says::new("True", "Accepted", ""),
        Some(Refusal::Invalid(why)) => Says::new("False", "Invalid", why),
        Some(Refusal::Conflict(why)) => Says::new("False", "Conflict", why),
        Some(Refusal::Rejected(why)) => Says::new("False", "Rejected", why),
    };
    let set = |type_, says| condition(&before.conditions, type_, says, known.generation, now);
    FleetHealthCheckStatus {
        observed_generation: Some(known.generation),
        conditions: vec![set("Accepted", accepted), set("Ready", ready)],
        clusters,
        problems,
    }
}

/// How far it has come.
fn spread(clusters: ClusterCounts, problems: &[ClusterProblem]) -> Says {
    let ClusterCounts { matched, applied, refused, pending } = clusters;
    let first = problems.first().map(|ClusterProblem { cluster, reason, message }| {
        let colon = if message.is_empty() { "" } else { ": " };
        format!("; {cluster}: {reason}{colon}{message}")
    });
    let first = first.unwrap_or_default();
    match () {
        () if matched == 0 => Says::new("True", "NoClusters", "no cluster is selected"),
        () if refused > 0 => {
            Says::new("False", "Refused", &format!("{refused} of {matched} clusters do not take it{first}"))
        }
        () if pending > 0 => Says::new("False", "Pending", &format!("{applied} of {matched} clusters have it{first}")),
        () => Says::new("True", "Applied", &format!("{applied} of {matched} clusters have it")),
    }
}

fn count(answers: &[&DefinitionClusterStatus]) -> ClusterCounts {
    let mut counts = ClusterCounts::default();
    for answer in answers {
        counts.matched += 1;
        match answer.result {
            Some(DefinitionResult::Applied) => counts.applied += 1,
            Some(DefinitionResult::Refused | DefinitionResult::Conflict) => counts.refused += 1,
            Some(DefinitionResult::Failed) | None => counts.pending += 1,
        }
    }
    counts
}

fn problem(answer: &DefinitionClusterStatus) -> Option<ClusterProblem> {
    let DefinitionClusterStatus { cluster, result, observed_generation: _, message } = answer;
    let reason = match result {
        Some(DefinitionResult::Applied) => return None,
        None if message.is_empty() => return None,
        None => "Pending",
        Some(DefinitionResult::Refused) => "Refused",
        Some(DefinitionResult::Conflict) => "Conflict",
        Some(DefinitionResult::Failed) => "Failed",
    };
    Some(ClusterProblem { cluster: cluster.clone(), reason: reason.to_owned(), message: cut(message, MAX_WORDS) })
}

/// What a condition says.
struct Says {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Says {
    fn new(status: &'static str, reason: &'static str, message: &str) -> Says {
        Says { status, reason, message: cut(message, MAX_MESSAGE) }
    }
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

fn condition(known: &[Condition], type_: &str, says: Says, generation: i64, now: Timestamp) -> Condition {
    let since = known.iter().find(|known| known.type_ == type_ && known.status == says.status);
    Condition {
        type_: type_.to_owned(),
        status: says.status.to_owned(),
        reason: says.reason.to_owned(),
        message: says.message,
        observed_generation: Some(generation),
        last_transition_time: since
            .map_or_else(|| Time(whole_seconds(now)), |known| known.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(cluster: &str, result: Option<DefinitionResult>, message: &str) -> DefinitionClusterStatus {
        DefinitionClusterStatus {
            cluster: cluster.to_owned(),
            result,
            observed_generation: 1,
            message: message.to_owned(),
        }
    }

    fn view(clusters: Vec<DefinitionClusterStatus>) -> DefinitionView {
        DefinitionView {
            name: "dns".to_owned(),
            generation: 1,
            definition: serde_json::Value::Null,
            message: String::new(),
            git: None,
            resource: None,
            clusters,
        }
    }

    /// Each condition as `Type=Status Reason message`.
    fn words(status: &FleetHealthCheckStatus) -> Vec<String> {
        let word = |c: &Condition| format!("{}={} {} {}", c.type_, c.status, c.reason, c.message).trim().to_owned();
        status.conditions.iter().map(word).collect()
    }

    fn of(view: &DefinitionView) -> FleetHealthCheckStatus {
        let known = Known { generation: 3, refusal: None, view: Some(view) };
        status(&known, |cluster| cluster != "left", &FleetHealthCheckStatus::default(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_clusters_that_it_selects_are_counted_and_those_that_do_not_have_it_are_named() {
        let applied = || answer("a", Some(DefinitionResult::Applied), "");
        let left = || answer("left", None, "no longer selected; it is being withdrawn");
        let all = of(&view(vec![applied(), left()]));
        assert_eq!(all.clusters, ClusterCounts { matched: 1, applied: 1, refused: 0, pending: 0 });
        assert_eq!(words(&all), ["Accepted=True Accepted", "Ready=True Applied 1 of 1 clusters have it"]);
        assert_eq!(all.observed_generation, Some(3));

        let waiting = of(&view(vec![applied(), answer("b", None, ""), answer("c", None, "has no label zone")]));
        assert_eq!(words(&waiting)[1], "Ready=False Pending 1 of 3 clusters have it; c: Pending: has no label zone");
        let refused = answer("d", Some(DefinitionResult::Refused), "namespaces: none");
        let refusing = of(&view(vec![applied(), answer("b", Some(DefinitionResult::Failed), "again"), refused]));
        assert_eq!(refusing.clusters, ClusterCounts { matched: 3, applied: 1, refused: 1, pending: 1 });
        assert!(
            words(&refusing)[1].starts_with("Ready=False Refused 1 of 3 clusters do not take it; b: Failed: again")
        );
        assert_eq!(refusing.problems.len(), 2);
        assert_eq!(words(&of(&view(vec![left()])))[1], "Ready=True NoClusters no cluster is selected");

        let many = (0..30).map(|n| answer(&format!("c{n}"), Some(DefinitionResult::Refused), &"x".repeat(9999)));
        let many = of(&view(many.collect()));
        assert_eq!((many.clusters.refused, many.problems.len(), many.problems[0].message.len()), (30, 10, 512));
    }

    #[test]
    fn what_is_refused_says_why_and_a_condition_keeps_its_time_while_it_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let why = Refusal::Invalid("spec.clusterSelector.matchLabel: unknown field".to_owned());
        let known = Known { generation: 1, refusal: Some(&why), view: None };
        let first = status(&known, |_| true, &FleetHealthCheckStatus::default(), at(10));
        assert_eq!(words(&first)[0], "Accepted=False Invalid spec.clusterSelector.matchLabel: unknown field");
        assert!(words(&first)[1].starts_with("Ready=False NotAccepted"));
        assert_eq!(status(&known, |_| true, &first, at(20)), first, "nothing to write");
        let view = view(Vec::new());
        let second = status(&Known { refusal: None, view: Some(&view), ..known }, |_| true, &first, at(30));
        assert_eq!(second.conditions[0].last_transition_time, Time(at(30)));
    }
}
