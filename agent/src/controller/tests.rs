//! The loop against an API server faked at the wire: objects that cannot be read, edits in flight, and panics.

use std::sync::Mutex as StdMutex;

use active_monitor_core::capacity::Limits;
use active_monitor_core::manifest::policy::SourcePolicy;
use active_monitor_core::manifest::{CHECK_UID_LABEL, KIND_LABEL, SLOT_LABEL, workflow_name};
use active_monitor_core::ownership::{MANAGER, Remedies};
use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::scope::Scope;
use active_monitor_core::session::frame::Counted;
use active_monitor_core::state::Phase;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode};
use kube::client::{Body, ClientBuilder};
use serde_json::{Value, json};

use super::*;
use crate::accounts::Accounts;
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::commands::Paused;
use crate::counters::PANICS;
use crate::events::Events;
use crate::gate::{Fence, Gate, Refusal};
use crate::journal::{DEFAULT_MAX_BYTES, Intent, Journal};
use crate::looks::Looks;
use crate::metrics::Counters;
use crate::ownership::Contested;
use crate::schema::StatusFields;
use crate::source::{SourceConfig, Sources};
use crate::states::States;
use crate::workflows::{SlimWorkflow, Workflows};

const SOURCE: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: a}";

/// What was asked of the API server: method, path, body.
type Asked = Arc<StdMutex<Vec<(Method, String, Value)>>>;

/// A client whose requests `answer` decides on, after they were noted.
fn client(asked: Asked, answer: impl Fn(&Method, &str) -> (StatusCode, Value) + Send + Sync + 'static) -> kube::Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (asked, answer) = (asked.clone(), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            let path = parts.uri.path().to_owned();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            asked.lock().unwrap().push((parts.method.clone(), path.clone(), body));
            let (status, body) = answer(&parts.method, &path);
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, tower::BoxError>(Response::builder().status(status).body(body).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

async fn context(client: kube::Client) -> (tempfile::TempDir, Arc<Context>) {
    let dir = tempfile::tempdir().unwrap();
    let context = context_in(dir.path(), client, DEFAULT_MAX_BYTES).await;
    (dir, Arc::new(context))
}

async fn context_in(dir: &std::path::Path, client: kube::Client, journal_max: u64) -> Context {
    let journal = Journal::open(&dir.join("journal"), journal_max).await.unwrap();
    let (_, ready) = watch::channel(true);
    let (_, answers) = watch::channel(true);
    let (wake, _) = mpsc::channel(1);
    let no_limits = Limits { cluster: None, namespace: None };
    Context {
        accounts: Accounts::new(client.clone(), Scope::Cluster),
        events: Events::new(client.clone()),
        sources: Sources::new(SourceConfig::default()).await.unwrap(),
        fields: StatusFields::of(&<HealthCheck as kube::CustomResourceExt>::crd()),
        capacity: Capacity::new(no_limits, journal.clone(), wake, &prometheus::Registry::new()).unwrap(),
        client,
        answers,
        journal,
        states: States::new(),
        workflows: Workflows::default(),
        source_policy: SourcePolicy::default(),
        scope: Scope::Cluster,
        logs: None,
        counters: Counters::register(&prometheus::Registry::new()).unwrap(),
        since: Timestamp::now(),
        clock: Clock::new(&prometheus::Registry::new()).unwrap(),
        contested: Contested::default(),
        remedies: Remedies::On,
        paused: Paused::open(dir),
        ready,
        unknown_rights: parking_lot::Mutex::default(),
        looks: Looks::default(),
        memory: parking_lot::Mutex::default(),
    }
}

fn object(name: &str, generation: i64, spec: Value) -> Value {
    json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": name, "namespace": "health", "uid": name, "generation": generation,
            "resourceVersion": generation.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec, "status": {"successCount": 41, "status": "Succeeded", "startedAt": "2026-01-01T00:00:00Z"},
    })
}

fn spec(level: &str) -> Value {
    json!({"schedule": {"cron": "0 0 29 2 *"}, "level": level,
        "workflow": {"resource": {"namespace": "health", "serviceAccount": "sa", "source": {"inline": SOURCE}}}})
}

fn guarded(object: Value) -> Arc<Guarded> {
    Arc::new(serde_json::from_value(object).unwrap())
}

fn patched(asked: &Asked) -> Vec<Value> {
    let asked = asked.lock().unwrap();
    let patches = asked.iter().filter(|(method, path, _)| method == Method::PATCH && path.ends_with("/status"));
    patches.map(|(_, _, body)| body["status"].clone()).collect()
}

/// As the API server answers a status patch.
fn accepted(name: &str) -> (StatusCode, Value) {
    let metadata = json!({"name": name, "namespace": "health", "uid": name, "resourceVersion": "100"});
    (
        StatusCode::OK,
        json!({"apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck", "metadata": metadata}),
    )
}

fn refused(code: u16) -> (StatusCode, Value) {
    let reason = if code == 404 { "NotFound" } else { "" };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": reason});
    (StatusCode::from_u16(code).unwrap(), status)
}

#[tokio::test]
async fn an_object_that_is_no_healthcheck_says_so_in_its_status_and_at_the_hub_and_keeps_its_counters() {
    let broken = object("odd", 3, json!({"workflow": "not an object"}));
    for patch_is_refused in [false, true] {
        let (asked, stored) = (Asked::default(), broken.clone());
        let client = client(asked.clone(), move |method, _| match *method {
            Method::GET => (StatusCode::OK, stored.clone()),
            Method::PATCH if patch_is_refused => refused(422),
            _ => accepted("odd"),
        });
        let (_dir, context) = context(client).await;
        let reconciled = reconcile(guarded(broken.clone()), context.clone()).await;
        assert_eq!(reconciled.is_err(), patch_is_refused);
        let status = patched(&asked).remove(0);
        assert_eq!(status["status"], "Invalid");
        let message = status["errorMessage"].as_str().unwrap();
        assert!(
            message.starts_with("object: cannot be read as a HealthCheck: ") && message.contains("WorkflowSpec"),
            "{message}"
        );
        assert_eq!(status["conditions"][0]["reason"], "Invalid");
        assert!(status.get("successCount").is_none(), "{status}");
        let state = context.states.get("odd").unwrap();
        assert_eq!((state.phase, state.check.succeeded), (Phase::Invalid, 41));
    }
}

#[tokio::test]
async fn a_run_in_flight_is_followed_to_its_end_when_an_edit_makes_its_check_invalid() {
    let asked = Asked::default();
    let (_dir, context) = context(client(asked.clone(), |_, _| accepted("edited"))).await;
    let key = RunKey {
        check_uid: "edited".into(),
        kind: RunKind::HealthCheck,
        slot: "2026-01-02T00:00:00Z".parse().unwrap(),
    };
    let (namespace, name, workflow) = ("health".to_owned(), "edited".to_owned(), "health/edited-1".to_owned());
    let intent = Intent { key: key.clone(), namespace, name, workflow, run_now: None };
    context.journal.intend(intent).await.unwrap();
    context.journal.created(&key);
    let ended: SlimWorkflow = serde_json::from_value(json!({
        "metadata": {"name": "edited-1", "namespace": "health", "creationTimestamp": "2026-01-02T00:00:01Z",
            "labels": {CHECK_UID_LABEL: "edited", KIND_LABEL: "healthCheck", SLOT_LABEL: "20260102T000000Z"}},
        "status": {"phase": "Failed", "message": "broken", "finishedAt": "2026-01-02T00:00:09Z"},
    }))
    .unwrap();
    context.workflows.insert(&ended);
    reconcile(guarded(object("edited", 2, spec("galaxy"))), context.clone()).await.unwrap();
    let statuses = patched(&asked);
    assert_eq!((&statuses[0]["status"], statuses.len()), (&json!("Invalid"), 2), "{statuses:?}");
    assert_eq!((&statuses[1]["failedCount"], &statuses[1]["finishedAt"]), (&json!(1), &json!("2026-01-02T00:00:09Z")));
    assert!(statuses[1].get("status").is_none(), "it stays Invalid");
    assert_eq!(context.journal.backlog(), 1, "the hub gets the run");
    assert!(context.journal.intents("edited").is_empty());
}

#[tokio::test]
async fn a_panic_in_one_check_ends_neither_the_agent_nor_another_check_and_is_counted() {
    let asked = Asked::default();
    let client = client(asked.clone(), |_, path| {
        assert!(!path.contains("/bad/"), "a fault of the agent");
        accepted("good")
    });
    let (_dir, context) = context(client).await;
    let before = PANICS.as_ref().unwrap().get();
    let bad = guarded(object("bad", 1, spec("galaxy")));
    let error = reconcile(bad.clone(), context.clone()).await.unwrap_err();
    assert!(matches!(&error, StepError::Panicked { message } if message.contains("a fault of the agent")), "{error}");
    assert!(PANICS.as_ref().unwrap().get() > before);
    let _again: Action = retry(bad, &error, context.clone());
    assert_eq!(context.remember("bad", |memory| memory.failures), 1, "tried again, less and less often");
    reconcile(guarded(object("good", 1, spec("galaxy"))), context.clone()).await.unwrap();
    assert_eq!(context.states.get("good").unwrap().phase, Phase::Invalid);
}

#[tokio::test]
async fn a_field_that_the_installed_crd_dropped_is_said_once_for_each_version() {
    let asked = Asked::default();
    let (_dir, context) = context(client(asked.clone(), |_, _| accepted("dropped"))).await;
    let mut crd = serde_json::to_value(<HealthCheck as kube::CustomResourceExt>::crd()).unwrap();
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"].as_object_mut().unwrap().remove("suspend");
    let fields = StatusFields::of(&serde_json::from_value(crd).unwrap());
    let context = Arc::new(Context { fields, ..Arc::into_inner(context).unwrap() });
    let mut object = object("dropped", 1, spec("cluster"));
    let applied = json!({"spec": {"suspend": true}}).to_string();
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    for _ in 0..3 {
        reconcile(guarded(object.clone()), context.clone()).await.unwrap();
    }
    let events = || -> Vec<Value> {
        let asked = asked.lock().unwrap();
        asked.iter().filter(|(_, path, _)| path.ends_with("/events")).map(|(_, _, body)| body.clone()).collect()
    };
    tokio::time::timeout(Duration::from_secs(10), async {
        while events().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let events = events();
    assert_eq!((events.len(), &events[0]["reason"]), (1, &json!("FieldsDropped")));
    assert!(events[0]["note"].as_str().unwrap().contains("spec.suspend"), "{}", events[0]);
}

/// A workflow with the labels of a run of this check, as it ended.
fn ended(name: &str, uid: &str, created: &str, owner: Value) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": name, "namespace": "health", "creationTimestamp": created, "ownerReferences": owner,
            "labels": {CHECK_UID_LABEL: uid, KIND_LABEL: "healthCheck", SLOT_LABEL: "20260102T000001Z"}},
        "status": {"phase": "Succeeded", "finishedAt": "2026-01-02T00:00:09Z"},
    })
}

#[tokio::test]
async fn a_leader_without_the_journal_counts_the_workflow_of_active_monitors_that_the_one_before_it_adopted() {
    let owner = json!([{"apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck", "name": "dns",
        "uid": "dns"}]);
    for (name, owner, counted) in
        [("dns-x7k2p", owner.clone(), true), ("dns-forged", json!([]), false), ("other-x7k2p", owner, false)]
    {
        let workflow = ended(name, "dns", "2026-01-02T00:00:01Z", owner);
        let (asked, stored) = (Asked::default(), workflow.clone());
        let client = client(asked.clone(), move |method, path| match *method {
            Method::GET if path.contains("/workflows/") => (StatusCode::OK, stored.clone()),
            _ => accepted("dns"),
        });
        let (_dir, context) = context(client).await;
        context.workflows.insert(&serde_json::from_value(workflow).unwrap());
        let object = object("dns", 1, spec("namespace"));
        let resource: HealthCheck = serde_json::from_value(object.clone()).unwrap();
        let check = Check::parse(&resource).unwrap();
        crate::rebuild::rebuild(&context, [(&resource, &check)].into_iter()).await;
        reconcile(guarded(object.clone()), context.clone()).await.unwrap();
        let run = context.journal.last_run("dns", RunKind::HealthCheck);
        assert_eq!(run.is_some(), counted, "{name}");
        let counts: Vec<_> = patched(&asked).iter().filter_map(|status| status["successCount"].as_u64()).collect();
        assert_eq!(counts, if counted { vec![42] } else { vec![] }, "{name}");
        // Once it is counted it is left alone.
        crate::rebuild::rebuild(&context, [(&resource, &check)].into_iter()).await;
        assert!(context.journal.intents("dns").is_empty());
    }
}

#[tokio::test]
async fn an_agent_without_the_journal_lacks_what_an_agent_counted_and_no_workflow_tells_of() {
    let slot = "2026-01-02T00:00:01Z";
    let own = workflow_name(
        "dns-",
        &RunKey { check_uid: "dns".into(), kind: RunKind::HealthCheck, slot: slot.parse().unwrap() },
    );
    let succeeded = json!({"status": "Succeeded", "startedAt": slot, "consecutiveSuccesses": 3});
    let failed = json!({"status": "Failed", "startedAt": slot, "consecutiveFailures": 1, "consecutiveSuccesses": 0});
    let stopped = json!({"status": "Stopped", "startedAt": slot, "finishedAt": slot, "consecutiveSuccesses": 3});
    // Resumed at that time, and stopped again: no run has begun then.
    let resumed = json!({"startedAt": slot, "consecutiveFailures": 0, "consecutiveSuccesses": 0});
    let again = json!({"status": "Stopped", "startedAt": slot, "finishedAt": slot, "consecutiveSuccesses": 0});
    // By active-monitor, whatever the agent has written since.
    let foreign = json!({"status": "Succeeded", "startedAt": slot, "finishedAt": slot});
    for (manager, workflow, status, lacks) in [
        (MANAGER, None, &succeeded, true),
        (MANAGER, None, &failed, true),
        (MANAGER, None, &stopped, true),
        (MANAGER, Some(own.as_str()), &succeeded, false),
        (MANAGER, None, &resumed, false),
        (MANAGER, None, &again, false),
        (MANAGER, None, &foreign, false),
        // What active-monitor counted was never to be reported.
        ("manager", None, &succeeded, false),
        ("kubectl-edit", None, &succeeded, false),
    ] {
        let (_dir, context) = context(client(Asked::default(), |_, _| accepted("dns"))).await;
        if let Some(name) = workflow {
            let workflow = ended(name, "dns", slot, json!([]));
            context.workflows.insert(&serde_json::from_value(workflow).unwrap());
        }
        let mut object = object("dns", 1, spec("namespace"));
        object["status"] = status.clone();
        object["metadata"]["managedFields"] = json!([
            {"manager": "other", "subresource": "status", "operation": "Update", "time": "2026-01-01T00:00:00Z"},
            {"manager": manager, "subresource": "status", "operation": "Update", "time": "2026-01-02T00:00:10Z"},
        ]);
        let resource: HealthCheck = serde_json::from_value(object).unwrap();
        let check = Check::parse(&resource).unwrap();
        crate::rebuild::rebuild(&context, [(&resource, &check)].into_iter()).await;
        let lacking = context.journal.lacking().borrow().clone();
        let expected = Counted { check_uid: "dns".into(), mark: slot.parse().unwrap() };
        assert_eq!(lacking, if lacks { vec![expected] } else { vec![] }, "{manager} {workflow:?} {status}");
    }
}

#[tokio::test]
async fn rights_that_nobody_uses_go_when_the_run_of_an_invalid_check_ends_that_was_in_flight_at_the_start() {
    let asked = Asked::default();
    let client = client(asked.clone(), |method, path| match *method {
        Method::GET if path.contains("/workflows") => refused(404),
        Method::GET => (StatusCode::OK, json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []})),
        _ => accepted("edited"),
    });
    let (_dir, context) = context(client).await;
    let slot: Timestamp = "2026-01-02T00:00:01Z".parse().unwrap();
    let key = RunKey { check_uid: "edited".into(), kind: RunKind::HealthCheck, slot };
    let (namespace, name, workflow) = ("health".to_owned(), "edited".to_owned(), "health/edited-1".to_owned());
    context.journal.intend(Intent { key: key.clone(), namespace, name, workflow, run_now: None }).await.unwrap();
    context.journal.created(&key);
    let invalid = guarded(object("edited", 2, spec("galaxy")));
    let (store, mut writer) = reflector::store::<Guarded>();
    for event in [watcher::Event::Init, watcher::Event::InitApply((*invalid).clone()), watcher::Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    let (listed, workflows_ready) = mpsc::channel(1);
    listed.send(()).await.unwrap();
    let (ready, _is_ready) = watch::channel(false);
    prepare(context.clone(), store, workflows_ready, ready).await;
    let looked_for = || asked.lock().unwrap().iter().any(|(_, path, _)| path.ends_with("/v1/clusterroles"));
    assert!(!looked_for(), "the run in flight may use them");

    let workflow = ended("edited-1", "edited", "2026-01-02T00:00:01Z", json!([]));
    context.workflows.insert(&serde_json::from_value(workflow).unwrap());
    reconcile(invalid, context.clone()).await.unwrap();
    assert!(context.journal.intents("edited").is_empty());
    assert!(looked_for());
}

#[tokio::test]
async fn each_look_at_a_check_is_a_span() {
    let spans = crate::traced::Spans::watch();
    let asked = Asked::default();
    let (_dir, context) = context(client(asked.clone(), |_, _| accepted("seen"))).await;
    let seen = guarded(object("seen", 1, spec("galaxy")));
    let span = format!("check check={}", ObjectRef::from_obj(&*seen));
    reconcile(seen, context.clone()).await.unwrap();
    assert_eq!((spans.begun(&span), spans.ended(&span)), (1, 1));
}

#[tokio::test]
async fn after_an_outage_only_checks_that_failed_are_looked_at_and_their_pauses_are_short_again() {
    let (_dir, context) = context(client(Asked::default(), |_, _| refused(500))).await;
    let (store, mut writer) = reflector::store::<Guarded>();
    let checks = ["failed", "well"].map(|name| guarded(object(name, 1, spec("namespace"))));
    writer.apply_watcher_event(&watcher::Event::Init);
    checks.iter().for_each(|check| writer.apply_watcher_event(&watcher::Event::InitApply((**check).clone())));
    writer.apply_watcher_event(&watcher::Event::InitDone);
    for _ in 0..9 {
        let error = StepError::Request(RequestError::Timeout);
        let _again: Action = retry(checks[0].clone(), &error, context.clone());
    }
    context.remember("well", |memory| memory.failures = 0);
    let waiting = || crate::recovery::backing_off(&context, &store).into_iter().map(|check| check.name);
    // Asked twice, as after an outage that came back before they were looked at.
    assert_eq!((waiting().collect::<Vec<_>>(), waiting().count()), (vec!["failed".to_owned()], 1));
    assert_eq!(context.remember("failed", |memory| memory.failures), 1);
}

#[tokio::test]
async fn what_waits_for_a_pause_to_end_is_no_failure_of_its_check() {
    let (_dir, context) = context(client(Asked::default(), |_, _| refused(500))).await;
    let check = guarded(object("dns", 1, spec("namespace")));
    let failures = || context.remember("dns", |memory| memory.failures);
    let answered = |code| {
        let status = kube::core::Status { code, ..kube::core::Status::default() };
        StepError::Request(RequestError::Kube(kube::Error::Api(Box::new(status))))
    };
    let wait = |error: &StepError| pause_after(&check, error, &context);
    let unsent = || StepError::Request(RequestError::Refused(Refusal::Paused(Duration::from_secs(20))));
    let not_yet = || StepError::NotYet { message: "later".into(), deferral: Some(Duration::from_secs(20)) };
    let mut waits = Vec::new();
    for _ in 0..50 {
        for error in [unsent(), not_yet()] {
            waits.push(wait(&error));
            assert_eq!(failures(), 1, "{error}: it waits, and has not failed again");
        }
    }
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*least > Duration::from_secs(19) && *most <= Duration::from_secs(30), "{least:?} to {most:?}");
    assert!(*most - *least > Duration::from_secs(5), "spread: {least:?} to {most:?}");

    for failed in 2..5 {
        let again = wait(&answered(500));
        assert_eq!(failures(), failed);
        assert!(again <= FIRST_RETRY * (1 << (failed - 1)), "an own back-off, which no pause has grown: {again:?}");
    }
}

/// Else one check that is always answered so would keep all others waiting.
#[tokio::test]
async fn who_is_asked_for_a_pause_comes_more_and_more_seldom() {
    let (_dir, context) = context(client(Asked::default(), |_, _| refused(500))).await;
    let check = guarded(object("dns", 1, spec("namespace")));
    for (failures, code) in [(1, 429), (2, 503), (3, 429)] {
        let status = kube::core::Status { code, ..kube::core::Status::default() };
        let error = StepError::Request(RequestError::Kube(kube::Error::Api(Box::new(status))));
        pause_after(&check, &error, &context);
        assert_eq!(context.remember("dns", |memory| memory.failures), failures);
    }
}

#[tokio::test]
async fn a_run_that_meets_a_pause_waits_for_its_end_whichever_of_its_requests_does() {
    for path_that_waits in ["/serviceaccounts", "/workflows"] {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let is_create = request.method() == Method::POST;
            let (status, body) = match is_create && request.uri().path().ends_with(path_that_waits) {
                true => refused(429),
                false if is_create => accepted("dns"),
                false => refused(404),
            };
            let answer = Response::builder().status(status).header("retry-after", "30");
            let answer = answer.body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap();
            async move { Ok::<_, tower::BoxError>(answer) }
        });
        let registry = prometheus::Registry::new();
        let gate = Gate::new(Fence::open(), Clock::new(&registry).unwrap(), &registry).unwrap();
        let client = ClientBuilder::new(service, "default").with_layer(&gate).build();
        let (_dir, context) = context(client).await;
        let resource: HealthCheck = serde_json::from_value(object("dns", 1, spec("namespace"))).unwrap();
        let check = Check::parse(&resource).unwrap();
        let slot = "2026-01-03T00:00:00Z".parse().unwrap();
        let key = RunKey { check_uid: "dns".into(), kind: RunKind::HealthCheck, slot };
        let mut sent = Vec::new();
        for attempt in 0..3 {
            let error = crate::runs::start(&context, &check, &key, None).await.unwrap_err();
            let deferral = error.deferral().unwrap_or_default();
            assert!(attempt == 0 || deferral > Duration::from_secs(25), "{path_that_waits}: {deferral:?}, {error}");
            sent.push(asked.load(std::sync::atomic::Ordering::SeqCst));
        }
        assert!(sent[0] > 0 && sent[2] == sent[0], "{path_that_waits}: silence from then on: {sent:?}");
    }
}

/// A list of more than one page takes its time: whoever looked at a check meanwhile would see it as it was, and never again.
#[tokio::test]
async fn after_a_relist_checks_are_looked_at_once_the_cache_has_the_list() {
    let (store, writer) = reflector::store::<Guarded>();
    let ((vanished, mut vanishings), (listed, mut lists)) = (mpsc::channel(1), mpsc::channel(1));
    let (events, received) = futures::channel::mpsc::unbounded();
    let broken = events.clone();
    let mut changes = std::pin::pin!(changes(received, writer, vanished, listed));
    let mut give = |event| {
        events.unbounded_send(Ok(event)).unwrap();
        changes.next().now_or_never().flatten().map(|changed| changed.unwrap().meta().generation)
    };
    let version = |generation| (*guarded(object("dns", generation, spec("namespace")))).clone();
    let known = || store.state().first().and_then(|check| check.meta().generation);
    assert_eq!(give(watcher::Event::Init), None);
    assert_eq!(give(watcher::Event::InitApply(version(1))), None);
    assert_eq!(give(watcher::Event::InitDone), None);
    assert_eq!((lists.try_recv(), vanishings.try_recv(), known()), (Ok(()), Ok(()), Some(1)));
    assert_eq!(give(watcher::Event::Apply(version(2))), Some(Some(2)));

    // What ends a watch is no change.
    broken.unbounded_send(Err(watcher::Error::NoResourceVersion)).unwrap();
    assert_eq!(give(watcher::Event::Init), None);
    assert_eq!(give(watcher::Event::InitApply(version(3))), None, "not yet: the cache has the version before");
    assert_eq!((lists.try_recv().is_err(), known()), (true, Some(2)));
    assert_eq!(give(watcher::Event::InitDone), None);
    assert_eq!((lists.try_recv(), vanishings.try_recv(), known()), (Ok(()), Ok(()), Some(3)));
}

/// A create may land after the API server said that there is no such workflow, and the watch may lag: the limit must hold.
#[tokio::test]
async fn a_remedy_that_came_late_is_found_before_another_one_is_made() {
    let late = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": "dns-late", "namespace": "health", "creationTimestamp": "2026-01-02T00:00:03Z",
            "labels": {CHECK_UID_LABEL: "dns", KIND_LABEL: "remedy", SLOT_LABEL: "20260102T000001Z"}},
    });
    let list = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowList", "metadata": {}, "items": [late]});
    for is_watched in [false, true] {
        let (asked, list) = (Asked::default(), list.clone());
        let client = client(asked.clone(), move |method, path| match *method {
            Method::GET if path.ends_with("/workflows") => (StatusCode::OK, list.clone()),
            _ => accepted("dns"),
        });
        let (_dir, context) = context(client).await;
        let mut spec = spec("namespace");
        spec["remedyworkflow"] = spec["workflow"].clone();
        let resource: HealthCheck = serde_json::from_value(object("dns", 1, spec)).unwrap();
        let check = Check::parse(&resource).unwrap();
        if is_watched {
            context.workflows.insert(&serde_json::from_value(late.clone()).unwrap());
        }
        context.remember("dns", |memory| memory.gone.insert("health/dns-late".into()));
        let slot = "2026-01-03T00:00:00Z".parse().unwrap();
        let key = RunKey { check_uid: "dns".into(), kind: RunKind::Remedy, slot };
        let requests = || asked.lock().unwrap().len();
        assert_eq!(crate::runs::start(&context, &check, &key, None).await.unwrap(), Begun::Yes);
        let observed = context.observe(Timestamp::now(), &resource, HealthCheckStatus::default());
        let seen: Vec<_> = observed.workflows.iter().map(|seen| seen.workflow.as_str()).collect();
        assert_eq!((requests(), seen, observed.gone.len()), (1, vec!["health/dns-late"], 0), "just the question");
        // What is known by now is no news: it is gone on with.
        let _answer = crate::runs::start(&context, &check, &key, None).await;
        assert!(requests() > 2);
    }
}

/// Without the list the limit could not hold: as long as there is none, no remedy is made.
#[tokio::test]
async fn a_remedy_waits_for_the_list_of_those_before_it_and_fails_where_there_never_is_one() {
    let list_fails = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (asked, fails) = (Asked::default(), list_fails.clone());
    let client = client(asked.clone(), move |method, path| match *method {
        Method::GET if path.ends_with("/workflows") && fails.load(std::sync::atomic::Ordering::SeqCst) => refused(500),
        Method::GET if path.ends_with("/workflows") => (
            StatusCode::OK,
            json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowList", "metadata": {}, "items": []}),
        ),
        Method::GET => refused(404),
        _ => accepted("dns"),
    });
    let (_dir, context) = context(client).await;
    let mut spec = spec("namespace");
    spec["remedyworkflow"] = spec["workflow"].clone();
    let resource: HealthCheck = serde_json::from_value(object("dns", 1, spec)).unwrap();
    let check = Check::parse(&resource).unwrap();
    let key = |slot: &str| RunKey { check_uid: "dns".into(), kind: RunKind::Remedy, slot: slot.parse().unwrap() };
    let created = || {
        let asked = asked.lock().unwrap();
        asked.iter().filter(|(method, path, _)| method == Method::POST && path.ends_with("/workflows")).count()
    };
    let first = key("2026-01-03T00:00:00Z");
    for _ in 0..2 {
        let error = crate::runs::start(&context, &check, &first, None).await.unwrap_err();
        assert!(
            matches!(&error, StepError::NotYet { message, .. } if message.contains("which remedies there are")),
            "{error}"
        );
        assert_eq!((created(), context.journal.intents("dns").len()), (0, 0), "nothing was begun");
    }
    // For longer than the remedy may take: then it has failed, and says why.
    let long_ago = Timestamp::now() - Duration::from_secs(2 * 86_400);
    context.remember("dns", |memory| memory.trying = Some((first.clone(), long_ago)));
    assert_eq!(crate::runs::start(&context, &check, &first, None).await.unwrap(), Begun::Yes);
    let run = context.journal.last_run("dns", RunKind::Remedy).unwrap();
    assert!(run.key == first && run.message.contains("which remedies there are"), "{run:?}");
    assert_eq!(created(), 0);

    list_fails.store(false, std::sync::atomic::Ordering::SeqCst);
    let second = key("2026-01-04T00:00:00Z");
    assert_eq!(crate::runs::start(&context, &check, &second, None).await.unwrap(), Begun::Yes);
    assert_eq!(created(), 1);
    assert_eq!(context.journal.intents("dns")[0].intent.key, second);
}
