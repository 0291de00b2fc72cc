//! The agent's `/metrics`: active-monitor's names, made of the checks' states at each scrape.

pub mod argo;

use std::collections::{BTreeMap, HashMap};

use active_monitor_core::fleet::due_at;
use active_monitor_core::run::RunKind;
use active_monitor_core::samples::{MAX_SERIES, family_name, is_built_in};
use active_monitor_core::state::{CheckState, Phase, Totals};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};
use prometheus::{
    register_int_counter_vec_with_registry, register_int_counter_with_registry, register_int_gauge_with_registry,
};

use crate::clock::Clock;
use crate::journal::Journal;
use crate::ownership::Contested;
use crate::states::States;

/// What happened since the agent started.
#[derive(Clone)]
pub struct Counters {
    /// Custom metrics that were refused when their run ended.
    pub refused_metrics: IntCounter,
    /// Log tails, by `result`.
    pub log_tails: IntCounterVec,
    /// Accounts, roles and bindings that somebody had changed, by `kind`.
    pub rights_restored: IntCounterVec,
    /// Accounts that somebody changes again and again.
    pub rights_contested: IntGauge,
    sources: IntCounterVec,
}

impl Counters {
    /// Registers them with `registry`.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> Result<Counters, prometheus::Error> {
        Ok(Counters {
            refused_metrics: register_int_counter_with_registry!(
                "activemonitor_agent_custom_metrics_refused_total",
                "Custom metrics that were refused: out of bounds, or not in active-monitor's form.",
                registry
            )?,
            log_tails: register_int_counter_vec_with_registry!(
                "activemonitor_agent_log_tails_total",
                "Workflows whose failed pods' logs were asked for, by result.",
                &["result"],
                registry
            )?,
            rights_restored: register_int_counter_vec_with_registry!(
                "activemonitor_agent_rights_restored_total",
                "Accounts, roles and bindings of checks that somebody had changed and the agent put right, by kind.",
                &["kind"],
                registry
            )?,
            rights_contested: register_int_gauge_with_registry!(
                "activemonitor_agent_rights_contested",
                "Accounts of checks that somebody changes again and again: the agent puts them right with pauses.",
                registry
            )?,
            sources: register_int_counter_vec_with_registry!(
                "activemonitor_agent_sources_total",
                "Texts of workflows that were asked for, by result: read, copy (of an earlier one), failed.",
                &["result"],
                registry
            )?,
        })
    }

    pub(crate) fn source(&self, result: &str) {
        self.sources.with_label_values(&[result]).inc();
    }
}

/// Shows the checks' states to the process's registry.
pub struct Checks {
    states: States,
    journal: Journal,
    contested: Contested,
    clock: Clock,
    descriptions: Vec<Desc>,
}

impl Checks {
    /// Registers a collector of these states with the default registry.
    ///
    /// # Errors
    /// When one is registered already.
    pub fn register(
        states: States,
        journal: Journal,
        contested: Contested,
        clock: Clock,
    ) -> Result<(), prometheus::Error> {
        let labels = ["healthcheck_name", "namespace", "workflow"].map(str::to_owned).to_vec();
        let help = "Runs of the check that succeeded.".to_owned();
        let description = Desc::new("healthcheck_success_count".into(), help, labels, HashMap::new())?;
        prometheus::register(Box::new(Checks { states, journal, contested, clock, descriptions: vec![description] }))
    }
}

impl Collector for Checks {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        let now = self.clock.now();
        for check in self.states.all() {
            families.check(&check);
            families.overdue(&check, now);
        }
        families.contested(&self.contested);
        families.phases(&self.states);
        families.dropped();
        families.journal(&self.journal);
        families.by_name.into_values().filter(|family| !family.get_metric().is_empty()).collect()
    }
}

#[derive(Default)]
struct Families {
    by_name: BTreeMap<String, MetricFamily>,
    /// Custom series so far.
    custom: usize,
    /// Custom series left out.
    dropped: u64,
}

impl Families {
    fn check(&mut self, check: &CheckState) {
        self.totals(check, RunKind::HealthCheck, &check.check);
        if let Some(remedy) = &check.remedy {
            self.totals(check, RunKind::Remedy, remedy);
        }
        let mut name = String::new();
        for sample in &check.samples {
            family_name(&mut name, &check.name, &sample.metric);
            if is_built_in(&name) || self.custom == MAX_SERIES {
                self.dropped += 1;
                continue;
            }
            self.custom += 1;
            let labels = vec![label("healthcheck_name", &check.name), label("namespace", &check.namespace)];
            self.add(&name, &sample.help, MetricType::GAUGE, labels, sample.value);
        }
    }

    fn dropped(&mut self) {
        let help = "Custom metrics left out of this answer: a name that is built in, or more than 10000 series.";
        let dropped = self.dropped as f64;
        self.add("activemonitor_agent_custom_metrics_dropped", help, MetricType::GAUGE, Vec::new(), dropped);
    }

    fn totals(&mut self, check: &CheckState, kind: RunKind, totals: &Totals) {
        let labels = || {
            vec![
                label("healthcheck_name", &check.name),
                label("namespace", &check.namespace),
                label("workflow", kind.as_str()),
            ]
        };
        let seconds = |t: jiff::Timestamp| t.as_millisecond() as f64 / 1000.0;
        let mut add = |name: &str, help: &str, kind, value: f64| self.add(name, help, kind, labels(), value);
        add("healthcheck_success_count", "Runs that succeeded.", MetricType::COUNTER, totals.succeeded as f64);
        add("healthcheck_error_count", "Runs that failed.", MetricType::COUNTER, totals.failed as f64);
        if let (Some(started), Some(finished)) = (totals.started_at, totals.finished_at) {
            let runtime = seconds(finished) - seconds(started);
            add("healthcheck_runtime_seconds", "Duration of the last run.", MetricType::GAUGE, runtime);
            add("healthcheck_starttime", "Start of the last run, Unix seconds.", MetricType::GAUGE, seconds(started));
            add("healthcheck_finishedtime", "End of the last run, Unix seconds.", MetricType::GAUGE, seconds(finished));
        }
    }

    /// By how much the next result is late: where nobody runs the check, nothing else at this end says so.
    fn overdue(&mut self, check: &CheckState, now: jiff::Timestamp) {
        let Some(due) = due_at(check) else { return };
        let late = (now.as_second() - due.as_second()).max(0);
        let labels = vec![label("healthcheck_name", &check.name), label("namespace", &check.namespace)];
        let help = "Seconds by which the next result is late; 0 while it is not.";
        self.add("activemonitor_agent_check_overdue_seconds", help, MetricType::GAUGE, labels, late as f64);
    }

    fn contested(&mut self, contested: &Contested) {
        for (namespace, name) in contested.all() {
            let labels = vec![label("healthcheck_name", &name), label("namespace", &namespace)];
            let help = "1 for each check on which the agent stopped, since another controller writes it.";
            self.add("activemonitor_agent_check_contested", help, MetricType::GAUGE, labels, 1.0);
        }
    }

    fn phases(&mut self, states: &States) {
        let checks = states.all();
        for phase in Phase::ALL {
            let count = checks.iter().filter(|check| check.phase == phase).count();
            let labels = vec![label("phase", phase.as_str())];
            self.add("activemonitor_agent_checks", "Checks by phase.", MetricType::GAUGE, labels, count as f64);
        }
    }

    fn journal(&mut self, journal: &Journal) {
        let gauge = MetricType::GAUGE;
        let backlog = "Reports that the hub has not acked.";
        self.add("activemonitor_agent_journal_backlog_reports", backlog, gauge, Vec::new(), journal.backlog() as f64);
        let dropped = "Reports dropped unacked because the journal or its disk was full.";
        let name = "activemonitor_agent_journal_dropped_reports_total";
        self.add(name, dropped, MetricType::COUNTER, Vec::new(), journal.dropped() as f64);
        let unsaved = "Reports that are in memory only, since the journal's disk cannot be written.";
        let name = "activemonitor_agent_journal_unsaved_reports";
        self.add(name, unsaved, gauge, Vec::new(), journal.unsaved() as f64);
        let writable = "1 while the journal's disk can be written, 0 while it cannot.";
        let saved = f64::from(u8::from(*journal.saved().borrow()));
        self.add("activemonitor_agent_journal_writable", writable, gauge, Vec::new(), saved);
        let in_flight: usize = journal.in_flight(&BTreeMap::new()).values().sum();
        let help = "Runs whose workflow was begun and has no end yet.";
        self.add("activemonitor_agent_runs_in_flight", help, gauge, Vec::new(), in_flight as f64);
        let corrupt = "Records of the journal that could not be read and were set aside.";
        let name = "activemonitor_agent_journal_corrupt_records_total";
        self.add(name, corrupt, MetricType::COUNTER, Vec::new(), journal.corrupt() as f64);
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, labels: Vec<LabelPair>, value: f64) {
        let family = self.by_name.entry(name.to_owned()).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        let mut metric = Metric::from_label(labels);
        match kind {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED | MetricType::HISTOGRAM => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        family.mut_metric().push(metric);
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

#[cfg(test)]
mod tests {
    use active_monitor_core::samples::MAX_SAMPLES;
    use active_monitor_core::state::Sample;

    use super::*;

    fn check(name: &str, metrics: impl IntoIterator<Item = String>) -> CheckState {
        let sample = |metric| Sample { metric, help: String::new(), value: 1.0 };
        CheckState {
            uid: name.into(),
            namespace: "health".into(),
            name: name.into(),
            description: String::new(),
            phase: Phase::Pending,
            message: String::new(),
            schedule: String::new(),
            running: None,
            next_slot: None,
            timeout_seconds: 60,
            check: Totals::default(),
            remedy: None,
            remedy_status: String::new(),
            samples: metrics.into_iter().map(sample).collect(),
            refused_samples: 0,
            pauses: Vec::new(),
            remedy_budget: None,
            depends_on: Vec::new(),
            definition: None,
        }
    }

    #[test]
    fn custom_metrics_take_no_built_in_name_and_are_bounded_together_and_what_is_left_out_is_counted() {
        let mut families = Families::default();
        for (check_name, metric) in [("healthcheck", "success_count"), ("activemonitor", "agent_leader")] {
            families.check(&check(check_name, [metric.to_owned()]));
        }
        let first = &families.by_name["healthcheck_success_count"];
        assert!(first.get_metric().iter().all(|metric| metric.get_label().len() == 3), "only its own: {first:?}");
        assert!(!families.by_name.contains_key("activemonitor_agent_leader"));
        assert_eq!((families.custom, families.dropped), (0, 2));

        let checks = MAX_SERIES / MAX_SAMPLES;
        for i in 0..=checks {
            families.check(&check(&format!("c{i}"), (0..MAX_SAMPLES).map(|m| format!("m{m}"))));
        }
        assert_eq!((families.custom, families.dropped), (MAX_SERIES, 2 + MAX_SAMPLES as u64));
        families.dropped();
        let said =
            families.by_name["activemonitor_agent_custom_metrics_dropped"].get_metric()[0].get_gauge().get_value();
        assert!((said - 52.0).abs() < f64::EPSILON);
        // The check that came last shows its own counters all the same.
        let counted = &families.by_name["healthcheck_success_count"];
        assert_eq!(counted.get_metric().len(), 2 + checks + 1);
    }
}
