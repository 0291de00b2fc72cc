//! Tells one process another time than it is, by Debian's libfaketime; everything else has the right one. Its monotonic
//! clock goes on as it is.

use std::io;
use std::path::{Path, PathBuf};

/// A process's clock.
pub struct Faketime {
    library: PathBuf,
    offset: PathBuf,
}

impl Faketime {
    /// A clock that is right, until it is set; its file is in `folder`. `None` where libfaketime is not installed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn find(folder: &Path) -> io::Result<Option<Faketime>> {
        // Debian's package puts it under the machine's triplet.
        let Ok(folders) = std::fs::read_dir("/usr/lib") else { return Ok(None) };
        let in_folder = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
        let Some(library) = folders.filter_map(Result::ok).map(in_folder).find(|path| path.is_file()) else {
            return Ok(None);
        };
        let clock = Faketime { library, offset: folder.join("offset") };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// What starts a program under this clock: `env` and its arguments.
    pub fn launcher(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.offset.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    /// From here on the process takes for the time what it is and so many seconds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, seconds: i64) -> io::Result<()> {
        // A file that is half written is no time at all.
        let next = self.offset.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n"))?;
        std::fs::rename(&next, &self.offset)
    }
}
