//! Follows what other replicas write, and takes it into this one's state: woken by the data base, and each second if not.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::care::Acknowledgement;
use active_monitor_core::fleet::{Change, FleetView, Followed};
use active_monitor_core::view::CheckView;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Peers, commands, elsewhere};
use crate::desired::{Stale, Which};
use crate::owner::{self, ChangeError, FleetHandle};
use crate::store::postgres::replicas::{Followed as Read, Topic};
use crate::store::{CheckKey, Store, StoreError};

/// What is written within this time after a wake-up is read with it.
const COALESCE: Duration = Duration::from_millis(20);

/// Reads what is new.
pub(super) struct Follower {
    peers: Arc<Peers>,
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    /// Everything up to it is known here; 0 before the first round.
    revision: u64,
}

impl Follower {
    pub(super) fn new(peers: Arc<Peers>, store: Arc<dyn Store>, fleet: FleetHandle) -> Follower {
        Follower { peers, store, fleet, revision: 0 }
    }

    /// Follows until `stop`. Wake-ups can be lost with their connection, and a beat is none: it looks after `poll` at the
    /// latest.
    pub(super) async fn run(mut self, poll: Duration, stop: CancellationToken) -> Result<(), Infallible> {
        let mut wakes = None;
        loop {
            if wakes.is_none() {
                let listening = self.peers.store.wakes().await;
                wakes = listening.inspect_err(|error| tracing::warn!(%error, "wake-ups are not heard")).ok();
            }
            tokio::select! {
                () = woken(&mut wakes) => tokio::time::sleep(COALESCE).await,
                () = tokio::time::sleep(poll) => {}
                () = stop.cancelled() => return Ok(()),
            }
            if let Err(error) = self.round().await {
                // Without news of them the others become silent, and then gone.
                tracing::warn!(%error, "other replicas are not followed");
            }
        }
    }

    /// Takes over what is new; all of it again where that fails in the middle.
    pub(super) async fn round(&mut self) -> Result<(), StoreError> {
        let began = Timestamp::now();
        let Read { revision, is_gap, replicas, clusters, topics } = self.peers.store.follow(self.revision).await?;
        let is_all = is_gap || self.revision == 0;
        let news = |topic: Topic| is_all || topics.iter().any(|(of, _)| *of == topic);
        let stale = Stale {
            clusters: news(Topic::Clusters),
            definitions: news(Topic::Definitions),
            statuses: if is_all { Which::All } else { Which::Named(named(&topics, Topic::DefinitionStatuses)) },
            restore: news(Topic::Restore),
        };
        // First the clusters, since nothing is shown of one that is not known.
        if stale != Stale::default() {
            stopping(self.fleet.reload(stale).await)?;
        }
        let own = self.peers.store.id();
        let others = replicas.into_iter().filter(|(id, _)| id != own);
        let beats = others.map(|(id, ago)| (id, began.checked_sub(ago).unwrap_or(Timestamp::MIN))).collect();
        let clusters = clusters.into_iter().map(elsewhere).collect();
        self.send(Change::Followed(Box::new(Followed { beats, clusters }))).await;
        if news(Topic::Windows) {
            let windows = owner::windows(self.store.as_ref()).await?;
            self.send(Change::Windows(windows)).await;
        }
        if news(Topic::Acknowledgements) {
            self.acknowledge().await?;
        }
        if news(Topic::Foreign) {
            let named = (!is_all).then(|| named(&topics, Topic::Foreign));
            for (cluster, cluster_uid, ago) in self.peers.store.foreign(named.as_ref()).await? {
                let at = began.checked_sub(ago).unwrap_or(Timestamp::MIN);
                self.send(Change::Foreign { cluster, cluster_uid, at }).await;
            }
        }
        if news(Topic::Commands) {
            commands::round(&self.peers, &self.fleet).await?;
        }
        match is_all {
            true => self.peers.tell_all(),
            false => topics.iter().for_each(|(topic, _)| self.peers.tell(*topic)),
        }
        self.revision = revision;
        Ok(())
    }

    /// Those that are stored are there, and no others.
    async fn acknowledge(&self) -> Result<(), StoreError> {
        // In this order: one that is shown from now on is stored already.
        let mut all = acknowledged(&self.fleet.view());
        all.extend(self.store.acknowledgements().await?.into_iter().map(|(key, stored)| (key, Some(stored))));
        for (CheckKey { cluster, namespace, name }, acknowledgement) in all {
            self.send(Change::Acknowledge { cluster, namespace, name, acknowledgement }).await;
        }
        Ok(())
    }

    async fn send(&self, change: Change) {
        // Err means that the hub stops.
        let _ = self.fleet.change(change).await;
    }
}

/// The clusters of which something of this topic was written.
fn named(topics: &BTreeSet<(Topic, String)>, of: Topic) -> BTreeSet<String> {
    topics.iter().filter(|(topic, _)| *topic == of).map(|(_, cluster)| cluster.clone()).collect()
}

/// The checks whose acknowledgement is shown, each without one.
fn acknowledged(view: &FleetView) -> BTreeMap<CheckKey, Option<Acknowledgement>> {
    let checks = view.clusters.values().flat_map(|entry| entry.checks.values());
    let shown = checks.filter(|check| check.care.acknowledgement.is_some());
    let key = |check: &Arc<CheckView>| {
        let (namespace, name) = (check.state.namespace.clone(), check.state.name.clone());
        CheckKey { cluster: check.cluster.clone(), namespace, name }
    };
    shown.map(|check| (key(check), None)).collect()
}

/// The next wake-up; never, where there is no connection for them.
async fn woken(wakes: &mut Option<BoxStream<'static, ()>>) {
    match wakes {
        Some(stream) => {
            if stream.next().await.is_none() {
                *wakes = None;
            }
        }
        None => std::future::pending().await,
    }
}

/// A hub that stops needs no news.
fn stopping(result: Result<(), ChangeError>) -> Result<(), StoreError> {
    if let Err(ChangeError::Store(error)) = result { Err(error) } else { Ok(()) }
}
