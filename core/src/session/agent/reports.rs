//! Which reports of the journal are under way in this session.

use std::collections::VecDeque;

use super::Output;
use crate::session::frame::{AgentFrame, Report};

/// A report is at most about 7 KiB on the wire, so a frame of these stays below the limit.
const FRAME_REPORTS: usize = 128;
/// Whatever the hub allows, the agent remembers no more.
const MAX_UNACKED: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Reports {
    max_unacked: usize,
    /// Read from the journal, not yet sent.
    loaded: Vec<Report>,
    loading: bool,
    /// The answer under way belongs to a session that is over.
    discard: bool,
    /// The journal may have something behind `cursor`.
    more: bool,
    /// The journal grew after the Load under way was asked for.
    grew_meanwhile: bool,
    next_seq: u64,
    /// Everything up to here was read in this session.
    cursor: u64,
    /// Sent and not acked.
    unacked: VecDeque<u64>,
    sent_seq: u64,
    in_session: bool,
}

impl Reports {
    pub(super) fn start(&mut self, max_unacked: u32, next_seq: u64) {
        self.stop();
        self.max_unacked = usize::try_from(max_unacked).unwrap_or(MAX_UNACKED).clamp(1, MAX_UNACKED);
        self.in_session = true;
        self.next_seq = next_seq;
        self.more = next_seq > 1;
    }

    pub(super) fn stop(&mut self) {
        *self = Reports { loading: self.loading, discard: self.loading, ..Reports::default() };
    }

    pub(super) fn appended(&mut self, next_seq: u64) {
        if next_seq > self.next_seq {
            self.next_seq = next_seq;
            self.more = true;
            self.grew_meanwhile = self.loading;
        }
    }

    pub(super) fn loaded(&mut self, reports: Vec<Report>) {
        self.loading = false;
        if std::mem::take(&mut self.discard) {
            return;
        }
        self.more = match reports.last() {
            // What was there has been dropped, or came too late for this answer.
            None => self.grew_meanwhile,
            Some(last) => {
                self.cursor = last.seq;
                self.next_seq > last.seq.saturating_add(1)
            }
        };
        self.loaded = reports;
    }

    /// What to read next: only when the last batch is on its way and the hub allows more.
    pub(super) fn next_load(&mut self) -> Option<Output> {
        let max = self.max_unacked.saturating_sub(self.unacked.len()).min(FRAME_REPORTS);
        if !self.in_session || self.loading || !self.more || !self.loaded.is_empty() || max == 0 {
            return None;
        }
        self.loading = true;
        self.grew_meanwhile = false;
        Some(Output::Load { after_seq: self.cursor, max })
    }

    pub(super) fn has_frame(&self) -> bool {
        !self.loaded.is_empty()
    }

    pub(super) fn next_frame(&mut self) -> Option<AgentFrame> {
        if self.loaded.is_empty() {
            return None;
        }
        let reports = std::mem::take(&mut self.loaded);
        self.unacked.extend(reports.iter().map(|report| report.seq));
        self.sent_seq = reports.last().map_or(self.sent_seq, |last| last.seq);
        Some(AgentFrame::reports(reports))
    }

    /// The last number sent in this session; 0 for none.
    pub(super) fn sent_seq(&self) -> u64 {
        self.sent_seq
    }

    /// Refuses, with the last number sent, an ack of what was not sent.
    pub(super) fn acked(&mut self, seq: u64) -> Result<(), u64> {
        if seq > self.sent_seq {
            return Err(self.sent_seq);
        }
        let covered = self.unacked.partition_point(|&sent| sent <= seq);
        self.unacked.drain(..covered);
        Ok(())
    }
}
