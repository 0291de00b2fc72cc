//! The people's side of the hub from the outside: the router in this process, over a real owner and SQLite store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod alert_routes;
mod answers;
mod history;
mod objects;
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
