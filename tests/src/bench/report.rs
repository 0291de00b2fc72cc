//! The figures of a run: rows with their repetitions, as a table for people or as JSON.

use std::fs;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Part;
use super::calibration::Calibration;
use super::stats::median;

/// What a figure is promised to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Target::AtMost(limit) => value <= limit,
            Target::AtLeast(limit) => value >= limit,
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The part that measured it.
    pub part: Part,
    /// What it is.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// One value a repetition.
    pub values: Vec<f64>,
    /// What is promised.
    pub target: Option<Target>,
    /// Whether the median meets the target; absent without one, and where less was measured than it speaks of.
    pub met: Option<bool>,
}

impl Row {
    fn median(&self) -> f64 {
        median(&self.values).unwrap_or(f64::NAN)
    }

    fn spread(&self) -> String {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.values.len() < 2 { "-".to_owned() } else { format!("{} to {}", number(least), number(most)) }
    }
}

/// Rows in the order in which they were first measured.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<Row>);

impl Rows {
    /// Adds a repetition's value to its row.
    pub(super) fn add(
        &mut self,
        part: Part,
        what: impl Into<String>,
        value: (f64, &'static str),
        target: Option<Target>,
    ) {
        let (what, (value, unit)) = (what.into(), value);
        match self.0.iter_mut().find(|row| row.part == part && row.what == what) {
            Some(row) => row.values.push(value),
            None => self.0.push(Row { part, what, unit, values: vec![value], target, met: None }),
        }
    }

    /// All rows; targets are judged only where as much was measured as they speak of.
    pub(super) fn judged(mut self, is_full_scale: bool) -> Vec<Row> {
        for row in &mut self.0 {
            row.met = row.target.filter(|_| is_full_scale).map(|target| target.is_met(row.median()));
        }
        self.0
    }
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Cores.
    pub cores: usize,
    /// The processor's name.
    pub processor: String,
    /// MiB.
    pub memory: u64,
    /// Version of the kernel.
    pub kernel: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(super) fn this() -> anyhow::Result<Machine> {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file)?;
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()));
            value.with_context(|| format!("{file} has no {name}"))
        };
        let kib = field("/proc/meminfo", "MemTotal")?;
        Ok(Machine {
            cores: std::thread::available_parallelism()?.get(),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|_| "unknown".to_owned()),
            memory: kib.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

/// Everything that a run has to say.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Of the numbers that the targets speak of.
    pub scale: f64,
    /// `release`, or `debug`, whose figures say nothing.
    pub profile: &'static str,
    /// Before and after.
    pub calibration: [Calibration; 2],
    /// The figures.
    pub rows: Vec<Row>,
    /// Parts that could not be measured, and why.
    pub failures: Vec<String>,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        // To be pasted into docs/benchmarks.md.
        table
            .load_style(presets::ASCII_MARKDOWN)
            .force_no_tty()
            .set_header(["part", "what", "median", "spread", "times", "target", ""]);
        for row in &self.rows {
            let target = match row.target {
                None => String::new(),
                Some(Target::AtMost(limit)) => format!("<= {}", with_unit(limit, row.unit)),
                Some(Target::AtLeast(limit)) => format!(">= {}", with_unit(limit, row.unit)),
            };
            let met = match row.met {
                None => "",
                Some(true) => "met",
                Some(false) => "not met",
            };
            table.add_row([
                row.part.as_str(),
                &row.what,
                &with_unit(row.median(), row.unit),
                &row.spread(),
                &row.values.len().to_string(),
                &target,
                met,
            ]);
        }
        for column in [2, 3, 4, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let Machine { cores, processor, memory, kernel } = &self.machine;
        let mut lines = vec![format!(
            "{cores} cores ({processor}), {memory} MiB, Linux {kernel}; {} build, scale {}",
            self.profile, self.scale
        )];
        for (when, calibration) in ["before", "after"].iter().zip(&self.calibration) {
            let Calibration { loop_ms, sync_ms, sync_p99_ms, load } = calibration;
            lines.push(format!(
                "{when}: loop {} ms, sync {} ms (p99 {} ms), load {load}",
                number(*loop_ms),
                number(*sync_ms),
                number(*sync_p99_ms)
            ));
        }
        lines.push(table.to_string());
        lines.extend(self.failures.iter().map(|failure| format!("not measured: {failure}")));
        lines.join("\n")
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    format!("{} {unit}", number(value)).trim_end().to_owned()
}

/// Three digits that count.
fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = if size >= 100.0 || value.fract() == 0.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(is_full_scale: bool) -> Report {
        let mut rows = Rows::default();
        for value in [3.0, 240.04, 260.0] {
            rows.add(Part::Agent, "end to status, p99", (value, "ms"), Some(Target::AtMost(250.0)));
        }
        rows.add(Part::Reports, "reports", (12_345.6, "/s"), Some(Target::AtLeast(20_000.0)));
        let calibration = Calibration { loop_ms: 99.0, sync_ms: 0.25, sync_p99_ms: 3.25, load: 0.5 };
        let machine = Machine { cores: 2, processor: "x".into(), memory: 1, kernel: "6".into() };
        Report {
            machine,
            scale: 1.0,
            profile: "release",
            calibration: [calibration.clone(), calibration],
            rows: rows.judged(is_full_scale),
            failures: vec!["storm: no hub".into()],
        }
    }

    #[test]
    fn repetitions_share_a_row_and_targets_are_judged_by_the_median_at_full_scale_only() {
        let full = report(true);
        assert_eq!(full.rows.iter().map(|row| row.met).collect::<Vec<_>>(), [Some(true), Some(false)]);
        assert_eq!(report(false).rows[0].met, None);
        let table = full.table();
        for text in
            ["240 ms", "3 to 260", "<= 250 ms", "12346 /s", "not met", "not measured: storm: no hub", "sync 0.25 ms"]
        {
            assert!(table.contains(text), "{text}\n{table}");
        }
        let json = serde_json::to_value(&full).unwrap();
        assert_eq!(json["rows"][0]["values"], serde_json::json!([3.0, 240.04, 260.0]));
        assert_eq!(json["rows"][0]["target"], serde_json::json!({"atMost": 250.0}));
    }
}
