//! What must be true of the world, whatever happened in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use active_monitor_core::capacity::Limits;
use active_monitor_core::check::Check;
use active_monitor_core::decide::run_now;
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::invariants;
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::status;
use active_monitor_core::workflow::WorkflowPhase;
use jiff::Timestamp;

use super::agent::ASK_AGAIN;
use super::election::Replicas;
use super::server::{Millis, instant, whole};
use super::world::World;

/// Seconds that a check may be late in calm, beyond its own times: the longest pause between two tries, the grace after a
/// deadline, and a late request.
const SLACK: u64 = 60 + 2 * GRACE + 20;
/// Seconds beyond its deadline that a run gets.
const GRACE: u64 = 10;

/// What the oracle keeps.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Workflows that were created for each run.
    created: BTreeMap<RunKey, Vec<String>>,
    /// Workflows that a process knows to exist, by a note that no crash took.
    pub(crate) sure: BTreeSet<String>,
    /// What reached the hub.
    recorded: BTreeMap<RunKey, Run>,
    /// What the journals said of each run, with the disk that each was on.
    said: BTreeMap<RunKey, Vec<(Run, u64)>>,
    /// Runs that a status has counted.
    counted: BTreeSet<RunKey>,
    /// Runs that were known to a disk which another one followed in leading before they were counted.
    handed_over: BTreeSet<RunKey>,
    /// Runs whose workflow was made by a request that came after its time.
    came_late: BTreeSet<RunKey>,
    disks: [u64; 2],
    disks_lost: u64,
    /// The disk of the one that leads, or led last.
    leader: u64,
    /// When remedies were created since the last success of each check.
    remedies: BTreeMap<String, Vec<(Millis, String)>>,
    /// Checks whose limits may have changed.
    pub(crate) edited: BTreeSet<String>,
    calm_at: Millis,
    /// The runs that each request for a run out of schedule, by uid and value, was to be.
    asked: BTreeMap<(String, String), BTreeSet<RunKey>>,
    /// What must run in calm, and the seconds that it has for it.
    owed: Vec<Owed>,
}

/// A run that must come.
struct Owed {
    uid: String,
    /// The request that it obeys; otherwise it is one on schedule.
    token: Option<String>,
    seconds: u64,
}

impl World {
    /// Whether several replicas know each a part of what happened.
    fn is_shared(&self) -> bool {
        self.replicas != Replicas::One
    }

    pub(crate) fn disk_lost(&mut self, replica: usize) {
        self.ledger.disks_lost += 1;
        self.ledger.disks[replica] = 1 + self.ledger.disks_lost;
    }

    fn disk(&self, replica: usize) -> u64 {
        2 * self.ledger.disks[replica] + replica as u64
    }

    pub(crate) fn began_to_lead(&mut self, replica: usize) {
        let leader = self.disk(replica);
        self.ledger.leader = leader;
        let (counted, said) = (&self.ledger.counted, &self.ledger.said);
        let elsewhere = |said: &Vec<(Run, u64)>| said.iter().all(|(_, disk)| *disk != leader);
        let handed_over = said.iter().filter(|(key, said)| !counted.contains(*key) && elsewhere(said));
        let handed_over: Vec<RunKey> = handed_over.map(|(key, _)| key.clone()).collect();
        self.ledger.handed_over.extend(handed_over);
    }

    /// A process has noted that it will make this run.
    pub(crate) fn intended(&mut self, key: &RunKey, token: Option<&str>) {
        let Some(token) = token else { return };
        let asked = self.ledger.asked.entry((key.check_uid.clone(), token.to_owned())).or_default();
        asked.insert(key.clone());
    }

    pub(crate) fn created(&mut self, key: &RunKey, name: &str, token: Option<&str>) {
        self.asked_once(key, token);
        if self.is_late {
            self.ledger.came_late.insert(key.clone());
        }
        let is_shared = self.is_shared();
        let earlier = self.ledger.created.entry(key.clone()).or_default();
        for before in earlier.iter() {
            let alive = self.server.workflows.get(before).is_some_and(|workflow| workflow.done_at.is_none());
            assert!(before == name || !alive, "two live workflows of {key:?}: {before} and {name}");
            // Nothing in the cluster says any more that it ran: only the journal could, and it does not stop a request
            // that is on its way.
            let unknown = self.is_late || !self.ledger.sure.contains(before);
            let excused = is_shared || (unknown && self.server.gone.contains(before));
            assert!(excused, "{key:?} a second time: {before}, then {name}");
        }
        earlier.push(name.to_owned());
        if key.kind == RunKind::Remedy {
            self.remedy_created(&key.check_uid, name);
        }
    }

    /// Whether a request is not obeyed a second time: unless the first run of it came to nothing, by all that is known.
    fn asked_once(&self, key: &RunKey, token: Option<&str>) {
        let Some(asked) = token.and_then(|token| self.ledger.asked.get(&(key.check_uid.clone(), token.to_owned())))
        else {
            return;
        };
        let ran = |other: &&RunKey| {
            let sure = self.ledger.created.get(*other).is_some_and(|names| names.iter().any(|n| self.is_sure(n)));
            *other != key && (sure || self.ledger.recorded.contains_key(*other))
        };
        let before = asked.iter().find(ran);
        assert!(
            before.is_none() || self.is_shared() || self.is_late,
            "{token:?} ran as {before:?}, and runs as {key:?}"
        );
    }

    fn is_sure(&self, name: &String) -> bool {
        self.ledger.sure.contains(name)
    }

    fn remedy_created(&mut self, uid: &str, name: &str) {
        let check = self.server.checks.values().find(|check| check.metadata.uid.as_deref() == Some(uid));
        let remedy = check.and_then(|check| Check::parse(check).ok()).and_then(|check| check.remedy);
        let known = self.ledger.remedies.get(uid).cloned().unwrap_or_default();
        if let Some(limit) = remedy.as_ref().and_then(|remedy| remedy.limit)
            && !self.ledger.edited.contains(uid)
            && !self.is_shared()
        {
            let reset = remedy.and_then(|remedy| remedy.reset_seconds);
            let since = reset.map_or(Millis::MIN, |seconds| self.t - Millis::from(seconds) * 1000);
            // As with slots: one that was deleted before anybody was sure of it is unknown.
            let counts = |name: &String| self.is_sure(name) || !self.server.gone.contains(name);
            let in_window = known.iter().filter(|(at, name)| *at > since && counts(name)).count();
            assert!(in_window < limit as usize, "{uid}: remedy {} of {limit} in its window", in_window + 1);
        }
        let remedies = self.ledger.remedies.entry(uid.to_owned()).or_default();
        remedies.push((self.t, name.to_owned()));
    }

    pub(crate) fn recorded(&mut self, replica: usize, run: Run) {
        let phase = run.workflow.as_ref().and_then(|name| self.server.ended.get(name)).copied();
        let truth = match (run.outcome, run.reason) {
            (Outcome::Succeeded, _) => phase == Some(WorkflowPhase::Succeeded),
            (_, Some(Reason::WorkflowFailed)) => phase == Some(WorkflowPhase::Failed),
            (_, Some(Reason::WorkflowError)) => phase == Some(WorkflowPhase::Error),
            _ => true,
        };
        assert!(truth, "{run:?} is not what became of the workflow: {phase:?}");
        if run.key.kind == RunKind::HealthCheck && run.outcome == Outcome::Succeeded {
            self.ledger.remedies.remove(&run.key.check_uid);
        }
        // A look that was under way when its check was deleted may end after it was forgotten.
        let known = self.ledger.recorded.contains_key(&run.key) && self.server.lives(&run.key.check_uid);
        assert!(!known || self.is_shared(), "{:?} is recorded twice, by {replica}", run.key);
        let disk = self.disk(replica);
        if disk != self.ledger.leader && !self.ledger.counted.contains(&run.key) {
            self.ledger.handed_over.insert(run.key.clone());
        }
        self.ledger.said.entry(run.key.clone()).or_default().push((run.clone(), disk));
        // The hub counts a run once, whoever sends it.
        self.ledger.recorded.entry(run.key.clone()).or_insert(run);
    }

    pub(crate) fn status_changed(&mut self, uid: &str, before: &HealthCheckStatus, after: &HealthCheckStatus) {
        if let Err(broken) = invariants::of_status(before, after) {
            panic!("{broken}");
        }
        let outcome = match (before.success_count == after.success_count, before.failed_count == after.failed_count) {
            (true, true) => return,
            (false, _) => Outcome::Succeeded,
            (true, false) => Outcome::Failed,
        };
        let mark = after.started_at.as_ref().map(|time| time.0);
        let is_it =
            |(run, _): &(Run, u64)| run.outcome == outcome && Some(status::mark(run.key.slot, run.started_at)) == mark;
        let first = RunKey { check_uid: uid.to_owned(), kind: RunKind::HealthCheck, slot: Timestamp::MIN };
        let last = RunKey { slot: Timestamp::MAX, ..first.clone() };
        // Mostly it is the latest one.
        let mut runs = self
            .ledger
            .said
            .range(first..=last)
            .rev()
            .filter(|(key, said)| !self.ledger.counted.contains(*key) && said.iter().any(is_it));
        let Some((key, _)) = runs.next() else {
            panic!("{uid}: {outcome:?} at {mark:?} is counted, and was no run, or was counted before");
        };
        let key = key.clone();
        self.ledger.counted.insert(key);
    }

    /// Whether no status could count this run: who knew of it led no more, and no workflow told who led then.
    fn may_be_uncounted(&self, key: &RunKey) -> bool {
        let names = self.ledger.created.get(key);
        let is_gone = names.is_none_or(|names| names.iter().all(|name| self.server.gone.contains(name)));
        (self.ledger.handed_over.contains(key) && is_gone) || self.ledger.came_late.contains(key)
    }

    /// Each run that was recorded is in the counters, but for what nobody could know any more.
    fn counted_exactly(&self, uid: &str, counted: i64) {
        let of_check = |key: &&RunKey| key.check_uid == uid && key.kind == RunKind::HealthCheck;
        let all = self.ledger.counted.iter().filter(of_check).count() as i64;
        assert_eq!(counted, all, "{uid}: the counters went back, or ahead");
        let recorded = self.ledger.recorded.keys().filter(of_check);
        let mut left_out = recorded.filter(|key| !self.ledger.counted.contains(*key) && !self.may_be_uncounted(key));
        let left_out = left_out.next();
        assert!(left_out.is_none(), "{left_out:?} was recorded and never counted");
    }

    pub(crate) fn calm_began(&mut self) {
        self.ledger.calm_at = self.t;
        let now = instant(self.t);
        let valid = |resource: &Arc<HealthCheck>| {
            let token = resource.metadata.annotations.as_ref().and_then(run_now);
            Some((token, Check::parse(resource).ok()?))
        };
        let checks: Vec<_> = self.server.checks.values().filter_map(valid).collect();
        // A calendar's gap from now is what is left of it.
        let next = |check: &Check| check.slots().and_then(|slots| slots.next(now)).unwrap_or(now);
        let runs = |check: &Check| {
            let timeout = |kind| check.timeout_seconds(kind, now).max(check.timeout_seconds(kind, next(check)));
            [RunKind::HealthCheck, RunKind::Remedy].into_iter().map(|kind| u64::from(timeout(kind))).sum::<u64>()
        };
        // Who waits for a place waits for one turn of each other check: before his slot, and once more at it.
        let limited = self.agents.iter().flatten().any(|agent| agent.book.limits != Limits::default());
        let turn = |check: &Check| runs(check) + 2 * GRACE + ASK_AGAIN.unsigned_abs() / 1000;
        // Nobody may lead for the rest of a lease.
        let lease = if self.replicas == Replicas::Elected { 40 } else { 0 };
        let turns: u64 = if limited { 2 * checks.iter().map(|(_, check)| turn(check)).sum::<u64>() } else { 0 };
        for (token, check) in checks {
            let seconds = runs(&check) + self.seconds_in_flight(&check.uid) + SLACK + turns + lease;
            let uid = check.uid.clone();
            let asked = token.map(|token| Owed { uid: uid.clone(), token: Some(token), seconds });
            self.ledger.owed.extend(asked);
            if let Some(slots) = check.slots() {
                let gap = slots.gap(now).max(slots.gap(next(&check))).as_secs();
                // An interval's second slot comes after one and a half of them, and a run in flight may use its whole
                // time.
                self.ledger.owed.push(Owed { uid, token: None, seconds: gap + gap / 2 + seconds });
            }
        }
    }

    /// What is left of the time of a check's run in flight, which may have begun under another specification.
    fn seconds_in_flight(&self, uid: &str) -> u64 {
        let of_check = self.server.workflows.values().filter(|workflow| workflow.seen.key.check_uid == uid);
        let live = of_check.filter(|workflow| workflow.done_at.is_none()).map(|workflow| &workflow.seen);
        let left = live.map(|seen| {
            let ran = whole(self.t).duration_since(seen.created).as_secs();
            (i64::from(seen.deadline_seconds.unwrap_or(0)) - ran).max(0).unsigned_abs()
        });
        left.max().unwrap_or(0)
    }

    /// Whether what is owed has come in its time.
    fn has_come(&self, owed: &Owed) -> bool {
        let began = whole(self.ledger.calm_at);
        match &owed.token {
            Some(token) => {
                let runs = self.ledger.asked.get(&(owed.uid.clone(), token.clone()));
                runs.is_some_and(|runs| runs.iter().any(|key| self.ledger.recorded.contains_key(key)))
            }
            None => {
                let until = began + std::time::Duration::from_secs(owed.seconds);
                self.runs(&owed.uid, RunKind::HealthCheck).any(|(slot, _)| slot >= began && slot <= until)
            }
        }
    }

    /// Whether a run is one that somebody asked for.
    fn is_asked(&self, run: &Run) -> bool {
        self.ledger.asked.values().any(|keys| keys.contains(&run.key))
    }

    /// Whether what is owed may still come; at least as long as a paused check gets to fall silent.
    pub(crate) fn someone_waits(&self) -> bool {
        let passed = (self.t - self.ledger.calm_at).unsigned_abs() / 1000;
        let waits = |owed: &Owed| passed <= owed.seconds && !self.has_come(owed);
        passed < 90 || self.ledger.owed.iter().any(waits)
    }

    pub(crate) fn everything_ran(&mut self) {
        let began = whole(self.ledger.calm_at);
        for owed in &self.ledger.owed {
            let Owed { uid, token, seconds } = owed;
            assert!(self.has_come(owed), "{uid} has no run ({token:?}) within {seconds} s after {began}");
        }
        for check in self.server.checks.values() {
            let uid = check.metadata.uid.as_deref().unwrap();
            let status = check.status.clone().unwrap_or_default();
            let counted = (status.success_count.unwrap_or(0), status.failed_count.unwrap_or(0));
            let count =
                |outcome| self.runs(uid, RunKind::HealthCheck).filter(|(_, run)| run.outcome == outcome).count();
            let recorded = (count(Outcome::Succeeded) as i64, count(Outcome::Failed) as i64);
            // What ended before the check became invalid is counted once it is valid again.
            if self.replicas == Replicas::Elected && Check::parse(check).is_ok() {
                self.counted_exactly(uid, counted.0 + counted.1);
            } else if self.is_shared() || Check::parse(check).is_err() {
                assert!(counted.0 + counted.1 <= recorded.0 + recorded.1, "{uid}: {counted:?} of {recorded:?}");
            } else {
                assert_eq!(counted, recorded, "{uid}: counters are not the outcomes");
            }
            let parsed = Check::parse(check);
            let paused = parsed.is_ok_and(|check| check.stopped_because().is_some());
            let late = |(slot, run): (Timestamp, &Run)| {
                slot > began + std::time::Duration::from_secs(60) && !self.is_asked(run)
            };
            assert!(!paused || !self.runs(uid, RunKind::HealthCheck).any(late), "{uid} is paused and ran");
        }
    }

    fn runs<'a>(&'a self, uid: &'a str, kind: RunKind) -> impl Iterator<Item = (Timestamp, &'a Run)> {
        let of_check = self.ledger.recorded.iter().filter(move |(key, _)| key.check_uid == uid && key.kind == kind);
        of_check.map(|(key, run)| (key.slot, run))
    }

    pub(crate) fn nothing_is_left(&mut self) {
        let left: Vec<&String> =
            self.server.workflows.iter().filter(|(_, workflow)| workflow.by_agent).map(|(name, _)| name).collect();
        assert!(left.is_empty(), "workflows of deleted checks: {left:?}");
        for (replica, agent) in self.agents.iter().enumerate() {
            let Some(agent) = agent else { continue };
            let uids = self.disks[replica].check_uids();
            assert!(uids.is_empty(), "the journal remembers deleted checks: {uids:?}");
            for key in self.ledger.created.keys() {
                assert!(!agent.knows(&key.check_uid), "the agent remembers {}", key.check_uid);
            }
        }
        if !self.is_shared() {
            // One that was deleted while nobody knew whether it had been created stays unknown.
            let known = |names: &[String]| names.iter().any(|name| self.ledger.sure.contains(name));
            let mut created = self.ledger.created.iter().filter(|(_, names)| known(names));
            let unrecorded = created.find(|(key, _)| !self.ledger.recorded.contains_key(*key));
            assert!(unrecorded.is_none(), "{unrecorded:?} was created and never recorded");
        }
    }
}
