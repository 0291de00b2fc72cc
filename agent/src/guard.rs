//! Keeps a panic where it happened: one check's fault must not end the agent.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt;

use crate::counters::PANICS;

/// Waits for `future`; a panic in it is counted.
///
/// # Errors
/// The panic's message. What the future worked on may be half done, as after any error.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| counted(panic.as_ref()))
}

/// The same for what does not wait.
///
/// # Errors
/// The panic's message.
pub(crate) fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| counted(panic.as_ref()))
}

fn counted(panic: &(dyn Any + Send)) -> String {
    if let Some(panics) = PANICS.as_ref() {
        panics.inc();
    }
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
