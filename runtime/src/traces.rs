//! Spans of the own crates, sent to a collector over OTLP (gRPC) where one is named.
//!
//! They never hold anything up: a batch that the collector does not take is dropped, and so are spans beyond the queue.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// What the targets of all own crates begin with.
const OWN: &str = "active_monitor";

/// The spans on their way. Dropping it sends what waits.
#[must_use]
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown()) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// The collector that the environment names, as every OpenTelemetry SDK reads it: `http://host:4317`.
pub fn collector() -> Option<String> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    names.iter().find_map(|name| std::env::var(name).ok()).filter(|endpoint| !endpoint.is_empty())
}

/// Sends spans to the collector. Must be called inside a tokio runtime.
pub(crate) fn layer<S>(
    service: &'static str,
    collector: String,
) -> Result<(impl Layer<S> + Send + Sync, Traces), ExporterBuildError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(collector).build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
    let own = Targets::new().with_target(OWN, LevelFilter::INFO);
    Ok((layer.with_filter(own), Traces(Some(provider))))
}
