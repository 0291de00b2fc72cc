//! The one-time token, `CLUSTER.SECRET.FINGERPRINT`, as `fleetcheck cluster add` prints it.

use std::fmt;

use active_monitor_core::names;
use sha2::{Digest, Sha256};
use thiserror::Error;

const SECRET_BYTES: usize = 32;

/// A token, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The cluster's name: an RFC 1123 label.
    pub cluster: String,
    /// 32 bytes, hex. What proves that the holder may enrol.
    pub secret: String,
    /// SHA-256 of the hub's CA certificate, DER: how the hub is recognised.
    pub ca_fingerprint: [u8; 32],
}

/// What is wrong with a token. Never says what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not three parts.
    #[error("a token is CLUSTER.SECRET.FINGERPRINT")]
    Parts,
    /// The first part is no cluster's name.
    #[error("its first part is no DNS label")]
    Cluster,
    /// The second part is no secret.
    #[error("its second part is not {SECRET_BYTES} bytes in hex")]
    Secret,
    /// The third part is no fingerprint.
    #[error("its third part is no SHA-256 in hex")]
    Fingerprint,
}

impl Token {
    /// Reads a token; space around it does not matter.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let mut parts = text.trim().split('.');
        let (Some(cluster), Some(secret), Some(fingerprint), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };
        if names::dns_label(cluster).is_err() {
            return Err(TokenError::Cluster);
        }
        if hex::decode(secret).map(|bytes| bytes.len()) != Ok(SECRET_BYTES) {
            return Err(TokenError::Secret);
        }
        let mut ca_fingerprint = [0; 32];
        hex::decode_to_slice(fingerprint, &mut ca_fingerprint).map_err(|_| TokenError::Fingerprint)?;
        Ok(Token { cluster: cluster.to_owned(), secret: secret.to_owned(), ca_fingerprint })
    }

    /// Tells one token from another without keeping it: SHA-256 of the secret, hex.
    pub(crate) fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.secret.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts_and_hides_its_secret() {
        let (secret, fingerprint) = ("ab".repeat(32), "cd".repeat(32));
        let token = Token::parse(&format!(" berlin-1.{secret}.{fingerprint}\n")).unwrap();
        assert_eq!((token.cluster.as_str(), token.ca_fingerprint), ("berlin-1", [0xcd; 32]));
        assert!(!format!("{token:?}").contains(&secret));
        for (text, error) in [
            ("berlin".to_owned(), TokenError::Parts),
            (format!("a.b.{secret}.{fingerprint}"), TokenError::Parts),
            (format!("-a.{secret}.{fingerprint}"), TokenError::Cluster),
            (format!("Berlin.{secret}.{fingerprint}"), TokenError::Cluster),
            (format!("berlin.{}.{fingerprint}", &secret[2..]), TokenError::Secret),
            (format!("berlin.{secret}.zz"), TokenError::Fingerprint),
        ] {
            assert_eq!(Token::parse(&text), Err(error));
        }
    }
}
