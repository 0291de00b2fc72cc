//! How long checks were up, out of what the store has: the sums of whole days where they are made, and each check's own
//! transitions for the rest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use active_monitor_core::uptime::{Class, Day, Late, Life, Uptime, Walk};
use jiff::{SignedDuration, Timestamp};

use crate::store::rollups::CheckFilter;
use crate::store::{CheckKey, Store, StoreError, TransitionQuery};

/// A time that is longer than this begins at a midnight (UTC), so that it is whole days up to the present one.
const EXACT: SignedDuration = SignedDuration::from_hours(48);

/// How old the sums of clusters may be.
const RECENT: SignedDuration = SignedDuration::from_secs(30);
/// Sums of clusters that are kept.
const KEPT: usize = 64;

/// How long the checks of each cluster were what, and how many they are: the most of any day.
pub(crate) type Clusters = BTreeMap<String, (u64, Uptime)>;

/// The sums of clusters that were made just now. They take a second of a large fleet, so they are made once for all who
/// ask meanwhile and soon after.
#[derive(Default)]
pub(crate) struct Recent {
    /// By cluster and window, with the times that they are of. Held while one is made.
    made: tokio::sync::Mutex<HashMap<(Option<String>, SignedDuration), Made>>,
}

/// Sums, and the time that they are of.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) clusters: Arc<Clusters>,
}

impl Recent {
    /// Of a cluster or all, over a window that ends at `now` or a little before.
    pub(crate) async fn clusters(
        &self,
        store: &dyn Store,
        cluster: Option<String>,
        window: SignedDuration,
        now: Timestamp,
    ) -> Result<Made, StoreError> {
        let mut made = self.made.lock().await;
        made.retain(|_, made| now.duration_since(made.to).abs() < RECENT);
        let key = (cluster, window);
        if let Some(made) = made.get(&key) {
            return Ok(made.clone());
        }
        let (from, to) = (begins(now, window), now);
        let sums = clusters(store, key.0.as_deref(), &lives(store, to).await?, from, to).await?;
        let fresh = Made { from, to, clusters: Arc::new(sums) };
        if made.len() < KEPT {
            made.insert(key, fresh.clone());
        }
        Ok(fresh)
    }
}

/// When a hub was there; this one is now, whenever it has said so last.
pub(crate) async fn lives(store: &dyn Store, now: Timestamp) -> Result<Vec<Life>, StoreError> {
    let mut lives = store.lives().await?;
    if let Some(present) = lives.last_mut() {
        present.to = now;
    }
    Ok(lives)
}

/// Where a time begins that ends at `to`.
pub(crate) fn begins(to: Timestamp, window: SignedDuration) -> Timestamp {
    let from = to.saturating_sub(window).unwrap_or(Timestamp::MIN);
    if window > EXACT { Day::of(from).start() } else { from }
}

/// How long each check was what between `from` and `to`.
pub(crate) async fn checks(
    store: &dyn Store,
    filter: &CheckFilter,
    lives: &[Life],
    from: Timestamp,
    to: Timestamp,
) -> Result<BTreeMap<CheckKey, Uptime>, StoreError> {
    let mut sums: BTreeMap<CheckKey, Uptime> = BTreeMap::new();
    let mut rest = from;
    if let Some((first, last)) = whole_days(store, from, to).await? {
        sums.extend(store.check_sums(filter, first, last).await?);
        rest = last.next().start();
    }
    for (key, (time, _)) in walk(store, filter, lives, rest, to).await? {
        sums.entry(key).or_default().add(&time);
    }
    Ok(sums)
}

/// How long the checks of each cluster were what between `from` and `to`.
pub(crate) async fn clusters(
    store: &dyn Store,
    cluster: Option<&str>,
    lives: &[Life],
    from: Timestamp,
    to: Timestamp,
) -> Result<Clusters, StoreError> {
    let mut sums = Clusters::new();
    let mut rest = from;
    if let Some((first, last)) = whole_days(store, from, to).await? {
        let days = store.cluster_sums(cluster, first, last).await?;
        sums.extend(days.into_iter().map(|(cluster, checks, time)| (cluster, (checks, time))));
        rest = last.next().start();
    }
    let filter = CheckFilter { cluster: cluster.map(str::to_owned), ..CheckFilter::default() };
    let mut present = Clusters::new();
    for (key, (time, _)) in walk(store, &filter, lives, rest, to).await? {
        let (checks, sum) = present.entry(key.cluster).or_default();
        *checks += u64::from(time != Uptime::default());
        sum.add(&time);
    }
    for (cluster, (checks, time)) in present {
        let (most, sum) = sums.entry(cluster).or_default();
        *most = checks.max(*most);
        sum.add(&time);
    }
    Ok(sums)
}

/// The days of which there are sums, where the time begins with one.
async fn whole_days(store: &dyn Store, from: Timestamp, to: Timestamp) -> Result<Option<(Day, Day)>, StoreError> {
    let first = Day::of(from);
    let Some(through) = store.rolled_up().await?.days.filter(|_| first.start() == from) else { return Ok(None) };
    let last = through.min(Day::of(to).before());
    Ok((first <= last).then_some((first, last)))
}

/// What checks were between `from` and `to`, and what was known of each at the end, from their own transitions.
pub(crate) async fn walk(
    store: &dyn Store,
    filter: &CheckFilter,
    lives: &[Life],
    from: Timestamp,
    to: Timestamp,
) -> Result<BTreeMap<CheckKey, (Uptime, Class)>, StoreError> {
    let mut late: BTreeMap<CheckKey, Vec<Late>> = BTreeMap::new();
    for (key, result) in store.late_results(filter, from, to).await? {
        late.entry(key).or_default().push(result);
    }
    let mut walks: BTreeMap<CheckKey, Walk<'_>> = BTreeMap::new();
    let mut begin = |key: &CheckKey| Walk::new(lives, late.remove(key).unwrap_or_default(), from, to);
    let day = Day::of(from);
    if store.rolled_up().await?.days.is_some_and(|through| through >= day.before()) {
        for (key, class) in store.ends(filter, day.before()).await? {
            let walk = walks.entry(key).or_insert_with_key(&mut begin);
            walk.resume(day.start(), class);
        }
        let mut step = |key, transition| walks.entry(key).or_insert_with_key(&mut begin).step(transition);
        store.transitions_within(filter, day.start(), to, &mut step).await?;
    } else {
        let CheckFilter { cluster, namespace, name } = filter.clone();
        let query = TransitionQuery { cluster, namespace, name, from, to };
        let mut step = |key, transition| walks.entry(key).or_insert_with_key(&mut begin).step(transition);
        store.transitions(&query, &mut step).await?;
    }
    Ok(walks.into_iter().map(|(key, walk)| (key, walk.end())).collect())
}
