//! What sets the clusters where something fails apart from those where it does not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::fleet::ClusterEntry;
use crate::view::{CheckView, Difference, LabelValue};

/// Failing clusters without which nothing is said of a fleet, only of clusters.
pub(super) const QUORUM_CLUSTERS: u32 = 3;
/// Most differences of an incident.
const MAX_DIFFERENCES: usize = 10;
/// From which correlation on a label is named.
const NAMED: f64 = 0.3;
/// From which correlation on a label explains an incident.
const EXPLAINS: f64 = 0.5;

/// A cluster that tells whether it fails.
pub(super) struct Fact<'a> {
    labels: Vec<(&'a str, Cow<'a, str>, bool)>,
    pub(super) is_failing: bool,
}

impl<'a> Fact<'a> {
    /// Of a cluster, and of a check in it.
    pub(super) fn new(entry: &'a ClusterEntry, check: Option<&CheckView>, is_failing: bool) -> Fact<'a> {
        let own = entry.view.labels.iter().map(|(label, value)| (label.as_str(), Cow::from(value), false));
        let generation =
            check.and_then(|check| check.state.definition.as_ref()).map(|from| from.generation.to_string());
        let built_in = [
            ("agentVersion", Cow::from(&entry.view.agent_version)),
            ("kubernetesVersion", Cow::from(&entry.view.kubernetes_version)),
            ("definitionGeneration", Cow::from(generation.unwrap_or_default())),
        ];
        let built_in = built_in.into_iter().map(|(label, value)| (label, value, true));
        Fact { labels: own.chain(built_in).filter(|(_, value, _)| !value.is_empty()).collect(), is_failing }
    }
}

/// Whether so many of so many are the fleet's matter.
pub(super) fn is_widespread(failing: u32, of: u32) -> bool {
    failing >= QUORUM_CLUSTERS && failing.saturating_mul(2) >= of
}

/// The labels that go with failing, the strongest first, and the one that explains it.
///
/// The measure is the phi coefficient of "has the label" and "fails" (the correlation of two yes-or-no values): 1 where
/// exactly the clusters with the label fail, 0 where it makes no difference.
pub(super) fn differences(facts: &[Fact<'_>]) -> (Vec<Difference>, Option<LabelValue>) {
    let total = count(facts.iter());
    let mut by_label = BTreeMap::<(&str, &str, bool), (u32, u32)>::new();
    for fact in facts {
        for (label, value, built_in) in &fact.labels {
            let (failing, of) = by_label.entry((label, value, *built_in)).or_default();
            *failing += u32::from(fact.is_failing);
            *of += 1;
        }
    }
    let mut found: Vec<(f64, Difference)> = by_label
        .into_iter()
        .filter(|(_, (failing, _))| *failing >= 2)
        .map(|((label, value, built_in), (failing, of))| {
            let is = LabelValue { label: label.to_owned(), value: value.to_owned() };
            let (failing_outside, of_outside) = (total.0 - failing, total.1 - of);
            let difference = Difference { is, built_in, failing, of, failing_outside, of_outside };
            (phi(&difference), difference)
        })
        .filter(|(phi, _)| *phi >= NAMED)
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.truncate(MAX_DIFFERENCES);
    let explains =
        |(phi, difference): &&(f64, Difference)| *phi >= EXPLAINS && is_widespread(difference.failing, difference.of);
    let scope = found.iter().find(explains).map(|(_, difference)| difference.is.clone());
    (found.into_iter().map(|(_, difference)| difference).collect(), scope)
}

/// Failing ones, and all.
fn count<'a>(facts: impl Iterator<Item = &'a Fact<'a>>) -> (u32, u32) {
    facts.fold((0, 0), |(failing, of), fact| (failing + u32::from(fact.is_failing), of + 1))
}

fn phi(Difference { is: _, built_in: _, failing, of, failing_outside, of_outside }: &Difference) -> f64 {
    let [a, b, c, d] = [*failing, of - failing, *failing_outside, of_outside - failing_outside].map(f64::from);
    let spread = (a + b) * (c + d) * (a + c) * (b + d);
    if spread == 0.0 { 0.0 } else { (a * d - b * c) / spread.sqrt() }
}
