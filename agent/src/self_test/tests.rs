//! The self-test against an API server faked at the wire.

use std::collections::VecDeque;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

type Asked = Arc<Mutex<Vec<(Method, String)>>>;

/// Gives these answers in turn; the last one again and again.
fn tester(answers: &[(u16, Value)]) -> (Tester, Asked) {
    let (asked, left) = (Asked::default(), Arc::new(Mutex::new(VecDeque::from(answers.to_vec()))));
    let seen = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        asked.lock().push((request.method().clone(), request.uri().path().to_owned()));
        let mut left = left.lock();
        let (code, body) = if left.len() > 1 { left.pop_front() } else { left.front().cloned() }.unwrap();
        let mut answer = Response::new(Body::from(serde_json::to_vec(&body).unwrap()));
        *answer.status_mut() = StatusCode::from_u16(code).unwrap();
        async move { Ok::<_, tower::BoxError>(answer) }
    });
    (Tester { client: Client::new(service, "default"), namespace: "health".into() }, seen)
}

fn workflow(status: Value) -> (u16, Value) {
    let value = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": "t-1", "namespace": "health"}, "spec": {}, "status": status});
    (200, value)
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "x", "code": code}),
    )
}

#[tokio::test(start_paused = true)]
async fn it_passes_when_argo_has_carried_it_out_and_leaves_the_rest_to_argos_ttl() {
    let running = workflow(json!({"phase": "Running", "startedAt": "2026-01-01T00:00:00Z"}));
    let hiccup = failure(503, "busy");
    let (tester, asked) = tester(&[workflow(json!({})), hiccup, running, workflow(json!({"phase": "Succeeded"}))]);
    let ended = tester.run().await;
    assert!(ended.passed() && ended.message.contains("health/active-monitor-self-test-"), "{ended:?}");
    let asked = asked.lock();
    assert_eq!(asked[0].0, Method::POST);
    assert!(asked[1..].iter().all(|(method, _)| *method == Method::GET), "{asked:?}");
    assert_eq!(asked.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_up_times_out_and_is_taken_away() {
    let (tester, asked) = tester(&[workflow(json!({}))]);
    let begun = Instant::now();
    let ended = tester.run().await;
    assert_eq!(ended.outcome, SelfTestOutcome::TimedOut);
    assert!(ended.message.contains("no Argo controller"), "{}", ended.message);
    assert!(begun.elapsed() >= DEADLINE && begun.elapsed() < DEADLINE + Duration::from_secs(5));
    let (method, path) = asked.lock().last().cloned().unwrap();
    let expected = "/apis/argoproj.io/v1alpha1/namespaces/health/workflows/active-monitor-self-test-";
    assert!(method == Method::DELETE && path.starts_with(expected), "{method} {path}");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_is_said_with_what_to_do_about_it() {
    for (answer, says) in [
        (failure(403, "workflows.argoproj.io is forbidden: no"), "compare its rights with deploy/agent"),
        (failure(404, "namespaces \"health\" not found"), "the namespace health does not exist"),
        (failure(404, "404 page not found"), "Argo Workflows is not installed"),
        (failure(500, "etcd is ill"), "etcd is ill; try again"),
    ] {
        let ended = tester(&[answer]).0.run().await;
        assert_eq!(ended.outcome, SelfTestOutcome::Failed);
        assert!(ended.message.contains(says), "{}", ended.message);
    }
    let ended = tester(&[workflow(json!({})), failure(404, "gone")]).0.run().await;
    assert_eq!(ended.outcome, SelfTestOutcome::Failed);
    assert!(ended.message.contains("somebody deleted"), "{}", ended.message);
}

#[test]
fn it_runs_where_the_hubs_checks_may_run() {
    let policy = Policy { namespaces: ["shop".to_owned(), "health".to_owned()].into(), ..Policy::default() };
    let watched = Scope::of(&["b".to_owned(), "a".to_owned()]);
    assert_eq!(namespace(&policy, &watched, "own"), "health");
    assert_eq!(namespace(&Policy::default(), &watched, "own"), "a");
    assert_eq!(namespace(&Policy::default(), &Scope::Cluster, "own"), "own");
}
