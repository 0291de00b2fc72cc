//! Certificates that end while agents are away, that are renewed under a session, and that a rebind voids.

use active_monitor_core::view::CaStage;
use active_monitor_hub::authority::RollError;

use super::*;

/// Life of a certificate in tests about its end.
const SHORT: [&str; 2] = ["--agent-certificate-seconds", "4"];

#[tokio::test]
async fn after_an_outage_longer_than_its_certificate_an_agent_comes_back_by_its_key_and_no_older_one_does() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start_with(dir.path(), &SHORT).await;
    let token = hub.token("berlin").await;
    let first = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    hub.token("paris").await;
    hub.stop().await;
    tokio::time::sleep(Duration::from_secs(5)).await;

    let hub = Running::start_with(dir.path(), &SHORT).await;
    assert!(first.dial(&hub, hello("berlin", "uid-1", "i1")).await.is_err(), "no session with it");
    let second = first.recover(&hub).await.unwrap();
    let (session, _) = second.connect(&hub, "berlin", vec![]).await;
    // The answer may have been lost: the key before the newest still proves who it is, one before that does not.
    let third = first.recover(&hub).await.unwrap();
    let (other, _) = third.connect(&hub, "berlin", vec![]).await;
    third.recover(&hub).await.unwrap();
    third.recover(&hub).await.unwrap();
    let refused = first.recover(&hub).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    // Nobody gets one without a certificate, nor with one of another CA.
    let mut nobody = EnrolmentClient::new(channel(hub.hub.enrolment, &first.ca, None).await);
    let request = RenewRequest { csr: signing_request(&KeyPair::generate().unwrap()) };
    let refused = within("refusal", nobody.recover(request)).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let key = KeyPair::generate().unwrap();
    let forged = CertificateParams::default().self_signed(&key).unwrap();
    let stranger = Agent { ca: first.ca.clone(), certificate: forged.pem(), key: key.serialize_pem() };
    assert!(stranger.recover(&hub).await.is_err());
    drop((session, other));
    hub.stop().await;
}

#[tokio::test]
async fn a_session_goes_on_under_the_next_certificate_and_ends_with_the_last() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start_with(dir.path(), &SHORT).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let enrolled = std::time::Instant::now();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let mut client = agent.client(&hub).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let key = KeyPair::generate().unwrap();
    within("renewal", client.renew(RenewRequest { csr: signing_request(&key) })).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2200)).await;
    session.send(AgentFrame::reports(vec![report(1)])).await;
    assert_eq!(session.ack().await, 1);
    assert!(enrolled.elapsed() > Duration::from_secs(5), "the first certificate has ended");
    assert_eq!(session.go_away().await, "the certificate has expired");
    hub.stop().await;
}

#[tokio::test]
async fn a_rebind_cuts_the_session_voids_what_was_issued_and_takes_the_rebuilt_cluster() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let old = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = old.connect(&hub, "berlin", vec![]).await;
    let add = ClusterAdd { name: "berlin".into(), ..ClusterAdd::default() };
    let refused = hub.hub.fleet.add_cluster(add).await.err().unwrap().to_string();
    assert!(refused.contains("fleetcheck cluster token berlin"), "{refused}");
    // A new token leaves what is there as it is, and is for this cluster only.
    let token = hub.hub.fleet.new_token("berlin", false).await.unwrap().token;
    let refused = Agent::enrol(dir.path(), &hub, &token, "uid-2").await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    session.send(AgentFrame::reports(vec![report(1)])).await;
    assert_eq!(session.ack().await, 1);

    let asked = std::time::Instant::now();
    let token = hub.hub.fleet.new_token("berlin", true).await.unwrap().token;
    assert_eq!(session.go_away().await, "the cluster was bound anew");
    assert!(asked.elapsed() < Duration::from_secs(5));
    for refused in [old.dial(&hub, hello("berlin", "uid-1", "i1")).await.err(), old.recover(&hub).await.err()] {
        assert_eq!(refused.unwrap().code(), Code::PermissionDenied);
    }
    let new = Agent::enrol(dir.path(), &hub, &token, "uid-2").await.unwrap();
    let mut session = new.dial(&hub, hello("berlin", "uid-2", "i2")).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn another_ca_takes_over_and_no_agent_that_renews_is_locked_out() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let roll = async |from, force| hub.hub.authority.roll(from, force, &hub.hub.fleet).await;
    let waits = |refused: Result<_, RollError>| match refused {
        Err(RollError::Waiting(clusters)) => clusters,
        other => panic!("{:?}", other.err()),
    };
    let token = hub.token("berlin").await;
    let first = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    hub.token("never-enrolled").await;
    let (mut session, _) = first.connect(&hub, "berlin", vec![]).await;

    let old = hub.hub.authority.trust().ca.fingerprint();
    let introduced = roll(CaStage::Stable, false).await.unwrap();
    assert_eq!((introduced.stage(), introduced.ca.fingerprint()), (CaStage::Introduced, old.clone()));
    assert_eq!(waits(roll(CaStage::Introduced, false).await), ["berlin"], "its agent has not heard of it");
    assert!(matches!(roll(CaStage::Stable, false).await, Err(RollError::Stage { .. })), "a repeated request");

    let second = first.renew(&hub).await;
    let switched = roll(CaStage::Introduced, false).await.unwrap();
    assert_eq!(switched.stage(), CaStage::Switched);
    assert_ne!(switched.ca.fingerprint(), old);
    session.send(AgentFrame::reports(vec![report(1)])).await;
    assert_eq!(session.ack().await, 1, "the open session goes on");
    drop(session);
    // The listeners take the new certificate a moment later.
    within("a session by the new CA", async {
        while first.dial(&hub, hello("berlin", "uid-1", "i1")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (session, _) = second.connect(&hub, "berlin", vec![]).await;
    drop(session);
    let token = hub.token("paris").await;
    Agent::enrol(dir.path(), &hub, &token, "uid-2").await.unwrap();

    assert_eq!(waits(roll(CaStage::Switched, false).await), ["berlin"], "its certificate is by the old CA");
    let third = second.renew(&hub).await;
    assert_eq!(roll(CaStage::Switched, false).await.unwrap().stage(), CaStage::Stable);
    within("the end of the old CA", async {
        while second.dial(&hub, hello("berlin", "uid-1", "i1")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    third.connect(&hub, "berlin", vec![]).await;
    hub.stop().await;
}
