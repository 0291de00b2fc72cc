//! What every request to the API server passes, a tower layer under the client: the fence of leader election, the pause
//! that the API server asked for, a limit on how long an answer may take to begin, the count of how it went and of watches
//! that break off, and the clock, which hears the time that answers carry.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;
use kube::client::Body;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

use crate::clock::Clock;
use crate::counters::Restart;
use crate::watches;

/// An answer begins within this time, of a list or a watch too: a black-holed API server must not hold them for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The pause after "too many requests" that names none.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that is believed.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Why a request was not sent, or not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This process may not write: it does not lead, or does not know whether it still does.
    #[error("not the leader: writes are fenced")]
    Fenced,
    /// The API server asked for a pause.
    #[error("the API server asked for a pause of another {} ms", .0.as_millis())]
    Paused(Duration),
    /// No answer in time.
    #[error("the API server did not answer within {} s", ANSWER_LIMIT.as_secs())]
    NoAnswer,
}

impl Refusal {
    /// The refusal that is behind this error, where there is one.
    pub fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref()).copied()
    }
}

/// Until when writes may be sent; clones share it.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// Writes may be sent for ever: there is no election.
    pub fn open() -> Fence {
        let far = Instant::now() + Duration::from_secs(100 * 365 * 86400);
        Fence(Arc::new(Mutex::new(Some(far))))
    }

    /// No write may be sent until [`Fence::set`] says so.
    pub fn closed() -> Fence {
        Fence(Arc::default())
    }

    /// Writes may be sent until then, or not at all.
    pub fn set(&self, until: Option<Instant>) {
        *self.0.lock() = until;
    }

    /// What is left of the time in which writes may be sent; `None` where it is over.
    pub fn left(&self) -> Option<Duration> {
        (*self.0.lock())?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

/// The pause that the API server asked for; clones share it.
#[derive(Clone, Debug, Default)]
struct Respite(Arc<Mutex<Option<Instant>>>);

impl Respite {
    /// What is left of it; `None` where there is none.
    fn left(&self) -> Option<Duration> {
        (*self.0.lock())?.checked_duration_since(Instant::now())
    }

    /// From now on at least so long.
    fn ask(&self, pause: Duration) {
        let until = Instant::now() + pause.min(MAX_PAUSE);
        let mut asked = self.0.lock();
        *asked = (*asked).max(Some(until));
    }
}

/// The layer; clones share what they know.
#[derive(Clone)]
pub struct Gate {
    fence: Fence,
    clock: Clock,
    answer_limit: Duration,
    pause: Respite,
    answers: watch::Sender<bool>,
    requests: IntCounterVec,
    available: IntGauge,
}

impl Gate {
    /// A gate behind this fence, whose counters are in `registry`, and which tells `clock` what it hears.
    ///
    /// # Errors
    /// When there is one in the registry already.
    pub fn new(fence: Fence, clock: Clock, registry: &Registry) -> Result<Gate, prometheus::Error> {
        let name = "activemonitor_agent_api_requests_total";
        let help = "Requests to the API server by method and answer; code is an HTTP status, or error, timeout, \
                    paused (not sent: the API server asked for a pause), fenced (not sent: not the leader).";
        let requests = IntCounterVec::new(Opts::new(name, help), &["method", "code"])?;
        let name = "activemonitor_agent_api_available";
        let help = "1 while the API server answers, 0 while it does not, or only with 5xx or 429.";
        let available = IntGauge::new(name, help)?;
        available.set(1);
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(available.clone()))?;
        let (pause, answers) = (Respite::default(), watch::Sender::new(true));
        Ok(Gate { fence, clock, answer_limit: ANSWER_LIMIT, pause, answers, requests, available })
    }

    /// Whether the API server answers as it should, by its last answer.
    pub fn answers(&self) -> watch::Receiver<bool> {
        self.answers.subscribe()
    }

    /// What its writes wait for.
    pub(crate) fn fence(&self) -> Fence {
        self.fence.clone()
    }

    fn admit(&self, is_write: bool) -> Result<Duration, Refusal> {
        if let Some(left) = self.pause.left() {
            return Err(Refusal::Paused(left));
        }
        if !is_write {
            return Ok(self.answer_limit);
        }
        self.fence.left().map(|left| left.min(self.answer_limit)).ok_or(Refusal::Fenced)
    }

    fn answered<B>(&self, method: &str, answer: &Response<B>) {
        let status = answer.status();
        self.requests.with_label_values(&[method, status.as_str()]).inc();
        let asked = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let pause = match status {
            StatusCode::TOO_MANY_REQUESTS => Some(asked.map_or(SHORT_PAUSE, Duration::from_secs)),
            StatusCode::SERVICE_UNAVAILABLE => asked.map(Duration::from_secs),
            _ => None,
        };
        if let Some(pause) = pause {
            self.pause.ask(pause);
        }
        self.is_available(!status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS, status.as_str());
    }

    fn failed(&self, method: &str, code: &str, error: &dyn std::fmt::Display) {
        self.requests.with_label_values(&[method, code]).inc();
        self.is_available(false, &error.to_string());
    }

    /// Logged when it begins and when it is over: each request that fails would be a flood.
    fn is_available(&self, available: bool, answer: &str) {
        let is_news = self.answers.send_if_modified(|answers| {
            self.available.set(available.into());
            std::mem::replace(answers, available) != available
        });
        if !is_news {
            return;
        }
        if available {
            tracing::info!("the API server answers again");
        } else {
            tracing::warn!(answer, "the API server does not answer as it should, trying again with growing pauses");
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// A client's service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

/// A body whose error is noted.
type Noted<B> = MapErr<B, Box<dyn FnMut(<B as HttpBody>::Error) -> <B as HttpBody>::Error + Send>>;

/// Counts a watch of this resource that breaks off. Whoever reads it is not told of each: kube takes most of them for an
/// end.
fn noted<B: HttpBody + 'static>(body: B, watched: Option<String>) -> Noted<B> {
    let note: Box<dyn FnMut(B::Error) -> B::Error + Send> = Box::new(move |error| {
        if let Some(resource) = &watched {
            watches::count(resource, Restart::Cut);
        }
        error
    });
    body.map_err(note)
}

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: HttpBody + 'static,
{
    type Response = Response<Noted<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        let method = request.method().as_str().to_owned();
        let limit = match gate.admit(!request.method().is_safe()) {
            Ok(limit) => limit,
            Err(refusal) => {
                let code = if refusal == Refusal::Fenced { "fenced" } else { "paused" };
                gate.requests.with_label_values(&[method.as_str(), code]).inc();
                return async move { Err(refusal.into()) }.boxed();
            }
        };
        let sent = Instant::now();
        let watched = watches::watched(request.uri());
        let answer = self.inner.call(request);
        async move {
            match tokio::time::timeout(limit, answer).await {
                Ok(Ok(answer)) => {
                    gate.clock.heard(sent, answer.headers());
                    gate.answered(&method, &answer);
                    Ok(answer.map(|body| noted(body, watched)))
                }
                Ok(Err(error)) => {
                    let error = error.into();
                    if let Some(refusal) = Refusal::behind(&*error) {
                        gate.requests.with_label_values(&[method.as_str(), "fenced"]).inc();
                        return Err(refusal.into());
                    }
                    gate.failed(&method, "error", &error);
                    Err(error)
                }
                Err(_) => {
                    gate.failed(&method, "timeout", &Refusal::NoAnswer);
                    Err(Refusal::NoAnswer.into())
                }
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::StreamExt;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use kube::api::PostParams;
    use kube::client::ClientBuilder;
    use kube::{Api, Client};

    use super::*;
    use crate::request::{RequestError, request};

    /// An API server that gives these answers in turn, then says that nothing is found; and the requests that it got.
    fn fake(fence: Fence, answers: Vec<Response<Body>>) -> (Client, Arc<Mutex<Vec<String>>>, Gate) {
        let registry = Registry::new();
        let gate = Gate::new(fence, Clock::new(&registry).unwrap(), &registry).unwrap();
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            seen.lock().push(request.method().to_string());
            let answer = answers.lock().pop_front().unwrap_or_else(|| status(404, &[]));
            async move { Ok::<_, BoxError>(answer) }
        });
        let client = ClientBuilder::new(service, "health").with_layer(&gate).build();
        (client, asked, gate)
    }

    fn status(code: u16, headers: &[(&str, &str)]) -> Response<Body> {
        let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "message": format!("code {code}"), "reason": if code == 404 { "NotFound" } else { "" }});
        let mut answer = Response::builder().status(code);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        answer.body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap()
    }

    fn maps(client: Client) -> Api<ConfigMap> {
        Api::default_namespaced(client)
    }

    #[tokio::test]
    async fn a_process_that_does_not_lead_sends_reads_and_no_write() {
        let fence = Fence::closed();
        let (client, asked, gate) = fake(fence.clone(), vec![]);
        let maps = maps(client);
        let (params, map) = (PostParams::default(), ConfigMap::default());
        let create = || maps.create(&params, &map);
        assert!(matches!(request(create()).await, Err(RequestError::Refused(Refusal::Fenced))));
        fence.set(Some(Instant::now()));
        assert!(matches!(request(create()).await, Err(RequestError::Refused(Refusal::Fenced))), "the time is over");
        assert!(request(maps.get_opt("x")).await.unwrap().is_none());
        assert_eq!(*asked.lock(), ["GET"]);
        fence.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(request(create()).await.unwrap_err().is_not_found(), "sent, and answered");
        assert_eq!(*asked.lock(), ["GET", "POST"]);
        assert_eq!(gate.requests.with_label_values(&["POST", "fenced"]).get(), 2);
    }

    #[tokio::test]
    async fn after_too_many_requests_nothing_is_sent_for_as_long_as_was_asked() {
        for code in [429, 503] {
            let (client, asked, gate) = fake(Fence::open(), vec![status(code, &[("retry-after", "30")])]);
            let maps = maps(client);
            assert!(request(maps.get_opt("x")).await.is_err());
            for _ in 0..100 {
                let refused = request(maps.get_opt("x")).await;
                assert!(
                    matches!(refused, Err(RequestError::Refused(Refusal::Paused(left))) if left > Duration::from_secs(25))
                );
            }
            assert_eq!(asked.lock().len(), 1, "one request, and then silence");
            assert_eq!(gate.available.get(), 0);
            *gate.pause.0.lock() = Some(Instant::now());
            assert!(request(maps.get_opt("x")).await.unwrap().is_none());
            assert_eq!(gate.available.get(), 1);
        }
    }

    /// What is written to a watch of Secrets, to its end or until it breaks off so.
    async fn watch_secrets(end: Option<std::io::ErrorKind>) -> usize {
        let registry = Registry::new();
        let gate = Gate::new(Fence::open(), Clock::new(&registry).unwrap(), &registry).unwrap();
        let event = serde_json::json!({"type": "ADDED", "object": {"metadata": {"name": "x", "resourceVersion": "2"}}});
        let service = tower::service_fn(move |_: Request<Body>| {
            let line = Ok(format!("{event}\n"));
            let chunks = [Some(line), end.map(|kind| Err(std::io::Error::new(kind, "broken off")))];
            let body = axum::body::Body::from_stream(futures::stream::iter(chunks.into_iter().flatten()));
            async move { Ok::<_, BoxError>(Response::new(body)) }
        });
        let client = ClientBuilder::new(service, "health").with_layer(&gate).build();
        let secrets: Api<Secret> = Api::default_namespaced(client);
        let events = secrets.watch(&kube::api::WatchParams::default(), "1").await.unwrap();
        events.boxed().filter(|event| std::future::ready(event.is_ok())).count().await
    }

    #[tokio::test]
    async fn a_watch_that_breaks_off_is_counted_also_where_its_reader_takes_that_for_its_end() {
        let cut = || crate::counters::watch_restarts("secrets", Restart::Cut).unwrap().get();
        assert_eq!((watch_secrets(None).await, cut()), (1, 0), "it ended at its time");
        for (kind, so_far) in [(std::io::ErrorKind::UnexpectedEof, 1), (std::io::ErrorKind::ConnectionReset, 2)] {
            assert_eq!((watch_secrets(Some(kind)).await, cut()), (1, so_far), "{kind:?}");
        }
        // A list that breaks off is an error of who asked.
        assert_eq!(watches::watched(&"/api/v1/secrets?limit=50".parse().unwrap()), None);
    }

    #[tokio::test]
    async fn the_clock_hears_the_time_that_answers_carry() {
        let date = [("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        let (client, _asked, gate) = fake(Fence::open(), vec![status(404, &date)]);
        assert!(request(maps(client).get_opt("x")).await.unwrap().is_none());
        assert!(gate.clock.now() < "1994-11-06T08:59:37Z".parse::<jiff::Timestamp>().unwrap());
    }

    #[tokio::test]
    async fn an_answer_that_makes_no_sense_does_not_stop_anything() {
        let headers = [("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")];
        let (client, asked, _gate) = fake(Fence::open(), vec![status(500, &[]), status(503, &headers)]);
        let maps = maps(client);
        assert!(request(maps.get_opt("x")).await.is_err());
        assert!(request(maps.get_opt("x")).await.is_err());
        assert!(request(maps.get_opt("x")).await.is_ok());
        assert_eq!(asked.lock().len(), 3);
    }

    #[tokio::test]
    async fn an_api_server_that_hangs_is_given_up() {
        let registry = Registry::new();
        let mut gate = Gate::new(Fence::open(), Clock::new(&registry).unwrap(), &registry).unwrap();
        gate.answer_limit = Duration::from_millis(20);
        let hangs = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>());
        let maps = maps(ClientBuilder::new(hangs, "health").with_layer(&gate).build());
        // As a watcher asks, without a limit of its own.
        let error = maps.list(&kube::api::ListParams::default()).await.unwrap_err();
        assert!(matches!(RequestError::from(error), RequestError::Refused(Refusal::NoAnswer)));
        assert_eq!(gate.requests.with_label_values(&["GET", "timeout"]).get(), 1);
    }
}
