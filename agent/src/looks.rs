//! The checks that are looked at in this moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// Their uids; a check has one look at a time.
#[derive(Clone, Debug, Default)]
pub struct Looks(Arc<Mutex<BTreeSet<String>>>);

/// A look, until it is dropped.
pub(crate) struct Look {
    uid: String,
    looks: Looks,
}

impl Looks {
    pub(crate) fn begin(&self, uid: &str) -> Look {
        self.0.lock().insert(uid.to_owned());
        Look { uid: uid.to_owned(), looks: self.clone() }
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.0.lock().contains(uid)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.looks.0.lock().remove(&self.uid);
    }
}
