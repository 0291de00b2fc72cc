//! What of the checks' states the hub still has to hear.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::session::frame::{AgentFrame, MAX_AGENT_FRAME_BYTES};
use crate::state::CheckState;

const CHUNK_CHECKS: usize = 100;
/// Half of what the hub takes: the sizes are estimates.
const CHUNK_BYTES: usize = MAX_AGENT_FRAME_BYTES / 2;

#[derive(Debug, Default)]
pub(super) struct Checks {
    known: BTreeMap<String, Arc<CheckState>>,
    /// `known` is all there is.
    all_known: bool,
    /// Of this session's snapshot, not yet sent; absent when it is complete or there is no session.
    snapshot: Option<BTreeSet<String>>,
    /// Changed since the hub heard of them, in the order in which they changed first.
    waiting: VecDeque<String>,
    is_waiting: BTreeSet<String>,
    in_session: bool,
}

impl Checks {
    pub(super) fn changed(&mut self, state: Arc<CheckState>) {
        self.mark(&state.uid);
        self.known.insert(state.uid.clone(), state);
    }

    pub(super) fn removed(&mut self, uid: String) {
        if self.known.remove(&uid).is_none() {
            return;
        }
        // A check that no chunk named is gone for the hub.
        if !self.snapshot.as_mut().is_some_and(|pending| pending.remove(&uid)) {
            self.mark(&uid);
        }
    }

    pub(super) fn set_known(&mut self) {
        let was_known = std::mem::replace(&mut self.all_known, true);
        // The snapshot of a session that began before was made of what there was then, and none of it is sent.
        if self.in_session && !was_known {
            self.start();
        }
    }

    pub(super) fn are_known(&self) -> bool {
        self.all_known
    }

    /// A session begins: everything is to be sent.
    pub(super) fn start(&mut self) {
        self.stop();
        self.in_session = true;
        self.snapshot = Some(self.known.keys().cloned().collect());
    }

    /// The session is over: the next one begins with a snapshot, so nothing needs to wait.
    pub(super) fn stop(&mut self) {
        self.in_session = false;
        self.snapshot = None;
        self.waiting.clear();
        self.is_waiting.clear();
    }

    pub(super) fn has_frame(&self) -> bool {
        self.snapshot.is_some() || !self.waiting.is_empty()
    }

    /// The next part of the snapshot; `None` when it is complete.
    pub(super) fn next_snapshot_chunk(&mut self) -> Option<AgentFrame> {
        let pending = self.snapshot.as_mut()?;
        let mut checks = Vec::new();
        let mut bytes = 0;
        while checks.len() < CHUNK_CHECKS && bytes < CHUNK_BYTES {
            let Some(uid) = pending.pop_first() else { break };
            let Some(state) = self.known.get(&uid) else { continue };
            bytes += size_bytes(state);
            checks.push(CheckState::clone(state));
        }
        let last = pending.is_empty();
        if last {
            self.snapshot = None;
        }
        Some(AgentFrame::Snapshot { checks, last })
    }

    /// The check that has waited longest, as it is.
    pub(super) fn next_update(&mut self) -> Option<AgentFrame> {
        let uid = self.waiting.pop_front()?;
        self.is_waiting.remove(&uid);
        Some(match self.known.get(&uid) {
            Some(state) => AgentFrame::CheckUpsert(Box::new(CheckState::clone(state))),
            None => AgentFrame::CheckRemoved(uid),
        })
    }

    fn mark(&mut self, uid: &str) {
        let in_snapshot = self.snapshot.as_ref().is_some_and(|pending| pending.contains(uid));
        if self.in_session && !in_snapshot && self.is_waiting.insert(uid.to_owned()) {
            self.waiting.push_back(uid.to_owned());
        }
    }
}

/// About what a state takes on the wire; never much less.
fn size_bytes(state: &CheckState) -> usize {
    let CheckState { uid, namespace, name, description, message, schedule, remedy_status, samples, pauses, .. } = state;
    let texts = [uid, namespace, name, description, message, schedule, remedy_status];
    let samples: usize = samples.iter().map(|sample| sample.metric.len() + sample.help.len() + 24).sum();
    let pauses: usize = pauses.iter().map(|pause| pause.reason.len() + pause.by.len() + 256).sum();
    let depends_on: usize = state.depends_on.iter().map(|parent| parent.len() + 8).sum();
    texts.iter().map(|text| text.len()).sum::<usize>() + samples + pauses + depends_on + 1024
}
