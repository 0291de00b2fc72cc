//! Certificates that end, are renewed, and whose answers get lost.

use super::*;

#[tokio::test]
async fn a_certificate_is_renewed_under_a_session_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    // Each one is past two thirds of its life when it is made.
    let hub = Arc::new(Hub::with_certificates(Duration::from_secs(22), Duration::from_secs(8)));
    let process = Process::start(&hub, None);
    let agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    until(&hub, "renewals", |state| state.renewals >= 2).await;
    agent.states.upsert(check("a", "1"));
    until(&hub, "the session goes on", |state| state.view.len() == 1).await;
    assert_eq!(hub.state.lock().sessions, 1);
    agent.stop().await;
    Agent::start(dir.path(), &process, None).await.stop_when_connected().await;
}

#[tokio::test]
async fn an_agent_whose_certificate_has_expired_comes_back_by_proving_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub::with_certificates(Duration::ZERO, Duration::from_secs(2)));
    let process = Process::start(&hub, None);
    let mut agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    agent.link.connected.wait_for(|connected| *connected).await.unwrap();
    let ports = process.ports();
    drop(process);
    agent.link.connected.wait_for(|connected| !*connected).await.unwrap();
    agent.stop().await;
    let identity = Identity::load(&dir.path().join("identity")).unwrap().unwrap();
    while Timestamp::now() <= identity.not_after() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    *hub.certificate_rest.lock() = Duration::from_secs(3600);
    let process = Process::start(&hub, Some(ports));
    Agent::start(dir.path(), &process, None).await.stop_when_connected().await;
    let state = hub.state.lock();
    assert_eq!((state.enrolments, state.recoveries), (1, 1));
}

#[tokio::test]
async fn a_lost_answer_to_an_enrolment_is_asked_for_again_with_the_same_key() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    hub.state.lock().lose_answers = 1;
    let process = Process::start(&hub, None);
    let agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    until(&hub, "the first try", |state| state.enrolments == 1).await;
    // The process ends before it has an answer: the next one has the key from the disk.
    agent.stop().await;
    hub.state.lock().lose_answers = 1;
    Agent::start(dir.path(), &process, Some(hub.token())).await.stop_when_connected().await;
    assert_eq!(hub.state.lock().enrolments, 3);
    assert!(!dir.path().join("identity/pending.json").exists());
}

#[tokio::test]
async fn an_agent_waits_for_approval_with_one_key_and_says_which() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    hub.state.lock().waits_for_approval = true;
    let process = Process::start(&hub, None);
    let mut agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    let waits = tokio::time::timeout(PATIENCE, agent.link.waiting.wait_for(Option::is_some)).await.unwrap();
    let said = waits.unwrap().clone().unwrap();
    let key = hub.state.lock().token_spent_by.clone().unwrap();
    assert_eq!(said, format!("waiting for approval of the key {}", hex::encode(Sha256::digest(&key))));
    until(&hub, "another question", |state| state.enrolments >= 2).await;
    assert_eq!(hub.state.lock().token_spent_by, Some(key), "with the same key: another one is refused");
    hub.state.lock().waits_for_approval = false;
    agent.link.connected.wait_for(|connected| *connected).await.unwrap();
    assert_eq!(*agent.link.waiting.borrow(), None);
    agent.stop().await;
}
