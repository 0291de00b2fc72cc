//! Incidents of a hub with agents made by hand, and who is told of them: the real Alertmanager, and a webhook.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use active_monitor_core::incident::CLOSE_AFTER;
use active_monitor_core::session::frame::Heartbeat;
use active_monitor_core::state::Phase;
use active_monitor_core::view::{Closed, Incident, IncidentKind};
use active_monitor_hub::store::IncidentQuery;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::*;

fn failed(name: &str) -> CheckState {
    CheckState { phase: Phase::Failed, message: "no answer from 10.0.0.10".into(), ..check(name) }
}

async fn enrolled(dir: &Path, hub: &Running, name: &str) -> Agent {
    let token = hub.token(name).await;
    Agent::enrol(dir, hub, &token, &format!("uid-{name}")).await.unwrap()
}

impl Running {
    fn titles(&self) -> Vec<String> {
        self.hub.incidents.borrow().iter().map(|incident| incident.title.clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_lives_through_a_cut_and_a_restart_of_the_hub() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let east = enrolled(dir.path(), &hub, "east").await.speak(&hub, "east", failed("dns")).await;
    let agent = enrolled(dir.path(), &hub, "west").await;
    let west = agent.speak(&hub, "west", check("dns")).await;
    eventually("incident", || hub.titles() == ["health/dns fails in east"]).await;
    let first = hub.hub.incidents.borrow()[0].clone();

    // East is cut off: that is another incident, and what failed there still does as far as anybody knows.
    drop(east);
    eventually("incident of the cluster", || hub.titles().contains(&"east is unreachable".to_owned())).await;
    assert!(hub.hub.incidents.borrow().iter().any(|incident| incident.id == first.id));
    drop(west);
    hub.stop().await;

    let hub = Running::start(dir.path()).await;
    let open = hub.hub.incidents.borrow().clone();
    let known = open.iter().find(|incident| incident.id == first.id).expect("it was kept");
    assert_eq!((known.first_seen, &known.title), (first.first_seen, &first.title));
    assert!(open.iter().any(|incident| incident.kind == IncidentKind::Unreachable));
    // The other cluster speaks of its check; that says nothing of this one.
    let _west = agent.speak(&hub, "west", check("dns")).await;
    eventually("west", || hub.check_status("west", "dns") == Some(CheckStatus::Succeeded)).await;
    assert!(hub.titles().contains(&first.title));

    // A removed cluster has nothing left that could fail.
    hub.hub.fleet.remove_cluster("east").await.unwrap();
    // West may have been silent for a lease while the hub started.
    let is_of_east = |incident: &&Incident| incident.subject != "cluster/west";
    eventually("end", || {
        let open = hub.hub.incidents.borrow().clone();
        let mut open = open.iter().map(|incident| &**incident).filter(is_of_east);
        open.all(|incident| incident.closed == Some(Closed::Withdrawn))
    })
    .await;
    let page = hub.hub.store.incidents(&IncidentQuery { limit: 10, ..IncidentQuery::default() }).await.unwrap();
    assert_eq!(page.items.iter().filter(is_of_east).count(), 2, "{page:?}");
    hub.stop().await;
}

/// A session that is kept alive until it is dropped.
struct Alive {
    session: Session,
    _beats: AbortOnDropHandle<()>,
}

impl Agent {
    /// Opens a session and says this of its only check.
    async fn speak(&self, hub: &Running, cluster: &str, state: CheckState) -> Alive {
        let mut session = self.dial(hub, hello(cluster, &format!("uid-{cluster}"), "i1")).await.unwrap();
        let HubFrame::Welcome(_) = session.next().await else { panic!("no Welcome") };
        session.send(AgentFrame::Snapshot { checks: vec![state], last: true }).await;
        let frames = session.frames.clone();
        let beats = tokio::spawn(async move {
            let beat = || Heartbeat { sent_at: Timestamp::now(), backlog: 0, dropped_reports: 0 };
            while frames.send(AgentFrame::Heartbeat(beat()).into()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        Alive { session, _beats: AbortOnDropHandle::new(beats) }
    }
}

/// The real Alertmanager on a port of its own; ends with the test.
struct Alertmanager {
    child: Child,
    url: String,
    _dir: TempDir,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Alertmanager {
    /// None where it is not installed.
    async fn start(webhook: &str) -> Option<Alertmanager> {
        let dir = TempDir::new().unwrap();
        let config = dir.path().join("alertmanager.yml");
        let text = format!(
            "route: {{receiver: all, group_by: [incident], group_wait: 1s, group_interval: 1s}}\n\
             receivers: [{{name: all, webhook_configs: [{{url: '{webhook}', send_resolved: true}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.path().display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let child = child.ok()?;
        let alertmanager = Alertmanager { child, url: format!("http://127.0.0.1:{port}"), _dir: dir };
        let ready = format!("{}/-/ready", alertmanager.url);
        within("Alertmanager", async {
            while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        Some(alertmanager)
    }

    /// The summaries of the alerts that amtool shows as active.
    fn active(&self) -> Vec<String> {
        let url = format!("--alertmanager.url={}", self.url);
        let output = Command::new("amtool").args([url.as_str(), "alert", "query", "-o", "json"]).output().unwrap();
        let alerts: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        alerts.iter().map(|alert| alert["annotations"]["summary"].as_str().unwrap().to_owned()).collect()
    }
}

/// What came in, in order.
type Inbox = Arc<Mutex<Vec<Value>>>;

/// Takes JSON documents; the first `refuse` of them are answered with an error.
async fn webhook(refuse: usize) -> (String, Inbox) {
    let (inbox, left) = (Inbox::default(), Arc::new(Mutex::new(refuse)));
    let kept = inbox.clone();
    let take = async move |headers: http::HeaderMap, axum::Json(document): axum::Json<Value>| {
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return http::StatusCode::SERVICE_UNAVAILABLE;
        }
        let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let mut document = document;
        document["token"] = token.into();
        kept.lock().unwrap().push(document);
        http::StatusCode::OK
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/in", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, inbox)
}

fn statuses(inbox: &Inbox) -> Vec<String> {
    let inbox = inbox.lock().unwrap();
    inbox.iter().map(|document| document["status"].as_str().unwrap().to_owned()).collect()
}

/// How long an incident has to settle, to close and to be told of.
async fn patiently(what: &str, mut condition: impl FnMut() -> bool) {
    let done = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), done).await.unwrap_or_else(|_| panic!("no {what} within 120 s"));
}

#[tokio::test(flavor = "multi_thread")]
async fn alertmanager_and_a_webhook_are_told_once_of_an_incident_and_of_its_end() {
    let (from_alertmanager, grouped) = webhook(0).await;
    let Some(alertmanager) = Alertmanager::start(&from_alertmanager).await else {
        let test = "alertmanager_and_a_webhook_are_told_once_of_an_incident_and_of_its_end";
        crate::postgres::skip::report(test, "Alertmanager is not installed: apt-get install prometheus-alertmanager");
        return;
    };
    // The webhook is away at first: nothing is lost by that.
    let (direct, inbox) = webhook(2).await;
    let dir = TempDir::new().unwrap();
    let (routes, token) = (dir.path().join("routes.yaml"), dir.path().join("token"));
    std::fs::write(&token, "s3cret\n").unwrap();
    let text = format!(
        "routes:\n- {{name: am, alertmanager: '{}', watchdog: true}}\n\
         - {{name: hook, webhook: '{direct}', tokenFile: {}, match: {{kind: Check, namespace: health}}}}\n\
         - {{name: other, webhook: '{direct}', match: {{namespace: elsewhere}}}}\n",
        alertmanager.url,
        token.display()
    );
    std::fs::write(&routes, text).unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let hub = Running::start_with(&data, &["--routes-file", routes.to_str().unwrap()]).await;
    patiently("sign of life", || alertmanager.active() == ["the hub is alive"]).await;

    let agents = (enrolled(&data, &hub, "east").await, enrolled(&data, &hub, "west").await);
    let east = agents.0.speak(&hub, "east", failed("dns")).await;
    let west = agents.1.speak(&hub, "west", failed("dns")).await;
    let title = "health/dns fails in 2 of 2 clusters";
    patiently("alert", || alertmanager.active().contains(&title.to_owned())).await;
    patiently("document", || statuses(&inbox) == ["firing"]).await;
    assert_eq!(alertmanager.active().len(), 2, "one alert for both clusters, beside the sign of life");
    {
        let inbox = inbox.lock().unwrap();
        assert_eq!((&inbox[0]["token"], &inbox[0]["summary"]), (&"Bearer s3cret".into(), &title.into()));
        assert_eq!(inbox[0]["incident"]["members"].as_array().unwrap().len(), 2);
    }

    // Silence of one and health of the other end nothing.
    drop(east);
    west.session.send(AgentFrame::CheckUpsert(Box::new(check("dns")))).await;
    eventually("cut and health", || {
        let open = hub.hub.incidents.borrow();
        open.iter().any(|incident| (incident.counts.unknown, incident.counts.healthy) == (1, 1))
    })
    .await;
    // Not within the time after which an incident is closed where all is well either, though an Alertmanager hears of it anew.
    let is_active = || alertmanager.active().iter().any(|summary| summary.starts_with("health/dns fails in"));
    let since = Instant::now();
    while since.elapsed() < CLOSE_AFTER.unsigned_abs() + Duration::from_secs(15) {
        let open = hub.hub.incidents.borrow().clone();
        let mut of_check = open.iter().filter(|incident| incident.subject == "check/health/dns");
        assert!(of_check.any(|incident| incident.recovered_at.is_none()), "{:?}: {open:?}", since.elapsed());
        assert!(is_active(), "{:?}: {:?}", since.elapsed(), alertmanager.active());
        assert_eq!(statuses(&inbox), ["firing"], "{:?}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    // The removal of the cluster does.
    hub.hub.fleet.remove_cluster("east").await.unwrap();
    patiently("end", || statuses(&inbox) == ["firing", "resolved"]).await;
    patiently("end at Alertmanager", || !is_active()).await;
    patiently("notice of the end from Alertmanager", || {
        let grouped = grouped.lock().unwrap();
        grouped.iter().any(|notice| {
            notice["status"] == "resolved" && notice["commonLabels"]["alertname"] == "ActiveMonitorIncident"
        })
    })
    .await;
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_with_a_bad_file_of_routes_does_not_start_and_says_which_field() {
    let dir = TempDir::new().unwrap();
    let routes = dir.path().join("routes.yaml");
    std::fs::write(&routes, "routes: [{name: a, webhook: 'ftp://x'}]").unwrap();
    let data = dir.path().display().to_string();
    let flags = ["hub", "--agents-listen", "127.0.0.1:0", "--enrolment-listen", "127.0.0.1:0", "--data-dir", &data];
    let args = Cli::try_parse_from(flags.into_iter().chain(["--routes-file", routes.to_str().unwrap()])).unwrap().serve;
    let Err(error) = serve::start(&args, &Tasks::new()).await else { panic!("it started") };
    let said = format!("{:#}", anyhow::Error::from(error));
    assert!(said.contains("routes[0].webhook: must be http://HOST or https://HOST"), "{said}");
}
