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

#[tokio::test]
async fn what_a_journal_lacks_is_a_gap_before_its_reports_and_only_where_the_history_lacks_it_too() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let mark = |seq: u64| {
        let run = report(seq).run;
        active_monitor_core::status::mark(run.key.slot, run.started_at)
    };
    let lacks = |seq| Counted { check_uid: report(1).run.key.check_uid, mark: mark(seq) };
    let unknown = Counted { check_uid: "unknown".into(), mark: mark(50) };
    let page = async || {
        let query = RunQuery { cluster: Some("berlin".into()), limit: 100, ..RunQuery::default() };
        let page = hub.hub.store.runs(&query).await.unwrap();
        let ids: Vec<i64> = page.items.iter().map(|run| run.id).collect();
        (ids, page.gaps.iter().map(|gap| (gap.after, gap.reports)).collect::<Vec<_>>())
    };
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    session.send(AgentFrame::reports(vec![report(1), report(2)])).await;
    assert_eq!(session.ack().await, 2);
    // Another replica's journal, with nothing lost; then one that begins where another was lost, whose first ack is lost too.
    for (journal, lacking, seq, gaps) in [("k", 2, 3, 0), ("l", 8, 9, 1), ("l", 8, 10, 1)] {
        let hello =
            Hello { journal_id: journal.into(), oldest_seq: seq, next_seq: 20, ..hello("berlin", "uid-1", journal) };
        let mut session = agent.dial(&hub, hello).await.unwrap();
        assert!(matches!(session.next().await, HubFrame::Welcome(_)));
        session.send(AgentFrame::Snapshot { checks: vec![], last: true }).await;
        session.send(AgentFrame::Lacking(vec![unknown.clone(), lacks(lacking)])).await;
        session.send(AgentFrame::reports(vec![report(seq)])).await;
        while session.ack().await < seq {}
        assert_eq!(page().await.1.iter().filter(|(_, reports)| *reports == 0).count(), gaps, "{journal}");
    }
    let (ids, gaps) = page().await;
    assert_eq!(gaps, [(ids[2], 0)], "{ids:?}: between 3 and 9");
    hub.stop().await;
}
