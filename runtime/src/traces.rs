//! Spans of the own crates, sent to a collector over OTLP (gRPC) where one is named.
//!
//! They never hold anything up: a batch that the collector does not take is dropped, and so are spans beyond the queue.

use std::io;
use std::path::PathBuf;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::transport::{Certificate, ClientTlsConfig};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

#[cfg(test)]
mod tests;

/// What the targets of all own crates begin with.
const OWN: &str = "active_monitor";

/// Why no spans are sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TracesError {
    /// The CA's file cannot be read.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {path} cannot be read: {error}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The endpoint is none, or the CA's file has no certificate.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT must be http://host:port or https://host:port: {0}")]
    Exporter(ExporterBuildError),
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// `http://host:4317`, or `https://` for TLS.
    pub endpoint: String,
    /// A PEM file with the certificates of authorities to trust for TLS; the system's where there is none.
    pub ca: Option<PathBuf>,
}

impl Collector {
    /// The collector that the environment names, as every OpenTelemetry SDK reads it.
    pub fn from_env() -> Option<Collector> {
        let variable =
            |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty());
        let endpoint = variable(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])?;
        let ca = variable(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]);
        Some(Collector { endpoint, ca: ca.map(PathBuf::from) })
    }

    fn tls(&self) -> Result<ClientTlsConfig, TracesError> {
        let Some(path) = &self.ca else { return Ok(ClientTlsConfig::new().with_enabled_roots()) };
        let pem = std::fs::read(path).map_err(|error| TracesError::Ca { path: path.clone(), error })?;
        Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
    }
}

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

/// Sends spans to the collector. Must be called inside a tokio runtime.
pub(crate) fn layer<S>(
    service: &'static str,
    collector: &Collector,
) -> Result<(impl Layer<S> + Send + Sync + use<S>, Traces), TracesError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(&collector.endpoint);
    if collector.endpoint.starts_with("https:") {
        exporter = exporter.with_tls_config(collector.tls()?);
    }
    let exporter = exporter.build().map_err(TracesError::Exporter)?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
    let own = Targets::new().with_target(OWN, LevelFilter::INFO);
    Ok((layer.with_filter(own), Traces(Some(provider))))
}
