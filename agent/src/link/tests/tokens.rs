//! Tokens: whom they are shown to, and what a new one does to the identity in use.

use super::*;

#[tokio::test]
async fn a_hub_that_is_not_the_tokens_never_sees_the_secret() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    let token = Token::parse(&Hub::new().token()).unwrap();
    let address = format!("localhost:{}", process.enrolment.port());
    let refused = enrol::enrol(&address, &token, "uid", dir.path()).await;
    let error = refused.err().unwrap();
    assert!(matches!(error, EnrolError::Dial { .. }), "{error:?}");
    assert!(failure::chain(&error).contains("UnknownIssuer"), "{}", failure::chain(&error));
    // Nor does one whose name is not the one dialled.
    let token = Token::parse(&hub.token()).unwrap();
    let address = format!("127.0.0.1:{}", process.enrolment.port());
    let refused = enrol::enrol(&address, &token, "uid", dir.path()).await;
    assert!(matches!(refused, Err(EnrolError::Dial { .. })));
    assert_eq!(hub.state.lock().enrolments, 0);
}

#[tokio::test]
async fn a_new_token_that_is_refused_leaves_the_identity_in_use() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    Agent::start(dir.path(), &process, Some(hub.token())).await.stop_when_connected().await;
    let other = hub.token().replace("aaaa", "bbbb");
    Agent::start(dir.path(), &process, Some(other)).await.stop_when_connected().await;
    assert_eq!(hub.state.lock().enrolments, 2);
}

#[tokio::test]
async fn a_new_token_whose_listener_is_away_keeps_no_session_from_the_hub_and_is_used_when_it_is_there() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let process = Process::start(&hub, None);
    Agent::start(dir.path(), &process, Some(hub.token())).await.stop_when_connected().await;
    hub.state.lock().token_spent_by = None;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let token = hub.token().replace("aaaa", "cccc");
    let ports = (process.agents.port(), closed.port());
    let mut agent = Agent::start_at(States::new(), dir.path(), ports, Some(token)).await;
    let connected = agent.link.connected.wait_for(|connected| *connected);
    assert!(*tokio::time::timeout(PATIENCE, connected).await.unwrap().unwrap());
    let sessions = hub.state.lock().sessions;
    assert_eq!((hub.state.lock().enrolments, sessions), (1, 2));

    let _back = Process::start(&hub, Some((([127, 0, 0, 1], 0).into(), closed)));
    until(&hub, "a session under the new certificate", |state| state.enrolments == 2 && state.sessions > sessions)
        .await;
    agent.stop().await;
    let identity = Identity::load(&dir.path().join("identity")).unwrap().unwrap();
    let token = Token::parse(&hub.token().replace("aaaa", "cccc")).unwrap();
    assert_eq!(identity.token_digest(), token.digest());
}
