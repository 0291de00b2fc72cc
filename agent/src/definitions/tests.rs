//! Against an API server faked at the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

/// A pushed definition of a check in the namespace `health`.
fn definition() -> Definition {
    let source = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: a}";
    let health_check = json!({
        "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": "pushed", "namespace": "health", "labels": {DEFINITION_LABEL: "pushed"}},
        "spec": {"repeatAfterSec": 60, "workflow": {"resource": {
            "namespace": "health", "serviceAccount": "sa", "source": {"inline": source}}}},
    });
    Definition { name: "pushed".into(), generation: 1, health_check: health_check.to_string() }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

/// An API server that asks the first `busy` requests to come back, as one does whose CRD was only just made.
fn starting(busy: usize) -> Client {
    let asked = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |request: Request<Body>| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        async move {
            let (parts, body) = request.into_parts();
            let sent: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
            let list = json!({"apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheckList",
                "metadata": {}, "items": []});
            let (code, answer) = match parts.method {
                _ if number < busy => (429, status(429, "TooManyRequests")),
                Method::POST => (201, sent),
                Method::GET if parts.uri.path().ends_with("/healthchecks") => (200, list),
                _ => (404, status(404, "NotFound")),
            };
            let body = Body::from(answer.to_string().into_bytes());
            Ok::<_, tower::BoxError>(Response::builder().status(StatusCode::from_u16(code)?).body(body)?)
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn an_api_server_that_is_only_starting_costs_a_definition_no_half_minute() {
    let policy = Policy { namespaces: ["health".to_owned()].into(), ..Policy::default() };
    let pushed = PushedDefinitions { nonce: 7, definitions: vec![definition()] };
    let (_pushed, receiver) = watch::channel(Some(pushed));
    let (sender, mut statuses) = mpsc::channel(8);
    let run = tokio::spawn(run(starting(2), Scope::Cluster, policy, receiver, sender));
    let mut results = Vec::new();
    while results.last() != Some(&DefinitionResult::Applied) {
        let (nonce, answer) = tokio::time::timeout(LAST_RETRY / 3, statuses.recv()).await.expect("soon").expect("runs");
        assert_eq!((nonce, answer.len()), (7, 1));
        results.push(answer[0].result);
    }
    assert_eq!(results.first(), Some(&DefinitionResult::Failed), "what failed is said at once");
    run.abort();
}

/// An API server that keeps HealthChecks, and says what was written.
#[derive(Clone, Default)]
struct ApiServer {
    /// The answer to every write, where there is one.
    refusal: Arc<Mutex<Option<u16>>>,
    kept: Arc<Mutex<BTreeMap<String, Value>>>,
    writes: Arc<Mutex<Vec<String>>>,
}

impl ApiServer {
    fn answer(&self, method: &Method, path: &str, sent: Value) -> (u16, Value) {
        let mut kept = self.kept.lock();
        if method != Method::GET {
            self.writes.lock().push(format!("{method} {path}"));
            if let Some(code) = *self.refusal.lock() {
                return (code, status(code, "Refused"));
            }
        }
        match method.as_str() {
            "GET" if path.ends_with("/healthchecks") => {
                let items: Vec<&Value> = kept.values().collect();
                let kind = json!({"apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheckList",
                    "metadata": {}, "items": items});
                (200, kind)
            }
            "GET" => kept.get(path).map_or((404, status(404, "NotFound")), |found| (200, found.clone())),
            "POST" => {
                kept.insert(format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap_or("")), sent.clone());
                (201, sent)
            }
            "PUT" => {
                kept.insert(path.to_owned(), sent.clone());
                (200, sent)
            }
            "DELETE" => (200, kept.remove(path).unwrap_or_default()),
            other => panic!("{other} {path}"),
        }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let sent = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
                let (code, answer) = server.answer(&parts.method, parts.uri.path(), sent);
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, tower::BoxError>(Response::builder().status(StatusCode::from_u16(code)?).body(body)?)
            }
        });
        Client::new(service, "default")
    }
}

/// The definition with another name and with what `change` makes of its spec.
fn other(name: &str, change: impl Fn(&mut Value)) -> Definition {
    let mut pushed: Value = serde_json::from_str(&definition().health_check).unwrap();
    pushed["metadata"]["name"] = name.into();
    pushed["metadata"]["labels"][DEFINITION_LABEL] = name.into();
    change(&mut pushed);
    Definition { name: name.into(), generation: 1, health_check: pushed.to_string() }
}

async fn results(server: &ApiServer, policy: &Policy, definitions: &[Definition]) -> Vec<(DefinitionResult, String)> {
    results_within(server, &mut Allowed::by(policy.clone()), definitions).await
}

async fn results_within(
    server: &ApiServer,
    allowed: &mut Allowed,
    definitions: &[Definition],
) -> Vec<(DefinitionResult, String)> {
    let statuses = apply_all(&server.client(), &Scope::Cluster, allowed, definitions).await;
    statuses.into_iter().map(|status| (status.result, status.message)).collect()
}

fn health() -> Policy {
    Policy { namespaces: ["health".to_owned()].into(), ..Policy::default() }
}

#[tokio::test]
async fn a_hostile_hub_pushes_nothing_beyond_the_policy() {
    let server = ApiServer::default();
    let rule = |verb: &str| json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": [verb]}]);
    let set = [
        other("namespace", |pushed| pushed["metadata"]["namespace"] = "kube-system".into()),
        other("runs-in", |pushed| pushed["spec"]["workflow"]["resource"]["namespace"] = "kube-system".into()),
        other("level", |pushed| pushed["spec"]["level"] = "cluster".into()),
        other("url", |pushed| {
            pushed["spec"]["workflow"]["resource"]["source"] = json!({"url": {"path": "https://evil.example/w.yaml"}});
        }),
        other("file", |pushed| pushed["spec"]["workflow"]["resource"]["source"] = json!({"file": {"path": "w.yaml"}})),
        other("rules", |pushed| pushed["spec"]["workflow"]["rbacRules"] = rule("get")),
        other("all-rules", |pushed| pushed["spec"]["workflow"]["rbacRules"] = rule("*")),
        other("period", |pushed| pushed["spec"]["repeatAfterSec"] = 1.into()),
        other("cron", |pushed| {
            pushed["spec"]["repeatAfterSec"] = 0.into();
            pushed["spec"]["schedule"] = json!({"cron": "@every 1s"});
        }),
        other("remedy", |pushed| pushed["spec"]["remedyworkflow"] = pushed["spec"]["workflow"].clone()),
        other("run-now", |pushed| {
            pushed["metadata"]["annotations"] = json!({"activemonitor.keikoproj.io/run-now": "1"});
        }),
        other("label", |pushed| pushed["metadata"]["labels"] = json!({DEFINITION_LABEL: "other"})),
        Definition { name: "no-json".into(), generation: 1, health_check: "{".into() },
    ];
    for (definition, (result, message)) in set.iter().zip(results(&server, &health(), &set).await) {
        assert!(result == DefinitionResult::Refused && !message.is_empty(), "{}: {message}", definition.name);
    }
    let account = Policy { accounts: Some(["other".to_owned()].into()), ..health() };
    let refused = results(&server, &account, &[definition()]).await;
    assert!(refused[0].1.contains("serviceAccount: \"sa\" is not open"), "{refused:?}");
    assert_eq!(*server.writes.lock(), [""; 0], "nothing was written");
}

#[tokio::test]
async fn a_hub_gets_no_more_checks_than_the_policy_takes_however_it_pushes_them() {
    let server = ApiServer::default();
    let policy = Policy { max_checks: 2, ..health() };
    let as_it_is = |name: &str| other(name, |_| ());
    let first: Vec<Definition> = ["a", "b", "c"].into_iter().map(as_it_is).collect();
    let answers = results(&server, &policy, &first).await;
    assert_eq!(
        answers.iter().map(|(result, _)| *result).collect::<Vec<_>>(),
        [DefinitionResult::Applied, DefinitionResult::Applied, DefinitionResult::Refused]
    );
    assert!(answers[2].1.contains("this cluster takes 2"), "{answers:?}");
    // Those that are there are kept by a set that cannot be applied: they take their room all the same.
    let broken = |name: &str| other(name, |pushed| pushed["spec"]["level"] = "cluster".into());
    let second = [broken("a"), broken("b"), as_it_is("c"), as_it_is("d")];
    assert!(results(&server, &policy, &second).await.iter().all(|(result, _)| *result == DefinitionResult::Refused));
    assert_eq!(server.kept.lock().len(), 2);
    // One that moves takes no more room, and what is withdrawn makes room.
    let moved = other("a", |pushed| pushed["metadata"]["name"] = "elsewhere".into());
    let third = [moved, as_it_is("d")];
    assert!(results(&server, &policy, &third).await.iter().all(|(result, _)| *result == DefinitionResult::Applied));
    let kept: Vec<String> = server.kept.lock().keys().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(kept, ["d", "elsewhere"]);
}

/// A new name, or another schedule, is a run at once.
#[tokio::test]
async fn a_hostile_hub_gets_no_more_runs_by_renaming_and_rescheduling_its_checks() {
    let server = ApiServer::default();
    let mut allowed = Allowed::by(Policy { max_checks: 4, min_period_seconds: 3600, ..health() });
    let set = |names: [&str; 4], period: u32| {
        names.map(|name| other(name, |pushed| pushed["spec"]["repeatAfterSec"] = period.into()))
    };
    let (first, renamed) = (["a", "b", "c", "d"], ["e", "f", "g", "h"]);
    let all_are = |answers: &[(DefinitionResult, String)], result| answers.iter().all(|(given, _)| *given == result);
    let answers = results_within(&server, &mut allowed, &set(first, 3600)).await;
    assert!(all_are(&answers, DefinitionResult::Applied), "a whole set comes at once: {answers:?}");
    let writes = || server.writes.lock().iter().filter(|write| !write.starts_with("DELETE")).count();
    assert_eq!(writes(), 4);

    let paced = PACED.as_ref().unwrap().get();
    let answers = results_within(&server, &mut allowed, &set(first, 3601)).await;
    assert!(all_are(&answers, DefinitionResult::Failed), "{answers:?}");
    assert!(answers[0].1.contains("takes 4 in 3600 s") && answers[0].1.contains("minPeriodSeconds"), "{answers:?}");
    assert_eq!(PACED.as_ref().unwrap().get(), paced + 4);
    // What runs no sooner for it is applied at once.
    let described = set(first, 3600).map(|definition| {
        let mut pushed: Value = serde_json::from_str(&definition.health_check).unwrap();
        pushed["spec"]["description"] = "another text".into();
        Definition { health_check: pushed.to_string(), ..definition }
    });
    let answers = results_within(&server, &mut allowed, &described).await;
    assert!(all_are(&answers, DefinitionResult::Applied), "{answers:?}");
    assert_eq!(writes(), 8);

    let answers = results_within(&server, &mut allowed, &set(renamed, 3600)).await;
    assert!(all_are(&answers, DefinitionResult::Failed), "{answers:?}");
    assert_eq!((writes(), server.kept.lock().len()), (8, 0), "the old names go, the new ones wait");
    // An hour later they come.
    allowed.since -= Duration::from_secs(3600);
    let answers = results_within(&server, &mut allowed, &set(renamed, 3600)).await;
    assert!(all_are(&answers, DefinitionResult::Applied), "{answers:?}");
}

/// What the API server refuses runs never: it must not keep what it would take from coming.
#[tokio::test]
async fn what_the_api_server_refuses_uses_up_no_credit_and_what_may_have_been_made_does() {
    let server = ApiServer::default();
    let mut allowed = Allowed::by(Policy { max_checks: 2, min_period_seconds: 3600, ..health() });
    let every =
        |period: u32| ["a", "b"].map(|name| other(name, |pushed| pushed["spec"]["repeatAfterSec"] = period.into()));
    let (set, sooner) = (every(3601), every(3600));
    for code in [403, 409, 422, 429] {
        *server.refusal.lock() = Some(code);
        for _ in 0..3 {
            let answers = results_within(&server, &mut allowed, &set).await;
            assert!(answers.iter().all(|(_, message)| !message.contains("takes 2 in 3600 s")), "{code}: {answers:?}");
        }
    }
    *server.refusal.lock() = None;
    let answers = results_within(&server, &mut allowed, &set).await;
    assert!(answers.iter().all(|(result, _)| *result == DefinitionResult::Applied), "{answers:?}");

    // Another schedule, which is refused, and then one that may have come to be.
    allowed.since -= Duration::from_secs(3600);
    *server.refusal.lock() = Some(422);
    results_within(&server, &mut allowed, &sooner).await;
    *server.refusal.lock() = Some(504);
    results_within(&server, &mut allowed, &sooner).await;
    *server.refusal.lock() = None;
    let answers = results_within(&server, &mut allowed, &sooner).await;
    assert!(answers.iter().all(|(_, message)| message.contains("takes 2 in 3600 s")), "{answers:?}");
}
