//! What each fuzz target asks of a parser, as a function of bytes. `make fuzz` runs them under a fuzzer that sees coverage,
//! the unit test here with some thousands of changes of the seeds, the same each time.

#![allow(clippy::expect_used, reason = "whoever runs this wants the panic")]

pub mod cron;
pub mod definition;
pub mod git_folder;
pub mod health_check;
pub mod id_tokens;
pub mod journal;
pub mod label_selector;
pub mod match_selectors;
pub mod pushed;
pub mod rest_bodies;
pub mod samples;
pub mod session_frames;
pub mod signing_requests;
pub mod tokens;
pub mod workflow_source;

#[cfg(test)]
mod tests;

/// Bytes with changes that an input names, three bytes each: a place, and what is flipped there. Where a byte or two are
/// left over, so much of the end is cut off.
fn changed(original: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let (changes, cut) = changes.as_chunks();
    for [high, low, flipped] in changes.iter().take(8) {
        let place = usize::from(u16::from_be_bytes([*high, *low]));
        if let Some(byte) = place.checked_rem(original.len()).and_then(|at| bytes.get_mut(at)) {
            *byte ^= flipped;
        }
    }
    if let [cut, ..] = cut {
        bytes.truncate(original.len().saturating_sub(usize::from(*cut)));
    }
    bytes
}
