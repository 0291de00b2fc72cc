//! Whether Argo does its part, for `/metrics`: what the watch knows at each scrape.

use prometheus::IntGauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::workflows::Workflows;

/// Shows what is known of Argo to the process's registry.
pub struct Argo {
    workflows: Workflows,
    available: IntGauge,
    waiting: IntGauge,
}

impl Argo {
    /// Registers a collector of these workflows with the default registry.
    ///
    /// # Errors
    /// When one is registered already.
    pub fn register(workflows: Workflows) -> Result<(), prometheus::Error> {
        let help = "0 where Argo Workflows is not installed, or no controller took up the last run that ended.";
        let available = IntGauge::new("activemonitor_agent_argo_available", help)?;
        let help = "Workflows that no Argo controller has taken up within 10 s.";
        let waiting = IntGauge::new("activemonitor_agent_workflows_waiting_for_argo", help)?;
        prometheus::register(Box::new(Argo { workflows, available, waiting }))
    }
}

impl Collector for Argo {
    fn desc(&self) -> Vec<&Desc> {
        self.available.desc().into_iter().chain(self.waiting.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.available.set(i64::from(self.workflows.is_served()));
        let waiting = self.workflows.waiting(jiff::Timestamp::now());
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.available.collect().into_iter().chain(self.waiting.collect()).collect()
    }
}
