//! Spans, as a collector gets them over the wire.

use std::sync::Arc;

use active_monitor_runtime::logging::{self, LogFormat};
use active_monitor_runtime::traces;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use parking_lot::Mutex;
use tonic::{Request, Response};

use super::*;

/// A collector that notes names of services and spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, String)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let service = format!("{:?}", resource.resource.map(|resource| resource.attributes));
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.0.lock().push((service.clone(), format!("{} {:?}", span.name, span.attributes)));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_commits_and_requests_are_spans_at_a_collector() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let collector_at = traces::Collector { endpoint: format!("http://{address}"), ca: None };
    let traces = logging::init(LogFormat::Text, "off", "hub-of-this-test", Some(collector_at));

    let dir = TempDir::new().unwrap();
    let hub = Running::start_with(dir.path(), &["--people-plaintext"]).await;
    let token = hub.token("traced").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "traced", vec![check("dns")]).await;
    session.send(AgentFrame::reports(vec![report(1)])).await;
    assert_eq!(session.ack().await, 1);
    let answer = reqwest::get(format!("http://{}/api/v1/clusters/traced", hub.hub.people)).await.unwrap();
    assert_eq!(answer.status(), 401);
    drop(session);
    hub.stop().await;
    tokio::task::spawn_blocking(move || drop(traces)).await.unwrap();

    let spans = collector.0.lock().clone();
    let has = |name: &str, attribute: &str| {
        spans.iter().any(|(service, span)| {
            service.contains("hub-of-this-test") && span.starts_with(name) && span.contains(attribute)
        })
    };
    assert!(has("session", "traced"));
    assert!(has("record reports", "traced"));
    assert!(has("request", "/api/v1/clusters/{cluster}"));
}
