//! What an ID token must say, and who its person is here. Pure: the keys are given.
//!
//! Source: OpenID Connect Core 1.0, section 3.1.3.7 (ID Token Validation).

use active_monitor_core::view::{Me, Role};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::args::OidcArgs;

/// The signatures that are accepted: no shared secret, and never none.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Before the name of a person, so that no API token has that name in the audit log.
pub const NAME_PREFIX: &str = "oidc:";
/// The longest name, bytes.
const MAX_NAME_BYTES: usize = 256;

/// Why an ID token lets nobody in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// It was signed with a key that is not among those that are known.
    #[error("the token's key is not known")]
    UnknownKey,
    /// It cannot be read, its signature is wrong, or it is not for the hub or not for now.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// A claim is missing or makes no sense.
    #[error("the claim {0}")]
    Claim(String),
    /// The person may log in there, but not here.
    #[error("{name} is in no group that has a role here")]
    NoRole {
        /// The person's name.
        name: String,
    },
}

/// Who an ID token is about, with a role.
///
/// `nonce` is that of the login that it answers; a program that shows a token of its own has none.
///
/// # Errors
/// See [`ClaimsError`].
pub fn person(args: &OidcArgs, keys: &JwkSet, token: &str, nonce: Option<&str>) -> Result<Me, ClaimsError> {
    let claims = verified(args, keys, token)?;
    if let Some(nonce) = nonce
        && claims.get("nonce").and_then(Value::as_str) != Some(nonce)
    {
        return Err(ClaimsError::Claim("nonce is not that of this login".to_owned()));
    }
    let name = name(args, &claims)?;
    match role(args, &claims) {
        Some(role) => Ok(Me { name, role }),
        None => Err(ClaimsError::NoRole { name }),
    }
}

/// The claims of a token that was signed by the provider, for the hub, and has not ended.
fn verified(args: &OidcArgs, keys: &JwkSet, token: &str) -> Result<Map<String, Value>, ClaimsError> {
    let refused = |error: jsonwebtoken::errors::Error| ClaimsError::Refused(error.to_string());
    let header = decode_header(token).map_err(refused)?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(ClaimsError::Refused(format!("its algorithm is {:?}", header.alg)));
    }
    let key = match (&header.kid, keys.keys.as_slice()) {
        (Some(kid), _) => keys.find(kid),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let key = DecodingKey::from_jwk(key.ok_or(ClaimsError::UnknownKey)?).map_err(refused)?;
    let mut validation = Validation::new(header.alg);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.validate_nbf = true;
    let client = args.oidc_client_id.as_deref().unwrap_or_default();
    validation.set_audience(&[client]);
    validation.set_issuer(&[args.oidc_issuer.as_deref().unwrap_or_default()]);
    let claims = decode::<Map<String, Value>>(token, &key, &validation).map_err(refused)?.claims;
    match claims.get("azp") {
        Some(party) if party != client => Err(ClaimsError::Claim("azp names another client".to_owned())),
        Some(_) | None => Ok(claims),
    }
}

fn name(args: &OidcArgs, claims: &Map<String, Value>) -> Result<String, ClaimsError> {
    let claim = &args.oidc_username_claim;
    let name = claims.get(claim).and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(ClaimsError::Claim(format!("{claim} must be a text of 1 to {MAX_NAME_BYTES} bytes")));
    }
    if claim == "email" && claims.get("email_verified") == Some(&Value::Bool(false)) {
        return Err(ClaimsError::Claim("email_verified is false".to_owned()));
    }
    Ok(format!("{NAME_PREFIX}{name}"))
}

/// The highest role that a group of the person has.
fn role(args: &OidcArgs, claims: &Map<String, Value>) -> Option<Role> {
    let groups: Vec<&str> = match claims.get(&args.oidc_groups_claim) {
        Some(Value::String(group)) => vec![group],
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
        Some(_) | None => Vec::new(),
    };
    let with_role = [
        (&args.oidc_admin_group, Role::Admin),
        (&args.oidc_operator_group, Role::Operator),
        (&args.oidc_viewer_group, Role::Viewer),
    ];
    let is_one = |with_role: &[String]| with_role.iter().any(|group| groups.contains(&group.as_str()));
    with_role.into_iter().find(|(groups, _)| is_one(groups)).map(|(_, role)| role)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://issuer.example";

    /// A provider with one key.
    struct Provider {
        key: EncodingKey,
        keys: JwkSet,
    }

    impl Provider {
        fn new() -> Provider {
            let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
            let key = EncodingKey::from_ec_der(pair.as_ref());
            let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
            jwk.common.key_id = Some("k1".to_owned());
            Provider { key, keys: JwkSet { keys: vec![jwk] } }
        }

        /// A token as for a login, with these claims changed; null takes one away.
        fn token(&self, changed: &Value) -> String {
            self.signed(&Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) }, changed)
        }

        fn signed(&self, header: &Header, changed: &Value) -> String {
            let mut claims = json!({
                "iss": ISSUER, "aud": "hub", "sub": "1", "exp": get_current_timestamp() + 300, "nonce": "n",
                "email": "ann@example.com", "groups": ["all", "other"],
            });
            for (name, value) in changed.as_object().unwrap() {
                claims[name] = value.clone();
            }
            claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            encode(header, &claims, &self.key).unwrap()
        }
    }

    fn args() -> OidcArgs {
        OidcArgs {
            oidc_issuer: Some(ISSUER.to_owned()),
            oidc_client_id: Some("hub".to_owned()),
            oidc_username_claim: "email".to_owned(),
            oidc_groups_claim: "groups".to_owned(),
            oidc_viewer_group: vec!["all".to_owned()],
            oidc_admin_group: vec!["sre".to_owned(), "root".to_owned()],
            ..OidcArgs::default()
        }
    }

    #[test]
    fn a_person_has_the_highest_role_of_their_groups() {
        let provider = Provider::new();
        let judged = |changed: Value| person(&args(), &provider.keys, &provider.token(&changed), Some("n"));
        for (changed, role) in [
            (json!({}), Role::Viewer),
            (json!({"groups": ["all", "root"]}), Role::Admin),
            (json!({"groups": "sre"}), Role::Admin),
            (json!({"aud": ["hub", "other"], "azp": "hub"}), Role::Viewer),
            (json!({"email_verified": true}), Role::Viewer),
        ] {
            let me = judged(changed.clone()).unwrap_or_else(|error| panic!("{changed}: {error}"));
            assert_eq!(me, Me { name: "oidc:ann@example.com".to_owned(), role }, "{changed}");
        }
        let shown = provider.token(&json!({"nonce": null}));
        assert!(person(&args(), &provider.keys, &shown, None).is_ok(), "a program's own token answers no login");
    }

    #[test]
    fn a_token_that_is_not_the_provider_s_for_the_hub_and_for_now_lets_nobody_in() {
        let provider = Provider::new();
        let now = get_current_timestamp();
        for (changed, expected) in [
            (json!({"iss": "https://issuer.example.evil"}), "the token is refused: InvalidIssuer"),
            (json!({"iss": null}), "the token is refused: Missing required claim: iss"),
            (json!({"aud": "other"}), "the token is refused: InvalidAudience"),
            (json!({"aud": null}), "the token is refused: Missing required claim: aud"),
            (json!({"aud": ["hub", "other"], "azp": "other"}), "the claim azp names another client"),
            (json!({"exp": now - 300}), "the token is refused: ExpiredSignature"),
            (json!({"exp": null}), "the token is refused: Missing required claim: exp"),
            (json!({"nbf": now + 300}), "the token is refused: ImmatureSignature"),
            (json!({"nonce": "other"}), "the claim nonce is not that of this login"),
            (json!({"nonce": null}), "the claim nonce is not that of this login"),
            (json!({"email": null}), "the claim email must be a text of 1 to 256 bytes"),
            (json!({"email": "a\nb"}), "the claim email must be a text of 1 to 256 bytes"),
            (json!({"email": "x".repeat(257)}), "the claim email must be a text of 1 to 256 bytes"),
            (json!({"email_verified": false}), "the claim email_verified is false"),
            (json!({"groups": null}), "oidc:ann@example.com is in no group that has a role here"),
            (json!({"groups": ["al", "ALL"]}), "oidc:ann@example.com is in no group that has a role here"),
            (json!({"groups": {"all": true}}), "oidc:ann@example.com is in no group that has a role here"),
        ] {
            let said = person(&args(), &provider.keys, &provider.token(&changed), Some("n")).unwrap_err().to_string();
            assert_eq!(said, expected, "{changed}");
        }
    }

    #[test]
    fn a_signature_counts_only_by_the_provider_s_own_key_and_algorithm() {
        let (provider, other) = (Provider::new(), Provider::new());
        let judged = |token: &str| person(&args(), &provider.keys, token, Some("n")).unwrap_err();
        assert!(matches!(judged(&other.token(&json!({}))), ClaimsError::Refused(_)));
        let header = |kid: Option<&str>, alg| Header { kid: kid.map(str::to_owned), ..Header::new(alg) };
        let unknown = provider.signed(&header(Some("k2"), Algorithm::ES256), &json!({}));
        assert_eq!(judged(&unknown), ClaimsError::UnknownKey);
        let unnamed = provider.signed(&header(None, Algorithm::ES256), &json!({}));
        assert!(person(&args(), &provider.keys, &unnamed, Some("n")).is_ok(), "there is only one key");

        // A shared secret that anybody knows, and no signature at all.
        let secret = EncodingKey::from_secret(b"public").unwrap();
        let shared = encode(&header(Some("k1"), Algorithm::HS256), &json!({"iss": ISSUER}), &secret).unwrap();
        assert_eq!(judged(&shared).to_string(), "the token is refused: its algorithm is HS256");
        let good = provider.token(&json!({}));
        let [head, claims, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        // {"alg":"none"}
        assert!(matches!(judged(&format!("eyJhbGciOiJub25lIn0.{claims}.")), ClaimsError::Refused(_)));
        for broken in ["", ".", "..", "a.b.c", &format!("{head}.{claims}."), &format!("{head}..{signature}")] {
            assert!(matches!(judged(broken), ClaimsError::Refused(_)), "{broken}");
        }
    }
}
