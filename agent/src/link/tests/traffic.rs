//! What the hub sends, and the answers to it.

use super::*;

#[tokio::test]
async fn commands_come_and_their_answers_go_back() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let scope = Scope { namespace: Some("health".into()), name: Some("dns".into()) };
    let command = Command { id: "1".into(), scope, order: Order::RunNow };
    hub.state.lock().commands = vec![command.clone()];
    let process = Process::start(&hub, None);
    let mut agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    let came = tokio::time::timeout(PATIENCE, agent.link.commands.recv()).await.unwrap();
    assert_eq!(came, Some(command));
    let refused = Answer { id: "1".into(), verdict: Err(Refusal::new(Layer::Policy, "not here")) };
    agent.link.answers.send(refused.clone()).await.unwrap();
    until(&hub, "the answer", |state| state.answers == [refused.clone()]).await;
    agent.stop().await;
}

#[tokio::test]
async fn definitions_come_and_their_statuses_go_back() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::new(Hub::new()));
    let definition = Definition { name: "dns".into(), generation: 3, health_check: "{}".into() };
    hub.state.lock().definitions = vec![definition.clone()];
    let process = Process::start(&hub, None);
    let mut agent = Agent::start(dir.path(), &process, Some(hub.token())).await;
    let pushed = tokio::time::timeout(PATIENCE, agent.link.definitions.wait_for(Option::is_some)).await.unwrap();
    let pushed = pushed.unwrap().clone().unwrap();
    assert_eq!(pushed.definitions, [definition]);
    let status = DefinitionStatus {
        name: "dns".into(),
        generation: 3,
        result: DefinitionResult::Applied,
        message: String::new(),
    };
    agent.link.statuses.send((pushed.nonce, vec![status.clone()])).await.unwrap();
    until(&hub, "the status", |state| state.statuses == [status.clone()]).await;
    agent.stop().await;
}
