//! Definitions reach the clusters that their labels pick, and what cannot be read or sent is withdrawn from nobody.

use super::*;

#[tokio::test]
async fn definitions_follow_the_labels_and_their_statuses_are_shown() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    assert_eq!(session.definitions().await.1.len(), 0, "a new session gets the set as it is");
    let definition = parse::from_value(serde_json::json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1",
        "kind": "FleetHealthCheck",
        "metadata": {"name": "dns"},
        "spec": {
            "clusterSelector": {"matchLabels": {"env": "prod"}},
            "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": 60, "description": "${cluster.name}"}},
        },
    }))
    .unwrap();
    let (view, is_new) = hub.hub.fleet.put_definition(definition.clone()).await.unwrap();
    assert!(is_new && view.generation == 1 && view.clusters.is_empty());
    assert!(!hub.hub.fleet.put_definition(definition).await.unwrap().1, "the same again changes nothing");
    assert_eq!(hub.hub.fleet.definitions()["dns"].generation, 1);

    let labels = |value: Option<&str>| ClusterPatch {
        labels: BTreeMap::from([("env".to_owned(), value.map(str::to_owned))]),
        ..ClusterPatch::default()
    };
    let mut events = hub.hub.fleet.events();
    hub.hub.fleet.patch_cluster("berlin", labels(Some("prod"))).await.unwrap();
    let (nonce, pushed) = session.definitions().await;
    assert_eq!(pushed.len(), 1);
    assert!(pushed[0].contains("berlin"), "{}", pushed[0]);
    let refused = DefinitionStatus {
        name: "dns".into(),
        generation: 1,
        result: DefinitionResult::Refused,
        message: "not here".into(),
    };
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses: vec![refused] }).await;
    eventually("a status", || {
        let clusters = hub.hub.fleet.definitions()["dns"].clusters.clone();
        clusters.len() == 1
            && clusters[0].result == Some(DefinitionResult::Refused)
            && clusters[0].message == "not here"
    })
    .await;
    within("event", async {
        while !matches!(*events.recv().await.unwrap().1, Event::Definition { ref name } if name == "dns") {}
    })
    .await;
    hub.hub.fleet.patch_cluster("berlin", labels(None)).await.unwrap();
    assert_eq!(session.definitions().await.1.len(), 0, "what is not selected is withdrawn");
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn a_stored_definition_that_cannot_be_read_is_withdrawn_from_nobody_and_shown() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    hub.hub.fleet.patch_cluster("berlin", env("prod")).await.unwrap();
    hub.hub.fleet.put_definition(definition("dns", "x")).await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let (nonce, pushed) = session.definitions().await;
    assert!(pushed[0].contains("HealthCheck"));
    let status =
        |generation, result| DefinitionStatus { name: "dns".into(), generation, result, message: String::new() };
    let statuses = vec![status(1, DefinitionResult::Applied)];
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses }).await;
    eventually("a status", || {
        hub.hub.fleet.definitions()["dns"].clusters.first().is_some_and(|cluster| cluster.result.is_some())
    })
    .await;
    drop(session);
    // As a hub of another version would have written it.
    hub.hub.store.put_definition("dns", &serde_json::json!({"kind": "FleetHealthCheck", "spec": 7})).await.unwrap();
    hub.stop().await;

    let hub = Running::start(dir.path()).await;
    let shown = hub.hub.fleet.definitions()["dns"].clone();
    assert!(shown.message.contains("cannot read it"), "{}", shown.message);
    assert_eq!((shown.clusters[0].cluster.as_str(), shown.clusters[0].result), ("berlin", None));
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let (nonce, pushed) = session.definitions().await;
    assert_eq!(pushed, [""], "the set names it, so that the agent keeps what it has");
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses: vec![status(0, DefinitionResult::Refused)] }).await;
    let (view, _) = hub.hub.fleet.put_definition(definition("dns", "mended")).await.unwrap();
    assert_eq!(view.message, "");
    assert!(session.definitions().await.1[0].contains("mended"));
    hub.hub.fleet.delete_definition("dns").await.unwrap();
    assert!(session.definitions().await.1.is_empty());
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn a_set_that_a_label_makes_too_large_is_shown_and_changes_nothing_in_the_cluster() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let large = "x".repeat(200 << 10);
    for index in 0..21 {
        hub.hub.fleet.put_definition(definition(&format!("d{index:02}"), &large)).await.unwrap();
    }
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    assert!(session.definitions().await.1.is_empty());
    hub.hub.fleet.patch_cluster("berlin", env("prod")).await.unwrap();
    let (_, pushed) = session.definitions().await;
    assert!(pushed.len() == 21 && pushed.iter().all(String::is_empty), "held, not sent and not withdrawn");
    let shown = hub.hub.fleet.definitions()["d07"].clusters[0].clone();
    assert!(shown.result.is_none() && shown.message.contains("the limit is 4194304"), "{}", shown.message);
    let refused = hub.hub.fleet.put_definition(definition("d99", "small")).await.unwrap_err();
    assert!(refused.to_string().contains("cluster berlin"), "{refused}");
    // What makes it smaller is taken.
    hub.hub.fleet.put_definition(definition("d07", "small")).await.unwrap();
    assert!(session.definitions().await.1.iter().all(|check| check.contains("HealthCheck")));
    assert_eq!(hub.hub.fleet.definitions()["d08"].clusters[0].message, "");
    drop(session);
    hub.stop().await;
}

#[tokio::test]
async fn a_cordoned_cluster_keeps_what_it_has_until_it_is_uncordoned() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let fleet = &hub.hub.fleet;
    fleet.patch_cluster("berlin", env("prod")).await.unwrap();
    fleet.put_definition(definition("dns", "first")).await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let (nonce, pushed) = session.definitions().await;
    assert!(pushed[0].contains("first"));
    let applied = DefinitionStatus {
        name: "dns".into(),
        generation: 1,
        result: DefinitionResult::Applied,
        message: String::new(),
    };
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses: vec![applied] }).await;
    let status = |name: &str| fleet.definitions()[name].clusters[0].clone();
    eventually("a status", || status("dns").result.is_some()).await;

    let cordon = |why: Option<&str>| ClusterPatch {
        labels: BTreeMap::new(),
        annotations: [(CORDON_ANNOTATION.to_owned(), why.map(str::to_owned))].into(),
    };
    fleet.patch_cluster("berlin", cordon(Some("ticket 7"))).await.unwrap();
    assert_eq!(status("dns").result, Some(DefinitionResult::Applied), "what it has is what it shall have");
    fleet.put_definition(definition("dns", "second")).await.unwrap();
    fleet.put_definition(definition("new", "third")).await.unwrap();
    for name in ["dns", "new"] {
        let of = status(name);
        let said = "the cluster is cordoned (ticket 7): it keeps what it has";
        assert_eq!((of.result, of.message.as_str()), (None, said), "{name}");
    }
    // A new session, of the same hub or of one that was restarted, gets nothing either.
    drop(session);
    let (session, _) = agent.connect(&hub, "berlin", vec![]).await;
    drop(session);
    fleet.delete_definition("dns").await.unwrap();
    hub.stop().await;
    let hub = Running::start(dir.path()).await;
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    hub.hub.fleet.patch_cluster("berlin", cordon(None)).await.unwrap();
    // The first that it gets is what holds now.
    let (_, pushed) = session.definitions().await;
    assert!(pushed.len() == 1 && pushed[0].contains("third"), "{pushed:?}");
    drop(session);
    hub.stop().await;
}
