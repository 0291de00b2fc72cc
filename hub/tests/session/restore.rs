//! A hub that comes back from the past, by a backup or by a snapshot of its volume.

use active_monitor_core::command::{Command, Order, Scope};
use active_monitor_hub::backup;

use super::*;

/// Copies the data directory of a hub that was stopped, as a snapshot of its volume does.
fn snapshot(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

async fn set_label(hub: &Running, cluster: &str) {
    let labels = BTreeMap::from([("env".to_owned(), Some("prod".to_owned()))]);
    hub.hub.fleet.patch_cluster(cluster, ClusterPatch { labels, ..ClusterPatch::default() }).await.unwrap();
}

fn marked(mark: &str) -> Hello {
    Hello { hub_mark: mark.into(), ..hello("berlin", "uid-1", "i1") }
}

impl Session {
    /// The next mark, which comes right before definitions, and these.
    async fn marked_definitions(&mut self) -> (String, Vec<String>) {
        loop {
            match self.next().await {
                HubFrame::Mark(mark) => return (mark, self.definitions().await.1),
                HubFrame::Ack(_) | HubFrame::Command(_) | HubFrame::Welcome(_) => {}
                other @ (HubFrame::Definitions { .. } | HubFrame::GoAway { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// Asks the hub for a command to this cluster and says whether it was the next thing that came.
    async fn nothing_before_a_command(&mut self, hub: &Running) {
        let scope = Scope { namespace: Some("n".into()), name: Some("c".into()) };
        let command = Command { id: "1".into(), scope, order: Order::RunNow };
        let (fleet, given) = (hub.hub.fleet.clone(), command.clone());
        let asked = tokio::spawn(async move { fleet.command("berlin", given).await });
        let mut next = self.next().await;
        // The hub's own wish, which changes nothing in the cluster's definitions.
        if matches!(&next, HubFrame::Command(wish) if wish.order == Order::SelfTest) {
            next = self.next().await;
        }
        assert_eq!(next, HubFrame::Command(command));
        asked.abort();
    }
}

#[tokio::test]
async fn a_volume_from_the_past_is_noticed_and_nothing_goes_back_until_a_person_confirms() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    set_label(&hub, "berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    hub.hub.fleet.put_definition(definition("dns", "first")).await.unwrap();
    let mut session = agent.dial(&hub, hello("berlin", "uid-1", "i1")).await.unwrap();
    let (before, first) = session.marked_definitions().await;
    assert!(first[0].contains("first"), "{first:?}");
    hub.stop().await;
    let (old, older) = (snapshot(dir.path()), snapshot(dir.path()));
    let hub = Running::start(dir.path()).await;
    hub.hub.fleet.put_definition(definition("dns", "second")).await.unwrap();
    let mut session = agent.dial(&hub, marked(&before)).await.unwrap();
    let (after, second) = session.marked_definitions().await;
    assert!(second[0].contains("second") && hub.hub.fleet.view().summary.restore.is_none(), "{second:?}");
    hub.stop().await;

    // An agent that got nothing since loses nothing by what the hub has; nor does one that makes a mark up.
    let hub = Running::start(older.path()).await;
    for mark in [before.clone(), after.replace('1', "2"), "18446744073709551615.00".into(), String::new()] {
        let mut session = agent.dial(&hub, marked(&mark)).await.unwrap();
        assert!(session.marked_definitions().await.1[0].contains("first"));
        assert_eq!(hub.hub.fleet.view().summary.restore, None, "{mark}");
    }
    hub.stop().await;

    let hub = Running::start(old.path()).await;
    let mut session = agent.dial(&hub, marked(&after)).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    session.send(AgentFrame::Snapshot { checks: vec![check("dns")], last: true }).await;
    let restore = hub.hub.fleet.view().summary.restore.clone().expect("noticed before the agent is welcomed");
    assert!(restore.reason.contains("berlin was given definitions"), "{}", restore.reason);
    eventually("a session", || hub.cluster_status("berlin") == Some(ClusterStatus::Connected)).await;
    session.nothing_before_a_command(&hub).await;
    hub.stop().await;
    // It stays so over a restart, also for an agent that knows of nothing.
    let hub = Running::start(old.path()).await;
    let mut session = agent.dial(&hub, hello("berlin", "uid-1", "i1")).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    eventually("a session", || hub.cluster_status("berlin") == Some(ClusterStatus::Connected)).await;
    session.nothing_before_a_command(&hub).await;
    hub.hub.fleet.put_definition(definition("dns", "third")).await.unwrap();
    assert!(hub.hub.fleet.definitions()["dns"].message.contains("held back"));
    hub.hub.fleet.confirm_restore().await.unwrap();
    let (_, third) = session.marked_definitions().await;
    assert!(third[0].contains("third"), "{third:?}");
    assert!(hub.hub.fleet.confirm_restore().await.is_err(), "there is nothing to confirm any more");
    // One that comes late with what the hub forgot was confirmed with the others.
    agent.dial(&hub, marked(&after)).await.unwrap().marked_definitions().await;
    assert_eq!(hub.hub.fleet.view().summary.restore, None);
    hub.stop().await;
}

#[tokio::test]
async fn what_a_hub_from_the_past_lacks_is_sent_again_and_what_is_gone_is_a_gap() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    session.send(AgentFrame::reports(vec![report(1)])).await;
    assert_eq!(session.ack().await, 1);
    hub.stop().await;
    let old = snapshot(dir.path());
    let hub = Running::start(dir.path()).await;
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    session.send(AgentFrame::reports((2..=6).map(report).collect())).await;
    while session.ack().await < 6 {}
    hub.stop().await;

    // The agent's journal has dropped what was acked, up to its last file: from 5 on it still has them.
    let hub = Running::start(old.path()).await;
    let later = Hello { oldest_seq: 5, next_seq: 8, ..hello("berlin", "uid-1", "i1") };
    let mut session = agent.dial(&hub, later).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    session.send(AgentFrame::Snapshot { checks: vec![], last: true }).await;
    session.send(AgentFrame::reports((5..=7).map(report).collect())).await;
    while session.ack().await < 7 {}
    let query = RunQuery { cluster: Some("berlin".into()), limit: 100, ..RunQuery::default() };
    let found = hub.hub.store.runs(&query).await.unwrap();
    let slots: Vec<i64> = found.items.iter().map(|run| run.run.key.slot.as_second()).collect();
    let known = [7, 6, 5, 1].map(|seq| report(seq).run.key.slot.as_second());
    assert_eq!(slots, known);
    let gaps: Vec<_> = found.gaps.iter().map(|gap| (gap.after, gap.reports)).collect();
    assert_eq!(gaps, [(found.items[3].id, 3)], "2 to 4 lie behind 1 and are gone");
    hub.stop().await;
}

#[tokio::test]
async fn a_removed_cluster_stays_removed_when_the_hub_is_restored_from_a_backup_that_has_it() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let mut agents = Vec::new();
    for (cluster, uid) in [("berlin", "uid-1"), ("paris", "uid-2")] {
        let token = hub.token(cluster).await;
        agents.push(Agent::enrol(dir.path(), &hub, &token, uid).await.unwrap());
    }
    let mut archive = Vec::new();
    backup::backup(dir.path(), &mut archive).await.unwrap();
    let (mut session, _) = agents[0].connect(&hub, "berlin", vec![]).await;
    let removed = std::time::Instant::now();
    hub.hub.fleet.remove_cluster("berlin").await.unwrap();
    assert_eq!(session.go_away().await, "the cluster was removed");
    assert!(removed.elapsed() < Duration::from_secs(5), "{:?}", removed.elapsed());
    hub.stop().await;

    let new = TempDir::new().unwrap();
    std::fs::copy(dir.path().join("revoked.json"), new.path().join("revoked.json")).unwrap();
    backup::restore(new.path(), archive.as_slice()).await.unwrap();
    let hub = Running::start(new.path()).await;
    assert_eq!(hub.cluster_status("berlin"), None);
    let refused = agents[0].dial(&hub, hello("berlin", "uid-1", "i1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut kept = agents[1].dial(&hub, hello("paris", "uid-2", "i1")).await.unwrap();
    assert!(matches!(kept.next().await, HubFrame::Welcome(_)));
    hub.stop().await;
}
