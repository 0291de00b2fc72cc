//! Custom metrics: what a workflow publishes in its global output parameters.
//!
//! The format is active-monitor's: a parameter, of any name, whose value is
//! `{"metrics": [{"name": "...", "value": 1.5, "metrictype": "gauge", "help": "..."}]}`.

use serde::Deserialize;

use crate::state::Sample;
use crate::workflow::Parameter;

/// Series that one check may publish.
pub const MAX_SAMPLES: usize = 50;
/// Bytes of a metric's name.
pub const MAX_NAME_BYTES: usize = 128;
/// Characters of a help text that are kept.
pub const MAX_HELP_CHARS: usize = 256;

/// The metrics of a run, and how many were refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// In the order published; the last one of a name counts.
    pub samples: Vec<Sample>,
    /// Metrics above the limits, with an illegal name, another type than gauge, or a value that is not finite.
    pub refused: u64,
}

#[derive(Deserialize)]
struct Published {
    metrics: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Metric {
    name: String,
    value: serde_json::Value,
    #[serde(default)]
    metrictype: String,
    #[serde(default)]
    help: String,
}

/// Reads the metrics out of a workflow's output parameters. Parameters of another form are somebody else's.
pub fn read(parameters: &[Parameter]) -> Samples {
    let mut out = Samples::default();
    let published = parameters.iter().filter_map(|parameter| parameter.value.as_deref());
    for published in published.filter_map(|value| serde_json::from_str::<Published>(value).ok()) {
        for metric in published.metrics {
            match sample(metric) {
                Some(sample) => insert(&mut out, sample),
                None => out.refused += 1,
            }
        }
    }
    out
}

fn insert(out: &mut Samples, sample: Sample) {
    if let Some(known) = out.samples.iter_mut().find(|known| known.metric == sample.metric) {
        *known = sample;
    } else if out.samples.len() < MAX_SAMPLES {
        out.samples.push(sample);
    } else {
        out.refused += 1;
    }
}

fn sample(metric: serde_json::Value) -> Option<Sample> {
    let metric: Metric = serde_json::from_value(metric).ok()?;
    let value = metric.value.as_f64().or_else(|| metric.value.as_str()?.trim().parse().ok())?;
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let name = metric.name.replace('-', "_");
    let named = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(legal);
    let gauge = metric.metrictype.is_empty() || metric.metrictype.eq_ignore_ascii_case("gauge");
    let help = metric.help.chars().filter(|c| !c.is_control()).take(MAX_HELP_CHARS).collect();
    (named && gauge && value.is_finite()).then_some(Sample { metric: name, help, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(value: &str) -> Parameter {
        Parameter { name: "any".into(), value: Some(value.into()) }
    }

    #[test]
    fn active_monitors_format_is_read() {
        let read = read(&[
            parameter("not ours"),
            parameter(r#"{"metrics":[{"name":"node-count","value":3,"metrictype":"gauge","help":"Nodes"}]}"#),
        ]);
        assert_eq!(read.samples, [Sample { metric: "node_count".into(), help: "Nodes".into(), value: 3.0 }]);
        assert_eq!(read.refused, 0);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_and_counted() {
        let bad = [
            r#"{"name":"a","value":"nan"}"#,
            r#"{"name":"a","value":"1e999"}"#,
            r#"{"name":"a b","value":1}"#,
            r#"{"name":"","value":1}"#,
            r#"{"name":"c","value":1,"metrictype":"counter"}"#,
            r#"{"value":1}"#,
            "7",
        ];
        assert_eq!(read(&[parameter(&format!(r#"{{"metrics":[{}]}}"#, bad.join(",")))]).refused, 7);
        let many: Vec<String> = (0..10_000).map(|i| format!(r#"{{"name":"m{i}","value":1}}"#)).collect();
        let read = read(&[parameter(&format!(r#"{{"metrics":[{}]}}"#, many.join(",")))]);
        assert_eq!((read.samples.len(), read.refused), (MAX_SAMPLES, 9_950));
    }
}
