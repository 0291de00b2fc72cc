//! cluster add, label, annotate, remove.

use active_monitor_cli::Exit;
use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::view::PendingEnrolment;

use crate::hub::{Fleet, Hub, ago, fleet, now};

/// An agent of the cluster `new` waits for approval.
fn waiting() -> Fleet {
    let mut fleet = fleet();
    fleet.clusters.get_mut("new").unwrap().pending_enrolment = Some(PendingEnrolment {
        key_fingerprint: "ab12".to_owned(),
        cluster_uid: "uid".to_owned(),
        since: ago(60),
        expires_at: now() + jiff::SignedDuration::from_mins(59),
        decision: None,
    });
    fleet
}

#[test]
fn adding_prints_one_command_to_copy() {
    let hub = Hub::start(Fleet::default());
    let ran = hub.run(&["cluster", "add", "east", "-l", "env=prod,region=eu", "--annotation", "note=a,b=c"]);
    insta::assert_snapshot!(ran.out, @r"
    cluster east added

    Its token works once and for 60m (until 2026-03-01T13:00:00Z). Start the agent in the cluster with one of these:

    # Helm; where the agent is not installed yet, add --set image.repository=REGISTRY/active-monitor-agent
    helm upgrade --install agent deploy/charts/agent --namespace active-monitor --create-namespace --reuse-values --set hub.address=hub.example.com:7443,hub.enrolmentAddress=hub.example.com:7444,hub.token=east.5ec2e7.f19e2

    # kubectl; the image is the one in deploy/agent/workload.yaml
    kubectl apply -f deploy/crds -f deploy/agent && kubectl -n active-monitor create secret generic active-monitor-hub --from-literal=ACTIVE_MONITOR_HUB_ADDRESS=hub.example.com:7443 --from-literal=ACTIVE_MONITOR_ENROLMENT_ADDRESS=hub.example.com:7444 --from-literal=ACTIVE_MONITOR_TOKEN=east.5ec2e7.f19e2 --dry-run=client -o yaml | kubectl apply -f - && kubectl -n active-monitor set env statefulset/active-monitor-agent --from=secret/active-monitor-hub && kubectl -n active-monitor rollout restart statefulset/active-monitor-agent

    # Outside of the cluster
    active-monitor-agent --hub-address hub.example.com:7443 --enrolment-address hub.example.com:7444 --token east.5ec2e7.f19e2
    ");
    let fleet = hub.fleet.lock().unwrap();
    let east = &fleet.clusters["east"];
    assert_eq!((east.labels["env"].as_str(), east.labels["region"].as_str()), ("prod", "eu"));
    assert_eq!(east.annotations["note"], "a,b=c");
}

#[test]
fn a_file_of_clusters_can_be_given_again() {
    let hub = Hub::start(fleet());
    let names: Vec<String> = (0..60).map(|index| format!("edge-{index:02}")).collect();
    let line = |name: &String| format!("- {{name: {name}, labels: {{env: edge}}}}\n");
    let edge: String = names.iter().map(line).collect();
    let file = format!("clusters:\n- {{name: east, labels: {{tier: gold}}}}\n{edge}");
    let ran = hub.run_with(&["cluster", "add", "-f", "-"], &file);
    assert_eq!((ran.exit, ran.out.matches("# Helm").count()), (Exit::Fine, 60), "{}", ran.err);
    assert_eq!(ran.err, "cluster east is there (Connected), configured\n");
    assert_eq!(hub.fleet.lock().unwrap().clusters["east"].labels["tier"], "gold");
    let again = hub.run_with(&["cluster", "add", "-f", "-"], &file);
    assert_eq!((again.out.as_str(), again.err.matches("unchanged").count()), ("", 61), "no token is made void");
    let wrong = hub.run_with(&["cluster", "add", "-f", "-"], "clusters:\n- name: a\n  labels: 7\n");
    assert_eq!(wrong.exit, Exit::Error);
    assert!(wrong.err.starts_with("<stdin>:3:"), "{}", wrong.err);
}

#[test]
fn a_cluster_is_cordoned_and_uncordoned() {
    let hub = Hub::start(fleet());
    let cordoned = "cluster east cordoned: it keeps the definitions that it has\n";
    assert_eq!(hub.run(&["cluster", "cordon", "east", "--reason", "ticket 7"]).out, cordoned);
    let key = "fleet.activemonitor.keikoproj.io/cordoned";
    assert_eq!(hub.fleet.lock().unwrap().clusters["east"].annotations[key], "ticket 7");
    assert!(hub.run(&["cluster", "list"]).out.contains("Connected,Cordoned"));
    assert_eq!(hub.run(&["cluster", "uncordon", "east"]).out, "cluster east uncordoned\n");
    assert!(!hub.fleet.lock().unwrap().clusters["east"].annotations.contains_key(key));
}

#[test]
fn a_new_token_and_a_rebind_print_the_commands() {
    let hub = Hub::start(fleet());
    for (command, says) in [("token", "has a new token"), ("rebind", "is free for a rebuilt cluster")] {
        let ran = hub.run(&["cluster", command, "east"]);
        assert!(ran.out.starts_with(&format!("cluster east {says}\n")) && ran.out.contains("# Helm"), "{}", ran.out);
    }
    assert_eq!(hub.requests(), ["POST /api/v1/clusters/east/token", "POST /api/v1/clusters/east/rebind"]);
}

#[test]
fn labels_are_set_and_removed() {
    let hub = Hub::start(fleet());
    let ran = hub.run(&["cluster", "label", "east", "tier=gold", "env-"]);
    assert_eq!(ran.out, "cluster east changed; its labels: region=eu,tier=gold\n");
    let ran = hub.run(&["cluster", "annotate", "east", "dns.zone=eu.example.com"]);
    assert_eq!(ran.out, "cluster east changed; its annotations: dns.zone=eu.example.com\n");
    let ran = hub.run(&["cluster", "annotate", "east", "dns.zone-"]);
    assert_eq!(ran.out, "cluster east changed; its annotations: none\n");
}

#[test]
fn removing_names_what_is_gone() {
    let hub = Hub::start(fleet());
    assert_eq!(hub.run(&["cluster", "remove", "east"]).out, "cluster east removed\n");
    let again = hub.run(&["cluster", "rm", "east"]);
    assert_eq!((again.exit, again.err.as_str()), (Exit::Error, "error: there is no cluster \"east\"\n"));
}

#[test]
fn a_name_stays_one_segment_of_the_path() {
    let hub = Hub::start(fleet());
    hub.run(&["cluster", "remove", "../definitions/dns"]);
    assert_eq!(hub.requests(), ["DELETE /api/v1/clusters/..%2Fdefinitions%2Fdns"]);
}

#[test]
fn who_waits_and_what_did_not_pass_is_said_below_the_clusters_with_what_to_do() {
    let mut fleet = waiting();
    let why = "no Argo controller took it up";
    fleet.clusters.get_mut("east").unwrap().self_test = Some(SelfTest::new(SelfTestOutcome::TimedOut, why, ago(60)));
    let ran = Hub::start(fleet).run(&["cluster", "list"]);
    let (_, notes) = ran.out.split_once("\n\n").unwrap();
    insta::assert_snapshot!(notes, @r"
    east, 60s ago: enrolled, and its self-test timed out: no Argo controller took it up
    To test it again: fleetcheck cluster test east

    new waits for approval since 60s; its token ends in 59m. The key of its agent:
      ab12
    Compare it with the agent's log, then: fleetcheck cluster approve new
    ");
    assert!(ran.out.contains("timed out"), "{}", ran.out);
}

#[test]
fn the_key_that_waits_is_approved_or_denied_and_no_other() {
    let hub = Hub::start(waiting());
    let ran = hub.run(&["cluster", "approve", "new"]);
    assert!(ran.out.starts_with("cluster new: the key ab12 is approved"), "{}{}", ran.out, ran.err);
    let ran = hub.run(&["cluster", "deny", "new", "--key", "ab12"]);
    assert!(ran.out.contains("fleetcheck cluster token new"), "{}{}", ran.out, ran.err);
    for args in [["cluster", "approve", "new", "--key", "cd34"].as_slice(), &["cluster", "approve", "east"]] {
        let refused = hub.run(args);
        assert_eq!(refused.exit, Exit::Error);
        assert!(refused.err.contains("no agent waits for approval"), "{}", refused.err);
    }
}

#[test]
fn a_self_test_is_waited_for_and_one_that_is_refused_is_not() {
    let hub = Hub::start(fleet());
    let ran = hub.run(&["cluster", "test", "east"]);
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Fine, "cluster east: enrolled, and its self-test passed: ran\n"));
    let ran = hub.run(&["cluster", "test", "west"]);
    assert_eq!(ran.exit, Exit::Found);
    assert_eq!(ran.err, "cluster west: Unreachable: its agent is not connected\n");
}

#[test]
fn adding_can_wait_and_says_how_far_it_is_and_that_not_all_came_through() {
    let hub = Hub::start(Fleet::default());
    let ran = hub.run(&["cluster", "add", "north", "--wait=0"]);
    assert_eq!(ran.exit, Exit::Found);
    assert_eq!(ran.err, "cluster north: waits for its agent\nnot all have tested themselves within 0 s\n");
    let mut there = fleet();
    there.clusters.get_mut("east").unwrap().self_test = Some(SelfTest::new(SelfTestOutcome::Succeeded, "ran", now()));
    let ran = Hub::start(there).run_with(&["cluster", "add", "-f", "-", "--wait"], "clusters:\n- name: east\n");
    assert_eq!(ran.exit, Exit::Fine, "{}", ran.err);
    assert!(ran.err.ends_with("its self-test passed: ran\n"), "{}", ran.err);
}

#[test]
fn one_cluster_is_shown_with_what_it_lets_the_hub_do() {
    let hub = Hub::start(fleet());
    let ran = hub.run(&["cluster", "show", "east"]);
    insta::assert_snapshot!(ran.out, @r"
    CLUSTER             east
    status              Connected
    message             -
    last heard          2s
    agent               0.1.0
    kubernetes          v1.36.1
    labels              env=prod,region=eu
    annotations         -
    checks              1 Failed, 1 Overdue, 1 Succeeded
    backlog             0
    dropped reports     0
    clock skew          -12 ms
    certificate         ends in 20h
    self-test           unknown
    policy namespaces   health, shop
    policy remedies     false [2J
    ");
    assert_eq!(ran.exit, Exit::Fine);
    let older = hub.run(&["cluster", "show", "west"]).out;
    assert!(older.contains("its agent does not say") && older.contains("silent for longer than 15 s"), "{older}");
    let json: serde_json::Value =
        serde_json::from_str(&hub.run(&["cluster", "show", "east", "-o", "json"]).out).unwrap();
    assert_eq!(json["policy"][0], serde_json::json!({"name": "namespaces", "value": "health, shop"}));
    let missing = hub.run(&["cluster", "show", "none"]);
    assert_eq!(missing.exit, Exit::Error);
}
