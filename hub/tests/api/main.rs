//! The people's side of the hub from the outside: the router in this process, over a real owner and SQLite store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alert_routes;
mod sessions;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::health::Health;
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::state::{CheckState, DefinitionRef, Phase, Sample, Totals};
use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{CheckStatus, PendingEnrolment, Restore, Role};
use active_monitor_hub::auth::oidc::Oidc;
use active_monitor_hub::authority::Authority;
use active_monitor_hub::incidents::{self, IncidentMetrics};
use active_monitor_hub::owner::{self, Terms};
use active_monitor_hub::revocations::Revocations;
use active_monitor_hub::source::{Source, SourceArgs};
use active_monitor_hub::store::sqlite::SqliteStore;
use active_monitor_hub::store::{ApiToken, CheckKey, ClusterRecord, EnrolmentToken, Store};
use active_monitor_hub::{AppState, api, auth, ca};
use active_monitor_runtime::tasks::Tasks;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tower::ServiceExt;

const VIEWER: &str = "amf_viewer";
const OPERATOR: &str = "amf_operator";
const ADMIN: &str = "amf_admin";

/// A hub with one cluster, `east`, two checks and three runs in it, and a token for each role.
struct Hub {
    router: Router,
    store: Arc<SqliteStore>,
    tasks: Tasks,
    directory: Option<tempfile::TempDir>,
}

/// What was answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// What the problem says, after looking at its form.
    fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(!problem["title"].as_str().unwrap().is_empty());
        problem["detail"].as_str().unwrap().to_owned()
    }
}

impl Hub {
    async fn start() -> Hub {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(directory.path()).await.unwrap());
        for (text, role) in [(VIEWER, Role::Viewer), (OPERATOR, Role::Operator), (ADMIN, Role::Admin)] {
            let (name, created_at) = (text.trim_start_matches("amf_").to_owned(), time(0));
            store.put_api_token(&ApiToken { name, role, hash: auth::hash(text), created_at }).await.unwrap();
        }
        let east = ClusterRecord {
            name: "east".to_owned(),
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            annotations: [("url".to_owned(), "https://east".to_owned())].into(),
            cluster_uid: Some("uid-east".to_owned()),
            created_at: time(0),
            ..ClusterRecord::default()
        };
        store.put_cluster(&east).await.unwrap();
        store
            .save_check_states("east", vec![(check("dns"), shaky()), (check("web"), Health::default())], Vec::new())
            .await
            .unwrap();
        let runs = vec![run("dns", 100, None), run("dns", 200, Some(Reason::WorkflowFailed)), run("web", 100, None)];
        store.record_runs("east", runs, time(300)).await.unwrap();

        Hub::over(store, directory, SourceArgs::default()).await
    }

    /// A hub over what is stored.
    async fn over(store: Arc<SqliteStore>, directory: tempfile::TempDir, git: SourceArgs) -> Hub {
        Hub::with(store, directory, git, None).await
    }

    async fn with(
        store: Arc<SqliteStore>,
        directory: tempfile::TempDir,
        git: SourceArgs,
        oidc: Option<Arc<Oidc>>,
    ) -> Hub {
        let tasks = Tasks::new();
        let authority = Authority::load(directory.path(), ca::AGENT_LIFE, Timestamp::now()).unwrap();
        let authority = Arc::new(authority);
        let terms = Terms {
            lease: Duration::from_secs(15),
            authority: authority.clone(),
            agent_address: "hub:7443".to_owned(),
            enrolment_address: "hub:7444".to_owned(),
            peers: None,
            restore_unconfirmed: prometheus::IntGauge::new("unconfirmed", "1 or 0").unwrap(),
            revocations: Arc::new(Revocations::load(&directory.path().join("revoked.json")).unwrap()),
        };
        let fleet = owner::start(store.clone(), terms, &tasks).await.unwrap();
        let registry = prometheus::Registry::new();
        let metrics = IncidentMetrics::new().unwrap();
        let incidents = incidents::start(store.clone(), fleet.clone(), metrics, &tasks).await.unwrap();
        let source = Source::load(git, store.as_ref()).await.unwrap();
        source.release(store.as_ref()).await.unwrap();
        let source = Arc::new(source);
        // Where a test writes one.
        let routes_file = Some(directory.path().join("routes.yaml")).filter(|file| file.exists());
        let app = AppState {
            fleet,
            store: store.clone(),
            incidents,
            authority,
            oidc,
            source,
            routes_file,
            registry,
            secure_cookies: true,
        };
        Hub { router: api::router(app), store, tasks, directory: Some(directory) }
    }

    /// Another life over the same store.
    async fn restart(self) -> Hub {
        self.restart_with(SourceArgs::default()).await
    }

    async fn restart_with(mut self, git: SourceArgs) -> Hub {
        let directory = self.directory.take().unwrap();
        self.tasks.stop();
        Hub::over(self.store.clone(), directory, git).await
    }

    async fn router_call(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router_call(request).await;
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 16 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn call(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
        self.send(request(method, path, token, body)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, VIEWER, None).await
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// An empty token sends none.
fn request(method: Method, path: &str, token: &str, body: Option<Value>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    match body {
        Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    }
    .unwrap()
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn check(name: &str) -> CheckState {
    CheckState {
        uid: format!("uid-{name}"),
        namespace: "health".to_owned(),
        name: name.to_owned(),
        description: String::new(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: "@every 60s".to_owned(),
        running: None,
        next_slot: Some(time(1_000)),
        timeout_seconds: 30,
        check: Totals { succeeded: 5, failed: 2, started_at: Some(time(900)), finished_at: Some(time(912)) },
        remedy: None,
        remedy_status: String::new(),
        samples: vec![Sample { metric: "latency".to_owned(), help: String::new(), value: 0.5 }],
        refused_samples: 0,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
        definition: None,
    }
}

fn shaky() -> Health {
    serde_json::from_value(json!({"recent": "SFSFSFS", "flapping": true, "changePercent": 33.9})).unwrap()
}

fn run(name: &str, slot: i64, reason: Option<Reason>) -> Run {
    Run {
        key: RunKey { check_uid: format!("uid-{name}"), kind: RunKind::HealthCheck, slot: time(slot) },
        namespace: "health".to_owned(),
        name: name.to_owned(),
        workflow: None,
        outcome: if reason.is_some() { Outcome::Failed } else { Outcome::Succeeded },
        reason,
        message: String::new(),
        started_at: time(slot),
        finished_at: time(slot + 5),
        warning: String::new(),
        log_tail: String::new(),
    }
}

fn definition(name: &str, env: &str) -> Value {
    json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck", "metadata": {"name": name},
        "spec": {
            "clusterSelector": {"matchLabels": {"env": env}},
            "template": {"metadata": {"namespace": "health"}, "spec": {"text": "${cluster.annotations.url}"}},
        },
    })
}

#[tokio::test]
async fn each_call_needs_its_role() {
    let hub = Hub::start().await;
    let (get, post, put, patch, delete) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let calls = [
        (&get, "/api/v1/me", None, VIEWER),
        (&get, "/api/v1/fleet", None, VIEWER),
        (&get, "/api/v1/clusters", None, VIEWER),
        (&get, "/api/v1/clusters/east", None, VIEWER),
        (&get, "/api/v1/checks", None, VIEWER),
        (&get, "/api/v1/clusters/east/checks/health/dns", None, VIEWER),
        (&get, "/api/v1/incidents", None, VIEWER),
        (&get, "/api/v1/windows", None, VIEWER),
        (&put, "/api/v1/windows/w", Some(json!({"name": "w", "cron": "@daily", "durationSeconds": 60})), OPERATOR),
        (
            &put,
            "/api/v1/clusters/east/checks/health/dns/acknowledgement",
            Some(json!({"expiresInSeconds": 60})),
            OPERATOR,
        ),
        (&get, "/api/v1/runs", None, VIEWER),
        (&get, "/api/v1/uptime", None, VIEWER),
        (&get, "/api/v1/changes", None, VIEWER),
        (&get, "/api/v1/definitions", None, VIEWER),
        (&get, "/api/v1/definitions/kept", None, VIEWER),
        (&post, "/api/v1/definitions/preview", Some(definition("x", "prod")), VIEWER),
        (&post, "/api/v1/routes/preview", Some(json!({"text": "routes: []"})), VIEWER),
        (&get, "/metrics", None, VIEWER),
        (&get, "/federate?match[]=up", None, VIEWER),
        (&patch, "/api/v1/clusters/east", Some(json!({"labels": {"a": "b"}})), OPERATOR),
        (&put, "/api/v1/definitions/kept", Some(definition("kept", "dev")), OPERATOR),
        (&delete, "/api/v1/definitions/gone", None, OPERATOR),
        (&post, "/api/v1/commands", Some(json!({"action": "resume", "clusters": ["east"]})), OPERATOR),
        (&post, "/api/v1/clusters", Some(json!({"name": "new"})), ADMIN),
        (&delete, "/api/v1/clusters/gone", None, ADMIN),
        (&post, "/api/v1/clusters/east/token", None, ADMIN),
        (&post, "/api/v1/clusters/east/rebind", None, ADMIN),
        (&get, "/api/v1/tokens", None, ADMIN),
        (&post, "/api/v1/tokens", Some(json!({"name": "new", "role": "viewer"})), ADMIN),
        (&get, "/api/v1/windows/w", None, VIEWER),
        (&get, "/api/v1/audit", None, ADMIN),
    ];
    let rank = |token: &str| [VIEWER, OPERATOR, ADMIN].iter().position(|t| *t == token);
    for name in ["kept", "gone"] {
        let path = format!("/api/v1/definitions/{name}");
        let answer = hub.call(Method::PUT, &path, ADMIN, Some(definition(name, "dev"))).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    }
    for (method, path, body, needed) in calls {
        for token in ["", "amf_wrong", VIEWER, OPERATOR, ADMIN] {
            hub.call(Method::PUT, "/api/v1/definitions/gone", ADMIN, Some(definition("gone", "dev"))).await;
            hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "gone"}))).await;
            let answer = hub.call(method.clone(), path, token, body.clone()).await;
            let context = format!("{method} {path} {token}: {} {}", answer.status, answer.text);
            if rank(token).is_none() {
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{context}");
                assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
                answer.problem();
            } else if rank(token) < rank(needed) {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{context}");
                answer.problem();
            } else {
                assert!(answer.status.is_success(), "{context}");
            }
        }
    }
    let open = hub.call(Method::GET, "/api/v1/openapi.json", "", None).await;
    assert_eq!((open.status, open.json()["openapi"].as_str()), (StatusCode::OK, Some("3.1.0")));
    for token in ["", "amf_wrong"] {
        assert_eq!(hub.call(Method::GET, "/api/v1/events", token, None).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn an_admin_decides_upon_the_key_that_waits_and_upon_no_other() {
    let hub = Hub::start().await;
    let approve = async |token: &str, path: &str, key: &str| {
        let path = format!("/api/v1/clusters/{path}");
        hub.call(Method::POST, &path, token, Some(json!({"keyFingerprint": key}))).await
    };
    for path in ["east/approve", "east/deny"] {
        assert_eq!(approve(OPERATOR, path, "ab").await.status, StatusCode::FORBIDDEN);
        let none = approve(ADMIN, path, "ab").await;
        assert_eq!(
            (none.status, none.problem().as_str()),
            (StatusCode::CONFLICT, "no agent waits for approval as east")
        );
    }
    assert_eq!(approve(ADMIN, "none/approve", "ab").await.status, StatusCode::NOT_FOUND);
    let pending = PendingEnrolment {
        key_fingerprint: "ab".into(),
        cluster_uid: "uid-east".into(),
        since: time(0),
        expires_at: Timestamp::from_microsecond(Timestamp::now().as_microsecond() + 60_000_000).unwrap(),
        decision: None,
    };
    let token = EnrolmentToken { hash: [1; 32], expires_at: pending.expires_at, spent_by: None };
    hub.store.put_enrolment_token("east", &token).await.unwrap();
    hub.store.put_pending_enrolment("east", &pending).await.unwrap();
    let hub = hub.restart().await;
    let answer =
        hub.call(Method::POST, "/api/v1/clusters/east/approve", ADMIN, Some(json!({"keyFingerprint": "cd"}))).await;
    assert_eq!(answer.problem(), "keyFingerprint: the key that waits as east is ab");
    let answer =
        hub.call(Method::POST, "/api/v1/clusters/east/approve", ADMIN, Some(json!({"keyFingerprint": "ab"}))).await;
    assert_eq!(answer.json()["pendingEnrolment"]["decision"], "Approved", "{}", answer.text);
    let log = hub.call(Method::GET, "/api/v1/audit", ADMIN, None).await.json();
    assert_eq!(
        (&log["items"][0]["action"], &log["items"][0]["object"]),
        (&json!("cluster.approve"), &json!("east: the key ab"))
    );
}

#[tokio::test]
async fn every_error_is_a_problem_that_says_what_is_wrong() {
    let hub = Hub::start().await;
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let mut long = definition("d", "prod");
    long["spec"]["template"]["spec"]["text"] = json!("x".repeat(300 * 1024));
    let mut unknown = definition("d", "prod");
    unknown["spec"]["clusterSelector"] = json!({"matchLabel": {}});
    let mut invalid = definition("d", "prod");
    invalid["spec"]["template"]["metadata"]["namespace"] = json!("Upper");
    for (method, path, body, status, detail) in [
        (&get, "/api/v1/nothing", None, 404, "/api/v1/nothing"),
        (&get, "/api", None, 404, "/api"),
        (&Method::DELETE, "/api/v1/fleet", None, 405, "Allow"),
        (&get, "/api/v1/clusters/none", None, 404, "there is no cluster none"),
        (&get, "/api/v1/clusters/east/checks/health/none", None, 404, "no check none in namespace health"),
        (&get, "/api/v1/clusters/none/checks/health/dns", None, 404, "there is no cluster none"),
        (&get, "/api/v1/definitions/none", None, 404, "there is no definition none"),
        (&get, "/api/v1/checks?status=Bad", None, 400, "status: unknown variant `Bad`, expected one of `Failed`"),
        (&get, "/api/v1/checks?clustr=east", None, 400, "unknown field `clustr`, expected one of `cluster`"),
        (&get, "/api/v1/incidents?kind=Both", None, 400, "unknown variant `Both`"),
        (&get, "/api/v1/incidents?limit=0", None, 400, "must be a whole number from 1 to 1000"),
        (&put, "/api/v1/windows/a", Some(json!({"name": "b"})), 422, "name must be \"a\", as in the path"),
        (&put, "/api/v1/windows/a", Some(json!({"name": "a"})), 422, "give from and to, or cron and durationSeconds"),
        (&put, "/api/v1/windows/a", Some(json!({"name": "a", "corn": ""})), 422, "unknown field `corn`"),
        (&Method::DELETE, "/api/v1/windows/none", None, 404, "there is no window none"),
        (
            &put,
            "/api/v1/clusters/east/checks/health/none/acknowledgement",
            Some(json!({"expiresInSeconds": 60})),
            404,
            "no check none",
        ),
        (
            &put,
            "/api/v1/clusters/east/checks/health/dns/acknowledgement",
            Some(json!({"expiresInSeconds": 0})),
            422,
            "expiresInSeconds must be from 1 to 2678400",
        ),
        (&get, "/metrics?cluster=none", None, 404, "there is no cluster none"),
        (&get, "/metrics?clusters=east", None, 400, "unknown field `clusters`"),
        (&get, "/metrics?only=hub&cluster=east", None, 400, "only=hub goes with no other part"),
        (&get, "/federate", None, 400, "match[]: give 1 to 100 selectors"),
        (&get, "/federate?match[]=up&x=1", None, 400, "unknown field `x`, expected `match[]`"),
        (&get, "/federate?match[]=sum(up)", None, 400, "match[]: \"sum(up)\": '{' is expected before"),
        (&get, "/api/v1/uptime?window=91d", None, 400, "window: must be a number of hours or days from 1h to 90d"),
        (&get, "/api/v1/uptime?by=region", None, 400, "by: must be check, cluster, fleet or label.KEY"),
        (&get, "/api/v1/uptime?selector=a%20b", None, 400, "selector: the key in"),
        (&get, "/api/v1/runs?limit=0", None, 400, "limit: must be a whole number from 1 to 1000"),
        (&get, "/api/v1/runs?limit=1001", None, 400, "limit: must be a whole number from 1 to 1000"),
        (&get, "/api/v1/runs?before=x", None, 400, "before: must be a whole number"),
        (&get, "/api/v1/runs?kind=other", None, 400, "kind: unknown variant `other`"),
        (&post, "/api/v1/clusters", Some(json!({"name": 5})), 422, "name: invalid type"),
        (&post, "/api/v1/clusters", Some(json!({"nam": "x"})), 422, "unknown field `nam`"),
        (&post, "/api/v1/clusters", Some(json!({"name": "Upper"})), 422, "name"),
        (&post, "/api/v1/clusters", Some(json!({"name": "a", "labels": {"a b": ""}})), 422, "labels[a b]"),
        (&Method::PATCH, "/api/v1/clusters/east", Some(json!({"labels": {"a": "b c"}})), 422, "labels[a]"),
        (&Method::PATCH, "/api/v1/clusters/none", Some(json!({})), 404, "cluster none"),
        (&Method::DELETE, "/api/v1/clusters/none", None, 404, "cluster none"),
        (&Method::DELETE, "/api/v1/definitions/none", None, 404, "definition none"),
        (&put, "/api/v1/definitions/d", None, 415, "application/json or application/yaml"),
        (&put, "/api/v1/definitions/other", Some(definition("d", "prod")), 422, "metadata.name"),
        (&put, "/api/v1/definitions/d", Some(unknown), 422, "spec.clusterSelector.matchLabel: unknown field"),
        (&put, "/api/v1/definitions/d", Some(invalid), 422, "spec.template.metadata.namespace: must be"),
        (&put, "/api/v1/definitions/d", Some(long), 413, "262144 are allowed"),
        (&put, "/api/v1/definitions/d", Some(json!("x".repeat(2 << 20))), 413, "length limit"),
        (&post, "/api/v1/definitions/preview", Some(json!({})), 422, "missing field `apiVersion`"),
    ] {
        let answer = hub.call(method.clone(), path, ADMIN, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        let said = answer.problem();
        assert!(said.contains(detail), "{method} {path}: {said}");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    }
    let bad = Request::post("/api/v1/clusters").header(header::AUTHORIZATION, format!("Bearer {ADMIN}"));
    let bad = bad.header(header::CONTENT_TYPE, "application/json").body(Body::from("{\"name\": ")).unwrap();
    let answer = hub.send(bad).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.problem().contains("line 1"), "{}", answer.text);
}

#[tokio::test]
async fn what_is_stored_is_shown() {
    let hub = Hub::start().await;
    assert_eq!(hub.get("/api/v1/me").await.json(), json!({"name": "viewer", "role": "viewer"}));
    let fleet = hub.get("/api/v1/fleet").await.json();
    assert_eq!((&fleet["clusters"]["Unreachable"], &fleet["checks"]["Failed"]), (&json!(0), &json!(0)), "{fleet}");
    let clusters = hub.get("/api/v1/clusters").await.json();
    assert_eq!(clusters["items"][0], hub.get("/api/v1/clusters/east").await.json());
    assert_eq!(clusters["items"][0]["labels"], json!({"env": "prod"}));
    let names = |answer: &Answer| -> Vec<String> {
        answer.json()["items"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("", vec!["dns", "web"]),
        ("?cluster=east&namespace=health", vec!["dns", "web"]),
        ("?name=web", vec!["web"]),
        ("?cluster=west", vec![]),
        ("?status=Succeeded", vec![]),
        ("?namespace=other", vec![]),
    ] {
        assert_eq!(names(&hub.get(&format!("/api/v1/checks{query}")).await), expected, "{query}");
    }
    let check = hub.get("/api/v1/clusters/east/checks/health/dns").await.json();
    assert_eq!((&check["cluster"], &check["uid"]), (&json!("east"), &json!("uid-dns")));
    assert_eq!((&check["health"]["recent"], &check["health"]["flapping"]), (&json!("SFSFSFS"), &json!(true)));

    let first = hub.get("/api/v1/runs?limit=2").await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["items"][0]["name"], "web");
    let second = hub.get(&format!("/api/v1/runs?limit=2&before={}", first["next"])).await.json();
    assert_eq!((second["items"].as_array().unwrap().len(), &second["next"]), (1, &Value::Null));
    let failed = hub.get("/api/v1/runs?cluster=east&name=dns&outcome=Failed&kind=healthCheck").await.json();
    assert_eq!(
        (&failed["items"][0]["reason"], failed["items"].as_array().unwrap().len()),
        (&json!("WorkflowFailed"), 1)
    );

    let metrics = hub.get("/metrics").await;
    assert!(metrics.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let line = "activemonitor_check_healthy{cluster=\"east\",namespace=\"health\",healthcheck_name=\"dns\"} 0\n";
    assert!(metrics.text.contains(line), "{}", metrics.text);
    assert!(!metrics.text.contains("healthcheck_success_count{"), "{}", metrics.text);
}

#[tokio::test]
async fn a_central_prometheus_finds_every_part_of_the_fleet_once() {
    let hub = Hub::start().await;
    hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "west", "labels": {"a.b/c-d": "x"}}))).await;
    let mut ask = request(Method::GET, "/api/v1/sd/prometheus", VIEWER, None);
    ask.headers_mut().insert(header::HOST, "hub.example.com:8443".parse().unwrap());
    let groups = hub.send(ask).await;
    assert_eq!(groups.headers[header::CONTENT_TYPE], "application/json");
    let groups = groups.json();
    let target = json!(["hub.example.com:8443"]);
    let fixed = |mut labels: Value| {
        labels["__scheme__"] = json!("https");
        labels["__metrics_path__"] = json!("/metrics");
        json!({"targets": target, "labels": labels})
    };
    let cluster = |name: &str, label: &str, value: &str| {
        let mut labels = json!({"cluster": name, "__param_cluster": name, "__meta_activemonitor_cluster": name});
        labels[label] = json!(value);
        fixed(labels)
    };
    let expected = json!([
        cluster("east", "__meta_activemonitor_label_env", "prod"),
        cluster("west", "__meta_activemonitor_label_a_b_c_d", "x"),
        fixed(json!({"__param_only": "hub"})),
    ]);
    assert_eq!(groups, expected);
    assert_eq!(hub.get("/api/v1/sd/prometheus").await.status, StatusCode::UNPROCESSABLE_ENTITY, "no Host");

    let names = |answer: &Answer| -> Vec<String> {
        let lines = answer.text.lines().filter(|line| line.starts_with("activemonitor_cluster_reachable{"));
        lines.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(names(&hub.get("/metrics").await), ["east", "west"]);
    let east = hub.get("/metrics?cluster=east").await;
    assert!(names(&east) == ["east"] && !east.text.contains("process_"), "{}", east.text);
    assert_eq!(names(&hub.get("/metrics?selector=env%20in%20(prod,dev)").await), ["east"]);
    assert_eq!(names(&hub.get("/metrics?selector=!env").await), ["west"]);
    let own = hub.get("/metrics?only=hub").await;
    assert!(names(&own).is_empty() && own.text.contains("process_start_time_seconds"), "{}", own.text);
    let query = "match[]=activemonitor_cluster_reachable%7Bcluster%3D%22west%22%7D&match[]=nothing";
    let federated = hub.get(&format!("/federate?{query}")).await;
    assert!(federated.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let lines: Vec<_> = federated.text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["activemonitor_cluster_reachable{cluster=\"west\"} 0"]);
}

#[tokio::test]
async fn windows_and_acknowledgements_are_kept_over_a_restart() {
    let hub = Hub::start().await;
    let window = json!({"name": "patch-day", "selector": "env=prod", "check": "dns", "cron": "* * * * *",
        "timeZone": "Europe/Berlin", "durationSeconds": 3600, "comment": "kernel"});
    let put = |name: &'static str, body: Value| hub.call(Method::PUT, name, OPERATOR, Some(body));
    let made = put("/api/v1/windows/patch-day", window.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(put("/api/v1/windows/patch-day", window.clone()).await.status, StatusCode::OK);
    let listed = hub.get("/api/v1/windows").await.json();
    assert_eq!((&listed["items"][0]["cron"], &listed["items"][1]), (&window["cron"], &Value::Null));
    assert!(listed["items"][0]["openUntil"].is_string(), "{listed}");
    let (dns, web) = ("/api/v1/clusters/east/checks/health/dns", "/api/v1/clusters/east/checks/health/web");
    assert_eq!(hub.get(dns).await.json()["care"], json!({"maintenance": "patch-day"}));
    assert_eq!(hub.get(web).await.json()["care"], Value::Null);

    let known = json!({"comment": "ticket 7", "expiresInSeconds": 3600});
    let acknowledged = put("/api/v1/clusters/east/checks/health/web/acknowledgement", known).await;
    assert_eq!(acknowledged.status, StatusCode::OK, "{}", acknowledged.text);
    let care = acknowledged.json()["care"]["acknowledgement"].clone();
    assert_eq!((&care["by"], &care["comment"]), (&json!("operator"), &json!("ticket 7")));
    let metrics = hub.get("/metrics?cluster=east").await.text;
    for (family, name, value) in [("maintenance", "dns", 1), ("maintenance", "web", 0), ("acknowledged", "web", 1)] {
        let line = format!(
            "activemonitor_check_{family}{{cluster=\"east\",namespace=\"health\",healthcheck_name=\"{name}\"}} {value}\n"
        );
        assert!(metrics.contains(&line), "{line}");
    }

    let hub = hub.restart().await;
    assert_eq!(hub.get(web).await.json()["care"]["acknowledgement"], care);
    assert_eq!(hub.get(dns).await.json()["care"]["maintenance"], "patch-day");
    let delete = |path: &'static str| hub.call(Method::DELETE, path, OPERATOR, None);
    let ack = "/api/v1/clusters/east/checks/health/web/acknowledgement";
    assert_eq!(delete(ack).await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete(ack).await.problem(), "east/health/web is not acknowledged");
    assert_eq!(delete("/api/v1/windows/patch-day").await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete("/api/v1/windows/patch-day").await.problem(), "there is no window patch-day");
    for path in [dns, web] {
        assert_eq!(hub.get(path).await.json()["care"], Value::Null);
    }
    let log = hub.store.audit_log(10).await.unwrap();
    let lines: Vec<_> = log.iter().map(|line| (line.action.as_str(), line.object.as_str())).collect();
    assert_eq!(
        lines,
        [
            ("window.delete", "patch-day"),
            ("check.unacknowledge", "east/health/web"),
            ("check.acknowledge", "east/health/web"),
            ("window.put", "patch-day"),
            ("window.put", "patch-day")
        ]
    );
}

fn close_to(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - expected).abs() < expected.abs().max(1.0) * 0.01)
}

#[tokio::test]
async fn uptime_is_summed_up_by_check_cluster_and_label() {
    use CheckStatus::{Failed, Overdue, Stale, Succeeded};
    let hub = Hub::start().await;
    let minutes_ago = |minutes: i64| Timestamp::now() - SignedDuration::from_mins(minutes);
    let steps = [
        ("east", "dns", 120, Some(Succeeded)),
        ("east", "dns", 30, Some(Failed)),
        ("east", "dns", 20, Some(Succeeded)),
        ("east", "web", 120, Some(Succeeded)),
        // Runs that did not happen.
        ("east", "web", 6, Some(Overdue)),
        ("gone", "dns", 40, Some(Stale)),
        ("gone", "dns", 10, None),
    ];
    let steps = steps.map(|(cluster, name, ago, status)| {
        let key = CheckKey { cluster: cluster.into(), namespace: "health".into(), name: name.into() };
        (key, Transition { at: minutes_ago(ago), status, maintenance: false })
    });
    let life = Life { from: minutes_ago(121), to: Timestamp::now() };
    hub.store.record_transitions(life, steps.to_vec()).await.unwrap();

    let page = hub.get("/api/v1/uptime?window=1h").await.json();
    assert_eq!(page["total"], 3, "{page:#}");
    let of = |page: &Value, n: usize| -> (String, Value) {
        let item = &page["items"][n];
        let text = |key: &str| item[key].as_str().unwrap_or("-").to_owned();
        (format!("{}/{}", text("cluster"), text("name")), item.clone())
    };
    let (dns, item) = of(&page, 0);
    assert_eq!((dns.as_str(), &item["outages"], &item["checks"]), ("east/dns", &json!(1), &json!(1)));
    assert!(close_to(&item["ratio"], 50.0 / 60.0) && close_to(&item["downSeconds"], 600.0), "{item}");
    let (web, item) = of(&page, 1);
    assert_eq!((web.as_str(), &item["outages"]), ("east/web", &json!(1)));
    assert!(close_to(&item["ratio"], 54.0 / 60.0), "{item}");
    let (gone, item) = of(&page, 2);
    assert_eq!((gone.as_str(), &item["ratio"]), ("gone/dns", &Value::Null));
    assert!(close_to(&item["unknownSeconds"], 1800.0), "what nobody knew is neither up nor down: {item}");

    // An hour at 75 % may be down for 15 minutes; what nobody knew of a check has no budget.
    let page = hub.get("/api/v1/uptime?window=1h&objective=75").await.json();
    let budgets: Vec<_> = (0..3).map(|n| page["items"][n]["budget"].clone()).collect();
    assert!(close_to(&budgets[0]["seconds"], 900.0) && close_to(&budgets[0]["leftSeconds"], 300.0), "{page:#}");
    assert!(close_to(&budgets[1]["leftSeconds"], 900.0 - 360.0) && budgets[2].is_null(), "{page:#}");
    let rolled = hub.get("/api/v1/uptime?window=1h&by=cluster&objective=90").await.json();
    assert!(close_to(&rolled["items"][0]["budget"]["leftSeconds"], 720.0 - 960.0), "overspent: {rolled:#}");
    let bad = hub.get("/api/v1/uptime?objective=100").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(bad.json()["detail"].as_str().unwrap().contains("objective"), "{}", bad.json());

    // One check alone, from the middle of its failure on: the same walk by another query.
    let one = hub.get("/api/v1/uptime?window=1h&cluster=east&namespace=health&name=dns").await.json();
    assert_eq!((&one["total"], &one["items"][0]["outages"]), (&json!(1), &json!(1)));
    assert!(close_to(&one["items"][0]["ratio"], 50.0 / 60.0), "{one}");
    let rolled = hub.get("/api/v1/uptime?window=1h&by=cluster").await.json();
    assert_eq!((of(&rolled, 0).0.as_str(), &rolled["items"][0]["checks"]), ("east/-", &json!(2)));
    assert!(close_to(&rolled["items"][0]["ratio"], 104.0 / 120.0), "{rolled}");
    let rolled = hub.get("/api/v1/uptime?window=1h&by=label.env").await.json();
    let labels = [&rolled["items"][0]["label"], &rolled["items"][1]["label"]];
    assert_eq!((labels, &rolled["total"]), ([&json!("prod"), &json!("")], &json!(2)));
    let fleet = hub.get("/api/v1/uptime?window=1h&by=fleet&selector=env%3Dprod").await.json();
    assert_eq!((&fleet["total"], &fleet["items"][0]["checks"]), (&json!(1), &json!(2)));
    assert_eq!(hub.get("/api/v1/uptime?selector=env%3Ddev").await.json()["total"], 0);
    let limited = hub.get("/api/v1/uptime?window=1h&limit=1").await.json();
    assert_eq!((limited["items"].as_array().unwrap().len(), &limited["total"]), (1, &json!(3)));
}

#[tokio::test]
async fn clusters_are_added_changed_and_removed() {
    let hub = Hub::start().await;
    let body = json!({"name": "west", "labels": {"env": "dev"}, "annotations": {"a": "b"}});
    let added = hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(body)).await;
    assert_eq!(
        (added.status, &added.headers[header::LOCATION]),
        (StatusCode::CREATED, &"/api/v1/clusters/west".parse().unwrap())
    );
    let token = added.json()["token"].as_str().unwrap().to_owned();
    let fingerprint = hub.get("/api/v1/ca").await.json()["fingerprint"].as_str().unwrap().to_owned();
    assert!(token.starts_with("west.") && token.ends_with(&format!(".{fingerprint}")), "{token}");
    assert_eq!(hub.get("/api/v1/clusters/west").await.json()["status"], "Pending");
    let taken = hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "east"}))).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    taken.problem();

    let patch = json!({"labels": {"env": null, "tier": "1"}, "annotations": {"c": "d"}});
    let patched = hub.call(Method::PATCH, "/api/v1/clusters/west", OPERATOR, Some(patch)).await;
    let cluster = patched.json();
    assert_eq!((&cluster["labels"], &cluster["annotations"]), (&json!({"tier": "1"}), &json!({"a": "b", "c": "d"})));
    assert_eq!(hub.call(Method::DELETE, "/api/v1/clusters/west", ADMIN, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(hub.get("/api/v1/clusters/west").await.status, StatusCode::NOT_FOUND);

    let log = hub.store.audit_log(10).await.unwrap();
    let lines: Vec<_> = log.iter().map(|e| (e.who.as_str(), e.action.as_str(), e.object.as_str())).collect();
    assert_eq!(
        lines,
        [("admin", "cluster.remove", "west"), ("operator", "cluster.patch", "west"), ("admin", "cluster.add", "west")]
    );
    assert!(!format!("{log:?}").contains(&token));
}

#[tokio::test]
async fn definitions_are_previewed_put_read_and_deleted() {
    let hub = Hub::start().await;
    let preview = |body: Value| hub.call(Method::POST, "/api/v1/definitions/preview", VIEWER, Some(body));
    assert_eq!(
        preview(definition("dns", "prod")).await.json(),
        json!({"clusters": [{"cluster": "east", "change": "create"}]})
    );
    assert_eq!(hub.get("/api/v1/definitions").await.json(), json!({"items": []}));

    let yaml = "
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetHealthCheck
metadata: {name: dns}
spec:
  clusterSelector: {matchLabels: {env: prod}}
  template: {metadata: {namespace: health}, spec: {text: '${cluster.annotations.url}'}}
";
    let put = Request::put("/api/v1/definitions/dns").header(header::AUTHORIZATION, format!("Bearer {OPERATOR}"));
    let put = put.header(header::CONTENT_TYPE, "application/yaml").body(Body::from(yaml)).unwrap();
    let answer = hub.send(put).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let view = answer.json();
    assert_eq!((&view["generation"], &view["definition"]), (&json!(1), &definition("dns", "prod")));
    assert_eq!(view["clusters"][0]["cluster"], "east");
    assert_eq!(hub.get("/api/v1/definitions/dns").await.json(), view);
    assert_eq!(hub.get("/api/v1/definitions").await.json(), json!({"items": [view]}));
    assert_eq!(hub.get("/api/v1/fleet").await.json()["definitions"], 1);

    let mut changed = definition("dns", "prod");
    changed["spec"]["template"]["spec"]["text"] = json!("${cluster.annotations.none}");
    let previewed = preview(changed.clone()).await.json();
    assert_eq!(previewed["current"], definition("dns", "prod"));
    assert_eq!(previewed["clusters"][0]["change"], "unchanged");
    assert!(previewed["clusters"][0]["message"].as_str().unwrap().contains("no annotation \"none\""), "{previewed}");
    assert_eq!(preview(definition("dns", "prod")).await.json()["clusters"][0]["change"], "unchanged");
    assert_eq!(preview(definition("dns", "dev")).await.json()["clusters"][0]["change"], "withdraw");
    let replaced = hub.call(Method::PUT, "/api/v1/definitions/dns", OPERATOR, Some(changed)).await;
    assert_eq!((replaced.status, &replaced.json()["generation"]), (StatusCode::OK, &json!(2)));
    assert!(replaced.json()["clusters"][0]["message"].as_str().unwrap().contains("none"), "{}", replaced.text);

    let deleted = hub.call(Method::DELETE, "/api/v1/definitions/dns", OPERATOR, None).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(hub.get("/api/v1/definitions/dns").await.status, StatusCode::NOT_FOUND);
    let log = hub.store.audit_log(10).await.unwrap();
    let actions: Vec<_> = log.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["definition.delete", "definition.put", "definition.put"]);
}

/// Reads server-sent events: the fields `id`, `event` and `data` of each.
struct Events(axum::body::BodyDataStream, String);

impl Events {
    async fn open(hub: &Hub, last_id: Option<&str>) -> Events {
        let mut request = request(Method::GET, "/api/v1/events", VIEWER, None);
        if let Some(id) = last_id {
            request.headers_mut().insert("last-event-id", id.parse().unwrap());
        }
        let response = hub.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Events(response.into_body().into_data_stream(), String::new())
    }

    async fn next(&mut self) -> (String, String, Value) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    line.map(str::to_owned)
                };
                let found = (field("id"), field("event"), field("data"));
                self.1 = rest.to_owned();
                if let (Some(id), Some(tag), Some(data)) = found {
                    return (id, tag, serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let chunk = tokio::time::timeout_at(deadline, self.0.next()).await.expect("an event in time");
            self.1.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn a_change_is_an_event_and_a_listener_goes_on_where_it_was() {
    let hub = Hub::start().await;
    let mut events = Events::open(&hub, None).await;
    let (_, tag, data) = events.next().await;
    assert_eq!((tag.as_str(), data), ("reset", json!({"type": "reset"})));

    hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "west"}))).await;
    let (id, tag, data) = events.next().await;
    assert_eq!((tag.as_str(), &data["type"], &data["name"]), ("cluster", &json!("cluster"), &json!("west")));

    drop(events);
    hub.call(Method::PUT, "/api/v1/definitions/d", OPERATOR, Some(definition("d", "none"))).await;
    let mut events = Events::open(&hub, Some(&id)).await;
    let data = loop {
        let (_, tag, data) = events.next().await;
        match tag.as_str() {
            "definition" => break data,
            other => assert_eq!(other, "cluster"),
        }
    };
    assert_eq!(data["name"], "d");
    assert_eq!(Events::open(&hub, Some("1-1")).await.next().await.1, "reset");

    hub.tasks.stop();
    let rest = async { while events.0.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), rest).await.expect("the stream ends with the hub");
}

fn login(token: &str) -> Request<Body> {
    request(Method::POST, "/api/v1/login", "", Some(json!({"token": token})))
}

#[tokio::test]
async fn the_dashboard_logs_in_by_a_cookie_that_no_other_page_can_use() {
    let hub = Hub::start().await;
    let answer = hub.send(login(ADMIN)).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({"name": "admin", "role": "admin"})));
    let set = answer.headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().unwrap().to_owned();
    let with_cookie = |method: Method, path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri(path).header(header::COOKIE, &cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(hub.send(with_cookie(Method::GET, "/api/v1/me", &[])).await.json()["role"], "admin");
    let own = [("host", "hub:8443"), ("origin", "https://hub:8443")];
    let foreign = [("host", "hub:8443"), ("origin", "https://evil")];
    let path = "/api/v1/definitions/none";
    for (headers, expected) in [(&[][..], 403), (&foreign[..], 403), (&own[..], 404)] {
        let answer = hub.send(with_cookie(Method::DELETE, path, headers)).await;
        assert_eq!(answer.status.as_u16(), expected, "{headers:?}");
        answer.problem();
    }
    assert_eq!(hub.send(with_cookie(Method::POST, "/api/v1/logout", &foreign)).await.status, StatusCode::FORBIDDEN);
    let out = hub.send(with_cookie(Method::POST, "/api/v1/logout", &own)).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().starts_with("amf_token=;"), "{:?}", out.headers);

    let mut statuses = Vec::new();
    for _ in 0..11 {
        statuses.push(hub.send(login("amf_guess")).await.status.as_u16());
    }
    assert_eq!(statuses, [[401; 10].as_slice(), &[429]].concat());
    let waits = hub.send(login(ADMIN)).await;
    assert!(waits.headers.contains_key(header::RETRY_AFTER));
    waits.problem();
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_protect_a_browser() {
    let hub = Hub::start().await;
    for path in ["/", "/api/v1/fleet", "/api/v1/nothing", "/metrics"] {
        let answer = hub.get(path).await;
        assert!(answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("frame-ancestors 'none'"));
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    assert!(hub.get("/").await.text.contains("<title>"));
}

#[tokio::test]
async fn tokens_are_made_listed_and_deleted_while_the_hub_runs_and_the_audit_log_says_by_whom() {
    let hub = Hub::start().await;
    let add = |name: &str, role: &str| json!({"name": name, "role": role});
    let made = hub.call(Method::POST, "/api/v1/tokens", ADMIN, Some(add("grafana", "viewer"))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(hub.call(Method::GET, "/api/v1/me", &token, None).await.json()["name"], "grafana");
    let list = hub.call(Method::GET, "/api/v1/tokens", ADMIN, None).await;
    assert!(list.text.contains("grafana") && !list.text.contains("hash") && !list.text.contains(&token));
    for (name, says) in [("a b", "name must have"), ("", "name must have")] {
        let wrong = hub.call(Method::POST, "/api/v1/tokens", ADMIN, Some(add(name, "viewer"))).await;
        assert!(wrong.problem().contains(says), "{}", wrong.text);
    }
    let last = hub.call(Method::DELETE, "/api/v1/tokens/admin", ADMIN, None).await;
    assert_eq!(last.status, StatusCode::CONFLICT, "{}", last.text);
    let last = hub.call(Method::POST, "/api/v1/tokens", ADMIN, Some(add("admin", "viewer"))).await;
    assert_eq!(last.status, StatusCode::CONFLICT, "{}", last.text);
    assert_eq!(hub.call(Method::DELETE, "/api/v1/tokens/none", ADMIN, None).await.status, StatusCode::NOT_FOUND);
    let gone = hub.call(Method::DELETE, "/api/v1/tokens/grafana", ADMIN, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(hub.call(Method::GET, "/api/v1/me", &token, None).await.status, StatusCode::UNAUTHORIZED, "at once");
    for path in ["/api/v1/clusters/east/token", "/api/v1/clusters/east/rebind"] {
        let answer = hub.call(Method::POST, path, ADMIN, None).await;
        assert!(answer.json()["token"].as_str().unwrap().starts_with("east."), "{}", answer.text);
    }
    let log = hub.call(Method::GET, "/api/v1/audit?limit=4", ADMIN, None).await.json();
    let lines: Vec<_> = log["items"].as_array().unwrap().iter().collect();
    let shown: Vec<_> =
        lines.iter().map(|line| format!("{} {} {}", line["who"], line["action"], line["object"])).collect();
    assert_eq!(
        shown,
        [
            "\"admin\" \"cluster.rebind\" \"east\"",
            "\"admin\" \"cluster.token\" \"east\"",
            "\"admin\" \"token.delete\" \"grafana\"",
            "\"admin\" \"token.create\" \"grafana (viewer)\"",
        ]
    );
}

#[tokio::test]
async fn a_command_has_a_result_for_each_cluster_and_stands_in_the_audit_log() {
    let hub = Hub::start().await;
    let west = json!({"name": "west", "labels": {"env": "prod"}});
    hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(west)).await;
    let give = async |body: Value| hub.call(Method::POST, "/api/v1/commands", OPERATOR, Some(body)).await;
    let pause =
        json!({"action": "pause", "subject": "remedies", "labels": {"env": "prod"}, "seconds": 7200, "reason": "x"});
    let report = give(pause).await.json();
    assert_eq!(report["command"], "pause remedies of the whole cluster for 7200 s: x");
    let results: Vec<_> =
        report["results"].as_array().unwrap().iter().map(|r| (&r["cluster"], &r["outcome"])).collect();
    assert_eq!(results, [(&json!("east"), &json!("Unreachable")), (&json!("west"), &json!("Unreachable"))]);
    let log = hub.store.audit_log(3).await.unwrap();
    assert!(log.iter().all(|entry| entry.who == "operator"));
    let lines: Vec<_> = log.iter().map(|entry| format!("{} {}", entry.action, entry.object)).collect();
    assert!(lines[2] == "command.pause pause remedies of the whole cluster for 7200 s: x; in east, west", "{lines:?}");
    for cluster in ["east", "west"] {
        let said = format!("command.pause.result {cluster}: ");
        assert!(lines.iter().any(|line| line.starts_with(&said) && line.contains("Unreachable")), "{lines:?}");
    }
    for (body, says) in [
        (json!({"action": "resume", "clusters": ["north"]}), "no cluster north"),
        (json!({"action": "resume", "labels": {"env": "dev"}}), "no cluster has them"),
        (json!({"action": "resume"}), "clusters"),
        (json!({"action": "pause", "allClusters": true}), "seconds"),
    ] {
        let answer = give(body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text);
        assert!(answer.problem().contains(says), "{}", answer.text);
    }
    assert_eq!(hub.store.audit_log(10).await.unwrap().len(), 4, "what is not valid is not given");
}

#[tokio::test]
async fn viewers_see_what_changed_page_by_page_and_nothing_of_tokens() {
    let hub = Hub::start().await;
    for (method, path, token, body) in [
        (Method::POST, "/api/v1/tokens", ADMIN, Some(json!({"name": "new-one", "role": "viewer"}))),
        (Method::PATCH, "/api/v1/clusters/east", OPERATOR, Some(json!({"labels": {"region": "eu"}}))),
        (Method::PUT, "/api/v1/definitions/dns", OPERATOR, Some(definition("dns", "prod"))),
        (Method::POST, "/api/v1/commands", OPERATOR, Some(json!({"action": "resume", "clusters": ["east"]}))),
        (Method::POST, "/api/v1/clusters", ADMIN, Some(json!({"name": "west"}))),
    ] {
        let answer = hub.call(method, path, token, body).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    let key = CheckKey { cluster: "east".into(), namespace: "health".into(), name: "dns".into() };
    let failed = Transition { at: Timestamp::now(), status: Some(CheckStatus::Failed), maintenance: false };
    let life = Life { from: time(0), to: Timestamp::now() };
    hub.store.record_transitions(life, vec![(key, failed)]).await.unwrap();

    let all = hub.get("/api/v1/changes").await;
    assert!(!all.text.contains("new-one") && !all.text.contains("amf_"), "{}", all.text);
    let seen = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        items.map(|item| format!("{} {} {}", text(item, "kind"), text(item, "action"), text(item, "who"))).collect()
    };
    let expected = [
        "status  ",
        "cluster cluster.add admin",
        "command command.resume.result operator",
        "command command.resume operator",
        "definition definition.put operator",
        "cluster cluster.patch operator",
    ];
    assert_eq!(seen(&all.json()), expected);
    let (mut paged, mut next) = (Vec::new(), String::new());
    loop {
        let page = hub.get(&format!("/api/v1/changes?limit=1{next}")).await.json();
        paged.extend(seen(&page));
        let Some(before) = page["next"].as_str() else { break };
        next = format!("&before={before}");
    }
    assert_eq!(paged, expected);

    let of = async |query: &str| seen(&hub.get(&format!("/api/v1/changes?{query}")).await.json());
    assert_eq!(of("kind=definition").await, ["definition definition.put operator"]);
    assert_eq!(of("kind=status&cluster=west").await, Vec::<String>::new());
    assert_eq!(of("cluster=west").await.len(), 3, "its own, and what is of no one cluster");
    assert_eq!(of("to=2001-01-01T00:00:00Z").await, Vec::<String>::new());
    for query in ["before=5", "limit=0", "from=yesterday", "kind=token", "since=1"] {
        let answer = hub.get(&format!("/api/v1/changes?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        answer.problem();
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_by_labels() {
    let hub = Hub::start().await;
    for name in ["west", "north"] {
        let body = json!({"name": name, "labels": {"env": "dev"}});
        hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(body)).await;
    }
    let pages = async |path: &str, key: &str| {
        let (mut names, mut next) = (Vec::new(), String::new());
        for _ in 0..20 {
            let page = hub.call(Method::GET, &format!("{path}limit=1{next}"), ADMIN, None).await.json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 1, "{page}");
            names.extend(items.iter().map(|item| item[key].as_str().unwrap().to_owned()));
            let Some(mark) = page["next"].as_str() else { return names };
            next = if path.contains("audit") { format!("&before={mark}") } else { format!("&after={mark}") };
        }
        panic!("{path} has no end: {names:?}");
    };
    assert_eq!(pages("/api/v1/clusters?", "name").await, ["east", "north", "west"]);
    assert_eq!(pages("/api/v1/clusters?selector=env%3Ddev&", "name").await, ["north", "west"]);
    assert_eq!(pages("/api/v1/clusters?status=Unreachable&", "name").await, Vec::<String>::new());
    assert_eq!(pages("/api/v1/checks?", "name").await, ["dns", "web"]);
    assert_eq!(pages("/api/v1/checks?selector=env%3Ddev&", "name").await, Vec::<String>::new());
    for name in ["dns", "tls", "web"] {
        hub.call(Method::PUT, &format!("/api/v1/definitions/{name}"), ADMIN, Some(definition(name, "prod"))).await;
    }
    assert_eq!(pages("/api/v1/definitions?", "name").await, ["dns", "tls", "web"]);
    assert_eq!(pages("/api/v1/audit?action=cluster.&", "object").await, ["north", "west"]);
    assert_eq!(pages("/api/v1/audit?action=cluster.&who=admin&", "object").await.len(), 2);
    assert_eq!(pages("/api/v1/audit?who=nobody&", "object").await.len(), 0);
    // Without a limit it is a page too.
    let names = |prefix: &str| (0..1001).map(|n| format!("{prefix}{n:04}")).collect::<Vec<_>>();
    for name in names("c") {
        let record = ClusterRecord { name, created_at: time(0), ..ClusterRecord::default() };
        hub.store.put_cluster(&record).await.unwrap();
    }
    let many = names("k").iter().map(|name| (check(name), Health::default())).collect();
    hub.store.save_check_states("east", many, Vec::new()).await.unwrap();
    let hub = hub.restart().await;
    for (path, total) in [("/api/v1/clusters", 1004), ("/api/v1/checks", 1003)] {
        let first = hub.get(path).await.json();
        let rest = hub.get(&format!("{path}?after={}", first["next"].as_str().unwrap())).await.json();
        let count = |page: &Value| page["items"].as_array().unwrap().len();
        assert_eq!((count(&first), count(&rest), &rest["next"]), (1000, total - 1000, &Value::Null), "{path}");
    }
    for query in [
        "checks?limit=0",
        "checks?limit=10001",
        "checks?after=x",
        "clusters?selector=%3D",
        "audit?limit=0",
        "definitions?limit=0",
        "definitions?page=2",
    ] {
        let answer = hub.call(Method::GET, &format!("/api/v1/{query}"), ADMIN, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        answer.problem();
    }
}

#[tokio::test]
async fn what_did_not_change_is_not_sent_again() {
    let hub = Hub::start().await;
    let ask = async |path: &str, tag: Option<&http::HeaderValue>| {
        let mut request = request(Method::GET, path, VIEWER, None);
        tag.map(|tag| request.headers_mut().insert(header::IF_NONE_MATCH, tag.clone()));
        hub.send(request).await
    };
    for path in ["/api/v1/definitions", "/api/v1/clusters/east", "/api/v1/runs?limit=2"] {
        let first = ask(path, None).await;
        let tag = first.headers[header::ETAG].clone();
        let again = ask(path, Some(&tag)).await;
        assert_eq!((again.status, again.text.as_str()), (StatusCode::NOT_MODIFIED, ""), "{path}");
        assert_eq!(again.headers[header::ETAG], tag);
    }
    let before = ask("/api/v1/definitions", None).await;
    hub.call(Method::PUT, "/api/v1/definitions/dns", OPERATOR, Some(definition("dns", "prod"))).await;
    let after = ask("/api/v1/definitions", Some(&before.headers[header::ETAG])).await;
    assert_eq!(after.status, StatusCode::OK);
    assert!(after.text.contains("dns") && after.headers[header::ETAG] != before.headers[header::ETAG]);
    let wrong = ask("/api/v1/clusters/none", Some(&http::HeaderValue::from_static("*"))).await;
    assert_eq!(wrong.status, StatusCode::NOT_FOUND, "an error is always sent");
}

#[tokio::test]
async fn who_calls_too_often_waits_is_counted_and_disturbs_nobody() {
    let hub = Hub::start().await;
    let mut refused = None;
    for _ in 0..4000 {
        let answer = hub.get("/api/v1/me").await;
        if answer.status != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a limit");
    assert_eq!(
        (refused.status, refused.headers[header::RETRY_AFTER].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "1")
    );
    assert!(refused.problem().starts_with("too many calls with this token"));
    let other = hub.call(Method::GET, "/metrics", ADMIN, None).await;
    let count = other.text.lines().find_map(|line| line.strip_prefix("activemonitor_hub_calls_limited_total "));
    assert_eq!(count, Some("1"));
}

#[tokio::test]
async fn a_deleted_token_ends_soon() {
    let hub = Hub::start().await;
    assert_eq!(hub.get("/api/v1/me").await.status, StatusCode::OK);
    hub.store.delete_api_token("viewer").await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while hub.get("/api/v1/me").await.status != StatusCode::UNAUTHORIZED {
        assert!(tokio::time::Instant::now() < deadline, "the token still works");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_ca_is_changed_stage_by_stage_by_admins() {
    let hub = Hub::start().await;
    let stable = hub.get("/api/v1/ca").await.json();
    assert_eq!(stable["stage"], "Stable");
    assert_eq!(stable["bundle"].as_str().unwrap().matches("BEGIN CERTIFICATE").count(), 1);
    let roll = async |token: &'static str, from: &'static str| {
        hub.call(Method::POST, "/api/v1/ca/roll", token, Some(json!({"from": from}))).await
    };
    assert_eq!(roll(OPERATOR, "Stable").await.status, StatusCode::FORBIDDEN);
    let introduced = roll(ADMIN, "Stable").await.json();
    assert_eq!((&introduced["stage"], &introduced["fingerprint"]), (&json!("Introduced"), &stable["fingerprint"]));
    assert_eq!(introduced["bundle"].as_str().unwrap().matches("BEGIN CERTIFICATE").count(), 2);
    let again = roll(ADMIN, "Stable").await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.problem().contains("Introduced"), "{}", again.text);
    let switched = roll(ADMIN, "Introduced").await.json();
    assert_eq!(switched["fingerprint"], introduced["otherFingerprint"]);
    assert_eq!(roll(ADMIN, "Switched").await.json()["stage"], "Stable");
    let log = hub.call(Method::GET, "/api/v1/audit", ADMIN, None).await.json();
    let actions: Vec<_> = log["items"].as_array().unwrap().iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, ["ca.end", "ca.switch", "ca.introduce"]);
}

#[tokio::test]
async fn open_incidents_are_kept_over_a_restart_and_closed_ones_are_the_history() {
    let hub = Hub::start().await;
    let incident = |id: &str, closed_at: Value| -> active_monitor_core::view::Incident {
        let json = json!({
            "id": id, "kind": "Check", "subject": format!("check/health/{id}"), "title": id, "widespread": false,
            "silenced": false, "flapping": false, "firstSeen": time(100), "lastChange": time(100), "closedAt": closed_at,
            "counts": {"failing": 150, "healthy": 0, "unknown": 0, "failingInScope": 150, "inScope": 150},
            "members": (0..150).map(|n| json!({"cluster": format!("c{n:03}"), "status": "Failed"})).collect::<Vec<_>>(),
        });
        serde_json::from_value(json).unwrap()
    };
    let stored = [Arc::new(incident("dns", Value::Null)), Arc::new(incident("web", json!(time(200))))];
    hub.store.put_incidents(&stored).await.unwrap();
    let hub = hub.restart().await;
    let open = hub.get("/api/v1/incidents").await.json();
    let items = open["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["id"], &items[0]["firstSeen"]), (1, &json!("dns"), &json!(time(100))));
    assert!(items[0]["members"].as_array().unwrap().len() <= 100);
    assert_eq!(hub.get("/api/v1/incidents?kind=Unreachable").await.json()["items"], json!([]));
    let first = hub.get("/api/v1/incidents?all=true&limit=1").await.json();
    assert_eq!(first["items"][0]["id"], "web");
    let rest = hub.get(&format!("/api/v1/incidents?all=true&before={}", first["next"])).await.json();
    assert_eq!((&rest["items"][0]["id"], rest.get("next")), (&json!("dns"), None));
}

#[tokio::test]
async fn what_is_gits_is_changed_in_git_and_nowhere_else() {
    let owned = |kind: &str, name: &str, labels: &[&str]| json!({"kind": kind, "name": name, "file": "fleet/a.yaml", "labels": labels});
    let hub = Hub::start().await;
    let ownership = json!({"objects": [
        owned("FleetHealthCheck", "dns", &[]), owned("MaintenanceWindow", "night", &[]), owned("FleetCluster", "east", &["env"]),
    ]});
    let ownership = serde_json::from_value(ownership).unwrap();
    hub.store.put_ownership(Some(&ownership)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub =
        hub.restart_with(SourceArgs { git_folder: Some(folder.path().to_owned()), ..SourceArgs::default() }).await;
    let definition = json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck", "metadata": {"name": "dns"},
        "spec": {"clusterSelector": {}, "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": 60}}},
    });
    let window = json!({"name": "night", "cron": "0 3 * * *", "durationSeconds": 60});
    for (method, path, body) in [
        (Method::PUT, "/api/v1/definitions/dns", Some(definition)),
        (Method::DELETE, "/api/v1/definitions/dns", None),
        (Method::PUT, "/api/v1/windows/night", Some(window)),
        (Method::DELETE, "/api/v1/windows/night", None),
        (Method::PATCH, "/api/v1/clusters/east", Some(json!({"labels": {"env": "test"}}))),
        (Method::PATCH, "/api/v1/clusters/east", Some(json!({"labels": {"env": null}}))),
    ] {
        let answer = hub.call(method.clone(), path, OPERATOR, body).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{method} {path}: {}", answer.text);
        assert!(answer.text.contains("is Git's: change fleet/a.yaml in the repository"), "{}", answer.text);
    }
    let free = hub.call(Method::PATCH, "/api/v1/clusters/east", OPERATOR, Some(json!({"labels": {"tier": "a"}}))).await;
    assert_eq!(free.status, StatusCode::OK, "{}", free.text);
    let sources: Value = serde_json::from_str(&hub.get("/api/v1/sources").await.text).unwrap();
    assert_eq!(sources["items"][0]["state"], "Pending");
    assert_eq!(sources["items"][0]["objects"][0]["file"], "fleet/a.yaml");
}

#[tokio::test]
async fn a_hub_from_the_past_says_what_it_lacks_and_an_admin_confirms_it() {
    let hub = Hub::start().await;
    assert_eq!(hub.get("/api/v1/restore").await.json(), json!({"differences": []}));
    let restore = Restore { noticed_at: time(400), reason: "it was restored from a backup".to_owned() };
    hub.store.put_restore(&restore).await.unwrap();
    let mut newer = check("dns");
    newer.definition = Some(DefinitionRef { name: "dns".to_owned(), generation: 5 });
    hub.store.save_check_states("east", vec![(newer, Health::default())], Vec::new()).await.unwrap();
    let hub = hub.restart().await;
    let told = hub.get("/api/v1/restore").await.json();
    assert_eq!(told["restore"]["reason"], restore.reason);
    assert_eq!(
        told["differences"],
        json!([{"definition": "dns", "newestGeneration": 5, "clusters": ["east"]}]),
        "the hub does not know the definition"
    );
    assert_eq!(hub.get("/api/v1/fleet").await.json()["restore"], told["restore"]);
    let confirm = async |token| hub.call(Method::POST, "/api/v1/restore/confirm", token, None).await.status;
    assert_eq!(confirm(OPERATOR).await, StatusCode::FORBIDDEN);
    assert_eq!(confirm(ADMIN).await, StatusCode::OK);
    assert_eq!(confirm(ADMIN).await, StatusCode::CONFLICT);
    assert!(hub.get("/api/v1/fleet").await.json()["restore"].is_null());
    let log = hub.call(Method::GET, "/api/v1/audit", ADMIN, None).await.json();
    assert_eq!(log["items"][0]["action"], "restore.confirm");
}
