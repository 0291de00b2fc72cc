//! What replicas have in common: the CA, the first token, revocations, Git's folder.

use active_monitor_core::view::CaStage;
use active_monitor_hub::store::postgres::replicas::Replicas;
use active_monitor_hub::store::postgres::{PostgresStore, Share};
use active_monitor_hub::store::{ClusterRecord, Store};

use super::*;
use crate::postgres::Database;

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_have_one_ca_and_one_first_token_and_change_the_ca_together() {
    let test = "replicas_that_start_at_once_have_one_ca_and_one_first_token_and_change_the_ca_together";
    let Some(database) = Database::create(test).await else { return };
    let (url, dirs) = (database.url(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let flags = ["--store", url.as_str(), "--replicated"];
    let (one, two) =
        tokio::join!(Running::start_with(dirs[0].path(), &flags), Running::start_with(dirs[1].path(), &flags));
    let trust = |hub: &Running| hub.hub.authority.trust();
    assert_eq!(trust(&one).ca.fingerprint(), trust(&two).ca.fingerprint());
    let tokens = dirs.iter().filter(|dir| dir.path().join(serve::ADMIN_TOKEN_FILE).exists()).count();
    assert_eq!(tokens, 1, "a second would make the first one void");

    one.hub.authority.roll(CaStage::Stable, false, &one.hub.fleet).await.unwrap();
    // Who has not seen it yet looks before it changes anything.
    let late = two.hub.authority.roll(CaStage::Stable, false, &two.hub.fleet).await;
    assert!(late.err().unwrap().to_string().contains("Introduced"));
    assert_eq!(trust(&two).bundle(), trust(&one).bundle());
    two.hub.authority.roll(CaStage::Introduced, false, &two.hub.fleet).await.unwrap();
    eventually("the change that the other made", || trust(&one).stage() == CaStage::Switched).await;
    assert_eq!(trust(&one).ca.fingerprint(), trust(&two).ca.fingerprint());

    // A third brings a CA of its own, which is not the fleet's.
    let third = TempDir::new().unwrap();
    Running::start(third.path()).await.stop().await;
    let three = Running::start_with(third.path(), &flags).await;
    assert_eq!(trust(&three).ca.fingerprint(), trust(&one).ca.fingerprint());
    for hub in [one, two, three] {
        hub.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_at_one_replica_stays_revoked_whichever_data_directory_is_left() {
    let test = "what_is_revoked_at_one_replica_stays_revoked_whichever_data_directory_is_left";
    let Some(database) = Database::create(test).await else { return };
    let (url, dirs) = (database.url(), [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let flags = ["--store", url.as_str(), "--replicated"];
    let one = Running::start_with(dirs[0].path(), &flags).await;
    let two = Running::start_with(dirs[1].path(), &flags).await;
    one.token("berlin").await;
    one.hub.fleet.remove_cluster("berlin").await.unwrap();
    let noted = |dir: &TempDir| {
        let file = std::fs::read_to_string(dir.path().join("revoked.json")).unwrap_or_default();
        file.contains("berlin")
    };
    eventually("the revocation in the other's file", || noted(&dirs[1])).await;
    // Whoever adds it again at the other knows of the removal.
    two.token("berlin").await;
    assert!(two.cluster_status("berlin").is_some());
    for hub in [one, two] {
        hub.stop().await;
    }

    // The data base of a backup has the cluster that was removed, and nothing of its removal; the first directory is lost.
    let (store, claim) = PostgresStore::open(database.options(), Share::Replicas).await.unwrap();
    let mut connection = database.connect().await;
    sqlx::query("DELETE FROM replica_revocations").execute(&mut connection).await.unwrap();
    store.remove_cluster("berlin").await.unwrap();
    let before = ClusterRecord { name: "berlin".into(), created_at: Timestamp::UNIX_EPOCH, ..Default::default() };
    store.put_cluster(&before).await.unwrap();
    drop((store, claim));
    let two = Running::start_with(dirs[1].path(), &flags).await;
    assert!(two.cluster_status("berlin").is_none(), "removed again");
    let three = Running::start_with(dirs[2].path(), &flags).await;
    assert!(noted(&dirs[2]), "one that comes later has it from the start");
    for hub in [two, three] {
        hub.stop().await;
    }
}

/// A hub that is asked as people ask it.
struct Asked {
    running: Running,
    token: String,
}

impl Asked {
    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}/api/v1/{path}", self.running.hub.people);
        reqwest::Client::new().request(method, url).bearer_auth(&self.token)
    }

    /// Waits until Git's folder is shown so.
    async fn until_source(&self, what: &str, holds: impl Fn(&serde_json::Value) -> bool) {
        within(what, async {
            loop {
                let answer = self.request(reqwest::Method::GET, "sources").send().await.unwrap();
                let list: serde_json::Value = answer.json().await.unwrap();
                if holds(&list["items"][0]) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

fn document(name: &str) -> String {
    format!(
        "apiVersion: fleet.activemonitor.keikoproj.io/v1alpha1\nkind: FleetHealthCheck\nmetadata: {{name: {name}}}\n\
         spec:\n  clusterSelector: {{matchLabels: {{env: prod}}}}\n  template:\n    metadata: {{namespace: health}}\n    \
         spec: {{repeatAfterSec: 60}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_keeps_the_fleet_as_gits_folder_says_and_each_knows_what_is_gits() {
    let test = "one_replica_keeps_the_fleet_as_gits_folder_says_and_each_knows_what_is_gits";
    let Some(database) = Database::create(test).await else { return };
    let (url, folder) = (database.url(), TempDir::new().unwrap());
    let path = folder.path().display().to_string();
    std::fs::write(folder.path().join("dns.yaml"), document("dns")).unwrap();
    let flags = ["--store", &url, "--replicated", "--git-folder", &path, "--people-plaintext"];
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut hubs = Vec::new();
    for dir in &dirs {
        let running = Running::start_with(dir.path(), &flags).await;
        let token = std::fs::read_to_string(dirs[0].path().join(serve::ADMIN_TOKEN_FILE)).unwrap().trim().to_owned();
        hubs.push(Asked { running, token });
    }
    let owns = |source: &serde_json::Value, count: usize| {
        source["state"] == "InForce" && source["objects"].as_array().is_some_and(|objects| objects.len() == count)
    };
    for hub in &hubs {
        eventually("Git's definition", || hub.running.hub.fleet.definitions().contains_key("dns")).await;
        hub.until_source("that it is in force", |source| owns(source, 1)).await;
        let refused = hub.request(reqwest::Method::DELETE, "definitions/dns").send().await.unwrap();
        assert_eq!(refused.status(), 409, "{:?}", refused.text().await);
    }
    let (two, one) = (hubs.pop().unwrap(), hubs.pop().unwrap());
    // The first one has the lease, and goes.
    one.running.stop().await;
    std::fs::write(folder.path().join("web.yaml"), document("web")).unwrap();
    two.until_source("that the other keeps it", |source| owns(source, 2)).await;
    assert!(two.running.hub.fleet.definitions().contains_key("web"));
    // Who comes later is told.
    let running = Running::start_with(dirs[0].path(), &flags).await;
    let one = Asked { running, token: one.token };
    one.until_source("what the holder tells", |source| owns(source, 2)).await;
    for hub in [one, two] {
        hub.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_gits_folder_leaves_git_what_it_owns_until_it_has_the_lease() {
    let test = "a_replica_without_gits_folder_leaves_git_what_it_owns_until_it_has_the_lease";
    let Some(database) = Database::create(test).await else { return };
    let (url, folder, dirs) =
        (database.url(), TempDir::new().unwrap(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    std::fs::write(folder.path().join("dns.yaml"), document("dns")).unwrap();
    let path = folder.path().display().to_string();
    let flags = ["--store", &url, "--replicated", "--people-plaintext", "--git-folder", &path];
    let one = Running::start_with(dirs[0].path(), &flags).await;
    let token = std::fs::read_to_string(dirs[0].path().join(serve::ADMIN_TOKEN_FILE)).unwrap().trim().to_owned();
    let one = Asked { running: one, token: token.clone() };
    one.until_source("that it is in force", |source| source["state"] == "InForce").await;

    let two = Asked { running: Running::start_with(dirs[1].path(), &flags[..4]).await, token };
    let delete = async || {
        let answer = two.request(reqwest::Method::DELETE, "definitions/dns").send().await.unwrap();
        answer.status().as_u16()
    };
    let owned = async || two.running.hub.store.ownership().await.unwrap();
    assert_eq!((delete().await, owned().await.map(|owned| owned.objects.len())), (409, Some(1)));
    one.running.stop().await;
    within("the end of Git's ownership", async {
        while owned().await.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(delete().await, 204);
    two.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_for_another_replica_is_told_so_and_when_to_come_again() {
    let test = "who_waits_too_long_for_another_replica_is_told_so_and_when_to_come_again";
    let Some(database) = Database::create(test).await else { return };
    let (url, dir) = (database.url(), TempDir::new().unwrap());
    let running = Running::start_with(dir.path(), &["--store", &url, "--replicated", "--people-plaintext"]).await;
    let token = std::fs::read_to_string(dir.path().join(serve::ADMIN_TOKEN_FILE)).unwrap().trim().to_owned();
    let hub = Asked { running, token };
    let delete = async || hub.request(reqwest::Method::DELETE, "definitions/dns").send().await.unwrap();
    let (store, _claim) = PostgresStore::open(database.options(), Share::Replicas).await.unwrap();
    let other = Replicas::new(&store);
    let held = other.hold_ownership().await.unwrap();
    let answer = within("answer", delete()).await;
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(answer.status(), 503);
    assert_eq!(header("retry-after").as_deref(), Some("1"));
    assert_eq!(header("content-type").as_deref(), Some("application/problem+json"));
    let problem: serde_json::Value = answer.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("another replica was changing") && detail.contains("nothing was changed"), "{detail}");
    held.end().await;
    assert_eq!(delete().await.status(), 404);
    hub.running.stop().await;
}
