//! apply, diff, get, delete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use active_monitor_cli::Exit;
use active_monitor_core::gitops::Kind;
use active_monitor_core::gitops::plan::Owned;
use active_monitor_core::session::frame::DefinitionResult;
use active_monitor_core::view::{ClusterStatus, GitOrigin, SourceState, SourceView};

use crate::hub::{Fleet, Hub, TOKEN, binary, cluster};

const DNS: &str = "\
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetHealthCheck
metadata:
  name: dns
spec:
  clusterSelector:
    matchLabels: {env: prod}
  template:
    metadata:
      namespace: health
    spec:
      repeatAfterSec: 60
";

fn fleet() -> Fleet {
    let clusters = ["east", "west"].map(|name| (name.to_owned(), cluster(name, ClusterStatus::Connected)));
    Fleet { clusters: clusters.into(), ..Fleet::default() }
}

#[test]
fn applying_says_what_happened_to_each() {
    let hub = Hub::start(fleet());
    let api = DNS.replace("name: dns", "name: api");
    let ran = hub.run_with(&["apply", "-f", "-"], &format!("{DNS}---\n# nothing\n---\n{api}"));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Fine, "definition dns created\ndefinition api created\n"));
    let changed = api.replace("60", "30");
    let ran = hub.run_with(&["apply", "-f", "-"], &format!("{DNS}---\n{changed}"));
    assert_eq!(ran.out, "definition dns unchanged\ndefinition api configured\n");
    let ran = hub.run_with(&["apply", "-f", "-", "-o", "json"], DNS);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["items"][0], serde_json::json!({"name": "dns", "action": "unchanged", "generation": 1}));
}

#[test]
fn nothing_is_sent_when_anything_is_wrong() {
    let hub = Hub::start(fleet());
    let bad = DNS.replace("matchLabels", "matchLabel").replace("name: dns", "name: api");
    let other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let ran = hub.run_with(&["apply", "-f", "-"], &format!("{DNS}---\n{bad}---\n{other}---\n{DNS}"));
    insta::assert_snapshot!(ran.err, @r"
    <stdin>:20:5: spec.clusterSelector.matchLabel: unknown field; allowed are matchLabels and matchExpressions
    <stdin>:28:1: kind: must be FleetHealthCheck; other objects are for kubectl
    <stdin>:34:3: metadata.name: is the name of the definition at <stdin>:4 too
    error: 3 problems in the files; nothing was sent
    ");
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Error, ""));
    assert!(hub.requests().is_empty());
}

#[test]
fn waiting_ends_when_the_clusters_have_answered() {
    let hub = Hub::start(Fleet { silent_reads: 2, verdict: Some(DefinitionResult::Applied), ..fleet() });
    let ran = hub.run_with(&["apply", "--wait", "-f", "-"], DNS);
    insta::assert_snapshot!(ran.out, @r"
    definition dns created

    DEFINITION   CLUSTER   RESULT    MESSAGE
    dns          east      Applied   -
    dns          west      Applied   -
    ");
    assert_eq!(ran.exit, Exit::Fine);
    let reads = hub.requests().iter().filter(|request| request.starts_with("GET")).count();
    assert_eq!(reads, 3, "one before, one without and one with an answer");

    let hub = Hub::start(Fleet { verdict: Some(DefinitionResult::Conflict), ..fleet() });
    let ran = hub.run_with(&["apply", "--wait", "-f", "-"], DNS);
    assert_eq!((ran.exit, ran.out.matches("Conflict").count()), (Exit::Found, 2));
    let hub = Hub::start(fleet());
    let ran = hub.run_with(&["apply", "--wait=0", "-f", "-"], DNS);
    assert_eq!((ran.exit, ran.out.matches("Waiting").count()), (Exit::Found, 2));
}

#[test]
fn diff_shows_lines_and_clusters() {
    let hub = Hub::start(fleet());
    let ran = hub.run_with(&["diff", "-f", "-"], DNS);
    assert_eq!(ran.exit, Exit::Found);
    assert!(ran.out.starts_with("--- /dev/null\n+++ file/dns\n") && ran.out.contains("create"), "{}", ran.out);

    hub.run_with(&["apply", "-f", "-"], DNS);
    let same_meaning = DNS.replace("{env: prod}", "\n      \"env\": 'prod'   # the same");
    let ran = hub.run_with(&["diff", "-f", "-"], &same_meaning);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Fine, ""));
    let ran = hub.run_with(&["diff", "-f", "-"], &DNS.replace("60", "30"));
    insta::assert_snapshot!(ran.out, @r"
    --- hub/dns
    +++ file/dns
    @@ -10,4 +10,4 @@
         metadata:
           namespace: health
         spec:
    -      repeatAfterSec: 60
    +      repeatAfterSec: 30

    DEFINITION   CLUSTER   CHANGE   MESSAGE
    dns          east      update   -
    dns          west      update   -
    ");
    assert_eq!(ran.exit, Exit::Found);
    assert_eq!(hub.run_with(&["diff", "-f", "-"], "a: [").exit, Exit::Error);
}

const FOLDER: &str = "\
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: FleetCluster
metadata:
  name: east
  labels: {env: prod, tier: gold}
---
apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
kind: MaintenanceWindow
metadata: {name: patch-day}
spec: {selector: env=prod, cron: \"0 3 * * 2\", durationSeconds: 3600}
---
";

fn owned(kind: Kind, name: &str, labels: &[&str]) -> Owned {
    let labels = labels.iter().map(|key| (*key).to_owned()).collect();
    Owned { kind, name: name.to_owned(), file: "all.yaml".to_owned(), labels, annotations: BTreeSet::new() }
}

fn git(objects: Vec<Owned>, waiting: &[&str]) -> SourceView {
    SourceView {
        folder: "/git/current".to_owned(),
        state: SourceState::InForce,
        revision: None,
        refused_revision: None,
        synced_at: None,
        problems: Vec::new(),
        waiting: waiting.iter().map(|name| (*name).to_owned()).collect(),
        objects,
    }
}

#[test]
fn diff_shows_labels_of_clusters_and_windows_and_leaves_what_is_peoples() {
    let hub = Hub::start(fleet());
    let labels = |of: &[(&str, &str)]| of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let east = |of: &[(&str, &str)]| hub.fleet.lock().unwrap().clusters.get_mut("east").unwrap().labels = labels(of);
    east(&[("env", "dev"), ("team", "a"), ("old", "x")]);
    // Git had the label `old` too.
    let objects = vec![owned(Kind::FleetCluster, "east", &["env", "old"])];
    hub.fleet.lock().unwrap().sources = vec![git(objects, &[])];
    let ran = hub.run_with(&["diff", "-f", "-"], FOLDER);
    insta::assert_snapshot!(ran.out, @r"
    --- hub/FleetCluster/east
    +++ file/FleetCluster/east
    @@ -2,6 +2,6 @@
     kind: FleetCluster
     metadata:
       labels:
    -    env: dev
    -    old: x
    +    env: prod
    +    tier: gold
       name: east

    --- /dev/null
    +++ file/MaintenanceWindow/patch-day
    @@ -0,0 +1,8 @@
    +apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
    +kind: MaintenanceWindow
    +metadata:
    +  name: patch-day
    +spec:
    +  cron: 0 3 * * 2
    +  durationSeconds: 3600
    +  selector: env=prod
    ");
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Found, ""));

    // The hub has done so: what people gave beside it is no difference.
    east(&[("env", "prod"), ("tier", "gold"), ("team", "a")]);
    let window = ["window", "set", "patch-day", "-l", "env=prod", "--cron", "0 3 * * 2", "--for", "1h"];
    assert_eq!(hub.run(&window).exit, Exit::Fine);
    let ran = hub.run_with(&["diff", "-f", "-"], FOLDER);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Fine, "", ""));
    let json = hub.run_with(&["diff", "-o", "json", "-f", "-"], FOLDER).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["items"][0], serde_json::json!({"kind": "FleetCluster", "name": "east", "diff": ""}));

    // apply sends neither.
    let ran = hub.run_with(&["apply", "-f", "-"], &format!("{FOLDER}{DNS}"));
    assert!(ran.exit == Exit::Fine && ran.err.contains("left out"), "{ran:?}");
}

#[test]
fn labels_of_a_cluster_that_was_not_added_are_a_difference_until_they_wait_for_it() {
    let hub = Hub::start(Fleet::default());
    let ran = hub.run_with(&["diff", "-f", "-"], FOLDER);
    assert_eq!(ran.exit, Exit::Found);
    assert!(ran.out.contains("+++ file/FleetCluster/east\n") && ran.out.contains("was not added yet"), "{}", ran.out);
    let cluster = FOLDER.split("---").next().unwrap();
    hub.fleet.lock().unwrap().sources = vec![git(Vec::new(), &["east"])];
    let ran = hub.run_with(&["diff", "-f", "-"], cluster);
    assert_eq!(ran.out, "the cluster east was not added yet: its labels wait for it\n");
    assert_eq!(ran.exit, Exit::Fine);
}

#[test]
fn diff_of_a_whole_folder_shows_what_would_go() {
    let hub = Hub::start(fleet());
    hub.run_with(&["apply", "-f", "-"], DNS);
    let window = ["window", "set", "patch-day", "--cron", "@daily", "--for", "1h"];
    assert_eq!(hub.run(&window).exit, Exit::Fine);
    hub.fleet.lock().unwrap().clusters.get_mut("east").unwrap().labels.insert("env".to_owned(), "prod".to_owned());
    let api = DNS.replace("name: dns", "name: api");
    hub.run_with(&["apply", "-f", "-"], &api);
    let ran = hub.run_with(&["diff", "--prune", "-f", "-"], &api);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Fine, ""), "what is people's stays");
    assert!(ran.err.contains("the hub watches no folder"), "{}", ran.err);

    let (dns, gone) = (owned(Kind::FleetHealthCheck, "dns", &[]), owned(Kind::FleetHealthCheck, "gone", &[]));
    let (east, patch_day) =
        (owned(Kind::FleetCluster, "east", &["env"]), owned(Kind::MaintenanceWindow, "patch-day", &[]));
    let objects = vec![dns, gone, owned(Kind::FleetHealthCheck, "api", &[]), east, patch_day];
    hub.fleet.lock().unwrap().sources = vec![git(objects, &[])];
    let ran = hub.run_with(&["diff", "--prune", "-f", "-"], &api);
    insta::assert_snapshot!(ran.out, @r#"
    --- hub/dns
    +++ /dev/null
    @@ -1,13 +0,0 @@
    -apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
    -kind: FleetHealthCheck
    -metadata:
    -  name: dns
    -spec:
    -  clusterSelector:
    -    matchLabels:
    -      env: prod
    -  template:
    -    metadata:
    -      namespace: health
    -    spec:
    -      repeatAfterSec: 60

    DEFINITION   CLUSTER   CHANGE     MESSAGE
    dns          east      withdraw   -
    dns          west      withdraw   -

    --- hub/FleetCluster/east
    +++ file/FleetCluster/east
    @@ -1,6 +1,4 @@
     apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
     kind: FleetCluster
     metadata:
    -  labels:
    -    env: prod
       name: east

    --- hub/MaintenanceWindow/patch-day
    +++ /dev/null
    @@ -1,7 +0,0 @@
    -apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1
    -kind: MaintenanceWindow
    -metadata:
    -  name: patch-day
    -spec:
    -  cron: "@daily"
    -  durationSeconds: 3600
    "#);
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Found, ""));
    assert_eq!(hub.run_with(&["diff", "-f", "-"], &api).exit, Exit::Fine, "of these files nothing is another");
}

#[test]
fn diff_of_routes_names_them_and_never_says_where_they_go() {
    let (hub, dir) = (Hub::start(fleet()), tempfile::tempdir().unwrap());
    let file = dir.path().join("routes.yaml");
    let diff = |text: &str| {
        std::fs::write(&file, text).unwrap();
        hub.run(&["diff", "--routes", file.to_str().unwrap()])
    };
    let ran = diff("routes: [{name: oncall, webhook: 'https://hooks.example.com/s3cret'}]");
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Found, "route oncall: create\n"));
    assert_eq!(ran.err, "the hub has no file of routes; its flag is --routes-file\n");
    assert_eq!(diff("routes: []").exit, Exit::Fine);
    let ran = diff("routes: [{name: oncall}]");
    assert!(ran.exit == Exit::Error && ran.err.contains("routes[0].alertmanager: give the address"), "{ran:?}");
}

#[test]
fn what_is_got_can_be_applied_again() {
    let hub = Hub::start(fleet());
    hub.run_with(&["apply", "-f", "-"], DNS);
    insta::assert_snapshot!(hub.run(&["get", "definitions"]).out, @r"
    NAME   GENERATION   CLUSTERS   APPLIED   WAITING   PROBLEMS   SOURCE
    dns    1            2          0         2         0          -
    ");
    insta::assert_snapshot!(hub.run(&["get", "definitions", "dns"]).out, @r"
    definition dns, generation 1

    CLUSTER   RESULT    MESSAGE
    east      Waiting   -
    west      Waiting   -
    ");
    let yaml = hub.run(&["get", "dns", "-o", "yaml"]).out;
    assert_eq!(hub.run_with(&["apply", "-f", "-"], &yaml).out, "definition dns unchanged\n");
    let missing = hub.run(&["get", "none"]);
    assert_eq!((missing.exit, missing.err.as_str()), (Exit::Error, "error: there is no definition \"none\"\n"));
    assert_eq!(hub.run(&["get", "pods", "none"]).exit, Exit::Error);
}

#[test]
fn what_is_gits_is_shown_with_its_file_and_not_edited() {
    let hub = Hub::start(fleet());
    hub.run_with(&["apply", "-f", "-"], DNS);
    let git = GitOrigin { file: "fleet/dns.yaml".into(), revision: Some("0a1b2c3".into()) };
    hub.fleet.lock().unwrap().definitions.get_mut("dns").unwrap().git = Some(git);
    assert!(hub.run(&["get", "definitions"]).out.contains("fleet/dns.yaml"));
    assert!(hub.run(&["get", "dns"]).out.contains("Git's: fleet/dns.yaml at 0a1b2c3"));
    let ran = hub.run(&["edit", "dns"]);
    let expected = "error: the definition dns is Git's: change fleet/dns.yaml at 0a1b2c3 in the repository\n";
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Error, expected));
}

#[test]
fn what_is_a_resources_is_shown_with_its_place_and_not_edited() {
    let hub = Hub::start(fleet());
    hub.run_with(&["apply", "-f", "-"], DNS);
    hub.fleet.lock().unwrap().definitions.get_mut("dns").unwrap().resource = Some("fleet/dns".into());
    assert!(hub.run(&["get", "definitions"]).out.contains("fleet/dns"));
    assert!(hub.run(&["get", "dns"]).out.contains("a resource's: fleet/dns\n"));
    let ran = hub.run(&["edit", "dns"]);
    let expected = "error: the definition dns is a resource's: change fleet/dns in the hub's own cluster\n";
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Error, expected));
}

/// Runs `fleetcheck edit dns` with this editor, its files in `home`; the file that stayed, too.
fn edit(hub: &Hub, home: &Path, editor: &str) -> (Option<i32>, String, Option<PathBuf>) {
    let mut command = binary(home);
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("TMPDIR", home).env("EDITOR", editor);
    let output = command.args(["--hub", &hub.url(), "--token", TOKEN, "edit", "dns"]).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let stayed = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_file());
    (output.status.code(), said, stayed)
}

#[test]
fn a_definition_is_edited_and_nobody_elses_change_is_overwritten() {
    let (hub, home) = (Hub::start(fleet()), tempfile::tempdir().unwrap());
    hub.run_with(&["apply", "-f", "-"], DNS);
    let seconds = || {
        hub.run(&["get", "dns", "-o", "json"])
            .out
            .lines()
            .find(|line| line.contains("repeatAfterSec"))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(edit(&hub, home.path(), "true"), (Some(0), "definition dns unchanged\n".into(), None));
    let (code, said, stayed) = edit(&hub, home.path(), "sed -i s/repeatAfterSec:.*/repeatAfterSec:\\ 45/");
    assert_eq!((code, said.as_str(), stayed), (Some(0), "definition dns configured\n", None));
    assert!(seconds().contains("45"), "{}", seconds());
    let (code, said, stayed) = edit(&hub, home.path(), "false");
    assert_eq!((code, stayed), (Some(2), None));
    assert!(said.contains("the editor \"false\" failed; nothing was changed"), "{said}");

    // What it wrote before it failed stays.
    let (code, said, stayed) = edit(&hub, home.path(), "sed -i s/45/46/ \"$1\"; false");
    let stayed = stayed.expect("what was written stays");
    assert_eq!(code, Some(2));
    assert!(said.contains(&format!("what you wrote is in {}", stayed.display())), "{said}");
    assert!(std::fs::read_to_string(&stayed).unwrap().contains("repeatAfterSec: 46"));
    assert!(seconds().contains("45"), "{}", seconds());
    std::fs::remove_file(&stayed).unwrap();

    // Somebody else is faster than the editor.
    let faster = Path::new(home.path()).join("faster");
    std::fs::create_dir(&faster).unwrap();
    let other = faster.join("dns.yaml");
    std::fs::write(&other, DNS.replace("60", "50")).unwrap();
    let fleetcheck = assert_cmd::cargo::cargo_bin!("fleetcheck");
    let apply = format!("{} --hub {} --token {TOKEN} apply -f {}", fleetcheck.display(), hub.url(), other.display());
    let (code, said, stayed) = edit(&hub, home.path(), &format!("{apply} >&2; sed -i s/45/55/"));
    let stayed = stayed.expect("what was written stays");
    assert_eq!(code, Some(2));
    assert!(said.contains("it was changed meanwhile") && said.contains(&stayed.display().to_string()), "{said}");
    assert!(std::fs::read_to_string(&stayed).unwrap().contains("repeatAfterSec: 55"));
    assert!(seconds().contains("50"), "{}", seconds());
    std::fs::remove_file(&stayed).unwrap();
    let (code, said, stayed) = edit(&hub, home.path(), "sed -i s/name:\\ dns/name:\\ other/");
    assert!(code == Some(2) && stayed.is_some() && said.contains("must have one definition, dns"), "{said}");
}

#[test]
fn definitions_are_deleted_by_name_or_file() {
    let hub = Hub::start(fleet());
    for args in [&["delete", "dns"][..], &["delete", "-f", "-"]] {
        hub.run_with(&["apply", "-f", "-"], DNS);
        let ran = hub.run_with(args, DNS);
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Fine, "definition dns deleted\n"));
    }
    assert_eq!(hub.run(&["delete", "dns"]).exit, Exit::Error);
}
