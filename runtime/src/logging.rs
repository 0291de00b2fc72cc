//! Logging to standard error, filtered by `RUST_LOG`, and spans to a collector.

use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::traces::{self, Collector, Traces};

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("{other:?} is no log format: text or json")),
        }
    }
}

/// Starts logging; `default_filter` counts where `RUST_LOG` is not set. Spans go to the collector, where there is one, as
/// those of `service`. A second call changes nothing, so that tests may call it each. Must be called inside a tokio runtime.
pub fn init(format: LogFormat, default_filter: &str, service: &'static str, collector: Option<Collector>) -> Traces {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    // Spans are the collector's: a line has all its fields itself.
    let filter = filter.and(filter_fn(|metadata| metadata.is_event()));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = collector.map(|collector| traces::layer(service, &collector)).transpose();
    let (spans, traces, failure) = match spans {
        Ok(Some((spans, traces))) => (Some(spans), traces, None),
        Ok(None) => (None, Traces::default(), None),
        Err(error) => (None, Traces::default(), Some(error)),
    };
    let started = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
    if let Some(error) = failure {
        tracing::error!(%error, "no spans are sent");
    }
    traces
}
