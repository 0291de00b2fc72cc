//! What is being measured, on stderr: one line that changes on a terminal, a line for each step elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(200);

/// The line. It leaves the terminal when it is dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Progress { bar, began: Instant::now() }
    }

    /// A new step.
    pub(super) fn say(&self, step: impl Into<String>) {
        let step = step.into();
        if self.bar.is_hidden() {
            eprintln!("{:>5} s  {step}", self.began.elapsed().as_secs());
        }
        self.bar.set_message(step);
    }

    /// How far the step is; only a terminal shows it.
    pub(super) fn at(&self, state: impl Into<String>) {
        self.bar.set_message(state.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
