//! Watches of the whole cluster, or of some namespaces as if they were one: a watch cannot name several. And the count of
//! those that had to begin anew.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::scope::Scope;
use backon::ExponentialBuilder;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use http::Uri;
use kube::core::NamespaceResourceScope;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as follow};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::counters::{Restart, watch_restarts};
use crate::gate::Refusal;

/// The first pause of a watch that fails. Jitter makes each pause up to twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(800);
/// The longest one: what happened while the API server did not answer is heard of within seconds of its return.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Where many namespaces are watched the longest pause is this for each of them: they share what is asked meanwhile.
const PAUSE_EACH: Duration = Duration::from_millis(200);

/// What is held back begins within this time after the pause.
const LONGEST_SPREAD: Duration = Duration::from_secs(10);

/// HTTP's 410 Gone.
const EXPIRED: u16 = 410;

/// Where objects of a kind are found.
pub fn apis<K>(scope: &Scope, client: &Client) -> Vec<Api<K>>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    scope.each(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

/// Follows all of these at once. The list is complete when each of them is.
pub fn watch<K>(apis: Vec<Api<K>>, config: &watcher::Config) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let (growing, spread) = (pauses(apis.len()), spread(apis.len()));
    let followed = apis.into_iter().map(|api| {
        let resource = resource_of(api.resource_url()).to_owned();
        begin(&resource);
        patient(follow(api, config.clone()), growing, spread, resource).boxed()
    });
    let mut watches: Vec<_> = followed.collect();
    match watches.len() {
        1 => watches.remove(0),
        _ => merged(watches).boxed(),
    }
}

/// The plural name of what a path lists.
fn resource_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The resource that a request watches, where it is a watch.
pub(crate) fn watched(uri: &Uri) -> Option<String> {
    let is_watch = uri.query()?.split('&').any(|pair| pair == "watch=true");
    is_watch.then(|| resource_of(uri.path()).to_owned())
}

/// Shows the counters of a watch from the start, at zero.
pub(crate) fn begin(resource: &str) {
    for why in Restart::ALL {
        watch_restarts(resource, why);
    }
}

/// Counts a watch that begins anew.
pub(crate) fn count(resource: &str, why: Restart) {
    if let Some(restarts) = watch_restarts(resource, why) {
        restarts.inc();
    }
}

/// Counts a watch that begins anew because of this. One whose connection broke off is not among them: kube takes most of
/// these for an end, so the gate counts them all.
pub(crate) fn count_error(resource: &str, error: &watcher::Error) {
    if matches!(error, watcher::Error::WatchFailed(kube::Error::ReadEvents(_))) {
        return;
    }
    count(resource, if is_expired(error) { Restart::Expired } else { Restart::Failed });
}

/// Whether the API server says that it knows no more of what this asks for: where a watch begins, or the next page of a list.
fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == EXPIRED,
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == EXPIRED)
        }
        watcher::Error::WatchFailed(_) | watcher::Error::NoResourceVersion => false,
    }
}

/// Pauses after each error: an outage longer and longer.
fn patient<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    growing: ExponentialBuilder,
    spread: Duration,
    resource: String,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    let last = Arc::new(Mutex::new(Failure::Outage));
    let pauses = Pauses { growing: growing.into(), spread, last: last.clone() };
    let told = move |error: &watcher::Error| {
        *last.lock() = Failure::of(error);
        count_error(&resource, error);
    };
    events.inspect_err(told).backoff(pauses)
}

/// What an error says of the API server.
#[derive(Clone, Copy)]
enum Failure {
    Outage,
    /// What was seen last is of too long ago: an answer, and no outage. The list that it asks for waits for the shortest pause
    /// only. It is what the first watch after an API server's restart is told.
    Expired,
    /// The request was held back, and will be let through in so long.
    HeldBack(Duration),
}

impl Failure {
    fn of(error: &watcher::Error) -> Failure {
        match (error, Refusal::behind(error)) {
            (_, Some(Refusal::Paused(left))) => Failure::HeldBack(left),
            (watcher::Error::WatchError(status), _) if status.code == EXPIRED => Failure::Expired,
            (_, Some(Refusal::Fenced | Refusal::NoAnswer) | None) => Failure::Outage,
        }
    }
}

/// A watch's pauses; they begin anew with each of its events, and with an error that is an answer.
struct Pauses {
    growing: watcher::ExponentialBackoff,
    /// Over this time begins what was held back.
    spread: Duration,
    last: Arc<Mutex<Failure>>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match *self.last.lock() {
            Failure::HeldBack(left) => return Some(left + self.spread.mul_f64(rand::random::<f64>())),
            Failure::Expired => self.growing.reset(),
            Failure::Outage => {}
        }
        self.growing.next()
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.growing.reset();
    }
}

/// The pauses of each of so many watches.
fn pauses(watches: usize) -> ExponentialBuilder {
    let longest = LONGEST_PAUSE.max(PAUSE_EACH.saturating_mul(u32::try_from(watches).unwrap_or(u32::MAX)));
    let growing = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(longest);
    growing.with_jitter().without_max_times()
}

/// One alone begins as soon as it may.
fn spread(watches: usize) -> Duration {
    PAUSE_EACH.saturating_mul(u32::try_from(watches.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST_SPREAD)
}

/// Several watches as one.
fn merged<K>(
    watches: Vec<impl Stream<Item = watcher::Result<Event<K>>> + Unpin + Send + 'static>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + Send + 'static,
{
    let mut parts: Vec<Part<K>> = watches.iter().map(|_| Part::default()).collect();
    let numbered = watches.into_iter().enumerate().map(|(at, watch)| watch.map(move |event| (at, event)));
    stream::select_all(numbered).flat_map(move |(at, event)| stream::iter(take(&mut parts, at, event)))
}

/// What one of the watches has shown.
struct Part<K> {
    known: BTreeMap<String, K>,
    listing: BTreeMap<String, K>,
    is_complete: bool,
    /// It was said that it fails.
    is_told: bool,
}

impl<K> Default for Part<K> {
    fn default() -> Part<K> {
        Part { known: BTreeMap::new(), listing: BTreeMap::new(), is_complete: false, is_told: false }
    }
}

/// What an event of one part is for all: nothing before each has its list, and a new list of one is a new list of all.
fn take<K: Resource + Clone>(
    parts: &mut [Part<K>],
    at: usize,
    event: watcher::Result<Event<K>>,
) -> Vec<watcher::Result<Event<K>>> {
    let was_complete = parts.iter().all(|part| part.is_complete);
    let Some(part) = parts.get_mut(at) else { return Vec::new() };
    let name = |object: &K| object.meta().name.clone().unwrap_or_default();
    let passed = match event {
        Ok(Event::Init) => {
            part.listing.clear();
            None
        }
        Ok(Event::InitApply(object)) => {
            part.listing.insert(name(&object), object);
            None
        }
        Ok(Event::InitDone) => {
            part.known = std::mem::take(&mut part.listing);
            (part.is_complete, part.is_told) = (true, false);
            return if parts.iter().all(|part| part.is_complete) { list(parts) } else { Vec::new() };
        }
        Ok(Event::Apply(object)) => {
            part.known.insert(name(&object), object.clone());
            Some(Ok(Event::Apply(object)))
        }
        Ok(Event::Delete(object)) => {
            part.known.remove(&name(&object));
            Some(Ok(Event::Delete(object)))
        }
        Err(error) => {
            // All wait for this one: it is said even where its follower would not.
            if !part.is_complete && !std::mem::replace(&mut part.is_told, true) {
                tracing::warn!(%error, "cannot list one of the namespaces, all wait for it");
            }
            return vec![Err(error)];
        }
    };
    passed.filter(|_| was_complete).into_iter().collect()
}

fn list<K: Clone>(parts: &[Part<K>]) -> Vec<watcher::Result<Event<K>>> {
    let objects = parts.iter().flat_map(|part| part.known.values().cloned());
    let objects = objects.map(Event::InitApply);
    [Event::Init].into_iter().chain(objects).chain([Event::InitDone]).map(Ok).collect()
}

#[cfg(test)]
mod tests {
    use backon::BackoffBuilder;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;

    use super::*;

    const HELD_BACK: Duration = Duration::from_millis(123);

    fn map(namespace: &str, name: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {"namespace": namespace, "name": name}})).unwrap()
    }

    fn said(events: Vec<watcher::Result<Event<ConfigMap>>>) -> String {
        let name = |map: &ConfigMap| format!("{}/{}", map.namespace().unwrap(), map.name_any());
        let words = events.into_iter().map(|event| match event {
            Ok(Event::Init) => "[".to_owned(),
            Ok(Event::InitApply(map)) => name(&map),
            Ok(Event::InitDone) => "]".to_owned(),
            Ok(Event::Apply(map)) => format!("+{}", name(&map)),
            Ok(Event::Delete(map)) => format!("-{}", name(&map)),
            Err(_) => "!".to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_watches_that_were_held_back_each_begins_at_its_own_moment() {
        assert_eq!([1, 11, 1000].map(spread), [0, 2, 10].map(Duration::from_secs));
        let mut began = Vec::new();
        for _ in 0..20 {
            let refusal = kube::Error::Service(Refusal::Paused(HELD_BACK).into());
            let held_back = watcher::Result::<Event<ConfigMap>>::Err(watcher::Error::WatchStartFailed(refusal));
            let events = stream::iter([held_back, Ok(Event::Init)]);
            let since = tokio::time::Instant::now();
            patient(events, pauses(11), spread(11), "pods".to_owned()).collect::<Vec<_>>().await;
            began.push(since.elapsed());
        }
        assert!(began.iter().all(|pause| (HELD_BACK..=HELD_BACK + spread(11)).contains(pause)), "{began:?}");
        let (first, last) = (began.iter().min().unwrap(), began.iter().max().unwrap());
        assert!(*last - *first > spread(11) / 4, "{began:?}");
    }

    #[test]
    fn the_pauses_of_a_watch_stay_short_and_those_of_many_share_what_is_asked() {
        for (watches, longest) in [(1, 4), (10, 4), (100, 40)] {
            let all: Vec<Duration> = pauses(watches).build().take(100).collect();
            assert!(all[0] < 2 * FIRST_PAUSE, "{:?}", all[0]);
            let (least, most) = (Duration::from_secs(longest / 2), Duration::from_secs(longest));
            assert!(all[10..].iter().all(|pause| (least..=most).contains(pause)), "{watches}: {all:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_too_old_after_an_outage_is_listed_anew_at_once() {
        let error = |code: u16| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            watcher::Result::<Event<ConfigMap>>::Err(watcher::Error::WatchError(Box::new(status)))
        };
        let away = || Err(watcher::Error::NoResourceVersion);
        let held_back = || {
            let refusal = kube::Error::Service(Refusal::Paused(HELD_BACK).into());
            Err(watcher::Error::WatchStartFailed(refusal))
        };
        let outage = (0..9).map(|_| away()).chain([error(410), Ok(Event::Init)]).chain((0..9).map(|_| error(500)));
        let events: Vec<_> = outage.chain((0..3).map(|_| held_back())).collect();
        let mut events = std::pin::pin!(patient(stream::iter(events), pauses(1), spread(1), "configmaps".to_owned()));
        let mut pauses = Vec::new();
        loop {
            let began = tokio::time::Instant::now();
            if events.next().await.is_none() {
                break;
            }
            pauses.push(began.elapsed());
        }
        // Before the event at each place there is the pause that the one before it asked for.
        let (longest, first) = (LONGEST_PAUSE..=2 * LONGEST_PAUSE, FIRST_PAUSE..=2 * FIRST_PAUSE);
        assert!(longest.contains(&pauses[9]), "an outage: {pauses:?}");
        assert!(first.contains(&pauses[10]), "an answer: {pauses:?}");
        assert!(longest.contains(&pauses[19]), "what fails in another way waits: {pauses:?}");
        assert_eq!(pauses[21..], [HELD_BACK, HELD_BACK], "what was held back waits for just so long");
        let counted = Restart::ALL.map(|why| watch_restarts("configmaps", why).unwrap().get());
        assert_eq!(counted, [0, 1, 21], "cut, expired, failed");
    }

    #[test]
    fn a_list_whose_next_page_is_too_old_has_expired_and_what_was_cut_is_the_gates_to_count() {
        let api = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            kube::Error::Api(Box::new(status))
        };
        let cut = kube::Error::ReadEvents(std::io::Error::other("reset"));
        for error in [
            watcher::Error::InitialListFailed(api(410)),
            watcher::Error::WatchStartFailed(api(410)),
            watcher::Error::InitialListFailed(api(403)),
            watcher::Error::WatchFailed(cut),
        ] {
            count_error("endpoints", &error);
        }
        let counted = Restart::ALL.map(|why| watch_restarts("endpoints", why).unwrap().get());
        assert_eq!(counted, [0, 2, 1], "cut, expired, failed");
    }

    #[test]
    fn the_list_waits_for_every_namespace_and_a_new_one_names_them_all() {
        let mut parts: Vec<Part<ConfigMap>> = vec![Part::default(), Part::default()];
        let mut give = |at, event| said(take(&mut parts, at, event));
        for event in [Event::Init, Event::InitApply(map("a", "x")), Event::InitDone, Event::Apply(map("a", "y"))] {
            assert_eq!(give(0, Ok(event)), "");
        }
        assert_eq!(give(1, Err(watcher::Error::NoResourceVersion)), "!");
        assert_eq!(give(1, Ok(Event::Init)), "");
        assert_eq!(give(1, Ok(Event::InitApply(map("b", "x")))), "");
        assert_eq!(give(1, Ok(Event::InitDone)), "[ a/x a/y b/x ]");
        assert_eq!(give(0, Ok(Event::Delete(map("a", "x")))), "-a/x");
        assert_eq!(give(1, Ok(Event::Apply(map("b", "y")))), "+b/y");
        // One list anew: what is gone there is gone, and the other's is untouched.
        assert_eq!(give(1, Ok(Event::Init)), "");
        assert_eq!(give(0, Ok(Event::Apply(map("a", "z")))), "+a/z");
        assert_eq!(give(1, Ok(Event::InitApply(map("b", "y")))), "");
        assert_eq!(give(1, Ok(Event::InitDone)), "[ a/y a/z b/y ]");
    }
}
