//! Label selectors as kubectl writes them: what is read says the same whatever it is asked.

use std::collections::BTreeMap;

use active_monitor_core::definition::select::{matches, parse};

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(selector) = parse(text) else { return };
    assert!(selector.match_labels.is_none());
    let requirements = selector.match_expressions.as_deref().unwrap_or_default();
    assert!(requirements.iter().all(|requirement| !requirement.key.is_empty()), "{requirements:?}");
    let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned()), ("tier".to_owned(), String::new())]);
    if requirements.is_empty() {
        assert!(matches(&selector, &labels));
    }
    let _ = matches(&selector, &BTreeMap::new());
}
