//! ID tokens of a provider, and its keys: nobody is let in whom the provider's key did not vouch for.

use std::sync::LazyLock;

use active_monitor_hub::auth::oidc::{OidcArgs, person};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

static ARGS: LazyLock<OidcArgs> = LazyLock::new(|| OidcArgs {
    oidc_issuer: Some("https://issuer.example".to_owned()),
    oidc_client_id: Some("hub".to_owned()),
    oidc_username_claim: "email".to_owned(),
    oidc_groups_claim: "groups".to_owned(),
    oidc_viewer_group: vec!["all".to_owned()],
    ..OidcArgs::default()
});

/// The P-256 key of RFC 7515, appendix A.3.1, whose private half is not the hub's to know.
static KEYS: LazyLock<JwkSet> = LazyLock::new(|| {
    let keys = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    serde_json::from_str(keys).expect("keys")
});

/// A provider's mistake: a secret among its keys.
static SHARED: LazyLock<JwkSet> =
    LazyLock::new(|| serde_json::from_str(r#"{"keys":[{"kty":"oct","k":"YWJj","alg":"HS256"}]}"#).expect("keys"));

/// Runs the target on one input: as a token, as what a token says under a forged signature, and as the provider's keys.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(person(&ARGS, &KEYS, text, None).is_err());
    let claims = serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let Ok(forged) = EncodingKey::from_secret(text.as_bytes()) else { return };
    if let Ok(token) = encode(&Header::new(Algorithm::HS256), &claims, &forged) {
        assert!(person(&ARGS, &KEYS, &token, Some("n")).is_err());
    }
    let Ok(shared) = EncodingKey::from_secret(b"abc") else { return };
    if let Ok(token) = encode(&Header::new(Algorithm::HS256), &claims, &shared) {
        assert!(person(&ARGS, &SHARED, &token, Some("n")).is_err(), "a shared secret is no signature");
    }
    if let Ok(keys) = serde_json::from_str::<JwkSet>(text) {
        assert!(person(&ARGS, &keys, "e30.e30.", None).is_err());
    }
}
