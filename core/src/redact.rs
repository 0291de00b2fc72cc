//! Makes texts from outside safe to keep and to show: no secrets, no terminal control.
//!
//! It goes by form, so it finds what looks like a secret and nothing else: a guard against accidents, not against
//! somebody who wants a secret out. Where it is in doubt it takes away too much.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// Bytes of a text that are looked at; what comes behind them is dropped.
const MAX_INPUT_BYTES: usize = 64 * 1024;

/// What a secret looks like, and what is left of it.
const FORMS: &[(&str, &str)] = &[
    // A private key, also one whose end or beginning was cut off.
    (
        r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
        "*** private key ***",
    ),
    (r"(?:[A-Za-z0-9+/=]+\s+)+-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----", "*** private key ***"),
    // `Authorization: Bearer x`, and the same outside of a header.
    (r#"(?i)(\b(?:proxy-)?authorization\\*["']?\s*[:=]\s*\\*["']?(?:[a-z]+\s+)?)[^\s"'\\]+"#, "${1}***"),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", "${1} ***"),
    // `scheme://user:password@host`
    (r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s?#]+@", "${1}***@"),
    // `password=x`, `"apiKey": "x"`, the same within a quoted text, and `--token x`.
    (
        r#"(?ix)
        ( [a-z0-9_.-]*
          (?: passw(?:or)?d | passphrase | pwd | secret | token | credential | signature
            | (?: api | access | account | private | encryption | session | master ) [_-]? key )
          [a-z0-9_.-]* \\* ["']? \s* [:=] \s* )
        (?: \\+ "[^"]* "? | "(?: [^"\\] | \\. )* "? | '[^']* '? | [^\s&"'<>]+ )"#,
        "${1}***",
    ),
    (r"(?i)(\s--?[a-z-]*(?:password|passphrase|secret|token|api-?key)[a-z-]*\s+)[^\s-]\S*", "${1}***"),
    // Texts that are secrets wherever they stand: AWS, JWT (service accounts have these), GitHub, GitLab, Slack, Google,
    // Vault, Stripe.
    (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "***"),
    (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", "***"),
    (r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,})", "***"),
    (
        r"\b(?:xox[a-z]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|hv[sbr]\.[A-Za-z0-9_-]{20,}|[sr]k_live_[A-Za-z0-9]{16,})",
        "***",
    ),
];

static SECRETS: LazyLock<Vec<(Regex, &str)>> =
    LazyLock::new(|| FORMS.iter().filter_map(|(form, left)| Regex::new(form).ok().map(|form| (form, *left))).collect());

/// Escape sequences of terminals: CSI, OSC and the short ones.
static ESCAPES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?s)(?:\x1b\[|\x{9b})[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x{9d}).*?(?:\x07|\x1b\\|\x{9c})|\x1b[ -/]*[0-~]")
        .ok()
});

/// The text without what looks like a secret: each becomes `***`, its name stays.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(text);
    for (form, left) in SECRETS.iter() {
        if let Cow::Owned(changed) = form.replace_all(&out, *left) {
            out = Cow::Owned(changed);
        }
    }
    out
}

/// The text, of the first 64 KiB, redacted and without control characters: `\n` is the only one left, and nothing in it
/// turns the direction of writing.
pub fn clean(text: &str) -> String {
    if text.is_empty() {
        // Most are, and the expressions take a megabyte once they are compiled.
        return String::new();
    }
    let text = &text[..text.floor_char_boundary(MAX_INPUT_BYTES)];
    let plain = match ESCAPES.as_ref() {
        Some(escapes) => escapes.replace_all(text, ""),
        None => Cow::Borrowed(text),
    };
    let plain: String = plain.replace("\r\n", "\n").chars().filter_map(shown).collect();
    redact(&plain).into_owned()
}

fn shown(c: char) -> Option<char> {
    match c {
        '\n' | '\r' | '\u{2028}' | '\u{2029}' => Some('\n'),
        '\t' => Some(' '),
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
        c => (!c.is_control()).then_some(c),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn every_form_is_a_valid_expression() {
        assert_eq!(SECRETS.len(), FORMS.len());
        assert!(ESCAPES.is_some());
    }

    #[rstest]
    #[case("401 for Bearer abc.def-123 at x", "401 for Bearer *** at x")]
    #[case("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***")]
    #[case(r#"{"authorization":"Token s3cret"}"#, r#"{"authorization":"Token ***"}"#)]
    #[case("connect password=hunter2,x host=db", "connect password=*** host=db")]
    #[case("DB_PASSWORD: 'a b c' next", "DB_PASSWORD: *** next")]
    #[case(r#"{"dbPasswd": "a\"b", "user": "bob"}"#, r#"{"dbPasswd": ***, "user": "bob"}"#)]
    #[case(r#""{\"apiKey\":\"abc\",\"n\":1}""#, r#""{\"apiKey\":***,\"n\":1}""#)]
    #[case("curl 'https://x/?access_token=abc&page=2'", "curl 'https://x/?access_token=***&page=2'")]
    #[case("login --user bob --password hunter2 now", "login --user bob --password *** now")]
    #[case("aws_secret_access_key = abc/def+ghi", "aws_secret_access_key = ***")]
    #[case("key AKIAABCDEFGHIJKLMNOP end", "key *** end")]
    #[case("postgres://bob:p@ss@db:5432/x?y=a@b", "postgres://***@db:5432/x?y=a@b")]
    #[case("got eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2ln!", "got ***!")]
    #[case("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "***")]
    #[case(
        "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nb",
        "a\n*** private key ***\nb"
    )]
    #[case("-----BEGIN PRIVATE KEY-----\\nMIIE", "*** private key ***")]
    #[case("MIIEvQIBADANBg\nkqhkiG9w0BAQ==\n-----END PRIVATE KEY-----\nb", "*** private key ***\nb")]
    fn secrets_are_taken_out_and_the_rest_stays(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(redact(text), expected);
    }

    #[rstest]
    #[case("cannot create workflow health/dns-1: workflows.argoproj.io is forbidden")]
    #[case(r#"secrets "tls" not found"#)]
    #[case("https://example.com/a@b?x=1")]
    #[case("Error (exit code 127)")]
    #[case("-----BEGIN CERTIFICATE-----")]
    fn what_is_no_secret_is_left_alone(#[case] text: &str) {
        assert_eq!(redact(text), text);
    }

    #[rstest]
    #[case("\x1b[1;31mred\x1b[0m", "red")]
    #[case("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy")]
    #[case("\u{9b}2Jx\x1bc", "x")]
    #[case("10%\r20%\r\ndone\0\x08\t.", "10%\n20%\ndone .")]
    #[case("user\u{202e}nimda", "usernimda")]
    #[case("pass\x1b[0mword=x", "password=***")]
    fn control_sequences_are_dropped(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(clean(text), expected);
    }

    #[test]
    fn a_long_hostile_text_takes_little_time() {
        for piece in ["a", "token", "A ", "\x1b[", "-----BEGIN PRIVATE KEY-----", "://", "\\\"", "eyJ."] {
            let began = std::time::Instant::now();
            clean(&piece.repeat(MAX_INPUT_BYTES));
            assert!(began.elapsed().as_secs() < 5, "{piece:?} took {:?}", began.elapsed());
        }
    }
}
