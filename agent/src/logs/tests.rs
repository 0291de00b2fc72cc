//! An API server of a few lines, under a real client.

use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use prometheus::Opts;
use serde_json::json;

use super::*;

/// What the server does with a request for the log of this pod.
type Log = fn(pod: &str) -> Option<Response<Body>>;

fn logs(pods: usize, log: Log) -> (Logs, IntCounterVec, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let uri = request.uri().to_string();
        seen.lock().push(uri.clone());
        async move {
            let answer = match uri.split(['/', '?']).nth(6) {
                Some(pod) if uri.contains("/log?") => log(pod),
                Some(_) | None => Some(list(pods)),
            };
            match answer {
                Some(answer) => Ok::<_, std::convert::Infallible>(answer),
                None => std::future::pending().await,
            }
        }
    });
    let results = IntCounterVec::new(Opts::new("results", "By result."), &["result"]).unwrap();
    (Logs::new(Client::new(service, "health"), results.clone()), results, asked)
}

fn list(pods: usize) -> Response<Body> {
    let pod = |n: usize| {
        let created = format!("2026-01-01T00:{:02}:00Z", n % 60);
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": format!("pod-{n}"), "namespace": "health", "creationTimestamp": created}})
    };
    let items: Vec<_> = (0..pods).map(pod).collect();
    said(
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items})
            .to_string(),
    )
}

fn said(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Body::from(text.into().to_vec()))
}

fn refused() -> Response<Body> {
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403});
    Response::builder().status(StatusCode::FORBIDDEN).body(Body::from(status.to_string().into_bytes())).unwrap()
}

async fn count(logs: &Logs, results: &IntCounterVec, result: &str) -> String {
    let began = Instant::now();
    let tail = logs.tail("health/dns-1").await;
    assert!(began.elapsed() < TIMEOUT + Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(tail.len() <= MAX_LOG_TAIL_BYTES, "{}", tail.len());
    assert_eq!(results.with_label_values(&[result]).get(), 1, "{result}");
    tail
}

#[tokio::test]
async fn the_newest_failed_pods_are_read_and_secrets_stay_behind() {
    let (logs, results, asked) = logs(5, |pod| {
        Some(said(format!(
            "\x1b[31m{pod}\x1b[0m starts\r\n\nlogin password=hunter2\nAuthorization: Bearer abcdefghijkl\n"
        )))
    });
    let pod = |n| format!("pod-{n}:\npod-{n} starts\nlogin password=***\nAuthorization: Bearer ***");
    let expected = [4, 3, 2].map(pod).join("\n");
    assert_eq!(count(&logs, &results, "read").await, expected);
    let asked = asked.lock();
    assert_eq!(asked.len(), 4);
    let list = &asked[0];
    assert!(list.starts_with("/api/v1/namespaces/health/pods?"), "{list}");
    assert!(list.contains("labelSelector=workflows.argoproj.io%2Fworkflow%3Ddns-1"), "{list}");
    assert!(list.contains("fieldSelector=status.phase%3DFailed"), "{list}");
    assert!(asked[1].contains("container=main") && asked[1].contains("tailLines=20"), "{}", asked[1]);
}

#[tokio::test]
async fn long_logs_are_bounded_from_their_front() {
    let (logs, results, _) = logs(3, |_| {
        let lines: Vec<String> = (0..9000).map(|n| format!("line {n} {}", "ä".repeat(100))).collect();
        Some(said(lines.join("\n")))
    });
    let tail = count(&logs, &results, "read").await;
    assert_eq!(tail.matches("pod-").count(), 3);
    assert!(tail.len() > 3500 && tail.contains(":\n…"), "{tail}");

    let one = last_lines(&(0..100).map(|n| format!("{n}\n")).collect::<String>(), MAX_LINES, MAX_POD_BYTES);
    assert_eq!(one.lines().collect::<Vec<_>>(), (80..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(last_lines("aääb", 20, 5), "…b");
    assert_eq!(last_lines("", 20, 6), "");
}

#[tokio::test]
async fn a_run_goes_on_without_logs_that_are_refused_gone_or_absent() {
    let (refusing, results, _) = logs(1, |_| Some(refused()));
    assert_eq!(count(&refusing, &results, "refused").await, "");
    let (empty, results, _) = logs(0, |_| None);
    assert_eq!(count(&empty, &results, "none").await, "");
    let (broken, results, _) = logs(1, |_| Some(Response::builder().status(500).body(Body::empty()).unwrap()));
    assert_eq!(count(&broken, &results, "failed").await, "");
}

#[tokio::test]
async fn a_log_that_does_not_come_costs_two_seconds_and_not_the_others() {
    let (logs, results, _) = logs(2, |pod| (pod == "pod-0").then(|| said("no such host")));
    assert_eq!(count(&logs, &results, "late").await, "pod-0:\nno such host");
}

#[tokio::test]
async fn many_failures_at_once_wait_no_longer() {
    let (logs, results, asked) = logs(1, |_| None);
    let began = Instant::now();
    futures::future::join_all((0..200).map(|_| logs.tail("health/dns-1"))).await;
    assert!(began.elapsed() < TIMEOUT + Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(results.with_label_values(&["late"]).get(), 200);
    let asked = asked.lock().len();
    assert!(asked <= 6 * CONCURRENT, "most never asked: {asked}");
}
