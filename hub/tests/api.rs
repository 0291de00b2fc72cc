//! The people's side of the hub from the outside: the router in this process, over a real owner and SQLite store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::state::{CheckState, Phase, Sample, Totals};
use active_monitor_core::view::Role;
use active_monitor_hub::owner::{self, Terms};
use active_monitor_hub::store::sqlite::SqliteStore;
use active_monitor_hub::store::{ApiToken, ClusterRecord, Store};
use active_monitor_hub::{AppState, api, auth};
use active_monitor_runtime::tasks::Tasks;
use axum::Router;
use axum::body::{Body, to_bytes};
use futures::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode, header};
use jiff::Timestamp;
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
    _directory: tempfile::TempDir,
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
        };
        store.put_cluster(&east).await.unwrap();
        store.save_check_states("east", vec![check("dns"), check("web")], Vec::new()).await.unwrap();
        let runs = vec![run("dns", 100, None), run("dns", 200, Some(Reason::WorkflowFailed)), run("web", 100, None)];
        store.record_runs("east", runs, time(300)).await.unwrap();

        let tasks = Tasks::new();
        let terms = Terms {
            lease: Duration::from_secs(15),
            ca_fingerprint: "f".repeat(64),
            agent_address: "hub:7443".to_owned(),
            enrolment_address: "hub:7444".to_owned(),
        };
        let fleet = owner::start(store.clone(), terms, &tasks).await.unwrap();
        let app = AppState { fleet, store: store.clone(), registry: prometheus::Registry::new(), secure_cookies: true };
        Hub { router: api::router(app), store, tasks, _directory: directory }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
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
        definition: None,
    }
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
        (&get, "/api/v1/runs", None, VIEWER),
        (&get, "/api/v1/definitions", None, VIEWER),
        (&get, "/api/v1/definitions/kept", None, VIEWER),
        (&post, "/api/v1/definitions/preview", Some(definition("x", "prod")), VIEWER),
        (&get, "/metrics", None, VIEWER),
        (&patch, "/api/v1/clusters/east", Some(json!({"labels": {"a": "b"}})), OPERATOR),
        (&put, "/api/v1/definitions/kept", Some(definition("kept", "dev")), OPERATOR),
        (&delete, "/api/v1/definitions/gone", None, OPERATOR),
        (&post, "/api/v1/clusters", Some(json!({"name": "new"})), ADMIN),
        (&delete, "/api/v1/clusters/gone", None, ADMIN),
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
async fn clusters_are_added_changed_and_removed() {
    let hub = Hub::start().await;
    let body = json!({"name": "west", "labels": {"env": "dev"}, "annotations": {"a": "b"}});
    let added = hub.call(Method::POST, "/api/v1/clusters", ADMIN, Some(body)).await;
    assert_eq!(
        (added.status, &added.headers[header::LOCATION]),
        (StatusCode::CREATED, &"/api/v1/clusters/west".parse().unwrap())
    );
    let token = added.json()["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("west.") && token.ends_with(&format!(".{}", "f".repeat(64))), "{token}");
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
