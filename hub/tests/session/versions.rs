//! An agent that is newer than the hub, and one that is far older; a data base that an earlier hub left.

use active_monitor_hub::refusals::Refused;
use active_monitor_hub::store::sqlite::FILE_NAME;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::*;

#[tokio::test]
async fn what_only_a_newer_agent_knows_is_passed_over_and_its_session_goes_on() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("c1").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let (mut session, _) = agent.connect(&hub, "c1", vec![]).await;
    // A frame of a kind that is not known here is one without a kind.
    session.frames.send(v1::AgentFrame { frame: None }).await.unwrap();
    eventually("a count", || hub.hub.refusals.total(Refused::UnknownFrame) == 1).await;
    let mut newer: v1::CheckState = check("dns").into();
    newer.phase = 99;
    let change = v1::check_update::Change::Upsert(newer);
    let update = v1::agent_frame::Frame::CheckUpdate(v1::CheckUpdate { change: Some(change) });
    session.frames.send(v1::AgentFrame { frame: Some(update) }).await.unwrap();
    eventually("the check", || hub.check_status("c1", "dns") == Some(CheckStatus::Pending)).await;
    let view = hub.hub.fleet.view();
    let message = view.check("c1", "health", "dns").unwrap().state.message.clone();
    assert_eq!(message, "its agent is newer than the hub, which does not know the state 99: upgrade the hub");
    // A run whose end is not known here: a gap, and not a guess.
    let mut reports: Vec<v1::Report> = (1..=3).map(|seq| report(seq).into()).collect();
    reports[1].run.as_mut().unwrap().outcome = 99;
    let reports = v1::agent_frame::Frame::Reports(v1::Reports { reports });
    session.frames.send(v1::AgentFrame { frame: Some(reports) }).await.unwrap();
    while session.ack().await < 3 {}
    assert_eq!(hub.history("c1").await, [report(3).run, report(1).run]);
    let query = RunQuery { cluster: Some("c1".into()), limit: 100, ..RunQuery::default() };
    let gaps = hub.hub.store.runs(&query).await.unwrap().gaps;
    assert_eq!(gaps.iter().map(|gap| gap.reports).collect::<Vec<_>>(), [1]);
    hub.stop().await;
}

#[tokio::test]
async fn runs_that_only_a_newer_agent_knows_do_not_hold_up_those_behind_them() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("c1").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let unread = |from: u64| {
        let mut reports: Vec<v1::Report> = (from..from + 100).map(|seq| report(seq).into()).collect();
        reports.iter_mut().for_each(|report| report.run.as_mut().unwrap().outcome = 99);
        v1::AgentFrame { frame: Some(v1::agent_frame::Frame::Reports(v1::Reports { reports })) }
    };
    let missing = async |hub: &Running| {
        let query = RunQuery { cluster: Some("c1".into()), limit: 100, ..RunQuery::default() };
        hub.hub.store.runs(&query).await.unwrap().gaps.iter().map(|gap| gap.reports).sum::<u64>()
    };
    let journal = Hello { next_seq: 1000, ..hello("c1", "uid-1", "i1") };
    // The second time as if no ack had come through.
    for _ in 0..2 {
        let mut session = agent.dial(&hub, journal.clone()).await.unwrap();
        assert!(matches!(session.next().await, HubFrame::Welcome(_)));
        session.send(AgentFrame::Snapshot { checks: vec![], last: true }).await;
        // More than may be under way.
        for from in (1..600).step_by(100) {
            session.frames.send(unread(from)).await.unwrap();
            assert_eq!(session.ack().await, from + 99);
        }
        assert_eq!(missing(&hub).await, 600);
    }
    let mut session = agent.dial(&hub, journal).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    session.send(AgentFrame::Snapshot { checks: vec![], last: true }).await;
    session.send(AgentFrame::reports(vec![report(601)])).await;
    assert_eq!(session.ack().await, 601);
    assert_eq!((hub.history("c1").await, missing(&hub).await), (vec![report(601).run], 600));
    hub.stop().await;
}

#[tokio::test]
async fn an_agent_more_than_two_minors_away_is_taken_and_shown() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let token = hub.token("c1").await;
    let agent = Agent::enrol(dir.path(), &hub, &token, "uid-1").await.unwrap();
    let far = Hello { agent_version: "0.9.0".into(), ..hello("c1", "uid-1", "i1") };
    let mut session = agent.dial(&hub, far).await.unwrap();
    assert!(matches!(session.next().await, HubFrame::Welcome(_)));
    let message = || hub.hub.fleet.view().clusters["c1"].view.message.clone();
    eventually("a warning", || message().contains("more than 2 minors behind 0.9.0: upgrade the hub")).await;
    let near = Hello { agent_version: "0.3.0".into(), ..hello("c1", "uid-1", "i1") };
    let _session = agent.dial(&hub, near).await.unwrap();
    eventually("no warning", || message().is_empty()).await;
    hub.stop().await;
}

/// What is put into a data base to be recorded, and looked for in one that was.
async fn fill(dir: &Path) {
    let hub = Running::start(dir).await;
    let token = hub.token("c1").await;
    let agent = Agent::enrol(dir, &hub, &token, "uid-1").await.unwrap();
    hub.hub.fleet.put_definition(definition("dns-all", "x")).await.unwrap();
    let (mut session, _) = agent.connect(&hub, "c1", vec![check("dns")]).await;
    let (nonce, _) = session.definitions().await;
    let status = DefinitionStatus {
        name: "dns-all".into(),
        generation: 1,
        result: DefinitionResult::Applied,
        message: String::new(),
    };
    session.send(AgentFrame::DefinitionsStatus { nonce, statuses: vec![status] }).await;
    session.send(AgentFrame::reports(vec![report(1), report(2), report(5)])).await;
    while session.ack().await < 5 {}
    eventually("a green check", || hub.check_status("c1", "dns") == Some(CheckStatus::Succeeded)).await;
    hub.stop().await;
}

/// `recorded/VERSION.sql` is what `python3 -c 'import sqlite3; print("\n".join(sqlite3.connect("hub.sqlite").iterdump()))'`
/// printed of the data base that `RECORD=FOLDER` of this test left in the folder.
#[tokio::test]
async fn the_data_base_of_each_version_is_opened_and_nothing_in_it_is_lost() {
    if let Some(folder) = std::env::var_os("RECORD") {
        fill(Path::new(&folder)).await;
        return;
    }
    let dir = TempDir::new().unwrap();
    let options = SqliteConnectOptions::new().filename(dir.path().join(FILE_NAME)).create_if_missing(true);
    let pool = SqlitePool::connect_with(options.foreign_keys(false)).await.unwrap();
    sqlx::raw_sql(include_str!("../recorded/0.1.0.sql")).execute(&pool).await.unwrap();
    pool.close().await;
    let hub = Running::start_with(dir.path(), &["--run-days", "3660", "--audit-days", "3660"]).await;
    assert_eq!(hub.history("c1").await, [report(5).run, report(2).run, report(1).run]);
    let query = RunQuery { cluster: Some("c1".into()), limit: 100, ..RunQuery::default() };
    let gaps = hub.hub.store.runs(&query).await.unwrap().gaps;
    assert_eq!(gaps.iter().map(|gap| gap.reports).collect::<Vec<_>>(), [2]);
    assert_eq!(hub.hub.store.report_cursor("c1", "j").await.unwrap(), Some(5));
    let view = hub.hub.fleet.view();
    assert!(view.check("c1", "health", "dns").is_some());
    assert_eq!(view.summary.definitions, 1);
    let records = hub.hub.fleet.records();
    assert_eq!((records["c1"].agent_keys.len(), records["c1"].cluster_uid.as_deref()), (1, Some("uid-1")));
    let statuses = hub.hub.store.definition_statuses().await.unwrap();
    assert_eq!(statuses[0].1.result, DefinitionResult::Applied);
    assert_eq!(hub.hub.store.api_tokens().await.unwrap()[0].name, "admin");
    hub.stop().await;
}
