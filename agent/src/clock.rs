//! The time that the agent goes by: the API server's, as the `Date` of its answers says it, where the node's own clock is
//! another. The rule is `active_monitor_core::clock`'s; the client's gate (`gate.rs`) hands in what it hears.

use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::clock;
use http::{HeaderMap, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use parking_lot::Mutex;
use prometheus::{Gauge, Registry};

/// An answer that took longer says too little of the time at which it arrived.
const ROUND_TRIP_LIMIT: Duration = Duration::from_secs(1);

/// Tells the time; clones share what was heard.
#[derive(Clone)]
pub struct Clock {
    started: Instant,
    known: Arc<Mutex<Known>>,
    skew: Gauge,
}

#[derive(Default)]
struct Known {
    clock: clock::Clock,
    is_skewed: bool,
}

impl Clock {
    /// A clock that has heard nothing yet, with its gauge in `registry`.
    ///
    /// # Errors
    /// When there is one in the registry already.
    pub fn new(registry: &Registry) -> Result<Clock, prometheus::Error> {
        let name = "activemonitor_agent_clock_skew_seconds";
        let help = "The clock of the agent's node minus the API server's, which the agent goes by; 0 while they agree \
                    within 3 s.";
        let skew = Gauge::new(name, help)?;
        registry.register(Box::new(skew.clone()))?;
        Ok(Clock { started: Instant::now(), known: Arc::default(), skew })
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.known.lock().clock.now(self.started.elapsed(), Timestamp::now())
    }

    /// An answer to a request that was sent then has just come with these headers.
    pub(crate) fn heard(&self, sent: Instant, headers: &HeaderMap) {
        let round_trip = sent.elapsed();
        let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
        // HTTP writes GMT, which RFC 2822 reads as UTC.
        let server = date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
        if let Some(server) = server.filter(|_| round_trip <= ROUND_TRIP_LIMIT) {
            self.compare(self.started.elapsed(), Timestamp::now(), server);
        }
    }

    fn compare(&self, monotonic: Duration, wall: Timestamp, server: Timestamp) {
        let mut known = self.known.lock();
        known.clock.heard(monotonic, wall, server);
        let skew = wall.duration_since(known.clock.now(monotonic, wall));
        self.skew.set(skew.as_secs_f64());
        if known.is_skewed == skew.is_zero() {
            known.is_skewed = !known.is_skewed;
            let skew_ms = i64::try_from(skew.as_millis()).unwrap_or(i64::MAX);
            if known.is_skewed {
                tracing::warn!(
                    skew_ms,
                    "the node's clock is not the API server's, which the agent goes by: set it right"
                );
            } else {
                tracing::info!("the node's clock is the API server's again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::DATE, text.parse().unwrap())])
    }

    #[test]
    fn a_node_whose_clock_is_wrong_goes_by_the_api_servers_and_says_so() {
        let clock = Clock::new(&Registry::new()).unwrap();
        let before = Timestamp::now();
        assert!(clock.now() >= before, "its own, as long as nothing was heard");
        clock.heard(Instant::now(), &date("Sun, 06 Nov 1994 08:49:37 GMT"));
        let then: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        let off = clock.now().duration_since(then);
        assert!(off.as_secs() < 60 && !off.is_negative(), "{off}");
        assert!(clock.skew.get() > 30.0 * 365.0 * 86400.0, "{}", clock.skew.get());
        // Put right.
        clock.compare(clock.started.elapsed(), Timestamp::now(), Timestamp::now());
        assert_eq!(clock.skew.get(), 0.0);
        assert!(clock.now() >= before);
    }

    #[test]
    fn what_is_no_date_or_took_too_long_says_nothing() {
        let clock = Clock::new(&Registry::new()).unwrap();
        for text in ["", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT", "2026"] {
            clock.heard(Instant::now(), &date(text));
        }
        clock.heard(Instant::now(), &HeaderMap::new());
        let late = Instant::now().checked_sub(ROUND_TRIP_LIMIT + Duration::from_millis(1)).unwrap();
        clock.heard(late, &date("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(Timestamp::now().duration_since(clock.now()).as_secs() < 60);
        assert_eq!(clock.skew.get(), 0.0);
    }
}
