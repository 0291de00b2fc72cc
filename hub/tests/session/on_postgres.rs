//! A hub whose data base is on a PostgreSQL server that comes and goes.

use super::*;
use crate::postgres::Database;

#[tokio::test(flavor = "multi_thread")]
async fn every_report_is_on_the_server_once_though_its_connections_are_cut_and_the_hub_starts_anew() {
    let test = "every_report_is_on_the_server_once_though_its_connections_are_cut";
    let Some(database) = Database::create(test).await else { return };
    let dir = TempDir::new().unwrap();
    let store = ["--store", &database.url()].map(str::to_owned);
    let store: Vec<&str> = store.iter().map(String::as_str).collect();
    let hub = Running::start_with(dir.path(), &store).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    for seq in 1..=5 {
        database.cut().await;
        until_acked(&agent, &hub, seq).await;
    }
    hub.stop().await;

    let hub = Running::start_with(dir.path(), &store).await;
    assert_eq!(hub.check_status("berlin", "dns"), Some(CheckStatus::Stale), "the hub knows which checks there are");
    until_acked(&agent, &hub, 6).await;
    let expected: Vec<Run> = (1..=6).rev().map(|seq| report(seq).run).collect();
    assert_eq!(hub.history("berlin").await, expected);
    hub.stop().await;
    assert!(!dir.path().join("hub.sqlite").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_lies_behind_the_runs_before_it_though_their_commit_is_slow() {
    let test = "a_gap_lies_behind_the_runs_before_it_though_their_commit_is_slow";
    let Some(database) = Database::create(test).await else { return };
    let dir = TempDir::new().unwrap();
    let url = database.url();
    let hub = Running::start_with(dir.path(), &["--store", &url]).await;
    let token = hub.token("berlin").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "berlin", vec![]).await;
    let mut connection = database.connect().await;
    let mut slow = sqlx::Connection::begin(&mut connection).await.unwrap();
    sqlx::query("LOCK TABLE runs IN SHARE MODE").execute(&mut *slow).await.unwrap();
    session.send(AgentFrame::reports(vec![report(1), report(2), report(4)])).await;
    let page = async || {
        let query = RunQuery { cluster: Some("berlin".into()), limit: 100, ..RunQuery::default() };
        hub.hub.store.runs(&query).await.unwrap()
    };
    let blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'runs'::regclass";
    within("a commit that waits", async {
        while sqlx::query_scalar::<_, i64>(blocked).fetch_one(&mut *slow).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let too_early = async {
        while page().await.gaps.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), too_early).await.is_err(), "the runs before are not in");
    slow.rollback().await.unwrap();
    while session.ack().await < 4 {}
    let found = page().await;
    let places: Vec<_> = found.gaps.iter().map(|gap| (gap.after, gap.reports)).collect();
    assert_eq!(places, [(found.items[1].id, 1)], "between 2 and 4");
    drop(session);
    hub.stop().await;
}

/// What an agent does: it sends until it is told that the report is on disk.
async fn until_acked(agent: &Agent, hub: &Running, seq: u64) {
    within("ack", async {
        loop {
            let (mut session, _) = agent.connect(hub, "berlin", vec![check("dns")]).await;
            session.send(AgentFrame::reports(vec![report(seq)])).await;
            while let Ok(Some(frame)) = session.answers.message().await {
                if matches!(HubFrame::try_from(frame), Ok(HubFrame::Ack(acked)) if acked == seq) {
                    return;
                }
            }
        }
    })
    .await;
}
