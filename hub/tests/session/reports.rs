//! Reports are acked once they are on the disk, count once, and leave a gap where they never came.

use super::*;

#[tokio::test]
async fn an_ack_means_recorded_and_a_run_sent_again_counts_once() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    assert_eq!(hub.cluster_status("berlin"), Some(ClusterStatus::Pending));
    let (mut session, welcome) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    assert!(welcome.session_epoch > 0 && welcome.lease_ms == 2000 && welcome.heartbeat_ms < 1000);
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;
    session.send(AgentFrame::reports(vec![report(1), report(2)])).await;
    assert_eq!(session.ack().await, 2);
    assert_eq!(hub.history("berlin").await, [report(2).run, report(1).run]);
    drop(session);
    eventually("a closed session", || hub.cluster_status("berlin") == Some(ClusterStatus::Reconnecting)).await;

    let (mut session, second) = agent.connect(&hub, "berlin", vec![check("dns")]).await;
    assert!(second.session_epoch > welcome.session_epoch);
    session.send(AgentFrame::reports(vec![report(2), report(3)])).await;
    assert_eq!(session.ack().await, 3);
    assert_eq!(hub.history("berlin").await.len(), 3);
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn reports_that_never_came_are_a_gap_at_their_place_in_the_history() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let page = async |hub: &Running| {
        let query = RunQuery { cluster: Some("berlin".into()), limit: 100, ..RunQuery::default() };
        hub.hub.store.runs(&query).await.unwrap()
    };
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    session.send(AgentFrame::reports(vec![report(1), report(2)])).await;
    assert_eq!(session.ack().await, 2);
    // The journal was full and dropped 3 to 5; then 8 was lost to a flipped bit.
    drop(session);
    hub.stop().await;
    let hub = Running::start(dir.path()).await;
    let dropped = Hello { oldest_seq: 6, next_seq: 10, dropped_reports: 3, ..hello("berlin", "uid-1", "i1") };
    let mut session = agent.dial(&hub, dropped.clone()).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    session.send(AgentFrame::Snapshot { checks: vec![], last: true }).await;
    session.send(AgentFrame::reports(vec![report(6), report(7), report(9)])).await;
    while session.ack().await < 9 {}
    let found = page(&hub).await;
    let places: Vec<_> = found.gaps.iter().map(|gap| (gap.after, gap.reports)).collect();
    let ids: Vec<i64> = found.items.iter().map(|run| run.id).collect();
    assert_eq!(places, [(ids[1], 1), (ids[3], 3)], "{ids:?}: between 7 and 9, and between 2 and 6");
    drop(session);
    // The same Hello again, and one of a journal that was made anew, add none.
    let again = Hello { oldest_seq: 10, ..dropped };
    let fresh = Hello { journal_id: "k".into(), ..hello("berlin", "uid-1", "i2") };
    for (hello, seq) in [(again, 10), (fresh, 1)] {
        let mut session = agent.dial(&hub, hello).await.unwrap();
        assert!(matches!(session.next().await, HubFrame::Welcome(_)));
        session.send(AgentFrame::Snapshot { checks: vec![], last: true }).await;
        session.send(AgentFrame::reports(vec![report(seq)])).await;
        assert_eq!(session.ack().await, seq);
    }
    assert_eq!(page(&hub).await.gaps, found.gaps);
    hub.stop().await;
}
