//! Counters of what goes wrong inside the agent, in the process's own registry.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// Panics caught while a check was looked at.
pub static PANICS: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    let help = "Panics caught while a check was looked at: a fault of the agent.";
    prometheus::register_int_counter!("activemonitor_agent_reconcile_panics_total", help).ok()
});

/// Checks whose used-up slots are yet to come.
pub static AHEAD: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    let help = "Checks whose slots are used up beyond the agent's clock: a clock was ahead.";
    prometheus::register_int_gauge!("activemonitor_agent_checks_ahead_of_clock", help).ok()
});

/// Watches of the API server that had to begin anew.
pub static WATCH_RESTARTS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Watches of the API server that had to begin anew, by resource and reason: cut (the connection broke off), \
                expired (410: what was seen last is of too long ago, all is listed anew), failed (it could not begin).";
    let opts = Opts::new("activemonitor_agent_watch_restarts_total", help);
    prometheus::register_int_counter_vec!(opts, &["resource", "reason"]).ok()
});

/// Why a watch had to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Its connection broke off.
    Cut,
    /// What was seen last is of too long ago for the API server: all is listed anew.
    Expired,
    /// It could not begin, or met another error.
    Failed,
}

impl Restart {
    pub(crate) const ALL: [Restart; 3] = [Restart::Cut, Restart::Expired, Restart::Failed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Restart::Cut => "cut",
            Restart::Expired => "expired",
            Restart::Failed => "failed",
        }
    }
}

/// The counter of one resource, by its plural name, and one reason; where it could be registered.
pub(crate) fn watch_restarts(resource: &str, why: Restart) -> Option<IntCounter> {
    WATCH_RESTARTS.as_ref().map(|restarts| restarts.with_label_values(&[resource, why.as_str()]))
}

/// Fields of the specification that the installed CRD drops.
pub static UNKNOWN_FIELDS: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    let help = "Fields of a HealthCheck that the installed CRD does not know and drops.";
    let opts = Opts::new("activemonitor_agent_crd_unknown_fields", help);
    prometheus::register_int_gauge_vec!(opts, &["field"]).ok()
});

/// Frames of the hub that this version does not know.
pub static UNKNOWN_FRAMES: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    let help = "Frames of a newer hub that were ignored.";
    prometheus::register_int_counter!("activemonitor_agent_hub_unknown_frames_total", help).ok()
});

/// Pushed checks that the hub wanted made or rescheduled faster than the policy takes them.
pub static PACED: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    let help = "Tries to make or reschedule a pushed check that came faster than the policy takes them.";
    prometheus::register_int_counter!("activemonitor_agent_definitions_paced_total", help).ok()
});

/// Sessions that the hub took in.
pub static SESSIONS: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    let help = "Sessions that the hub took in: one more than reconnects.";
    prometheus::register_int_counter!("activemonitor_agent_hub_sessions_total", help).ok()
});

/// Whether there is one now.
pub static CONNECTED: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    let help = "1 while the hub has the session, else 0.";
    prometheus::register_int_gauge!("activemonitor_agent_hub_connected", help).ok()
});

/// When the certificate that is used ends.
pub static CERTIFICATE_EXPIRY: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    let help = "When the agent's certificate for the hub ends, in Unix time; 0 where it has none.";
    prometheus::register_int_gauge!("activemonitor_agent_certificate_expiry_timestamp_seconds", help).ok()
});

/// Shows the counters from the start, at zero.
pub(crate) fn register() {
    LazyLock::force(&PANICS);
    LazyLock::force(&AHEAD);
    LazyLock::force(&WATCH_RESTARTS);
    LazyLock::force(&UNKNOWN_FIELDS);
    LazyLock::force(&UNKNOWN_FRAMES);
    LazyLock::force(&PACED);
    LazyLock::force(&SESSIONS);
    LazyLock::force(&CONNECTED);
    LazyLock::force(&CERTIFICATE_EXPIRY);
}

/// Counts one, where the counter could be registered.
pub(crate) fn count(counter: &LazyLock<Option<IntCounter>>) {
    if let Some(counter) = &**counter {
        counter.inc();
    }
}

/// Sets a gauge, where it could be registered.
pub(crate) fn set(gauge: &LazyLock<Option<IntGauge>>, value: i64) {
    if let Some(gauge) = &**gauge {
        gauge.set(value);
    }
}
