//! Waiting for a condition with a deadline: what tests do instead of sleeping.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::time::Instant;

/// The least time between two questions. One that takes longer is followed by a pause as long as itself, so that waiting
/// takes no more than half a core from what is waited for.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Asks `check` again and again until it gives a value; an error counts as "not yet".
///
/// # Errors
/// When `limit` has passed: names `what`, and carries the last error of `check`.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut check: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    let mut last = anyhow!("the condition does not hold");
    loop {
        let asked = Instant::now();
        // A check that hangs (a paused server) must not outlive the deadline.
        match tokio::time::timeout_at(deadline, check()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => last = error,
        }
        if Instant::now() >= deadline {
            return Err(last).with_context(|| format!("no {what} within {limit:?}"));
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + asked.elapsed().clamp(PAUSE, LONGEST_PAUSE))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_value_once_it_is_there() {
        let mut calls = 0;
        let got = until("third call", Duration::from_secs(5), || {
            calls += 1;
            let answer = if calls == 1 { Err(anyhow!("not up")) } else { Ok((calls == 3).then_some(calls)) };
            async move { answer }
        });
        assert_eq!(got.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn ends_at_the_deadline_with_the_last_error() {
        let failed = until("answer", Duration::from_millis(80), || async {
            anyhow::Result::<Option<()>>::Err(anyhow!("refused"))
        });
        assert_eq!(format!("{:#}", failed.await.unwrap_err()), "no answer within 80ms: refused");
        let hung = until("answer", Duration::from_millis(80), std::future::pending::<anyhow::Result<Option<()>>>);
        assert!(hung.await.is_err());
    }
}
