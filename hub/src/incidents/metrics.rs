//! The open incidents for Prometheus.

use std::collections::BTreeSet;

use active_monitor_core::incident::Incidents;
use active_monitor_core::view::{Incident, IncidentKind};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts};

/// Open incidents that have a series of their own, worst first.
const MAX_SERIES: usize = 200;

/// The values of the labels of an incident's series.
type Labels = [String; 5];

/// The gauges and counters. Clones count together.
#[derive(Clone, Debug)]
pub struct IncidentMetrics {
    open: IntGaugeVec,
    failing: IntGaugeVec,
    /// Which series `failing` has; known to the clone that shows them.
    shown: BTreeSet<Labels>,
    unlisted: IntGauge,
    refused: IntCounter,
    lost: IntCounter,
}

impl IncidentMetrics {
    /// Every kind is there from the start.
    ///
    /// # Errors
    /// A name is wrong.
    pub fn new() -> Result<IncidentMetrics, prometheus::Error> {
        let open = IntGaugeVec::new(Opts::new("activemonitor_incidents", "Open incidents by kind."), &["kind"])?;
        for kind in IncidentKind::ALL {
            open.with_label_values(&[kind.as_str()]);
        }
        let failing = Opts::new(
            "activemonitor_incident_failing_clusters",
            "Clusters where an open incident fails; at most 200 incidents have a series, the worst ones.",
        );
        let labels = ["incident", "kind", "subject", "widespread", "silenced"];
        Ok(IncidentMetrics {
            open,
            failing: IntGaugeVec::new(failing, &labels)?,
            shown: BTreeSet::new(),
            unlisted: IntGauge::new(
                "activemonitor_incidents_without_series",
                "Open incidents beyond those that have a series of their own.",
            )?,
            refused: IntCounter::new(
                "activemonitor_hub_refused_incidents_total",
                "Incidents that were not opened since there were 1000.",
            )?,
            lost: IntCounter::new(
                "activemonitor_hub_lost_incidents_total",
                "Incidents that are missing in the history, since the store failed for too long.",
            )?,
        })
    }

    /// To be registered where they shall be seen.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let IncidentMetrics { open, failing, shown: _, unlisted, refused, lost } = self.clone();
        vec![Box::new(open), Box::new(failing), Box::new(unlisted), Box::new(refused), Box::new(lost)]
    }

    pub(super) fn show(&mut self, incidents: &Incidents) {
        let open = incidents.open();
        for kind in IncidentKind::ALL {
            let count = open.iter().filter(|incident| incident.kind == kind).count();
            self.open.with_label_values(&[kind.as_str()]).set(number(count));
        }
        let mut shown = BTreeSet::new();
        for incident in open.iter().take(MAX_SERIES) {
            let Incident { id, kind, subject, widespread, silenced, counts, .. } = &**incident;
            let flag = |value: bool| if value { "true" } else { "false" };
            let labels = [id, kind.as_str(), subject, flag(*widespread), flag(*silenced)].map(str::to_owned);
            self.failing.with_label_values(&labels).set(counts.failing.into());
            shown.insert(labels);
        }
        // Only then, so that a scrape at any moment sees what goes on.
        for ended in self.shown.difference(&shown) {
            // Err means that it is gone already.
            let _ = self.failing.remove_label_values(ended);
        }
        self.shown = shown;
        self.unlisted.set(number(open.len().saturating_sub(MAX_SERIES)));
        self.refused.inc_by(incidents.refused_total().saturating_sub(self.refused.get()));
    }

    pub(super) fn lost(&self) {
        self.lost.inc();
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus::Encoder;
    use serde_json::json;

    use super::*;

    fn incidents(open: &[(&str, u32)]) -> Incidents {
        Incidents::restore(open.iter().map(|(subject, failing)| {
            let counts = json!({"failing": failing, "healthy": 0, "unknown": 0, "failingInScope": 0, "inScope": 0});
            let at = "2026-01-01T00:00:00Z";
            serde_json::from_value(json!({
                "id": subject, "kind": "Unreachable", "subject": subject, "title": "", "widespread": false,
                "silenced": false, "flapping": false, "firstSeen": at, "lastChange": at, "counts": counts,
            }))
            .unwrap()
        }))
    }

    #[test]
    fn a_series_stays_the_same_one_while_its_incident_is_open_and_goes_with_it() {
        let mut metrics = IncidentMetrics::new().unwrap();
        metrics.show(&incidents(&[("cluster/a", 1), ("cluster/b", 1)]));
        let a = metrics.failing.with_label_values(&["cluster/a", "Unreachable", "cluster/a", "false", "false"]);
        metrics.show(&incidents(&[("cluster/a", 3)]));
        assert_eq!(a.get(), 3, "the series was made anew: a scrape in between would not have seen it");
        let mut text = Vec::new();
        prometheus::TextEncoder::new().encode(&metrics.failing.collect(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("cluster/a") && !text.contains("cluster/b"), "{text}");
    }
}
