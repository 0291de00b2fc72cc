//! Counts what the hub refuses or limits, so that an attack or a misfit is seen in the metrics and not only in the log.

use prometheus::core::Collector;
use prometheus::{IntCounterVec, Opts};

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A client certificate that is of no cluster, of a removed one, or replaced.
    Certificate,
    /// A Hello of another name, another kube-system uid or a cluster that did not enrol.
    Hello,
    /// A frame that cannot be read.
    Frame,
    /// A frame of a kind that only a newer agent knows; the session goes on.
    UnknownFrame,
    /// A frame that breaks the protocol: out of order, a number that does not grow, an answer to nothing.
    Protocol,
    /// An agent beyond one of its limits.
    AgentLimit,
    /// An agent that sends more than its rate: the hub does not read on for a while.
    Rate,
    /// An agent that does not read what it is sent.
    SlowAgent,
    /// A try to enrol: wrong, spent or expired token, another cluster.
    Enrolment,
    /// A caller that must wait after too many wrong tokens.
    TooManyTries,
    /// A command that was not carried out.
    Command,
}

impl Refused {
    const ALL: [Refused; 11] = [
        Refused::Certificate,
        Refused::Hello,
        Refused::Frame,
        Refused::UnknownFrame,
        Refused::Protocol,
        Refused::AgentLimit,
        Refused::Rate,
        Refused::SlowAgent,
        Refused::Enrolment,
        Refused::TooManyTries,
        Refused::Command,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Refused::Certificate => "certificate",
            Refused::Hello => "hello",
            Refused::Frame => "frame",
            Refused::UnknownFrame => "unknown_frame",
            Refused::Protocol => "protocol",
            Refused::AgentLimit => "agent_limit",
            Refused::Rate => "rate",
            Refused::SlowAgent => "slow_agent",
            Refused::Enrolment => "enrolment",
            Refused::TooManyTries => "too_many_tries",
            Refused::Command => "command",
        }
    }
}

/// The counters. Clones count together.
#[derive(Clone, Debug)]
pub struct Refusals(IntCounterVec);

impl Refusals {
    /// Every counter is there from the start: one that appears with its first count would hide it from `rate()`.
    ///
    /// # Errors
    /// A name is wrong.
    pub fn new() -> Result<Refusals, prometheus::Error> {
        let opts = Opts::new("activemonitor_hub_refused_total", "What the hub refused or limited, by what it was.");
        let counters = IntCounterVec::new(opts, &["what"])?;
        for refused in Refused::ALL {
            counters.with_label_values(&[refused.as_str()]);
        }
        Ok(Refusals(counters))
    }

    /// To be registered where it shall be seen.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.0.clone())
    }

    /// Counts one.
    pub fn count(&self, refused: Refused) {
        self.0.with_label_values(&[refused.as_str()]).inc();
    }

    /// How many there were.
    pub fn total(&self, refused: Refused) -> u64 {
        self.0.with_label_values(&[refused.as_str()]).get()
    }
}
