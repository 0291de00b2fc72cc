//! Copies of all that a hub must not lose: its data base and its CA, as one tar archive.
//!
//! A backup reads the data directory of a hub that may be running, and makes one file there, which it removes. A restore
//! writes a data directory that has no hub in it.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use active_monitor_core::view::Restore;
use jiff::Timestamp;

use crate::authority;
use crate::ca;
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{Store, StoreError};

/// What an archive holds.
const FILES: [&str; 3] = [sqlite::FILE_NAME, ca::CERTIFICATE_FILE, ca::KEY_FILE];
/// What it holds besides while one CA takes another's place, and nothing else.
const CHANGING: [&str; 3] = [authority::NEXT_KEY, authority::NEXT_CERTIFICATE, authority::PREVIOUS_CERTIFICATE];

/// Why there is no backup, or no restored hub.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The data base cannot be copied.
    #[error("the data base cannot be copied")]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error("{path} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be read or written.
    #[error("the archive cannot be read or written")]
    Archive(#[source] io::Error),
    /// The archive is not of a hub.
    #[error("the archive holds {found:?}; a hub's holds hub.sqlite, ca.crt and ca.key, each once")]
    Content {
        /// What it holds, as far as it was read.
        found: Vec<String>,
    },
    /// A restore overwrites nothing.
    #[error("{path} is there: a hub is restored into an empty data directory")]
    NotEmpty {
        /// The file that is there.
        path: PathBuf,
    },
}

/// Writes the archive: the data base as it is in one moment, and the CA. It takes as much disk again as the data base
/// while it runs.
///
/// # Errors
/// There is no hub in the data directory, or it cannot be read, or the archive cannot be written.
pub async fn backup(data_dir: &Path, archive: impl Write) -> Result<(), BackupError> {
    let place = tempfile::Builder::new().prefix("backup-").tempdir_in(data_dir);
    let place = place.map_err(|source| BackupError::File { path: data_dir.to_owned(), source })?;
    let copy = place.path().join(sqlite::FILE_NAME);
    SqliteStore::copy(data_dir, &copy).await?;
    let mut archive = tar::Builder::new(archive);
    let changing = CHANGING.into_iter().filter(|name| data_dir.join(name).exists());
    for name in FILES.into_iter().chain(changing) {
        let path = if name == sqlite::FILE_NAME { copy.clone() } else { data_dir.join(name) };
        let added = File::open(&path).and_then(|mut file| archive.append_file(name, &mut file));
        added.map_err(|source| BackupError::File { path, source })?;
    }
    archive.into_inner().and_then(|mut archive| archive.flush()).map_err(BackupError::Archive)
}

/// Unpacks an archive. The data base is put in place last: what is interrupted leaves no hub that starts without its CA. It
/// says by then that it is from the past: until a person confirms it, the hub pushes and withdraws no definition.
///
/// # Errors
/// The data directory has a hub in it, the archive is not one of [`backup`], or a file cannot be written; nothing is in
/// place then.
pub async fn restore(data_dir: &Path, archive: impl Read) -> Result<(), BackupError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    made.map_err(|source| BackupError::File { path: data_dir.to_owned(), source })?;
    if let Some(path) = FILES.map(|name| data_dir.join(name)).into_iter().find(|path| path.exists()) {
        return Err(BackupError::NotEmpty { path });
    }
    let place = tempfile::Builder::new().prefix("restore-").tempdir_in(data_dir);
    let place = place.map_err(|source| BackupError::File { path: data_dir.to_owned(), source })?;
    let mut found = Vec::new();
    for entry in tar::Archive::new(archive).entries().map_err(BackupError::Archive)? {
        let mut entry = entry.map_err(BackupError::Archive)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let fits = FILES.iter().chain(&CHANGING).any(|known| *known == name) && !found.contains(&name);
        found.push(name.clone());
        if !fits {
            return Err(BackupError::Content { found });
        }
        let path = place.path().join(name);
        write_synced(&mut entry, &path).map_err(|source| BackupError::File { path, source })?;
    }
    if !FILES.iter().all(|name| place.path().join(name).exists()) {
        return Err(BackupError::Content { found });
    }
    let now = Timestamp::now();
    let store = SqliteStore::open(place.path()).await?;
    store.put_restore(&Restore { noticed_at: now, reason: "it was restored from a backup".to_owned() }).await?;
    store.close().await;
    let changing = CHANGING.into_iter().filter(|name| place.path().join(name).exists());
    for name in changing.chain([ca::KEY_FILE, ca::CERTIFICATE_FILE, sqlite::FILE_NAME]) {
        let path = data_dir.join(name);
        fs::rename(place.path().join(name), &path).map_err(|source| BackupError::File { path, source })?;
    }
    let synced = File::open(data_dir).and_then(|folder| folder.sync_all());
    synced.map_err(|source| BackupError::File { path: data_dir.to_owned(), source })
}

fn write_synced(from: &mut impl Read, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    io::copy(from, &mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use active_monitor_core::view::{CaStage, ClusterAdd, Role};
    use active_monitor_runtime::tasks::Tasks;
    use active_monitor_runtime::tls;
    use clap::Parser;

    use super::*;
    use crate::auth;
    use crate::config::{Cli, ServeArgs};
    use crate::serve::{self, ServeError};

    const TOKEN: &str = "amf_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn args(data_dir: &Path, token_file: &Path) -> ServeArgs {
        let mut flags = vec!["hub".into(), "--data-dir".into(), data_dir.as_os_str().to_owned()];
        flags.extend(["--admin-token-file".into(), token_file.as_os_str().to_owned()]);
        for listen in ["--agents-listen", "--enrolment-listen", "--people-listen"] {
            flags.extend([OsString::from(listen), "127.0.0.1:0".into()]);
        }
        Cli::try_parse_from(flags).unwrap().serve
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_restored_hub_is_the_hub_that_was_backed_up_while_it_ran() {
        tls::install_crypto_provider();
        let dir = tempfile::tempdir().unwrap();
        let (old, new, token) = (dir.path().join("old"), dir.path().join("new"), dir.path().join("token"));
        fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let tasks = Tasks::new();
        let hub = serve::start(&args(&old, &token), &tasks).await.unwrap();
        hub.fleet.add_cluster(ClusterAdd { name: "prod".into(), ..ClusterAdd::default() }).await.unwrap();
        hub.authority.roll(CaStage::Stable, false, &hub.fleet).await.unwrap();
        let mut archive = Vec::new();
        backup(&old, &mut archive).await.unwrap();
        assert!(
            fs::read_dir(&old).unwrap().all(|file| !file.unwrap().file_name().to_string_lossy().contains("backup"))
        );
        hub.fleet.add_cluster(ClusterAdd { name: "later".into(), ..ClusterAdd::default() }).await.unwrap();

        restore(&new, archive.as_slice()).await.unwrap();
        assert!(matches!(restore(&new, archive.as_slice()).await, Err(BackupError::NotEmpty { .. })));
        assert_eq!(fs::read(new.join("ca.key")).unwrap(), fs::read(old.join("ca.key")).unwrap());
        assert_eq!(fs::metadata(new.join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
        let restored = serve::start(&args(&new, &token), &tasks).await.unwrap();
        assert_eq!(restored.authority.trust().bundle(), hub.authority.trust().bundle(), "a change of the CA goes on");
        let held_back = restored.fleet.view().summary.restore.clone().expect("it says where it comes from");
        assert_eq!(held_back.reason, "it was restored from a backup");
        assert_eq!(hub.fleet.view().summary.restore, None);
        let clusters: Vec<String> = restored.fleet.view().clusters.keys().map(ToString::to_string).collect();
        assert_eq!(clusters, ["prod"]);
        let tokens = restored.store.api_tokens().await.unwrap();
        assert!(matches!(&tokens[..], [one] if one.role == Role::Admin && one.hash == auth::hash(TOKEN)), "{tokens:?}");
        tasks.stop();
        tasks.run(Duration::from_secs(20)).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_backup_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let archive = |names: &[&str]| {
            let mut archive = tar::Builder::new(Vec::new());
            for name in names {
                let mut header = tar::Header::new_gnu();
                // Written as it stands: the crate itself would refuse a path that leads out.
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_size(1);
                header.set_cksum();
                archive.append(&header, &b"x"[..]).unwrap();
            }
            archive.into_inner().unwrap()
        };
        let refused =
            [&["hub.sqlite"][..], &["../ca.key"], &["ca.key", "ca.crt", "hub.sqlite", "hub.sqlite"], &["other"]];
        for names in refused {
            let error = restore(dir.path(), archive(names).as_slice()).await.unwrap_err();
            assert!(matches!(&error, BackupError::Content { found } if found.len() <= names.len()), "{error}");
        }
        assert!(restore(dir.path(), &b"no archive"[..]).await.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_admins_token_that_could_be_guessed_is_refused() {
        tls::install_crypto_provider();
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        for text in ["", "secret", "amf_0123", &TOKEN.replace("ff", "gg")] {
            fs::write(&token, text).unwrap();
            let refused = serve::start(&args(&dir.path().join("data"), &token), &Tasks::new()).await;
            let error = refused.err().expect("a refused token").to_string();
            assert!(error.starts_with("--admin-token-file: ") && error.ends_with("must hold amf_ and 64 hex digits"));
        }
        let missing = serve::start(&args(&dir.path().join("data"), &dir.path().join("no")), &Tasks::new()).await;
        assert!(matches!(missing, Err(ServeError::AdminToken { source: Some(_), .. })));
    }
}
