//! etcd forgets what was while an agent hears nothing: its watches, and the next page of its list, are of too long ago, in
//! the API server's own words. It lists anew, and misses neither the end of a workflow nor a change of a check.

use active_monitor_tests::api_proxy::Fault;
use active_monitor_tests::{Cluster, wait};
use serde_json::Value;

use super::faults::{BUSY, WATCHED, World, all_is_counted};
use super::{PATIENCE, waiting_check};

/// More than a page of the agent's lists.
const IDLE: usize = 60;
/// They never run.
const NEVER: &str = "schedule: {cron: '0 0 29 2 *'}";
const DELETED: &str = r#"healthcheck_name="idle-1""#;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_happens_until_etcd_forgets_it_is_missed() {
    let name = "nothing_that_happens_until_etcd_forgets_it_is_missed";
    let Some(world) = World::start_by(name, &[]).await else { return };
    let idle: Vec<String> = (0..IDLE).map(|i| waiting_check(&format!("idle-{i}"), NEVER)).collect();
    world.cluster().apply_yaml(&idle.join("---\n")).await.expect("idle checks");
    world.keep_busy().await;
    world.goes_on("the start").await;
    assert!(world.metrics().await.contains(DELETED), "what is told of each check");

    // A first page, with the token for the one after it.
    world.proxy.set(Fault::KeepLists);
    wait::until("lists that are kept", PATIENCE, || async {
        let kept = world.proxy.kept_lists();
        Ok(["/healthchecks", "/workflows"]
            .iter()
            .all(|kind| kept.iter().any(|path| path.ends_with(kind)))
            .then_some(()))
    })
    .await
    .expect("lists");
    world.goes_on("lists that are kept").await;

    let before = expired(&world).await;
    while_watches_are_cut(&world).await;
    assert_eq!(expired(&world).await, before, "nothing has expired yet");
    world.proxy.set(Fault::None);
    // Those of HealthChecks and of workflows.
    until_expired(&world, "watches are", || world.proxy.expired_watches() >= 2).await;
    world.goes_on("watches of too long ago").await;
    follows_changes(&world).await;
    let after = expired(&world).await;
    assert!(after[0] > before[0] && after[1] > before[1], "{WATCHED:?}: {after:?} after {before:?}");

    assert_eq!(world.proxy.expired_lists(), 0);
    world.proxy.set(Fault::OldLists);
    until_expired(&world, "the second page of a list is", || world.proxy.expired_lists() >= 1).await;
    world.goes_on("a list of too long ago").await;
    // The proxy's word to list anew, and the API server's that the next page is of too long ago.
    let last = expired(&world).await;
    assert!(last[0] >= after[0] + 2, "{WATCHED:?}: {last:?} after {after:?}");
    follows_changes(&world).await;
    world.proxy.set(Fault::None);
    all_is_counted(&world).await;
}

/// How often the agent has counted that what it asked for had expired, of each that is watched.
async fn expired(world: &World) -> [u64; 2] {
    let [checks, workflows] = WATCHED;
    [world.restarts(checks, "expired").await, world.restarts(workflows, "expired").await]
}

/// Runs end, a check is edited and another one goes, unseen; then etcd forgets, and the API server with it: it keeps what was
/// lately in its memory.
async fn while_watches_are_cut(world: &World) {
    let cluster = world.cluster();
    world.proxy.set(Fault::HoldWatches);
    wait::until("runs that ended unseen", PATIENCE, || async {
        for name in BUSY {
            if ended(cluster, name).await? <= world.counted(name).await? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
    .expect("runs");
    let edit = r#"{"spec": {"description": "edited"}}"#;
    cluster.kubectl(&["patch", "hc", "idle-0", "-n", "health", "--type=merge", "-p", edit]).await.expect("edit");
    cluster.kubectl(&["delete", "hc", "idle-1", "-n", "health"]).await.expect("delete");
    // Argo can lose a result that it could not store; that is not what this is about.
    cluster.stop_argo();
    let revision = cluster.compact_etcd().await.expect("compaction");
    cluster.stop_apiserver();
    cluster.start_apiserver().await.expect("API server");
    cluster.start_argo().await.expect("Argo");
    println!("etcd has nothing from before revision {revision}");
}

/// How many workflows of a check have ended.
async fn ended(cluster: &Cluster, check: &str) -> anyhow::Result<u64> {
    let all = cluster.workflows("health").await?;
    let is_its = |made: &&Value| made["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(check));
    Ok(all.iter().filter(is_its).filter(|made| made["status"]["finishedAt"].is_string()).count() as u64)
}

async fn until_expired(world: &World, what: &str, is_told: impl Fn() -> bool) {
    wait::until(&format!("word that {what} of too long ago"), PATIENCE, || async { Ok(is_told().then_some(())) })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", world.agent.process.log_tail()));
}

/// The check that was edited has a status for that, and the one that was deleted is told of no more.
async fn follows_changes(world: &World) {
    wait::until("the edited and without the deleted", PATIENCE, || async {
        let edited = world.cluster().health_check("health", "idle-0").await?;
        let is_seen = edited["status"]["observedGeneration"] == edited["metadata"]["generation"];
        Ok((is_seen && !world.metrics().await.contains(DELETED)).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", world.agent.process.log_tail()));
}
