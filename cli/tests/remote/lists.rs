//! status, checks, runs, cluster list: what they show and how they exit.

use active_monitor_cli::Exit;
use active_monitor_core::view::{CheckStatus, ClusterStatus};

use crate::hub::{Fleet, Hub, check, cluster, fleet};

#[test]
fn status_shows_what_is_wrong_worst_first() {
    let ran = Hub::start(fleet()).run(&["status"]);
    insta::assert_snapshot!(ran.out, @r"
    STATUS        CLUSTER   CHECK         LAST HEARD   MESSAGE
    Unreachable   west      -             66m          silent for longer than 15 s; 2 checks are stale
    Pending       new       -             -            -
    Failed        east      health/dns    3m           WorkflowFailed: no such host
    Overdue       east      health/etcd   3m           overdue by 10m

    3 clusters (1 Unreachable, 1 Pending, 1 Connected), 5 checks (1 Failed, 1 Overdue, 2 Stale, 1 Succeeded), 0 definitions
    ");
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Found, ""));
}

#[test]
fn status_is_fine_only_when_everything_is_known_and_right() {
    let well = || {
        let east = cluster("east", ClusterStatus::Connected);
        Fleet {
            clusters: [(east.name.clone(), east)].into(),
            checks: vec![
                check("east", "api", CheckStatus::Succeeded, ""),
                check("east", "new", CheckStatus::Pending, ""),
                check("east", "off", CheckStatus::Stopped, ""),
            ],
            ..Fleet::default()
        }
    };
    let ran = Hub::start(well()).run(&["status"]);
    insta::assert_snapshot!(ran.out, @r"
    nothing is wrong

    1 cluster (1 Connected), 3 checks (1 Pending, 1 Stopped, 1 Succeeded), 0 definitions
    ");
    assert_eq!(ran.exit, Exit::Fine);

    for status in CheckStatus::ALL {
        let mut fleet = well();
        fleet.checks.push(check("east", "one", status, ""));
        let expected = if status.is_wrong() { Exit::Found } else { Exit::Fine };
        assert_eq!(Hub::start(fleet).run(&["status"]).exit, expected, "{status:?}");
    }
    for status in ClusterStatus::ALL {
        let mut fleet = well();
        fleet.clusters.insert("one".to_owned(), cluster("one", status));
        let expected = if status == ClusterStatus::Connected { Exit::Fine } else { Exit::Found };
        assert_eq!(Hub::start(fleet).run(&["status"]).exit, expected, "{status:?}");
    }
}

#[test]
fn an_empty_fleet_says_what_to_do() {
    let ran = Hub::start(Fleet::default()).run(&["status"]);
    assert_eq!(ran.out, "nothing is wrong\n\n0 clusters, 0 checks, 0 definitions\n");
    assert!(ran.err.contains("fleetcheck cluster add NAME"), "{}", ran.err);
    assert!(Hub::start(Fleet::default()).run(&["cluster", "list"]).err.contains("fleetcheck cluster add NAME"));
}

#[test]
fn status_as_data_has_every_check() {
    let hub = Hub::start(fleet());
    let json: serde_json::Value = serde_json::from_str(&hub.run(&["status", "-o", "json"]).out).unwrap();
    assert_eq!(json["checks"].as_array().unwrap().len(), 4);
    assert_eq!(json["clusters"][0]["name"], "west");
    assert_eq!(json["summary"]["checks"]["Stale"], 2);
    let yaml = hub.run(&["-o", "yaml", "status"]).out;
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), json);
}

#[test]
fn checks_can_be_narrowed() {
    let hub = Hub::start(fleet());
    insta::assert_snapshot!(hub.run(&["checks"]).out, @r"
    CLUSTER   NAMESPACE   NAME   STATUS      OK   FAILED   LAST RUN   NEXT RUN   MESSAGE
    east      health      dns    Failed      40   2        3m         in 60s     WorkflowFailed: no such host
    east      health      etcd   Overdue     40   2        3m         in 60s     overdue by 10m
    west      health      api    Stale       40   2        3m         -          -
    west      health      dns    Stale       40   2        3m         -          -
    east      health      api    Succeeded   40   2        3m         in 60s     -
    ");
    let ran = hub.run(&["checks", "--cluster", "east", "-n", "health", "--status", "FAILED"]);
    assert_eq!(hub.requests().last().unwrap(), "GET /api/v1/checks?cluster=east&namespace=health&status=Failed");
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
    let none = hub.run(&["checks", "--cluster", "north"]);
    assert_eq!((none.exit, none.out.as_str(), none.err.as_str()), (Exit::Fine, "", "no checks found\n"));
}

#[test]
fn runs_are_read_page_by_page() {
    let hub = Hub::start(fleet());
    insta::assert_snapshot!(hub.run(&["runs"]).out, @r"
    CLUSTER   NAMESPACE   NAME   KIND          OUTCOME     REASON           ENDED   TOOK   MESSAGE
    east      health      dns    healthCheck   Succeeded   -                9m45s   10s    -
    west      health      dns    healthCheck   Succeeded   -                9m46s   10s    -
    east      health      dns    healthCheck   Failed      WorkflowFailed   9m47s   10s    lookup failed: [2J no such host
    east      health      dns    healthCheck   Succeeded   -                9m48s   10s    -
    east      health      dns    healthCheck   Succeeded   -                9m49s   10s    -
    ");
    assert_eq!(hub.run(&["runs", "--limit", "3"]).out.lines().count(), 4);
    let asked = hub.requests();
    assert!(
        asked.ends_with(&["GET /api/v1/runs?limit=3".to_owned(), "GET /api/v1/runs?before=4&limit=1".to_owned()]),
        "{asked:?}"
    );
    hub.run(&["runs", "east/health/dns", "--kind", "healthcheck", "--outcome", "Failed"]);
    assert_eq!(
        hub.requests().last().unwrap(),
        "GET /api/v1/runs?cluster=east&kind=healthCheck&limit=20&name=dns&namespace=health&outcome=Failed"
    );
}

#[test]
fn clusters_are_listed() {
    let ran = Hub::start(fleet()).run(&["cluster", "list"]);
    insta::assert_snapshot!(ran.out, @r"
    NAME   STATUS        LAST HEARD   CHECKS   WRONG   BACKLOG   AGENT   KUBERNETES   LABELS
    east   Connected     2s           3        2       0         0.1.0   v1.36.1      env=prod,region=eu
    new    Pending       -            0        0       0         -       -            -
    west   Unreachable   66m          2        2       7         -       -            -
    ");
    assert_eq!(ran.exit, Exit::Fine);
}
