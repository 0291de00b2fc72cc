//! A proxy in front of a cluster's API server that misbehaves on demand: wrong answers, silence, a share of each of them, cut
//! watches, lists of yesterday, and a word at the n-th write. It listens on loopback without TLS and passes requests on with the client's own credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;

/// The largest request body that is passed on; the API server takes 3 MiB.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: they are passed on.
    None,
    /// Every one is answered with this status, and `Retry-After` in seconds where given.
    Answer(u16, Option<u32>),
    /// None is ever answered.
    Hang,
    /// Each is passed on, and none is ever answered.
    Mute,
    /// One in ten meets one of the four above, with a second to wait after 429; the seed says which.
    OneInTen(u64),
    /// Watches are told 410 Gone, so that everything is listed anew.
    Gone,
    /// Watches break off after this time.
    CutWatches(Duration),
    /// Watches that are open end, and those that begin are passed on when this is over.
    HoldWatches,
    /// Each list is kept, by its path, and everything is listed anew.
    KeepLists,
    /// Everything is listed anew, and each list that was kept is given once more: an API server that lags behind, and
    /// catches up.
    OldLists,
}

/// A list as it was answered.
#[derive(Clone)]
struct Kept {
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Default)]
struct Lists {
    kept: BTreeMap<String, Kept>,
    /// Paths that have had their answer since the fault was set.
    answered: BTreeSet<String>,
}

/// Called after the API server has done a write and before the client hears of it.
type Hook = Box<dyn Fn() + Send + Sync>;

/// A running proxy; it ends when this is dropped.
pub struct ApiProxy {
    /// Where it listens, for a kubeconfig.
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    fault: watch::Sender<Fault>,
    dice: Mutex<StdRng>,
    requests: AtomicU64,
    passed_on: AtomicU64,
    expired_watches: Arc<AtomicU64>,
    expired_lists: AtomicU64,
    writes: AtomicU64,
    hook: Mutex<Option<(u64, Hook)>>,
    lists: Mutex<Lists>,
    old_lists: AtomicU64,
    /// Changes when the watches that are open shall end.
    cut: watch::Sender<()>,
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ApiProxy {
    /// Starts a proxy in front of a cluster's API server.
    ///
    /// # Errors
    /// When it cannot listen, or the cluster's authority cannot be read.
    pub async fn start(cluster: &Cluster) -> anyhow::Result<ApiProxy> {
        crate::init();
        let authority = reqwest::Certificate::from_pem(&std::fs::read(&cluster.ca_file)?)?;
        let client = reqwest::Client::builder().no_proxy().http1_only().tls_certs_only([authority]).build()?;
        let shared = Arc::new(Shared {
            server: cluster.server.clone(),
            client,
            fault: watch::Sender::new(Fault::None),
            dice: Mutex::new(StdRng::seed_from_u64(0)),
            requests: AtomicU64::new(0),
            passed_on: AtomicU64::new(0),
            expired_watches: Arc::default(),
            expired_lists: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            hook: Mutex::new(None),
            lists: Mutex::default(),
            old_lists: AtomicU64::new(0),
            cut: watch::Sender::new(()),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = axum::Router::new().fallback(pass).with_state(shared.clone());
        let task = tokio::spawn(async move {
            let _ended_with_the_test = axum::serve(listener, router).await;
        });
        Ok(ApiProxy { url, shared, task })
    }

    /// Sets what happens from here on. What hangs or is cut goes on to do so; where watches are concerned, those that
    /// are open end.
    pub fn set(&self, fault: Fault) {
        if let Fault::OneInTen(seed) = fault {
            *self.shared.dice.lock() = StdRng::seed_from_u64(seed);
        }
        self.shared.fault.send_replace(fault);
        match fault {
            Fault::Gone | Fault::CutWatches(_) | Fault::HoldWatches | Fault::KeepLists | Fault::OldLists => {
                self.shared.lists.lock().answered.clear();
                self.shared.cut.send_replace(());
            }
            Fault::None | Fault::Hang | Fault::Mute | Fault::OneInTen(_) | Fault::Answer(..) => {}
        }
    }

    /// Paths whose lists are kept.
    pub fn kept_lists(&self) -> Vec<String> {
        self.shared.lists.lock().kept.keys().cloned().collect()
    }

    /// Lists of earlier that were given so far.
    pub fn old_lists(&self) -> u64 {
        self.shared.old_lists.load(Ordering::SeqCst)
    }

    /// Requests that came in so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests that were passed on so far.
    pub fn passed_on(&self) -> u64 {
        self.shared.passed_on.load(Ordering::SeqCst)
    }

    /// Watches that the API server itself has said are of too long ago.
    pub fn expired_watches(&self) -> u64 {
        self.shared.expired_watches.load(Ordering::SeqCst)
    }

    /// The same of pages of lists.
    pub fn expired_lists(&self) -> u64 {
        self.shared.expired_lists.load(Ordering::SeqCst)
    }

    /// Calls `hook` once, when the API server has done the n-th write from here on and its client does not know it yet.
    pub fn at_write(&self, n: u64, hook: impl Fn() + Send + Sync + 'static) {
        let at = self.shared.writes.load(Ordering::SeqCst) + n;
        *self.shared.hook.lock() = Some((at, Box::new(hook)));
    }

    /// Whether the hook has been called, or there is none.
    pub fn hook_is_done(&self) -> bool {
        self.shared.hook.lock().is_none()
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let fault = shared.draw(*shared.fault.borrow());
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let path = request.uri().path().to_owned();
    // The pages that follow the first one are the API server's to give, as of the time of the first.
    let is_first_page = !request.uri().query().is_some_and(|query| query.contains("continue="));
    match fault {
        Fault::Answer(code, retry_after) => return answer(code, retry_after),
        Fault::Hang => std::future::pending().await,
        Fault::Gone if is_watch => return gone(),
        Fault::HoldWatches if is_watch => {
            let mut faults = shared.fault.subscribe();
            let _sender_lives_as_long_as_this = faults.wait_for(|fault| *fault != Fault::HoldWatches).await;
        }
        Fault::KeepLists if is_watch && !shared.lists.lock().answered.contains(&path) => return gone(),
        Fault::OldLists if is_first_page => {
            if let Some(old) = shared.old(&path, is_watch) {
                return old;
            }
        }
        Fault::None
        | Fault::Mute
        | Fault::OneInTen(_)
        | Fault::Gone
        | Fault::CutWatches(_)
        | Fault::HoldWatches
        | Fault::KeepLists
        | Fault::OldLists => {}
    }
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let response = match forward(&shared, request).await {
        Ok(response) => response,
        Err(error) => return (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    };
    if response.status() == StatusCode::GONE {
        shared.expired_lists.fetch_add(1, Ordering::SeqCst);
    }
    if !is_read && response.status().is_success() {
        let done = shared.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let hook = shared.hook.lock().take_if(|(at, _)| *at <= done);
        if let Some((_, hook)) = hook {
            hook();
        }
    }
    if fault == Fault::Mute {
        std::future::pending::<()>().await;
    }
    let (status, mut headers) = (response.status(), response.headers().clone());
    // The proxy frames the body anew.
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let body = match fault {
        Fault::KeepLists if is_read && !is_watch && is_first_page && status.is_success() => {
            match response.bytes().await {
                Ok(body) => {
                    shared.keep(path, headers.clone(), body.clone());
                    Body::from(body)
                }
                Err(error) => return (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
            }
        }
        fault if is_watch => watched(&shared, response, fault),
        Fault::None
        | Fault::Answer(..)
        | Fault::Hang
        | Fault::Mute
        | Fault::OneInTen(_)
        | Fault::Gone
        | Fault::CutWatches(_)
        | Fault::HoldWatches
        | Fault::KeepLists
        | Fault::OldLists => Body::from_stream(response.bytes_stream().map_err(std::io::Error::other)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A watch, until it is cut.
fn watched(shared: &Shared, response: reqwest::Response, fault: Fault) -> Body {
    let limit = if let Fault::CutWatches(after) = fault { after } else { Duration::from_secs(86_400) };
    let mut cut = shared.cut.subscribe();
    let ends = async move {
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            _ = cut.changed() => {}
        }
    };
    let broken = futures::stream::once(async { Err(std::io::Error::other("cut")) });
    let expired = shared.expired_watches.clone();
    let stream = response.bytes_stream().map_err(std::io::Error::other).inspect_ok(move |chunk| {
        if says_gone(chunk) {
            expired.fetch_add(1, Ordering::SeqCst);
        }
    });
    Body::from_stream(stream.take_until(Box::pin(ends)).chain(broken))
}

/// Whether a watch is told that it must begin anew. It is told so in one piece, at its beginning.
fn says_gone(chunk: &[u8]) -> bool {
    let event = serde_json::from_slice::<Value>(chunk).unwrap_or_default();
    event["type"] == "ERROR" && event["object"]["code"] == StatusCode::GONE.as_u16()
}

impl Shared {
    /// What one request meets.
    fn draw(&self, fault: Fault) -> Fault {
        let Fault::OneInTen(_) = fault else { return fault };
        let drawn = self.dice.lock().random_range(0..80);
        match drawn {
            0 | 1 => Fault::Answer(429, Some(1)),
            2 | 3 => Fault::Answer(500, None),
            4 | 5 => Fault::Answer(503, None),
            6 => Fault::Hang,
            7 => Fault::Mute,
            _ => Fault::None,
        }
    }

    fn keep(&self, path: String, headers: HeaderMap, body: Bytes) {
        let is_list = serde_json::from_slice::<Value>(&body).is_ok_and(|list| list["items"].is_array());
        if is_list {
            let mut lists = self.lists.lock();
            lists.answered.insert(path.clone());
            lists.kept.insert(path, Kept { headers, body });
        }
    }

    /// The list of earlier, or for a watch the word that it must be listed anew; `None` where this path has had it.
    fn old(&self, path: &str, is_watch: bool) -> Option<Response> {
        let mut lists = self.lists.lock();
        let kept = lists.kept.get(path).filter(|_| !lists.answered.contains(path)).cloned()?;
        if is_watch {
            return Some(gone());
        }
        lists.answered.insert(path.to_owned());
        self.old_lists.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(Body::from(kept.body));
        *response.headers_mut() = kept.headers;
        Some(response)
    }
}

async fn forward(shared: &Shared, request: Request) -> anyhow::Result<reqwest::Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await?;
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    // What is kept is read.
    headers.remove(header::ACCEPT_ENCODING);
    shared.passed_on.fetch_add(1, Ordering::SeqCst);
    let request = shared.client.request(parts.method, format!("{}{path}", shared.server)).headers(headers).body(body);
    Ok(request.send().await?)
}

/// A watch that ends with its first word, as the API server has it: its answer is 200, and the error is in the stream.
fn gone() -> Response {
    let event = json!({"type": "ERROR", "object": status(410)});
    ([(header::CONTENT_TYPE, "application/json")], format!("{event}\n")).into_response()
}

fn answer(code: u16, retry_after: Option<u32>) -> Response {
    let mut response = axum::Json(status(code)).into_response();
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// As the API server words it.
fn status(code: u16) -> Value {
    let reason = match code {
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": format!("the proxy answers {code}")})
}
