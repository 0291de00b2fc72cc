//! What a route starts with after a restart, and a receiver that refuses something.

use std::sync::Mutex;

use active_monitor_core::alert::NoticeStatus;
use active_monitor_core::view::IncidentKind;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::metrics::tests::fleet;
use crate::owner::{self, Terms};
use crate::store::sqlite::SqliteStore;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn incident(id: &str, kind: IncidentKind, closed_at: Option<Timestamp>) -> Arc<Incident> {
    let counts = json!({"failing": 1, "healthy": 0, "unknown": 0, "failingInScope": 0, "inScope": 0});
    Arc::new(
        serde_json::from_value(json!({
            "id": id, "kind": kind, "subject": id, "title": id, "widespread": false, "silenced": false,
            "flapping": false, "firstSeen": at(0), "lastChange": at(0), "closedAt": closed_at, "counts": counts,
        }))
        .unwrap(),
    )
}

fn route(text: &str) -> Route {
    Routes::parse(&format!("routes:\n- {{name: a, {text}}}\n")).unwrap().routes.remove(0)
}

#[tokio::test]
async fn after_a_restart_an_alertmanager_hears_the_end_of_what_its_route_picks_and_is_over() {
    let data = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(data.path()).await.unwrap();
    let closed = |id, kind| incident(id, kind, Some(at(50)));
    let stored = [
        closed("over", IncidentKind::Check),
        closed("excluded", IncidentKind::Unreachable),
        closed("again", IncidentKind::Check),
    ];
    store.put_incidents(&stored).await.unwrap();
    let open =
        [Arc::new(Incident { silenced: true, ..Incident::clone(&incident("again", IncidentKind::Check, None)) })];
    let route = route("alertmanager: 'http://x', match: {kind: Check}");
    let teller = teller(&route, &open, &fleet(Vec::new()), &store, at(60)).await.unwrap();
    let due = teller.due(at(60), &open, |_| true);
    let said: Vec<_> = due.iter().map(|notice| (notice.incident.id.as_str(), notice.status)).collect();
    assert_eq!(said, [("over", NoticeStatus::Resolved)]);
}

#[tokio::test]
async fn a_notice_that_a_webhook_refuses_holds_back_no_other_one() {
    type Taken = Arc<Mutex<Vec<String>>>;
    async fn receive(State(taken): State<Taken>, body: String) -> StatusCode {
        let document: Value = serde_json::from_str(&body).unwrap();
        let id = document["incident"]["id"].as_str().unwrap().to_owned();
        if id == "bad" {
            return StatusCode::BAD_REQUEST;
        }
        taken.lock().unwrap().push(id);
        StatusCode::NO_CONTENT
    }
    let taken = Taken::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", post(receive)).with_state(Arc::clone(&taken));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let data = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    let tasks = Tasks::new();
    let fleet = owner::start(store, Terms::of_a_test(data.path()), &tasks).await.unwrap();
    let open = ["bad", "one", "two"].map(|id| incident(id, IncidentKind::Check, None));
    let (_open, open) = watch::channel(Arc::new(open.to_vec()));
    let metrics = AlertMetrics::new().unwrap();
    let (route, teller) = (route(&format!("webhook: 'http://{address}/'")), Teller::new(REMIND));
    let mut task = Task { route, teller, alive_at: None, open, fleet, metrics: metrics.clone() };

    for second in [60, 61] {
        let error = task.round(at(second)).await.unwrap_err();
        assert!(error.to_string().contains("400"), "{error:#}");
        // What was taken is not said again.
        assert_eq!(*taken.lock().unwrap(), ["one", "two"]);
    }
    let count = |counter: &IntCounterVec| counter.with_label_values(&["a"]).get();
    assert_eq!((count(&metrics.sent), count(&metrics.failed)), (2, 2));
    server.abort();
    tasks.stop();
}

#[tokio::test]
async fn a_route_repeats_and_lives_by_periods_when_the_clock_is_set_back() {
    let data = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(data.path()).await.unwrap());
    let tasks = Tasks::new();
    let fleet = owner::start(store, Terms::of_a_test(data.path()), &tasks).await.unwrap();
    let one = incident("one", IncidentKind::Check, None);
    let (_open, open) = watch::channel(Arc::new(vec![Arc::clone(&one)]));
    let mut teller = Teller::new(RESEND);
    teller.delivered(at(60), &[Notice { status: NoticeStatus::Firing, incident: one }]);
    let route = route("alertmanager: 'http://x', watchdog: true");
    let mut task = Task { route, teller, alive_at: Some(at(60)), open, fleet, metrics: AlertMetrics::new().unwrap() };
    task.stepped(SignedDuration::from_hours(-1));
    assert_eq!(task.alive_at, Some(at(60 - 3600)));
    assert!(task.due(at(119 - 3600)).is_empty());
    assert_eq!(task.due(at(120 - 3600)).len(), 1);
    tasks.stop();
}
