//! What every store does. Each test runs on each data base, and on one whose tables a replica of a newer version has changed.

#[path = "contract/changes.rs"]
mod changes;
#[path = "contract/enrolment.rs"]
mod enrolment;
#[path = "contract/incidents.rs"]
mod incidents;
#[path = "contract/restore.rs"]
mod restore;
#[path = "contract/rollups.rs"]
mod rollups;

use std::sync::Arc;

use active_monitor_core::command::{Scope, Subject};
use active_monitor_core::run::{Outcome, Reason, Run};
use active_monitor_core::session::frame::Counted;
use active_monitor_core::session::gaps::Gap;
use active_monitor_core::uptime::{Life, Transition};
use active_monitor_core::view::{CheckStatus, Role};
use active_monitor_hub::store::{
    ApiToken, AuditEntry, EnrolmentToken, Expired, Recorded, RunQuery, Spend, Store, StoreError, TransitionQuery,
};
use jiff::Timestamp;

use self::changes::what_changed_is_read_newest_first_from_each_place;
use self::enrolment::who_waits_goes_with_the_token_and_a_self_test_with_the_enrolment;
use self::incidents::an_incident_is_one_row_from_its_beginning_to_its_end;
use self::restore::{a_restore_waits_for_its_confirmation_and_marks_only_grow, what_git_owns_is_one_thing};
use self::rollups::{
    days_are_replaced_as_a_whole_and_added_up, late_runs_are_found_by_their_numbers_and_their_results_are_kept_once,
    transitions_of_a_time_come_oldest_first,
};
use crate::backends::Backend;
use crate::samples::{acknowledgement, at, check, cluster, key, pause, run, saved, status, window};

/// Makes a test for each data base of each function that takes a [`Backend`].
macro_rules! on_each_data_base {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::backends::Backend::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(backend) = crate::backends::Backend::postgres(stringify!($name)).await {
                    super::$name(backend).await;
                }
            })*
        }
        mod postgres_of_a_newer_version {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(backend) = crate::backends::Backend::of_a_newer_version(stringify!($name)).await {
                    super::$name(backend).await;
                }
            })*
        }
    };
}

on_each_data_base!(
    a_run_is_recorded_once_and_survives_a_reopen,
    a_batch_may_hold_a_run_twice_and_texts_of_any_kind,
    pages_follow_each_other_without_holes_and_filters_hold,
    a_gap_has_its_place_and_moves_the_cursor,
    a_gap_of_unknown_length_is_noted_once_and_only_where_the_history_lacks_the_run_too,
    the_cursor_of_a_journal_only_grows_until_it_is_forgotten,
    writers_at_the_same_time_lose_nothing,
    a_second_hub_is_kept_away,
    a_token_is_spent_by_one_key_and_binds_the_uid,
    who_waits_goes_with_the_token_and_a_self_test_with_the_enrolment,
    of_two_keys_at_once_one_gets_the_token,
    an_unbound_cluster_may_enrol_again,
    a_removed_cluster_leaves_only_its_history,
    generations_grow_over_a_deletion,
    pauses_replace_each_other_and_end,
    tokens_and_the_audit_log_are_kept,
    windows_and_acknowledgements_are_kept_until_they_are_deleted,
    transitions_come_check_by_check_and_oldest_first,
    what_is_too_old_goes_in_batches_and_the_last_word_stays,
    an_incident_is_one_row_from_its_beginning_to_its_end,
    what_changed_is_read_newest_first_from_each_place,
    a_restore_waits_for_its_confirmation_and_marks_only_grow,
    what_git_owns_is_one_thing,
    late_runs_are_found_by_their_numbers_and_their_results_are_kept_once,
    days_are_replaced_as_a_whole_and_added_up,
    transitions_of_a_time_come_oldest_first,
);

const ALL: RunQuery =
    RunQuery { cluster: None, namespace: None, name: None, kind: None, outcome: None, before: None, limit: 1000 };

async fn a_run_is_recorded_once_and_survives_a_reopen(backend: Backend) {
    let open = backend.open().await;
    let told = Run { warning: "from a copy".into(), log_tail: "a\nb".into(), ..run("dns", 1) };
    let runs = vec![run("dns", 0), told];
    let record = async |store: &Arc<dyn Store>, cluster, second| {
        store.record_runs(cluster, runs.clone(), at(second)).await.unwrap()
    };
    assert_eq!(record(&open.store, "a", 5).await, Recorded { new: 2, known: 0 });
    assert_eq!(record(&open.store, "a", 6).await, Recorded { new: 0, known: 2 });
    assert_eq!(record(&open.store, "b", 6).await, Recorded { new: 2, known: 0 });
    assert_eq!(open.store.record_runs("a", Vec::new(), at(6)).await.unwrap(), Recorded::default());
    open.close().await;

    let open = backend.open().await;
    let page = open.store.runs(&RunQuery { cluster: Some("a".into()), ..ALL }).await.unwrap();
    assert_eq!(page.items.iter().map(|item| item.run.clone()).collect::<Vec<_>>(), [runs[1].clone(), runs[0].clone()]);
    assert_eq!(page.items[0].recorded_at, at(5));
    assert_eq!(record(&open.store, "a", 7).await.new, 0);
    open.close().await;
}

async fn a_batch_may_hold_a_run_twice_and_texts_of_any_kind(backend: Backend) {
    let open = backend.open().await;
    let odd = Run { message: "nul \0 and \u{1f4a5} and '\"\\".into(), workflow: None, ..run("o'dd\\\u{1f4a5}", 2) };
    let recorded = open.store.record_runs("a", vec![odd.clone(), run("dns", 1), odd.clone()], at(0)).await.unwrap();
    assert_eq!(recorded, Recorded { new: 2, known: 1 });
    let page = open.store.runs(&RunQuery { name: Some(odd.name.clone()), ..ALL }).await.unwrap();
    let message = &page.items[0].run.message;
    assert!(message.starts_with("nul ") && message.ends_with(" and \u{1f4a5} and '\"\\"), "{message:?}");
    assert_eq!((page.items.len(), &page.items[0].run.workflow), (1, &None));
    // A name that no data base can hold is one that is not there.
    let nobody = RunQuery { name: Some("\0".into()), ..ALL };
    assert!(open.store.runs(&nobody).await.unwrap().items.is_empty());
    assert_eq!(open.store.enrolment_token("\0").await.unwrap(), None);
    open.close().await;
}

async fn pages_follow_each_other_without_holes_and_filters_hold(backend: Backend) {
    let open = backend.open().await;
    let runs: Vec<Run> = (0..25).flat_map(|slot| [run("dns", slot), run("http", slot)]).collect();
    open.store.record_runs("a", runs, at(100)).await.unwrap();
    let mut query = RunQuery { name: Some("dns".into()), limit: 10, ..ALL };
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = open.store.runs(&query).await.unwrap();
        pages += 1;
        seen.extend(page.items.iter().map(|item| item.run.key.slot));
        match page.next {
            Some(next) => query.before = Some(next),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, (0..25).rev().map(at).collect::<Vec<_>>());
    let failed = RunQuery { outcome: Some(Outcome::Failed), limit: 0, ..ALL };
    let page = open.store.runs(&failed).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].run.reason), (1, Some(Reason::WorkflowFailed)));
    open.close().await;
}

async fn a_gap_has_its_place_and_moves_the_cursor(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    let cursor = async || store.report_cursor("a", "j").await.unwrap();
    assert_eq!(cursor().await, None);
    store.put_report_cursor("a", "j", u64::MAX, at(0)).await.unwrap();
    assert_eq!(cursor().await, Some(u64::MAX), "a number of any size is kept");
    store.forget_report_cursor("a", "j").await.unwrap();
    store.record_runs("a", vec![run("dns", 0)], at(0)).await.unwrap();
    store.record_gap("a", "j", Gap { reports: 3, through_seq: 9 }, at(1)).await.unwrap();
    store.record_runs("a", vec![run("dns", 1)], at(2)).await.unwrap();
    store.record_runs("b", vec![run("dns", 1)], at(2)).await.unwrap();
    assert_eq!(cursor().await, Some(9));
    let page = store.runs(&RunQuery { cluster: Some("a".into()), ..ALL }).await.unwrap();
    let places: Vec<_> = page.gaps.iter().map(|gap| (gap.after, gap.reports, gap.noticed_at)).collect();
    assert_eq!(places, [(page.items[1].id, 3, at(1))]);
    // A journal that was not heard of for long is forgotten with the next word of the cluster.
    store.put_report_cursor("a", "new", 1, at(91 * 86_400)).await.unwrap();
    assert_eq!(cursor().await, None);
    open.close().await;
}

async fn a_gap_of_unknown_length_is_noted_once_and_only_where_the_history_lacks_the_run_too(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    let lacking = async |check: &str, mark, second| {
        let runs = [Counted { check_uid: format!("uid-{check}"), mark: at(mark) }];
        store.record_lacking("a", &runs, at(second)).await.unwrap()
    };
    let history = async || store.runs(&RunQuery { cluster: Some("a".into()), ..ALL }).await.unwrap();
    assert!(!lacking("dns", 50, 60).await, "nobody here has heard of the check");
    store.record_runs("a", vec![Run { started_at: at(12), ..run("dns", 10) }], at(14)).await.unwrap();
    store.record_runs("b", vec![run("dns", 100)], at(14)).await.unwrap();
    assert!(!lacking("dns", 12, 60).await, "it came");
    assert!(!lacking("dns", 11, 60).await, "a later one came");
    assert!(lacking("dns", 13, 60).await);
    // The agent's clock may be ahead of ours.
    for again in [13, 50, 60, 500] {
        assert!(!lacking("dns", again, 61).await, "that is said already");
    }
    // What another check says meanwhile makes another place, and no other gap.
    store.record_runs("a", vec![run("tls", 61)], at(62)).await.unwrap();
    assert!(!lacking("dns", 13, 64).await, "that is said already");
    let page = history().await;
    let places: Vec<_> = page.gaps.iter().map(|gap| (gap.after, gap.reports, gap.noticed_at)).collect();
    assert_eq!(places, [(page.items[1].id, 0, at(60))]);
    store.record_runs("a", vec![run("dns", 62)], at(63)).await.unwrap();
    assert!(lacking("dns", 70, 80).await, "another journal is gone");
    assert_eq!(history().await.gaps.len(), 2);
    open.close().await;
}

async fn the_cursor_of_a_journal_only_grows_until_it_is_forgotten(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    let put = async |seq, second| store.put_report_cursor("a", "j", seq, at(second)).await.unwrap();
    let cursor = async || store.report_cursor("a", "j").await.unwrap();
    put(7, 2).await;
    put(5, 1).await;
    put(6, 3).await;
    store.record_gap("a", "j", Gap { reports: 1, through_seq: 4 }, at(3)).await.unwrap();
    assert_eq!(cursor().await, Some(7), "a batch that was overtaken");
    for larger in [8, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        put(larger, 4).await;
        put(larger - 1, 4).await;
        assert_eq!(cursor().await, Some(larger));
    }
    store.put_report_cursor("a", "other", 1, at(4)).await.unwrap();
    store.forget_report_cursor("a", "j").await.unwrap();
    assert_eq!(cursor().await, None);
    put(3, 0).await;
    assert_eq!(cursor().await, Some(3), "a journal that was put back");
    assert_eq!(store.report_cursor("a", "other").await.unwrap(), Some(1));
    open.close().await;
}

async fn writers_at_the_same_time_lose_nothing(backend: Backend) {
    let open = backend.open().await;
    open.store.put_cluster(&cluster("a")).await.unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|slot| {
            let store = Arc::clone(&open.store);
            tokio::spawn(async move {
                // Each uid is written by many at once, and in another order.
                let states = (0..20).map(|n| saved(&format!("{}", (n + slot) % 20))).collect();
                store.save_check_states("a", states, vec![]).await.unwrap();
                store.record_runs("a", vec![run("dns", slot), run("dns", slot + 1)], at(0)).await.unwrap().new
            })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!(new, 201);
    assert_eq!(open.store.runs(&ALL).await.unwrap().items.len(), 201);
    assert_eq!(open.store.check_states("a").await.unwrap().len(), 20);
    open.close().await;
}

async fn a_second_hub_is_kept_away(backend: Backend) {
    let open = backend.open().await;
    let second = backend.location().open().await;
    assert!(matches!(second.err(), Some(StoreError::Locked { .. } | StoreError::InUse)));
    open.close().await;
    backend.open().await.close().await;
}

async fn a_token_is_spent_by_one_key_and_binds_the_uid(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    store.put_cluster(&cluster("a")).await.unwrap();
    let token = EnrolmentToken { hash: [1; 32], expires_at: at(3600), spent_by: None };
    store.put_enrolment_token("a", &token).await.unwrap();
    assert_eq!(store.enrolment_token("a").await.unwrap(), Some(token));
    let spend = async |hash, id, uid: &'static str| store.spend_enrolment_token("a", [hash; 32], &key(id), uid).await;
    assert_eq!(spend(9, 1, "u").await.unwrap(), Spend::Taken);
    assert_eq!(spend(1, 1, "u").await.unwrap(), Spend::Spent);
    assert_eq!(spend(1, 1, "u").await.unwrap(), Spend::Spent);
    assert_eq!(spend(1, 2, "u").await.unwrap(), Spend::Taken);
    assert_eq!(spend(1, 1, "v").await.unwrap(), Spend::OtherUid);
    store.put_cluster(&cluster("a")).await.unwrap();
    let kept = &store.clusters().await.unwrap()[0];
    assert_eq!((kept.cluster_uid.as_deref(), &kept.agent_keys), (Some("u"), &vec![key(1)]));
    assert_eq!((kept.valid_from, kept.created_at), (Some(at(1)), at(0)));
    open.close().await;
}

async fn of_two_keys_at_once_one_gets_the_token(backend: Backend) {
    let open = backend.open().await;
    open.store.put_cluster(&cluster("a")).await.unwrap();
    let token = EnrolmentToken { hash: [1; 32], expires_at: at(3600), spent_by: None };
    open.store.put_enrolment_token("a", &token).await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|id| {
            let store = Arc::clone(&open.store);
            tokio::spawn(async move {
                let uid = format!("uid-{id}");
                store.spend_enrolment_token("a", [1; 32], &key(id), &uid).await.unwrap()
            })
        })
        .collect();
    let mut spent = Vec::new();
    for (id, task) in tasks.into_iter().enumerate() {
        if task.await.unwrap() == Spend::Spent {
            spent.push(format!("uid-{id}"));
        }
    }
    assert_eq!(spent.len(), 1);
    assert_eq!(open.store.clusters().await.unwrap()[0].cluster_uid.as_ref(), Some(&spent[0]));
    open.close().await;
}

async fn an_unbound_cluster_may_enrol_again(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    store.put_cluster(&cluster("a")).await.unwrap();
    store.put_agent_keys("a", &[key(1), key(2)]).await.unwrap();
    assert_eq!(store.clusters().await.unwrap()[0].agent_keys, [key(1), key(2)]);
    store.unbind_cluster("a", at(50)).await.unwrap();
    let kept = &store.clusters().await.unwrap()[0];
    assert_eq!((&kept.cluster_uid, kept.agent_keys.len(), kept.valid_from), (&None, 0, Some(at(50))));
    // By a clock that is behind the one that unbound it.
    let token = EnrolmentToken { hash: [1; 32], expires_at: at(3600), spent_by: None };
    store.put_enrolment_token("a", &token).await.unwrap();
    assert_eq!(store.spend_enrolment_token("a", [1; 32], &key(9), "u").await.unwrap(), Spend::Spent);
    let kept = &store.clusters().await.unwrap()[0];
    assert_eq!((&kept.agent_keys, kept.valid_from), (&vec![key(9)], Some(at(50))), "what was unbound stays void");
    open.close().await;
}

async fn a_removed_cluster_leaves_only_its_history(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    store.put_cluster(&cluster("a")).await.unwrap();
    store.record_runs("a", vec![run("dns", 0)], at(0)).await.unwrap();
    store.put_report_cursor("a", "j", 1, at(0)).await.unwrap();
    store.save_check_states("a", vec![saved("x"), saved("y"), saved("x")], vec![]).await.unwrap();
    store.save_check_states("a", vec![], vec!["y".into()]).await.unwrap();
    assert_eq!(store.check_states("a").await.unwrap(), [saved("x")]);
    store.remove_cluster("a").await.unwrap();
    store.save_check_states("a", vec![saved("late")], vec![]).await.unwrap();
    assert!(store.clusters().await.unwrap().is_empty());
    assert!(store.check_states("a").await.unwrap().is_empty());
    assert_eq!(store.report_cursor("a", "j").await.unwrap(), None);
    assert_eq!(store.runs(&ALL).await.unwrap().items.len(), 1);
    open.close().await;
}

async fn generations_grow_over_a_deletion(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    let body = serde_json::json!({"kind": "FleetHealthCheck"});
    assert_eq!(store.put_definition("d", &body).await.unwrap(), 1);
    assert_eq!(store.put_definition("d", &body).await.unwrap(), 2);
    assert_eq!(store.definitions().await.unwrap()[0].definition, body);
    store.put_definition_statuses("a", vec![status("e"), status("d"), status("d")]).await.unwrap();
    store.put_definition_statuses("a", vec![status("d")]).await.unwrap();
    assert_eq!(store.definition_statuses().await.unwrap(), [("a".to_owned(), status("d"))]);
    store.delete_definition("d").await.unwrap();
    assert!(store.definitions().await.unwrap().is_empty() && store.definition_statuses().await.unwrap().is_empty());
    assert_eq!(store.put_definition("d", &body).await.unwrap(), 3);
    open.close().await;
}

async fn pauses_replace_each_other_and_end(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    let scope =
        |namespace: &str, name: Option<&str>| Scope { namespace: Some(namespace.into()), name: name.map(Into::into) };
    let everywhere = Scope { namespace: None, name: None };
    let all = pause("1", Subject::Checks, everywhere.clone(), at(100));
    let of_one = pause("2", Subject::Checks, scope("health", Some("dns")), at(10));
    let remedies = pause("3", Subject::Remedies, scope("health", None), at(100));
    for pause in [&pause("0", Subject::Checks, everywhere.clone(), at(50)), &all, &of_one, &remedies] {
        store.put_pause("a", pause, at(0)).await.unwrap();
    }
    assert_eq!(store.pauses("a", at(0)).await.unwrap(), [all.clone(), of_one, remedies.clone()]);
    assert_eq!(store.pauses("a", at(10)).await.unwrap(), [all, remedies.clone()]);
    assert!(store.pauses("b", at(0)).await.unwrap().is_empty());
    store.end_pauses("a", Subject::Remedies, &scope("other", None)).await.unwrap();
    store.end_pauses("a", Subject::Checks, &everywhere).await.unwrap();
    assert_eq!(store.pauses("a", at(0)).await.unwrap(), [remedies]);
    store.end_pauses("a", Subject::Remedies, &scope("health", None)).await.unwrap();
    assert!(store.pauses("a", at(0)).await.unwrap().is_empty());
    open.close().await;
}

async fn tokens_and_the_audit_log_are_kept(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    let token = |role| ApiToken { name: "ops".into(), role, hash: [7; 32], created_at: at(0) };
    store.put_api_token(&token(Role::Viewer)).await.unwrap();
    store.put_api_token(&token(Role::Operator)).await.unwrap();
    assert_eq!(store.api_tokens().await.unwrap(), [token(Role::Operator)]);
    store.delete_api_token("ops").await.unwrap();
    assert!(store.api_tokens().await.unwrap().is_empty());
    for (subject, second) in [("s1", 5), ("oidc:ann", 9), ("oidc:ann", 7), ("s2", 10)] {
        store.end_sessions(subject, at(second), at(0)).await.unwrap();
    }
    let ended =
        |all: &[(&str, i64)]| all.iter().map(|(name, second)| ((*name).to_owned(), at(*second))).collect::<Vec<_>>();
    assert_eq!(store.ended_sessions().await.unwrap(), ended(&[("oidc:ann", 9), ("s1", 5), ("s2", 10)]));
    store.end_sessions("s3", at(20), at(10)).await.unwrap();
    assert_eq!(store.ended_sessions().await.unwrap(), ended(&[("s2", 10), ("s3", 20)]), "what is over is forgotten");
    for object in ["a", "b"] {
        let line = AuditEntry { at: at(1), who: "ops".into(), action: "cluster.add".into(), object: object.into() };
        store.audit(&line).await.unwrap();
    }
    let log = store.audit_log(1).await.unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].object, "b");
    open.close().await;
}

async fn windows_and_acknowledgements_are_kept_until_they_are_deleted(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    for name in ["b", "a", "b"] {
        store.put_window(name, Some(&window(name))).await.unwrap();
    }
    assert_eq!(store.windows().await.unwrap(), [window("a"), window("b")]);
    store.put_window("a", None).await.unwrap();
    assert_eq!(store.windows().await.unwrap(), [window("b")]);
    for comment in ["first", "second"] {
        store.put_acknowledgement(&check("dns"), Some(&acknowledgement(comment))).await.unwrap();
    }
    assert_eq!(store.acknowledgements().await.unwrap(), [(check("dns"), acknowledgement("second"))]);
    store.put_acknowledgement(&check("dns"), None).await.unwrap();
    assert!(store.acknowledgements().await.unwrap().is_empty());
    open.close().await;
}

const UP: Option<CheckStatus> = Some(CheckStatus::Succeeded);
const DOWN: Option<CheckStatus> = Some(CheckStatus::Failed);

async fn steps_of(store: &Arc<dyn Store>, name: Option<&str>, from: i64) -> Vec<(String, Transition)> {
    let of = name.map(check);
    let query = TransitionQuery {
        cluster: of.as_ref().map(|key| key.cluster.clone()),
        namespace: of.as_ref().map(|key| key.namespace.clone()),
        name: of.map(|key| key.name),
        from: at(from),
        to: Timestamp::MAX,
    };
    let mut found = Vec::new();
    store.transitions(&query, &mut |key, step| found.push((key.name, step))).await.unwrap();
    found
}

async fn transitions_come_check_by_check_and_oldest_first(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    let step = |second, status, maintenance| Transition { at: at(second), status, maintenance };
    let (first, second, third) = (step(1, UP, false), step(1, DOWN, true), step(5, None, false));
    let steps = [("b", third), ("b", first), ("B", first), ("b", second), ("a-", first), ("a", second), ("a_", first)];
    let steps = steps.map(|(name, step)| (check(name), step)).to_vec();
    store.record_transitions(Life { from: at(0), to: at(1) }, steps).await.unwrap();
    store.record_transitions(Life { from: at(0), to: at(9) }, Vec::new()).await.unwrap();
    assert_eq!(store.lives().await.unwrap(), [Life { from: at(0), to: at(9) }]);
    let found = steps_of(store, None, 0).await;
    let expected =
        [("B", first), ("a", second), ("a-", first), ("a_", first), ("b", first), ("b", second), ("b", third)];
    assert_eq!(found, expected.map(|(name, step)| (name.to_owned(), step)), "of one time, in the order of the list");
    let late = steps_of(store, Some("b"), 4).await;
    assert_eq!(late, [first, second, third].map(|step| ("b".to_owned(), step)), "with what was said last before");
    assert_eq!(steps_of(store, Some("b"), 6).await.len(), 1);
    // A clock that was ahead recorded these; it is 5 now.
    store.record_transitions(Life { from: at(20), to: at(30) }, vec![(check("b"), step(25, UP, false))]).await.unwrap();
    store.forget_after(at(5)).await.unwrap();
    assert_eq!(store.lives().await.unwrap(), [Life { from: at(0), to: at(5) }]);
    assert_eq!(steps_of(store, None, 0).await.len(), expected.len());
    open.close().await;
}

async fn what_is_too_old_goes_in_batches_and_the_last_word_stays(backend: Backend) {
    let open = backend.open().await;
    let store = &open.store;
    for (recorded, slots) in [(0, 0..7), (5, 7..9), (9, 9..10)] {
        let runs = slots.map(|slot| Run { log_tail: "the last line".into(), ..run("dns", slot) }).collect();
        store.record_runs("a", runs, at(recorded)).await.unwrap();
    }
    let prune = async |what, before, limit| store.prune(what, at(before), limit).await.unwrap();
    assert_eq!(prune(Expired::Runs, 5, 4).await, 4);
    assert_eq!(prune(Expired::Runs, 5, 4).await, 3);
    assert_eq!(prune(Expired::Runs, 5, 4).await, 0);
    assert_eq!(prune(Expired::LogTails, 9, 4).await, 2);
    assert_eq!(prune(Expired::LogTails, 9, 4).await, 0);
    let left = store.runs(&ALL).await.unwrap().items;
    let left: Vec<_> = left.iter().map(|item| (item.recorded_at, item.run.log_tail.as_str())).collect();
    assert_eq!(left, [(at(9), "the last line"), (at(5), ""), (at(5), "")]);

    for second in [1, 8] {
        let line = AuditEntry { at: at(second), who: "ops".into(), action: "x".into(), object: "y".into() };
        store.audit(&line).await.unwrap();
    }
    assert_eq!(prune(Expired::Audit, 8, 10).await, 1);
    let steps =
        [("calm", 0, UP), ("busy", 0, UP), ("busy", 1, DOWN), ("busy", 9, UP), ("gone", 3, UP), ("gone", 4, None)];
    let steps =
        steps.map(|(name, second, status)| (check(name), Transition { at: at(second), status, maintenance: false }));
    store.record_transitions(Life { from: at(0), to: at(5) }, steps.to_vec()).await.unwrap();
    store.record_transitions(Life { from: at(6), to: at(9) }, Vec::new()).await.unwrap();
    assert_eq!(prune(Expired::Transitions, 8, 2).await, 2);
    assert_eq!(prune(Expired::Transitions, 8, 2).await, 1);
    let left: Vec<_> = steps_of(store, None, 0).await.into_iter().map(|(name, step)| (name, step.at)).collect();
    assert_eq!(left, [("busy".to_owned(), at(1)), ("busy".to_owned(), at(9)), ("calm".to_owned(), at(0))]);
    assert_eq!(store.lives().await.unwrap(), [Life { from: at(6), to: at(9) }]);

    let sizes = store.sizes().await.unwrap();
    let rows =
        [("runs", 3), ("transitions", 3), ("late_results", 0), ("check_days", 0), ("incidents", 0), ("audit", 1)];
    assert_eq!(sizes.rows, rows);
    assert!(sizes.file_bytes >= sizes.used_bytes && sizes.used_bytes > 10_000, "{sizes:?}");
    open.close().await;
}
