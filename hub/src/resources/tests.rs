//! A real store and a real fleet, and an API server faked at the wire.

use std::time::Instant as Clock;

use active_monitor_core::definition::{API_VERSION, KIND};
use active_monitor_core::session::frame::{DefinitionResult, DefinitionStatus};
use active_monitor_core::view::ClusterAdd;
use active_monitor_runtime::tasks::Tasks;
use axum::body::{Body, Bytes};
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::desired::tests::session;
use crate::owner::{self, FleetHandle, Terms};
use crate::source::{Source, SourceArgs};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

const WATCHED: &str = "/apis/fleet.activemonitor.keikoproj.io/v1alpha1/namespaces/fleet/fleethealthchecks";

/// The API server's side of one namespace.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// What watches are told, each with its version.
    log: Vec<(u64, String)>,
    watches: Vec<mpsc::UnboundedSender<Result<Bytes, std::io::Error>>>,
    is_away: bool,
    lists_are_empty: bool,
    lists: usize,
    writes: usize,
}

impl State {
    fn tell(&mut self, what: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": what, "object": object}));
        self.log.push((self.version, line.clone()));
        self.watches.retain(|watch| watch.send(Ok(line.clone().into())).is_ok());
    }

    fn put(&mut self, name: &str, change: impl FnOnce(&mut Value)) -> Value {
        self.version += 1;
        let new = || {
            json!({
                "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck",
                "metadata": {"name": name, "namespace": "fleet", "generation": 0},
            })
        };
        let object = self.objects.entry(name.to_owned()).or_insert_with(new);
        change(object);
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let object = object.clone();
        self.tell("MODIFIED", &object);
        object
    }

    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> (StatusCode, Body) {
        let said = |object: Value| (StatusCode::OK, Body::from(object.to_string()));
        if self.is_away {
            return (StatusCode::SERVICE_UNAVAILABLE, Body::from("away"));
        }
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")?.parse().ok()).unwrap_or(0);
        if method == Method::PATCH {
            let name = path.strip_prefix(WATCHED).and_then(|rest| rest.strip_prefix('/')?.strip_suffix("/status"));
            let name = name.expect("only statuses are written");
            self.writes += 1;
            return said(self.put(name, |object| object["status"] = body["status"].clone()));
        }
        assert_eq!((method, path), (&Method::GET, WATCHED));
        if query.contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded_channel();
            for (_, line) in self.log.iter().filter(|(version, _)| *version > since) {
                sender.send(Ok(line.clone().into())).expect("an open watch");
            }
            self.watches.push(sender);
            return (StatusCode::OK, Body::from_stream(UnboundedReceiverStream::new(receiver)));
        }
        self.lists += 1;
        let all = self.objects.values().filter(|_| !self.lists_are_empty).collect::<Vec<_>>();
        said(json!({
            "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheckList",
            "metadata": {"resourceVersion": self.version.to_string()}, "items": all,
        }))
    }
}

impl Fake {
    fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
                let query = parts.uri.query().unwrap_or_default();
                let (status, body) = fake.0.lock().answer(&parts.method, parts.uri.path(), query, &body);
                Ok::<_, tower::BoxError>(Response::builder().status(status).body(body).unwrap())
            }
        });
        Client::new(service, "fleet")
    }

    /// As `kubectl apply` does.
    fn apply(&self, name: &str, spec: Value) {
        self.0.lock().put(name, |object| {
            object["spec"] = spec;
            object["metadata"]["generation"] = (object["metadata"]["generation"].as_i64().unwrap() + 1).into();
        });
    }

    fn delete(&self, name: &str) {
        let mut state = self.0.lock();
        state.version += 1;
        let object = state.objects.remove(name).unwrap();
        state.tell("DELETED", &object);
    }

    /// Ends all watches.
    fn cut(&self) {
        let mut state = self.0.lock();
        let broken = || Err(std::io::Error::other("cut"));
        state.watches.drain(..).for_each(|watch| drop(watch.send(broken())));
    }

    fn writes(&self) -> usize {
        self.0.lock().writes
    }

    /// Waits until a condition of the present generation has this reason; gives its message.
    async fn until(&self, name: &str, type_: &str, reason: &str) -> String {
        let found = || {
            let object = self.0.lock().objects[name].clone();
            let status = &object["status"];
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            let found = conditions.find(|condition| condition["type"] == type_ && condition["reason"] == reason)?;
            let is_present = status["observedGeneration"] == object["metadata"]["generation"];
            is_present.then(|| found["message"].as_str().unwrap().to_owned())
        };
        until(&format!("{name}: {type_} {reason}"), found).await
    }
}

async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Clock::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Clock::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Hub {
    fleet: FleetHandle,
    source: Arc<Source>,
    error: IntGauge,
    tasks: Tasks,
}

impl Hub {
    async fn start(data: &std::path::Path, store: &Arc<dyn Store>, fake: &Fake) -> Hub {
        let tasks = Tasks::new();
        let fleet = owner::start(Arc::clone(store), Terms::of_a_test(data), &tasks).await.unwrap();
        let args = SourceArgs { resources_namespace: Some("fleet".to_owned()), ..SourceArgs::default() };
        let source = Arc::new(Source::load(args, store.as_ref()).await.unwrap());
        let error = IntGauge::new("error", "1 or 0").unwrap();
        let resources = Resources { client: fake.client(), namespace: "fleet".to_owned(), error: error.clone() };
        let keeper = Keeper { source: Arc::clone(&source), store: Arc::clone(store), fleet: fleet.clone() };
        tasks.supervise("resources", resources.run(keeper, tasks.stop_token()));
        Hub { fleet, source, error, tasks }
    }

    async fn with_cluster(data: &std::path::Path, store: &Arc<dyn Store>, fake: &Fake) -> Hub {
        let hub = Hub::start(data, store, fake).await;
        let labels = [("env".to_owned(), "prod".to_owned())].into();
        hub.fleet.add_cluster(ClusterAdd { name: "east".into(), labels, annotations: BTreeMap::new() }).await.unwrap();
        hub
    }

    async fn says(&self, name: &str, result: DefinitionResult, message: &str) {
        let generation = self.fleet.definitions()[name].generation;
        let (name, message) = (name.to_owned(), message.to_owned());
        let status = DefinitionStatus { name, generation, result, message };
        let epoch = session(&self.fleet, "east").await.epoch;
        self.fleet.definition_statuses("east", epoch, vec![status]).await.unwrap();
    }

    fn definitions(&self) -> Vec<String> {
        self.fleet.definitions().keys().cloned().collect()
    }

    async fn until_error(&self, is: i64) {
        until("the metric", || (self.error.get() == is).then_some(())).await;
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

fn spec(period: u32) -> Value {
    json!({
        "clusterSelector": {"matchLabels": {"env": "prod"}},
        "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": period}},
    })
}

async fn store(data: &std::path::Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(data).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_done_and_its_status_says_what_became_of_it() {
    let (data, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let store = store(data.path()).await;
    let hub = Hub::with_cluster(data.path(), &store, &fake).await;
    fake.apply("dns", spec(60));
    assert_eq!(fake.until("dns", "Ready", "Pending").await, "0 of 1 clusters have it");
    assert_eq!(hub.source.resources()["dns"], "fleet/dns");
    hub.says("dns", DefinitionResult::Applied, "").await;
    assert_eq!(fake.until("dns", "Ready", "Applied").await, "1 of 1 clusters have it");

    // What the agent says again, and what changes elsewhere, is no news.
    let writes = fake.writes();
    hub.says("dns", DefinitionResult::Applied, "").await;
    fake.apply("tls", json!({"clusterSelector": {}, "template": {"metadata": {"namespace": "H"}, "spec": {}}}));
    assert!(fake.until("tls", "Accepted", "Invalid").await.starts_with("spec.template.metadata.namespace: "));
    assert_eq!((fake.writes(), hub.definitions()), (writes + 1, vec!["dns".to_owned()]));

    fake.apply("dns", spec(30));
    fake.until("dns", "Ready", "Pending").await;
    hub.says("dns", DefinitionResult::Refused, "namespaces: none is open").await;
    let text = "1 of 1 clusters do not take it; east: Refused: namespaces: none is open";
    assert_eq!(fake.until("dns", "Ready", "Refused").await, text);
    assert_eq!(fake.0.lock().objects["dns"]["status"]["clusters"]["refused"], 1);

    // What a person has is theirs, until they delete it.
    let theirs = json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck",
        "metadata": {"name": "mine"}, "spec": spec(9),
    });
    hub.fleet.put_definition(serde_json::from_value(theirs).unwrap()).await.unwrap();
    fake.apply("mine", spec(60));
    fake.until("mine", "Accepted", "Conflict").await;
    hub.fleet.delete_definition("mine").await.unwrap();
    fake.until("mine", "Accepted", "Accepted").await;

    for name in ["dns", "tls", "mine"] {
        fake.delete(name);
    }
    until("no definition", || hub.definitions().is_empty().then_some(())).await;
    // Its line is written after the change.
    let written = async {
        loop {
            let log = store.audit_log(1).await.unwrap();
            if (log[0].who.as_str(), log[0].action.as_str()) == ("resources", "definition.delete") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_or_empty_withdraws_nothing() {
    let (data, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let store = store(data.path()).await;
    let hub = Hub::with_cluster(data.path(), &store, &fake).await;
    for name in ["dns", "tls", "web"] {
        fake.apply(name, spec(60));
        fake.until(name, "Ready", "Pending").await;
    }
    fake.0.lock().is_away = true;
    fake.cut();
    hub.until_error(1).await;
    assert_eq!(hub.definitions(), ["dns", "tls", "web"]);
    // Unseen by any watch.
    fake.0.lock().objects.remove("web");
    fake.0.lock().is_away = false;
    until("that it is withdrawn", || (hub.definitions() == ["dns", "tls"]).then_some(())).await;
    hub.until_error(0).await;

    let lists = fake.0.lock().lists;
    fake.0.lock().lists_are_empty = true;
    fake.cut();
    until("an empty list", || (fake.0.lock().lists > lists).then_some(())).await;
    // What is applied next is done after what the list led to.
    fake.apply("new", spec(60));
    fake.until("new", "Ready", "Pending").await;
    assert_eq!(hub.definitions(), ["dns", "new", "tls"]);
    drop(hub);

    // The next life knows of none, and does not believe it.
    let hub = Hub::start(data.path(), &store, &fake).await;
    hub.until_error(1).await;
    fake.apply("newer", spec(60));
    fake.until("newer", "Ready", "Pending").await;
    assert_eq!(hub.definitions(), ["dns", "new", "newer", "tls"]);
    fake.0.lock().lists_are_empty = false;
    fake.0.lock().objects.remove("tls");
    fake.cut();
    until("that it is withdrawn", || (hub.definitions() == ["dns", "new", "newer"]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_cluster_could_be_sent_is_rejected_and_hinders_no_other() {
    let (data, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let store = store(data.path()).await;
    let hub = Hub::with_cluster(data.path(), &store, &fake).await;
    for n in 0..20 {
        let mut large = spec(60);
        large["template"]["spec"]["description"] = "x".repeat(230 * 1024).into();
        fake.apply(&format!("large-{n:02}"), large);
    }
    fake.apply("small", spec(60));
    fake.until("small", "Accepted", "Accepted").await;
    let names: Vec<String> = fake.0.lock().objects.keys().cloned().collect();
    let definitions = hub.definitions();
    let names: Vec<String> = names.into_iter().filter(|name| !definitions.contains(name)).collect();
    assert!(!names.is_empty() && names.len() < 20, "{names:?}");
    for name in &names {
        let why = fake.until(name, "Accepted", "Rejected").await;
        assert!(why.contains("the definitions of cluster east would be"), "{why}");
        // It is claimed for as long as a try takes.
        let is_free = || (!hub.source.resources().contains_key(name)).then_some(());
        until("a person may still have the name", is_free).await;
    }
    // There is room again.
    fake.delete("large-00");
    fake.until(&names[0], "Accepted", "Accepted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_goes_also_where_nothing_that_is_left_is_taken() {
    let (data, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let store = store(data.path()).await;
    let hub = Hub::with_cluster(data.path(), &store, &fake).await;
    let mut large = spec(60);
    large["template"]["spec"]["description"] = "x".repeat(230 * 1024).into();
    for n in 0..17 {
        let (name, spec) = (format!("people-{n}"), &large);
        let document = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec});
        hub.fleet.put_definition(serde_json::from_value(document).unwrap()).await.unwrap();
    }
    fake.apply("small", spec(60));
    fake.until("small", "Accepted", "Accepted").await;
    fake.apply("large", large);
    fake.until("large", "Accepted", "Rejected").await;
    fake.delete("small");
    until("small is gone", || (!hub.definitions().contains(&"small".to_owned())).then_some(())).await;
}
