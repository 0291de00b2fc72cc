//! A hub that answers from memory, and `fleetcheck` runs against it.

mod samples;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use active_monitor_cli::{Cli, Exit, Streams, World};
use active_monitor_core::alert::{self, Routes};
use active_monitor_core::care::{Acknowledgement, Care, Window, WindowSpec};
use active_monitor_core::command::Layer;
use active_monitor_core::health::Health;
use active_monitor_core::policy::PolicySetting;
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::session::frame::DefinitionResult;
use active_monitor_core::state::{CheckState, Phase, Totals};
use active_monitor_core::uptime::{Objective, Uptime};
use active_monitor_core::view::{
    AcknowledgementAdd, Action, Change, CheckStatus, CheckView, ClusterAdd, ClusterPatch, ClusterStatus, ClusterToken,
    ClusterView, CommandOutcome, CommandReport, CommandRequest, CommandResult, DefinitionClusterStatus, DefinitionView,
    EnrolmentKey, FleetSummary, GapView, Incident, IncidentPage, List, Page, Preview, PreviewCluster, Problem, Restore,
    RestoreDifference, RestoreView, RoutesFile, RoutesPreview, RunPage, RunView, SourceView, UptimePage, UptimeView,
    WindowView, in_words,
};
use axum::body::Body;
use axum::extract::{Path as Segments, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub(crate) use self::samples::{check, cluster, definition, fleet};

pub(crate) const TOKEN: &str = "amf_test";
const NOW: &str = "2026-03-01T12:00:00Z";

pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub(crate) fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

/// What the hub has.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) clusters: BTreeMap<String, ClusterView>,
    pub(crate) checks: Vec<CheckView>,
    pub(crate) runs: Vec<RunView>,
    pub(crate) gaps: Vec<GapView>,
    pub(crate) definitions: BTreeMap<String, DefinitionView>,
    /// Reads of a definition that are answered before its clusters have.
    pub(crate) silent_reads: u32,
    /// What the clusters then say.
    pub(crate) verdict: Option<DefinitionResult>,
    /// Commands that were given.
    pub(crate) commands: Vec<CommandRequest>,
    /// Requests as `METHOD /path?query`, in order.
    pub(crate) requests: Vec<String>,
    pub(crate) windows: BTreeMap<String, WindowSpec>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) restore: Option<Restore>,
    pub(crate) sources: Vec<SourceView>,
    /// Items on a list's page; all of them where it is none.
    pub(crate) page: Option<usize>,
    /// Each page says that there is another one.
    pub(crate) endless: bool,
}

type Shared = Arc<Mutex<Fleet>>;

pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) fleet: Shared,
    _runtime: tokio::runtime::Runtime,
}

/// What a run of `fleetcheck` gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Hub {
    pub(crate) fn start(fleet: Fleet) -> Hub {
        let fleet = Arc::new(Mutex::new(fleet));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let app = router(Arc::clone(&fleet));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Hub { address, fleet, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let hub = self.url();
        run(&[&["--hub", &hub, "--token", TOKEN], args].concat(), input)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.fleet.lock().unwrap().requests.clone()
    }
}

/// Runs `fleetcheck` in this process, at [`NOW`], without an environment.
pub(crate) fn run(args: &[&str], input: &str) -> Ran {
    let cli = Cli::try_parse_from([&["fleetcheck"], args].concat()).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let world = World { now, env: |_| None, colour: false };
    let exit = active_monitor_cli::run(
        cli,
        &world,
        &mut Streams { input: &mut input.as_bytes(), out: &mut out, err: &mut err },
    );
    Ran { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// The binary itself, with nothing of this machine's configuration.
pub(crate) fn binary(home: &Path) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("fleetcheck"));
    command.env_clear().env("HOME", home);
    command
}

fn router(fleet: Shared) -> Router {
    let api = Router::new()
        .route("/fleet", get(summary))
        .route("/restore", get(restore))
        .route("/restore/confirm", post(confirm_restore))
        .route("/clusters", get(clusters).post(add))
        .route("/clusters/{name}", get(one_cluster).patch(change).delete(remove))
        .route("/clusters/{name}/checks/{namespace}/{check}", get(one_check))
        .route("/commands", post(command))
        .route("/clusters/{name}/token", post(token))
        .route("/clusters/{name}/rebind", post(token))
        .route("/clusters/{name}/approve", post(decide))
        .route("/clusters/{name}/deny", post(decide))
        .route("/checks", get(checks))
        .route("/runs", get(runs))
        .route("/uptime", get(uptime))
        .route("/incidents", get(incidents))
        .route("/sources", get(sources))
        .route("/routes/preview", post(preview_routes))
        .route("/windows", get(windows))
        .route("/windows/{name}", put(put_window).delete(remove_window))
        .route("/clusters/{cluster}/checks/{namespace}/{name}/acknowledgement", put(acknowledge).delete(unacknowledge))
        .route("/definitions", get(definitions))
        .route("/definitions/preview", post(preview))
        .route("/definitions/{name}", put(apply).get(one_definition).delete(withdraw));
    Router::new()
        .nest("/api/v1", api)
        .layer(middleware::from_fn_with_state(Arc::clone(&fleet), guard))
        .with_state(fleet)
}

async fn guard(State(fleet): State<Shared>, headers: HeaderMap, request: Request, next: Next) -> Response {
    fleet.lock().unwrap().requests.push(format!("{} {}", request.method(), request.uri()));
    match headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        Some("Bearer amf_test") => next.run(request).await,
        Some("Bearer amf_viewer") if request.method() != "GET" => {
            problem(StatusCode::FORBIDDEN, "it needs the role admin")
        }
        Some("Bearer amf_viewer") => next.run(request).await,
        Some("Bearer amf_broken") => (StatusCode::BAD_GATEWAY, "<html>no upstream</html>").into_response(),
        _ => problem(StatusCode::UNAUTHORIZED, "unknown token"),
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = Problem { title: "refused".to_owned(), status: status.as_u16(), detail: detail.to_owned() };
    (status, [(header::CONTENT_TYPE, "application/problem+json")], Body::from(serde_json::to_vec(&body).unwrap()))
        .into_response()
}

async fn restore(State(fleet): State<Shared>) -> Json<RestoreView> {
    let restore = fleet.lock().unwrap().restore.clone();
    let difference = RestoreDifference {
        definition: "dns".to_owned(),
        hub_generation: Some(3),
        newest_generation: 5,
        clusters: vec!["east".to_owned(), "west".to_owned()],
    };
    Json(RestoreView { differences: restore.iter().map(|_| difference.clone()).collect(), restore })
}

async fn confirm_restore(State(fleet): State<Shared>) -> Json<RestoreView> {
    fleet.lock().unwrap().restore = None;
    Json(RestoreView::default())
}

async fn summary(State(fleet): State<Shared>) -> Json<FleetSummary> {
    let fleet = fleet.lock().unwrap();
    let mut clusters: BTreeMap<_, _> = ClusterStatus::ALL.iter().map(|s| (s.as_str().to_owned(), 0)).collect();
    fleet.clusters.values().for_each(|c| *clusters.get_mut(c.status.as_str()).unwrap() += 1);
    let mut checks: BTreeMap<_, _> = CheckStatus::ALL.iter().map(|s| (s.as_str().to_owned(), 0)).collect();
    fleet.checks.iter().for_each(|c| *checks.get_mut(c.status.as_str()).unwrap() += 1);
    let definitions = fleet.definitions.len() as u64;
    Json(FleetSummary {
        hub_version: "0.1.0".to_owned(),
        clusters,
        checks,
        definitions,
        restore: fleet.restore.clone(),
    })
}

async fn clusters(State(fleet): State<Shared>, filter: Filter) -> Json<Page<ClusterView>> {
    let fleet = fleet.lock().unwrap();
    page(fleet.clusters.values().cloned().collect(), &filter, &fleet, |cluster| cluster.name.clone())
}

/// What comes after the item whose key the filter names.
fn page<T>(all: Vec<T>, filter: &Filter, fleet: &Fleet, key: impl Fn(&T) -> String) -> Json<Page<T>> {
    let is_later = |item: &T| filter.get("after").is_none_or(|after| key(item) > *after);
    let mut items: Vec<T> = all.into_iter().filter(is_later).collect();
    let size = fleet.page.unwrap_or(usize::MAX);
    let is_more = items.len() > size;
    items.truncate(size);
    let next = if fleet.endless { Some("x".to_owned()) } else { items.last().filter(|_| is_more).map(key) };
    Json(Page { items, next })
}

async fn add(State(fleet): State<Shared>, Json(body): Json<ClusterAdd>) -> Response {
    let mut view = cluster(&body.name, ClusterStatus::Pending);
    (view.labels, view.annotations) = (body.labels, body.annotations);
    fleet.lock().unwrap().clusters.insert(body.name.clone(), view);
    token(Segments(body.name)).await
}

async fn token(Segments(name): Segments<String>) -> Response {
    let token = ClusterToken {
        token: format!("{name}.5ec2e7.f19e2"),
        cluster: name,
        expires_at: now() + SignedDuration::from_hours(1),
        agent_address: "hub.example.com:7443".to_owned(),
        enrolment_address: "hub.example.com:7444".to_owned(),
    };
    (StatusCode::CREATED, Json(token)).into_response()
}

/// The key that waits is to be named.
async fn decide(
    State(fleet): State<Shared>,
    Segments(name): Segments<String>,
    Json(body): Json<EnrolmentKey>,
) -> Response {
    let fleet = fleet.lock().unwrap();
    let waits = fleet.clusters[&name].pending_enrolment.as_ref().map(|pending| &pending.key_fingerprint);
    match waits {
        Some(key) if *key == body.key_fingerprint => Json(fleet.clusters[&name].clone()).into_response(),
        _ => problem(StatusCode::CONFLICT, &format!("no agent waits for approval as {name}")),
    }
}

async fn change(
    State(fleet): State<Shared>,
    Segments(name): Segments<String>,
    Json(body): Json<ClusterPatch>,
) -> Response {
    let mut fleet = fleet.lock().unwrap();
    let Some(view) = fleet.clusters.get_mut(&name) else {
        return problem(StatusCode::NOT_FOUND, &format!("there is no cluster {name:?}"));
    };
    for (map, changes) in [(&mut view.labels, body.labels), (&mut view.annotations, body.annotations)] {
        for (key, value) in changes {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
    }
    Json(view.clone()).into_response()
}

async fn remove(State(fleet): State<Shared>, Segments(name): Segments<String>) -> Response {
    match fleet.lock().unwrap().clusters.remove(&name) {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("there is no cluster {name:?}")),
    }
}

async fn one_cluster(State(fleet): State<Shared>, Segments(name): Segments<String>) -> Response {
    match fleet.lock().unwrap().clusters.get(&name) {
        Some(view) => Json(view.clone()).into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("there is no cluster {name:?}")),
    }
}

async fn one_check(
    State(fleet): State<Shared>,
    Segments((cluster, namespace, name)): Segments<(String, String, String)>,
) -> Response {
    let fleet = fleet.lock().unwrap();
    let is_it =
        |check: &&CheckView| check.cluster == cluster && check.state.namespace == namespace && check.state.name == name;
    match fleet.checks.iter().find(is_it) {
        Some(check) => Json(check.clone()).into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("cluster {cluster} has no check {name}")),
    }
}

/// Each cluster does what its name says of it.
async fn command(State(fleet): State<Shared>, Json(body): Json<CommandRequest>) -> Json<CommandReport> {
    let mut fleet = fleet.lock().unwrap();
    let result = |view: &ClusterView| {
        let (outcome, layer, message) = match view.name.as_str() {
            "east" => (CommandOutcome::Delivered, None, "done"),
            "west" => (CommandOutcome::Unreachable, None, "its agent is not connected"),
            _ => (CommandOutcome::Refused, Some(Layer::Policy), "obeyed are: run-now"),
        };
        CommandResult { cluster: view.name.clone(), outcome, layer, message: message.to_owned() }
    };
    let is_meant = |view: &&ClusterView| body.clusters.is_empty() || body.clusters.contains(&view.name);
    let results = fleet.clusters.values().filter(is_meant).map(result).collect();
    if body.action == Action::Test
        && let Some(east) = fleet.clusters.get_mut("east")
    {
        east.self_test = Some(SelfTest::new(SelfTestOutcome::Succeeded, "ran", now()));
    }
    let (scope, order) = body.order("ann").unwrap();
    let command = in_words(&scope, &order);
    fleet.commands.push(body);
    Json(CommandReport { id: "1".to_owned(), at: now(), command, results })
}

type Filter = Query<BTreeMap<String, String>>;

fn wanted(filter: &Filter, field: &str, value: &str) -> bool {
    filter.get(field).is_none_or(|wanted| wanted == value)
}

async fn checks(State(fleet): State<Shared>, filter: Filter) -> Json<Page<CheckView>> {
    let fleet = fleet.lock().unwrap();
    let mut items = fleet.checks.clone();
    items.retain(|check| {
        wanted(&filter, "cluster", &check.cluster)
            && wanted(&filter, "namespace", &check.state.namespace)
            && wanted(&filter, "status", check.status.as_str())
    });
    let key = |check: &CheckView| format!("{}/{}/{}", check.cluster, check.state.namespace, check.state.name);
    items.sort_by_key(key);
    page(items, &filter, &fleet, key)
}

/// Pages of two.
async fn runs(State(fleet): State<Shared>, filter: Filter) -> Json<RunPage> {
    let before = filter.get("before").map_or(i64::MAX, |text| text.parse().unwrap());
    let limit: usize = filter["limit"].parse().unwrap();
    let mut items = fleet.lock().unwrap().runs.clone();
    items.retain(|view| {
        view.id < before
            && wanted(&filter, "cluster", &view.cluster)
            && wanted(&filter, "namespace", &view.run.namespace)
            && wanted(&filter, "name", &view.run.name)
            && wanted(&filter, "kind", view.run.key.kind.as_str())
            && wanted(&filter, "outcome", view.run.outcome.as_str())
    });
    items.sort_by_key(|view| -view.id);
    let more = items.len() > limit.min(2);
    items.truncate(limit.min(2));
    let next = items.last().filter(|_| more).map(|view| view.id);
    let gaps = fleet.lock().unwrap().gaps.clone();
    let from = next.unwrap_or(0);
    let gaps = gaps.into_iter().filter(|gap| gap.after >= from && gap.after < before).collect();
    Json(RunPage { items, gaps, next })
}

fn window_view(spec: WindowSpec) -> WindowView {
    let window = Window::parse(spec).unwrap();
    let (open_until, changes_at) = (window.ends(now()), window.changes(now()));
    WindowView { spec: window.spec, open_until, changes_at, git: None }
}

async fn incidents(State(fleet): State<Shared>) -> Json<IncidentPage> {
    Json(IncidentPage { items: fleet.lock().unwrap().incidents.clone(), next: None })
}

async fn sources(State(fleet): State<Shared>) -> Json<List<SourceView>> {
    Json(List { items: fleet.lock().unwrap().sources.clone() })
}

/// What the real one makes of a file where it has none itself.
async fn preview_routes(Json(body): Json<RoutesFile>) -> Response {
    match Routes::parse(&body.text) {
        Ok(next) => {
            Json(RoutesPreview { has_file: false, routes: alert::preview(&Routes::default(), &next) }).into_response()
        }
        Err(why) => problem(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

async fn windows(State(fleet): State<Shared>) -> Json<List<WindowView>> {
    Json(List { items: fleet.lock().unwrap().windows.values().cloned().map(window_view).collect() })
}

async fn put_window(
    State(fleet): State<Shared>,
    Segments(name): Segments<String>,
    Json(spec): Json<WindowSpec>,
) -> Response {
    assert_eq!(spec.name, name);
    fleet.lock().unwrap().windows.insert(name, spec.clone());
    (StatusCode::CREATED, Json(window_view(spec))).into_response()
}

async fn remove_window(State(fleet): State<Shared>, Segments(name): Segments<String>) -> Response {
    match fleet.lock().unwrap().windows.remove(&name) {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("there is no window {name}")),
    }
}

async fn acknowledge(
    Segments([cluster, _, name]): Segments<[String; 3]>,
    Json(body): Json<AcknowledgementAdd>,
) -> Json<CheckView> {
    let mut check = check(&cluster, &name, CheckStatus::Failed, "");
    let expires_at = now() + SignedDuration::from_secs(body.expires_in_seconds.cast_signed());
    let known = Acknowledgement { by: "me".to_owned(), comment: body.comment, at: now(), expires_at };
    check.care.acknowledgement = Some(known);
    Json(check)
}

async fn unacknowledge(Segments([_, _, name]): Segments<[String; 3]>) -> Response {
    match name.as_str() {
        "dns" => StatusCode::NO_CONTENT.into_response(),
        _ => problem(StatusCode::NOT_FOUND, &format!("{name} is not acknowledged")),
    }
}

/// One item for each that the three checks of a fleet can make.
async fn uptime(filter: Filter) -> Json<UptimePage> {
    let time = Uptime { up_seconds: 43_200.0, down_seconds: 43.2, outages: 2, ..Uptime::default() };
    let bad = UptimeView {
        cluster: Some("east".to_owned()),
        namespace: Some("health".to_owned()),
        name: Some("dns".to_owned()),
        label: None,
        checks: 1,
        ratio: time.ratio(),
        budget: filter.get("objective").and_then(|text| text.parse::<Objective>().ok()?.budget(&time)),
        time,
    };
    let time = Uptime { unknown_seconds: 86_400.0, ..Uptime::default() };
    let unknown = UptimeView {
        cluster: None,
        namespace: None,
        name: None,
        label: Some("eu".to_owned()),
        ratio: None,
        budget: None,
        time,
        ..bad.clone()
    };
    let total = if filter["limit"] == "20" { 2 } else { 9 };
    Json(UptimePage { from: ago(86_400), to: now(), items: vec![bad, unknown], total })
}

async fn definitions(State(fleet): State<Shared>, filter: Filter) -> Json<Page<DefinitionView>> {
    let fleet = fleet.lock().unwrap();
    page(fleet.definitions.values().cloned().collect(), &filter, &fleet, |view| view.name.clone())
}

async fn one_definition(State(fleet): State<Shared>, Segments(name): Segments<String>) -> Response {
    let mut fleet = fleet.lock().unwrap();
    let verdict = fleet.verdict.filter(|_| fleet.silent_reads == 0);
    fleet.silent_reads = fleet.silent_reads.saturating_sub(1);
    let Some(view) = fleet.definitions.get_mut(&name) else {
        return problem(StatusCode::NOT_FOUND, &format!("there is no definition {name:?}"));
    };
    if let Some(verdict) = verdict {
        for status in &mut view.clusters {
            (status.result, status.observed_generation) = (Some(verdict), view.generation);
        }
    }
    ([(header::ETAG, tag(view))], Json(view.clone())).into_response()
}

fn tag(view: &DefinitionView) -> String {
    format!("W/\"{}.x\"", view.generation)
}

async fn apply(
    State(fleet): State<Shared>,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let mut fleet = fleet.lock().unwrap();
    let before = fleet.definitions.get(&name).cloned();
    if headers.get(header::IF_MATCH).is_some_and(|wanted| before.as_ref().is_none_or(|view| *wanted != tag(view))) {
        return problem(StatusCode::PRECONDITION_FAILED, "it was changed meanwhile");
    }
    let generation = match &before {
        Some(view) if view.definition == body => view.generation,
        Some(view) => view.generation + 1,
        None => 1,
    };
    let of_cluster = |cluster: &String| DefinitionClusterStatus {
        cluster: cluster.clone(),
        result: None,
        observed_generation: generation - 1,
        message: String::new(),
    };
    let clusters = fleet.clusters.keys().map(of_cluster).collect();
    let message = String::new();
    let (git, resource) = (None, None);
    let view = DefinitionView { name: name.clone(), generation, definition: body, message, git, resource, clusters };
    fleet.definitions.insert(name, view.clone());
    (if before.is_some() { StatusCode::OK } else { StatusCode::CREATED }, Json(view)).into_response()
}

async fn withdraw(State(fleet): State<Shared>, Segments(name): Segments<String>) -> Response {
    match fleet.lock().unwrap().definitions.remove(&name) {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("there is no definition {name:?}")),
    }
}

async fn preview(State(fleet): State<Shared>, Json(body): Json<Value>) -> Json<Preview> {
    let fleet = fleet.lock().unwrap();
    let current = fleet.definitions.get(body["metadata"]["name"].as_str().unwrap()).map(|view| view.definition.clone());
    let change = match &current {
        None => Change::Create,
        Some(current) if *current == body => Change::Unchanged,
        Some(_) => Change::Update,
    };
    let of_cluster = |cluster: &String| PreviewCluster { cluster: cluster.clone(), change, message: String::new() };
    Json(Preview { clusters: fleet.clusters.keys().map(of_cluster).collect(), current })
}
