//! A store for tests in virtual time: the clock stands still while it works.
//!
//! SQLite works in threads of its own, of which tokio's paused clock knows nothing: with every task waiting it would jump to
//! the next timer, and a commit of a millisecond would take as long as anything waits.

use std::sync::Arc;

use active_monitor_core::care::{Acknowledgement, WindowSpec};
use active_monitor_core::command::{Pause, Scope, Subject};
use active_monitor_core::gitops::plan::Ownership;
use active_monitor_core::health::Health;
use active_monitor_core::run::Run;
use active_monitor_core::self_test::SelfTest;
use active_monitor_core::session::frame::Counted;
use active_monitor_core::session::frame::DefinitionStatus;
use active_monitor_core::session::gaps::Gap;
use active_monitor_core::state::CheckState;
use active_monitor_core::uptime::{Class, Day, Late, Life, Transition, Uptime};
use active_monitor_core::view::{Incident, IncidentPage, PendingEnrolment, Placed, Restore, RunPage};
use async_trait::async_trait;
use jiff::Timestamp;

use super::rollups::{CheckDay, CheckFilter, LateRun, RolledUp, Rollups};
use super::{
    AgentKey, AgentVersions, ApiToken, AuditEntry, AuditQuery, ChangeQuery, CheckKey, ClusterRecord, DefinitionRecord,
    EnrolmentToken, Expired, IncidentQuery, Recorded, RunQuery, Sizes, Spend, Store, StoreError, TransitionQuery,
};

/// Waits for work of another thread while tokio's paused clock stands still.
pub(crate) async fn frozen<T>(work: impl Future<Output = T>) -> T {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    // The clock does not go on by itself as long as a blocking task runs.
    let blocked = tokio::task::spawn_blocking(move || wait.recv().ok());
    let result = work.await;
    drop(done);
    blocked.await.expect("it only waits");
    result
}

/// Another store, for which the clock stands still.
pub(crate) struct Frozen<S>(pub(crate) S);

macro_rules! frozen {
    ($trait:ident: $($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl<S: Store> $trait for Frozen<S> {
            $(async fn $method(&self, $($name: $type),*) -> Result<$answer, StoreError> {
                frozen(self.0.$method($($name),*)).await
            })*
        }
    };
}

frozen! {
    Store:
    clusters() -> Vec<ClusterRecord>;
    put_cluster(cluster: &ClusterRecord) -> ();
    remove_cluster(name: &str) -> ();
    put_enrolment_token(cluster: &str, token: &EnrolmentToken) -> ();
    enrolment_token(cluster: &str) -> Option<EnrolmentToken>;
    spend_enrolment_token(cluster: &str, hash: [u8; 32], key: &AgentKey, cluster_uid: &str) -> Spend;
    put_pending_enrolment(cluster: &str, pending: &PendingEnrolment) -> ();
    put_self_test(cluster: &str, self_test: &SelfTest) -> ();
    put_agent_keys(cluster: &str, keys: &[AgentKey]) -> ();
    unbind_cluster(cluster: &str, valid_from: Timestamp) -> ();
    record_runs(cluster: &str, runs: Vec<Run>, at: Timestamp) -> Recorded;
    report_cursor(cluster: &str, journal: &str) -> Option<u64>;
    put_report_cursor(cluster: &str, journal: &str, seq: u64, at: Timestamp) -> ();
    forget_report_cursor(cluster: &str, journal: &str) -> ();
    record_gap(cluster: &str, journal: &str, gap: Gap, at: Timestamp) -> ();
    record_lacking(cluster: &str, runs: &[Counted], at: Timestamp) -> bool;
    runs(query: &RunQuery) -> RunPage;
    check_states(cluster: &str) -> Vec<(CheckState, Health)>;
    save_check_states(cluster: &str, states: Vec<(CheckState, Health)>, removed: Vec<String>) -> ();
    definitions() -> Vec<DefinitionRecord>;
    put_definition(name: &str, definition: &serde_json::Value) -> u64;
    delete_definition(name: &str) -> ();
    definition_statuses() -> Vec<(String, DefinitionStatus)>;
    put_definition_statuses(cluster: &str, statuses: Vec<DefinitionStatus>) -> ();
    pauses(cluster: &str, now: Timestamp) -> Vec<Pause>;
    put_pause(cluster: &str, pause: &Pause, now: Timestamp) -> ();
    end_pauses(cluster: &str, subject: Subject, scope: &Scope) -> ();
    api_tokens() -> Vec<ApiToken>;
    put_api_token(token: &ApiToken) -> ();
    delete_api_token(name: &str) -> ();
    ended_sessions() -> Vec<(String, Timestamp)>;
    end_sessions(subject: &str, at: Timestamp, over: Timestamp) -> ();
    audit(entry: &AuditEntry) -> ();
    audit_log(limit: u32) -> Vec<AuditEntry>;
    prune(what: Expired, before: Timestamp, limit: u32) -> u64;
    windows() -> Vec<WindowSpec>;
    put_window(name: &str, spec: Option<&WindowSpec>) -> ();
    acknowledgements() -> Vec<(CheckKey, Acknowledgement)>;
    put_acknowledgement(key: &CheckKey, acknowledgement: Option<&Acknowledgement>) -> ();
    record_transitions(life: Life, transitions: Vec<(CheckKey, Transition)>) -> ();
    transitions(query: &TransitionQuery, visit: &mut (dyn FnMut(CheckKey, Transition) + Send)) -> ();
    lives() -> Vec<Life>;
    forget_after(now: Timestamp) -> ();
    put_incidents(incidents: &[Arc<Incident>]) -> ();
    open_incidents() -> Vec<Incident>;
    incidents(query: &IncidentQuery) -> IncidentPage;
    audit_page(query: &AuditQuery) -> Vec<(i64, AuditEntry)>;
    changes(query: &ChangeQuery) -> Vec<Placed>;
    note_versions(at: Timestamp, versions: Vec<AgentVersions>) -> ();
    restore() -> Option<Restore>;
    put_restore(restore: &Restore) -> ();
    confirm_restore(at: Timestamp) -> ();
    mark(cluster: &str) -> u64;
    put_mark(cluster: &str, mark: u64) -> ();
    secret(name: &str, fresh: [u8; 32]) -> [u8; 32];
    ownership() -> Option<Ownership>;
    put_ownership(ownership: Option<&Ownership>) -> ();
    sizes() -> Sizes;
}

frozen! {
    Rollups:
    rolled_up() -> RolledUp;
    newest_run(before: Timestamp) -> i64;
    late_runs(after: i64, through: i64, limit: u32) -> Vec<LateRun>;
    put_late(results: Vec<(CheckKey, Late)>) -> ();
    looked_at(run: i64) -> ();
    late_results(checks: &CheckFilter, from: Timestamp, to: Timestamp) -> Vec<(CheckKey, Late)>;
    first_transition() -> Option<Timestamp>;
    transitions_within(
        checks: &CheckFilter,
        from: Timestamp,
        to: Timestamp,
        visit: &mut (dyn FnMut(CheckKey, Transition) + Send)
    ) -> ();
    put_days(day: Day, cluster: &str, checks: Vec<CheckDay>) -> ();
    close_day(day: Day) -> ();
    changed_days() -> Vec<(Day, String)>;
    ends(checks: &CheckFilter, day: Day) -> Vec<(CheckKey, Class)>;
    check_sums(checks: &CheckFilter, from: Day, through: Day) -> Vec<(CheckKey, Uptime)>;
    cluster_sums(cluster: Option<&str>, from: Day, through: Day) -> Vec<(String, u64, Uptime)>;
}
