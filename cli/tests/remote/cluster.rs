//! cluster add, label, annotate, remove.

use active_monitor_cli::Exit;

use crate::hub::{Fleet, Hub, fleet};

#[test]
fn adding_prints_one_command_to_copy() {
    let hub = Hub::start(Fleet::default());
    let ran = hub.run(&["cluster", "add", "east", "-l", "env=prod,region=eu", "--annotation", "note=a,b=c"]);
    insta::assert_snapshot!(ran.out, @r"
    cluster east added

    Its token, which works once and for 60m (until 2026-03-01T13:00:00Z):

      east.5ec2e7.f19e2

    Start the agent in the cluster with it:

      active-monitor-agent --hub-address hub.example.com:7443 --enrolment-address hub.example.com:7444 --token east.5ec2e7.f19e2
    ");
    let fleet = hub.fleet.lock().unwrap();
    let east = &fleet.clusters["east"];
    assert_eq!((east.labels["env"].as_str(), east.labels["region"].as_str()), ("prod", "eu"));
    assert_eq!(east.annotations["note"], "a,b=c");
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
