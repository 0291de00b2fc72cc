//! Sessions of people whom a provider vouched for: who it is, with which role and until when, sealed by the hub.
//!
//! Nothing of them is kept, so nothing has to be read or shared: the seal's key is in the store. A session ends by its time,
//! and all of them end with the key.

use active_monitor_core::view::Me;
use aws_lc_rs::hmac;
use jiff::{SignedDuration, Timestamp};
use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};

/// Name of the key that sessions are sealed with.
const SECRET: &str = "sessions";
/// How a session's text begins.
const PREFIX: &str = "ams_";
/// How long a session lasts: a shift. Whoever loses a role at the provider keeps it here for at most so long.
pub const LIFE: SignedDuration = SignedDuration::from_hours(8);

/// Seals and opens sessions.
#[derive(Debug)]
pub struct Sessions {
    key: hmac::Key,
}

#[derive(Serialize, Deserialize)]
struct Session {
    me: Me,
    until: Timestamp,
}

impl Sessions {
    /// With the store's key, which is made at the first start.
    ///
    /// # Errors
    /// The store fails.
    pub async fn load(store: &dyn Store) -> Result<Sessions, StoreError> {
        let mut fresh = [0_u8; 32];
        rand::rng().fill_bytes(&mut fresh);
        Ok(Sessions::with_key(&store.secret(SECRET, fresh).await?))
    }

    /// With this key.
    pub fn with_key(secret: &[u8]) -> Sessions {
        Sessions { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The session as the browser gets it; it begins at `now`.
    ///
    /// # Errors
    /// It has no form as JSON.
    pub fn seal(&self, me: &Me, now: Timestamp) -> serde_json::Result<String> {
        let until = now.saturating_add(LIFE).unwrap_or(Timestamp::MAX);
        let text = serde_json::to_vec(&Session { me: me.clone(), until })?;
        let tag = hmac::sign(&self.key, &text);
        Ok(format!("{PREFIX}{}.{}", hex::encode(&text), hex::encode(tag)))
    }

    /// Whose session it is, where it was sealed here and has not ended.
    pub fn open(&self, sealed: &str, now: Timestamp) -> Option<Me> {
        let (text, tag) = sealed.strip_prefix(PREFIX)?.split_once('.')?;
        let (text, tag) = (hex::decode(text).ok()?, hex::decode(tag).ok()?);
        hmac::verify(&self.key, &text, &tag).ok()?;
        let Session { me, until } = serde_json::from_slice(&text).ok()?;
        (now < until).then_some(me)
    }
}

#[cfg(test)]
mod tests {
    use active_monitor_core::view::Role;

    use super::*;

    #[test]
    fn a_session_is_good_for_whom_it_was_sealed_and_until_it_ends() {
        let (ours, other) = (Sessions::with_key(&[1; 32]), Sessions::with_key(&[2; 32]));
        let me = Me { name: "oidc:ann@example.com".into(), role: Role::Viewer };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let sealed = ours.seal(&me, now).unwrap();
        assert_eq!(ours.open(&sealed, now), Some(me));
        assert_eq!(other.open(&sealed, now), None);
        assert_eq!(ours.open(&sealed, now + LIFE), None);
        let (text, tag) = sealed.strip_prefix(PREFIX).unwrap().split_once('.').unwrap();
        let greedy = String::from_utf8(hex::decode(text).unwrap()).unwrap().replace("viewer", "admin");
        let greedy = format!("{PREFIX}{}.{tag}", hex::encode(greedy));
        for made_up in
            ["", "ams_", "ams_.", "ams_00.00", &greedy, &format!("{sealed}00"), sealed.trim_start_matches("ams_")]
        {
            assert_eq!(ours.open(made_up, now), None, "{made_up}");
        }
    }
}
