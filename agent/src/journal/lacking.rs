//! Runs that the statuses count and the journal does not know, until the hub has heard of them: a file beside the journal's own,
//! of a line with the CRC32 of the rest in hex, and JSON. A disk that cannot be written keeps them in memory alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use active_monitor_core::session::frame::{Counted, MAX_LACKING};
use tokio::sync::watch;

use super::segments::write_new;

const FILE: &str = "lacking";

pub(super) struct Lacking {
    path: PathBuf,
    runs: watch::Sender<Vec<Counted>>,
}

impl Lacking {
    pub(super) fn open(dir: &Path) -> Lacking {
        let path = dir.join(FILE);
        let runs = read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "what the journal lacks cannot be read");
            }
            Vec::new()
        });
        Lacking { path, runs: watch::Sender::new(runs) }
    }

    pub(super) fn follow(&self) -> watch::Receiver<Vec<Counted>> {
        self.runs.subscribe()
    }

    /// The latest ones stay.
    pub(super) fn add(&self, mut found: Vec<Counted>) {
        self.change(|runs| {
            runs.retain(|run| !found.iter().any(|newer| newer.check_uid == run.check_uid));
            runs.append(&mut found);
            runs.sort_by_key(|run| std::cmp::Reverse(run.mark));
            runs.truncate(MAX_LACKING);
        });
    }

    pub(super) fn remove(&self, known: &[Counted]) {
        self.change(|runs| runs.retain(|run| !known.contains(run)));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Counted>)) {
        self.runs.send_if_modified(|runs| {
            let before = runs.clone();
            change(runs);
            let changed = *runs != before;
            if changed && let Err(error) = self.write(runs) {
                tracing::warn!(path = %self.path.display(), %error, "what the journal lacks cannot be kept");
            }
            changed
        });
    }

    fn write(&self, runs: &[Counted]) -> io::Result<()> {
        match self.path.parent() {
            _ if runs.is_empty() => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
            Some(dir) => write_new(dir, &self.path, sealed(&serde_json::to_string(runs)?).as_bytes()),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<Counted>> {
    let text = fs::read_to_string(path)?;
    let (_, payload) = text.split_once('\n').unwrap_or_default();
    if text != sealed(payload) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"));
    }
    Ok(serde_json::from_str(payload)?)
}

fn sealed(payload: &str) -> String {
    format!("{:08x}\n{payload}", crc32fast::hash(payload.as_bytes()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn run(check: usize, second: i64) -> Counted {
        Counted { check_uid: check.to_string(), mark: Timestamp::from_second(second).unwrap() }
    }

    fn kept(dir: &Path) -> Vec<Counted> {
        Lacking::open(dir).follow().borrow().clone()
    }

    #[test]
    fn the_latest_are_kept_over_restarts_until_the_hub_has_heard_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let lacking = Lacking::open(dir.path());
        assert_eq!(kept(dir.path()), []);
        lacking.add(vec![run(1, 10), run(2, 20)]);
        lacking.add(vec![run(1, 30)]);
        assert_eq!(kept(dir.path()), [run(1, 30), run(2, 20)], "the last one of each check");
        lacking.remove(&[run(2, 20), run(1, 10)]);
        assert_eq!(kept(dir.path()), [run(1, 30)]);
        lacking.add((100..200).map(|check| run(check, 40)).collect());
        assert_eq!(kept(dir.path()).len(), MAX_LACKING);
        let all = kept(dir.path());
        lacking.remove(&all);
        assert!(kept(dir.path()).is_empty() && !dir.path().join(FILE).exists());
        lacking.remove(&all);
        // A disk that cannot be written costs nothing but a restart.
        let nowhere = Lacking::open(&dir.path().join("absent"));
        nowhere.add(vec![run(1, 1)]);
        assert_eq!(*nowhere.follow().borrow(), [run(1, 1)]);
    }

    #[test]
    fn a_flipped_bit_makes_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        Lacking::open(dir.path()).add(vec![run(1, 10), run(2, 20)]);
        let (path, sound) = (dir.path().join(FILE), fs::read(dir.path().join(FILE)).unwrap());
        for bit in 0..8 * sound.len() {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            assert_eq!(kept(dir.path()), [], "bit {bit}");
        }
        fs::write(&path, sound).unwrap();
        assert_eq!(kept(dir.path()).len(), 2);
    }
}
