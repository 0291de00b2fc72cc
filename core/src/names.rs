//! The rules of Kubernetes for names and labels, and the names that agent and hub must agree on. Pure.
//!
//! Each function answers what is allowed when the text is not, so that the answer can be shown to a person as it is.

/// Annotation of a cluster at the hub that is cordoned: no definition is pushed to it and none withdrawn. Its value says why.
pub const CORDON_ANNOTATION: &str = "fleet.activemonitor.keikoproj.io/cordoned";
/// Label of a HealthCheck that a fleet definition made: the definition's name.
pub const DEFINITION_LABEL: &str = "activemonitor.keikoproj.io/definition";
/// Annotation of a HealthCheck: the checks of the same cluster that it depends on, `namespace/name` or the name of one in its
/// own namespace, with commas between them.
pub const DEPENDS_ON_ANNOTATION: &str = "activemonitor.keikoproj.io/depends-on";
/// What the URI SAN of an agent's certificate begins with; the cluster's name follows.
pub const IDENTITY_PREFIX: &str = "spiffe://active-monitor-fleet/cluster/";

/// The most bytes that the annotations of one object may have together, as in Kubernetes.
pub const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// The text of what is allowed.
pub type Rule = &'static str;

pub(crate) const DNS_LABEL: Rule =
    "must be 1 to 63 characters of a-z, 0-9 and '-', and begin and end with a letter or digit";
pub(crate) const DNS_SUBDOMAIN: Rule = "must be 1 to 253 characters of a-z, 0-9, '-' and '.', and each part between dots must begin and end with a letter or digit";
pub(crate) const DNS_PREFIX: Rule = "must be 1 to 253 characters of a-z, 0-9, '-' and '.', and each part between dots must begin \
                          with a letter or digit";
const LABEL_KEY: Rule = "must be a name of 1 to 63 characters of A-Z, a-z, 0-9, '-', '_' and '.', beginning and ending \
                         with a letter or digit, after an optional DNS prefix and '/'";
const LABEL_VALUE: Rule = "must be at most 63 characters of A-Z, a-z, 0-9, '-', '_' and '.', and begin and end with a \
                           letter or digit where it is not empty";

/// A DNS label (RFC 1123): names of clusters, definitions and namespaces.
pub fn dns_label(text: &str) -> Result<(), Rule> {
    if text.len() <= 63 && framed(text, is_dns_byte) { Ok(()) } else { Err(DNS_LABEL) }
}

/// A DNS subdomain (RFC 1123): names of most objects.
pub fn dns_subdomain(text: &str) -> Result<(), Rule> {
    if text.len() <= 253 && dns_parts(text) { Ok(()) } else { Err(DNS_SUBDOMAIN) }
}

/// The beginning of a DNS subdomain, to which letters or digits are added.
pub fn dns_prefix(text: &str) -> Result<(), Rule> {
    let valid = (1..=253).contains(&text.len()) && dns_parts(&format!("{text}0"));
    if valid { Ok(()) } else { Err(DNS_PREFIX) }
}

/// The key of a label or annotation.
pub fn label_key(text: &str) -> Result<(), Rule> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let valid =
        prefix.is_none_or(|prefix| dns_subdomain(prefix).is_ok()) && name.len() <= 63 && framed(name, is_label_byte);
    if valid { Ok(()) } else { Err(LABEL_KEY) }
}

/// The value of a label.
pub fn label_value(text: &str) -> Result<(), Rule> {
    if text.is_empty() || (text.len() <= 63 && framed(text, is_label_byte)) { Ok(()) } else { Err(LABEL_VALUE) }
}

fn dns_parts(text: &str) -> bool {
    text.split('.').all(|part| framed(part, is_dns_byte))
}

fn is_dns_byte(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
}

fn is_label_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

/// Not empty, only allowed bytes, a letter or digit at both ends.
fn framed(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    end(bytes.first()) && end(bytes.last()) && bytes.iter().all(|b| allowed(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_kubernetes() {
        let long = "a".repeat(63);
        let too_long = "a".repeat(64);
        for (text, label, subdomain, key, value) in [
            ("prod-eu-1", true, true, true, true),
            ("a.b", false, true, true, true),
            ("", false, false, false, true),
            ("-a", false, false, false, false),
            ("a-", false, false, false, false),
            ("A", false, false, true, true),
            ("a_b", false, false, true, true),
            ("a..b", false, false, true, true),
            ("example.com/region", false, false, true, false),
            ("a/b/c", false, false, false, false),
            ("/a", false, false, false, false),
            ("a/", false, false, false, false),
            ("Example.com/a", false, false, false, false),
            ("ä", false, false, false, false),
            (long.as_str(), true, true, true, true),
            (too_long.as_str(), false, true, false, false),
        ] {
            assert_eq!(dns_label(text).is_ok(), label, "label {text:?}");
            assert_eq!(dns_subdomain(text).is_ok(), subdomain, "subdomain {text:?}");
            assert_eq!(label_key(text).is_ok(), key, "key {text:?}");
            assert_eq!(label_value(text).is_ok(), value, "value {text:?}");
        }
    }

    #[test]
    fn a_prefix_may_end_where_a_name_may_not() {
        let long = "a".repeat(254);
        for (text, valid) in [
            ("dns-", true),
            ("dns.", true),
            ("a.b-", true),
            ("", false),
            ("-a", false),
            (".a", false),
            ("a..b", false),
            ("UPPER_case", false),
            (&long[..253], true),
            (&long, false),
        ] {
            assert_eq!(dns_prefix(text).is_ok(), valid, "{text:?}");
        }
    }
}
