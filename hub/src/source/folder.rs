//! Reads a folder of documents. It follows no link out of the folder, and takes nothing that changed while it was read.
//!
//! git-sync swaps a link to a worktree that has the commit's name, kubelet one called `..data`: the link is resolved once,
//! so that all files are of one version.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use active_monitor_core::document::{Finding, Input};
use active_monitor_core::gitops::whole;

/// The most files.
const MAX_FILES: usize = 10_000;
/// The largest file, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most bytes of all files.
const MAX_BYTES: u64 = 64 << 20;
/// The deepest folder.
const MAX_DEPTH: usize = 16;
/// The link that kubelet swaps.
const KUBELET_LINK: &str = "..data";

/// What is in a folder, by which a change is seen without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    root: PathBuf,
    files: Vec<Stamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    /// From the root on.
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

/// Looks at the folder.
///
/// # Errors
/// What keeps it from being read.
pub(super) fn list(folder: &Path) -> Result<Listing, Vec<Finding>> {
    let failed = |error: io::Error| vec![whole(format!("{} cannot be read: {error}", folder.display()))];
    let mut root = folder.canonicalize().map_err(failed)?;
    if let Ok(linked) = root.join(KUBELET_LINK).canonicalize() {
        root = linked;
    }
    let mut walk = Walk { root: root.clone(), files: Vec::new(), findings: Vec::new() };
    walk.enter(&root, 0);
    let Walk { mut files, mut findings, .. } = walk;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    if files.len() > MAX_FILES || bytes > MAX_BYTES {
        let text = format!("{} files with {bytes} bytes, {MAX_FILES} with {MAX_BYTES} are allowed", files.len());
        findings.push(whole(text));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if findings.is_empty() { Ok(Listing { root, files }) } else { Err(findings) }
}

struct Walk {
    root: PathBuf,
    files: Vec<Stamp>,
    findings: Vec<Finding>,
}

impl Walk {
    fn enter(&mut self, folder: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            return self.refuse(folder, &format!("lies deeper than {MAX_DEPTH} folders"));
        }
        let entries = match std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.refuse(folder, &format!("cannot be read: {error}")),
        };
        for entry in entries {
            let path = entry.path();
            // Git's own folder, and the versions of which kubelet's link names one.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.enter(&path, depth + 1),
                // Left out silently, what is in it would look deleted.
                Ok(kind) if kind.is_symlink() && path.is_dir() => self.refuse(&path, "is a link to a folder"),
                Ok(_) if is_document(&path) => self.file(&path),
                Ok(_) => {}
                Err(error) => self.refuse(&path, &format!("cannot be read: {error}")),
            }
            if self.files.len() > MAX_FILES {
                return;
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let found = path.canonicalize().and_then(|real| Ok((real.metadata()?, real)));
        match found {
            Err(error) => self.refuse(path, &format!("cannot be read: {error}")),
            Ok((_, real)) if !real.starts_with(&self.root) => {
                self.refuse(path, "is a link that leads out of the folder")
            }
            Ok((metadata, _)) if !metadata.is_file() => self.refuse(path, "is no file"),
            Ok((metadata, _)) if metadata.len() > MAX_FILE_BYTES => {
                self.refuse(path, &format!("has {} bytes, {MAX_FILE_BYTES} are allowed", metadata.len()));
            }
            Ok((metadata, _)) => self.files.push(Stamp {
                path: path.strip_prefix(&self.root).unwrap_or(path).to_owned(),
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
                inode: metadata.ino(),
            }),
        }
    }

    fn refuse(&mut self, path: &Path, message: &str) {
        let file = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        self.findings.push(Finding { file, ..whole(message) });
    }
}

fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

impl Listing {
    /// The commit, where the name of the folder or of one around it is one; the version of a ConfigMap.
    pub(super) fn revision(&self) -> Option<String> {
        let is_commit = |name: &str| matches!(name.len(), 40 | 64) && name.chars().all(|c| c.is_ascii_hexdigit());
        let names = self.root.components().rev().filter_map(|part| part.as_os_str().to_str());
        let mut names = names.enumerate();
        let found = names.find(|(depth, name)| is_commit(name) || (*depth == 0 && name.starts_with("..")));
        found.map(|(_, name)| name.trim_start_matches('.').to_owned())
    }

    /// The files' texts.
    ///
    /// # Errors
    /// A file cannot be read, or changed meanwhile.
    pub(super) fn read(&self) -> Result<Vec<Input>, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut inputs = Vec::new();
        for Stamp { path, .. } in &self.files {
            let name = path.display().to_string();
            match std::fs::read_to_string(self.root.join(path)) {
                Ok(text) => inputs.push(Input { name, text }),
                Err(error) => findings.push(Finding { file: name, ..whole(format!("cannot be read: {error}")) }),
            }
        }
        if findings.is_empty() && list(&self.root).as_ref() != Ok(self) {
            findings.push(whole("changed while it was read; it is read again"));
        }
        if findings.is_empty() { Ok(inputs) } else { Err(findings) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn names(listing: &Listing) -> Vec<String> {
        listing.read().unwrap().into_iter().map(|input| input.name).collect()
    }

    #[test]
    fn the_commit_is_read_from_the_link_that_git_sync_swaps() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = ("1".repeat(40), "ab".repeat(20));
        write(&dir.path().join(&one).join("fleet/a.yaml"), "a: 1");
        write(&dir.path().join(&two).join("fleet/b.yml"), "a: 1");
        write(&dir.path().join(&two).join("fleet/.git/c.yaml"), "a: 1");
        write(&dir.path().join(&two).join("fleet/README.md"), "#");
        let link = dir.path().join("current");
        symlink(&one, &link).unwrap();
        let first = list(&link.join("fleet")).unwrap();
        assert_eq!((first.revision(), names(&first)), (Some(one), vec!["a.yaml".to_owned()]));
        let next = dir.path().join("next");
        symlink(&two, &next).unwrap();
        std::fs::rename(&next, &link).unwrap();
        let second = list(&link.join("fleet")).unwrap();
        assert_eq!((second.revision(), names(&second)), (Some(two), vec!["b.yml".to_owned()]));
        assert_ne!(first, second);
    }

    #[test]
    fn a_config_map_is_read_in_one_version() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("..2026_11_25/a.yaml"), "a: 1");
        symlink("..2026_11_25", dir.path().join("..data")).unwrap();
        symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
        let listing = list(dir.path()).unwrap();
        assert_eq!(
            (listing.revision().unwrap(), names(&listing)),
            ("2026_11_25".to_owned(), vec!["a.yaml".to_owned()])
        );
    }

    #[test]
    fn what_lies_outside_or_is_too_large_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        write(&dir.path().join("secret.yaml"), "password");
        write(&root.join("large.yaml"), &"x".repeat((MAX_FILE_BYTES + 1) as usize));
        symlink("../secret.yaml", root.join("link.yaml")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let texts: Vec<String> = list(&root).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts.contains(&"up: is a link to a folder".to_owned()), "{texts:?}");
        assert!(texts.contains(&"link.yaml: is a link that leads out of the folder".to_owned()), "{texts:?}");
        assert!(texts.contains(&"large.yaml: has 1048577 bytes, 1048576 are allowed".to_owned()), "{texts:?}");
        let gone = list(&dir.path().join("none")).unwrap_err();
        assert!(gone[0].to_string().contains("none cannot be read: No such file"), "{}", gone[0]);
    }

    #[test]
    fn a_folder_that_changes_while_it_is_read_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a.yaml"), "a: 1");
        let listing = list(dir.path()).unwrap();
        assert_eq!(listing.revision(), None);
        write(&dir.path().join("b.yaml"), "a: 1");
        assert!(listing.read().unwrap_err()[0].to_string().contains("changed while it was read"));
    }
}
