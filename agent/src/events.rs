//! Kubernetes events about checks. They are news, not the record: one that gets lost is not sent again.

use std::sync::Arc;

use active_monitor_core::healthcheck::HealthCheck;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use parking_lot::Mutex;

use crate::request::request;

/// Who sends them.
pub(crate) const REPORTER: &str = "active-monitor-agent";
/// Characters of a text; the API server takes 1024 bytes.
const MAX_TEXT: usize = 900;
/// A recorder keeps what it sent for six minutes, to count what comes again, and never gives its room back: after so
/// many events the next one takes over.
const EVENTS_OF_A_RECORDER: u32 = 256;

/// Sends events; clones share what was sent.
#[derive(Clone)]
pub struct Events {
    client: Client,
    current: Arc<Mutex<(Recorder, u32)>>,
}

impl Events {
    /// Sends them to this API server.
    pub fn new(client: Client) -> Events {
        let current = Arc::new(Mutex::new((recorder(&client), 0)));
        Events { client, current }
    }

    /// Sends one about a check, without waiting for it.
    pub(crate) fn say(&self, check: &HealthCheck, warning: bool, reason: &str, text: &str) {
        let (recorder, reference) = (self.recorder(), check.object_ref(&()));
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(text.chars().take(MAX_TEXT).collect()),
            action: "Check".into(),
            secondary: None,
        };
        tokio::spawn(async move {
            if let Err(error) = request(recorder.publish(&event, &reference)).await {
                tracing::debug!(%error, "cannot publish an event");
            }
        });
    }

    fn recorder(&self) -> Recorder {
        let mut current = self.current.lock();
        if current.1 == EVENTS_OF_A_RECORDER {
            *current = (recorder(&self.client), 0);
        }
        current.1 += 1;
        current.0.clone()
    }
}

fn recorder(client: &Client) -> Recorder {
    Recorder::new(client.clone(), Reporter { controller: REPORTER.into(), instance: None })
}

#[cfg(test)]
mod tests {
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn after_many_events_another_recorder_takes_over() {
        let refuses = tower::service_fn(|_: http::Request<Body>| async {
            Ok::<_, tower::BoxError>(http::Response::new(Body::empty()))
        });
        let events = Events::new(Client::new(refuses, "health"));
        for sent in 1..=EVENTS_OF_A_RECORDER {
            events.recorder();
            assert_eq!(events.current.lock().1, sent);
        }
        events.recorder();
        assert_eq!(events.current.lock().1, 1);
    }
}
