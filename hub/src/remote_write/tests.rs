//! Rounds into the real stores, and into one that has its bad days.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use active_monitor_core::fleet::FleetView;
use active_monitor_core::view::{CheckStatus, ClusterStatus};
use active_monitor_runtime::tasks::Tasks;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use prost::Message;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::message::WriteRequest;
use super::*;
use crate::metrics::tests::{check, cluster, fleet, mixed, sample};
use crate::owner::{self, Terms};
use crate::store::sqlite::SqliteStore;

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a program, or says that the test is skipped.
fn start(program: &str, args: &[String]) -> Option<Program> {
    let child = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let skipped =
        |error: &std::io::Error| crate::skip::report("remote write", &format!("{program} cannot be run: {error}"));
    child.map(Program).inspect_err(skipped).ok()
}

fn sender(url: &str) -> (Sender, RemoteWriteMetrics) {
    let metrics = RemoteWriteMetrics::new().unwrap();
    (Sender::new(url.parse().unwrap(), None, None, metrics.clone()).unwrap(), metrics)
}

/// Makes a round and hands it over.
async fn send(sender: &Sender, view: FleetView, previous: Option<Previous>) -> Previous {
    let mut batches = Vec::new();
    let exposition = HubMetrics::uncounted(Registry::new());
    let previous = round(&exposition, Arc::new(view), Timestamp::now(), previous, |batch| {
        batches.push(batch);
        true
    });
    for batch in batches {
        sender.send(batch).await;
    }
    previous
}

/// The values that a query has now, by cluster.
async fn query(base: &str, query: &str) -> Vec<(String, String)> {
    let url = Url::parse_with_params(&format!("{base}/api/v1/query"), [("query", query)]).unwrap();
    let Ok(answer) = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await else {
        return Vec::new();
    };
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let mut found: Vec<_> =
        series.iter().map(|one| (text(&one["metric"]["cluster"]), text(&one["value"][1]))).collect();
    found.sort();
    found
}

async fn until(base: &str, promql: &str, expected: &[(&str, &str)]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = query(base, promql).await;
        if found.iter().map(|(cluster, value)| (cluster.as_str(), value.as_str())).eq(expected.iter().copied()) {
            return;
        }
        assert!(Instant::now() < deadline, "{promql}: {found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Values are there, and end where a cluster is cut off or a check is gone; the states of the cut-off one stay.
async fn values_and_their_end(base: &str) {
    let (sender, metrics) = sender(&format!("{base}/api/v1/write"));
    let live = |name: &str| {
        let samples = vec![sample("latency_seconds", 0.25)];
        cluster(name, ClusterStatus::Connected, vec![check(name, "dns", CheckStatus::Succeeded, samples)])
    };
    let previous = send(&sender, fleet(vec![live("east"), live("south"), live("west")]), None).await;
    let all = [("east", "0.25"), ("south", "0.25"), ("west", "0.25")];
    until(base, "dns_latency_seconds", &all).await;
    until(
        base,
        "sum by (cluster) (healthcheck_success_count{workflow=\"healthCheck\"})",
        &[("east", "5"), ("south", "5"), ("west", "5")],
    )
    .await;

    let cut_off = cluster("west", ClusterStatus::Unreachable, vec![check("west", "dns", CheckStatus::Stale, vec![])]);
    let without = cluster("south", ClusterStatus::Connected, vec![]);
    send(&sender, fleet(vec![live("east"), without, cut_off]), Some(previous)).await;
    until(base, "dns_latency_seconds", &[("east", "0.25")]).await;
    until(base, "activemonitor_cluster_reachable", &[("east", "1"), ("south", "1"), ("west", "0")]).await;
    until(base, "activemonitor_check_status{status=\"Stale\"}", &[("west", "1")]).await;
    until(base, "activemonitor_check_status{cluster=\"south\"}", &[]).await;
    assert!(metrics.sent.get() > 50 && metrics.rejected.get() == 0, "{metrics:?}");
}

#[tokio::test]
async fn prometheus_takes_the_series_and_sees_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, "global: {}\n").unwrap();
    let args = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--web.enable-remote-write-receiver".to_owned(),
    ];
    let Some(_prometheus) = start("prometheus", &args) else { return };
    values_and_their_end(&format!("http://127.0.0.1:{port}")).await;
}

#[tokio::test]
async fn victoria_metrics_takes_the_series_and_sees_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let args = [
        format!("-storageDataPath={}", dir.path().display()),
        format!("-httpListenAddr=127.0.0.1:{port}"),
        "-search.latencyOffset=0s".to_owned(),
        "-search.disableCache".to_owned(),
    ];
    let Some(_victoria) = start("victoria-metrics", &args) else { return };
    values_and_their_end(&format!("http://127.0.0.1:{port}")).await;
}

#[test]
fn a_round_is_what_metrics_shows_and_comes_in_batches() {
    let exposition = HubMetrics::uncounted(Registry::new());
    let checks = (0..500).map(|n| check("east", &format!("c{n}"), CheckStatus::Succeeded, vec![sample("v", 1.0)]));
    let view = fleet(vec![cluster("east", ClusterStatus::Connected, checks.collect())]);
    let text: Vec<_> = exposition.exposition(&view, Timestamp::UNIX_EPOCH, crate::metrics::Wanted::all()).collect();
    let shown = String::from_utf8(text.concat()).unwrap().lines().filter(|line| !line.starts_with('#')).count();
    let mut sizes = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    let count = |batch: Batch| {
        let bytes = snap::raw::Decoder::new().decompress_vec(&batch.body).unwrap();
        let request = WriteRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(request.timeseries.len() as u64, batch.samples);
        names.extend(request.timeseries.into_iter().map(|series| format!("{:?}", series.labels)));
        sizes.push(batch.samples);
        true
    };
    let previous = round(&exposition, Arc::new(view), Timestamp::UNIX_EPOCH, None, count);
    assert_eq!((sizes[0], sizes.iter().sum::<u64>() as usize, names.len()), (5_000, shown, shown));

    // A fleet without them: everything ends once, and is then forgotten.
    let mut ended = 0;
    let gone = round(&exposition, Arc::new(fleet(vec![])), Timestamp::UNIX_EPOCH, Some(previous), |batch| {
        ended += batch.samples;
        true
    });
    assert_eq!(ended as usize, shown);
    let mut more = 0;
    round(&exposition, Arc::new(fleet(vec![])), Timestamp::UNIX_EPOCH, Some(gone), |batch| {
        more += batch.samples;
        true
    });
    assert_eq!(more, 0);
}

#[tokio::test]
async fn what_is_refused_for_now_comes_again_and_what_is_refused_for_good_is_counted() {
    // Not now, a pause of a second, taken; then never.
    async fn receive(
        State(calls): State<Arc<AtomicUsize>>,
        headers: HeaderMap,
    ) -> (StatusCode, [(&'static str, &'static str); 1]) {
        assert_eq!(headers["content-encoding"], "snappy");
        assert_eq!(headers["x-prometheus-remote-write-version"], "0.1.0");
        let status = match calls.fetch_add(1, Ordering::SeqCst) {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            1 => StatusCode::TOO_MANY_REQUESTS,
            2 => StatusCode::NO_CONTENT,
            _ => StatusCode::BAD_REQUEST,
        };
        (status, [("retry-after", "1")])
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/write", post(receive)).with_state(Arc::clone(&calls));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let (sender, metrics) = sender(&format!("http://{address}/write"));
    let began = Instant::now();
    let previous = send(&sender, mixed(), None).await;
    let sent = metrics.sent.get();
    assert_eq!((calls.load(Ordering::SeqCst), metrics.retries.get(), metrics.rejected.get()), (3, 2, 0));
    assert!(sent > 10 && began.elapsed() >= Duration::from_secs(2), "{sent} after {:?}", began.elapsed());
    send(&sender, mixed(), Some(previous)).await;
    assert_eq!((metrics.sent.get(), metrics.rejected.get()), (sent, sent));
    server.abort();
}

/// A store that is away holds no more than the queue, and the rounds that are left out are counted; when it is back, what
/// waited comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_costs_rounds_and_no_more_than_the_queue() {
    async fn receive(State(away): State<Arc<AtomicUsize>>) -> StatusCode {
        if away.load(Ordering::SeqCst) == 0 { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
    }
    let away = Arc::new(AtomicUsize::new(1));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/write", post(receive)).with_state(Arc::clone(&away));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let data = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    let tasks = Tasks::new();
    let fleet = owner::start(store, Terms::of_a_test(data.path()), &tasks).await.unwrap();
    let (sender, metrics) = sender(&format!("http://{address}/write"));
    let exposition = Arc::new(HubMetrics::uncounted(prometheus::default_registry().clone()));
    let interval = Duration::from_millis(5);
    let writer = RemoteWrite { interval, sender, metrics: metrics.clone(), exposition };
    // A hub without clusters has at least the series of its process.
    let counter = IntCounter::new("activemonitor_hub_test_total", "So that there is a series.").unwrap();
    prometheus::default_registry().register(Box::new(counter)).unwrap();
    let run = tokio::spawn(writer.run(fleet, tasks.stop_token()));

    let reached = async |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: {metrics:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    reached("rounds are left out", &|| metrics.skipped.get() > 10 && metrics.queued.get() > 60).await;
    assert!(metrics.queued.get() <= i64::try_from(QUEUE).unwrap(), "{metrics:?}");
    assert_eq!((metrics.sent.get(), metrics.rejected.get()), (0, 0));
    away.store(0, Ordering::SeqCst);
    reached("what waited comes", &|| metrics.sent.get() > u64::try_from(QUEUE).unwrap()).await;
    assert_eq!(metrics.rejected.get(), 0);
    tasks.stop();
    run.await.unwrap().unwrap();
    server.abort();
}

/// A store behind TLS, with a certificate of its own making, that takes what comes with one token.
struct Guarded {
    url: String,
    wanted: Arc<Mutex<String>>,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    /// What was asked with, taken or not.
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

/// Who says that it is `localhost`, and what it is known by.
fn certificate() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

impl Guarded {
    /// And what it is known by.
    async fn start() -> (Guarded, String) {
        let (acceptor, pem) = certificate();
        let (acceptor, asked) = (Arc::new(Mutex::new(acceptor)), Arc::<Mutex<Vec<String>>>::default());
        let wanted = Arc::<Mutex<String>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/write", listener.local_addr().unwrap().port());
        let receive = {
            let (wanted, asked) = (Arc::clone(&wanted), Arc::clone(&asked));
            async move |headers: HeaderMap| {
                let token = headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
                let is_wanted = token == format!("Bearer {}", wanted.lock());
                asked.lock().push(token);
                let status = if is_wanted { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED };
                // So that each request shows the certificate.
                (status, [("connection", "close")])
            }
        };
        let router = Router::new().route("/write", post(receive));
        let current = Arc::clone(&acceptor);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (current.lock().clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = TowerToHyperService::new(router);
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (Guarded { url, wanted, acceptor, asked, _task: AbortOnDropHandle::new(task) }, pem)
    }

    fn wants(&self, token: &str) {
        token.clone_into(&mut self.wanted.lock());
    }
}

#[tokio::test]
async fn the_store_is_known_by_its_certificate_and_asks_for_a_token_and_both_files_may_change() {
    active_monitor_runtime::tls::install_crypto_provider();
    let (store, pem) = Guarded::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (token, ca) = (dir.path().join("token"), dir.path().join("ca.crt"));
    let write = |path: &std::path::Path, text: &str| std::fs::write(path, text).unwrap();
    let metrics = RemoteWriteMetrics::new().unwrap();
    let sender = || Sender::new(store.url.parse().unwrap(), Some(token.clone()), Some(&ca), metrics.clone());
    assert!(matches!(sender().err(), Some(SenderError::Read { .. })), "there is no file");
    write(&ca, "-----BEGIN NOTHING-----");
    assert!(matches!(sender().err(), Some(SenderError::NoCertificate { .. })));
    write(&ca, &pem);
    let sender = sender().unwrap();
    let retried = async |before: u64| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while metrics.retries.get() == before {
            assert!(Instant::now() < deadline, "nothing is tried again: {metrics:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };

    // The token comes later than the hub, and is then another.
    store.wants("first");
    let (mut previous, ()) = tokio::join!(send(&sender, mixed(), None), async {
        retried(0).await;
        assert_eq!(*store.asked.lock(), Vec::<String>::new(), "nobody is asked without a token");
        write(&token, "first\n");
    });
    store.wants("second");
    write(&token, "second");
    previous = send(&sender, mixed(), Some(previous)).await;
    assert_eq!(*store.asked.lock(), ["Bearer first", "Bearer second"]);
    let sent = metrics.sent.get();
    assert!(sent > 20 && metrics.rejected.get() == 0, "{metrics:?}");

    // The store has another certificate before the hub knows of it: what comes meanwhile waits.
    let (acceptor, pem) = certificate();
    *store.acceptor.lock() = acceptor;
    let before = metrics.retries.get();
    (previous, ()) = tokio::join!(send(&sender, mixed(), Some(previous)), async {
        retried(before).await;
        assert_eq!(store.asked.lock().len(), 2, "nothing is said to a stranger");
        write(&ca, &pem);
    });
    assert!(metrics.sent.get() > sent && metrics.rejected.get() == 0, "{metrics:?}");

    // A file that is half written, or gone, changes nothing.
    let before = metrics.retries.get();
    for text in [Some("-----BEGIN CERTIFICATE-----"), None] {
        text.map_or_else(|| std::fs::remove_file(&ca).unwrap(), |text| write(&ca, text));
        previous = send(&sender, mixed(), Some(previous)).await;
    }
    assert_eq!((metrics.retries.get(), store.asked.lock().len()), (before, 5));

    // A token that is not taken costs what was sent with it, which is counted.
    write(&token, "wrong");
    send(&sender, mixed(), Some(previous)).await;
    assert!(metrics.rejected.get() > 10, "{metrics:?}");
}
