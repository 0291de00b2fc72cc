//! A session is a span, as long as it lasts.

use super::*;
use crate::traced::Spans;

#[tokio::test]
async fn a_session_is_a_span_that_ends_with_it() {
    let spans = Spans::watch();
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    let mut agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    until(&hub, "signs of life", |state| state.heartbeats >= 2).await;
    let span = format!("session hub=localhost:{}", process.agents.port());
    assert_eq!((spans.begun(&span), spans.ended(&span)), (1, 0));
    drop(process);
    agent.link.connected.wait_for(|connected| !*connected).await.unwrap();
    assert_eq!((spans.begun(&span), spans.ended(&span)), (1, 1));
    agent.stop().await;
}
