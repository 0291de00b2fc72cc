//! Records what is shown of each check over time, which versions agents have, and that the hub is there to see it.
//!
//! It compares the published view with the one that it recorded last. A status that came and went between two rounds is
//! not recorded: it was shown for less than a second.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::clock::may_be_behind;
use active_monitor_core::fleet::{Checks, ClusterEntry, FleetView};
use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{CheckView, ClusterStatus};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::store::{AgentVersions, CheckKey, Store, StoreError};

/// Time between two rounds.
const PERIOD: Duration = Duration::from_secs(1);
/// Rounds after which the hub says that it is alive though nothing changed: so much is unknown after a crash.
const ROUNDS: u32 = 10;
/// By so much the clocks of replicas may differ without a word.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

/// Records what is another than in the view that is `recorded`, until `stop`, and once more then. After the hub's start the
/// checks in that view are those of an earlier life: what they are is not known before their agents speak.
///
/// A life makes void what is recorded of the time after its begin. So where its clock may be behind, it waits to begin: at its
/// start, and after the clock was set back.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    view: watch::Receiver<Arc<FleetView>>,
    mut recorded: Arc<FleetView>,
    (started_at, takes_over): (Timestamp, bool),
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut quiet = ROUNDS;
    let mut watch = clock::Watch::new();
    // What is new to the store: a life, and where the clock was set within one, what each check is from then on.
    // Who takes over from another replica says what everything is, too: the life in which it was said is over.
    let (mut life_from, mut begins, mut was_set) = (started_at, true, takes_over);
    let (mut doubt, mut waits) = (Doubt::default(), false);
    let mut looked_at = started_at;
    loop {
        let (now, step) = watch.look();
        if let Some(by) = step {
            (life_from, begins, was_set) = (now, true, true);
            doubt.stepped(by, looked_at);
        }
        looked_at = now;
        // Asked before the view: the last one is recorded.
        let is_last = stop.is_cancelled();
        let current = view.borrow().clone();
        if doubt.remains(store.as_ref(), now, &current).await {
            waits = true;
            if next_round(&stop).await {
                continue;
            }
            return Ok(());
        }
        if std::mem::take(&mut waits) {
            (life_from, was_set) = (now, true);
        }
        let transitions = match was_set {
            true => everything(&recorded, &current, now),
            false => difference(&recorded, &current, now),
        };
        let versions = new_versions(&recorded, &current);
        quiet += 1;
        if was_set || !transitions.is_empty() || !versions.is_empty() || quiet > ROUNDS || is_last {
            forget(store.as_ref(), &recorded, &current).await;
            match record(store.as_ref(), begins, Life { from: life_from, to: now }, transitions, versions).await {
                Ok(()) => (recorded, quiet, begins, was_set) = (current, 0, false, false),
                // The next round tries again.
                Err(error) => tracing::warn!(%error, "transitions not recorded"),
            }
        } else {
            recorded = current;
        }
        if is_last {
            return Ok(());
        }
        next_round(&stop).await;
    }
}

/// False where the hub stops instead.
async fn next_round(stop: &CancellationToken) -> bool {
    tokio::time::timeout(PERIOD, stop.cancelled()).await.is_err()
}

/// Whether the clock is behind what was recorded last.
#[derive(Default)]
struct Doubt {
    newest: Newest,
    /// When the clock was set last, by what it says since: of an agent that was not heard after that it is not known yet by how
    /// much its clock is ahead.
    set_at: Option<Timestamp>,
}

/// What was recorded last.
#[derive(Default)]
enum Newest {
    #[default]
    Unread,
    At(Timestamp),
    /// Nothing that the clock is behind of.
    Past,
}

impl Doubt {
    /// The clock was set since it said `looked_at`.
    fn stepped(&mut self, by: SignedDuration, looked_at: Timestamp) {
        self.set_at = Some(looked_at.saturating_add(by).unwrap_or(looked_at));
        if by.is_negative() {
            self.newest = Newest::Unread;
        }
    }

    /// Agents settle it, and time does.
    async fn remains(&mut self, store: &dyn Store, now: Timestamp, view: &FleetView) -> bool {
        if let Newest::Unread = self.newest {
            match store.lives().await {
                Ok(lives) => self.newest = lives.iter().map(|life| life.to).max().map_or(Newest::Past, Newest::At),
                Err(error) => {
                    tracing::warn!(%error, "what was recorded last is not known");
                    return true;
                }
            }
            if let Newest::At(newest) = self.newest
                && newest.duration_since(now) > TOLERANCE
            {
                tracing::error!(%now, %newest, "the clock says less than when it was recorded last: agents' clocks decide");
            }
        }
        let Newest::At(newest) = self.newest else { return false };
        let remains = may_be_behind(now, newest, ahead(view, self.set_at, now));
        if !remains {
            self.newest = Newest::Past;
        }
        remains
    }
}

/// By how much the clocks of connected agents are ahead, of those that were heard since `set_at`. Of clusters elsewhere it is
/// another replica's clock that was compared.
fn ahead(view: &FleetView, set_at: Option<Timestamp>, now: Timestamp) -> impl Iterator<Item = SignedDuration> {
    let here = view.clusters.values().filter(|entry| entry.own.is_some()).map(|entry| &entry.view);
    let connected = here.filter(|view| view.status == ClusterStatus::Connected);
    // What was heard before the clock was set back can still be shown with the later time.
    let is_new = move |at: Timestamp| set_at.is_none_or(|set_at| set_at <= at && at <= now);
    let new = connected.filter(move |view| view.last_heard_at.is_some_and(is_new));
    new.map(|view| SignedDuration::from_millis(view.clock_skew_ms))
}

async fn record(
    store: &dyn Store,
    begins: bool,
    life: Life,
    transitions: Vec<(CheckKey, Transition)>,
    versions: Vec<AgentVersions>,
) -> Result<(), StoreError> {
    if begins {
        store.forget_after(life.from).await?;
    }
    // Before the transitions, since it may be done twice.
    if !versions.is_empty() {
        store.note_versions(life.to, versions).await?;
    }
    store.record_transitions(life, transitions).await
}

/// The versions of agents that say others than the recorded view has. After a start of the hub that is each agent.
fn new_versions(recorded: &FleetView, current: &FleetView) -> Vec<AgentVersions> {
    let versions = |entry: &ClusterEntry| AgentVersions {
        cluster: entry.view.name.clone(),
        agent: entry.view.agent_version.clone(),
        kubernetes: entry.view.kubernetes_version.clone(),
    };
    let said = current.clusters.values().filter(|entry| !entry.view.agent_version.is_empty());
    let is_new = |entry: &&Arc<ClusterEntry>| {
        let before = recorded.clusters.get(&entry.view.name);
        before.is_none_or(|before| !Arc::ptr_eq(before, entry) && versions(before) != versions(entry))
    };
    said.filter(is_new).map(|entry| versions(entry)).collect()
}

/// An acknowledgement that has ended must not come back when the hub starts again. Where it cannot be forgotten now, it is
/// when it ends anew.
async fn forget(store: &dyn Store, recorded: &FleetView, current: &FleetView) {
    for (cluster, entry) in &recorded.clusters {
        let after = current.clusters.get(cluster).map(|entry| &entry.checks);
        if after.is_some_and(|after| Arc::ptr_eq(after, &entry.checks)) {
            continue;
        }
        for (names, check) in entry.checks.iter().filter(|(_, check)| check.care.acknowledgement.is_some()) {
            let goes_on =
                after.and_then(|after| after.get(names)).is_some_and(|new| new.care.acknowledgement.is_some());
            if !goes_on && let Err(error) = store.put_acknowledgement(&key(check), None).await {
                tracing::warn!(%error, "acknowledgement not forgotten");
            }
        }
    }
}

fn difference(recorded: &FleetView, current: &FleetView, now: Timestamp) -> Vec<(CheckKey, Transition)> {
    let nothing = Arc::<Checks>::default();
    let mut transitions = Vec::new();
    for (cluster, entry) in &current.clusters {
        let before = recorded.clusters.get(cluster).map_or(&nothing, |entry| &entry.checks);
        if !Arc::ptr_eq(before, &entry.checks) {
            of_cluster(before, &entry.checks, now, &mut transitions);
        }
    }
    for (cluster, entry) in &recorded.clusters {
        if !current.clusters.contains_key(cluster) {
            of_cluster(&entry.checks, &nothing, now, &mut transitions);
        }
    }
    transitions
}

/// What each check is from `now` on: what was recorded before the clock was set says nothing of the time after.
fn everything(recorded: &FleetView, current: &FleetView, now: Timestamp) -> Vec<(CheckKey, Transition)> {
    let gone = difference(recorded, current, now).into_iter().filter(|(_, transition)| transition.status.is_none());
    let checks = current.clusters.values().flat_map(|entry| entry.checks.values()).map(|check| {
        let maintenance = check.care.maintenance.is_some();
        (key(check), Transition { at: now, status: Some(check.status), maintenance })
    });
    gone.chain(checks).collect()
}

fn of_cluster(before: &Checks, after: &Checks, now: Timestamp, transitions: &mut Vec<(CheckKey, Transition)>) {
    for (key, check) in after {
        let maintenance = check.care.maintenance.is_some();
        let old = before.get(key);
        let same_status = old.is_some_and(|old| old.status == check.status);
        if !same_status || old.is_some_and(|old| old.care.maintenance.is_some() != maintenance) {
            // A window begins and ends at any time of a status.
            let at = if same_status { now } else { check.health.since.unwrap_or(now) };
            transitions.push((self::key(check), Transition { at, status: Some(check.status), maintenance }));
        }
    }
    for (_, check) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
        transitions.push((self::key(check), Transition { at: now, status: None, maintenance: false }));
    }
}

fn key(check: &CheckView) -> CheckKey {
    let (namespace, name) = (check.state.namespace.clone(), check.state.name.clone());
    CheckKey { cluster: check.cluster.clone(), namespace, name }
}

#[cfg(test)]
mod tests {
    use active_monitor_core::fleet::{Change, Fleet, KnownCluster, Said};
    use active_monitor_core::health::Health;
    use active_monitor_core::session::frame::{Heartbeat, Hello};
    use active_monitor_core::state::{CheckState, Phase, Totals};
    use active_monitor_core::uptime::Walk;
    use active_monitor_core::view::CheckStatus;

    use super::*;
    use crate::store::TransitionQuery;
    use crate::store::frozen::{Frozen, frozen};
    use crate::store::sqlite::SqliteStore;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn check(name: &str, phase: Phase) -> CheckState {
        CheckState {
            uid: format!("uid-{name}"),
            namespace: "health".into(),
            name: name.into(),
            description: String::new(),
            phase,
            message: String::new(),
            schedule: "@every 60s".into(),
            running: None,
            next_slot: Some(at(600)),
            timeout_seconds: 30,
            check: Totals::default(),
            remedy: None,
            remedy_status: String::new(),
            samples: Vec::new(),
            refused_samples: 0,
            definition: None,
            pauses: Vec::new(),
            remedy_budget: None,
            depends_on: Vec::new(),
        }
    }

    fn hello(now: Timestamp) -> Hello {
        Hello {
            cluster: "east".into(),
            cluster_uid: "u".into(),
            incarnation: "i".into(),
            agent_version: String::new(),
            kubernetes_version: String::new(),
            oldest_seq: 1,
            next_seq: 1,
            sent_at: now,
            dropped_reports: 0,
            journal_id: String::new(),
            hub_mark: String::new(),
            policy: Vec::new(),
        }
    }

    async fn all(store: &SqliteStore) -> Vec<(String, i64, Option<CheckStatus>)> {
        let query = TransitionQuery { cluster: None, namespace: None, name: None, from: at(0), to: Timestamp::MAX };
        let mut found = Vec::new();
        let mut visit = |key: CheckKey, transition: Transition| {
            found.push((key.name, transition.at.as_second() - at(0).as_second(), transition.status));
        };
        store.transitions(&query, &mut visit).await.unwrap();
        found
    }

    /// The loop sees `before` when it starts and `after` when it is asked to stop.
    async fn live(store: &Arc<SqliteStore>, before: Arc<FleetView>, after: Arc<FleetView>, started_at: Timestamp) {
        let (sender, view) = watch::channel(before.clone());
        let stop = CancellationToken::new();
        let store: Arc<dyn Store> = store.clone();
        clock::virtual_time::begin(started_at + Duration::from_secs(50));
        let task = tokio::spawn(run(store, view, before, (started_at, false), stop.clone()));
        tokio::task::yield_now().await;
        sender.send_replace(after);
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_shown_is_recorded_with_its_time_and_a_restart_adds_only_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path()).await.unwrap());
        let known = KnownCluster { name: "east".into(), cluster_uid: Some("u".into()), ..KnownCluster::default() };
        let mut fleet = Fleet::new(at(0), Duration::from_secs(15), "");
        fleet.apply(at(0), Change::Cluster(known.clone()));
        let before = fleet.publish();
        let epoch = fleet.open(at(1), &hello(at(1))).0.unwrap();
        let mut say = |second, what| fleet.apply(at(second), Change::Said { cluster: "east".into(), epoch, what });
        let checks = vec![check("dns", Phase::Succeeded), check("web", Phase::Succeeded)];
        say(2, Said::Snapshot { checks, last: true });
        say(7, Said::Upsert(Box::new(check("web", Phase::Failed))));
        live(&store, before, fleet.publish(), at(0)).await;
        let first = [("dns", 2, CheckStatus::Succeeded), ("web", 7, CheckStatus::Failed)];
        let first = first.map(|(name, at, status)| (name.to_owned(), at, Some(status)));
        assert_eq!(all(&store).await, first);
        let lives = store.lives().await.unwrap();
        assert!(lives.len() == 1 && lives[0].from == at(0) && lives[0].to >= at(50), "{lives:?}");

        // The next life: the same checks are Stale, which the gap between the lives says already.
        let mut fleet = Fleet::new(at(100), Duration::from_secs(15), "");
        let saved = ["dns", "web"].map(|name| (check(name, Phase::Succeeded), Health::default()));
        fleet.restore(at(100), known, saved.to_vec());
        let before = fleet.publish();
        let epoch = fleet.open(at(101), &hello(at(101))).0.unwrap();
        let snapshot = Said::Snapshot { checks: vec![check("dns", Phase::Succeeded)], last: true };
        fleet.apply(at(102), Change::Said { cluster: "east".into(), epoch, what: snapshot });
        let after = fleet.publish();
        live(&store, before, after.clone(), at(100)).await;
        let found = all(&store).await;
        assert_eq!(found[..2], [first[0].clone(), ("dns".to_owned(), 102, Some(CheckStatus::Succeeded))]);
        assert_eq!((&found[2], found[3].0.as_str(), found[3].2), (&first[1], "web", None));
        assert_eq!(found.len(), 4);

        // A cluster that is removed takes its checks with it.
        fleet.apply(at(110), Change::ClusterRemoved { name: "east".into() });
        live(&store, after, fleet.publish(), at(200)).await;
        let gone = all(&store).await;
        assert_eq!((gone.len(), gone[2].0.as_str(), gone[2].2), (5, "dns", None));
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_clock_is_set_a_life_ends_and_what_a_clock_ahead_recorded_is_void() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Frozen(frozen(SqliteStore::open(dir.path())).await.unwrap()));
        let sleep = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        clock::virtual_time::begin(at(0));
        let known = KnownCluster { name: "east".into(), cluster_uid: Some("u".into()), ..KnownCluster::default() };
        let mut fleet = Fleet::new(at(0), Duration::from_secs(15), "");
        fleet.apply(at(0), Change::Cluster(known));
        let (sender, view) = watch::channel(fleet.publish());
        let (stop, shared) = (CancellationToken::new(), Arc::clone(&store) as Arc<dyn Store>);
        let recorded = view.borrow().clone();
        let task = tokio::spawn(run(shared, view, recorded, (at(0), false), stop.clone()));
        // It has seen a fleet without the check.
        tokio::task::yield_now().await;
        let epoch = fleet.open(at(1), &hello(at(1))).0.unwrap();
        let mut show = |second, phase| {
            let what = Said::Upsert(Box::new(CheckState { next_slot: None, ..check("dns", phase) }));
            fleet.apply(at(second), Change::Said { cluster: "east".into(), epoch, what });
            sender.send_replace(fleet.publish());
        };
        show(1, Phase::Succeeded);
        sleep(100).await;
        // It is an hour ahead for 100 s, in which the check fails.
        clock::virtual_time::step(SignedDuration::from_hours(1));
        sleep(20).await;
        show(3720, Phase::Failed);
        sleep(80).await;
        clock::virtual_time::step(SignedDuration::from_hours(-1));
        // The agent agrees with the clock.
        show(200, Phase::Failed);
        sleep(50).await;
        show(250, Phase::Succeeded);
        sleep(50).await;
        stop.cancel();
        task.await.unwrap().unwrap();

        let lives = store.lives().await.unwrap();
        let ends: Vec<_> =
            lives.iter().map(|life| [life.from, life.to].map(|end| end.duration_since(at(0)).as_secs())).collect();
        assert!(matches!(ends[..], [[0, 89..=100], [200..=201, 300]]), "{ends:?}");
        let mut walk = Walk::new(&lives, Vec::new(), at(0), at(300));
        let query = TransitionQuery { cluster: None, namespace: None, name: None, from: at(0), to: at(9999) };
        store.transitions(&query, &mut |_, transition| walk.step(transition)).await.unwrap();
        let (sum, _) = walk.end();
        // Of the time that the clock was ahead nothing is known.
        assert!((130.0..=150.0).contains(&sum.up_seconds), "{sum:?}");
        assert!((48.0..=50.0).contains(&sum.down_seconds), "{sum:?}");
        assert!((99.0..=112.0).contains(&sum.unknown_seconds), "{sum:?}");
    }

    #[tokio::test]
    async fn who_takes_over_says_what_everything_is_since_the_life_in_which_it_was_said_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path()).await.unwrap());
        let known = KnownCluster { name: "east".into(), cluster_uid: Some("u".into()), ..KnownCluster::default() };
        let mut fleet = Fleet::new(at(0), Duration::from_secs(15), "");
        fleet.apply(at(0), Change::Cluster(known));
        let epoch = fleet.open(at(1), &hello(at(1))).0.unwrap();
        let what = Said::Upsert(Box::new(check("dns", Phase::Succeeded)));
        fleet.apply(at(2), Change::Said { cluster: "east".into(), epoch, what });
        let steady = fleet.publish();
        let (_sender, view) = watch::channel(steady.clone());
        let stop = CancellationToken::new();
        clock::virtual_time::begin(at(100));
        stop.cancel();
        run(Arc::clone(&store) as Arc<dyn Store>, view, steady, (at(50), true), stop).await.unwrap();
        let found = all(&store).await;
        assert!(matches!(found[..], [(_, 100, Some(CheckStatus::Succeeded))]), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_with_the_clock_in_the_past_makes_nothing_void_before_it_is_known_which_time_was_wrong() {
        let known = KnownCluster { name: "east".into(), cluster_uid: Some("u".into()), ..KnownCluster::default() };
        let hour = SignedDuration::from_hours(1);
        // An agent agrees with the clock; or it contradicts, and somebody sets the clock.
        for (agent_ahead, is_void) in [(0, true), (3600, false)] {
            let dir = tempfile::tempdir().unwrap();
            let store = Arc::new(Frozen(frozen(SqliteStore::open(dir.path())).await.unwrap()));
            let key = CheckKey { cluster: "east".into(), namespace: "health".into(), name: "dns".into() };
            let failed = Transition { at: at(3500), status: Some(CheckStatus::Failed), maintenance: false };
            store.record_transitions(Life { from: at(0), to: at(3550) }, vec![(key, failed)]).await.unwrap();
            clock::virtual_time::begin(at(100));
            let mut fleet = Fleet::new(at(100), Duration::from_secs(15), "");
            fleet.apply(at(100), Change::Cluster(known.clone()));
            let (sender, view) = watch::channel(fleet.publish());
            let (stop, shared) = (CancellationToken::new(), Arc::clone(&store) as Arc<dyn Store>);
            let recorded = view.borrow().clone();
            let task = tokio::spawn(run(shared, view, recorded, (at(100), false), stop.clone()));
            let void = async || {
                let mut found = Vec::new();
                let query =
                    TransitionQuery { cluster: None, namespace: None, name: None, from: at(0), to: Timestamp::MAX };
                store.transitions(&query, &mut |_, transition| found.push(transition)).await.unwrap();
                !found.contains(&failed)
            };
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(!void().await, "nobody knows");
            fleet.open(at(160), &hello(at(160 + agent_ahead))).0.unwrap();
            sender.send_replace(fleet.publish());
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(void().await, is_void);
            clock::virtual_time::step(hour);
            tokio::time::sleep(Duration::from_secs(60)).await;
            stop.cancel();
            task.await.unwrap().unwrap();
            assert_eq!(void().await, is_void);
            let lives: Vec<_> = store.lives().await.unwrap();
            let begins: Vec<_> = lives.iter().map(|life| life.from.duration_since(at(0)).as_secs()).collect();
            match is_void {
                true => assert!(matches!(begins[..], [0, 160..=162, 3820..=3822]), "{begins:?}"),
                false => assert!(matches!(begins[..], [0, 3820..=3822]) && lives[0].to == at(3550), "{lives:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_in_error_makes_nothing_void_and_records_nothing_until_it_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Frozen(frozen(SqliteStore::open(dir.path())).await.unwrap()));
        let sleep = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let hour = SignedDuration::from_hours(1);
        clock::virtual_time::begin(at(3600));
        let known = KnownCluster { name: "east".into(), cluster_uid: Some("u".into()), ..KnownCluster::default() };
        let mut fleet = Fleet::new(at(3600), Duration::from_secs(15), "");
        fleet.apply(at(3600), Change::Cluster(known));
        let (sender, view) = watch::channel(fleet.publish());
        let (stop, shared) = (CancellationToken::new(), Arc::clone(&store) as Arc<dyn Store>);
        let recorded = view.borrow().clone();
        let task = tokio::spawn(run(shared, view, recorded, (at(3600), false), stop.clone()));
        tokio::task::yield_now().await;
        let epoch = fleet.open(at(3601), &hello(at(3601))).0.unwrap();
        let mut say = |second, what| {
            fleet.apply(at(second), Change::Said { cluster: "east".into(), epoch, what });
            sender.send_replace(fleet.publish());
        };
        let upsert = |phase| Said::Upsert(Box::new(CheckState { next_slot: None, ..check("dns", phase) }));
        let beat = |second| Said::Heartbeat(Heartbeat { backlog: 0, dropped_reports: 0, sent_at: at(second) });
        say(3601, upsert(Phase::Succeeded));
        sleep(100).await;
        clock::virtual_time::step(-hour);
        // What is shown of the agent's clock is from before, until it speaks.
        sleep(10).await;
        let newest = async || store.lives().await.unwrap().last().unwrap().to;
        assert!(newest().await >= at(3689), "nothing is void");
        say(110, beat(3710));
        sleep(20).await;
        say(130, upsert(Phase::Failed));
        sleep(20).await;
        assert!(newest().await >= at(3689), "nothing is void");
        clock::virtual_time::step(hour);
        sleep(20).await;
        stop.cancel();
        task.await.unwrap().unwrap();

        let lives = store.lives().await.unwrap();
        let ends: Vec<_> =
            lives.iter().map(|life| [life.from, life.to].map(|end| end.duration_since(at(0)).as_secs())).collect();
        assert!(matches!(ends[..], [[3600, 3689..=3700], [3750..=3752, 3770]]), "{ends:?}");
        let mut found = Vec::new();
        let query = TransitionQuery { cluster: None, namespace: None, name: None, from: at(0), to: Timestamp::MAX };
        let mut visit = |_, transition: Transition| found.push((transition.at, transition.status));
        store.transitions(&query, &mut visit).await.unwrap();
        let statuses: Vec<_> = found.iter().map(|(_, status)| *status).collect();
        assert_eq!(statuses, [Some(CheckStatus::Succeeded), Some(CheckStatus::Failed)], "{found:?}");
    }
}
