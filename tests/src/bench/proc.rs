//! What the kernel says of a process: memory and processor time. Linux only.

use std::fs;

use anyhow::Context as _;

/// Milliseconds in a tick of `/proc/PID/stat`: USER_HZ is 100 on everything that the project runs on.
const TICK_MS: u64 = 10;

/// Memory of a process, MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// In RAM now.
    pub resident: f64,
    /// The most that was in RAM, since its start or the last [`reset_peak`].
    pub peak: f64,
}

/// Memory of a process.
///
/// # Errors
/// When it has ended.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("no process {pid}"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no such field")?;
        anyhow::Ok(kib / 1024.0)
    };
    Ok(Memory { resident: field("VmRSS")?, peak: field("VmHWM")? })
}

/// From here on [`Memory::peak`] counts anew.
///
/// # Errors
/// When the kernel does not let us.
pub fn reset_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of a process's memory")
}

/// Processor time that a process has used, all its threads, milliseconds.
///
/// # Errors
/// When it has ended.
pub fn cpu_ms(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    ticks(&text).map(|ticks| ticks * TICK_MS).context("an unknown form of /proc/PID/stat")
}

/// utime and stime: the 14th and 15th field. The second is a name in brackets that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_the_name_of_a_process_confuses_nobody() {
        let own = memory(std::process::id()).unwrap();
        assert!(own.resident > 1.0 && own.peak >= own.resident, "{own:?}");
        assert!(cpu_ms(std::process::id()).is_ok());
        assert_eq!(ticks("7 (a) b 1) S 1 7 7 0 -1 0 1 2 3 4 250 30 0 0 20 0"), Some(280));
        assert!(memory(u32::MAX).is_err());
    }
}
