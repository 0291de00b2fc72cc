//! The hub's latest mark, kept in the state directory: by it a hub notices that it was restored from the past.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// File in the state directory.
const FILE: &str = "hub-mark";

/// What an earlier life of the agent kept; empty where there is nothing. An agent without it only notices less.
pub(super) fn read(state_dir: &Path) -> String {
    match fs::read_to_string(state_dir.join(FILE)) {
        Ok(mark) => mark,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            tracing::warn!(%error, "the hub's mark cannot be read");
            String::new()
        }
    }
}

/// It is on the disk when this returns, unless the disk fails: then the mark before it stays.
pub(super) fn keep(state_dir: &Path, mark: &str) {
    let path = state_dir.join(FILE);
    let half_made = path.with_extension("tmp");
    let written = File::create(&half_made).and_then(|mut file| {
        file.write_all(mark.as_bytes())?;
        file.sync_all()?;
        fs::rename(&half_made, &path)?;
        File::open(state_dir)?.sync_all()
    });
    if let Err(error) = written {
        tracing::warn!(%error, "the hub's mark cannot be kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_mark_is_read_by_the_next_life_of_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), "");
        for mark in ["1.aa", "2.bb"] {
            keep(dir.path(), mark);
            assert_eq!(read(dir.path()), mark);
        }
        // A disk that cannot be written costs no session.
        keep(&dir.path().join("absent"), "3.cc");
        assert_eq!(read(dir.path()), "2.bb");
    }
}
