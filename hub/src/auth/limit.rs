//! Slows down whoever tries tokens at the login: after some failures an address must wait.

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

#[cfg(test)]
mod tests {
    use super::*;

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
