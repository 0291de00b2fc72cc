//! The events of the fleet as server-sent events: numbered, written as JSON once for all listeners, and kept for a while
//! so that a listener that was cut off goes on where it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::fleet::FleetView;
use active_monitor_core::view::Event;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::owner::Published;

/// Events that are kept for listeners that come back, and that a slow listener may lag behind.
const KEPT: usize = 4096;
/// What a listener reads after a `reset` may come from another replica, which knows what is older than this.
pub const OVERLAP: Duration = Duration::from_secs(3);

/// Follows the fleet's events.
pub struct Feed {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// A numbered event.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// `FEED-NUMBER`: numbers of another feed (the hub's last start) mean nothing to this one.
    pub id: String,
    /// The event's tag.
    pub tag: &'static str,
    /// The event as JSON.
    pub data: String,
    at: Instant,
}

struct Shared {
    feed: u64,
    /// Events of so long are told again after a `reset`; zero in a hub that is alone.
    overlap: Duration,
    kept: Mutex<Kept>,
}

struct Kept {
    /// Number of the newest event; 0 before the first.
    newest: u64,
    items: VecDeque<Arc<Item>>,
    /// Absent when the hub stops.
    sender: Option<broadcast::Sender<Arc<Item>>>,
}

/// What a listener gets: first the items, then what the receiver brings.
pub struct Subscription {
    /// What the listener missed, or one `reset`.
    pub first: VecDeque<Arc<Item>>,
    /// What comes from here on.
    pub then: broadcast::Receiver<Arc<Item>>,
}

impl Feed {
    /// Starts the task that follows `events`; it ends with the feed. When `view` is published no more, because the hub
    /// stops, the listeners' streams end. Events of the last `overlap` follow each `reset`.
    pub fn start(
        events: broadcast::Receiver<Published>,
        mut view: watch::Receiver<Arc<FleetView>>,
        overlap: Duration,
    ) -> Feed {
        let shared = Arc::new(Shared::new(rand::rng().random(), overlap));
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                tokio::select! {
                    () = follow(&shared, events) => {}
                    () = async { while view.changed().await.is_ok() {} } => {}
                }
                shared.kept.lock().sender = None;
            }
        });
        Feed { shared, _task: AbortOnDropHandle::new(task) }
    }

    /// Listens from after the event `last_id`, where that is still known, else from a `reset` on.
    pub fn subscribe(&self, last_id: Option<&str>) -> Subscription {
        self.shared.subscribe(last_id)
    }
}

async fn follow(shared: &Shared, mut events: broadcast::Receiver<Published>) {
    loop {
        match events.recv().await {
            Ok((_, event)) => shared.push(&event),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "the feed of events lagged");
                shared.push(&Event::Reset);
            }
            Err(RecvError::Closed) => return,
        }
    }
}

impl Shared {
    fn new(feed: u64, overlap: Duration) -> Shared {
        let sender = Some(broadcast::Sender::new(KEPT));
        Shared { feed, overlap, kept: Mutex::new(Kept { newest: 0, items: VecDeque::new(), sender }) }
    }

    fn push(&self, event: &Event) {
        let mut kept = self.kept.lock();
        kept.newest += 1;
        let item = Arc::new(self.item(kept.newest, event));
        if kept.items.len() == KEPT {
            kept.items.pop_front();
        }
        kept.items.push_back(item.clone());
        // Under the lock, so that a subscription neither misses an item nor gets it twice. Nobody listening is no error.
        let _ = kept.sender.as_ref().map(|sender| sender.send(item));
    }

    fn subscribe(&self, last_id: Option<&str>) -> Subscription {
        let kept = self.kept.lock();
        // Without a sender the receiver is closed, and the stream ends after its first items.
        let then = kept.sender.as_ref().map_or_else(|| broadcast::channel(1).1, |sender| sender.subscribe());
        let missed = last_id.and_then(|id| self.number(id)).and_then(|last| kept.newest.checked_sub(last));
        let first = match missed.and_then(|missed| usize::try_from(missed).ok()) {
            Some(missed) if missed <= kept.items.len() => {
                kept.items.range(kept.items.len() - missed..).cloned().collect()
            }
            _ => {
                let first = kept.items.partition_point(|item| item.at.elapsed() >= self.overlap);
                let number = kept.newest - (kept.items.len() - first) as u64;
                let reset = Arc::new(self.item(number, &Event::Reset));
                std::iter::once(reset).chain(kept.items.range(first..).cloned()).collect()
            }
        };
        Subscription { first, then }
    }

    fn item(&self, number: u64, event: &Event) -> Item {
        // Every type in an event can be written as JSON.
        let data = serde_json::to_string(event).unwrap_or_default();
        Item { id: format!("{:x}-{number}", self.feed), tag: tag(event), data, at: Instant::now() }
    }

    fn number(&self, id: &str) -> Option<u64> {
        let (feed, number) = id.split_once('-')?;
        (u64::from_str_radix(feed, 16).ok()? == self.feed).then_some(())?;
        number.parse().ok()
    }
}

/// The value of `type` in the event's JSON.
fn tag(event: &Event) -> &'static str {
    match event {
        Event::Reset => "reset",
        Event::Cluster(_) => "cluster",
        Event::ClusterRemoved { .. } => "clusterRemoved",
        Event::Check(_) => "check",
        Event::CheckRemoved { .. } => "checkRemoved",
        Event::Windows => "windows",
        Event::Incidents => "incidents",
        Event::Definition { .. } => "definition",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use active_monitor_core::view::FleetSummary;

    use super::*;

    fn event(n: usize) -> Event {
        Event::ClusterRemoved { name: format!("c{n}") }
    }

    fn tags(subscription: &Subscription) -> Vec<&str> {
        subscription.first.iter().map(|item| item.tag).collect()
    }

    #[test]
    fn a_listener_goes_on_where_it_was() {
        let shared = Shared::new(7, Duration::ZERO);
        for n in 1..=3 {
            shared.push(&event(n));
        }
        assert_eq!(tags(&shared.subscribe(Some("7-3"))), Vec::<&str>::new());
        let subscription = shared.subscribe(Some("7-1"));
        assert_eq!(
            subscription.first.iter().map(|item| (item.id.as_str(), item.data.as_str())).collect::<Vec<_>>(),
            [("7-2", r#"{"type":"clusterRemoved","name":"c2"}"#), ("7-3", r#"{"type":"clusterRemoved","name":"c3"}"#)]
        );
        for (n, item) in (1..).zip(&shared.subscribe(Some("7-0")).first) {
            let json: serde_json::Value = serde_json::from_str(&item.data).unwrap();
            assert_eq!((json["type"].as_str(), item.id.clone()), (Some(item.tag), format!("7-{n}")));
        }
    }

    #[test]
    fn who_is_new_or_was_away_too_long_gets_a_reset() {
        let shared = Shared::new(7, Duration::ZERO);
        assert_eq!(tags(&shared.subscribe(None)), ["reset"]);
        for n in 0..KEPT + 5 {
            shared.push(&event(n));
        }
        for id in [None, Some("7-4"), Some("8-4100"), Some("7-99999"), Some("x"), Some(""), Some("7-")] {
            let subscription = shared.subscribe(id);
            assert_eq!(tags(&subscription), ["reset"], "{id:?}");
            assert_eq!(subscription.first[0].id, format!("7-{}", KEPT + 5));
        }
        assert_eq!(shared.subscribe(Some("7-5")).first.len(), KEPT);
    }

    #[test]
    fn where_there_are_replicas_a_reset_is_followed_by_what_another_one_may_not_know_yet() {
        let shared = Shared::new(7, Duration::from_secs(3600));
        shared.push(&event(1));
        shared.push(&event(2));
        let subscription = shared.subscribe(Some("8-1"));
        assert_eq!(tags(&subscription), ["reset", "clusterRemoved", "clusterRemoved"]);
        let ids: Vec<&str> = subscription.first.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, ["7-0", "7-1", "7-2"], "a listener that breaks off in between goes on there");
    }

    #[tokio::test]
    async fn what_comes_after_the_subscription_is_received_once_and_the_hubs_end_ends_it() {
        let sender = broadcast::Sender::new(16);
        let summary = FleetSummary {
            hub_version: String::new(),
            clusters: BTreeMap::new(),
            checks: BTreeMap::new(),
            definitions: 0,
            restore: None,
        };
        let (view, views) = watch::channel(Arc::new(FleetView { revision: 1, summary, clusters: BTreeMap::new() }));
        let feed = Feed::start(sender.subscribe(), views, Duration::ZERO);
        let mut subscription = feed.subscribe(None);
        sender.send((1, Arc::new(event(1)))).unwrap();
        let item = subscription.then.recv().await.unwrap();
        assert_eq!(item.data, r#"{"type":"clusterRemoved","name":"c1"}"#);
        assert!(feed.subscribe(Some(&item.id)).first.is_empty());

        drop(view);
        assert_eq!(subscription.then.recv().await, Err(RecvError::Closed));
        assert_eq!(feed.subscribe(None).then.recv().await, Err(RecvError::Closed));
    }
}
