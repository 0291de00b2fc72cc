//! Writes the Prometheus text format, version 0.0.4.

use std::fmt::Write;

use axum::body::Bytes;
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;

/// Below this each whole number is one of its own as an `f64`.
const EXACT: u64 = 1 << 53;

/// Text under construction.
pub(super) struct Text(String);

impl Text {
    pub(super) fn with_capacity(bytes: usize) -> Text {
        Text(String::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from(self.0)
    }

    /// The lines before the series of a family.
    pub(super) fn head(&mut self, name: &str, help: &str, kind: &str) {
        if !help.is_empty() {
            self.0.extend(["# HELP ", name, " "]);
            escape(&mut self.0, help, false);
            self.0.push('\n');
        }
        self.0.extend(["# TYPE ", name, " ", kind, "\n"]);
    }

    /// One series. `labels` is ready text without braces.
    pub(super) fn series(&mut self, name: &str, labels: &str, value: f64) {
        self.0.extend([name, "{", labels, "} "]);
        self.value(value);
    }

    /// One series with a label that is not in the ready text.
    pub(super) fn series_with(&mut self, name: &str, labels: &str, label: &str, text: &str, value: f64) {
        self.0.extend([name, "{", labels]);
        push_label(&mut self.0, labels.is_empty(), label, text);
        self.0.push_str("} ");
        self.value(value);
    }

    /// The end of a line. Most values are whole and small: those are written in much less time than others.
    fn value(&mut self, value: f64) {
        let whole = value as i64;
        if whole as f64 == value && whole.unsigned_abs() < EXACT {
            self.0.push_str(itoa::Buffer::new().format(whole));
            self.0.push('\n');
        } else {
            // Writing to a String cannot fail.
            let _ = writeln!(self.0, "{value}");
        }
    }

    /// The metrics of the hub itself.
    pub(super) fn process(&mut self, families: &[MetricFamily]) {
        if let Err(error) = TextEncoder::new().encode_utf8(families, &mut self.0) {
            tracing::error!(%error, "the metrics of the hub itself cannot be written");
        }
    }
}

/// Appends a label, after a comma unless it is the first.
pub(super) fn push_label(out: &mut String, is_first: bool, label: &str, value: &str) {
    if !is_first {
        out.push(',');
    }
    out.extend([label, "=\""]);
    escape(out, value, true);
    out.push('"');
}

/// In a label's value `\`, `"` and a line's end are escaped, in a help text `\` and a line's end.
fn escape(out: &mut String, text: &str, in_label: bool) {
    let special = |c: u8| c == b'\\' || c == b'\n' || (in_label && c == b'"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(special) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'\\' => r"\\",
            b'\n' => r"\n",
            _ => "\\\"",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut text = Text::with_capacity(0);
        text.head("a", "b\\c\n\"d\"", "gauge");
        text.series_with("a", "x=\"y\"", "z", "1\\2\n\"3\"ä", 0.5);
        text.series_with("a", "", "z", "", -1e21);
        text.series("a", "x=\"y\"", 3.0);
        assert_eq!(
            text.0,
            "# HELP a b\\\\c\\n\"d\"\n# TYPE a gauge\na{x=\"y\",z=\"1\\\\2\\n\\\"3\\\"ä\"} 0.5\n\
             a{z=\"\"} -1000000000000000000000\na{x=\"y\"} 3\n"
        );
    }
}
