//! Commands to clusters whose session is at another replica: left in the data base, taken up by that one, and answered
//! there. Neither side tries again: what was not answered in time may be done all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use active_monitor_core::command::{Answer, Command};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Peers;
use crate::owner::{ANSWER_TIMEOUT, FleetHandle, Undelivered};
use crate::store::StoreError;
use crate::store::postgres::replicas::Command as Row;

type Verdict = Result<Answer, Undelivered>;
/// Cluster and id: one command goes to many clusters.
type Key = (String, String);

/// Who waits for answers from other replicas.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<BTreeMap<Key, oneshot::Sender<Verdict>>>);

/// Forgets who waits when it waits no more.
struct Waiting<'a>(&'a Asked, Key);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

impl Peers {
    /// Has the replica with the cluster's session give the command, and waits for the answer, however long that takes.
    pub(crate) async fn ask(&self, cluster: &str, command: &Command) -> Verdict {
        let key = (cluster.to_owned(), command.id.clone());
        let (answer, answered) = oneshot::channel();
        self.asked.0.lock().insert(key.clone(), answer);
        let _waiting = Waiting(&self.asked, key);
        // Every type in a command can be written as JSON.
        let text = serde_json::to_string(command).unwrap_or_default();
        let row = Row { cluster: cluster.to_owned(), id: command.id.clone(), text };
        if let Err(error) = self.store.put_command(&row, ANSWER_TIMEOUT).await {
            tracing::error!(cluster, %error, "a command is not passed on");
            return Err(Undelivered::NotPassedOn);
        }
        answered.await.map_err(|_| Undelivered::Closed)?
    }
}

/// Takes up commands for sessions of this replica, and hands on the answers that came.
pub(super) async fn round(peers: &Arc<Peers>, fleet: &FleetHandle) -> Result<(), StoreError> {
    for row in peers.store.take_commands().await? {
        tokio::spawn(give(Arc::clone(peers), fleet.clone(), row));
    }
    let asked: Vec<Key> = peers.asked.0.lock().keys().cloned().collect();
    if asked.is_empty() {
        return Ok(());
    }
    for (cluster, id, text) in peers.store.answers(&asked).await? {
        let Some(waiting) = peers.asked.0.lock().remove(&(cluster, id)) else { continue };
        match serde_json::from_str(&text) {
            // Err means that nobody waits any more.
            Ok(verdict) => drop(waiting.send(verdict)),
            Err(error) => tracing::error!(%error, "the answer to a command is not read"),
        }
    }
    Ok(())
}

/// Gives a command to the session here, and leaves the answer.
async fn give(peers: Arc<Peers>, fleet: FleetHandle, row: Row) {
    let Row { cluster, id, text } = row;
    let verdict = match serde_json::from_str::<Command>(&text) {
        Ok(command) => tokio::time::timeout(ANSWER_TIMEOUT, fleet.command_here(&cluster, command)).await,
        Err(error) => {
            tracing::error!(cluster, id, %error, "a command of another replica is not read");
            Ok(Err(Undelivered::NotPassedOn))
        }
    };
    // Whoever asked does not wait any more.
    let Ok(verdict) = verdict else { return };
    let text = serde_json::to_string::<Verdict>(&verdict).unwrap_or_default();
    if let Err(error) = peers.store.answer_command(&cluster, &id, &text).await {
        tracing::error!(cluster, id, %error, "the answer to a command is not passed on");
    }
}
