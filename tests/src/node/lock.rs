//! One node a machine: its link and addresses have one name. May touch the lock file.

use std::{
    fs::{File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process,
};

use jiff::Timestamp;

const PATH: &str = "/run/active-monitor-testbed-node.lock";

/// Why a node may not start.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// One runs already.
    #[error("another node of a testbed runs on this machine: {holder} ({})", .path.display())]
    Held {
        /// The process that owns it and since when.
        holder: String,
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be used.
    #[error("cannot use the lock file {}", .path.display())]
    File {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The right to run the machine's one node, until it is dropped or its process ends.
#[derive(Debug)]
pub(super) struct NodeLock {
    _file: File,
}

impl NodeLock {
    pub(super) fn take() -> Result<Self, LockError> {
        Self::take_at(Path::new(PATH))
    }

    fn take_at(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File { path: path.to_owned(), source };
        let mut options = File::options();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(failed)?;
                return Err(LockError::Held { holder, path: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let holder = format!("process {}, since {:.0}", process::id(), Timestamp::now());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_told_who_holds_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = NodeLock::take_at(&path).unwrap();
        let refused = NodeLock::take_at(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}, since 2", process::id())), "{refused}");
        drop(lock);
        NodeLock::take_at(&path).unwrap();
    }
}
