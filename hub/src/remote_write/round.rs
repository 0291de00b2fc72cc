//! One round: the exposition as batches, and the end of what is no longer in it.
//!
//! It reads the exposition's own text, so that it cannot say anything else than `/metrics` does. Of the last round only
//! eight bytes a series are kept, and the published view that it was made of; where a series is missing, that view is
//! written once more to learn its labels.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use active_monitor_core::fleet::FleetView;
use axum::body::Bytes;
use jiff::Timestamp;
use prost::Message;

use super::message::{Label, Sample, TimeSeries, WriteRequest};
use crate::metrics::{HubMetrics, Wanted};

/// Samples in a batch.
const BATCH: usize = 5_000;
/// The NaN by which Prometheus knows that a series has ended: `value.StaleNaN` in its source.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A request's body.
pub(super) struct Batch {
    /// Protobuf in snappy.
    pub(super) body: Bytes,
    pub(super) samples: u64,
}

/// What is remembered of the last round.
pub(super) struct Previous {
    view: Arc<FleetView>,
    at: Timestamp,
    series: HashSet<u64>,
}

/// Makes the batches of a round and hands them to `sink`, until that says no.
pub(super) fn round(
    metrics: &HubMetrics,
    view: Arc<FleetView>,
    now: Timestamp,
    previous: Option<Previous>,
    sink: impl FnMut(Batch) -> bool,
) -> Previous {
    let mut batches = Batches { request: WriteRequest::default(), at: now.as_millisecond(), sink, is_open: true };
    let mut series = HashSet::with_capacity(previous.as_ref().map_or(0, |previous| previous.series.len()));
    each(metrics, &view, now, |id, value| {
        series.insert(hash(id));
        batches.push(id, value)
    });
    if let Some(previous) = previous
        && !previous.series.is_subset(&series)
    {
        each(metrics, &previous.view, previous.at, |id, _| {
            let has_ended = !series.contains(&hash(id));
            if has_ended { batches.push(id, f64::from_bits(STALE)) } else { batches.is_open }
        });
    }
    batches.flush();
    Previous { view, at: now, series }
}

/// Shows each series and its value, until the answer is no.
fn each(metrics: &HubMetrics, view: &FleetView, at: Timestamp, mut show: impl FnMut(&str, f64) -> bool) {
    for chunk in metrics.exposition(view, at, Wanted::all()) {
        // Chunks end where lines do.
        let Ok(text) = std::str::from_utf8(&chunk) else { continue };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((id, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            if !show(id, value) {
                return;
            }
        }
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

struct Batches<S> {
    request: WriteRequest,
    at: i64,
    sink: S,
    is_open: bool,
}

impl<S: FnMut(Batch) -> bool> Batches<S> {
    /// Whether there is any use in more.
    fn push(&mut self, id: &str, value: f64) -> bool {
        let samples = vec![Sample { value, timestamp: self.at }];
        self.request.timeseries.push(TimeSeries { labels: labels(id), samples });
        if self.request.timeseries.len() >= BATCH {
            self.flush();
        }
        self.is_open
    }

    fn flush(&mut self) {
        if self.request.timeseries.is_empty() || !self.is_open {
            return;
        }
        let samples = self.request.timeseries.len() as u64;
        let body = snap::raw::Encoder::new().compress_vec(&self.request.encode_to_vec());
        self.request.timeseries.clear();
        match body {
            Ok(body) => self.is_open = (self.sink)(Batch { body: Bytes::from(body), samples }),
            // Only what is larger than 4 GiB cannot be compressed.
            Err(error) => tracing::error!(%error, samples, "a batch for the remote store cannot be compressed"),
        }
    }
}

/// The labels of a series as the exposition writes it: `name{a="b",c="d"}`; sorted, as the receiver wants them.
fn labels(id: &str) -> Vec<Label> {
    let (name, mut rest) = id.split_once('{').unwrap_or((id, ""));
    let mut labels = vec![Label { name: "__name__".to_owned(), value: name.to_owned() }];
    while let Some((name, after)) = rest.split_once("=\"") {
        let (value, after) = unescaped(after);
        labels.push(Label { name: name.to_owned(), value });
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    // An empty value is no label.
    labels.retain(|label| !label.value.is_empty());
    labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    labels
}

/// A label's value up to its quote, and what comes behind that.
fn unescaped(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, other)) => value.push(other),
                None => {}
            },
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_back_and_sorted() {
        let shown = |id: &str| -> Vec<String> {
            labels(id).into_iter().map(|label| format!("{}={}", label.name, label.value)).collect()
        };
        assert_eq!(shown("up"), ["__name__=up"]);
        assert_eq!(shown(r#"a{z="1,\"2\\",b="x\ny{}= ",e=""}"#), ["__name__=a", "b=x\ny{}= ", "z=1,\"2\\"]);
        assert_eq!(shown(r#"a{Z="1"}"#), ["Z=1", "__name__=a"]);
    }
}
