//! What changed, and the versions of the agents.

use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{ChangeSource, ChangeView, CheckStatus, Position, merge};
use active_monitor_hub::store::{AgentVersions, AuditEntry, ChangeQuery, CheckKey, Expired, Store};
use jiff::Timestamp;

use crate::backends::Backend;
use crate::samples::at;

fn query(source: ChangeSource) -> ChangeQuery {
    let (from, to) = (Timestamp::MIN, Timestamp::MAX);
    ChangeQuery { source, from, to, before: None, cluster: None, action_prefix: None, limit: 100 }
}

async fn words(store: &dyn Store, query: ChangeQuery) -> Vec<String> {
    let placed = store.changes(&query).await.unwrap();
    assert!(placed.is_sorted_by(|(a, _), (b, _)| a > b), "newest first");
    let changes = placed.into_iter().map(|(_, change)| change);
    let word = |change: ChangeView| {
        let name = change.name.or(change.cluster).unwrap_or_default();
        let status = |status: Option<CheckStatus>| status.map_or("none", CheckStatus::as_str);
        format!("{name} {} {}>{}", change.message, status(change.was), status(change.status))
    };
    changes.map(|change| change.map_or("hidden".to_owned(), word)).collect()
}

fn versions(cluster: &str, agent: &str) -> AgentVersions {
    AgentVersions { cluster: cluster.into(), agent: agent.into(), kubernetes: "v1.33.5".into() }
}

pub(crate) async fn what_changed_is_read_newest_first_from_each_place(backend: Backend) {
    let open = backend.open().await;
    let store = open.store.as_ref();
    for (second, action, object) in
        [(1, "definition.put", "dns"), (2, "token.create", "ci"), (3, "window.put", "night")]
    {
        let (action, object) = (action.to_owned(), object.to_owned());
        store.audit(&AuditEntry { at: at(second), who: "ann".into(), action, object }).await.unwrap();
    }
    let step = |second: i64, cluster: &str, status| {
        let key = CheckKey { cluster: cluster.into(), namespace: "health".into(), name: "dns".into() };
        (key, Transition { at: at(second), status, maintenance: false })
    };
    let steps = [
        step(1, "east", Some(CheckStatus::Succeeded)),
        step(1, "west", Some(CheckStatus::Pending)),
        step(4, "east", Some(CheckStatus::Failed)),
        step(5, "east", None),
    ];
    store.record_transitions(Life { from: at(0), to: at(9) }, steps.to_vec()).await.unwrap();
    for second in [2, 3] {
        store.note_versions(at(second), vec![versions("east", "0.1.0"), versions("west", "0.1.0")]).await.unwrap();
    }
    store.note_versions(at(6), vec![versions("east", "0.2.0")]).await.unwrap();

    let audit = || query(ChangeSource::Audit);
    assert_eq!(words(store, audit()).await, ["night  none>none", "hidden", "dns  none>none"]);
    assert_eq!(words(store, ChangeQuery { action_prefix: Some("window."), ..audit() }).await.len(), 1);
    let within = ChangeQuery { from: at(2), to: at(3), ..audit() };
    assert_eq!(words(store, within).await, ["hidden"], "from is in, to is not");

    let statuses = || query(ChangeSource::Statuses);
    let of_east = ChangeQuery { cluster: Some("east".into()), ..statuses() };
    let expected = ["dns  Failed>none", "dns  Succeeded>Failed", "dns  none>Succeeded"];
    assert_eq!(words(store, of_east).await, expected);

    let agents = words(store, query(ChangeSource::Versions)).await;
    assert_eq!(agents.len(), 3, "the same is not noted again: {agents:?}");
    let newest = "east agent 0.2.0, Kubernetes v1.33.5; before: agent 0.1.0, Kubernetes v1.33.5 none>none";
    assert_eq!(agents[0], newest);

    let mut paged = Vec::new();
    let mut before: Option<Position> = None;
    loop {
        let mut pages = Vec::new();
        for source in ChangeSource::ALL {
            let before = before.map(|position| position.bound(source));
            pages.push(store.changes(&ChangeQuery { before, limit: 2, ..query(source) }).await.unwrap());
        }
        let (items, next) = merge(pages, 2);
        paged.extend(items);
        before = next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(paged.len(), 9, "{paged:?}");
    assert!(paged.is_sorted_by(|a, b| a.at >= b.at));

    store.prune(Expired::Audit, at(1000), 100).await.unwrap();
    let left = words(store, query(ChangeSource::Versions)).await;
    assert_eq!(left.len(), 2, "the newest of each cluster stays: {left:?}");
}
