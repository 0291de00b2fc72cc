//! How fast the machine is at the moment: without that, figures of two days or two machines say nothing of each other.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::stats::{median, quantile};

const LOOPS: usize = 5;
const STEPS: u64 = 100_000_000;
const SYNCS: usize = 200;
const BLOCK: [u8; 4096] = [7; 4096];

/// The machine at one moment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Calibration {
    /// Milliseconds that one core takes for a fixed loop of 100 million steps; the median of five.
    pub loop_ms: f64,
    /// Milliseconds of appending 4 KiB to a file and syncing it, where the run folders are: the median of 200.
    pub sync_ms: f64,
    /// The same: what 99 of 100 do not exceed.
    pub sync_p99_ms: f64,
    /// The load average of the last minute, before: what else runs.
    pub load: f64,
}

/// Measures in a folder; takes some seconds of one core.
///
/// # Errors
/// When the folder cannot be written to.
pub(super) fn measure(folder: &Path) -> anyhow::Result<Calibration> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
    let loops: Vec<f64> = (0..LOOPS).map(|_| timed(fixed_loop)).collect();
    let syncs = syncs(folder)?;
    let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
    Ok(Calibration {
        loop_ms: or_nan(median(&loops)),
        sync_ms: or_nan(median(&syncs)),
        sync_p99_ms: or_nan(quantile(&syncs, 0.99)),
        load,
    })
}

fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e3
}

/// Marsaglia's xorshift: each step needs the one before, so nothing can be left out or done at once.
fn fixed_loop() {
    let mut x = black_box(88_172_645_463_325_252_u64);
    for _ in 0..STEPS {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
}

fn syncs(folder: &Path) -> anyhow::Result<Vec<f64>> {
    let path = folder.join("calibration");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(path)?;
    Ok(times)
}
