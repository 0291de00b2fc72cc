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

impl Samples {
    /// Takes what a later run published. A run that published nothing leaves what is known.
    pub fn replace_by(&mut self, later: Samples) {
        if later != Samples::default() {
            self.refused = later.refused;
        }
        if !later.samples.is_empty() {
            self.samples = later.samples;
        }
    }
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

/// Series that are shown of all checks of a cluster together.
pub const MAX_SERIES: usize = 10_000;
/// Beginnings of names that no check may publish under, and whole names.
const BUILT_IN_PREFIXES: [&str; 2] = ["activemonitor_", "process_"];
const BUILT_IN: [&str; 5] = [
    "healthcheck_success_count",
    "healthcheck_error_count",
    "healthcheck_runtime_seconds",
    "healthcheck_starttime",
    "healthcheck_finishedtime",
];

/// Active-monitor's name of a custom metric: `<check>_<metric>`, where what a metric's name cannot have becomes `_`. A
/// name cannot begin with a digit, so there one `_` goes before it.
pub fn family_name(out: &mut String, check: &str, metric: &str) {
    out.clear();
    if check.starts_with(|c: char| c.is_ascii_digit()) {
        out.push('_');
    }
    out.extend(check.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | ':') { c } else { '_' }));
    out.push('_');
    out.push_str(metric);
}

/// Whether a name is, or may become, one of the agent's or the hub's own.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name) || BUILT_IN_PREFIXES.iter().any(|ours| name.starts_with(ours))
}

/// Reads the metrics out of a workflow's output parameters. Parameters of another form are somebody else's.
pub fn read(parameters: &[Parameter]) -> Samples {
    let mut out = Samples::default();
    let published = parameters.iter().filter_map(|parameter| parameter.value.as_deref());
    for value in published {
        let Ok(published) = serde_json::from_str::<Published>(value) else {
            // Meant for us, but no JSON: `NaN`, `1e999` and the like make the whole text unreadable.
            out.refused += u64::from(value.trim_start().starts_with('{') && value.contains("\"metrics\""));
            continue;
        };
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
    fn family_names_are_those_of_active_monitor() {
        let mut name = String::new();
        for (check, metric, expected) in [
            ("dns", "latency", "dns_latency"),
            ("inline-hello.x", "custom_total", "inline_hello_x_custom_total"),
            ("1st", "a", "_1st_a"),
            ("", "a", "_a"),
        ] {
            family_name(&mut name, check, metric);
            assert_eq!(name, expected);
        }
    }

    #[test]
    fn help_is_one_line_and_bounded() {
        let help = format!("a\\nb{}", "\u{e9}".repeat(1000));
        let read = read(&[parameter(&format!(r#"{{"metrics":[{{"name":"a","value":1,"help":"{help}"}}]}}"#))]);
        assert_eq!(read.samples[0].help, format!("ab{}", "\u{e9}".repeat(MAX_HELP_CHARS - 2)));
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
            r#"{"name":"a","value":null}"#,
            r#"{"name":"a\nb 1","value":1}"#,
            r#"{"name":"a\"b","value":1}"#,
            r#"{"name":"a","value":"-Inf"}"#,
        ];
        assert_eq!(read(&[parameter(&format!(r#"{{"metrics":[{}]}}"#, bad.join(",")))]).refused, 11);
        let long = format!(r#"{{"metrics":[{{"name":"{}","value":1}}]}}"#, "a".repeat(1 << 20));
        assert_eq!((read(&[parameter(&long)]).samples.len(), read(&[parameter(&long)]).refused), (0, 1));
        for text in [
            r#"{"metrics":[{"name":"a","value":NaN}]}"#,
            r#"{"metrics":[{"name":"a","value":1e999}]}"#,
            r#"{"metrics":7}"#,
        ] {
            assert_eq!(read(&[parameter(text)]), Samples { samples: Vec::new(), refused: 1 }, "{text}");
        }
        let many: Vec<String> = (0..10_000).map(|i| format!(r#"{{"name":"m{i}","value":1}}"#)).collect();
        let read = read(&[parameter(&format!(r#"{{"metrics":[{}]}}"#, many.join(",")))]);
        assert_eq!((read.samples.len(), read.refused), (MAX_SAMPLES, 9_950));
    }
}
