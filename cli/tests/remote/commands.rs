//! run, pause, resume, why.

use active_monitor_cli::Exit;
use active_monitor_core::command::{Pause, Scope, Subject};
use active_monitor_core::state::{RemedyBudget, Totals};
use active_monitor_core::view::{Action, CommandRequest};
use jiff::SignedDuration;

use crate::hub::{Hub, fleet, now};

fn given(hub: &Hub) -> CommandRequest {
    hub.fleet.lock().unwrap().commands.last().unwrap().clone()
}

#[test]
fn a_pause_of_remedies_goes_to_every_cluster_that_the_labels_pick_and_shows_who_refused() {
    let hub = Hub::start(fleet());
    let args = ["pause", "--remedies", "-l", "region=eu,env=prod", "--for", "2h", "--reason", "network work"];
    let ran = hub.run(&args);
    insta::assert_snapshot!(ran.out, @r"
    pause remedies of the whole cluster for 7200 s: network work
    CLUSTER   RESULT        REFUSED BY   MESSAGE
    east      Delivered     -            done
    new       Refused       policy       obeyed are: run-now
    west      Unreachable   -            its agent is not connected
    ");
    assert_eq!(ran.exit, Exit::Found, "not every cluster does it");
    let CommandRequest { action, subject, labels, seconds, reason, .. } = given(&hub);
    assert_eq!((action, subject, seconds), (Action::Pause, Some(Subject::Remedies), Some(7200)));
    assert_eq!((labels["region"].as_str(), labels["env"].as_str(), reason.as_str()), ("eu", "prod", "network work"));
    let json: serde_json::Value = serde_json::from_str(&hub.run(&[&args[..], &["-o", "json"]].concat()).out).unwrap();
    assert_eq!(
        (&json["results"][1]["layer"], &json["results"][2]["outcome"]),
        (&"policy".into(), &"Unreachable".into())
    );
}

#[test]
fn one_check_is_run_and_resumed() {
    let hub = Hub::start(fleet());
    let ran = hub.run(&["run", "east/health/dns"]);
    assert_eq!(ran.exit, Exit::Fine, "{}", ran.err);
    let CommandRequest { action, subject, clusters, namespace, check, .. } = given(&hub);
    assert_eq!((action, subject, clusters), (Action::Run, None, vec!["east".to_owned()]));
    assert_eq!((namespace.as_deref(), check.as_deref()), (Some("health"), Some("dns")));
    assert_eq!(hub.run(&["resume", "east/health/dns"]).exit, Exit::Fine);
    let CommandRequest { action, subject, .. } = given(&hub);
    assert_eq!((action, subject), (Action::Resume, Some(Subject::Checks)));
}

#[test]
fn why_shows_everything_that_is_known_of_a_check() {
    let mut fleet = fleet();
    let check = fleet.checks.iter_mut().find(|check| check.cluster == "east" && check.state.name == "dns").unwrap();
    check.state.remedy = Some(Totals::default());
    check.state.remedy_budget =
        Some(RemedyBudget { limit: 3, left: 0, resets_at: Some(now() + SignedDuration::from_secs(600)) });
    let (reason, by) = ("network work".to_owned(), "ann".to_owned());
    let until = now() + SignedDuration::from_secs(60);
    let (id, scope) = ("1".to_owned(), Scope::default());
    check.state.pauses = vec![Pause { id, subject: Subject::Remedies, scope, until, reason, by }];
    let hub = Hub::start(fleet);
    let ran = hub.run(&["why", "east/health/dns"]);
    insta::assert_snapshot!(ran.out, @r"
    CHECK
    east/health/dns   Failed
    message           WorkflowFailed: no such host
    heard             2s ago, cluster Connected
    schedule          @every 60s
    next run          in 60s
    remedy            0 of 3 runs left, again in 10m
    silenced by       remediesPaused: remedies of the whole cluster paused until 2026-03-01T12:01:00Z by ann: network work
    silenced by       remedyLimit: its remedy has run 3 times, its limit; a failure from 2026-03-01T12:10:00Z on is remedied again

    CLUSTER   NAMESPACE   NAME   KIND          OUTCOME     REASON           ENDED   TOOK   MESSAGE
    east      health      dns    healthCheck   Succeeded   -                9m45s   10s    -
    east      health      dns    healthCheck   Failed      WorkflowFailed   9m47s   10s    lookup failed: [2J no such host

    east health/dns-0a1b
      dns-0a1b:
      lookup failed: [2J no such host
    ");
    assert_eq!(ran.exit, Exit::Found);
    let json: serde_json::Value =
        serde_json::from_str(&hub.run(&["why", "west/health/dns", "-o", "json"]).out).unwrap();
    assert_eq!(json["knownSecondsAgo"], 4000);
    assert_eq!(json["silencedBy"][0]["kind"], "unreachable");
    let none = hub.run(&["why", "east/health/none"]);
    assert!(none.exit == Exit::Error && none.err.contains("no check none"), "{}", none.err);
}
