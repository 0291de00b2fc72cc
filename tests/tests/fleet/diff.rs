//! `fleetcheck diff` beside a hub that keeps a folder: what it says would change is what the hub then does.

use std::path::Path;
use std::sync::Arc;

use active_monitor_core::view::ClusterView;
use active_monitor_tests::fleet::binary;
use active_monitor_tests::run_dir::RunDir;
use active_monitor_tests::{Hub, wait};

use super::PATIENCE;

const HEAD: &str = "apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1";

fn definition(name: &str, seconds: u32) -> String {
    format!(
        "{HEAD}\nkind: FleetHealthCheck\nmetadata: {{name: {name}}}\nspec:\n  clusterSelector: {{matchLabels: {{env: prod}}}}\n  \
         template:\n    metadata: {{namespace: health}}\n    spec: {{repeatAfterSec: {seconds}}}\n---\n"
    )
}

fn cluster(name: &str, labels: &str) -> String {
    format!("{HEAD}\nkind: FleetCluster\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n---\n")
}

fn window(name: &str) -> String {
    format!(
        "{HEAD}\nkind: MaintenanceWindow\nmetadata: {{name: {name}}}\nspec: {{selector: env=prod, cron: \"0 3 * * *\", \
         durationSeconds: 60}}\n---\n"
    )
}

/// Exit code, and what it said.
async fn diff(hub: &Hub, args: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(binary("fleetcheck").expect("fleetcheck"));
    command.args(["--hub", &hub.url, "diff"]).args(args).env("FLEETCHECK_TOKEN", &hub.token);
    let output = command.output().await.expect("fleetcheck");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("an exit code"), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_diff_says_of_a_folder_the_hub_then_does() {
    let run = Arc::new(RunDir::create().expect("folder"));
    let folder = run.path().join("fleet");
    std::fs::create_dir_all(&folder).expect("folder");
    let write = |path: &Path, text: &str| std::fs::write(path, text).expect("file");
    let (file, next) = (folder.join("all.yaml"), run.path().join("next.yaml"));
    let now =
        [definition("dns", 60), definition("old", 60), cluster("east", "env: prod, tier: gold"), window("a")].concat();
    write(&file, &now);
    let (routes, next_routes) = (run.path().join("routes.yaml"), run.path().join("next-routes.yaml"));
    write(
        &routes,
        "routes: [{name: oncall, webhook: 'http://127.0.0.1:1/s3cret'}, {name: am, alertmanager: 'http://127.0.0.1:1'}]",
    );
    let flags = [
        "--git-folder".to_owned(),
        folder.display().to_string(),
        "--routes-file".to_owned(),
        routes.display().to_string(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let hub = Hub::start_with(&run, run.path(), &flags).await.expect("hub");
    hub.add_cluster("east", &[]).await.expect("cluster");
    let label = serde_json::json!({"labels": {"team": "a"}});
    hub.request(reqwest::Method::PATCH, "/api/v1/clusters/east", Some(&label)).await.expect("a label of people's");

    let [file_arg, next_arg] = [&file, &next].map(|path| path.display().to_string());
    let whole = async |path: &str| diff(&hub, &["--prune", "-f", path]).await;
    let until_the_same = async |path: &str| {
        let same = || async { Ok((whole(path).await.0 == 0).then_some(())) };
        wait::until("a hub that has what the folder says", PATIENCE, same).await.expect("in force");
    };
    until_the_same(&file_arg).await;

    let changed =
        [definition("dns", 30), cluster("east", "env: dev"), cluster("west", "env: prod"), window("b")].concat();
    write(&next, &changed);
    let (code, said) = whole(&next_arg).await;
    assert_eq!(code, 1, "{said}");
    for line in [
        "-      repeatAfterSec: 60",
        "+      repeatAfterSec: 30",
        "--- hub/FleetCluster/east",
        "-    env: prod",
        "-    tier: gold",
        "+    env: dev",
        "+++ file/FleetCluster/west",
        "the cluster west was not added yet: its labels wait for it",
        "+++ file/MaintenanceWindow/b",
        "--- hub/MaintenanceWindow/a",
        "--- hub/old",
        "+++ /dev/null",
    ] {
        assert!(said.lines().any(|one| one == line), "no line {line:?}: {said}");
    }
    assert!(!said.contains("team"), "that label is people's: {said}");
    // Without the whole folder nothing is missing.
    let (code, said) = diff(&hub, &["-f", &next_arg]).await;
    assert!(code == 1 && !said.contains("hub/old") && !said.contains("MaintenanceWindow/a"), "{said}");
    assert_eq!(diff(&hub, &["-f", "/none"]).await.0, 2);

    write(&file, &changed);
    until_the_same(&next_arg).await;
    let east: ClusterView = hub.get("/api/v1/clusters/east").await.expect("cluster");
    let labels: Vec<_> = east.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["env=dev", "team=a"]);

    let next_routes_arg = next_routes.display().to_string();
    write(
        &next_routes,
        "routes: [{name: oncall, webhook: 'http://127.0.0.1:1/other'}, {name: new, webhook: 'http://127.0.0.1:1'}]",
    );
    let (code, said) = diff(&hub, &["--routes", &next_routes_arg]).await;
    assert_eq!((code, said.as_str()), (1, "route am: withdraw\nroute new: create\nroute oncall: update: webhook\n"));
    std::fs::copy(&next_routes, &routes).expect("copy");
    assert_eq!(diff(&hub, &["--routes", &next_routes_arg]).await, (0, String::new()));
    // A mistake in either is an error, and not a difference.
    write(&routes, "routes: [{name: oncall, webhook: 's3cret'}]");
    let (code, said) = diff(&hub, &["--routes", &next_routes_arg]).await;
    assert!(code == 2 && said.contains("its log says why") && !said.contains("s3cret"), "{said}");
    write(&next_routes, "routes: [{name: oncall}]");
    let (code, said) = diff(&hub, &["--routes", &next_routes_arg]).await;
    assert!(code == 2 && said.contains("routes[0].alertmanager"), "{said}");
}
