//! Sessions of people whom a provider vouched for: who it is, with which role and until when, sealed by the hub.
//!
//! Nothing of them is kept, so nothing has to be read or shared: the seal's key is in the store. A session ends by its time; what
//! is kept is which ones were [`Ended`] before.

use std::collections::BTreeMap;

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
/// How far the clocks of replicas may be apart: a session that one sealed begins no later for another.
const SKEW: SignedDuration = SignedDuration::from_secs(30);

/// Seals and opens sessions.
#[derive(Debug)]
pub struct Sessions {
    key: hmac::Key,
}

/// A session as it is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Random; empty in one that an earlier version sealed.
    #[serde(default)]
    pub id: String,
    /// Whose it is.
    pub me: Me,
    /// When it ends by itself.
    until: Timestamp,
}

/// Sessions that were ended before their time, by their id or by a person's name: then all until that time.
#[derive(Clone, Debug, Default)]
pub struct Ended(BTreeMap<String, Timestamp>);

impl FromIterator<(String, Timestamp)> for Ended {
    fn from_iter<I: IntoIterator<Item = (String, Timestamp)>>(all: I) -> Ended {
        Ended(all.into_iter().collect())
    }
}

impl Ended {
    /// Whether this session is among them. An id has no colon, a person's name begins with `oidc:`.
    pub fn has(&self, Session { id, me, until }: &Session) -> bool {
        // The store keeps no shorter time than this.
        let began = until.as_microsecond().saturating_sub(micros(LIFE));
        self.0.contains_key(id) || self.0.get(&me.name).is_some_and(|at| began <= at.as_microsecond())
    }
}

fn micros(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
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
        let mut id = [0_u8; 16];
        rand::rng().fill_bytes(&mut id);
        let text = serde_json::to_vec(&Session { id: hex::encode(id), me: me.clone(), until })?;
        let tag = hmac::sign(&self.key, &text);
        Ok(format!("{PREFIX}{}.{}", hex::encode(&text), hex::encode(tag)))
    }

    /// The session, where it was sealed here and its time is not over.
    pub fn open(&self, sealed: &str, now: Timestamp) -> Option<Session> {
        let (text, tag) = sealed.strip_prefix(PREFIX)?.split_once('.')?;
        let (text, tag) = (hex::decode(text).ok()?, hex::decode(tag).ok()?);
        hmac::verify(&self.key, &text, &tag).ok()?;
        let session: Session = serde_json::from_slice(&text).ok()?;
        // One of a clock that was ahead would outlive what ends a person's sessions.
        let latest = now.saturating_add(LIFE + SKEW).unwrap_or(Timestamp::MAX);
        (now < session.until && session.until <= latest).then_some(session)
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
        assert_eq!(ours.open(&sealed, now).map(|session| session.me), Some(me));
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

    #[test]
    fn a_session_of_a_replica_whose_clock_is_ahead_is_good_only_where_it_could_outlive_nothing() {
        let sessions = Sessions::with_key(&[1; 32]);
        let me = Me { name: "oidc:ann".into(), role: Role::Viewer };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let is_good = |ahead| sessions.open(&sessions.seal(&me, now + ahead).unwrap(), now).is_some();
        assert!(is_good(SignedDuration::ZERO) && is_good(-SKEW) && is_good(SKEW));
        assert!(!is_good(SKEW + SignedDuration::from_secs(1)) && !is_good(LIFE));
    }

    #[test]
    fn a_session_is_ended_by_its_id_and_a_person_s_by_the_name_until_then() {
        let sessions = Sessions::with_key(&[1; 32]);
        let me = |name: &str| Me { name: name.into(), role: Role::Viewer };
        let now = Timestamp::from_nanosecond(1_800_000_000_000_000_999).unwrap();
        let begin = |name: &str, at| sessions.open(&sessions.seal(&me(name), at).unwrap(), at).unwrap();
        let (first, other) = (begin("oidc:ann", now), begin("oidc:ann", now));
        let ended = |subject: &str, at| Ended::from_iter([(subject.to_owned(), at)]);
        let one = ended(&first.id, now);
        assert!(one.has(&first) && !one.has(&other));
        // As the store gives it back: without the nanoseconds.
        let kept = Timestamp::from_microsecond(now.as_microsecond()).unwrap();
        let ann = ended("oidc:ann", kept);
        assert!(ann.has(&first) && ann.has(&other) && !ann.has(&begin("oidc:bob", now)));
        assert!(!ann.has(&begin("oidc:ann", now + SignedDuration::from_micros(1))), "she may log in again");
        assert!(!Ended::default().has(&first));
    }
}
