//! The CAs' files. Each step is done by writing whole files and renaming them, so that a hub that dies between any two of
//! them starts with one stage or the other.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::Trust;
use crate::ca::{self, CERTIFICATE_FILE, Ca, CaError, KEY_FILE, write_private};

/// The CA that is to sign next.
pub const NEXT_CERTIFICATE: &str = "ca.next.crt";
/// Its key.
pub const NEXT_KEY: &str = "ca.next.key";
/// The CA that signed before.
pub const PREVIOUS_CERTIFICATE: &str = "ca.previous.crt";

/// All of them, in an order in which a key is there before its certificate.
const NAMES: [&str; 5] = [KEY_FILE, CERTIFICATE_FILE, NEXT_KEY, NEXT_CERTIFICATE, PREVIOUS_CERTIFICATE];

#[derive(Clone)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Files {
        Files { dir: dir.to_owned() }
    }

    pub(super) fn load_or_create(&self, agent_life: Duration, now: Timestamp) -> Result<Trust, CaError> {
        // The key is written first: a certificate on the disk means that both are there.
        if !self.dir.join(CERTIFICATE_FILE).exists() {
            let (certificate, key) = ca::create(now)?;
            self.write(KEY_FILE, &key)?;
            self.write(CERTIFICATE_FILE, &certificate)?;
        }
        self.finish_switch()?;
        let pem = self.read(CERTIFICATE_FILE)?;
        let ca = Ca::read(&pem, &self.read(KEY_FILE)?)?.with_agent_life(agent_life);
        let next = self.read_optional(NEXT_CERTIFICATE)?;
        // A switch that was not begun in earnest has left a copy of the CA that still signs.
        let previous = self.read_optional(PREVIOUS_CERTIFICATE)?.filter(|previous| *previous != pem);
        Ok(Trust { ca, next, previous })
    }

    /// Every file that is there, by its name.
    pub(super) fn all(&self) -> Result<BTreeMap<String, String>, CaError> {
        let mut all = BTreeMap::new();
        for name in NAMES {
            if let Some(text) = self.read_optional(name)? {
                all.insert(name.to_owned(), text);
            }
        }
        Ok(all)
    }

    /// Makes them these. One that is not among them goes.
    pub(super) fn replace(&self, all: &BTreeMap<String, String>) -> Result<(), CaError> {
        for name in NAMES {
            match all.get(name) {
                Some(text) => self.write(name, text)?,
                None if self.read_optional(name)?.is_some() => self.remove(name)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Makes the next CA.
    pub(super) fn introduce(&self, now: Timestamp) -> Result<(), CaError> {
        let (certificate, key) = ca::create(now)?;
        self.write(NEXT_KEY, &key)?;
        self.write(NEXT_CERTIFICATE, &certificate)
    }

    /// Lets the next CA sign. The key goes first; [`Files::finish_switch`] does the rest.
    pub(super) fn switch(&self) -> Result<(), CaError> {
        self.write(PREVIOUS_CERTIFICATE, &self.read(CERTIFICATE_FILE)?)?;
        self.rename(NEXT_KEY, KEY_FILE)?;
        self.finish_switch()
    }

    /// Forgets the previous CA.
    pub(super) fn end(&self) -> Result<(), CaError> {
        self.remove(PREVIOUS_CERTIFICATE)
    }

    /// A key that is the next certificate's says that the switch was begun.
    fn finish_switch(&self) -> Result<(), CaError> {
        let Some(next) = self.read_optional(NEXT_CERTIFICATE)? else { return Ok(()) };
        if Ca::read(&next, &self.read(KEY_FILE)?).is_ok() {
            self.rename(NEXT_CERTIFICATE, CERTIFICATE_FILE)?;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String, CaError> {
        let path = self.dir.join(name);
        fs::read_to_string(&path).map_err(|source| CaError::File { path, source })
    }

    fn read_optional(&self, name: &str) -> Result<Option<String>, CaError> {
        let path = self.dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CaError::File { path, source }),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CaError> {
        let path = self.dir.join(name);
        write_private(&path, text.as_bytes()).map_err(|source| CaError::File { path, source })
    }

    fn remove(&self, name: &str) -> Result<(), CaError> {
        let path = self.dir.join(name);
        fs::remove_file(&path).map_err(|source| CaError::File { path, source })?;
        self.sync()
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), CaError> {
        let path = self.dir.join(to);
        fs::rename(self.dir.join(from), &path).map_err(|source| CaError::File { path, source })?;
        self.sync()
    }

    fn sync(&self) -> Result<(), CaError> {
        let synced = fs::File::open(&self.dir).and_then(|folder| folder.sync_all());
        synced.map_err(|source| CaError::File { path: self.dir.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use active_monitor_core::view::CaStage;

    use super::*;

    fn load(files: &Files) -> Trust {
        files.load_or_create(ca::AGENT_LIFE, Timestamp::now()).unwrap()
    }

    #[test]
    fn the_ca_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        assert_eq!(load(&files).ca.fingerprint(), load(&files).ca.fingerprint());
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_hub_that_dies_within_a_switch_starts_with_one_stage_or_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        let first = load(&files).ca.fingerprint();
        files.introduce(Timestamp::now()).unwrap();
        let next = load(&files).other_fingerprint().unwrap();

        fs::copy(dir.path().join(CERTIFICATE_FILE), dir.path().join(PREVIOUS_CERTIFICATE)).unwrap();
        let copied = load(&files);
        assert_eq!((copied.stage(), copied.ca.fingerprint()), (CaStage::Introduced, first.clone()));

        fs::rename(dir.path().join(NEXT_KEY), dir.path().join(KEY_FILE)).unwrap();
        let begun = load(&files);
        assert_eq!((begun.stage(), begun.ca.fingerprint()), (CaStage::Switched, next));
        assert_eq!(begun.other_fingerprint(), Some(first));
        assert_eq!(load(&files).stage(), CaStage::Switched, "and stays there");

        files.end().unwrap();
        assert_eq!(load(&files).stage(), CaStage::Stable);
    }

    #[test]
    fn a_key_without_its_certificate_is_no_next_ca() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        load(&files);
        files.write(NEXT_KEY, "half of an introduction").unwrap();
        assert_eq!(load(&files).stage(), CaStage::Stable);
        files.introduce(Timestamp::now()).unwrap();
        assert_eq!(load(&files).stage(), CaStage::Introduced);
    }
}
