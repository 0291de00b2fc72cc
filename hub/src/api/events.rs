//! `GET /api/v1/events`: what changes, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::view::Problem;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt, stream};
use http::HeaderMap;
use tokio::sync::broadcast::error::RecvError;

use super::Api;
use super::feed::{Feed, Item, Subscription};
use crate::auth::{Auth, Credential, Viewer};

/// Silence is broken by a comment, so that proxies keep the connection and clients notice its end.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time between two looks whether the caller may go on.
const LOOK: Duration = Duration::from_secs(5);

/// What changes, as it changes. `event:` is the tag and `data:` an `Event`. With `Last-Event-ID` a client goes on where
/// it was; where that is not possible, and for a new client, the first event is `reset`.
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "events", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last id that was received")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn stream(
    _: Viewer,
    credential: Credential,
    State(api): State<Api>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last_id = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let subscription = api.feed.subscribe(last_id);
    Sse::new(items(api.feed, subscription).take_until(voided(credential, api.auth)).map(|item| Ok(event(&item))))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Returns when the caller is nobody any more: a token that was deleted, or a session that has ended.
async fn voided(credential: Credential, auth: Arc<Auth>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if credential.is_void(&auth).await {
            return;
        }
    }
}

fn items(feed: Arc<Feed>, subscription: Subscription) -> impl Stream<Item = Arc<Item>> {
    stream::unfold((feed, subscription), |(feed, mut subscription)| async move {
        loop {
            if let Some(item) = subscription.first.pop_front() {
                return Some((item, (feed, subscription)));
            }
            match subscription.then.recv().await {
                Ok(item) => return Some((item, (feed, subscription))),
                // Too slow: what is left in the queue is older than what the client reads after the reset.
                Err(RecvError::Lagged(_)) => subscription = feed.subscribe(None),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

fn event(item: &Item) -> Event {
    Event::default().event(item.tag).id(&item.id).data(&item.data)
}
