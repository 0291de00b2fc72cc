//! Who may enrol, who may speak for a cluster, and for how long.

use super::*;

#[tokio::test]
async fn a_token_is_good_for_one_key_one_name_and_one_cluster() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let key = KeyPair::generate().unwrap();
    let code = |result: Result<Agent, Status>| result.err().map(|status| status.code());
    let wrong = format!("berlin.{}.x", "0".repeat(64));
    assert_eq!(code(Agent::enrol(dir.path(), &hub, &wrong, "uid-1").await), Some(Code::Unauthenticated));
    let other_name = token.replacen("berlin", "paris", 1);
    assert_eq!(code(Agent::enrol(dir.path(), &hub, &other_name, "uid-1").await), Some(Code::Unauthenticated));
    Agent::enrol_with(dir.path(), &hub, &token, "uid-1", &key).await.unwrap();
    // An answer that was lost may be asked for again, by the same key only.
    Agent::enrol_with(dir.path(), &hub, &token, "uid-1", &key).await.unwrap();
    assert_eq!(code(Agent::enrol(dir.path(), &hub, &token, "uid-1").await), Some(Code::FailedPrecondition));
    assert_eq!(code(Agent::enrol_with(dir.path(), &hub, &token, "uid-2", &key).await), Some(Code::PermissionDenied));
    hub.stop().await;
}

#[tokio::test]
async fn an_expired_token_and_too_many_wrong_ones_are_refused() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let mut known = hub.hub.store.enrolment_token("berlin").await.unwrap().unwrap();
    known.expires_at = Timestamp::now();
    hub.hub.store.put_enrolment_token("berlin", &known).await.unwrap();
    let expired = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.err().unwrap();
    assert_eq!(
        (expired.code(), expired.message()),
        (Code::FailedPrecondition, "the token has expired; make a new one")
    );
    let wrong = format!("berlin.{}.x", "0".repeat(64));
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(Agent::enrol(dir.path(), &hub, &wrong, "uid-1").await.err().unwrap().code());
    }
    assert_eq!(codes.first(), Some(&Code::Unauthenticated));
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted));
    hub.stop().await;
}

#[tokio::test]
async fn who_is_not_who_the_certificate_says_is_refused() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    hub.token("paris").await;

    let mut wrong_name = agent.dial(&hub, hello("paris", "uid-1", "i1")).await.unwrap();
    let refused = within("refusal", wrong_name.answers.message()).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let mut wrong_uid = agent.dial(&hub, hello("berlin", "uid-2", "i1")).await.unwrap();
    assert!(wrong_uid.go_away().await.contains("uid-2"));
    assert!(hub.hub.fleet.view().clusters["berlin"].view.message.contains("uid-2"));

    let nobody = channel(hub.hub.agents, &agent.ca, None).await;
    let (_frames, queued) = mpsc::channel::<v1::AgentFrame>(1);
    let mut client = FleetClient::new(nobody);
    let session = client.session(ReceiverStream::new(queued));
    assert!(within("refusal", session).await.is_err(), "a session needs a client certificate");
    hub.stop().await;
}

#[tokio::test]
async fn a_removed_cluster_is_cut_and_its_certificate_is_worth_nothing() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let mut client = agent.client(&hub).await;
    let renewed = client.renew(RenewRequest { csr: signing_request(&KeyPair::generate().unwrap()) });
    assert!(within("renewal", renewed).await.unwrap().into_inner().certificate.contains("BEGIN CERTIFICATE"));
    hub.hub.fleet.remove_cluster("berlin").await.unwrap();
    assert_eq!(session.go_away().await, "the cluster was removed");
    let refused = agent.dial(&hub, hello("berlin", "uid-1", "i1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // A namesake that is added later does not revive it. Certificates count whole seconds.
    let issued = Timestamp::now().as_second();
    eventually("another second", || Timestamp::now().as_second() > issued).await;
    hub.token("berlin").await;
    let refused = agent.dial(&hub, hello("berlin", "uid-1", "i1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    hub.stop().await;
}
