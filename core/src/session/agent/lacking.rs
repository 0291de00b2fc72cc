//! What the journal lacks, until the hub knows: said once in each session. The hub answers nothing to it, and carries out what
//! it is told in order, so the ack of a report that was sent behind it covers it too.

use crate::session::frame::Counted;

#[derive(Debug, Default)]
pub(super) struct Lacking {
    runs: Vec<Counted>,
    /// Said in this session behind the report of this number.
    said_behind: Option<u64>,
}

impl Lacking {
    pub(super) fn set(&mut self, runs: Vec<Counted>) {
        if runs != self.runs {
            *self = Lacking { runs, said_behind: None };
        }
    }

    pub(super) fn stop(&mut self) {
        self.said_behind = None;
    }

    pub(super) fn has_frame(&self) -> bool {
        self.said_behind.is_none() && !self.runs.is_empty()
    }

    /// What is to be said now, where `sent_seq` is the last report of this session.
    pub(super) fn next(&mut self, sent_seq: u64) -> Option<Vec<Counted>> {
        self.has_frame().then(|| {
            self.said_behind = Some(sent_seq);
            self.runs.clone()
        })
    }

    /// What the hub knows by this ack.
    pub(super) fn acked(&mut self, seq: u64) -> Option<Vec<Counted>> {
        self.said_behind.filter(|behind| seq > *behind)?;
        self.said_behind = None;
        Some(std::mem::take(&mut self.runs))
    }
}
