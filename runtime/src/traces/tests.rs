//! Spans over TLS, to a collector whose certificate is by a CA that is named, or by another.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

/// A collector that notes names of spans.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl TraceService for Noted {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        let names = scopes.flat_map(|scope| scope.spans).map(|span| span.name);
        self.0.lock().unwrap().extend(names);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    fn identity(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(leaf.pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_over_tls_to_a_collector_of_the_named_ca_and_to_no_other() {
    crate::tls::install_crypto_provider();
    let (ours, other, dir) = (Ca::new(), Ca::new(), tempfile::tempdir().unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let noted = Noted::default();
    let mut server = Server::builder().tls_config(ServerTlsConfig::new().identity(ours.identity())).unwrap();
    let served = server.add_service(TraceServiceServer::new(noted.clone()));
    tokio::spawn(served.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));

    for (name, ca) in [("not for you", &other), ("for you", &ours)] {
        let file = dir.path().join("ca.crt");
        std::fs::write(&file, &ca.pem).unwrap();
        let collector = Collector { endpoint: endpoint.clone(), ca: Some(file) };
        let (layer, traces) = layer("test", &collector).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!(target: "active_monitor_test", "span", otel.name = name).in_scope(|| {});
        });
        tokio::task::spawn_blocking(move || drop(traces)).await.unwrap();
    }
    assert_eq!(*noted.0.lock().unwrap(), ["for you"]);
}

#[tokio::test]
async fn a_ca_that_cannot_be_read_is_named() {
    let collector = Collector { endpoint: "https://localhost:4317".into(), ca: Some("/no/such/file".into()) };
    let error = layer::<tracing_subscriber::Registry>("test", &collector).err().unwrap();
    assert!(error.to_string().starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE: /no/such/file cannot be read: "), "{error}");
}
