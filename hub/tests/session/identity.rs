//! Who may enrol, who may speak for a cluster, and for how long.

use std::sync::Arc;

use active_monitor_core::session::frame::Heartbeat;
use active_monitor_core::state::Sample;
use active_monitor_hub::metrics::{HubMetrics, Wanted};

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

/// What an agent says of a cluster that nobody else says: a check with a value of its own, and a run of it.
struct Words {
    name: &'static str,
    value: f64,
}

impl Words {
    fn state(&self) -> CheckState {
        let sample = Sample { metric: "depth".into(), help: String::new(), value: self.value };
        CheckState { samples: vec![sample], ..check(self.name) }
    }

    fn report(&self, seq: u64) -> Report {
        let mut report = report(seq);
        report.run.name = self.name.into();
        report.run.key.check_uid = format!("uid-{}", self.name);
        report
    }

    /// What a session begins with once it is welcomed, and everything else that there is to say.
    fn frames(&self) -> Vec<AgentFrame> {
        let status = DefinitionStatus {
            name: "pushed".into(),
            generation: 1,
            result: DefinitionResult::Applied,
            message: String::new(),
        };
        let beat = Heartbeat { sent_at: Timestamp::now(), backlog: 99, dropped_reports: 77 };
        vec![
            AgentFrame::Snapshot { checks: vec![self.state()], last: true },
            AgentFrame::CheckUpsert(Box::new(CheckState { phase: Phase::Failed, ..check("dns") })),
            AgentFrame::CheckRemoved("uid-dns".into()),
            AgentFrame::reports(vec![self.report(3), self.report(4)]),
            AgentFrame::DefinitionsStatus { nonce: 1, statuses: vec![status] },
            AgentFrame::Heartbeat(beat),
        ]
    }
}

/// Everything that the hub shows and keeps of a cluster.
async fn all_of(hub: &Running, cluster: &str) -> String {
    let exposition =
        HubMetrics::new(prometheus::Registry::new()).exposition(&hub.hub.fleet.view(), Timestamp::now(), Wanted::all());
    let metrics = String::from_utf8(exposition.flatten().collect()).unwrap();
    let entry = Arc::clone(&hub.hub.fleet.view().clusters[cluster]);
    let store = &hub.hub.store;
    format!(
        "{metrics}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        entry.checks,
        entry.view.checks,
        store.check_states(cluster).await.unwrap(),
        store.definition_statuses().await.unwrap(),
        hub.history(cluster).await,
    )
}

#[tokio::test]
async fn nothing_of_a_clone_reaches_the_hub_and_after_a_rebind_all_of_the_rebuilt_cluster_does() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    hub.hub.fleet.put_definition(definition("pushed", "x")).await.unwrap();
    let token = hub.token("berlin").await;
    hub.hub.fleet.patch_cluster("berlin", env("prod")).await.unwrap();
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (real, clone) = (Words { name: "dns", value: 11.5 }, Words { name: "ghost", value: 666.25 });
    let (mut session, _) = agent.connect(&hub, "berlin", vec![real.state()]).await;
    session.send(AgentFrame::reports(vec![real.report(1), real.report(2)])).await;
    assert_eq!(session.ack().await, 2);
    eventually("a green check", || hub.check_status("berlin", "dns") == Some(CheckStatus::Succeeded)).await;

    // The clone has the certificate and the journal. It says everything at once, before and after it hears that it must go.
    for incarnation in ["i1", "i2", "i3"] {
        let next = Hello { next_seq: 5, dropped_reports: 77, ..hello("berlin", "uid-2", incarnation) };
        let mut refused = agent.dial(&hub, next).await.unwrap();
        for frame in clone.frames() {
            // What is sent may already be cut off: both is right.
            let _ = refused.frames.send(frame.into()).await;
        }
        assert!(refused.go_away().await.contains("uid-2"));
        for frame in clone.frames() {
            let _ = refused.frames.send(frame.into()).await;
        }
        within("the end of the clone's session", refused.frames.closed()).await;
    }
    // The real one's session goes on, and what it says since then is all that there is.
    session.send(AgentFrame::reports(vec![real.report(5)])).await;
    assert_eq!(session.ack().await, 5);
    let all = all_of(&hub, "berlin").await;
    assert!(!all.contains("ghost") && !all.contains("666.25") && !all.contains("Applied"), "{all}");
    assert!(all.contains("11.5"), "{all}");
    assert_eq!(hub.check_status("berlin", "dns"), Some(CheckStatus::Succeeded));
    let view = hub.hub.fleet.view().clusters["berlin"].view.clone();
    assert!(view.status == ClusterStatus::Connected && view.message.contains("uid-2"), "{view:?}");
    assert_eq!((view.backlog, view.dropped_reports), (0, 0));
    assert_eq!(hub.history("berlin").await.len(), 3);

    // The rebuilt cluster takes the name. The old one is the clone now.
    let token = hub.hub.fleet.new_token("berlin", true).await.unwrap().token;
    assert_eq!(session.go_away().await, "the cluster was bound anew");
    let before = hub.history("berlin").await;
    let rebuilt = Agent::enrol(dir.path(), &hub, &token, "uid-2").await.unwrap();
    let journal = Hello { journal_id: "k".into(), ..hello("berlin", "uid-2", "i4") };
    let mut session = rebuilt.dial(&hub, journal).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    session.send(AgentFrame::Snapshot { checks: vec![clone.state()], last: true }).await;
    session.send(AgentFrame::reports(vec![clone.report(1), clone.report(2)])).await;
    assert_eq!(session.ack().await, 2);
    eventually("the rebuilt one's check", || hub.check_status("berlin", "ghost") == Some(CheckStatus::Succeeded)).await;
    let refused = agent.dial(&hub, hello("berlin", "uid-1", "i5")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(hub.check_status("berlin", "dns"), None);
    // What is kept for the next start is saved a little later.
    within("the end of what the old one said", async {
        while all_of(&hub, "berlin").await.contains("11.5") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(all_of(&hub, "berlin").await.contains("666.25"));
    let after = hub.history("berlin").await;
    assert_eq!(after, [vec![clone.report(2).run, clone.report(1).run], before].concat());
    hub.stop().await;
}
