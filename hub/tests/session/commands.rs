//! Commands on their way from a person to an agent and back.

use active_monitor_core::command::{Answer, Command, Layer, Order, Refusal, Scope, Subject};
use active_monitor_hub::owner::Undelivered;

use super::*;

fn run_now(id: &str) -> Command {
    let scope = Scope { namespace: Some("health".into()), name: Some("dns".into()) };
    Command { id: id.into(), scope, order: Order::RunNow }
}

fn pause(id: &str, seconds: u64) -> Command {
    let order = Order::Pause { subject: Subject::Remedies, seconds, reason: "release".into(), by: "ann".into() };
    Command { id: id.into(), scope: Scope::default(), order }
}

impl Session {
    /// The next one that a person gave; the hub's own wish for a self-test is passed over.
    pub(super) async fn command(&mut self) -> Command {
        loop {
            if let HubFrame::Command(command) = self.next().await
                && command.order != Order::SelfTest
            {
                return command;
            }
        }
    }

    pub(super) async fn answer(&self, id: &str, verdict: Result<&str, Refusal>) {
        let answer = Answer { id: id.into(), verdict: verdict.map(str::to_owned) };
        self.send(AgentFrame::CommandAnswer(answer)).await;
    }
}

#[tokio::test]
async fn a_command_is_answered_or_its_sender_hears_why_not() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let fleet = hub.hub.fleet.clone();
    assert_eq!(fleet.command("berlin", run_now("0")).await, Err(Undelivered::NotConnected));
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    eventually("a session", || hub.cluster_status("berlin") == Some(ClusterStatus::Connected)).await;
    let give = |command: Command| {
        let fleet = fleet.clone();
        tokio::spawn(async move { fleet.command("berlin", command).await })
    };
    let asked = give(run_now("1"));
    assert_eq!(session.command().await, run_now("1"));
    session.answer("1", Ok("done")).await;
    assert_eq!(within("answer", asked).await.unwrap(), Ok(Answer { id: "1".into(), verdict: Ok("done".into()) }));
    let asked = give(run_now("2"));
    session.command().await;
    let refusal = Refusal::new(Layer::Policy, "not here");
    session.answer("2", Err(refusal.clone())).await;
    assert_eq!(within("refusal", asked).await.unwrap(), Ok(Answer { id: "2".into(), verdict: Err(refusal) }));
    let asked = give(run_now("3"));
    session.command().await;
    drop(session);
    assert_eq!(within("end", asked).await.unwrap(), Err(Undelivered::Closed));
    hub.stop().await;
}

#[tokio::test]
async fn an_answer_to_a_command_that_was_not_given_ends_the_session() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    session.answer("7", Ok("done")).await;
    let refused = within("refusal", async {
        loop {
            match session.answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a word"),
                Err(status) => return status,
            }
        }
    })
    .await;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("\"7\""), "{}", refused.message());
    hub.stop().await;
}

#[tokio::test]
async fn a_pause_in_force_is_repeated_to_an_agent_that_takes_over_until_it_ends() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let now = Timestamp::now();
    let until = now + Duration::from_secs(3600);
    for (id, scope) in [("1", Scope::default()), ("2", Scope { namespace: Some("health".into()), name: None })] {
        let (reason, by) = ("release".to_owned(), "ann".to_owned());
        let pause =
            active_monitor_core::command::Pause { id: id.into(), subject: Subject::Remedies, scope, until, reason, by };
        hub.hub.store.put_pause("berlin", &pause, now).await.unwrap();
    }
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    for (id, namespace) in [("1", None), ("2", Some("health"))] {
        let Command { id: sent, scope, order } = session.command().await;
        assert_eq!((sent.as_str(), scope.namespace.as_deref()), (id, namespace));
        let Order::Pause { seconds, .. } = order else { panic!("{order:?}") };
        assert!((3500..=3600).contains(&seconds), "{seconds}: what is left of it");
        session.answer(id, Ok("paused")).await;
    }
    hub.hub.store.end_pauses("berlin", Subject::Remedies, &Scope::default()).await.unwrap();
    drop(session);
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    eventually("a session", || hub.cluster_status("berlin") == Some(ClusterStatus::Connected)).await;
    let asked = tokio::spawn({
        let fleet = hub.hub.fleet.clone();
        async move { fleet.command("berlin", pause("3", 60)).await }
    });
    assert_eq!(session.command().await, pause("3", 60), "nothing is repeated any more");
    session.answer("3", Ok("paused")).await;
    within("answer", asked).await.unwrap().unwrap();
    hub.stop().await;
}
