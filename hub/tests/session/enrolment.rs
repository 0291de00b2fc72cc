//! How an enrolment goes on after its token: a person's approval, and the self-test at its end.

use active_monitor_core::command::{Answer, Command, Layer, Order, Refusal};
use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};
use active_monitor_core::view::{EnrolmentDecision, PendingEnrolment};
use sha2::{Digest, Sha256};

use super::*;

const APPROVAL: [&str; 1] = ["--require-approval"];

fn fingerprint(key: &KeyPair) -> String {
    hex::encode(Sha256::digest(key.public_key_raw()))
}

impl Running {
    fn pending(&self, cluster: &str) -> Option<PendingEnrolment> {
        self.hub.fleet.view().clusters[cluster].view.pending_enrolment.clone()
    }

    fn self_test(&self, cluster: &str) -> Option<SelfTest> {
        self.hub.fleet.view().clusters[cluster].view.self_test.clone()
    }

    /// Waits for so many lines of this action, and gives their objects, the newest first.
    async fn audited(&self, action: &str, lines: usize) -> Vec<String> {
        within("line of the audit log", async {
            loop {
                let log = self.hub.store.audit_log(100).await.unwrap();
                let found: Vec<_> = log.into_iter().filter(|line| line.action == action).collect();
                if found.len() >= lines {
                    return found.into_iter().map(|line| line.object).collect();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

impl Session {
    /// The hub's wish for a self-test; `None` where it has none and a session's other first words are over.
    async fn self_test(&mut self) -> Option<Command> {
        loop {
            let frame = self.next().await;
            if matches!(frame, HubFrame::Ack(_)) {
                return None;
            }
            if let HubFrame::Command(command) = frame
                && command.order == Order::SelfTest
            {
                return Some(command);
            }
        }
    }

    async fn refuse(&self, command: &Command, layer: Layer, reason: &str) {
        let answer = Answer { id: command.id.clone(), verdict: Err(Refusal::new(layer, reason)) };
        self.send(AgentFrame::CommandAnswer(answer)).await;
    }

    async fn passes(&self, command: &Command) {
        let begun = Answer { id: command.id.clone(), verdict: Ok("begun".into()) };
        self.send(AgentFrame::CommandAnswer(begun)).await;
        self.send(AgentFrame::SelfTest(SelfTest::new(SelfTestOutcome::Succeeded, "ran", Timestamp::now()))).await;
    }
}

#[tokio::test]
async fn a_key_gets_its_certificate_only_once_a_person_has_approved_that_very_key() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start_with(dir.path(), &APPROVAL).await;
    let token = hub.token("berlin").await;
    let (key, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let enrol = async |hub: &Running, key: &KeyPair, uid: &str| {
        Agent::enrol_with(dir.path(), hub, &token, uid, key).await.map_err(|status| status.code())
    };
    assert_eq!(enrol(&hub, &key, "uid-1").await.err(), Some(Code::Aborted));
    assert_eq!(enrol(&hub, &key, "uid-1").await.err(), Some(Code::Aborted), "asked again");
    let waits = hub.pending("berlin").unwrap();
    assert_eq!((waits.key_fingerprint.as_str(), waits.cluster_uid.as_str()), (fingerprint(&key).as_str(), "uid-1"));
    let message = hub.hub.fleet.view().clusters["berlin"].view.message.clone();
    assert!(message.contains("waits for approval") && message.contains(&fingerprint(&key)), "{message}");
    // Whoever else comes with the token does not take the place of who came first.
    assert_eq!(enrol(&hub, &thief, "uid-1").await.err(), Some(Code::FailedPrecondition));
    assert_eq!(enrol(&hub, &key, "uid-2").await.err(), Some(Code::FailedPrecondition), "another cluster");
    let fleet = &hub.hub.fleet;
    let other = fleet.decide_enrolment("berlin", &fingerprint(&thief), EnrolmentDecision::Approved, "anna").await;
    assert!(other.unwrap_err().to_string().contains(&fingerprint(&key)));
    hub.stop().await;

    // What waits and what was decided outlive the hub.
    let hub = Running::start_with(dir.path(), &APPROVAL).await;
    assert_eq!(hub.pending("berlin"), Some(waits));
    hub.hub.fleet.decide_enrolment("berlin", &fingerprint(&key), EnrolmentDecision::Approved, "anna").await.unwrap();
    hub.stop().await;
    let hub = Running::start_with(dir.path(), &APPROVAL).await;
    assert_eq!(enrol(&hub, &thief, "uid-1").await.err(), Some(Code::FailedPrecondition));
    enrol(&hub, &key, "uid-1").await.unwrap();
    assert_eq!(hub.pending("berlin"), None);
    let again = enrol(&hub, &key, "uid-1").await;
    let agent = again.expect("a lost answer may be asked for again, without another approval");
    agent.connect(&hub, "berlin", vec![]).await;
    assert_eq!(hub.audited("cluster.pending", 1).await.len(), 1);
    // And not the other key's.
    assert_eq!(hub.audited("cluster.approve", 1).await, [format!("berlin: the key {}", fingerprint(&key))]);
    let log = hub.hub.store.audit_log(100).await.unwrap();
    let mut steps: Vec<_> = log.iter().filter(|line| line.action != "cluster.self-test").collect();
    steps.sort_by_key(|line| line.at);
    let steps: Vec<_> = steps.iter().map(|line| (line.who.as_str(), line.action.as_str())).collect();
    let enrols = ("enrolment", "cluster.enrol");
    assert_eq!(steps, [("enrolment", "cluster.pending"), ("anna", "cluster.approve"), enrols, enrols]);
    hub.stop().await;
}

#[tokio::test]
async fn a_denied_token_is_good_for_nobody_and_who_waits_is_forgotten_with_the_token() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start_with(dir.path(), &APPROVAL).await;
    let token = hub.token("berlin").await;
    let key = KeyPair::generate().unwrap();
    let asked = async |token: &str, key: &KeyPair| {
        Agent::enrol_with(dir.path(), &hub, token, "uid-1", key).await.err().map(|status| status.code())
    };
    assert_eq!(asked(&token, &key).await, Some(Code::Aborted));
    let fleet = &hub.hub.fleet;
    fleet.decide_enrolment("berlin", &fingerprint(&key), EnrolmentDecision::Denied, "anna").await.unwrap();
    let another = KeyPair::generate().unwrap();
    for key in [&key, &another] {
        assert_eq!(asked(&token, key).await, Some(Code::PermissionDenied));
    }
    let late = fleet.decide_enrolment("berlin", &fingerprint(&key), EnrolmentDecision::Approved, "anna").await;
    assert!(late.unwrap_err().to_string().contains("fleetcheck cluster token berlin"));

    let token = fleet.new_token("berlin", false).await.unwrap().token;
    assert_eq!(hub.pending("berlin"), None);
    assert_eq!(asked(&token, &another).await, Some(Code::Aborted));
    assert_eq!(hub.pending("berlin").unwrap().key_fingerprint, fingerprint(&another));
    // With the token ends who waits for it.
    let mut known = hub.hub.store.enrolment_token("berlin").await.unwrap().unwrap();
    known.expires_at = Timestamp::now();
    hub.hub.store.put_enrolment_token("berlin", &known).await.unwrap();
    assert_eq!(asked(&token, &another).await, Some(Code::FailedPrecondition));
    hub.stop().await;
}

#[tokio::test]
async fn each_session_begins_with_a_self_test_until_one_has_passed_and_a_new_enrolment_begins_anew() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    assert_eq!(hub.self_test("berlin"), None);
    // An agent that knows no self-test, one that may not, one that fails, and at last one that passes.
    for (layer, outcome) in [(Layer::Agent, SelfTestOutcome::Unknown), (Layer::Policy, SelfTestOutcome::NotRun)] {
        for _ in 0..2 {
            let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
            let asked = session.self_test().await.expect("a self-test is asked for");
            session.refuse(&asked, layer, "not here").await;
            eventually("the refusal", || hub.self_test("berlin").is_some_and(|test| test.outcome == outcome)).await;
        }
    }
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    session.self_test().await.expect("another one");
    let failed = SelfTest::new(SelfTestOutcome::TimedOut, "no Argo controller took it up", Timestamp::now());
    session.send(AgentFrame::SelfTest(failed.clone())).await;
    eventually("the failure", || hub.self_test("berlin") == Some(failed.clone())).await;
    let shown = || hub.hub.fleet.view().clusters["berlin"].view.message.clone();
    eventually("word of it", || shown().contains("its self-test failed: no Argo controller")).await;
    drop(session);

    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let asked = session.self_test().await.expect("one more");
    session.passes(&asked).await;
    eventually("success", || hub.self_test("berlin").is_some_and(|test| test.passed())).await;
    eventually("nothing odd", || shown().is_empty()).await;
    drop(session);
    let objects = hub.audited("cluster.self-test", 4).await;
    assert_eq!(objects.len(), 4, "each excuse once: {objects:?}");
    assert!(objects[0].starts_with("berlin: Succeeded: "), "{objects:?}");
    hub.stop().await;

    let hub = Running::start(dir.path()).await;
    assert!(hub.self_test("berlin").unwrap().passed(), "it outlives the hub");
    let (mut old, _) = agent.connect(&hub, "berlin", vec![]).await;
    old.send(AgentFrame::reports(vec![report(1)])).await;
    assert_eq!(old.self_test().await, None, "no more");
    let token = hub.hub.fleet.new_token("berlin", false).await.unwrap().token;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    assert_eq!(hub.self_test("berlin"), None, "what an earlier enrolment showed says nothing of this one");
    old.send(AgentFrame::SelfTest(SelfTest::new(SelfTestOutcome::Succeeded, "ran", Timestamp::now()))).await;
    old.send(AgentFrame::reports(vec![report(2)])).await;
    assert_eq!(old.ack().await, 2);
    assert_eq!(hub.self_test("berlin"), None, "the session goes by the earlier enrolment");
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    assert!(session.self_test().await.is_some());
    drop(session);
    hub.stop().await;
}
