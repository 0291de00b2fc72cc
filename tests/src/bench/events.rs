//! The hub's event stream, followed as a dashboard does.

use std::sync::Arc;

use active_monitor_core::state::Totals;
use active_monitor_core::view::Event;
use anyhow::{bail, ensure};
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::{Client, Response};
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::Hub;

/// A check as the hub has shown it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    /// When it was read from the stream.
    pub(super) at: Timestamp,
    pub(super) cluster: String,
    pub(super) name: String,
    pub(super) runs: Totals,
}

#[derive(Debug, Default)]
struct Heard {
    shown: Vec<Shown>,
    /// Why nothing comes any more.
    broken: Option<String>,
}

/// The stream; it ends when this is dropped.
pub(super) struct Events {
    heard: Arc<Mutex<Heard>>,
    _task: AbortOnDropHandle<()>,
}

impl Events {
    /// Begins; what changes after this is heard.
    pub(super) async fn follow(hub: &Hub) -> anyhow::Result<Events> {
        let client = Client::builder().no_proxy().build()?;
        let request = client.get(format!("{}/api/v1/events", hub.url)).bearer_auth(&hub.token);
        let answer = request.send().await?.error_for_status()?;
        let heard = Arc::<Mutex<Heard>>::default();
        let task = tokio::spawn({
            let heard = Arc::clone(&heard);
            async move {
                let end = read(answer, &heard).await;
                heard.lock().broken = Some(end.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string()));
            }
        });
        Ok(Events { heard, _task: AbortOnDropHandle::new(task) })
    }

    /// The checks that were shown since this was asked last.
    ///
    /// # Errors
    /// Some were missed.
    pub(super) fn take(&self) -> anyhow::Result<Vec<Shown>> {
        let mut heard = self.heard.lock();
        if let Some(why) = &heard.broken {
            bail!("the hub's event stream is of no use: {why}");
        }
        Ok(std::mem::take(&mut heard.shown))
    }
}

async fn read(mut answer: Response, heard: &Mutex<Heard>) -> anyhow::Result<()> {
    let (mut text, mut resets) = (Vec::new(), 0);
    while let Some(chunk) = answer.chunk().await? {
        let at = Timestamp::now();
        text.extend_from_slice(&chunk);
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for event in events(&text[..complete])? {
            match event {
                Event::Check(view) => {
                    let (cluster, state) = (view.cluster, view.state);
                    heard.lock().shown.push(Shown { at, cluster, name: state.name, runs: state.check });
                }
                // The first one only says that this listener is new.
                Event::Reset => resets += 1,
                Event::Cluster(_)
                | Event::ClusterRemoved { .. }
                | Event::CheckRemoved { .. }
                | Event::Windows
                | Event::Incidents
                | Event::Definition { .. } => {}
            }
        }
        ensure!(resets < 2, "events were missed");
        text.drain(..complete);
    }
    Ok(())
}

/// The events in complete lines.
fn events(lines: &[u8]) -> serde_json::Result<Vec<Event>> {
    let data = lines.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
    data.map(serde_json::from_slice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_the_data_of_its_lines() {
        let text = b"event: reset\nid: 7-0\ndata: {\"type\":\"reset\"}\n\n: still here\n\nevent: incidents\nid: 7-1\n\
                     data: {\"type\":\"incidents\"}\n";
        assert_eq!(events(text).unwrap(), [Event::Reset, Event::Incidents]);
        assert!(events(b"data: {\"type\"\n").is_err());
    }
}
