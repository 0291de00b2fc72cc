//! The agent's identity at the hub in a Secret, for replicas that have no disk in common: whoever leads takes it from
//! there, and brings back what it enrols or renews. The agent may read and change that one Secret and no other.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::enrol::{Identity, IdentityError};
use crate::request::{RequestError, request};

/// The Secret's key, and the file's name under `<state-dir>/identity`.
const KEY: &str = "identity.json";
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Until it is shared, a takeover has no identity.
const RETRY: Duration = Duration::from_secs(1);
/// The checks wait no longer than this for a Secret that cannot be had; the link finds the identity later too.
const TAKE_LIMIT: Duration = Duration::from_secs(10);

/// Why the two could not be made to agree. It is tried again.
#[derive(Debug, thiserror::Error)]
enum ShareError {
    #[error("the Secret cannot be read or written: {0}")]
    Request(#[from] RequestError),
    #[error("the state directory cannot be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("not usable: {0}")]
    Identity(#[from] IdentityError),
}

/// Keeps the file and the Secret alike.
pub struct IdentitySecret {
    api: Api<Secret>,
    name: String,
    dir: PathBuf,
    /// What both had when they were last made to agree; `None` before.
    agreed: Option<Option<Vec<u8>>>,
}

impl IdentitySecret {
    /// Of this Secret in the client's own namespace, and the identity under `state_dir`.
    pub fn new(client: Client, name: String, state_dir: &Path) -> IdentitySecret {
        IdentitySecret { api: Api::default_namespaced(client), name, dir: state_dir.join("identity"), agreed: None }
    }

    /// Waits until what is newer is in both places, for a while: without it, the replica would enrol anew.
    pub async fn take(&mut self) {
        tokio::time::timeout(TAKE_LIMIT, self.share_until_done()).await.ok();
    }

    /// Makes them agree where that is not done yet, and brings every new identity to the Secret, for ever.
    pub async fn follow(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if read(&self.dir).is_ok_and(|file| self.agreed.as_ref() != Some(&file)) {
                self.share_until_done().await;
            }
        }
    }

    async fn share_until_done(&mut self) {
        let mut told = String::new();
        while let Err(error) = self.share().await {
            let error = error.to_string();
            if error != told {
                tracing::warn!(
                    secret = self.name,
                    error,
                    "cannot share the identity with other replicas, trying again"
                );
                told = error;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn share(&mut self) -> Result<(), ShareError> {
        let mut secret = request(self.api.get(&self.name)).await?;
        let shared = secret.data.as_ref().and_then(|data| data.get(KEY)).map(|bytes| bytes.0.clone());
        let file = read(&self.dir)?;
        if shared != file {
            match newer(shared.as_deref(), file.as_deref())? {
                Newer::Shared(identity) => identity.store(&self.dir)?,
                Newer::File(bytes) => {
                    let data = secret.data.get_or_insert_with(BTreeMap::new);
                    data.insert(KEY.to_owned(), ByteString(bytes.to_vec()));
                    request(self.api.replace(&self.name, &PostParams::default(), &secret)).await?;
                    tracing::info!(secret = self.name, "identity shared with other replicas");
                }
                Newer::None => {}
            }
        }
        self.agreed = Some(read(&self.dir)?);
        Ok(())
    }
}

enum Newer<'a> {
    Shared(Box<Identity>),
    File(&'a [u8]),
    None,
}

/// Which of the two ends later. What cannot be read is older than anything.
fn newer<'a>(shared: Option<&[u8]>, file: Option<&'a [u8]>) -> Result<Newer<'a>, IdentityError> {
    let shared = shared.and_then(|bytes| Identity::parse(bytes).ok());
    let Some(bytes) = file else {
        return Ok(shared.map_or(Newer::None, |identity| Newer::Shared(Box::new(identity))));
    };
    match (shared, Identity::parse(bytes)) {
        (Some(shared), Ok(own)) if shared.not_after() >= own.not_after() => Ok(Newer::Shared(Box::new(shared))),
        (Some(shared), Err(_)) => Ok(Newer::Shared(Box::new(shared))),
        (_, Ok(_)) => Ok(Newer::File(bytes)),
        (None, Err(error)) => Err(error),
    }
}

fn read(dir: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(dir.join(KEY)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
