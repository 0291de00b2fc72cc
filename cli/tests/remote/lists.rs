//! status, checks, runs, cluster list: what they show and how they exit.

use active_monitor_cli::Exit;
use active_monitor_core::view::{CheckStatus, ClusterStatus, GapView, Restore};

use crate::hub::{Fleet, Hub, ago, check, cluster, definition, fleet};

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
fn lists_are_read_to_their_last_page() {
    let definitions = ["dns", "tls", "web"].map(|name| (name.to_owned(), definition(name)));
    let fleet = || Fleet { definitions: definitions.clone().into(), ..fleet() };
    for command in [&["checks"][..], &["cluster", "list"], &["status"], &["get", "definitions"]] {
        let whole = Hub::start(fleet()).run(command);
        for size in [1, 2] {
            let hub = Hub::start(Fleet { page: Some(size), ..fleet() });
            let ran = hub.run(command);
            assert_eq!((&ran.out, ran.exit), (&whole.out, whole.exit), "{command:?} by {size}");
            let asked = hub.requests();
            assert!(asked.iter().any(|one| one.contains("?after=") && one.ends_with("&limit=10000")), "{asked:?}");
        }
    }
}

#[test]
fn a_list_without_an_end_is_given_up() {
    let hub = Hub::start(Fleet { page: Some(1), endless: true, ..fleet() });
    let ran = hub.run(&["checks"]);
    assert!(ran.err.contains("a list without an end"), "{}", ran.err);
}

#[test]
fn a_hub_that_came_back_from_the_past_says_so_until_it_is_confirmed() {
    let mut fleet = Fleet::default();
    fleet.clusters.insert("one".to_owned(), cluster("one", ClusterStatus::Connected));
    fleet.restore = Some(Restore { noticed_at: ago(60), reason: "it was restored from a backup".to_owned() });
    let hub = Hub::start(fleet);
    let ran = hub.run(&["status"]);
    assert_eq!(ran.exit, Exit::Found);
    assert!(ran.out.starts_with("The hub came back from the past (it was restored from a backup): "), "{}", ran.out);
    assert!(!ran.out.contains("nothing is wrong"), "{}", ran.out);
    let ran = hub.run(&["hub", "restore"]);
    assert_eq!(ran.exit, Exit::Found);
    for line in ["since 2026-03-01T11:59:00Z: it was restored from a backup", "fleetcheck hub confirm-restore"] {
        assert!(ran.out.contains(line), "{}", ran.out);
    }
    let row: Vec<&str> = ran.out.lines().find(|line| line.starts_with("dns")).unwrap().split_whitespace().collect();
    assert_eq!(row, ["dns", "3", "5", "east,", "west"]);
    assert_eq!(hub.run(&["hub", "confirm-restore"]).exit, Exit::Fine);
    let ran = hub.run(&["hub", "restore"]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Fine, "the hub knows all that it ever did\n"));
    assert_eq!(hub.run(&["status"]).exit, Exit::Fine);
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

fn incident() -> active_monitor_core::view::Incident {
    serde_json::from_value(serde_json::json!({
        "id": "5f0c1d9a3be84a17", "kind": "Check", "subject": "check/health/dns", "namespace": "health", "name": "dns",
        "title": "health/dns fails in 3 of 4 clusters with region=eu", "widespread": true, "silenced": false,
        "flapping": false, "firstSeen": "2026-01-01T00:00:00Z", "lastChange": "2026-01-01T00:00:00Z",
        "counts": {"failing": 3, "healthy": 5, "unknown": 1, "failingInScope": 3, "inScope": 4},
        "scope": {"label": "region", "value": "eu"},
        "differences": [{"label": "region", "value": "eu", "failing": 3, "of": 4, "failingOutside": 0, "ofOutside": 4}],
        "changes": [{"at": "2025-12-31T23:50:00Z", "kind": "Definition", "who": "alice", "what": "definition.put", "object": "dns"}],
        "members": []
    }))
    .unwrap()
}

#[test]
fn incidents_come_first_and_say_what_they_have_in_common() {
    let hub = Hub::start(Fleet { incidents: vec![incident()], ..fleet() });
    let out = hub.run(&["status"]).out;
    let head: Vec<&str> = out.lines().take(4).collect();
    assert!(head[0].starts_with("INCIDENT ") && head[3].starts_with("STATUS "), "{out}");
    assert!(head[1].starts_with("5f0c1d9a3be84a17   Widespread"), "{out}");
    assert!(head[1].ends_with("health/dns fails in 3 of 4 clusters with region=eu"), "{out}");

    let ran = hub.run(&["incidents", "--details"]);
    let details: Vec<&str> = ran.out.lines().skip(3).collect();
    assert_eq!(
        details,
        [
            "5f0c1d9a3be84a17: health/dns fails in 3 of 4 clusters with region=eu",
            "  3 failing, 5 healthy, 1 unknown",
            "  region=eu: 3 of 4, elsewhere 0 of 4",
            "  before, at 2025-12-31T23:50:00Z: definition.put dns by alice",
        ]
    );
    let none = Hub::start(fleet()).run(&["incidents"]);
    assert_eq!((none.out.as_str(), none.err.as_str()), ("", "there are no open incidents\n"));
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
    let told = hub.run(&["runs", "--logs"]).out;
    let logs = "\n\neast health/dns-0a1b\n  dns-0a1b:\n  lookup failed: [2J no such host\n";
    assert!(told.ends_with(logs), "{told}");
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
fn uptime_is_shown_lowest_first() {
    let hub = Hub::start(fleet());
    let ran = hub.run(&["uptime"]);
    insta::assert_snapshot!(ran.out, @r"
    UPTIME    OF                CHECKS   OUTAGES   DOWN   UNKNOWN   LEFT OUT
    99.900%   east/health/dns   1        2         44s    -         -
    -         eu                1        0         -      24h       -
    ");
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Fine, ""));
    assert_eq!(hub.requests().last().unwrap(), "GET /api/v1/uptime?by=check&limit=20&window=24h");
    let ran =
        hub.run(&["uptime", "east/health", "-l", "env=prod", "--window", "30d", "--by", "cluster", "--limit", "5"]);
    assert_eq!(ran.err, "7 more; see --limit\n");
    assert_eq!(
        hub.requests().last().unwrap(),
        "GET /api/v1/uptime?by=cluster&cluster=east&limit=5&namespace=health&selector=env%3Dprod&window=30d"
    );
    let ran = hub.run(&["uptime", "--objective", "99"]);
    let (first, second) = (ran.out.lines().nth(1).unwrap(), ran.out.lines().nth(2).unwrap());
    assert!(ran.out.contains("BUDGET LEFT") && first.ends_with("6m29s of 7m12s"), "{}", ran.out);
    assert!(!second.contains(" of "), "nothing is known, so nothing is left: {}", ran.out);
    let ran = hub.run(&["uptime", "--objective", "99.99"]);
    assert!(ran.out.lines().nth(1).unwrap().ends_with("-39s of 4s"), "{}", ran.out);
}

#[test]
fn a_gap_stands_between_the_runs_where_it_is() {
    let mut fleet = fleet();
    let gap = |after, reports| GapView { cluster: "east".to_owned(), after, reports, noticed_at: ago(60) };
    fleet.gaps = vec![gap(5, 7), gap(3, 12)];
    let hub = Hub::start(fleet);
    let shown = hub.run(&["runs"]).out;
    let at =
        |text: &str| shown.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {shown}"));
    assert_eq!(at("7 runs of this cluster never came, noticed 60s ago"), 1, "{shown}");
    assert_eq!(
        at("12 runs of this cluster never came"),
        at("WorkflowFailed") - 1,
        "before the run behind which it lies"
    );
    let json: serde_json::Value = serde_json::from_str(&hub.run(&["runs", "-o", "json"]).out).unwrap();
    assert_eq!((&json["gaps"][1]["after"], &json["gaps"][1]["reports"]), (&3.into(), &12.into()));
}

#[test]
fn clusters_are_listed() {
    let ran = Hub::start(fleet()).run(&["cluster", "list"]);
    insta::assert_snapshot!(ran.out, @r"
    NAME   STATUS        SELF-TEST   LAST HEARD   CHECKS   WRONG   BACKLOG   AGENT   KUBERNETES   LABELS
    east   Connected     unknown     2s           3        2       0         0.1.0   v1.36.1      env=prod,region=eu
    new    Pending       -           -            0        0       0         -       -            -
    west   Unreachable   unknown     66m          2        2       7         -       -            -
    ");
    assert_eq!(ran.exit, Exit::Fine);
}

#[test]
fn windows_are_set_listed_and_deleted() {
    let hub = Hub::start(fleet());
    let again = [
        "window",
        "set",
        "patch-day",
        "-l",
        "env=prod",
        "--cron",
        "0 2 * * SUN",
        "--tz",
        "Europe/Berlin",
        "--for",
        "2h",
    ];
    // It is Sunday, 12:00 UTC.
    assert_eq!(hub.run(&again).out, "window patch-day set, begins in 6d13h\n");
    let once = [
        "window",
        "set",
        "move",
        "--cluster",
        "east",
        "--from",
        "2026-03-01T11:00:00Z",
        "--to",
        "2026-03-01T12:30:00Z",
        "-m",
        "new nodes",
    ];
    assert_eq!(hub.run(&once).out, "window move set, open, ends in 30m\n");
    insta::assert_snapshot!(hub.run(&["window", "list"]).out, @r"
    NAME        STATE               WHEN                                           OF               COMMENT     GIT
    move        open, ends in 30m   2026-03-01T11:00:00Z to 2026-03-01T12:30:00Z   east/*/*         new nodes   -
    patch-day   begins in 6d13h     0 2 * * SUN Europe/Berlin for 120m             */*/* env=prod   -           -
    ");
    assert_eq!(hub.run(&["window", "delete", "move"]).out, "window move deleted\n");
    let gone = hub.run(&["window", "delete", "move"]);
    assert!(gone.exit == Exit::Error && gone.err.contains("there is no window move"), "{}", gone.err);
}

#[test]
fn what_is_wrong_is_acknowledged() {
    let hub = Hub::start(fleet());
    let ran = hub.run(&["ack", "east/health/dns", "--for", "90m", "-m", "ticket 7"]);
    assert_eq!(ran.out, "east/health/dns acknowledged until 2026-03-01T13:30:00Z\n");
    assert_eq!(hub.requests().last().unwrap(), "PUT /api/v1/clusters/east/checks/health/dns/acknowledgement");
    assert_eq!(hub.run(&["unack", "east/health/dns"]).out, "east/health/dns is no longer acknowledged\n");
    assert!(hub.run(&["unack", "east/health/web"]).err.contains("web is not acknowledged"));
}
