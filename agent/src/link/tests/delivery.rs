//! What is reported and shown arrives, whoever dies meanwhile.

use super::*;

#[tokio::test]
async fn nothing_is_lost_when_the_hub_dies_and_when_the_agent_does() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    let mut agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    agent.states.upsert(check("a", "1"));
    for minute in 1..=20 {
        agent.journal.settle(run_at(minute)).await.unwrap();
    }
    until(&hub, "first runs", |state| state.recorded.len() == 20 && state.view.len() == 1).await;
    until(&hub, "heartbeats", |state| state.heartbeats >= 2).await;
    assert!(*agent.link.connected.wait_for(|connected| *connected).await.unwrap());
    assert_eq!(agent.link.cluster.borrow().as_deref(), Some("c1"));
    let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("identity"), mode("identity/identity.json")), (0o700, 0o600));

    let ports = process.ports();
    drop(process);
    agent.link.connected.wait_for(|connected| !*connected).await.unwrap();
    for minute in 21..=40 {
        agent.journal.settle(run_at(minute)).await.unwrap();
    }
    agent.states.upsert(check("b", "1"));
    agent.states.remove("a");
    let process = Process::start(&hub, Some(ports));
    until(&hub, "runs made without a hub", |state| state.recorded.len() == 40).await;
    until(&hub, "state made without a hub", |state| state.view.keys().eq(["b"])).await;

    agent.states.upsert(check("b", "2"));
    until(&hub, "a live change", |state| state.view["b"].message == "2").await;
    agent.stop().await;

    // The identity is stored: the spent token is not needed, and not asked for either.
    for token in [None, Some(hub.token())] {
        let sessions = hub.state.lock().sessions;
        let agent = Agent::start(dir.path(), &process, token).await;
        until(&hub, "a session of the next process", |state| state.sessions > sessions).await;
        assert_eq!(agent.journal.next_seq(), 41);
        agent.stop().await;
    }
    let state = hub.state.lock();
    assert_eq!(state.enrolments, 1);
    assert!(state.recorded.values().all(|&times| times <= 2));
}

#[tokio::test]
async fn a_restart_of_the_agent_does_not_empty_the_hubs_view() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    hub.state.lock().view = ["gone", "kept"].map(|uid| (uid.to_owned(), check(uid, "old"))).into();
    let process = Process::start(&hub, None);
    let agent = Agent::start_with(States::incomplete(), dir.path(), &process, Some(hub.token())).await;
    until(&hub, "signs of life", |state| state.heartbeats >= 2).await;
    assert_eq!(hub.state.lock().view.len(), 2);
    agent.states.expect(["kept".into(), "new".into()]);
    agent.states.upsert(check("kept", "fresh"));
    agent.states.upsert(check("new", "fresh"));
    until(&hub, "the snapshot", |state| state.view.contains_key("new")).await;
    let state = hub.state.lock().view.clone();
    assert!(state.keys().eq(["kept", "new"]) && state.values().all(|state| state.message == "fresh"));
    agent.stop().await;
}

#[tokio::test]
async fn acks_empty_the_journal() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    let agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    for minute in 1..=50 {
        agent.journal.settle(run_at(minute)).await.unwrap();
    }
    until(&hub, "runs", |state| state.recorded.len() == 50).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while agent.journal.backlog() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "{} reports without an ack", agent.journal.backlog());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(hub.state.lock().recorded.values().all(|&times| times == 1));
    agent.stop().await;
}

#[tokio::test]
async fn what_came_of_a_self_test_waits_for_the_next_session() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    let mut agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    agent.link.connected.wait_for(|connected| *connected).await.unwrap();
    let ports = process.ports();
    drop(process);
    agent.link.connected.wait_for(|connected| !*connected).await.unwrap();
    let ended = SelfTest::new(SelfTestOutcome::Succeeded, "done", Timestamp::UNIX_EPOCH);
    agent.link.self_tests.send(ended.clone()).await.unwrap();
    let _process = Process::start(&hub, Some(ports));
    until(&hub, "the self-test", |state| state.self_tests == [ended.clone()]).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_the_journal_lacks_is_said_after_a_restart_too_until_an_ack_covers_it() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    let lacking = vec![Counted { check_uid: "a".into(), mark: run_at(1).key.slot }];
    let agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    agent.journal.lacks(lacking.clone());
    until(&hub, "what the journal lacks", |state| state.lacking == [lacking.clone()]).await;
    agent.stop().await;
    let agent = Agent::start(dir.path(), &process, None).await;
    until(&hub, "the same again", |state| state.lacking.len() == 2).await;
    agent.journal.settle(run_at(2)).await.unwrap();
    let known = async { agent.journal.lacking().wait_for(Vec::is_empty).await.map(drop) };
    tokio::time::timeout(PATIENCE, known).await.unwrap().unwrap();
    agent.stop_when_connected().await;
    let sessions = hub.state.lock().sessions;
    let agent = Agent::start(dir.path(), &process, None).await;
    agent.journal.settle(run_at(3)).await.unwrap();
    until(&hub, "a later run", |state| state.sessions > sessions && state.recorded.len() == 2).await;
    assert_eq!(hub.state.lock().lacking.len(), 2, "no more");
    agent.stop().await;
}
