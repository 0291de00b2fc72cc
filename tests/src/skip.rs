//! How a test says that it cannot run here: one fixed line, on stderr and in the file that `make test` collects.

use std::{env, fs::OpenOptions, io::Write as _};

/// Reports a skipped test as `skipped: <test>: <reason>`, on stderr and at the end of the file named by
/// `ACTIVE_MONITOR_SKIPS` when that is set.
pub fn report(test: &str, reason: &str) {
    let line = format!("skipped: {test}: {}\n", reason.replace('\n', " "));
    eprint!("{line}");
    let Some(path) = env::var_os("ACTIVE_MONITOR_SKIPS") else { return };
    let written =
        OpenOptions::new().create(true).append(true).open(&path).and_then(|mut f| f.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot append to {}: {error}", path.display());
    }
}
