//! What callers prove themselves with: one-time tokens, API tokens and sealed sessions. None is taken that was not made.

use std::sync::LazyLock;

use active_monitor_agent::enrol::Token;
use active_monitor_core::view::{Me, Role};
use active_monitor_hub::auth::is_token;
use active_monitor_hub::auth::sessions::Sessions;
use jiff::Timestamp;

const BEGAN: i64 = 1_800_000_000;

static SESSIONS: LazyLock<(Sessions, String)> = LazyLock::new(|| {
    let sessions = Sessions::with_key(&[7; 32]);
    let began = Timestamp::from_second(BEGAN).expect("a time");
    let sealed = sessions.seal(&Me { name: "oidc:ann".into(), role: Role::Viewer }, began).expect("a session");
    (sessions, sealed)
});

/// Runs the target on one input: as each kind of token, and as changes of a sealed session.
pub fn body(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(token) = Token::parse(&text) {
        assert!(!format!("{token:?}").contains(&token.secret));
        assert!(text.trim().starts_with(&format!("{}.{}.", token.cluster, token.secret)));
    }
    assert!(!is_token(&text) || (text.len() == 68 && text.starts_with("amf_")));
    let (sessions, sealed) = &*SESSIONS;
    let now = Timestamp::from_second(BEGAN + 1).expect("a time");
    assert_eq!(sessions.open(&text, now), None);
    let changed = crate::changed(sealed.as_bytes(), bytes);
    let changed = String::from_utf8_lossy(&changed);
    // Hexadecimal digits are the same in either case.
    assert_eq!(
        sessions.open(&changed, now).is_some(),
        changed.eq_ignore_ascii_case(sealed) && changed.starts_with("ams_")
    );
}
