//! Signatures of what a webhook gets: HMAC-SHA256 over id, time and body, by version 1 of
//! [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md), so that
//! receivers can use a library of it.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How a secret's text may begin.
const PREFIX: &str = "whsec_";
/// How many bytes a secret may have.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Most secrets: the new one beside the old one, while receivers change over.
const MAX_SECRETS: usize = 4;

/// Why a file of secrets cannot be used. Nothing of a secret is said.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SecretError {
    /// A line is no secret.
    #[error("secretFile: line {line} must be {PREFIX} and base64 of {} to {} bytes", BYTES.start(), BYTES.end())]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// None, or too many.
    #[error("secretFile: it has {found} secrets, 1 to {MAX_SECRETS} are allowed, each on a line")]
    Count {
        /// How many there are.
        found: usize,
    },
}

/// What a webhook's receiver and the hub both know.
#[derive(Debug)]
pub(super) struct Secrets(Vec<hmac::Key>);

impl Secrets {
    /// Reads one secret from each line that is not empty.
    pub(super) fn parse(text: &str) -> Result<Secrets, SecretError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let keys: Vec<hmac::Key> = lines
            .map(|(index, line)| key(line.trim()).ok_or(SecretError::Line { line: index + 1 }))
            .collect::<Result<_, _>>()?;
        if (1..=MAX_SECRETS).contains(&keys.len()) {
            Ok(Secrets(keys))
        } else {
            Err(SecretError::Count { found: keys.len() })
        }
    }

    /// The value of `webhook-signature` for a message that is sent at this Unix second: one signature by each secret.
    pub(super) fn sign(&self, id: &str, second: i64, body: &[u8]) -> String {
        let signed = [format!("{id}.{second}.").as_bytes(), body].concat();
        let signatures = self.0.iter().map(|key| format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed))));
        signatures.collect::<Vec<_>>().join(" ")
    }
}

fn key(text: &str) -> Option<hmac::Key> {
    let bytes = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).ok()?;
    BYTES.contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id, time, body and first secret are those of the scheme's documentation; Python's `hmac` signed them.
    #[test]
    fn a_signature_is_that_of_standard_webhooks_one_by_each_secret() {
        let first = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let sign = |text: &str| {
            let secrets = Secrets::parse(text).unwrap();
            secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
        };
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(first), signature);
        let both = sign(&format!("\n{}\n{first}\n", STANDARD.encode([7; 32])));
        let (other, same) = both.split_once(' ').unwrap();
        assert!(other.starts_with("v1,") && other != signature && same == signature, "{both}");
    }

    #[test]
    fn a_file_without_good_secrets_says_which_line_is_wrong_and_nothing_of_it() {
        let secret = |bytes: usize| format!("whsec_{}\n", STANDARD.encode(vec![1; bytes]));
        for (text, expected) in [
            (String::new(), SecretError::Count { found: 0 }),
            (secret(32).repeat(5), SecretError::Count { found: 5 }),
            (secret(23), SecretError::Line { line: 1 }),
            (secret(65), SecretError::Line { line: 1 }),
            (format!("{}\nhunter2\n", secret(24)), SecretError::Line { line: 3 }),
        ] {
            assert_eq!(Secrets::parse(&text).unwrap_err(), expected, "{text}");
        }
        let said = Secrets::parse("hunter2").unwrap_err().to_string();
        assert_eq!(said, "secretFile: line 1 must be whsec_ and base64 of 24 to 64 bytes");
        let debugged = format!("{:?}", Secrets::parse(&secret(24)).unwrap());
        assert!(!debugged.contains("AQEB") && !debugged.contains("1, 1, 1"), "{debugged}");
    }
}
