//! What a route starts with after a restart, a receiver that refuses something, and what it is signed with.

use std::sync::Mutex;

use active_monitor_core::alert::NoticeStatus;
use active_monitor_core::view::IncidentKind;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::sign::Secrets;
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

/// What a receiver was asked.
#[derive(Clone)]
struct Asked {
    headers: HeaderMap,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Judge = Arc<dyn Fn(&str) -> StatusCode + Send + Sync>;

/// A receiver that judges each body, and a route's task that tells it of what is open.
struct World {
    asked: Arc<Mutex<Vec<Asked>>>,
    server: tokio::task::JoinHandle<()>,
    opens: watch::Sender<Arc<Vec<Arc<Incident>>>>,
    task: Task,
    tasks: Tasks,
    data: tempfile::TempDir,
}

impl World {
    async fn start(kind: &str, more: &str, judge: impl Fn(&str) -> StatusCode + Send + Sync + 'static) -> World {
        let (asked, judge): (Arc<Mutex<Vec<Asked>>>, Judge) = (Arc::default(), Arc::new(judge));
        async fn receive(
            State((asked, judge)): State<(Arc<Mutex<Vec<Asked>>>, Judge)>,
            headers: HeaderMap,
            body: String,
        ) -> StatusCode {
            let status = judge(&body);
            asked.lock().unwrap().push(Asked { headers, body });
            status
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", post(receive))
            .route("/api/v2/alerts", post(receive))
            .with_state((Arc::clone(&asked), judge));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(data.path()).await.unwrap());
        let tasks = Tasks::new();
        let fleet = owner::start(store, Terms::of_a_test(data.path()), &tasks).await.unwrap();
        let (opens, open) = watch::channel(Arc::default());
        let metrics = AlertMetrics::new().unwrap();
        let more = more.replace("DIR", data.path().to_str().unwrap());
        let route = route(&format!("{kind}: 'http://{address}/'{more}"));
        let teller = Teller::new(REMIND);
        let task = Task { route, teller, began: at(0), alive_at: None, open, fleet, metrics };
        World { asked, server, opens, task, tasks, data }
    }

    fn open(&self, ids: &[&str]) {
        let open = ids.iter().map(|id| incident(id, IncidentKind::Check, None)).collect();
        self.opens.send_replace(Arc::new(open));
    }

    /// What the receiver was asked in a round, as ids; and whether the round went well.
    async fn round(&mut self, second: i64) -> (Vec<String>, bool) {
        let result = self.task.round(at(second)).await;
        let ids = |Asked { body, .. }: &Asked| {
            let document: Value = serde_json::from_str(body).unwrap();
            let of_many = |alerts: &Vec<Value>| alerts.iter().map(|alert| text(&alert["labels"]["incident"])).collect();
            document.as_array().map_or_else(|| text(&document["incident"]["id"]), of_many)
        };
        let said = self.asked.lock().unwrap().drain(..).map(|asked| ids(&asked)).collect();
        (said, result.is_ok())
    }

    fn counts(&self) -> [u64; 3] {
        self.task.metrics.counters().map(|counter| counter.with_label_values(&["a"]).get())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
        self.tasks.stop();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn refusing(what: &'static str, status: StatusCode) -> impl Fn(&str) -> StatusCode + Send + Sync {
    move |body| if body.contains(what) { status } else { StatusCode::NO_CONTENT }
}

#[tokio::test]
async fn a_notice_that_a_webhook_refuses_waits_for_itself_and_holds_back_no_other_one() {
    for status in [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::INTERNAL_SERVER_ERROR] {
        let mut world = World::start("webhook", "", refusing("bad", status)).await;
        world.open(&["bad", "one", "two"]);
        let strings = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        // An error here would put the whole route off.
        assert_eq!(world.round(60).await, (strings(&["bad", "one", "two"]), true), "{status}");
        world.open(&["bad", "one", "two", "late"]);
        for (second, asked) in [(61, vec!["late"]), (69, vec![]), (70, vec!["bad"]), (89, vec![]), (90, vec!["bad"])] {
            assert_eq!(world.round(second).await, (strings(&asked), true), "{status} at {second}");
        }
        assert_eq!(world.counts(), [3, 3, 0]);
    }
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_puts_the_route_off_and_no_notice() {
    for status in [
        StatusCode::UNAUTHORIZED,
        StatusCode::NOT_FOUND,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
    ] {
        let mut world = World::start("webhook", "", move |_| status).await;
        world.open(&["one", "two"]);
        for second in [60, 61] {
            assert_eq!(world.round(second).await, (vec!["one".to_owned(), "two".to_owned()], false), "{status}");
        }
    }
}

#[tokio::test]
async fn of_alerts_that_an_alertmanager_refuses_together_it_gets_each_that_it_takes() {
    let mut world = World::start("alertmanager", "", refusing("bad", StatusCode::BAD_REQUEST)).await;
    world.open(&["one", "bad", "two"]);
    let asked = ["onebadtwo", "one", "bad", "two"].map(str::to_owned).to_vec();
    assert_eq!(world.round(60).await, (asked, true));
    assert_eq!(world.round(61).await, (vec![], true));
    assert_eq!(world.counts(), [2, 1, 0]);
}

#[tokio::test]
async fn a_webhook_is_signed_and_only_a_try_again_has_the_same_id() {
    let is_up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let judge = move |_: &str| match up.load(std::sync::atomic::Ordering::SeqCst) {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut world = World::start("webhook", ", watchdog: true, secretFile: 'DIR/secret'", judge).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let file = world.data.path().join("secret");
    world.open(&["one"]);
    std::fs::write(&file, "hunter2").unwrap();
    let error = world.task.round(at(60)).await.unwrap_err().to_string();
    assert!(error.contains("secretFile: line 1 must be whsec_") && !error.contains("hunter2"), "{error}");
    assert!(world.asked.lock().unwrap().is_empty(), "nothing goes out without its signature");

    std::fs::write(&file, secret).unwrap();
    let mut ids = Vec::new();
    for (second, up) in [(60, false), (61, true), (61 + 3600, true)] {
        is_up.store(up, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(world.task.round(at(second)).await.is_ok(), up);
        let asked: Vec<Asked> = world.asked.lock().unwrap().drain(..).collect();
        for asked in &asked {
            let (id, sent) = (asked.header("webhook-id"), asked.header("webhook-timestamp").parse().unwrap());
            let signature = Secrets::parse(secret).unwrap().sign(id, sent, asked.body.as_bytes());
            assert_eq!(asked.header("webhook-signature"), signature);
            assert_eq!(asked.header("content-type"), "application/json");
        }
        ids.push(asked.iter().map(|asked| asked.header("webhook-id").to_owned()).collect::<Vec<_>>());
    }
    // Each is a sign of life and a notice.
    assert!(ids.iter().all(|ids| ids.len() == 2 && ids[0] != ids[1]), "{ids:?}");
    assert_eq!(ids[0], ids[1]);
    assert!(ids[1][0] != ids[2][0] && ids[1][1] != ids[2][1], "{ids:?}");
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
    let mut task = Task {
        route,
        teller,
        began: at(0),
        alive_at: Some(at(60)),
        open,
        fleet,
        metrics: AlertMetrics::new().unwrap(),
    };
    task.stepped(SignedDuration::from_hours(-1));
    assert_eq!(task.alive_at, Some(at(60 - 3600)));
    assert!(task.due(at(119 - 3600)).is_empty());
    assert_eq!(task.due(at(120 - 3600)).len(), 1);
    tasks.stop();
}
