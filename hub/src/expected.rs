//! What a caller expects of a thing that it changes: `If-Match` and `If-None-Match: *` (RFC 9110, section 13.1).
//!
//! Two people who read the same, and both write: the second one is told, and nothing of the first one is lost. It is asked where the
//! change is made, after everything that others changed before.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::owner::ChangeError;

/// What there must be for a change to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Whatever there is.
    #[default]
    Anything,
    /// There is none of that name.
    Nothing,
    /// There is one, whatever its version.
    Something,
    /// There is one with one of these versions.
    Version(Vec<String>),
}

impl Expected {
    /// Judges by the version of what there is; nothing where there is none.
    ///
    /// # Errors
    /// It is not as expected: [`ChangeError::Unexpected`].
    pub(crate) fn check(&self, kind: &str, name: &str, there: Option<&str>) -> Result<(), ChangeError> {
        let unexpected = |text: String| Err(ChangeError::Unexpected(text));
        match (self, there) {
            (Expected::Anything, _) | (Expected::Nothing, None) | (Expected::Something, Some(_)) => Ok(()),
            (Expected::Version(versions), Some(there)) if versions.iter().any(|version| version == there) => Ok(()),
            (Expected::Nothing, Some(_)) => {
                unexpected(format!("If-None-Match: the {kind} {name} is there, and was expected not to be"))
            }
            (Expected::Something | Expected::Version(_), None) => {
                unexpected(format!("If-Match: there is no {kind} {name}"))
            }
            (Expected::Version(_), Some(_)) => unexpected(format!(
                "If-Match: the {kind} {name} was changed meanwhile: read it again, and give the ETag of that answer"
            )),
        }
    }
}

/// The version of what a person has written. It follows from what is written and from nothing else: what comes back as it was
/// has its version again.
pub(crate) fn version(written: &impl Serialize) -> String {
    // As a value its keys are in order, however the store has kept them. What has no form as JSON was never written.
    let text = serde_json::to_value(written).map(|value| value.to_string()).unwrap_or_default();
    hex::encode(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_expected_is_changed() {
        let one = Expected::Version(vec!["a".to_owned(), "b".to_owned()]);
        for (expected, there, said) in [
            (Expected::Anything, None, ""),
            (Expected::Anything, Some("a"), ""),
            (Expected::Nothing, None, ""),
            (Expected::Nothing, Some("a"), "If-None-Match: the window w is there, and was expected not to be"),
            (Expected::Something, None, "If-Match: there is no window w"),
            (Expected::Something, Some("c"), ""),
            (one.clone(), Some("b"), ""),
            (
                one.clone(),
                Some("c"),
                "If-Match: the window w was changed meanwhile: read it again, and give the ETag of that answer",
            ),
            (one, None, "If-Match: there is no window w"),
        ] {
            let answer = expected.check("window", "w", there).err().map(|error| error.to_string());
            assert_eq!(answer.unwrap_or_default(), said, "{expected:?} {there:?}");
        }
    }

    #[test]
    fn a_version_follows_from_what_is_written_and_not_from_its_order() {
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(version(&read(r#"{"a": 1, "b": 2}"#)), version(&read(r#"{"b": 2, "a": 1}"#)));
        assert_ne!(version(&read(r#"{"a": 1}"#)), version(&read(r#"{"a": 2}"#)));
    }
}
