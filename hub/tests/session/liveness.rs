//! What is shown of a cluster when the hub starts again, its agent is silent, or another session takes over.

use super::*;

#[tokio::test]
async fn after_a_restart_of_the_hub_nothing_is_green_until_the_agent_speaks() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    let stopping = tokio::spawn(hub.stop());
    assert_eq!(session.go_away().await, "the hub is stopping");
    within("stop", stopping).await.unwrap();
    drop(session);

    let hub = Running::start(dir.path()).await;
    assert_eq!(hub.check_status("berlin", "dns"), Some(CheckStatus::Stale));
    eventually("an end of the grace", || hub.cluster_status("berlin") == Some(ClusterStatus::Unreachable)).await;
    let (session, _) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    // The connection stays open and silent: the lease alone must end it.
    eventually("a stale check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Stale)).await;
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn a_new_session_takes_over_from_the_old_one() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut first, _) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    let (second, _) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    assert_eq!(first.go_away().await, "another session of this cluster took over");
    drop(first);
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    assert_eq!(hub.cluster_status("berlin"), Some(ClusterStatus::Connected));
    drop(second);
    hub.stop().await;
}
