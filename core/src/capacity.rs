//! Who may start a workflow when not all may: a limit for the cluster, one for each namespace, and the places shared out
//! so that no namespace starves another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use jiff::Timestamp;

use crate::run::RunKind;

/// The most runs in flight; `None` is no limit. A namespace is that of the HealthCheck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of all namespaces together.
    pub cluster: Option<usize>,
    /// Of each namespace.
    pub namespace: Option<usize>,
}

/// A run that wants to start. Its order is that of a namespace's queue: who waits longest comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter {
    /// Since when it waits.
    pub since: Timestamp,
    /// uid of the check.
    pub uid: String,
    /// Check or remedy.
    pub kind: RunKind,
    /// The check's namespace.
    pub namespace: String,
}

/// Those of the waiting who may start now, in order: each place goes to the namespace that has the fewest runs in
/// flight, and there to who waits longest. `in_flight` counts runs by namespace.
pub fn admit(limits: Limits, in_flight: &BTreeMap<String, usize>, waiting: &[Waiter]) -> Vec<Waiter> {
    let mut queues: BTreeMap<&str, Vec<&Waiter>> = BTreeMap::new();
    for waiter in waiting {
        queues.entry(&waiter.namespace).or_default().push(waiter);
    }
    let mut next = BinaryHeap::new();
    for (namespace, queue) in &mut queues {
        queue.sort_by(|a, b| b.cmp(a));
        let load = in_flight.get(*namespace).copied().unwrap_or(0);
        next.extend(queue.pop().map(|first| Reverse((load, first))));
    }
    let taken: usize = in_flight.values().sum();
    let mut free = limits.cluster.map_or(usize::MAX, |limit| limit.saturating_sub(taken));
    let mut admitted = Vec::new();
    while free > 0
        && let Some(Reverse((load, waiter))) = next.pop()
    {
        if limits.namespace.is_some_and(|limit| load >= limit) {
            continue;
        }
        admitted.push(waiter.clone());
        free -= 1;
        let following = queues.get_mut(waiter.namespace.as_str()).and_then(Vec::pop);
        next.extend(following.map(|following| Reverse((load + 1, following))));
    }
    admitted
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use proptest::prelude::*;

    use super::*;

    fn waiter(namespace: &str, second: i64) -> Waiter {
        let since = Timestamp::UNIX_EPOCH + second.seconds();
        Waiter { since, uid: format!("{namespace}-{second}"), kind: RunKind::HealthCheck, namespace: namespace.into() }
    }

    fn names(admitted: &[Waiter]) -> Vec<&str> {
        admitted.iter().map(|waiter| waiter.uid.as_str()).collect()
    }

    #[test]
    fn without_limits_everybody_starts_and_with_none_left_nobody() {
        let waiting = [waiter("a", 2), waiter("a", 1)];
        assert_eq!(names(&admit(Limits::default(), &BTreeMap::new(), &waiting)), ["a-1", "a-2"]);
        let limits = Limits { cluster: Some(3), namespace: None };
        assert!(admit(limits, &BTreeMap::from([("b".into(), 3)]), &waiting).is_empty());
        assert!(admit(limits, &BTreeMap::from([("b".into(), 4)]), &waiting).is_empty(), "the limit was lowered");
    }

    #[test]
    fn a_place_goes_to_the_namespace_with_the_fewest_runs_however_many_of_another_wait() {
        let mut waiting: Vec<Waiter> = (0..1000).map(|second| waiter("greedy", second)).collect();
        waiting.push(waiter("modest", 5000));
        let limits = Limits { cluster: Some(10), namespace: None };
        let in_flight = BTreeMap::from([("greedy".into(), 8)]);
        assert_eq!(names(&admit(limits, &in_flight, &waiting)), ["modest-5000", "greedy-0"]);
    }

    #[test]
    fn a_namespace_at_its_limit_waits_and_the_others_do_not() {
        let limits = Limits { cluster: None, namespace: Some(2) };
        let in_flight = BTreeMap::from([("a".into(), 1)]);
        let waiting = [waiter("a", 1), waiter("a", 2), waiter("b", 3)];
        assert_eq!(names(&admit(limits, &in_flight, &waiting)), ["b-3", "a-1"]);
    }

    proptest! {
        /// Runs of all namespaces come and go: the limits hold, no place is left free while somebody may have it, and
        /// who waits starts after at most as many ends as there are namespaces.
        #[test]
        fn limits_hold_nobody_starves_and_no_place_is_wasted(
            arrivals in proptest::collection::vec(0..4usize, 1..200), cluster in 1..8usize, each in 1..8usize
        ) {
            let limits = Limits { cluster: Some(cluster), namespace: Some(each) };
            let mut in_flight: BTreeMap<String, usize> = BTreeMap::new();
            let mut waiting: Vec<Waiter> = Vec::new();
            for (second, namespace) in arrivals.into_iter().enumerate() {
                waiting.push(waiter(&format!("n{namespace}"), second as i64));
                for started in admit(limits, &in_flight, &waiting) {
                    waiting.retain(|w| *w != started);
                    *in_flight.entry(started.namespace).or_default() += 1;
                }
                let total: usize = in_flight.values().sum();
                prop_assert!(total <= cluster && in_flight.values().all(|&load| load <= each));
                let full = |namespace: &str| in_flight.get(namespace).copied().unwrap_or(0) >= each;
                prop_assert!(total == cluster || waiting.iter().all(|w| full(&w.namespace)));
                // The longest queue's runs end first: the others must not depend on it.
                if second % 2 == 0 && let Some(load) = in_flight.values_mut().max() {
                    *load = load.saturating_sub(1);
                }
            }
            // All runs end, one by one: everybody gets his turn.
            let mut ends = 0;
            while !waiting.is_empty() {
                if let Some(load) = in_flight.values_mut().filter(|load| **load > 0).max() {
                    *load -= 1;
                }
                for started in admit(limits, &in_flight, &waiting) {
                    waiting.retain(|w| *w != started);
                    *in_flight.entry(started.namespace).or_default() += 1;
                }
                ends += 1;
                prop_assert!(ends <= 400);
            }
        }
    }
}
