//! Records and their form on disk: `AMJ1`, the payload's length, a CRC32 of length and payload (both little-endian
//! u32), the payload as JSON. The marker lets a reader find the next record behind a damaged one.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use active_monitor_core::run::{Run, RunKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Intent;

const MARKER: &[u8; 4] = b"AMJ1";
const HEADER_BYTES: usize = 12;
/// Far above any record that the agent writes: a larger length is damage.
const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Record {
    /// Begins a file: everything but the reports of older files is said again by the records that follow.
    Checkpoint { next_seq: u64, acked: u64, dropped: u64 },
    /// Part of a checkpoint: the last run of its check and kind, and the latest slots that are settled.
    Last { run: Box<Run>, slots: Vec<Timestamp> },
    /// A workflow is about to be created. `created` is only set in a checkpoint.
    Intended { intent: Intent, created: bool },
    /// Part of a checkpoint: the last request for a run out of schedule that was obeyed.
    RanNow { check_uid: String, token: String },
    /// The workflow was created.
    Created { key: RunKey },
    /// The workflow was not created.
    Withdrawn { key: RunKey },
    /// The run ended.
    Settled { seq: u64, run: Box<Run> },
    /// Reports up to `seq` are on the hub's disk.
    Acked { seq: u64 },
    /// The check was deleted.
    Forgotten { check_uid: String },
    /// Reports up to `through` went without an ack for want of room; `total` is the counter since then.
    Dropped { through: u64, total: u64 },
}

impl Record {
    /// Appends the record's form on disk to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let payload = serde_json::to_vec(self)?;
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        out.extend_from_slice(MARKER);
        out.extend_from_slice(&length);
        out.extend_from_slice(&checksum(&length, &payload).to_le_bytes());
        out.extend_from_slice(&payload);
        Ok(())
    }
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}

/// What a reader meets in a file.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    /// A sound record, and where it begins.
    Record(Box<Record>, usize),
    /// Damaged bytes between sound records, or at the end where they are no cut-off record.
    Corrupt(Range<usize>),
    /// A record that a crash cut off; nothing follows it.
    Torn(usize),
}

/// Splits a file's bytes into items, one at a time: all records of a file are many times its size in memory.
pub(super) fn scan(bytes: &[u8]) -> impl Iterator<Item = Item> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (item, next) = next_item(bytes, at)?;
        at = next;
        Some(item)
    })
}

/// The item that begins at `at`, and where the next one does; `None` at the end.
fn next_item(bytes: &[u8], at: usize) -> Option<(Item, usize)> {
    if at >= bytes.len() {
        return None;
    }
    if let Some((record, next)) = decode(bytes, at) {
        return Some((Item::Record(Box::new(record), at), next));
    }
    let sound =
        (at + 1..bytes.len()).find(|&later| bytes[later..].starts_with(MARKER) && decode(bytes, later).is_some());
    Some(match sound {
        Some(later) => (Item::Corrupt(at..later), later),
        None if is_cut_off(&bytes[at..]) => (Item::Torn(at), bytes.len()),
        None => (Item::Corrupt(at..bytes.len()), bytes.len()),
    })
}

/// Reads the record that begins at `offset` of a file; `None` where none does, an error where the disk does not say.
pub(super) fn read_at(file: &File, offset: u64) -> io::Result<Option<Record>> {
    let mut header = [0; HEADER_BYTES];
    if !reads(file, &mut header, offset)? {
        return Ok(None);
    }
    let [_, _, _, _, a, b, c, d, ..] = header;
    let Some(length) = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok().filter(|it| *it <= MAX_PAYLOAD_BYTES)
    else {
        return Ok(None);
    };
    let mut bytes = header.to_vec();
    bytes.resize(HEADER_BYTES + length, 0);
    let whole = reads(file, &mut bytes[HEADER_BYTES..], offset + HEADER_BYTES as u64)?;
    Ok(decode(&bytes, 0).filter(|_| whole).map(|(record, _)| record))
}

/// Fills `bytes` from `offset` on; `false` where the file ends before.
fn reads(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn decode(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    let rest = bytes.get(at..)?;
    let header = rest.get(..HEADER_BYTES)?;
    let (length_bytes, crc_bytes) = (header.get(4..8)?, header.get(8..12)?);
    let length = usize::try_from(u32::from_le_bytes(length_bytes.try_into().ok()?)).ok()?;
    if !header.starts_with(MARKER) || length > MAX_PAYLOAD_BYTES {
        return None;
    }
    let payload = rest.get(HEADER_BYTES..HEADER_BYTES + length)?;
    if checksum(length_bytes, payload) != u32::from_le_bytes(crc_bytes.try_into().ok()?) {
        return None;
    }
    let record = serde_json::from_slice(payload).ok()?;
    Some((record, at + HEADER_BYTES + length))
}

/// Whether these last bytes of a file are the beginning of a record, and not all of it. One that is whole by the length that
/// it has is no crash's: its length is damaged.
fn is_cut_off(rest: &[u8]) -> bool {
    let marker = &rest[..rest.len().min(MARKER.len())];
    if !MARKER.starts_with(marker) {
        return false;
    }
    let Some(length) = rest.get(4..8).and_then(|length| length.try_into().ok()).map(u32::from_le_bytes) else {
        return true;
    };
    let is_short = usize::try_from(length).is_ok_and(|it| it <= MAX_PAYLOAD_BYTES && rest.len() < HEADER_BYTES + it);
    is_short && !is_whole(rest)
}

/// Whether these bytes are a record, but for the length that it says.
fn is_whole(rest: &[u8]) -> bool {
    let Some((header, payload)) = rest.split_at_checked(HEADER_BYTES) else { return false };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    header.ends_with(&checksum(&length, payload).to_le_bytes())
}
