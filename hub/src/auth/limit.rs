//! Slows down whoever tries tokens at the login: after some failures an address must wait. And whoever calls too often: one
//! program that runs wild leaves the hub to the others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures that an address may have within [`WINDOW`].
const MAX_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered. When more fail, the oldest is forgotten.
const MAX_ADDRESSES: usize = 4096;

/// Failed logins by address.
#[derive(Default)]
pub struct LoginLimit {
    failures: Mutex<BTreeMap<IpAddr, Failures>>,
}

struct Failures {
    since: Instant,
    count: u32,
}

impl LoginLimit {
    /// How long `address` must wait before it may try again; `None` when it may now.
    pub fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.failures.lock();
        let entry = failures.get(&address)?;
        let left = WINDOW.checked_sub(now.duration_since(entry.since))?;
        (entry.count >= MAX_FAILURES && !left.is_zero()).then_some(left)
    }

    /// Counts a failure of `address`.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut failures = self.failures.lock();
        if !failures.contains_key(&address) && failures.len() >= MAX_ADDRESSES {
            let oldest = failures.iter().min_by_key(|(_, entry)| entry.since).map(|(address, _)| *address);
            oldest.map(|address| failures.remove(&address));
        }
        let entry = failures.entry(address).or_insert(Failures { since: now, count: 0 });
        if now.duration_since(entry.since) >= WINDOW {
            *entry = Failures { since: now, count: 0 };
        }
        entry.count = entry.count.saturating_add(1);
    }
}

/// Calls that a token may make at once; also a Prometheus that scrapes a thousand clusters each by itself.
const BURST: f64 = 2000.0;
/// Calls a second that it may make for ever.
const CALLS_PER_SECOND: f64 = 200.0;
/// Callers that are remembered. When there are more, the one that called longest ago is forgotten.
const MAX_CALLERS: usize = 4096;

/// Calls by the name of the token.
#[derive(Default)]
pub struct CallLimit {
    callers: Mutex<BTreeMap<String, Caller>>,
}

struct Caller {
    /// Calls that it may make now.
    left: f64,
    at: Instant,
}

impl CallLimit {
    /// Counts a call.
    ///
    /// # Errors
    /// It is one too many: how long the caller must wait for the next.
    pub fn call(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let mut callers = self.callers.lock();
        if !callers.contains_key(name) {
            if callers.len() >= MAX_CALLERS {
                let oldest = callers.iter().min_by_key(|(_, caller)| caller.at).map(|(name, _)| name.clone());
                oldest.map(|name| callers.remove(&name));
            }
            callers.insert(name.to_owned(), Caller { left: BURST, at: now });
        }
        let Some(caller) = callers.get_mut(name) else { return Ok(()) };
        let regained = now.saturating_duration_since(caller.at).as_secs_f64() * CALLS_PER_SECOND;
        (caller.left, caller.at) = ((caller.left + regained).min(BURST), now);
        if caller.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - caller.left) / CALLS_PER_SECOND));
        }
        caller.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_calls_too_often_waits_and_no_other_one_does() {
        let limit = CallLimit::default();
        let start = Instant::now();
        for _ in 0..BURST as u32 {
            assert_eq!(limit.call("wild", start), Ok(()));
        }
        let wait = limit.call("wild", start).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(5), "{wait:?}");
        assert_eq!(limit.call("calm", start), Ok(()));
        for _ in 0..CALLS_PER_SECOND as u32 {
            assert_eq!(limit.call("wild", start + Duration::from_secs(1)), Ok(()));
        }
        assert!(limit.call("wild", start + Duration::from_secs(1)).is_err());
        for n in 0..MAX_CALLERS as u64 + 10 {
            assert_eq!(limit.call(&n.to_string(), start + Duration::from_secs(60 + n)), Ok(()));
        }
        assert_eq!(limit.callers.lock().len(), MAX_CALLERS);
    }

    #[test]
    fn an_address_waits_after_too_many_failures() {
        let limit = LoginLimit::default();
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let start = Instant::now();
        for _ in 0..MAX_FAILURES {
            assert_eq!(limit.wait(a, start), None);
            limit.failed(a, start);
        }
        assert_eq!(limit.wait(a, start), Some(WINDOW));
        assert_eq!(limit.wait(b, start), None);
        assert_eq!(limit.wait(a, start + WINDOW), None);
        limit.failed(a, start + WINDOW);
        assert_eq!(limit.wait(a, start + WINDOW), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let limit = LoginLimit::default();
        let start = Instant::now();
        for n in 0..MAX_ADDRESSES as u32 + 10 {
            limit.failed(IpAddr::from(n.to_be_bytes()), start + Duration::from_millis(n.into()));
        }
        assert_eq!(limit.failures.lock().len(), MAX_ADDRESSES);
    }
}
