//! What a cluster's audit log says of its agent, as a function of requests and checks: no clock, no cluster.
//!
//! The names of workflows follow from their check and slot, and the slots from the check: so each slot has its workflow
//! looked for by name, whatever the agent says of it.

use std::collections::{BTreeMap, HashMap};

use active_monitor_core::check::Check;
use active_monitor_core::manifest::workflow_name;
use active_monitor_core::run::{RunKey, RunKind};
use jiff::Timestamp;

use super::stats::median;
use crate::audit::{Event, ObjectRef};

/// The agent in the audit log.
const AGENT: &str = "system:serviceaccount:active-monitor:active-monitor-agent";

/// The part of a window, at its beginning and at its end, whose medians are compared.
const DRIFT_PART: usize = 5;

/// The requests that matter.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Workflow -> when its create came in, and was done.
    created: HashMap<String, (Timestamp, Timestamp)>,
    /// Workflow -> when each write of its controller came in, and was done.
    carried: HashMap<String, Vec<(Timestamp, Timestamp)>>,
    /// Check -> when each write of its status came in, and was done.
    statuses: HashMap<String, BTreeMap<Timestamp, Timestamp>>,
    /// Every other write of the agent, and every read.
    others: Vec<Other>,
}

#[derive(Debug)]
struct Other {
    at: Timestamp,
    is_write: bool,
}

/// What became of the slots within a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Slots that have a workflow.
    pub(super) runs: usize,
    /// Slots that have none.
    pub(super) missed: usize,
    /// Runs whose end is not in a status yet.
    pub(super) open: usize,
    /// Writes of the agent a run: the workflow, the check's status, and whatever else there was in the window.
    pub(super) writes: f64,
    /// Gets and lists of the agent a run.
    pub(super) reads: f64,
    /// Writes a run of whoever carried the workflows out.
    pub(super) carried: f64,
    /// From each slot to its create, milliseconds.
    pub(super) late_ms: Vec<f64>,
    /// The median of that at the end of the window less that at its beginning.
    pub(super) drift_ms: f64,
    /// From the request that ended a workflow until the check's status was written, milliseconds.
    pub(super) status_ms: Vec<f64>,
    /// Of that, from when the one was done until the other came in: the API server's watch, and the agent.
    pub(super) noticed_ms: Vec<f64>,
    /// From when a workflow's create was done until its controller's first write came in: the API server's watch, and
    /// the controller.
    pub(super) taken_up_ms: Vec<f64>,
}

impl Log {
    /// Takes in a request.
    pub(super) fn add(&mut self, event: &Event) {
        let at = event.request_received_timestamp;
        let done = event.code().is_some_and(|code| (200..300).contains(&code));
        let nothing = ObjectRef::default();
        let ObjectRef { resource, name, subresource, .. } = event.object_ref.as_ref().unwrap_or(&nothing);
        let (by_agent, verb) = (event.user.username == AGENT, event.verb.as_str());
        match (resource.as_str(), subresource.as_str(), verb) {
            ("workflows", "", "create") if by_agent && done => {
                self.created.insert(name.clone(), (at, event.stage_timestamp));
            }
            ("healthchecks", "status", "patch") if by_agent && done => {
                self.statuses.entry(name.clone()).or_default().insert(at, event.stage_timestamp);
            }
            ("workflows", _, "update" | "patch") if !by_agent && done => {
                self.carried.entry(name.clone()).or_default().push((at, event.stage_timestamp));
            }
            // A watch is a stream, not a request a run.
            (_, _, "watch") => {}
            (_, _, verb) if by_agent => self.others.push(Other { at, is_write: !matches!(verb, "get" | "list") }),
            _ => {}
        }
    }

    /// When each workflow was created by the agent.
    pub(super) fn creates(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.created.values().map(|(at, _)| *at)
    }

    /// When each workflow ended, of those that did after `from`, up to `to`: each is written twice.
    pub(super) fn ends(&self, from: Timestamp, to: Timestamp) -> HashMap<String, Timestamp> {
        let ended = self.carried.iter().filter(|(_, writes)| writes.len() > 1);
        let ended =
            ended.filter_map(|(workflow, writes)| Some((workflow, writes.iter().map(|(came, _)| *came).max()?)));
        ended.filter(|(_, end)| *end > from && *end <= to).map(|(workflow, end)| (workflow.clone(), end)).collect()
    }

    /// Checks that have a status.
    pub(super) fn checks_with_status(&self) -> usize {
        self.statuses.len()
    }

    /// What became of the slots after `from`, up to `to`.
    pub(super) fn figures(&self, checks: &[Check], from: Timestamp, to: Timestamp) -> Figures {
        let mut figures = Figures::default();
        let mut late: Vec<(Timestamp, f64)> = Vec::new();
        let (mut writes, mut carried) = (0, 0);
        for check in checks {
            let Some(slots) = check.slots() else { continue };
            let created = |slot| self.created.get(&self.workflow(check, slot)).copied();
            let mut before = from;
            while let Some(slot) = slots.next(before).filter(|slot| *slot <= to) {
                before = slot;
                let Some((at, made)) = created(slot) else {
                    figures.missed += 1;
                    continue;
                };
                late.push((slot, ms(slots.start(slot), at)));
                writes += 1;
                // Until the next run is created, what is written of the check is about this one.
                let next = slots.next(slot).and_then(created).map_or(Timestamp::MAX, |(at, _)| at);
                let of_check = self.statuses.get(&check.name);
                let written: Vec<_> = of_check.into_iter().flat_map(|times| times.range(at..next)).collect();
                writes += written.len();
                let controller = self.carried.get(&self.workflow(check, slot)).map_or(&[][..], Vec::as_slice);
                carried += controller.len();
                figures.taken_up_ms.extend(controller.iter().min().map(|(first, _)| ms(made, *first)));
                let Some((asked, done)) = written.first() else {
                    figures.open += 1;
                    continue;
                };
                if let Some((ended, written)) = controller.iter().filter(|(end, _)| end <= *asked).max() {
                    figures.status_ms.push(ms(*ended, **done));
                    figures.noticed_ms.push(ms(*written, **asked));
                }
            }
        }
        late.sort_by_key(|(slot, _)| *slot);
        figures.runs = late.len();
        figures.late_ms = late.into_iter().map(|(_, late)| late).collect();
        figures.drift_ms = drift(&figures.late_ms);
        let others =
            |is_write| self.others.iter().filter(|o| o.is_write == is_write && o.at > from && o.at <= to).count();
        let a_run = |count: usize| count as f64 / figures.runs.max(1) as f64;
        (figures.writes, figures.reads, figures.carried) =
            (a_run(writes + others(true)), a_run(others(false)), a_run(carried));
        figures
    }

    fn workflow(&self, check: &Check, slot: Timestamp) -> String {
        let key = RunKey { check_uid: check.uid.clone(), kind: RunKind::HealthCheck, slot };
        workflow_name(&check.workflow.prefix, &key)
    }
}

fn ms(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

/// Of values in the order of time.
fn drift(late_ms: &[f64]) -> f64 {
    let part = late_ms.len().div_ceil(DRIFT_PART);
    let (first, last) = (median(&late_ms[..part]), median(&late_ms[late_ms.len() - part..]));
    last.zip(first).map_or(0.0, |(last, first)| last - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + (seconds * 1e3).round() as i64).unwrap()
    }

    fn check() -> Check {
        let resource = serde_json::json!({
            "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": "dns", "namespace": "health", "uid": "u", "creationTimestamp": at(0.0).to_string()},
            "spec": {"repeatAfterSec": 60, "jitterSec": 0, "workflow": {"resource": {
                "namespace": "health", "serviceAccount": "probe",
                "source": {"inline": "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, spec: {entrypoint: x}}"}}}},
        });
        Check::parse(&serde_json::from_value(resource).unwrap()).unwrap()
    }

    fn request(user: &str, verb: &str, of: &str, name: &str, (from, to): (f64, f64)) -> Event {
        let (resource, subresource) = of.split_once('/').unwrap_or((of, ""));
        let user = if user == "agent" { AGENT } else { user };
        serde_json::from_value(serde_json::json!({
            "requestURI": "/", "verb": verb, "user": {"username": user},
            "objectRef": {"resource": resource, "subresource": subresource, "namespace": "health", "name": name},
            "responseStatus": {"code": 200},
            "requestReceivedTimestamp": at(from).to_string(), "stageTimestamp": at(to).to_string(),
        }))
        .unwrap()
    }

    #[test]
    fn each_slot_is_judged_by_its_own_requests() {
        let check = check();
        let mut log = Log::default();
        let name = |slot: f64| log_name(&check, at(slot));
        let (first, second) = (name(60.0), name(120.0));
        for event in [
            request("agent", "create", "workflows", &first, (60.1, 60.2)),
            request("argo", "update", "workflows", &first, (60.3, 60.4)),
            request("argo", "update", "workflows", &first, (61.3, 61.4)),
            request("agent", "patch", "healthchecks/status", "dns", (61.5, 61.6)),
            request("agent", "watch", "workflows", "", (0.0, 70.0)),
            request("agent", "get", "namespaces", "kube-system", (1.0, 1.1)),
            request("agent", "get", "workflows", &first, (62.0, 62.1)),
            request("agent", "create", "events", "", (61.6, 61.7)),
            request("somebody", "patch", "healthchecks/status", "dns", (61.0, 61.1)),
            request("agent", "create", "workflows", &second, (120.5, 120.6)),
            request("agent", "patch", "healthchecks/status", "dns", (125.0, 125.1)),
        ] {
            log.add(&event);
        }
        let figures = log.figures(std::slice::from_ref(&check), at(0.0), at(180.0));
        assert_eq!((figures.runs, figures.missed, figures.open), (2, 1, 0));
        assert_eq!((figures.writes, figures.reads, figures.carried), (2.5, 1.0, 1.0));
        assert_eq!(figures.late_ms, [100.0, 500.0]);
        assert_eq!(figures.status_ms, [300.0], "nobody carried out the second");
        assert_eq!((figures.noticed_ms, figures.taken_up_ms), (vec![100.0], vec![100.0]));
        assert_eq!(figures.drift_ms, 400.0);
        let window = log.figures(std::slice::from_ref(&check), at(60.0), at(120.0));
        assert_eq!(
            (window.runs, window.missed, window.reads),
            (1, 0, 1.0),
            "a slot at the window's beginning is before it"
        );
        assert_eq!((log.creates().count(), log.checks_with_status()), (2, 1));
        assert_eq!(log.ends(at(61.0), at(62.0)), HashMap::from([(first, at(61.3))]));
        assert!(log.ends(at(61.3), at(62.0)).is_empty());
    }

    fn log_name(check: &Check, slot: Timestamp) -> String {
        Log::default().workflow(check, slot)
    }
}
