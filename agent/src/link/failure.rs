//! Logging of what fails again and again: when it begins, when it changes, and when it is over.

use std::error::Error;

pub(super) struct Failures {
    what: &'static str,
    last: Option<String>,
}

impl Failures {
    pub(super) fn new(what: &'static str) -> Failures {
        Failures { what, last: None }
    }

    /// Logs the error unless it is the one of the last time. `next` is what to do about it.
    pub(super) fn failed(&mut self, error: &dyn Error, next: &str) {
        let error = chain(error);
        if self.last.as_ref() != Some(&error) {
            tracing::warn!(what = self.what, %error, next, "link failed");
            self.last = Some(error);
        }
    }

    pub(super) fn over(&mut self) {
        if self.last.take().is_some() {
            tracing::info!(what = self.what, "link recovered");
        }
    }
}

/// An error with everything that caused it, `: ` between.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some crates repeat their source.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
