//! An agent that lies: about who it is, about its numbers, in its texts. Refused, typed, counted; nobody else notices.

use active_monitor_core::command::Answer;
use active_monitor_core::session::hub::MAX_SEQ;
use active_monitor_core::state::Sample;
use active_monitor_hub::metrics::{HubMetrics, Wanted};
use active_monitor_hub::refusals::Refused;

use super::*;

impl Session {
    /// How the hub ends the session.
    async fn status(&mut self) -> Status {
        within("an end", async {
            loop {
                match self.answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended without a word"),
                    Err(status) => return status,
                }
            }
        })
        .await
    }
}

async fn enrolled(dir: &Path, hub: &Running, cluster: &str, uid: &str) -> Agent {
    let token = hub.token(cluster).await;
    Agent::enrol(dir, hub, &token, uid).await.unwrap()
}

#[tokio::test]
async fn an_agent_speaks_for_no_other_cluster_not_even_one_whose_name_begins_alike() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let (c1, c10) = (enrolled(dir.path(), &hub, "c1", "uid-1").await, enrolled(dir.path(), &hub, "c10", "uid-1").await);
    let (_session, _) = c10.connect(&hub, "c10", vec![check("dns")]).await;
    eventually("a green check", || hub.check_status("c10", "dns") == Some(CheckStatus::Succeeded)).await;
    for (agent, claimed) in [(&c1, "c10"), (&c10, "c1"), (&c1, "c1 "), (&c1, "C1"), (&c1, "c1/../c10")] {
        let before = hub.hub.refusals.total(Refused::Hello);
        let refused = agent.dial(&hub, hello(claimed, "uid-1", "i2")).await.unwrap().status().await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{claimed}");
        eventually("a count", || hub.hub.refusals.total(Refused::Hello) > before).await;
    }
    // The token of the one does not enrol the other, nor does a certificate renew for another name.
    let token = hub.hub.fleet.new_token("c1", false).await.unwrap().token;
    let other = token.replacen("c1.", "c10.", 1);
    let refused = Agent::enrol(dir.path(), &hub, &other, "uid-1").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut client = c1.client(&hub).await;
    let renewed = client.renew(RenewRequest { csr: signing_request_for("c10") });
    let renewed = within("renewal", renewed).await.unwrap().into_inner();
    let (_, pem) = x509_parser::pem::parse_x509_pem(renewed.certificate.as_bytes()).unwrap();
    let identity = active_monitor_hub::ca::identity(&pem.contents.into()).unwrap();
    assert_eq!(identity.cluster, "c1", "what the request says of a name is not looked at");
    assert_eq!(hub.check_status("c10", "dns"), Some(CheckStatus::Succeeded));
    assert_eq!(hub.history("c10").await, []);
    hub.stop().await;
}

/// A request that claims to be for another cluster.
fn signing_request_for(cluster: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://active-monitor-fleet/cluster/{cluster}");
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[tokio::test]
async fn numbers_that_do_not_grow_and_answers_to_nothing_end_the_session_and_are_counted() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let agent = enrolled(dir.path(), &hub, "c1", "uid-1").await;
    let answer = Answer { id: "9".into(), verdict: Ok("done".into()) };
    let statuses = AgentFrame::DefinitionsStatus { nonce: 99, statuses: vec![] };
    for frame in [
        AgentFrame::reports(vec![report(7), report(7)]),
        AgentFrame::reports(vec![report(7), report(3)]),
        AgentFrame::reports(vec![Report { seq: 0, ..report(1) }]),
        AgentFrame::reports(vec![Report { seq: u64::MAX, ..report(1) }]),
        statuses,
        AgentFrame::CommandAnswer(answer),
        AgentFrame::Hello(hello("c1", "uid-1", "i1")),
        AgentFrame::Snapshot { checks: vec![], last: true },
    ] {
        let before = hub.hub.refusals.total(Refused::Protocol);
        let (mut session, _) = agent.connect(&hub, "c1", vec![]).await;
        session.send(frame.clone()).await;
        assert_eq!(session.status().await.code(), Code::FailedPrecondition, "{frame:?}");
        eventually("a count", || hub.hub.refusals.total(Refused::Protocol) > before).await;
    }
    for (oldest_seq, next_seq) in [(0, 1), (5, 4), (u64::MAX, 1), (1, u64::MAX), (MAX_SEQ, MAX_SEQ + 1)] {
        let odd = Hello { oldest_seq, next_seq, ..hello("c1", "uid-1", "i1") };
        let refused = agent.dial(&hub, odd).await.unwrap().status().await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{oldest_seq} {next_seq}");
    }
    assert_eq!(hub.history("c1").await, [], "nothing of a refused frame is kept");
    // The largest number there may be harms nobody.
    let (mut session, _) = agent.connect(&hub, "c1", vec![]).await;
    session.send(AgentFrame::reports(vec![Report { seq: MAX_SEQ, ..report(1) }])).await;
    assert_eq!(session.ack().await, MAX_SEQ);
    let (mut session, _) = agent.connect(&hub, "c1", vec![]).await;
    session.send(AgentFrame::reports(vec![report(2)])).await;
    assert_eq!(session.ack().await, 2);
    assert_eq!(hub.history("c1").await.len(), 2);
    hub.stop().await;
}

#[tokio::test]
async fn what_a_replaced_session_says_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let agent = enrolled(dir.path(), &hub, "c1", "uid-1").await;
    let (old, first) = agent.connect(&hub, "c1", vec![check("dns")]).await;
    let (_new, second) = agent.connect(&hub, "c1", vec![check("dns")]).await;
    assert!(second.session_epoch > first.session_epoch);
    eventually("a green check", || hub.check_status("c1", "dns") == Some(CheckStatus::Succeeded)).await;
    let mut failed = check("dns");
    failed.phase = Phase::Failed;
    // What is sent may already be cut off: both is right.
    let _ = old.frames.send(AgentFrame::CheckUpsert(Box::new(failed)).into()).await;
    let _ = old.frames.send(AgentFrame::CheckRemoved("uid-dns".into()).into()).await;
    within("the end of the old session", old.frames.closed()).await;
    assert_eq!(hub.check_status("c1", "dns"), Some(CheckStatus::Succeeded));
    hub.stop().await;
}

#[tokio::test]
async fn names_that_would_break_the_metrics_are_escaped_and_huge_ones_refused() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let agent = enrolled(dir.path(), &hub, "c1", "uid-1").await;
    let mut odd = check("dns\",cluster=\"c10\"} 1\nup{x=\"y");
    odd.samples = vec![Sample { metric: "up{cluster=\"c10\"}".into(), help: "a\nup 1".into(), value: 1.0 }];
    let (session, _) = agent.connect(&hub, "c1", vec![odd.clone()]).await;
    eventually("the check", || hub.check_status("c1", &odd.name).is_some()).await;
    let exposition =
        HubMetrics::new(prometheus::Registry::new()).exposition(&hub.hub.fleet.view(), Timestamp::now(), Wanted::all());
    let text = String::from_utf8(exposition.flatten().collect()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("c10")).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("cluster=\"c1\"")), "{lines:?}");
    assert!(!text.lines().any(|line| line.starts_with("up")), "no series of its own making");
    drop(session);
    let before = hub.hub.refusals.total(Refused::Frame);
    let huge = CheckState { namespace: "n".repeat(5000), ..check("dns") };
    let (mut session, _) = agent.connect(&hub, "c1", vec![]).await;
    session.send(AgentFrame::CheckUpsert(Box::new(huge))).await;
    let refused = session.status().await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("CheckState.namespace"), "{}", refused.message());
    eventually("a count", || hub.hub.refusals.total(Refused::Frame) > before).await;
    hub.stop().await;
}

#[tokio::test]
async fn what_an_agent_says_of_its_policy_is_shown_without_what_could_steer_a_terminal_and_bounded() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let agent = enrolled(dir.path(), &hub, "c1", "uid-1").await;
    let said = |policy: Vec<PolicySetting>| Hello { policy, ..hello("c1", "uid-1", "i1") };
    let shows = async |policy: Vec<PolicySetting>, expected: Vec<PolicySetting>| {
        let mut session = agent.dial(&hub, said(policy)).await.unwrap();
        assert!(matches!(session.next().await, HubFrame::Welcome(_)));
        let shown = || hub.hub.fleet.view().clusters["c1"].view.policy.clone();
        eventually(&format!("{expected:?}"), || shown() == expected).await;
    };
    let hostile = PolicySetting::new("remedies\x1b[2J", "\u{7}none\r\nor Bearer abcdefghijkl");
    let expected = PolicySetting::new("remedies", "none or Bearer ***");
    shows(vec![hostile.clone(), hostile], vec![expected.clone(), expected]).await;
    // An older agent takes over, and nothing stays of what the newer one said.
    shows(vec![], vec![]).await;

    // What an honest one never sends is refused with its session.
    let setting = v1::PolicySetting { name: "rules".into(), value: "x".into() };
    let long = v1::PolicySetting { value: "x".repeat(1025), ..setting.clone() };
    let before = hub.hub.refusals.total(Refused::Frame);
    for policy in [vec![long], vec![setting; MAX_SETTINGS + 1]] {
        let frame = v1::agent_frame::Frame::Hello(v1::Hello { policy, ..said(vec![]).into() });
        let (frames, queued) = mpsc::channel::<v1::AgentFrame>(1);
        frames.send(v1::AgentFrame { frame: Some(frame) }).await.unwrap();
        let mut client = agent.client(&hub).await;
        let answer = within("an answer", client.session(ReceiverStream::new(queued))).await;
        let refused = match answer {
            Ok(answers) => Session { frames, answers: answers.into_inner() }.status().await,
            Err(status) => status,
        };
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    eventually("two counts", || hub.hub.refusals.total(Refused::Frame) == before + 2).await;
    hub.stop().await;
}
