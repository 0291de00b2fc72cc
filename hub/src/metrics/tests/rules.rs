//! What deploy/ gives to Prometheus and Grafana: every metric that is named there exists, every alert has its runbook,
//! and the rules do what their own tests say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::ingest::Figures;
use crate::retention::Pruning;
use crate::store::sqlite::SqliteStore;

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// The names of all families, those of the store and its pruning included.
async fn families() -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let store = SqliteStore::open(dir.path()).await.unwrap().collectors();
    let figures = Figures::new().unwrap();
    figures.opened("eu-1");
    figures.certified("eu-1", time(2_000));
    for collector in store.into_iter().chain(Pruning::new().unwrap().collectors()).chain(figures.collectors()) {
        registry.register(collector).unwrap();
    }
    let chunks: Vec<Bytes> = HubMetrics::new(registry).exposition(&mixed(), time(1_100), Wanted::all()).collect();
    let text = String::from_utf8(chunks.concat()).unwrap();
    text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect()
}

/// The words of a file that are metrics by their prefix; a recorded series is named with its colons.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let prefixes = ["activemonitor_", "healthcheck_", "process_"];
    let metrics = words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
    let parts = ["_sum", "_count", "_bucket"];
    metrics
        .filter(|word| *word != "healthcheck_name")
        .map(|word| {
            let whole = parts.iter().find_map(|part| word.strip_suffix(part).filter(|base| base.ends_with("_seconds")));
            whole.unwrap_or(word).to_owned()
        })
        .collect()
}

#[tokio::test]
async fn every_metric_that_rules_and_dashboards_name_exists() {
    let families = families().await;
    for (file, least) in [("prometheus/rules.yaml", 9), ("grafana/fleet.json", 10)] {
        let named = named(&std::fs::read_to_string(deploy(file)).unwrap());
        let unknown: Vec<_> = named.difference(&families).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
        assert!(named.len() >= least, "{file}: only {named:?} was found");
    }
}

/// `UPDATE=1` copies them again.
#[test]
fn the_charts_rules_are_those_of_the_folder() {
    let (rules, copy) =
        (std::fs::read_to_string(deploy("prometheus/rules.yaml")).unwrap(), deploy("charts/hub/files/rules.yaml"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&copy, &rules).unwrap();
    }
    assert!(std::fs::read_to_string(copy).unwrap() == rules, "the chart's copy is old: run this test with UPDATE=1");
}

#[test]
fn every_alert_has_its_runbook() {
    let rules = std::fs::read_to_string(deploy("prometheus/rules.yaml")).unwrap();
    let runbooks = std::fs::read_to_string(deploy("../docs/runbooks.md")).unwrap();
    let chapters: BTreeSet<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(chapters, alerts.iter().copied().collect());
    let links: Vec<String> = rules
        .lines()
        .filter_map(|line| {
            Some(line.trim().strip_prefix("runbook_url: ")?.split_once("docs/runbooks.md#")?.1.to_owned())
        })
        .collect();
    assert_eq!(links, alerts.iter().map(|alert| alert.to_lowercase()).collect::<Vec<_>>());
}

#[test]
fn the_rules_pass_their_own_tests() {
    if Command::new("promtool").arg("--version").output().is_err() {
        crate::skip::report("the_rules_pass_their_own_tests", "promtool is not installed: apt-get install prometheus");
        return;
    }
    let output = Command::new("promtool").args(["test", "rules"]).arg(deploy("prometheus/rules.test.yaml")).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}
