//! The placeholders in a definition's strings. Pure.
//!
//! | text | becomes |
//! |---|---|
//! | `${cluster.name}` | the cluster's name |
//! | `${cluster.labels.KEY}` | the value of that label; an error where the cluster has none |
//! | `${cluster.annotations.KEY}` | the same for an annotation |
//! | `${cluster.labels.KEY:-text}` | the value, or `text` (which cannot contain `}`) where the cluster has none |
//! | `$${cluster.` | the literal text `${cluster.` |
//!
//! Any other `$` stays as it is: workflows are full of shell code and of Argo's own `{{…}}`.

use crate::names;

const OPEN: &str = "${cluster.";
const ESCAPED_OPEN: &str = "$${cluster.";

/// A part of a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text that stays as it is.
    Text(&'a str),
    /// `${cluster.name}`.
    Name,
    /// `${cluster.labels.KEY}` or `${cluster.annotations.KEY}`.
    Value {
        /// Where the value comes from.
        source: Source,
        /// The key there.
        key: &'a str,
        /// Used where the cluster has no such key.
        default: Option<&'a str>,
    },
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cluster's labels.
    Labels,
    /// The cluster's annotations.
    Annotations,
}

/// A text that begins like a placeholder and is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no placeholder: use ${{cluster.name}}, ${{cluster.labels.KEY}} or ${{cluster.annotations.KEY}} with \
     an optional :-DEFAULT, or $${{cluster. for the literal text"
)]
pub struct Malformed {
    /// The text, at most its first 80 characters.
    pub text: String,
}

/// Splits a string into its parts. Fails at the first malformed placeholder.
pub fn split(text: &str) -> Result<Vec<Piece<'_>>, Malformed> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        if at > 0 && rest[..at].ends_with('$') {
            // The first `$` of `$${cluster.` is the escape: it goes, the rest stays.
            pieces.push(Piece::Text(&rest[..at - 1]));
            pieces.push(Piece::Text(OPEN));
            rest = &rest[at - 1 + ESCAPED_OPEN.len()..];
            continue;
        }
        pieces.push(Piece::Text(&rest[..at]));
        let body = &rest[at + OPEN.len()..];
        let malformed = || Malformed { text: rest[at..].chars().take(80).collect() };
        let end = body.find('}').ok_or_else(malformed)?;
        pieces.push(placeholder(&body[..end]).ok_or_else(malformed)?);
        rest = &body[end + 1..];
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Ok(pieces)
}

/// `body` is what stands between `${cluster.` and `}`.
fn placeholder(body: &str) -> Option<Piece<'_>> {
    if body == "name" {
        return Some(Piece::Name);
    }
    let (source, rest) = match body.split_once('.')? {
        ("labels", rest) => (Source::Labels, rest),
        ("annotations", rest) => (Source::Annotations, rest),
        _ => return None,
    };
    let (key, default) = match rest.split_once(":-") {
        Some((key, default)) => (key, Some(default)),
        None => (rest, None),
    };
    names::label_key(key).ok()?;
    Some(Piece::Value { source, key, default })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label<'a>(key: &'a str, default: Option<&'a str>) -> Piece<'a> {
        Piece::Value { source: Source::Labels, key, default }
    }

    #[test]
    fn strings_are_split() {
        for (text, expected) in [
            ("", vec![]),
            ("plain $HOME ${HOME} ${#a[@]} {{inputs}}", vec![Piece::Text("plain $HOME ${HOME} ${#a[@]} {{inputs}}")]),
            ("${cluster.name}", vec![Piece::Name]),
            ("a-${cluster.name}-b", vec![Piece::Text("a-"), Piece::Name, Piece::Text("-b")]),
            ("${cluster.labels.a.b/c-d}", vec![label("a.b/c-d", None)]),
            ("${cluster.labels.env:-dev}", vec![label("env", Some("dev"))]),
            ("${cluster.labels.env:-}", vec![label("env", Some(""))]),
            ("${cluster.labels.env:-a:-b}", vec![label("env", Some("a:-b"))]),
            (
                "${cluster.annotations.url}",
                vec![Piece::Value { source: Source::Annotations, key: "url", default: None }],
            ),
            ("$${cluster.name}", vec![Piece::Text("${cluster."), Piece::Text("name}")]),
            ("$$${cluster.name}", vec![Piece::Text("$"), Piece::Text("${cluster."), Piece::Text("name}")]),
            ("${cluster}", vec![Piece::Text("${cluster}")]),
        ] {
            assert_eq!(split(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_malformed_placeholder_is_named() {
        for text in [
            "${cluster.name",
            "${cluster.nam}",
            "${cluster.name:-x}",
            "${cluster.labels}",
            "${cluster.labels.}",
            "${cluster.labels.a b}",
            "${cluster.labels.${cluster.name}}",
            "${cluster.Labels.a}",
        ] {
            let error = split(&format!("x {text}")).unwrap_err();
            assert!(error.text.starts_with("${cluster."), "{text}");
        }
    }
}
