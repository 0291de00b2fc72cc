//! Which series of an exposition are wanted: PromQL's instant vector selectors, as `match[]` of `/federate` has them.
//!
//! `name`, `name{label="value",other!="x",a=~"b.*",c!~"d"}` and `{...}`: all that Prometheus allows there but UTF-8 names in
//! quotes. As there, a missing label is an empty one, regular expressions are anchored, and at least one matcher must not
//! match the empty text.

use regex::{Regex, RegexBuilder};

/// The most selectors in one request.
const MAX_SELECTORS: usize = 100;
/// The most regular expressions in one request.
const MAX_PATTERNS: usize = 100;
/// What a regular expression may take as it is compiled, and again while it is used, bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;
/// The longest selector.
const MAX_BYTES: usize = 4096;

/// What is wanted: the series that any of the selectors picks.
#[derive(Clone, Debug, Default)]
pub enum Selection {
    /// Every series.
    #[default]
    All,
    /// Those.
    Any(Vec<Selector>),
}

/// One vector selector.
#[derive(Clone, Debug)]
pub struct Selector(Vec<Matcher>);

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    is_wanted: bool,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(String),
    Matches(Regex),
}

impl Matcher {
    fn picks(&self, value: &str) -> bool {
        let found = match &self.test {
            Test::Equal(text) => text == value,
            Test::Matches(pattern) => pattern.is_match(value),
        };
        found == self.is_wanted
    }
}

/// The label that holds the metric's name.
const NAME: &str = "__name__";

impl Selection {
    /// Reads the values of `match[]`.
    ///
    /// # Errors
    /// Which selector is wrong, and why.
    pub fn parse(texts: &[String]) -> Result<Selection, String> {
        if texts.is_empty() || texts.len() > MAX_SELECTORS {
            return Err(format!("match[]: give 1 to {MAX_SELECTORS} selectors, such as {{cluster=\"prod-eu-1\"}}"));
        }
        let mut patterns = MAX_PATTERNS;
        let mut selector =
            |text: &String| Selector::parse(text, &mut patterns).map_err(|why| format!("match[]: {text:?}: {why}"));
        Ok(Selection::Any(texts.iter().map(&mut selector).collect::<Result<_, _>>()?))
    }

    /// Whether a family of this name can have a series that is wanted.
    pub fn picks_family(&self, name: &str) -> bool {
        match self {
            Selection::All => true,
            Selection::Any(selectors) => selectors.iter().any(|selector| {
                selector.0.iter().filter(|matcher| matcher.label == NAME).all(|matcher| matcher.picks(name))
            }),
        }
    }

    /// Whether the series with this name and these labels is wanted. A label that it lacks is the empty text.
    pub fn picks<'a>(&self, name: &'a str, labels: impl Fn(&str) -> &'a str) -> bool {
        let picks =
            |matcher: &Matcher| matcher.picks(if matcher.label == NAME { name } else { labels(&matcher.label) });
        match self {
            Selection::All => true,
            Selection::Any(selectors) => selectors.iter().any(|selector| selector.0.iter().all(picks)),
        }
    }
}

impl Selector {
    /// `patterns` is how many regular expressions it may have; those that it has are taken off.
    fn parse(text: &str, patterns: &mut usize) -> Result<Selector, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("it is longer than {MAX_BYTES} bytes"));
        }
        let mut rest = Rest(text.trim());
        let mut matchers = Vec::new();
        let name = rest.word(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        if !name.is_empty() {
            let test = Test::Equal(name.to_owned());
            matchers.push(Matcher { label: NAME.to_owned(), is_wanted: true, test });
        }
        if name.is_empty() || !rest.0.is_empty() {
            rest.expect('{')?;
            while !rest.take("}") {
                matchers.push(rest.matcher(patterns)?);
                if !rest.take(",") {
                    rest.expect('}')?;
                    break;
                }
            }
        }
        if !rest.0.is_empty() {
            return Err(format!("{:?} is too much", rest.0));
        }
        if matchers.iter().all(|matcher| matcher.picks("")) {
            return Err("at least one matcher must not match the empty text".to_owned());
        }
        Ok(Selector(matchers))
    }
}

/// What is left of a text.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Takes the characters that are allowed; a name does not begin with a digit.
    fn word(&mut self, is_allowed: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !is_allowed(c)).unwrap_or(self.0.len());
        let end = if self.0.starts_with(|c: char| c.is_ascii_digit()) { 0 } else { end };
        let (word, rest) = self.0.split_at(end);
        self.0 = rest.trim_start();
        word
    }

    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.0.strip_prefix(token) else { return false };
        self.0 = rest.trim_start();
        true
    }

    fn expect(&mut self, token: char) -> Result<(), String> {
        if self.take(token.encode_utf8(&mut [0; 4])) {
            return Ok(());
        }
        let found = if self.0.is_empty() { "the end".to_owned() } else { format!("{:?}", self.0) };
        Err(format!("{token:?} is expected before {found}"))
    }

    fn matcher(&mut self, patterns: &mut usize) -> Result<Matcher, String> {
        let label = self.word(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
        if label.is_empty() {
            return Err(format!("a label's name is expected before {:?}", self.0));
        }
        let operators = [("=~", true, true), ("!~", false, true), ("!=", false, false), ("=", true, false)];
        let operator = operators.into_iter().find(|(token, _, _)| self.take(token));
        let Some((_, is_wanted, is_pattern)) = operator else {
            return Err(format!("one of =, !=, =~ and !~ is expected before {:?}", self.0));
        };
        let value = self.string()?;
        let test = if is_pattern {
            *patterns = patterns
                .checked_sub(1)
                .ok_or_else(|| format!("there are more than {MAX_PATTERNS} regular expressions in the request"))?;
            Test::Matches(
                anchored(&value).ok_or_else(|| format!("{value:?} is no regular expression that can be used"))?,
            )
        } else {
            Test::Equal(value)
        };
        Ok(Matcher { label, is_wanted, test })
    }

    /// A text in double or single quotes, with Go's short escapes, or in backticks, without any.
    fn string(&mut self) -> Result<String, String> {
        let quote = self.0.chars().next().filter(|c| "\"'`".contains(*c)).ok_or("a text in quotes is expected")?;
        let mut text = String::new();
        let mut chars = self.0.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.0 = self.0[at + 1..].trim_start();
                    return Ok(text);
                }
                '\\' if quote != '`' => text.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, 'r')) => '\r',
                    Some((_, c @ ('\\' | '"' | '\'' | '`'))) => c,
                    Some((_, c)) => return Err(format!("the escape \\{c} is not known")),
                    None => break,
                }),
                c => text.push(c),
            }
        }
        Err("a text does not end".to_owned())
    }
}

/// The pattern for whole values. It must be one by itself: `a)|(b` would get out of the anchors.
fn anchored(pattern: &str) -> Option<Regex> {
    let compile = |text: &str| {
        RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES).build().ok()
    };
    compile(pattern)?;
    compile(&format!("^(?s:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(selector: &str, name: &str, labels: &[(&str, &str)]) -> bool {
        let selection = Selection::parse(&[selector.to_owned()]).unwrap_or_else(|why| panic!("{why}"));
        let label = |wanted: &str| labels.iter().find(|(label, _)| *label == wanted).map_or("", |(_, value)| *value);
        let found = selection.picks(name, label);
        assert!(!found || selection.picks_family(name), "{selector}");
        found
    }

    #[test]
    fn selectors_pick_as_in_prometheus() {
        let labels = [("cluster", "eu-1"), ("status", "Failed")];
        for (selector, expected) in [
            ("up", true),
            (" up { } ", true),
            ("down", false),
            (r#"{__name__="up"}"#, true),
            (r#"{__name__=~"u.*|v"}"#, true),
            (r#"{__name__=~"u"}"#, false),
            (r#"{__name__!~"d.*",cluster='eu-1',}"#, true),
            (r#"up{cluster="eu-1", status!="Failed"}"#, false),
            (r#"up{cluster!="us-1"}"#, true),
            (r#"up{cluster=~"eu-.+"}"#, true),
            (r#"up{cluster=~`eu-\d`}"#, true),
            (r#"up{cluster=~"eu-\\d"}"#, true),
            (r#"up{cluster!~"eu-.+"}"#, false),
            (r#"up{none=""}"#, true),
            (r#"up{none="x"}"#, false),
            (r#"up{none!="x"}"#, true),
            (r#"{cluster=~".+"}"#, true),
        ] {
            assert_eq!(picks(selector, "up", &labels), expected, "{selector}");
        }
        assert!(picks("{a=\"x\\\"\\\\\\n\"}", "up", &[("a", "x\"\\\n")]));
    }

    #[test]
    fn what_is_no_selector_is_said_to_be_none() {
        for (text, why) in [
            ("", "'{' is expected before the end"),
            ("{}", "at least one matcher"),
            (r#"{a=""}"#, "at least one matcher"),
            (r#"{a=~".*"}"#, "at least one matcher"),
            (r#"{a!="x"}"#, "at least one matcher"),
            ("up{", "a label's name is expected"),
            (r#"up{a"x"}"#, "one of =, !=, =~ and !~"),
            ("up{a=x}", "a text in quotes"),
            (r#"up{a="x}"#, "does not end"),
            (r#"up{a="\q"}"#, r"the escape \q"),
            (r#"up{a=~"("}"#, "no regular expression"),
            ("up{a=~\"x)|(y\"}", "no regular expression"),
            ("up{a=~\"(.{1000}){1000}\"}", "no regular expression"),
            (r#"up{a="x" b="y"}"#, "'}' is expected"),
            ("up offset 5m", "'{' is expected before \"offset 5m\""),
            ("sum(up)", "'{' is expected"),
            ("up[5m]", "'{' is expected"),
            (r#"up{a="x"}[5m]"#, "is too much"),
            ("1up", "'{' is expected"),
        ] {
            let said = Selection::parse(&[text.to_owned()]).map(|_| ()).unwrap_err();
            assert!(said.contains(why) && said.starts_with("match[]: "), "{text}: {said}");
        }
        assert!(Selection::parse(&[]).is_err());
        assert!(Selection::parse(&vec!["up".to_owned(); 101]).is_err());
        assert!(Selection::parse(&["x".repeat(5000)]).is_err());
        let patterns = |count: usize| format!("{{{}}}", "a=~\"x\",".repeat(count));
        assert!(Selection::parse(&[patterns(60), patterns(40)]).is_ok());
        assert!(Selection::parse(&[patterns(60), patterns(41)]).unwrap_err().contains("more than 100 regular"));
    }

    #[test]
    fn any_selector_picks() {
        let selection = Selection::parse(&["up".to_owned(), "{a=\"1\"}".to_owned()]).unwrap();
        assert!(selection.picks("up", |_| "") && selection.picks("down", |_| "1") && !selection.picks("down", |_| ""));
        // Without a matcher of the name every family can have one.
        assert!(selection.picks_family("down"));
        assert!(!Selection::parse(&["up".to_owned()]).unwrap().picks_family("down"));
    }
}
