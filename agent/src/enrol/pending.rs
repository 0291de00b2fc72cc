//! The key of a certificate that was asked for and has not come: on disk before the hub hears of it, so that a lost answer
//! can be asked for again with the same key.

use std::fs;
use std::io;
use std::path::Path;

use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::identity::{IdentityError, write_private};

const FILE: &str = "pending.json";

/// The key is in here: no `Debug`, no log.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    /// Which request it is for.
    purpose: String,
    /// PEM.
    key: String,
}

/// The key for this request: the one that an earlier try left, or a new one.
pub(super) fn key(dir: &Path, purpose: &str) -> Result<KeyPair, IdentityError> {
    let left = fs::read(dir.join(FILE)).ok().and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
    let left = left.filter(|stored| stored.purpose == purpose);
    if let Some(key) = left.and_then(|stored| KeyPair::from_pem(&stored.key).ok()) {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(IdentityError::Key)?;
    let stored = Stored { purpose: purpose.to_owned(), key: key.serialize_pem() };
    write_private(dir, FILE, &serde_json::to_vec(&stored)?)?;
    Ok(key)
}

/// The certificate is here.
pub(super) fn done(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_lasts_until_its_certificate_is_here_and_serves_one_request() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("identity");
        let first = key(&dir, "a").unwrap().serialize_pem();
        assert_eq!(key(&dir, "a").unwrap().serialize_pem(), first);
        let mode = fs::metadata(dir.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(key(&dir, "b").unwrap().serialize_pem(), first);
        fs::write(dir.join(FILE), "torn").unwrap();
        let second = key(&dir, "b").unwrap().serialize_pem();
        done(&dir).unwrap();
        done(&dir).unwrap();
        assert_ne!(key(&dir, "b").unwrap().serialize_pem(), second);
    }
}
