//! Reads texts from the operator's folder, and from nowhere else.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use active_monitor_core::manifest::MAX_SOURCE_BYTES;
use cap_std::ambient_authority;
use cap_std::fs::Dir;

/// A disk that does not answer must not hold a worker.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No folder is open to checks.
    #[error("the agent runs without --source-dir")]
    NoFolder,
    /// The folder itself.
    #[error("--source-dir cannot be opened: {0}")]
    Folder(#[source] io::Error),
    /// Not there, or it leads out of the folder.
    #[error("{0}")]
    Open(#[source] io::Error),
    /// A folder, a pipe, a device.
    #[error("it is no regular file")]
    NotAFile,
    /// Larger than a source may be.
    #[error("it is larger than {MAX_SOURCE_BYTES} bytes")]
    TooLarge,
    /// No text.
    #[error("it is not UTF-8")]
    NotText,
    /// The disk is too slow.
    #[error("it could not be read within {} s", TIMEOUT.as_secs())]
    Timeout,
}

pub(super) async fn read(dir: Option<&Path>, path: &str) -> Result<String, FileError> {
    let (dir, path) = (dir.ok_or(FileError::NoFolder)?.to_owned(), PathBuf::from(path));
    let reading = tokio::task::spawn_blocking(move || read_now(&dir, &path));
    match tokio::time::timeout(TIMEOUT, reading).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => Err(FileError::Open(io::Error::other(error))),
        Err(_) => Err(FileError::Timeout),
    }
}

/// `Dir` follows no path out of itself, whether by `..` or by a symbolic link, and whoever changes it meanwhile.
fn read_now(dir: &Path, path: &Path) -> Result<String, FileError> {
    let dir = Dir::open_ambient_dir(dir, ambient_authority()).map_err(FileError::Folder)?;
    // Opening a pipe would wait for its other end.
    if !dir.metadata(path).map_err(FileError::Open)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut text = Vec::new();
    let limit = MAX_SOURCE_BYTES as u64 + 1;
    dir.open(path).and_then(|file| file.take(limit).read_to_end(&mut text)).map_err(FileError::Open)?;
    if text.len() > MAX_SOURCE_BYTES {
        return Err(FileError::TooLarge);
    }
    String::from_utf8(text).map_err(|_| FileError::NotText)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    async fn says(dir: &Path, path: &str) -> String {
        match read(Some(dir), path).await {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        }
    }

    #[tokio::test]
    async fn files_are_read_from_the_folder_and_from_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("sources");
        fs::create_dir_all(dir.join("..data/sub")).unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        fs::write(dir.join("..data/dns.yaml"), "text").unwrap();
        // As the kubelet mounts a ConfigMap.
        symlink("..data/dns.yaml", dir.join("dns.yaml")).unwrap();
        symlink("../secret", dir.join("out")).unwrap();
        symlink(root.path().join("secret"), dir.join("absolute")).unwrap();
        symlink(root.path(), dir.join("up")).unwrap();
        fs::write(dir.join("large"), vec![b'a'; MAX_SOURCE_BYTES + 1]).unwrap();
        fs::write(dir.join("fits"), vec![b'a'; MAX_SOURCE_BYTES]).unwrap();
        fs::write(dir.join("binary"), [0xff, 0xfe]).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(dir.join("pipe")).status().unwrap();
        assert!(pipe.success());

        assert_eq!(says(&dir, "dns.yaml").await, "text");
        assert_eq!(says(&dir, "..data/sub/../dns.yaml").await, "text");
        assert_eq!(says(&dir, "fits").await.len(), MAX_SOURCE_BYTES);
        let secret = root.path().join("secret");
        for path in ["out", "absolute", "up/secret", "../secret", secret.to_str().unwrap(), "..data/../../secret"] {
            let said = says(&dir, path).await;
            assert!(said.starts_with("error: ") && said.contains("outside"), "{path}: {said}");
        }
        assert!(says(&dir, "absent").await.contains("No such file"));
        assert_eq!(says(&dir, "large").await, "error: it is larger than 1048576 bytes");
        assert_eq!(says(&dir, "binary").await, "error: it is not UTF-8");
        assert_eq!(says(&dir, "pipe").await, "error: it is no regular file");
        assert_eq!(says(&dir, "..data").await, "error: it is no regular file");
        assert!(says(&root.path().join("gone"), "a").await.contains("--source-dir cannot be opened"));
        assert!(matches!(read(None, "dns.yaml").await, Err(FileError::NoFolder)));
    }
}
