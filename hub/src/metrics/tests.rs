//! Tests of the whole exposition.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use active_monitor_core::care::Care;
use active_monitor_core::fleet::ClusterEntry;
use active_monitor_core::health::Health;
use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::state::{CheckState, Phase, Sample, Totals};
use active_monitor_core::view::{CheckStatus, CheckView, ClusterStatus, ClusterView, FleetSummary};

mod rules;

use super::*;
use crate::refusals::Refusals;

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn sample(metric: &str, value: f64) -> Sample {
    Sample { metric: metric.to_owned(), help: format!("Help of {metric}."), value }
}

pub(crate) fn check(cluster: &str, name: &str, status: CheckStatus, samples: Vec<Sample>) -> Arc<CheckView> {
    let state = CheckState {
        uid: format!("uid-{name}"),
        namespace: "health".to_owned(),
        name: name.to_owned(),
        description: String::new(),
        phase: Phase::Succeeded,
        message: String::new(),
        schedule: String::new(),
        running: None,
        next_slot: Some(time(1_000)),
        timeout_seconds: 30,
        check: Totals { succeeded: 5, failed: 2, started_at: Some(time(900)), finished_at: Some(time(912)) },
        remedy: (name == "dns").then(Totals::default),
        remedy_status: String::new(),
        samples,
        refused_samples: 0,
        pauses: Vec::new(),
        remedy_budget: None,
        depends_on: Vec::new(),
        definition: None,
    };
    let health = Health { flapping: status == CheckStatus::Overdue, soft: name == "dns", ..Health::default() };
    let care = Care { maintenance: (name == "healthcheck").then(|| "patch-day".to_owned()), ..Care::default() };
    Arc::new(CheckView { cluster: cluster.to_owned(), status, overdue_seconds: 0, health, care, state })
}

pub(crate) fn cluster(name: &str, status: ClusterStatus, checks: Vec<Arc<CheckView>>) -> (String, Arc<ClusterEntry>) {
    let view = ClusterView {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        status,
        message: String::new(),
        last_heard_at: (status != ClusterStatus::Pending).then(|| time(950)),
        agent_version: String::new(),
        kubernetes_version: String::new(),
        backlog: 3,
        dropped_reports: 1,
        refused_checks: 0,
        clock_skew_ms: -250,
        certificate_ends_at: None,
        self_test: None,
        pending_enrolment: None,
        policy: Vec::new(),
        checks: BTreeMap::new(),
    };
    let key = |check: &CheckView| (check.state.namespace.clone(), check.state.name.clone());
    let checks = checks.into_iter().map(|check| (key(&check), check)).collect();
    (name.to_owned(), Arc::new(ClusterEntry::new(view, checks)))
}

pub(crate) fn fleet(clusters: Vec<(String, Arc<ClusterEntry>)>) -> FleetView {
    let (hub_version, checks) = (String::new(), BTreeMap::new());
    let summary = FleetSummary { hub_version, clusters: BTreeMap::new(), checks, definitions: 0, restore: None };
    FleetView { revision: 1, summary, clusters: clusters.into_iter().collect() }
}

fn text(view: &FleetView) -> String {
    let chunks: Vec<Bytes> = HubMetrics::new(Registry::new()).exposition(view, time(1_100), Wanted::all()).collect();
    String::from_utf8(chunks.concat()).unwrap()
}

/// A fleet with something of everything.
pub(crate) fn mixed() -> FleetView {
    use CheckStatus::{Failed, Overdue, Stale, Succeeded};
    fleet(vec![
        cluster(
            "east",
            ClusterStatus::Connected,
            vec![
                check("east", "dns", Succeeded, vec![sample("latency_seconds", 0.25), sample("x", f64::NAN)]),
                check("east", "dns-latency", Failed, vec![sample("seconds", 2.0), sample("seconds", 3.0)]),
                check("east", "healthcheck", Overdue, vec![sample("starttime", 1.0), sample("b-c", 1.0)]),
            ],
        ),
        cluster("south", ClusterStatus::Pending, vec![]),
        cluster(
            "west",
            ClusterStatus::Unreachable,
            vec![check("west", "dns", Stale, vec![sample("latency_seconds", 9.0)])],
        ),
    ])
}

#[test]
fn the_text_is_as_expected() {
    let text = text(&mixed());
    let fleet_part = text.split("# HELP activemonitor_hub_dropped").next().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/expected.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, fleet_part).unwrap();
    }
    assert_eq!(fleet_part, std::fs::read_to_string(path).unwrap());
    assert!(text.contains("activemonitor_hub_dropped_samples_total{cluster=\"east\"} 4\n"), "{text}");
    assert!(text.contains("\nprocess_start_time_seconds "), "{text}");
}

#[test]
fn only_a_self_test_that_succeeded_is_shown_as_passed() {
    let tested = |name: &str, outcome: Option<SelfTestOutcome>| {
        let (name, mut entry) = cluster(name, ClusterStatus::Connected, vec![]);
        Arc::get_mut(&mut entry).unwrap().view.self_test = outcome.map(|outcome| SelfTest::new(outcome, "", time(1)));
        (name, entry)
    };
    let outcomes = SelfTestOutcome::ALL.map(|outcome| tested(outcome.as_str(), Some(outcome)));
    let text = text(&fleet([tested("none", None)].into_iter().chain(outcomes).collect()));
    let family = text.lines().filter(|line| line.starts_with("activemonitor_cluster_self_test_passed{"));
    let (passed, others): (Vec<&str>, Vec<&str>) = family.partition(|line| line.ends_with(" 1"));
    assert_eq!(passed, [r#"activemonitor_cluster_self_test_passed{cluster="Succeeded"} 1"#]);
    assert_eq!(others.len(), SelfTestOutcome::ALL.len(), "{others:?}");
}

#[test]
fn each_family_stands_together_and_each_series_is_there_once() {
    let text = text(&mixed());
    let mut families = Vec::new();
    let mut series = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let (id, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(Some(&id.split('{').next().unwrap()), families.last(), "{line}");
            assert!(series.insert(id), "{line}");
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
        }
    }
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count);
}

#[test]
fn a_large_fleet_comes_in_chunks() {
    let checks = |cluster: &str| {
        (0..500).map(|n| check(cluster, &format!("c{n}"), CheckStatus::Succeeded, vec![sample("v", 1.0)])).collect()
    };
    let names: Vec<String> = (0..4).map(|n| format!("cluster-{n}")).collect();
    let view = fleet(names.iter().map(|name| cluster(name, ClusterStatus::Connected, checks(name))).collect());
    let chunks: Vec<Bytes> = HubMetrics::new(Registry::new()).exposition(&view, time(1_100), Wanted::all()).collect();
    let whole: usize = chunks.iter().map(Bytes::len).sum();
    assert!(whole > 1_000_000 && chunks.len() >= whole / (CHUNK_BYTES + 8192), "{whole} in {}", chunks.len());
    assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 8192));
    let text = String::from_utf8(chunks.concat()).unwrap();
    assert_eq!(text.matches("\nc499_v{").count(), 4);
    assert_eq!(text.matches("# TYPE c499_v gauge\n").count(), 1);
}

#[tokio::test]
async fn who_leaves_or_reads_slowly_stops_no_other_scrape() {
    let checks =
        |cluster: &str| (0..100).map(|n| check(cluster, &format!("c{n}"), CheckStatus::Succeeded, vec![])).collect();
    let names: Vec<String> = (0..40).map(|n| format!("cluster-{n}")).collect();
    let view = fleet(names.iter().map(|name| cluster(name, ClusterStatus::Connected, checks(name))).collect());
    let exposition = || HubMetrics::new(Registry::new()).exposition(&view, time(1_100), Wanted::all());
    let scribe = Scribe::start("test");

    drop(scribe.next(exposition()));
    let slow = scribe.next(exposition());
    let (mut text, mut next) = (Vec::new(), scribe.next(exposition()));
    while let Some((chunk, rest)) = next.await.unwrap() {
        text.extend(chunk);
        next = scribe.next(rest);
    }
    let whole: Vec<Bytes> = exposition().collect();
    let lines = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap().lines().count();
    assert_eq!(lines(&text), lines(&whole.concat()), "the process's own values differ, the lines do not");
    let (first, _) = slow.await.unwrap().unwrap();
    assert_eq!(first, whole[0]);
}

#[test]
fn who_picks_nothing_takes_many_short_turns() {
    let checks =
        |cluster: &str| (0..100).map(|n| check(cluster, &format!("c{n}"), CheckStatus::Succeeded, vec![])).collect();
    let names: Vec<String> = (0..200).map(|n| format!("cluster-{n}")).collect();
    let view = fleet(names.iter().map(|name| cluster(name, ClusterStatus::Connected, checks(name))).collect());
    let series = Selection::parse(&["{cluster=\"none\"}".to_owned()]).unwrap();
    let wanted = Wanted { series, ..Wanted::all() };
    let mut exposition = HubMetrics::new(Registry::new()).exposition(&view, time(1_100), wanted);
    let mut turns = 0;
    loop {
        let read = exposition.rows.checks.len();
        let Some(_) = exposition.next() else { break };
        turns += 1;
        // A cluster is read whole.
        assert!(exposition.rows.checks.len() - read < CHUNK_ROWS + 100, "turn {turns} read a whole fleet");
    }
    assert!(turns > 20_000 / CHUNK_ROWS, "{turns}");
}

#[test]
fn the_first_bytes_do_not_wait_for_the_last_cluster() {
    let checks =
        |cluster: &str| (0..100).map(|n| check(cluster, &format!("c{n}"), CheckStatus::Succeeded, vec![])).collect();
    let names: Vec<String> = (0..100).map(|n| format!("cluster-{n}")).collect();
    let view = fleet(names.iter().map(|name| cluster(name, ClusterStatus::Connected, checks(name))).collect());
    let mut exposition = HubMetrics::new(Registry::new()).exposition(&view, time(1_100), Wanted::all());
    let first = exposition.next().unwrap();
    let read = exposition.rows.checks.len();
    assert!(first.len() >= CHUNK_BYTES && (1_000..5_000).contains(&read), "{read} of 10000 checks were read");
}

/// The lines of series, without the hub's own.
fn series(wanted: Wanted) -> Vec<String> {
    let registry = Registry::new();
    registry.register(Refusals::new().unwrap().collector()).unwrap();
    let chunks: Vec<Bytes> = HubMetrics::new(registry).exposition(&mixed(), time(1_100), wanted).collect();
    let text = String::from_utf8(chunks.concat()).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn federated(selectors: &[&str]) -> Vec<String> {
    let texts: Vec<String> = selectors.iter().map(|text| (*text).to_owned()).collect();
    series(Wanted { series: Selection::parse(&texts).unwrap(), ..Wanted::all() })
}

#[test]
fn the_parts_of_the_fleet_and_the_hub_are_the_whole_and_nothing_comes_twice() {
    let whole = series(Wanted::all());
    let one = |name: &str| {
        let clusters = Clusters::Picked { name: Some(name.to_owned()), selector: None };
        series(Wanted { clusters, own: false, ..Wanted::all() })
    };
    let mut parts = series(Wanted { clusters: Clusters::None, ..Wanted::all() });
    assert!(parts.iter().all(|line| !line.starts_with("activemonitor_check")) && parts.len() > 5, "{parts:?}");
    for name in ["east", "south", "west"] {
        let part = one(name);
        assert!(!part.is_empty() && part.iter().all(|line| line.contains(&format!("cluster=\"{name}\""))), "{part:?}");
        parts.extend(part);
    }
    // What the process and an exposition count themselves has no place in a comparison.
    let counted = ["process_", "activemonitor_hub_dropped_samples_total"];
    let fixed = |lines: Vec<String>| {
        let is_fixed = |line: &String| !counted.iter().any(|name| line.starts_with(name));
        let mut lines: Vec<_> = lines.into_iter().filter(is_fixed).collect();
        lines.sort();
        lines
    };
    assert_eq!(fixed(parts), fixed(whole));
}

#[test]
fn what_is_federated_is_what_the_selectors_pick_of_the_whole() {
    let whole = series(Wanted::all());
    let all: Vec<String> = federated(&["{__name__=~\".+\"}"]);
    assert_eq!(all.len(), whole.len());
    assert_eq!(
        federated(&["activemonitor_cluster_reachable{cluster=\"east\"}"]),
        ["activemonitor_cluster_reachable{cluster=\"east\"} 1"]
    );
    let failed = federated(&["activemonitor_check_status{status=\"Failed\"}"]);
    assert_eq!(failed.len(), 1, "{failed:?}");
    let remedies = federated(&["{workflow=\"remedy\"}"]);
    assert!(remedies.len() == 2 && remedies.iter().all(|line| line.contains("workflow=\"remedy\"")), "{remedies:?}");
    assert_eq!(federated(&["dns_latency_seconds"]).len(), 2);
    assert_eq!(federated(&["{healthcheck_name=\"dns-latency\",metric=\"seconds\"}"]).len(), 1);
    let west = federated(&["{cluster=\"west\"}", "{cluster=\"nowhere\"}"]);
    assert!(!west.is_empty() && west.iter().all(|line| line.contains("cluster=\"west\"")), "{west:?}");
    // The values of a cluster that is cut off end there too; its states do not.
    assert!(west.iter().all(|line| line.starts_with("activemonitor_")), "{west:?}");
    let refused = federated(&["activemonitor_hub_refused_total{what=\"hello\"}"]);
    assert_eq!(refused, ["activemonitor_hub_refused_total{what=\"hello\"} 0"]);
    assert!(federated(&["nothing"]).is_empty());
}

#[test]
fn labels_from_outside_are_escaped() {
    let view =
        fleet(vec![cluster("a", ClusterStatus::Connected, vec![check("a", "x\"\\\ny", CheckStatus::Failed, vec![])])]);
    assert!(text(&view).contains("healthcheck_name=\"x\\\"\\\\\\ny\",status=\"Failed\"} 1\n"));
}

/// Prometheus' own tool reads the text. It also has opinions on names, which are active-monitor's and stay: only what
/// cannot be read is a failure.
#[test]
fn prometheus_reads_it() {
    let command =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut promtool = match command {
        Ok(promtool) => promtool,
        Err(error) => {
            crate::skip::report("prometheus_reads_it", &format!("promtool cannot be run: {error}"));
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(text(&mixed()).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)) && !said.contains("error while"), "{said}");
}
