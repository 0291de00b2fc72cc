//! What the demo prints: finished steps and lines for the reader, on stdout; a spinner meanwhile, on stderr.

use std::future::Future;
use std::io::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(120);

/// Prints a line. A reader who has gone, such as a closed pipe, must not keep the demo from cleaning up.
pub fn say(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _reader_gone = writeln!(out, "{}", line.as_ref()).and_then(|()| out.flush());
}

/// Prints lines about the step that was printed last. Not while a spinner turns: they would meet on one line.
pub fn notes(lines: &[String]) {
    lines.iter().for_each(|line| say(format!("      {line}")));
}

/// A spinner for what is being done. It vanishes with the step.
pub fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// Does one step under a spinner and prints it once it is done, with the time it took.
///
/// # Errors
/// Those of the step.
pub async fn step<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let bar = Cleared(spinner(what));
    let done = work.await?;
    bar.done(what);
    Ok(done)
}

/// A bar that leaves the terminal with its step, however that ends.
pub struct Cleared(pub ProgressBar);

impl Cleared {
    /// Ends the step.
    pub fn done(self, what: &str) {
        self.0.finish_and_clear();
        say(format!("  ok  {what}  ({:.1} s)", self.0.elapsed().as_secs_f64()));
    }
}

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
