//! What is missing between the reports of a cluster: its journal dropped some, or lost them, or the hub came back from a
//! backup that is older than its acks.
//!
//! A journal numbers its reports without holes, so a number that is left out is a report that nobody will send any more.

use super::frame::{Hello, Report};

/// What came, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Reports without a hole between them.
    Reports(Vec<Report>),
    /// A hole.
    Gap(Gap),
}

/// A hole between two reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Reports that are missing.
    pub reports: u64,
    /// Number of the last of them.
    pub through_seq: u64,
}

/// Follows the numbers of one journal through a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    expected: u64,
}

impl Sequence {
    /// `known` is the highest number of this journal that is on the hub's disk. What Hello says to be gone is a gap at
    /// once.
    pub fn new(hello: &Hello, known: Option<u64>) -> (Sequence, Option<Gap>) {
        // A journal that has not come so far is not the one that is known, or was put back: it begins anew.
        let known = known.filter(|known| *known < hello.next_seq);
        let mut sequence = Sequence { expected: known.map_or(hello.oldest_seq, |known| known.saturating_add(1)) };
        let gap = sequence.gap_before(hello.oldest_seq);
        (sequence, gap)
    }

    /// Takes reports whose numbers grow; what lies behind the last up to `through_seq` came and cannot be read.
    pub fn take(&mut self, reports: Vec<Report>, through_seq: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for report in reports {
            let seq = report.seq;
            if let Some(gap) = self.gap_before(seq) {
                pieces.push(Piece::Gap(gap));
            }
            self.expected = self.expected.max(seq.saturating_add(1));
            match pieces.last_mut() {
                Some(Piece::Reports(reports)) => reports.push(report),
                Some(Piece::Gap(_)) | None => pieces.push(Piece::Reports(vec![report])),
            }
        }
        pieces.extend(self.gap_before(through_seq.saturating_add(1)).map(Piece::Gap));
        pieces
    }

    fn gap_before(&mut self, seq: u64) -> Option<Gap> {
        let reports = seq.checked_sub(self.expected).filter(|missing| *missing > 0)?;
        self.expected = seq;
        Some(Gap { reports, through_seq: seq - 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::simulation::{hello, report};

    fn said(oldest_seq: u64, next_seq: u64) -> Hello {
        Hello { oldest_seq, next_seq, ..hello("c1") }
    }

    fn gap(reports: u64, through_seq: u64) -> Gap {
        Gap { reports, through_seq }
    }

    #[test]
    fn what_is_gone_is_said_at_once_and_only_where_the_journal_is_known() {
        assert_eq!(Sequence::new(&said(5, 9), None).1, None, "nobody knows what there was");
        assert_eq!(Sequence::new(&said(5, 9), Some(4)).1, None);
        assert_eq!(Sequence::new(&said(5, 9), Some(6)).1, None, "an ack was lost");
        assert_eq!(Sequence::new(&said(5, 9), Some(1)).1, Some(gap(3, 4)));
        assert_eq!(Sequence::new(&said(9, 9), Some(1)).1, Some(gap(7, 8)), "an empty journal");
        assert_eq!(Sequence::new(&said(1, 4), Some(400)).1, None, "one that was put back");
        assert_eq!(Sequence::new(&said(u64::MAX, u64::MAX), Some(u64::MAX - 1)).1, None);
    }

    #[test]
    fn each_hole_is_a_gap_at_its_place() {
        let (mut sequence, _) = Sequence::new(&said(3, 9), Some(2));
        let numbers = |pieces: Vec<Piece>| -> Vec<Result<Vec<u64>, Gap>> {
            let number = |piece| match piece {
                Piece::Reports(reports) => Ok(reports.iter().map(|report| report.seq).collect()),
                Piece::Gap(gap) => Err(gap),
            };
            pieces.into_iter().map(number).collect()
        };
        let came = sequence.take([3, 4, 7, 8].map(report).to_vec(), 8);
        assert_eq!(numbers(came), [Ok(vec![3, 4]), Err(gap(2, 6)), Ok(vec![7, 8])]);
        assert_eq!(numbers(sequence.take(vec![report(12)], 12)), [Err(gap(3, 11)), Ok(vec![12])]);
        let (mut sequence, _) = Sequence::new(&said(3, 9), Some(6));
        assert_eq!(numbers(sequence.take([3, 4].map(report).to_vec(), 4)), [Ok(vec![3, 4])], "sent again");
        assert_eq!(numbers(sequence.take(vec![report(7)], 7)), [Ok(vec![7])]);
        assert_eq!(numbers(sequence.take(vec![report(8)], 10)), [Ok(vec![8]), Err(gap(2, 10))], "two cannot be read");
        assert_eq!(numbers(sequence.take(Vec::new(), 12)), [Err(gap(2, 12))]);
        assert!(sequence.take(Vec::new(), 12).is_empty(), "sent again");
        assert_eq!(numbers(sequence.take(vec![report(13)], 13)), [Ok(vec![13])]);
    }
}
