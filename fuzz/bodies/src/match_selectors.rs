//! `match[]` of `/federate`: what is read picks as Prometheus would, and never everything.

use active_monitor_hub::metrics::Selection;
use regex::Regex;

/// Runs the target on one input: as a selector, and as a regular expression in one.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Selection::parse(&[text.to_owned()]) {
        Err(why) => assert!(why.starts_with("match[]: ")),
        Ok(selection) => {
            assert!(!selection.picks("", |_| ""), "each selector has a matcher that the empty text does not pass");
            for name in ["up", "activemonitor_check_status"] {
                let found = selection.picks(name, |label| if label == "cluster" { "eu-1" } else { "" });
                assert!(!found || selection.picks_family(name), "a series that is wanted is in a family that is not");
            }
        }
    }
    if !text.contains('`') {
        is_anchored(text);
    }
}

/// A pattern stands for whole values, and for no others.
fn is_anchored(pattern: &str) {
    let Ok(selection) = Selection::parse(&[format!("up{{a=~`{pattern}`}}")]) else { return };
    let alone = Regex::new(&format!("(?s){pattern}")).expect("what is taken in braces is a pattern by itself");
    for value in ["", "eu-1", "eu-10", "a\nb", "x"] {
        // Whole or not at all: what is not found anywhere in a value is not the whole of it.
        assert!(!selection.picks("up", |_| value) || alone.is_match(value), "{value:?}");
    }
}
