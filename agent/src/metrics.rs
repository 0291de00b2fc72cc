//! The agent's `/metrics`: active-monitor's names, made of the checks' states at each scrape.

use std::collections::{BTreeMap, HashMap};

use active_monitor_core::run::RunKind;
use active_monitor_core::state::{CheckState, Totals};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::journal::Journal;
use crate::states::States;

/// Shows the checks' states to the process's registry.
pub struct Checks {
    states: States,
    journal: Journal,
    descriptions: Vec<Desc>,
}

impl Checks {
    /// Registers a collector of these states with the default registry.
    ///
    /// # Errors
    /// When one is registered already.
    pub fn register(states: States, journal: Journal) -> Result<(), prometheus::Error> {
        let labels = ["healthcheck_name", "namespace", "workflow"].map(str::to_owned).to_vec();
        let help = "Runs of the check that succeeded.".to_owned();
        let description = Desc::new("healthcheck_success_count".into(), help, labels, HashMap::new())?;
        prometheus::register(Box::new(Checks { states, journal, descriptions: vec![description] }))
    }
}

impl Collector for Checks {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        for check in self.states.all() {
            families.check(&check);
        }
        families.journal(&self.journal);
        families.0.into_values().filter(|family| !family.get_metric().is_empty()).collect()
    }
}

/// By name.
#[derive(Default)]
struct Families(BTreeMap<String, MetricFamily>);

impl Families {
    fn check(&mut self, check: &CheckState) {
        self.totals(check, RunKind::HealthCheck, &check.check);
        if let Some(remedy) = &check.remedy {
            self.totals(check, RunKind::Remedy, remedy);
        }
        let prefix: String = check.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        for sample in &check.samples {
            let labels = vec![label("healthcheck_name", &check.name), label("namespace", &check.namespace)];
            let name = format!("{prefix}_{}", sample.metric);
            // A check whose name starts with a digit has no metric of its own: the format does not allow one.
            if name.starts_with(|c: char| c.is_ascii_digit()) || self.is_ours(&name) {
                continue;
            }
            self.add(&name, &sample.help, MetricType::GAUGE, labels, sample.value);
        }
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

    fn journal(&mut self, journal: &Journal) {
        let gauge = MetricType::GAUGE;
        let backlog = "Reports that the hub has not acked.";
        self.add("activemonitor_agent_journal_backlog_reports", backlog, gauge, Vec::new(), journal.backlog() as f64);
        let dropped = "Reports dropped unacked because the journal was full.";
        let name = "activemonitor_agent_journal_dropped_reports_total";
        self.add(name, dropped, MetricType::COUNTER, Vec::new(), journal.dropped() as f64);
        let corrupt = "Records of the journal that could not be read and were set aside.";
        let name = "activemonitor_agent_journal_corrupt_records_total";
        self.add(name, corrupt, MetricType::COUNTER, Vec::new(), journal.corrupt() as f64);
    }

    /// Names that a check must not publish under.
    fn is_ours(&self, name: &str) -> bool {
        ["healthcheck_", "activemonitor_", "process_"].iter().any(|ours| name.starts_with(ours))
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, labels: Vec<LabelPair>, value: f64) {
        let family = self.0.entry(name.to_owned()).or_insert_with(|| {
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
