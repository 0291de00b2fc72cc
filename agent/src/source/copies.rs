//! The last good text of each URL, for when its server is away: in memory, and in files beside the journal, so that a
//! restart does not depend on the server. What is in a file is looked at like anything that is fetched.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// URLs that are remembered.
const MAX_COPIES: usize = 256;
/// Bytes of all texts together.
const MAX_BYTES: usize = 4 << 20;
/// A copy that is older is no stand-in any more.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How old a file may say that the same text is.
const SAVE_AGAIN: Duration = Duration::from_secs(3600);
/// Bytes of a file: JSON may take six for a character.
const MAX_FILE_BYTES: u64 = 7 << 20;

/// A text, and when it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) text: Arc<str>,
    pub(super) at: Timestamp,
    /// What its file says of `at`; absent where there is none.
    saved: Option<Timestamp>,
}

/// A file's content.
#[derive(Serialize, Deserialize)]
struct Stored {
    url: String,
    verified: bool,
    at: Timestamp,
    text: String,
    /// SHA-256 of all the others, in hexadecimal.
    sha256: String,
}

impl Stored {
    fn new(url: &str, verified: bool, at: Timestamp, text: &str) -> Stored {
        let sha256 = hex::encode(Sha256::digest(format!("{verified} {url} {at} {text}")));
        Stored { url: url.to_owned(), verified, at, text: text.to_owned(), sha256 }
    }
}

/// What is to be done on the disk, by [`Change::apply`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Write(PathBuf, Vec<u8>),
    Remove(PathBuf),
}

/// The copies. Where there is no room the oldest go.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// By URL, and whether the server's certificate was looked at.
    by_url: BTreeMap<(String, bool), Copy>,
    bytes: usize,
    /// Where the files are; absent where there are none.
    dir: Option<PathBuf>,
}

impl Copies {
    /// Reads what an earlier life left in `dir`, which is made with the first copy. A file that is damaged, too large or
    /// one too many goes.
    pub(super) fn open(dir: PathBuf) -> Copies {
        let mut copies = Copies { dir: Some(dir), ..Copies::default() };
        let mut found: Vec<(PathBuf, Stored)> = Vec::new();
        for path in copies.files() {
            match read(&path) {
                Some(stored) if copies.path(&stored.url, stored.verified).as_ref() == Some(&path) => {
                    found.push((path, stored));
                }
                Some(_) | None => Change::Remove(path).apply(),
            }
        }
        found.sort_by_key(|(_, stored)| stored.at);
        for (_, stored) in found {
            let changes = copies.put(&stored.url, stored.verified, &stored.text, stored.at, Some(stored.at));
            changes.into_iter().for_each(Change::apply);
        }
        copies
    }

    /// Remembers a text; gives what is to be done on the disk.
    pub(super) fn keep(&mut self, now: Timestamp, url: &str, verified: bool, text: &str) -> Vec<Change> {
        let known = self.by_url.get(&(url.to_owned(), verified)).filter(|known| *known.text == *text);
        let saved = known.and_then(|known| known.saved);
        let is_fresh = saved.is_some_and(|saved| now.duration_since(saved).unsigned_abs() < SAVE_AGAIN);
        let mut changes = self.put(url, verified, text, now, if is_fresh { saved } else { Some(now) });
        if !is_fresh && self.by_url.contains_key(&(url.to_owned(), verified)) {
            let stored = Stored::new(url, verified, now, text);
            let write = self.path(url, verified).zip(serde_json::to_vec(&stored).ok());
            changes.extend(write.map(|(path, content)| Change::Write(path, content)));
        }
        changes
    }

    pub(super) fn get(&self, now: Timestamp, url: &str, verified: bool) -> Option<Copy> {
        let copy = self.by_url.get(&(url.to_owned(), verified))?;
        (now.duration_since(copy.at).unsigned_abs() <= MAX_AGE).then(|| copy.clone())
    }

    fn put(&mut self, url: &str, verified: bool, text: &str, at: Timestamp, saved: Option<Timestamp>) -> Vec<Change> {
        let key = (url.to_owned(), verified);
        self.remove(&key);
        let mut changes = Vec::new();
        if text.len() > MAX_BYTES {
            return changes;
        }
        while self.by_url.len() >= MAX_COPIES || self.bytes + text.len() > MAX_BYTES {
            let oldest = self.by_url.iter().min_by_key(|(_, copy)| copy.at).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
            changes.extend(self.path(&oldest.0, oldest.1).map(Change::Remove));
        }
        self.bytes += text.len();
        self.by_url.insert(key, Copy { text: text.into(), at, saved });
        changes
    }

    fn remove(&mut self, key: &(String, bool)) {
        if let Some(copy) = self.by_url.remove(key) {
            self.bytes -= copy.text.len();
        }
    }

    /// A URL may hold what is no file name, and what is secret.
    fn path(&self, url: &str, verified: bool) -> Option<PathBuf> {
        let name = hex::encode(Sha256::digest(format!("{verified} {url}")));
        Some(self.dir.as_ref()?.join(format!("{name}.json")))
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = self.dir.as_ref().and_then(|dir| fs::read_dir(dir).ok());
        entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
    }
}

impl Change {
    /// A copy that cannot be written or removed is missed after a restart at the worst.
    pub(super) fn apply(self) {
        let (path, done) = match self {
            Change::Write(path, content) => {
                let done = write(&path, &content);
                (path, done)
            }
            Change::Remove(path) => {
                let done = fs::remove_file(&path);
                (path, done)
            }
        };
        if let Err(error) = done {
            tracing::warn!(path = %path.display(), %error, "copy of a source not saved");
        }
    }
}

fn read(path: &Path) -> Option<Stored> {
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    let content = if length <= MAX_FILE_BYTES { fs::read(path).ok()? } else { return None };
    let stored: Stored = serde_json::from_slice(&content).ok()?;
    let whole = Stored::new(&stored.url, stored.verified, stored.at, &stored.text).sha256 == stored.sha256;
    whole.then_some(stored)
}

/// Readable by the agent alone, and whole or not at all.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let half_made = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half_made)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&half_made, path)
    })();
    written.inspect_err(|_| drop(fs::remove_file(&half_made)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn keep(copies: &mut Copies, second: i64, url: &str, text: &str) -> usize {
        let changes = copies.keep(at(second), url, true, text);
        let writes = changes.iter().filter(|change| matches!(change, Change::Write(..))).count();
        changes.into_iter().for_each(Change::apply);
        writes
    }

    #[test]
    fn copies_are_bounded_in_number_bytes_and_age() {
        let mut copies = Copies::default();
        for n in 0..1000 {
            assert!(copies.keep(at(n), &format!("https://a/{n}"), true, "text").is_empty(), "there is no folder");
        }
        assert_eq!((copies.by_url.len(), copies.bytes), (MAX_COPIES, 4 * MAX_COPIES));
        assert!(copies.get(at(1000), "https://a/743", true).is_none(), "the oldest went");
        assert_eq!(copies.get(at(1000), "https://a/744", true).unwrap().at, at(744));
        assert!(copies.get(at(1000), "https://a/744", false).is_none(), "what was not verified is another's");
        assert!(copies.get(at(744 + 24 * 3600 + 1), "https://a/744", true).is_none());

        let large = "x".repeat(1 << 20);
        for n in 0..5 {
            copies.keep(at(2000 + n), &format!("https://large/{n}"), true, &large);
        }
        copies.keep(at(3000), "https://large/4", true, &large);
        assert_eq!((copies.by_url.len(), copies.bytes), (4, 4 << 20));
    }

    #[test]
    fn files_are_as_bounded_as_the_copies_and_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("sources");
        let mut copies = Copies::open(dir.clone());
        for n in 0..300 {
            assert_eq!(keep(&mut copies, n, &format!("https://bob:pw@a/{n}"), "text"), 1);
        }
        let files = || fs::read_dir(&dir).unwrap().count();
        assert_eq!(files(), MAX_COPIES);
        let again = Copies::open(dir.clone());
        assert_eq!((again.by_url.clone(), again.bytes), (copies.by_url.clone(), copies.bytes));
        assert_eq!(&*again.get(at(300), "https://bob:pw@a/299", true).unwrap().text, "text");
        let name = copies.path("https://bob:pw@a/299", true).unwrap();
        assert!(!name.to_str().unwrap().contains("pw"));
        assert_eq!(fs::metadata(&name).unwrap().permissions().mode() & 0o777, 0o600);
        // The same text is written again once an hour, another one at once.
        assert_eq!(keep(&mut copies, 400, "https://bob:pw@a/299", "text"), 0);
        assert_eq!(keep(&mut copies, 299 + 3600, "https://bob:pw@a/299", "text"), 1);
        assert_eq!(keep(&mut copies, 299 + 3601, "https://bob:pw@a/299", "other"), 1);
        assert_eq!(files(), MAX_COPIES);
    }

    #[test]
    fn a_file_that_is_damaged_or_of_somebody_else_is_no_copy_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut copies = Copies::open(dir.path().to_owned());
        keep(&mut copies, 0, "https://a/", "good");
        let path = copies.path("https://a/", true).unwrap();
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            let opened = Copies::open(dir.path().to_owned());
            let texts: Vec<&str> = opened.by_url.values().map(|copy| &*copy.text).collect();
            assert!(texts.is_empty() || texts == ["good"], "bit {bit}: {texts:?}");
            assert!(opened.by_url.keys().all(|(url, verified)| url == "https://a/" && *verified), "bit {bit}");
            assert_eq!(path.exists(), !texts.is_empty());
        }
        fs::write(dir.path().join("half-made.tmp"), "{").unwrap();
        fs::write(dir.path().join("other.json"), &good).unwrap();
        fs::File::create(dir.path().join("huge.json")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(Copies::open(dir.path().to_owned()).by_url.is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
