//! The client of the API server: kube's parts, put together so that the fence is asked once more where the bytes of a
//! request are taken to be sent. Between the gate and there a connection may have to be made, and the process may be stopped.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::{Body, ClientBuilder, ConfigExt};
use tower::{BoxError, Service, ServiceBuilder};

use crate::gate::{Fence, Gate, Refusal};

/// A client behind this gate.
///
/// # Errors
/// The configuration's certificates or credentials cannot be used.
pub(crate) fn connect(config: &kube::Config, gate: &Gate) -> Result<Client, kube::Error> {
    let service = service(config, gate.fence())?;
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).with_layer(gate).build())
}

/// As kube makes its own, without a proxy and without tries of its own, which would pass the gate unseen.
fn service(
    config: &kube::Config,
    fence: Fence,
) -> Result<
    impl Service<Request<Body>, Response = Response<Incoming>, Error = BoxError, Future: Send + 'static> + Send + 'static,
    kube::Error,
> {
    let mut connector = TimeoutConnector::new(config.rustls_https_connector()?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let http: HttpClient<_, Fenced> = HttpClient::builder(TokioExecutor::new()).build(connector);
    Ok(ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_request(move |request: Request<Body>| {
            let fence = (!request.method().is_safe()).then(|| fence.clone());
            request.map(|body| Fenced { body, fence })
        })
        .map_err(BoxError::from)
        .service(http))
}

/// The body of a request, which is an error where a write has come to a closed fence. HTTP/1, the only one that kube speaks,
/// writes the head together with the first of the body: nothing of the request is sent then.
struct Fenced {
    body: Body,
    fence: Option<Fence>,
}

impl HttpBody for Fenced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.fence.as_ref().is_some_and(|fence| fence.left().is_none()) {
            return Poll::Ready(Some(Err(Refusal::Fenced.into())));
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use parking_lot::Mutex;
    use prometheus::Registry;
    use tower::Layer;

    use super::*;
    use crate::clock::Clock;

    /// A server on this machine, and the methods of the requests that it got.
    async fn server() -> (kube::Config, Arc<Mutex<Vec<String>>>) {
        let got = Arc::new(Mutex::new(Vec::new()));
        let noted = got.clone();
        let app = axum::Router::new().fallback(move |method: http::Method| async move {
            noted.lock().push(method.to_string());
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        (kube::Config::new(uri), got)
    }

    #[tokio::test]
    async fn a_write_that_the_gate_let_through_is_not_sent_once_the_fence_is_closed() {
        let (config, got) = server().await;
        let (fence, registry) = (Fence::closed(), Registry::new());
        let gate = Gate::new(fence.clone(), Clock::new(&registry).unwrap(), &registry).unwrap();
        let mut service = gate.layer(service(&config, gate.fence()).unwrap());
        let mut ask = |method: &str| {
            let body = if method == "GET" { Vec::new() } else { b"{}".to_vec() };
            service.call(Request::builder().method(method).uri("/api").body(Body::from(body)).unwrap())
        };
        // Without a connection, and on one that is there.
        for _ in 0..2 {
            fence.set(Some(Instant::now() + Duration::from_secs(60)));
            let (write, read) = (ask("POST"), ask("GET"));
            fence.set(None);
            let refused = write.await.unwrap_err();
            assert_eq!(refused.downcast_ref(), Some(&Refusal::Fenced), "{refused}");
            assert!(read.await.unwrap().status().is_success());
        }
        assert_eq!(*got.lock(), ["GET", "GET"]);
        let answers = gate.answers();
        assert!(*answers.borrow(), "that is no outage of the API server");
        fence.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(ask("POST").await.unwrap().status().is_success());
        assert_eq!(*got.lock(), ["GET", "GET", "POST"]);
    }
}
